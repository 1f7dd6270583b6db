"""Import torch once, then fork a process for each request that saves checkpoints until it is ended.

A line of standard input is JSON: folder, first (step), count, stop (whether to wait for SIGCONT).
Answers are lines: `pid N`, `saved STEP` after each save that returned, `failed WHAT`, `end`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from kagflow.errors import LocalError
from kagflow.learn import checkpoint


def state(step: int) -> dict:
    """Return tensors that say of which step they are."""
    weights = {f"layer{n}": torch.full((64, 64), float(step)) for n in range(8)}
    return {"model": weights, "step": step, "random": torch.get_rng_state()}


def save_all(asked: dict) -> None:
    if asked["stop"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    folder = Path(asked["folder"])
    try:
        for step in range(asked["first"], asked["first"] + asked["count"]):
            checkpoint.save(folder, state(step), step=step, epoch=0)
            say(f"saved {step}")
    except (LocalError, OSError) as error:
        say(f"failed {error}")
        os._exit(7)
    os._exit(0)


def say(text: str) -> None:
    # One write, so that a kill leaves a whole line or none.
    os.write(1, f"{text}\n".encode())


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            save_all(json.loads(line))
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("end")


main()
