"""Assets: made of the training part alone, and the same in training, OOF, ensemble and kernel."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from kagflow import audit, durable
from kagflow.cli import pack as packing
from kagflow.errors import UsageError
from kagflow.infer import kernel
from kagflow.infer.engine import Settings, predict
from kagflow.infer.members import members_from_config
from kagflow.learn.assets import make_assets
from kagflow.learn.ensemble import Wish, build_ensemble
from kagflow.learn.oof import OofReader
from kagflow.learn.train import train_fold
from kagflow.task.submission import read_submission

ASSETS = {"mean": {"target": "tiny_assets:mean_frame", "kwargs": {}}}
INPUT = {"target": "tiny_assets:AgainstMean", "kwargs": {}}


@pytest.fixture
def home(squares):
    """Return the workspace's home; the manifest names this profile."""
    return squares.parents[1]


@pytest.fixture
def folds(squares, spec, recipe, run_dir):
    """Train both folds of a recipe with an asset."""
    wanted = recipe(assets=ASSETS, input=INPUT, epochs=6)
    for fold in (0, 1):
        train_fold(run_dir.with_name(f"fold{fold}"), wanted, spec, squares, fold=fold)
    return [run_dir.with_name(f"fold{fold}") for fold in (0, 1)]


@pytest.fixture
def ensemble(folds, spec, squares, home):
    value = build_ensemble({"tiny": folds}, spec, squares, home=home, wish=Wish("pair")).value
    # What is tuned here on two dozen images could leave everything empty.
    value["rules"] = [{"threshold": 0.4, "min_area": 1, "gate": 0.0, "empty": False}] * 2
    return value


def test_each_fold_makes_its_own_from_images_that_it_does_not_hold_out(folds):
    made = []
    for folder in folds:
        file = folder / "assets" / "mean"
        run = json.loads((folder / "run.json").read_text())
        assert run["assets"] == {"mean": durable.sha256_file(file)}
        with np.load(file) as asset:
            seen = set(asset["ids"].tolist())
            made.append(asset["mean"])
        with OofReader(folder / "oof") as store:
            held_out = set(store.image_ids)
        assert (len(seen), len(held_out)) == (12, 12)
        assert not seen & held_out
    assert not np.array_equal(*made)


def test_an_ensemble_keeps_every_fold_with_its_own_asset(ensemble, home):
    members = ensemble["members"]
    assert [(one["folds"], one["weight"]) for one in members] == [([0], 0.5), ([1], 0.5)]
    paths = [one["assets"]["mean"] for one in members]
    assert paths == [f"runs/squares/tiny/fold{fold}/assets/mean" for fold in (0, 1)]
    file = home / "ensembles" / "squares" / "pair.json"
    durable.write_json(file, ensemble)
    before = set(audit.audit(home).faults)
    (home / paths[1]).unlink()
    missing = {fault.what for fault in set(audit.audit(home).faults) - before}
    assert missing == {"is missing", "pair.json needs it"}


def test_the_kernel_sees_the_assets_that_training_saw(ensemble, spec, squares, home, tmp_path):
    """A whole pack but for wheels: exported weights, assets, config; then the kernel's own main."""
    session = SimpleNamespace(workspace=SimpleNamespace(home=home, cache=tmp_path / "cache"))
    files = packing.export(session, ensemble) | packing.assets(session, ensemble)
    assert sorted(files) == [
        f"tiny.fold{fold}.{what}" for fold in (0, 1) for what in ("mean.asset", "safetensors")
    ]
    pack, working = tmp_path / "pack", tmp_path / "working"
    pack.mkdir()
    working.mkdir()
    for name, file in files.items():
        shutil.copy(file, pack / name)
    limits = SimpleNamespace(model_dump=lambda mode: {})
    config = SimpleNamespace(limits=limits, rerun="none", backend="torch")
    known = SimpleNamespace(name="squares", config=config)
    written = packing.kernel_config(known, ensemble)
    assert written["shedding"] == [one["run"] for one in ensemble["shedding"]]
    assert [one["seconds_per_image"] for one in written["members"]] == [
        one["seconds_per_image"] for one in ensemble["members"]
    ]
    durable.write_json(pack / "config.json", written)
    competition = write_test_set(tmp_path / "test", spec)
    kernel.main(pack, competition, working, rerun=False)
    found = read_submission(working / "submission.csv", spec)

    members, rules, _ = members_from_config(ensemble, home)
    images = [(path.name, path) for path in sorted((competition / spec.test_images).iterdir())]
    local = {one.image_id: one.rows for one in predict(members, rules, spec, images)}
    assert found == local
    assert any(local.values())
    # The assets matter: with each other's, the folds would say something else.
    first, second = (dict(one.assets) for one in members)
    swapped = [
        type(one)(**{**vars(one), "assets": other})
        for one, other in zip(members, (second, first), strict=True)
    ]
    keep = Settings(keep_probs=True)
    maps = [
        next(iter(predict(some, rules, spec, images[:1], settings=keep))).masks
        for some in (members, swapped)
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-4


def test_a_made_asset_is_kept_on_resume(squares, spec, recipe, run_dir):
    file = run_dir / "assets" / "mean"
    train_fold(run_dir, recipe(assets=ASSETS, input=INPUT, epochs=1), spec, squares, fold=0)
    before = file.stat().st_mtime_ns
    (run_dir / "run.json").unlink()
    train_fold(run_dir, recipe(assets=ASSETS, input=INPUT, epochs=1), spec, squares, fold=0)
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("assets", "said"),
    [
        ({"a/b": ASSETS["mean"]}, "asset 'a/b'"),
        ({"a": {"target": "tiny_assets:text"}}, "returned a str"),
        ({"a": {"target": "tiny_assets:mean_frame", "kwargs": {"gian": 2}}}, "gian"),
    ],
)
def test_what_is_no_asset_says_so(assets, said, plugins, tmp_path):
    with pytest.raises(UsageError, match=said):
        make_assets(assets, [], tmp_path)
    assert not list(tmp_path.glob("a*"))


def write_test_set(folder, spec):
    """Write a competition's input with eight images, bright squares on noise."""
    rng = np.random.default_rng(5)
    (folder / spec.test_images).mkdir(parents=True)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for number in range(8):
        image = rng.normal(110, 12, (64, 64))
        image[10 : 26 + number, 20:36] += 70
        name = f"t{number}.png"
        cv2.imwrite(str(folder / spec.test_images / name), image.clip(0, 255).astype(np.uint8))
        rows += [f"{name},{label}," for label in spec.classes]
    (folder / spec.sample_submission).write_text("\n".join(rows) + "\n")
    return folder
