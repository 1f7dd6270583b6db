"""Checkpoints: two are kept, the newest that verifies wins, nothing older is ever lost."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch

from kagflow import process
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


FULL = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from kagflow.errors import LocalError
from kagflow.learn import average, checkpoint
base = Path(sys.argv[1])
state = lambda step: {"step": step, "weight": torch.full((40_000,), float(step))}
checkpoint.save(base, state(1), step=1, epoch=1)
average.keep(base, torch.nn.Linear(9, 9), 0)
junk, said = base / "junk", []
for step, left in enumerate((150_000, 100_000, 40_000, 12_000, 4_096, 0), 2):
    with junk.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    with junk.open("rb+") as file:
        file.truncate(max(0, junk.stat().st_size - left))
    for save in (
        lambda: checkpoint.save(base, state(step), step=step, epoch=1),
        lambda: average.keep(base, torch.nn.Linear(200, 200), 1),
    ):
        try:
            save()
            said.append("saved")
        except LocalError as error:
            said.append(error.message.rpartition(": ")[2])
    found = checkpoint.newest(base)
    assert torch.equal(found.state["weight"], state(found.step)["weight"])
    assert found.step == 1
    model = torch.nn.Linear(9, 9)
    assert average.load_mean(base, {0}, model) == [0]
    junk.unlink()
checkpoint.save(base, state(9), step=9, epoch=1)
print(set(said), checkpoint.newest(base).step, sorted(path.name for path in base.iterdir()))
"""


def test_f3_a_disk_that_fills_up_harms_no_older_one(tmp_path):
    script = 'mount -t tmpfs -o size=700k tmpfs "$1" && shift && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path]
    probe = process.run([*words, "true"], check=False)
    if probe.returncode:
        pytest.skip(f"no small disk can be mounted here: {probe.stderr}")
    done = process.run([*words, sys.executable, "-c", FULL, tmp_path], timeout=60, check=False)
    assert done.stdout.strip() == (
        "{'the disk is full'} 9 ['ckpt-1.json', 'ckpt-1.pt', 'ckpt-9.json', 'ckpt-9.pt', "
        "'epoch-0.json', 'epoch-0.safetensors']"
    ), done.stderr


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
