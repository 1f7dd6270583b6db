"""What rounding does to answers, on models whose answers are known by hand."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kagflow.infer.drift import Drift, Shown, joined, measure
from kagflow.infer.postprocess import ClassRule
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("tiny", "segmentation", ("a", "b"))
RULES = [ClassRule(0.5), ClassRule(0.5)]


def shown(count=3):
    images = []
    for number in range(count):
        image = np.full((16, 20), 40 * number, np.uint8)
        image[2:8, 3:9] = 255
        mask = (image == 255).astype(np.uint8)
        images.append(Shown(f"i{number}", image, {0: encode(mask)}))
    return images


def changed(source, target, by):
    state = {name: one + by for name, one in load_file(source).items()}
    save_file(state, target)
    return target


def test_the_same_weights_do_not_drift(member):
    one = member("Bright")
    files = (one.weights[0], one.weights[0])
    found = measure(one, files, shown(), RULES, SPEC)
    assert (found.images, found.mean, found.largest, found.flipped) == (3, 0.0, 0.0, 0.0)
    # Class a is right everywhere; class b says everything that is dark, where nothing is.
    assert found.full == found.shipped == pytest.approx(0.5)


def test_a_change_is_measured_in_all_its_forms(member, tmp_path):
    one = member("Bright", gain=20.0)
    other = changed(one.weights[0], tmp_path / "other", torch.tensor([-40.0, 0.0]))
    found = measure(one, (one.weights[0], other), shown(1), RULES, SPEC)
    # The first class's sign is turned on all of its pixels: 36 bright, the rest black.
    assert found.largest == pytest.approx(1.0, abs=1e-4)
    assert found.mean == pytest.approx(0.5, abs=1e-4)
    assert found.flipped == pytest.approx(0.5)
    assert (found.full, found.shipped) == (pytest.approx(0.5), pytest.approx(0.0))


def test_rules_decide_what_flips(member, tmp_path):
    one = member("Bright")
    other = changed(one.weights[0], tmp_path / "other", torch.tensor([-40.0, 0.0]))
    rules = [ClassRule(0.5, empty=True), ClassRule(0.5)]
    found = measure(one, (one.weights[0], other), shown(1), rules, SPEC)
    assert (found.largest, found.flipped) == (pytest.approx(1.0, abs=1e-4), 0.0)


def test_a_gate_has_no_score_and_labels_have_one(member, tmp_path):
    gate = member("MeanLabel", predicts="label")
    other = changed(gate.weights[0], tmp_path / "other", torch.tensor([0.0, -40.0]))
    found = measure(gate, (gate.weights[0], other), shown(1), RULES, SPEC)
    assert (found.full, found.shipped, found.flipped) == (None, None, 0.5)
    labels = TaskSpec("tiny", "classification", ("a", "b"), metric="exact_match")
    dark = [Shown("i", np.zeros((8, 8), np.uint8), {})]
    found = measure(gate, (gate.weights[0], other), dark, RULES, labels)
    assert (found.full, found.shipped) == (1.0, 0.0)


def test_a_smaller_working_size_is_judged_at_the_images_own(member):
    one = member("Bright", size=(8, 10))
    found = measure(one, (one.weights[0],) * 2, shown(2), RULES, SPEC)
    assert found.full is not None


def test_files_are_joined_by_their_images():
    one, other = Drift(1, 0.1, 0.5, 0.0, 1.0, 0.8), Drift(3, 0.3, 0.4, 0.4, 0.0, 0.0)
    both = joined([one, other])
    assert (both.images, both.largest) == (4, 0.5)
    assert (both.mean, both.flipped) == (pytest.approx(0.25), pytest.approx(0.3))
    assert (both.full, both.shipped) == (pytest.approx(0.25), pytest.approx(0.2))
    assert joined([one, Drift(1, 0, 0, 0, None, None)]).full is None
    assert joined([]).images == 0
