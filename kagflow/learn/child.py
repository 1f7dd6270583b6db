"""Train one job in a process of its own, or as one of several that torchrun started.

`python -m kagflow.learn.child FILE`: FILE says what to train and where to tell of it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import KagflowError
from kagflow.learn.distributed import join
from kagflow.learn.job import Job
from kagflow.learn.relay import Relay
from kagflow.learn.train import train_as
from kagflow.task.spec import TaskSpec

INTERRUPTED = 130


def write(path: Path, job: Job, *, news: Path) -> None:
    """Write the file that `main` reads: the job, and what this process knows of code and words."""
    values: dict[str, Any] = {one.name: getattr(job, one.name) for one in fields(job)}
    values |= {"run_dir": str(job.run_dir), "data": str(job.data), "recipe": dict(job.recipe)}
    values |= {"spec": job.spec.to_dict()}
    known = {"path": sys.path, "argv": sys.argv, "parent": os.getpid()}
    durable.write_json(path, {"job": values, "news": str(news), **known})


def read(told: dict[str, Any]) -> Job:
    """Return the job that `write` wrote."""
    paths = {key: Path(told[key]) for key in ("run_dir", "data")}
    return Job(**{**told, **paths, "spec": TaskSpec.from_dict(told["spec"])})


def main(argv: Sequence[str]) -> int:
    """Train what the file `argv[0]` says; tell how it ended and return the exit code."""
    told = json.loads(Path(argv[0]).read_text())
    # Plug-ins are found where the parent finds them, and provenance names the command typed there.
    sys.path[:], sys.argv = told["path"], told["argv"]
    relay = Relay(Path(told["news"]), told["parent"])
    relay.tell("process", id=os.getpid())
    try:
        return _train(read(told["job"]), relay)
    except KeyboardInterrupt:
        relay.tell("interrupted")
        return INTERRUPTED
    except KagflowError as error:
        relay.tell("error", error=error.message, hint=error.hint, code=error.exit_code)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        relay.tell("error", error=text, hint="", code=1, trace=traceback.format_exc())
        return 1


def _train(job: Job, relay: Relay) -> int:
    with join(job.device) as (ranks, device):
        own = replace(job, device=device)
        result = train_as(ranks, own, relay, relay) if ranks.first else train_as(ranks, own)
    if result is not None:
        relay.tell("result", result=result.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
