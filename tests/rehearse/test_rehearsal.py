"""Kernels with one fault each, rehearsed; and what a receipt keeps."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse import trial
from kagflow.rehearse.receipt import read_receipt
from kagflow.rehearse.rehearsal import Limits, RehearsalSpec, rehearse
from kagflow.rehearse.sandbox import probe_layers
from kagflow.rehearse.verdict import explain
from kagflow.task.index import image_files
from kagflow.task.spec import TaskSpec

TASK = TaskSpec("tiles", "segmentation", ("1", "2"))
SHAPES = TaskSpec("shapes", "classification", ("a", "b"), 20, 30, value_column="Label")

# What infer.kernel does, less the torch: {before} and {after} are where a test puts its fault.
KERNEL = """
import csv, json, os, sys, time
from pathlib import Path
sample = next(Path("/kaggle/input").rglob("sample_submission.csv"))
pack = {{p.parent.name: p for p in Path("/kaggle/input").rglob("manifest.json")}}
assert sorted(pack) == ["tiles-env", "tiles-weights"]
rerun = "KAGGLE_IS_COMPETITION_RERUN" in os.environ
rows = list(csv.reader(sample.open()))
ids = list(dict.fromkeys(row[0] for row in rows[1:]))
report = dict(images=len(ids), predicted=len(ids), nonempty=1, seconds=len(ids) + 1.0,
              load_seconds=2.0, device="cpu", error="", faults={{}})
for name in ids:
    if not (sample.parent / "test_images" / name).read_bytes().endswith(b"\\xff\\xd9"):
        report["faults"][name] = "cut short"
{before}
with open("submission.csv", "w", newline="") as file:
    csv.writer(file, lineterminator="\\n").writerows([rows[0], *([*r[:-1], ""] for r in rows[1:])])
