"""Checkpoints: two are kept, the newest that verifies wins, nothing older is ever lost."""

from __future__ import annotations

import errno
import random

import numpy as np
import pytest
import torch

from kagflow import durable
from kagflow.errors import LocalError
from kagflow.learn import checkpoint
from kagflow.learn.checkpoint import newest, save


def test_two_are_kept(tmp_path):
    for step in (5, 9, 10, 120):
        save(tmp_path, {"step": step}, step=step, epoch=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ckpt-10.json", "ckpt-10.pt", "ckpt-120.json", "ckpt-120.pt"
    ]  # fmt: skip
    assert newest(tmp_path).state == {"step": 120}


def test_there_may_be_none(tmp_path):
    assert newest(tmp_path) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\0" + path.read_bytes()[1:]),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("{}"),
    ],
)
def test_a_damaged_one_is_passed_over_and_named(tmp_path, harm):
    for step in (1, 2):
        save(tmp_path, {"weight": torch.full((3,), step)}, step=step, epoch=0)
    harm(tmp_path / "ckpt-2.pt")
    found = newest(tmp_path)
    assert (found.step, found.skipped) == (1, ("ckpt-2.pt",))
    assert torch.equal(found.state["weight"], torch.full((3,), 1))


def test_weights_without_sidecar_are_no_checkpoint(tmp_path):
    save(tmp_path, {"step": 1}, step=1, epoch=0)
    (tmp_path / "ckpt-2.pt").write_bytes(b"half")
    assert newest(tmp_path).step == 1


def test_a_full_disk_leaves_the_older_one(tmp_path, monkeypatch):
    save(tmp_path, {"step": 1}, step=1, epoch=0)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write_bytes", full)
    with pytest.raises(LocalError, match="No space left"):
        save(tmp_path, {"step": 2}, step=2, epoch=0)
    assert newest(tmp_path).step == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("ran",))

    save(tmp_path, {"trap": Trap()}, step=1, epoch=0)
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        newest(tmp_path)


def test_generators_go_on_where_they_were(tmp_path):
    save(tmp_path, checkpoint.random_state(), step=1, epoch=0)

    def numbers():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    first = numbers()
    assert numbers() != first
    checkpoint.set_random_state(newest(tmp_path).state)
    assert numbers() == first
