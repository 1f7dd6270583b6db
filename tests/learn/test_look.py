"""A look at real images: what passes each step, and a sentence for whatever cannot be right."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from kagflow.learn import look as looks
from kagflow.learn import look_model
from kagflow.learn.job import Job, read_fold
from kagflow.learn.look_data import choose, open_scene
from kagflow.learn.prepare import prepare
from kagflow.learn.sampler import Draw
from kagflow.progress import QUIET


def target(name, **kwargs):
    return {"target": name, "kwargs": kwargs}


@pytest.fixture
def see(squares, spec, recipe, run_dir, tmp_path, monkeypatch):
    real = looks.draw_sheet

    def run(fold=0, draw=False, **changes):
        monkeypatch.setattr(looks, "draw_sheet", real if draw else lambda *_: b"a sheet")
        whole = recipe(**({"model": target("tiny_faults:Net")} | changes))
        job = Job(run_dir, whole, spec, squares, fold, "cpu")
        return looks.look(job, run_dir.parents[1], tmp_path / "look.png", QUIET)

    return run


def by_name(seen):
    return {step.name: step for step in seen.steps}


def test_every_step_is_told_with_shape_type_range_and_classes(see):
    crop = {"crop": [32, 48], "samples": 16, "sampler": target("balanced", start=0.75, end=0.75)}
    seen = see(**crop, loss=target("bce_dice"))
    assert seen.faults == ()
    steps = by_name(seen)
    assert list(steps) == [
        "stored image", "stored mask", "crop", "its mask", "augmented", "augmented mask", "input",
        "target mask", "target label", "batch image", "batch mask", "batch label", "output mask",
        "loss",
    ]  # fmt: skip
    assert (steps["stored image"].shape, steps["stored image"].dtype) == ("(64, 64)", "uint8")
    assert steps["crop"].shape == steps["augmented"].shape == "(32, 48)"
    assert (steps["input"].shape, steps["input"].dtype) == ("(1, 32, 48)", "float32")
    assert steps["target mask"].shape == "(2, 32, 48)"
    assert (steps["target mask"].low, steps["target mask"].high) == (0, 1)
    assert steps["batch image"].shape == "(4, 1, 32, 48)"
    assert steps["output mask"].shape == "(4, 2, 32, 48)"
    assert steps["loss"].shape == "()"
    stored = steps["stored mask"].classes
    assert stored[""] == 4, "a quarter of sixteen draws is clean"
    assert stored["1"] >= 8
    assert seen.step.loss == pytest.approx(steps["loss"].low)
    assert seen.step.gradient_norm > 0
    assert seen.step.without_gradient == ("unused.weight", "unused.bias")
    assert seen.step.frozen == ("frozen",)
    assert seen.step.parameters == 5


def test_the_samples_are_those_that_training_draws_first(see, squares, spec, recipe, run_dir):
    changes = {"crop": [32, 48], "sampler": target("balanced"), "augment": target("light")}
    seen = see(**changes)
    whole = recipe(model=target("tiny_faults:Net"), **changes)
    job = Job(run_dir, whole, spec, squares, 0, "cpu")
    data = read_fold(job, QUIET)
    _, plan = prepare(job, data, torch.device("cpu"), fresh=True)
    names = [data.cache.ids[plan.data.rows[draw.image]] for draw in plan.draws(0)]
    assert [name for name, _, _ in seen.samples] == names[: len(seen.samples)]
    first = plan.data[plan.draws(0)[0]]
    scene = open_scene(job, run_dir.parents[1], run_dir / "scratch", QUIET)
    assert scene.draws[0].seed == plan.draws(0)[0].seed
    low, high = float(first["image"].min()), float(first["image"].max())
    assert by_name(seen)["input"].low <= low < high <= by_name(seen)["input"].high


def test_only_the_training_part_of_the_fold_is_shown(see):
    for fold in (0, 1):
        for name, _, _ in see(fold=fold).samples:
            assert int(name[:3]) % 2 != fold


def test_defects_are_shown_though_the_first_draws_are_clean():
    labels = np.zeros((40, 2), bool)
    labels[20:30, 1] = True
    epoch = [Draw(row, row, False) for row in range(40)]
    chosen, later = choose(epoch, labels)
    assert later == 8
    assert [draw.image for draw in chosen] == [*range(8), *range(27, 19, -1)]
    some, none = choose(epoch[20:], labels)
    assert (none, [draw.image for draw in some]) == (0, list(range(20, 36)))


@pytest.mark.parametrize(
    ("changes", "key", "words", "mend"),
    [
        ({"augment": "aug_raises"}, "augment", "raised IndexError on sample 1 (", ""),
        ({"augment": "aug_floats"}, "augment", "float32 from", "the recipe's input does that"),
        ({"augment": "aug_three_axes"}, "augment", "(64, 64, 3) of a grey image", "no axis more"),
        ({"augment": "aug_blends"}, "augment", "into the mask, which were not there", "not blend"),
        ({"augment": "aug_mask_floats"}, "augment", "float32", "keep the mask"),
        ({"augment": "aug_image_alone"}, "augment", "(32, 64) after augmentation", "move both"),
        ({"augment": "aug_random_size"}, "crop", "differ in shape", "set size or crop"),
        ({"input": "InputRaises"}, "input", "raised KeyError on sample 1 (", ""),
        ({"input": "input_doubles"}, "input", "returned float64", "astype(np.float32)"),
        ({"input": "input_flat"}, "input", "returned shape (64, 64)", "image[None]"),
        ({"input": "input_half"}, "input", "(1, 32, 32) for an image of (64, 64)", "keep the size"),
        ({"input": "input_mirrored"}, "input", "a mirrored view", "ascontiguousarray"),
        ({"input": "input_nan"}, "input", "numbers that are none", "division"),
        ({"input": "input_two"}, "model", "the model raised RuntimeError", ""),
        ({"model": "raises"}, "model", "the model raised RuntimeError", ""),
        ({"model": "channels"}, "model", "'mask' logits are (4, 1, 64, 64)", "as many"),
        ({"model": "size"}, "model", "'mask' logits are (4, 2, 32, 32)", "F.interpolate"),
        ({"model": "name"}, "model", "returned ['masks']", "'mask'"),
        ({"model": "list"}, "model", "returned list", "a tensor of logits"),
        ({"model": "nan"}, "model", "values that are no numbers", "division"),
        ({"model": "label"}, "model", "'label' logits are (4, 2, 64, 64)", "return (4, 2)"),
        ({"loss": "raises"}, "loss", "the loss raised KeyError", ""),
        ({"loss": "map"}, "loss", "shape (4, 2, 64, 64), no scalar", ".mean()"),
        ({"loss": "float"}, "loss", "the loss returned a float", "without .item()"),
        ({"loss": "detached"}, "loss", "has no gradient", ".detach()"),
        ({"loss": "nan"}, "loss", "the loss is inf", "eps"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_with_its_mend(see, changes, key, words, mend):
    ((step, name),) = changes.items()
    if step == "model":
        spec = target("tiny_faults:Net", how=name)
    elif step == "loss":
        spec = target("tiny_faults:loss", how=name)
    else:
        spec = target(f"tiny_faults:{name}")
    seen = see(**{step: spec})
    (fault,) = seen.faults
    assert (fault.key, words in fault.what, mend in fault.mend) == (key, True, True), fault
    assert (seen.sheet is None) == (key in ("augment", "input")), "what came through is drawn"


def test_an_error_names_the_step_the_sample_and_what_went_in_with_their_lines_alone(see, plugins):
    (fault,) = see(augment=target("tiny_faults:aug_raises")).faults
    first, second = fault.what.splitlines()
    assert first.startswith("augment raised IndexError on sample 1 (")
    assert second.startswith("it was given image (64, 64) uint8 from ")
    assert "mask (64, 64, 2) uint8 from 0 to 1" in second
    files = [line.strip() for line in fault.trace if line.strip().startswith("File")]
    assert len(files) == 1
    assert f'{plugins.name}/tiny_faults.py", line ' in files[0]
    assert "return image[:, :, 3]" in "".join(fault.trace)
    (fault,) = see(loss=target("tiny_faults:loss", how="raises")).faults
    assert "it was given outputs mask (4, 2, 64, 64) float32 from" in fault.what
    assert "kagflow" not in "".join(fault.trace)


def test_a_size_that_changes_is_remarked_on_and_allowed(see):
    seen = see(augment=target("tiny_faults:aug_resizes"))
    assert seen.faults == ()
    assert any("changes the size, (64, 64) to (32, 32)" in note for note in seen.notes)


def test_probabilities_are_doubted(see):
    seen = see(model=target("tiny_faults:Net", how="probabilities"))
    assert any("'mask' lies between 0 and 1" in note for note in seen.notes)


def test_a_large_model_is_shown_less_and_it_is_said(see, monkeypatch):
    assert by_name(see(batch=8))["batch image"].shape == "(4, 1, 64, 64)"
    monkeypatch.setattr(look_model, "_seconds", lambda model, image: 4.0)
    seen = see(batch=8)
    assert by_name(seen)["batch image"].shape == "(2, 1, 64, 64)"
    assert any("2 of the 8 samples" in note for note in seen.notes)
    monkeypatch.setattr(look_model, "_seconds", lambda model, image: None)
    assert by_name(see(batch=8))["batch image"].shape == "(2, 1, 64, 64)"
    monkeypatch.setattr(look_model, "_seconds", lambda model, image: 100.0)
    monkeypatch.setattr(look_model, "LEAST", 16)
    seen = see(batch=8)
    assert by_name(seen)["batch image"].shape == "(2, 1, 16, 16)"
    assert by_name(seen)["batch mask"].shape == "(2, 2, 16, 16)"
    assert any("a window of (16, 16) of (64, 64)" in note for note in seen.notes)


def test_assets_are_made_of_a_few_images(see):
    changes = {
        "assets": {"mean": target("tiny_assets:mean_frame")},
        "input": target("tiny_assets:AgainstMean"),
    }
    seen = see(**changes)
    assert seen.faults == ()
    assert "assets are made of 12 images here" in seen.notes
    wrong = see(assets={"mean": target("tiny_assets:text")})
    assert wrong.faults[0].key == "assets"
    assert wrong.sheet is None


def test_a_gate_has_no_masks(see):
    model = target("tiny_models:TinyNet", predicts="label")
    seen = see(predicts="label", model=model, loss=target("bce"))
    assert seen.faults == ()
    assert "target mask" not in by_name(seen)
    assert by_name(seen)["output label"].shape == "(4, 2)"


def test_the_sheet_is_a_picture_with_contours_in_class_colours(see):
    seen = see(draw=True, sampler=target("balanced", start=1.0, end=1.0))
    sheet = cv2.cvtColor(cv2.imread(str(seen.sheet)), cv2.COLOR_BGR2RGB)
    assert sheet.shape[1] == 1880
    for colour in ((230, 159, 0), (86, 180, 233)):
        # Beyond the legend's own swatch.
        assert (sheet[70:] == colour).all(axis=2).sum() > 200


def test_nothing_is_left_in_the_runs(see, run_dir):
    see()
    assert not run_dir.exists()
