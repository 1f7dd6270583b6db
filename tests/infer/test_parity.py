"""Stored answers: the same model passes, another one does not, and says by how much."""

import json

import numpy as np
import pytest
import torch

from kagflow.errors import DataError
from kagflow.infer import kernel, parity
from kagflow.infer.members import load_member
from kagflow.task.submission import read_submission


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + n, 40), np.uint8) for n in range(3)]


def stored(folder, images, *members):
    named = [(f"image.{n}", image) for n, image in enumerate(images)]
    said = {}
    for member in members:
        for path, module in zip(member.weights, load_member(member, 2, "cpu"), strict=True):
            said[path.name] = parity.answers(member, module, named, "cpu", half=False)
    parity.store(folder / parity.FILE, images, said)


@pytest.mark.parametrize("kind", ["mask", "label"])
def test_the_same_model_passes(member, tmp_path, images, kind):
    one = member("Ramp" if kind == "mask" else "MeanLabel", predicts=kind, folds=2)
    stored(tmp_path, images, one)
    said = parity.read(tmp_path).check(one, load_member(one, 2, "cpu"), "cpu", half=False)
    assert "0.00% of a mask moved" in said


def test_another_model_is_refused(member, tmp_path, images):
    one = member("Bright")
    stored(tmp_path, images, one)
    (module,) = load_member(one, 2, "cpu")
    with torch.no_grad():
        module.gain[1] *= 1.2
    with pytest.raises(DataError, match=r"parity of Bright: .* allowed are 0.002 and 0.10%"):
        parity.read(tmp_path).check(one, [module], "cpu", half=False)


def test_only_as_many_images_as_asked_are_compared(member, tmp_path, images, plugins):
    one = member("Bright")
    stored(tmp_path, images, one)
    modules = load_member(one, 2, "cpu")
    plugins.CALLS.clear()
    parity.read(tmp_path, 2).check(one, modules, "cpu", half=False)
    assert len(plugins.CALLS) == 2


def test_without_a_file_there_is_nothing_to_compare(tmp_path):
    assert parity.read(tmp_path) is None
    (tmp_path / parity.FILE).write_text("no tensors")
    with pytest.raises(DataError, match=r"parity\.safetensors"):
        parity.read(tmp_path)


@pytest.mark.parametrize("rerun", [False, True])
def test_a_member_that_answers_otherwise_stops_a_save_and_leaves_a_rerun(
    member, pack, competition, tmp_path, images, rerun
):
    good, bad = member("Bright"), member("Bright", gain=30.0)
    packed = pack(good, bad)
    stored(packed, images, good, bad)
    config = json.loads((packed / "config.json").read_text())
    # The bad one's weights were made with another gain than its model is now built with.
    other = member("Bright", gain=24.0)
    (packed / bad.weights[0].name).write_bytes(other.weights[0].read_bytes())
    (packed / "config.json").write_text(json.dumps(config))
    working = tmp_path / "working"
    working.mkdir()
    if not rerun:
        with pytest.raises(DataError, match="parity of Bright"):
            kernel.main(packed, competition[0], working, rerun=False)
        assert not (working / "submission.csv").exists()
        return
    kernel.main(packed, competition[0], working, rerun=True)
    report = json.loads((working / "kagflow-report.json").read_text())
    assert list(report["lost"]) == ["Bright"]
    assert all(read_submission(working / "submission.csv", competition[1]).values())


@pytest.mark.parametrize("fault", ["cut", "missing"])
def test_a_member_whose_weights_are_not_whole_is_left_out_of_a_rerun(
    member, pack, competition, tmp_path, fault
):
    # The bootstrap names the file on a save; in a rerun it goes on to here.
    good, bad = member("Bright"), member("Ramp")
    packed = pack(good, bad)
    file = packed / bad.weights[0].name
    file.write_bytes(file.read_bytes()[:-1])
    if fault == "missing":
        file.unlink()
    working = tmp_path / "working"
    working.mkdir()
    kernel.main(packed, competition[0], working, rerun=True)
    report = json.loads((working / "kagflow-report.json").read_text())
    assert list(report["lost"]) == ["Ramp"]
    assert all(read_submission(working / "submission.csv", competition[1]).values())
    with pytest.raises(DataError, match=file.name):
        kernel.main(packed, competition[0], working, rerun=False)
