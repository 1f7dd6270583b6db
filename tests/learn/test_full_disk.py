"""A disk that fills up in the midst of training: the last good state stays, and is gone on from."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
from safetensors.torch import load_file

from kagflow.learn.job import Job
from kagflow.learn.train import train
from kagflow.process import run

SCRIPT = """
import json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
import torch
from kagflow.errors import LocalError
from kagflow.learn import checkpoint
from kagflow.learn.job import Job
from kagflow.learn.train import train
from kagflow.progress import QUIET
from kagflow.task.spec import TaskSpec
torch.set_num_threads(1)
given = json.loads(sys.argv[1])
small = Path(given["small"])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=True)
folder = small / "runs" / "squares" / "tiny" / "fold0"
job = Job(folder, given["recipe"], TaskSpec.from_dict(given["spec"]), Path(given["data"]), 0, "cpu",
          save_every=0)

class FillUp(type(QUIET)):
    def advance(self, n=1):
        saved = sorted(folder.glob("ckpt-*.pt"))
        if len(saved) == 2 and not (small / "ballast").exists():
            free = os.statvfs(small)
            room = free.f_bavail * free.f_frsize - saved[0].stat().st_size // 2
            (small / "ballast").write_bytes(bytes(room))

try:
    train(job, FillUp())
except LocalError as error:
    told = {"error": error.message, "exit": error.exit_code}
found = checkpoint.newest(folder)
told |= {"step": found.step, "left": sorted(one.name for one in folder.glob(".*.tmp"))}
(small / "ballast").unlink()
told["resumed"] = train(job).resumed
Path(given["best"]).write_bytes((folder / "best.safetensors").read_bytes())
print(json.dumps(told))
"""


def test_training_on_a_full_disk_keeps_the_last_good_state(
    squares, spec, recipe, run_dir, plugins, tmp_path
) -> None:
    alone = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if shutil.which("unshare") is None or run([*alone, "true"], check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    (tmp_path / "small").mkdir()
    wanted = recipe(epochs=3)
    train(Job(run_dir, wanted, spec, squares, 0, "cpu"))
    given = {
        "small": str(tmp_path / "small"), "recipe": wanted, "spec": spec.to_dict(),
        "data": str(squares), "best": str(tmp_path / "best.safetensors"),
    }  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(plugins)}
    done = run([*alone, sys.executable, "-c", SCRIPT, json.dumps(given)], env=env, timeout=200)
    told = json.loads(done.stdout.splitlines()[-1])
    assert "the disk is full" in told["error"]
    assert told["exit"] == 7
    assert told["step"] >= 2
    assert told["resumed"] == told["step"]
    whole, resumed = (load_file(p) for p in (run_dir / "best.safetensors", given["best"]))
    assert max(float((whole[key] - resumed[key]).abs().max()) for key in whole) == 0
