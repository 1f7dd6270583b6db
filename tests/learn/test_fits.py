"""F13: what does not fit is found out before the first epoch, and the run stays as it would be."""

from __future__ import annotations

import json
import signal

import pytest
import torch
import yaml

from kagflow.errors import LocalError
from kagflow.learn import checkpoint, fits, room
from kagflow.learn.fits import find_fit
from kagflow.learn.job import Job, read_fold
from kagflow.learn.lr_finder import find_lr
from kagflow.learn.room import CpuRoom
from kagflow.learn.train import train
from kagflow.progress import QUIET

CPU = torch.device("cpu")


@pytest.fixture
def job(squares, spec, recipe, run_dir):
    def make(name: str = "tiny", *, memory: int | None = None, **changes) -> Job:
        folder = run_dir.parents[1] / name / "fold0"
        return Job(folder, recipe(**changes), spec, squares, 0, "cpu", memory=memory)

    return make


def found(job: Job, limit: int | None, shares: int = 1) -> fits.Fit:
    return find_fit(job, read_fold(job, QUIET), CPU, CpuRoom(limit, base=0), shares=shares)


def peaks(job, **changes) -> dict[int, int]:
    return {batch: found(job(batch=batch, **changes), None).peak for batch in (1, 2, 4, 8)}


def test_the_largest_batch_that_fits_is_taken_with_as_many_images_a_step(job):
    peak = peaks(job)
    assert peak[1] < peak[2] < peak[4] < peak[8]
    whole = job(batch=8, accumulate=3)
    assert found(whole, 2 * peak[8]).changes == {}
    for batch, accumulate in ((4, 6), (2, 12), (1, 24)):
        fit = found(whole, found(job(batch=batch, accumulate=accumulate), None).peak)
        assert fit.changes == {"batch": batch, "accumulate": accumulate}
        assert fit.peak <= peak[8]


def test_an_odd_batch_is_halved_as_near_as_can_be(job):
    fit = found(job(batch=3), found(job(batch=1, accumulate=3), None).peak)
    assert fit.changes == {"batch": 1, "accumulate": 3}


def test_the_optimisers_own_tensors_are_counted(job):
    """They stand from the first step's end on, so that one step alone would not show them."""
    kwargs = {"target": "tiny_models:Wide", "kwargs": {}}
    adamw = found(job(model=kwargs), None).peak
    plain = {"target": "sgd", "lr": 0.1, "weight_decay": 0.0, "encoder_lr": 1.0, "kwargs": {}}
    assert adamw - found(job(model=kwargs, optimiser=plain), None).peak > 3_500_000


def test_three_halvings_and_no_more(job):
    with pytest.raises(
        LocalError, match=r"memory=0\.00 GB: batches of 16, 8, 4, 2 were tried"
    ) as e:
        found(job(batch=16), 1000)
    assert e.value.exit_code == 7
    with pytest.raises(LocalError, match="batches of 3, 1 were tried"):
        found(job(batch=3), 1000)
    with pytest.raises(LocalError, match="batches of 8, 4 were tried"):
        found(job(batch=8), 1000, shares=4)


def test_a_capped_run_may_narrow_its_crop_too(job):
    """Without memory= the crop is the recipe's own business."""
    narrow = found(job(batch=1, crop=[64, 128], accumulate=16), None).peak
    wide = job(batch=16, crop=[64, 512])
    with pytest.raises(LocalError, match=r"16 of 64x512, .*2 of 64x512 were tried") as caught:
        found(wide, narrow)
    assert "memory=" in caught.value.hint
    capped = job(batch=8, crop=[64, 512], memory=1)
    assert found(capped, narrow).changes == {"batch": 1, "accumulate": 8, "crop": [64, 128]}
    with pytest.raises(LocalError, match="1 of 64x64 were tried"):
        found(capped, 1000)


def test_the_largest_of_unequal_images_counts(job, squares):
    import cv2

    file = squares / "train_images" / "001.png"
    cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (256, 256)))
    (squares / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    assert found(job(batch=1), None).peak > 10 * found(job(batch=1, crop=[64, 64]), None).peak


def test_processes_that_share_a_batch_need_room_for_their_share(job):
    assert found(job(batch=8), None, shares=2).peak == peaks(job)[4]


def test_other_errors_are_not_taken_for_memory(job):
    with pytest.raises(RuntimeError, match="a plug-in's own"):
        found(job(loss={"target": "tiny_losses:Faulty", "kwargs": {}}), 1 << 40)


def test_looking_leaves_no_trace(differences, job):
    """Weights, running statistics, optimiser and generators are those of a run that never looked.

    TinyNet has batch norm and dropout; the recipe's loss has weights of its own.
    """
    loss = {"target": "tiny_losses:Weighed", "kwargs": {}}
    before = checkpoint.random_state()
    found(job(loss=loss), None)
    assert differences(before, checkpoint.random_state()) == []
    looked, never = job("looked", loss=loss, memory=1 << 40), job("never", loss=loss)
    train(looked)
    train(never)
    assert differences(looked, never) == []
    config = yaml.safe_load((looked.run_dir / "config.yaml").read_text())
    assert "resolved" not in config


def test_what_fits_is_written_down_and_kept(stop_at, differences, job, tmp_path, monkeypatch):
    """The rerun has other memory and no probe: its batches are those that it began with."""
    # What a test's process holds goes up and down by more than these models need.
    (tmp_path / "status").write_text("VmRSS:\t9 kB\nRssAnon:\t1000 kB\n")
    monkeypatch.setattr(room, "STATUS", tmp_path / "status")
    big = {"batch": 8, "epochs": 2, "samples": 16}
    need = {batch: found(job(**big | {"batch": batch}), None).peak for batch in (4, 8)}
    memory = 1_024_000 + (need[4] + need[8]) // 2
    whole, stopped = (job(name, **big, memory=memory) for name in ("whole", "stopped"))
    assert train(whole).remaining is None
    run = json.loads((whole.run_dir / "run.json").read_text())
    assert run["resolved"] == {"batch": 4, "accumulate": 2}
    assert run["recipe"]["batch"] == 8
    with pytest.raises(KeyboardInterrupt):
        train(stopped, stop_at(3, signal.SIGTERM))
    config = yaml.safe_load((stopped.run_dir / "config.yaml").read_text())
    assert config["resolved"] == {"batch": 4, "accumulate": 2}
    assert train(job("stopped", **big)).resumed == 3
    assert differences(whole, stopped) == []


def test_memory_that_ends_in_the_midst_is_told(job):
    """A model that grows: what was saved stays, and the way out is named."""
    model = {"target": "tiny_models:Growing", "kwargs": {}}
    with pytest.raises(LocalError, match=r"ran out of memory after step 2, with batch 4") as caught:
        train(job(model=model))
    assert caught.value.exit_code == 7
    assert "memory=" in caught.value.hint


def test_a_learning_rate_is_looked_for_with_what_fits(job):
    with pytest.raises(LocalError, match=r"does not fit memory=0\.00 GB"):
        find_lr(job(memory=1))