Path("kagflow-report.json").write_text(json.dumps(report))
print("listing", sorted(str(p) for p in sample.parent.rglob("*")), flush=True)
{after}
"""

pytestmark = pytest.mark.usefixtures("_layer")


@pytest.fixture(scope="session")
def _layer() -> None:
    if not probe_layers():
        pytest.skip("no sandbox layer works on this machine")


def write_images(folder: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for at in range(count):
        image = rng.integers(0, 255, (40 + at, 60), np.uint8)
        cv2.imwrite(str(folder / f"img{at}.jpg"), image)
    return [f"img{at}.jpg" for at in range(count)]


@pytest.fixture
def spec(tmp_path) -> RehearsalSpec:
    data = tmp_path / "data"
    ids = write_images(data / "test_images", 6)
    rows = [f"{name},{label},1 1" for name in ids for label in TASK.classes]
    (data / "sample_submission.csv").write_text(
        "\n".join(["ImageId,ClassId,EncodedPixels", *rows]) + "\n"
    )
    (data / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    pack = tmp_path / "pack"
    for part in ("env", "weights"):
        (pack / part).mkdir(parents=True)
        told = {"part": part, "relied_on": {"numpy": "1.0"} if part == "env" else {}}
        (pack / part / "manifest.json").write_text(json.dumps(told))
    (pack / "manifest.json").write_text(json.dumps({"pack": "abc"}))
    return RehearsalSpec(
        pack=pack,
        kernel=tmp_path / "kernel.py",
        data=data,
        task=TASK,
        rerun_kind="hidden",
        limits=Limits(60, 8, hidden_images=1000),
        fingerprint=Fingerprint("tiny", "2.7", "2.35", "", True, {"numpy": "1.0"}),
        images=12,
    )


def kernel(spec: RehearsalSpec, before: str = "", after: str = "") -> RehearsalSpec:
    parts = {"before": textwrap.dedent(before), "after": textwrap.dedent(after)}
    spec.kernel.write_text(KERNEL.format(**parts))
    return spec


def test_a_good_kernel_is_yellow(spec, tmp_path) -> None:
    out = tmp_path / "packs" / "abc.receipt.json"
    receipt = rehearse(kernel(spec), out)
    assert receipt.verdict == "yellow"
    assert receipt.failure == receipt.sentence == ""
    assert receipt.network_blocked
    assert receipt.home_hidden
    assert receipt.input_read_only
    assert [(run.mode, run.layout, run.images) for run in receipt.runs] == [
        ("save", "nested", 4),
        ("rerun", "flat", 12),
    ]
    assert receipt.pack == "abc"
    assert receipt.peak_bytes > 1 << 20
    # 13 s in all, 2 s until the first image: 1 s for each of the others.
    assert receipt.seconds_per_image == pytest.approx(1.0)
    assert receipt.projected_images == 1000
    assert receipt.projected_minutes is not None
    assert 1000 / 60 <= receipt.projected_minutes < 1010 / 60
    assert not receipt.calibrated
    assert any("not calibrated" in text for text in receipt.warnings)
    assert any(text.startswith("python: ") for text in receipt.unproved)
    assert any(text.startswith("numpy: ") for text in receipt.unproved)
    assert read_receipt(out) == receipt
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_what_the_kernel_could_not_try_here_is_kept_once(spec, tmp_path) -> None:
    gpu = "gpu: none here, NvidiaTeslaT4 asked for"
    printed = f"print('kagflow     0.1 s  unproved: {gpu}')"
    receipt = rehearse(kernel(spec, printed), tmp_path / "r.json")
    assert receipt.verdict == "yellow"
    assert receipt.unproved.count(gpu) == 1


@pytest.mark.parametrize("fault", ["", "raise RuntimeError('in a cell')"])
def test_a_notebook_is_rehearsed_as_its_code(spec, tmp_path, fault) -> None:
    source = kernel(spec, fault).kernel.read_text()
    cells = [
        {"cell_type": "markdown", "source": ["# A title: ", "no Python"]},
        {"cell_type": "code", "source": ["first = 1\n", "second = 2"]},
        {"cell_type": "code", "source": f"assert first + second == 3\n{source}"},
    ]
    notebook = tmp_path / "kernel.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    receipt = rehearse(replace(spec, kernel=notebook), tmp_path / "r.json")
    assert receipt.verdict == ("red" if fault else "yellow"), receipt.sentence
    assert ("in a cell" in receipt.sentence) == bool(fault)


def test_without_a_rerun_the_unseen_set_is_a_save(spec, tmp_path) -> None:
    fault = "assert not rerun"
    receipt = rehearse(kernel(replace(spec, rerun_kind="none"), fault), tmp_path / "r.json")
    assert receipt.verdict == "yellow"
    assert [run.mode for run in receipt.runs] == ["save", "save"]


FAULTS = {
    "import": (
        "import segmentation_models_pytorch",
        "",
        "Notebook Threw Exception",
        "'segmentation_models_pytorch' is neither in the image nor in the pack",
    ),
    "network": (
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1')",
        "",
        "Notebook Threw Exception",
        "the kernel reached for the network",
    ),
    "home": ("open('/root/.cache/w.pt')", "", "Notebook Threw Exception", "this machine's home"),
    "known names": (
        "assert ids[0] == 'img0.jpg'",
        "",
        "Notebook Threw Exception",
        "AssertionError",
    ),
    "fixed mount": (
        "Path('/kaggle/input/competitions/tiles/sample_submission.csv').read_text()",
        "",
        "Notebook Threw Exception",
        "FileNotFoundError",
    ),
    "no file": ("", "os.remove('submission.csv')", "Submission CSV Not Found", "submission.csv"),
    "other rows": ("rows = rows[:-1]", "", "Submission Scoring Error", "class 2 is missing"),
    "swallowed": (
        "",
        """
        if rerun:
            os.remove('kagflow-report.json')
            print("kagflow  1.0 s  FAILED, so be it: ModuleNotFoundError: No module named 'x'")
        """,
        "Notebook Threw Exception",
        "'x' is neither in the image nor in the pack",
    ),
    "reported": ("report['error'] = 'RuntimeError: odd'", "", "Notebook Threw Exception", "odd"),
    "good image": (
        "report['faults'][ids[-1]] = 'unreadable'",
        "",
        "Notebook Threw Exception",
        "could not be predicted",
    ),
    "half": ("report['predicted'] -= 1", "", "Notebook Threw Exception", "images were predicted"),
    "memory": (
        "x = b'1' * (300 << 20); time.sleep(2)",
        "",
        "Notebook Exceeded Allowed Compute",
        "memory passed the limit",
    ),
    "time": ("time.sleep(60)", "", "Notebook Timeout", "were not done in"),
    "member": ("report['lost'] = {'unet': 'OSError: x'}", "", "Notebook Threw Exception", "unet"),
    "late": ("report['late'] = 3", "", "Notebook Timeout", "3 images were left empty"),
    "ended by its parent": (
        "",
        """
        os.remove('kagflow-report.json')
        print("kagflow  1.0 s  FAILED: no time: 95% of 60 minutes are over")
        sys.exit(0 if rerun else 1)
        """,
        "Notebook Timeout",
        "95% of 60 minutes",
    ),
    "swollen": (
        "print('kagflow 1 s  FAILED: out of memory: more than 27.5 GiB'); sys.exit(1)",
        "",
        "Notebook Exceeded Allowed Compute",
        "27.5 GiB",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_red_and_named(spec, tmp_path, name) -> None:
    before, after, failure, sentence = FAULTS[name]
    if name in ("memory", "time"):
        limits = {"memory": Limits(60, 0.2), "time": Limits(0.03, 8)}
        spec = replace(spec, limits=limits[name])
    receipt = rehearse(kernel(spec, before, after), tmp_path / "r.json")
    assert receipt.verdict == "red"
    assert receipt.failure == failure
    assert sentence in receipt.sentence
    assert receipt.runs[-1].failure == failure
    assert len(receipt.log_tail) <= 30
    assert read_receipt(tmp_path / "r.json") == receipt


@pytest.mark.parametrize("where", [".", "env"])
def test_a_pack_without_manifest_is_refused(spec, tmp_path, where) -> None:
    (spec.pack / where / "manifest.json").unlink()
    with pytest.raises(DataError, match="no whole pack"):
        rehearse(kernel(spec), tmp_path / "r.json")


def test_a_damaged_receipt_is_no_receipt(tmp_path) -> None:
    (tmp_path / "r.json").write_text('{"pack": "abc"}')
    with pytest.raises(DataError, match="no receipt"):
        read_receipt(tmp_path / "r.json")


def test_unseen_set_of_varying_sizes(spec, tmp_path) -> None:
    before = {path: path.read_bytes() for path in image_files(spec.data / "test_images")}
    made = trial.unseen(spec.data, TASK, tmp_path / "set", images=8)
    names = {path.name for path in image_files(made.folder / "test_images")}
    assert len(names) == made.images == 8
    assert not names & {path.name for path in before}
    assert set(made.sizes) == names
    folder = made.folder / "test_images"
    empty, cut = sorted(made.corrupt, key=lambda name: (folder / name).stat().st_size)
    assert (folder / empty).read_bytes() == b""
    half = (folder / cut).read_bytes()
    assert any(one.startswith(half) and len(one) > len(half) for one in before.values())
    odd = [size for size in made.sizes.values() if size[1] != 60]
    assert odd == [(41 - 7, 60 - 13)]
    # The workspace's own files, which the set may share, are as they were.
    assert before == {path: path.read_bytes() for path in before}
    sample = (made.folder / "sample_submission.csv").read_text().splitlines()
    assert sample[0] == "ImageId,ClassId,EncodedPixels"
    assert len(sample) == 1 + 8 * 2


def test_unseen_set_of_one_size_and_labels(tmp_path) -> None:
    ids = write_images(tmp_path / "data" / "test_images", 3)
    rows = "".join(f"{Path(name).stem},a\n" for name in ids)
    (tmp_path / "data" / "sample_submission.csv").write_text("ImageId,Label\n" + rows)
    made = trial.unseen(tmp_path / "data", SHAPES, tmp_path / "set", images=5)
    # Two of five may be traps; in a competition of one size another size is one.
    assert sorted(size[1] for size in made.sizes.values()) == [60 - 13, 60, 60, 60, 60]
    assert len(made.corrupt) == 2
    # Ids without a suffix stay so; files keep theirs.
    assert all("." not in image_id for image_id in made.sizes)
    stems = {path.stem for path in image_files(made.folder / "test_images")}
    assert stems == set(made.sizes)
    sample = (made.folder / "sample_submission.csv").read_text().splitlines()
    assert sample[0] == "ImageId,Label"
    assert len(sample) == 6


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_unseen_set_has_grey_and_colour(tmp_path, suffix) -> None:
    folder = tmp_path / "data" / "test_images"
    folder.mkdir(parents=True)
    for at in range(10):
        picture = np.full((40, 60, 3), 20 * at, np.uint8)
        cv2.imwrite(str(folder / f"{at}{suffix}"), picture)
    rows = "".join(f"{at}{suffix},1,\n" for at in range(10))
    (tmp_path / "data" / "sample_submission.csv").write_text(
        "ImageId,ClassId,EncodedPixels\n" + rows
    )
    made = trial.unseen(tmp_path / "data", TASK, tmp_path / "set", images=10)
    kinds = set()
    for path in image_files(made.folder / "test_images"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
        kinds.add(None if image is None else image.shape[2:])
    assert kinds >= {(), (4,) if suffix == ".png" else (3,)}


def test_a_full_rehearsal_runs_every_image_in_both_layouts(spec, tmp_path) -> None:
    spec = replace(kernel(spec), full=True, limits=Limits(60, 8, hidden_images=15))
    receipt = rehearse(spec, tmp_path / "r.json")
    assert receipt.verdict == "yellow"
    assert [(run.mode, run.layout, run.images) for run in receipt.runs] == [
        ("save", "nested", 6),
        ("rerun", "flat", 15),
        ("save", "flat", 6),
        ("rerun", "nested", 15),
    ]
    assert receipt.not_run == 0


def test_a_fault_past_the_limited_images_is_said_to_be_open_and_found_by_full(
    spec, tmp_path
) -> None:
    fault = "assert len(ids) < 14, 'the fourteenth image'"
    spec = replace(kernel(spec, fault), limits=Limits(60, 8, hidden_images=15))
    receipt = rehearse(spec, tmp_path / "r.json")
    assert receipt.verdict == "yellow"
    assert receipt.not_run == 3
    receipt = rehearse(replace(spec, full=True), tmp_path / "full.json")
    assert receipt.verdict == "red"
    assert "the fourteenth image" in receipt.sentence


def test_a_sample_that_names_absent_images_is_refused(spec, tmp_path) -> None:
    (spec.data / "test_images" / "img3.jpg").unlink()
    with pytest.raises(DataError, match="lacks 1 of 6"):
        trial.seen(spec.data, TASK, tmp_path / "set", images=2)


def test_explain_takes_the_last_error() -> None:
    def log(*lines: str):
        return [{"stream_name": "stderr", "time": 0.0, "data": f"{one}\n"} for one in lines]

    assert explain(log("fine")) == ""
    assert explain(log("ValueError: a", "KeyError: 'b'", "bye")) == "KeyError: 'b'"
    assert "read-only" in explain(log("OSError: [Errno 30] Read-only file system: '/usr/x'"))
    assert explain(log("kagflow   1.0 s  FAILED: w.bin is missing from the pack")) == (
        "w.bin is missing from the pack"
    )
