"""Run a kernel as Kaggle would: no network, nobody's home, read-only inputs, the image's packages.

Layers, strongest first: bwrap, then unshare. Both carry out the same plan of mounts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kagflow import process
from kagflow.errors import KagflowError, LocalError
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse import bwrap, plan, unshare
from kagflow.rehearse.interpreter import Interpreter, find_interpreter
from kagflow.rehearse.supervise import Log, LogRecord, OnLine, Outcome, supervise
from kagflow.rehearse.view import build_view

Layer = Literal["bwrap", "unshare"]
LAYERS: tuple[Layer, ...] = ("bwrap", "unshare")
# A connection outwards must fail at once, one to itself must work.
_PROBE = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 5)
try:
    socket.create_connection(("192.0.2.1", 9), 1)
except TimeoutError:
    sys.exit(3)
except OSError:
    sys.exit(0)
sys.exit(3)
"""


@dataclass(frozen=True)
class SandboxSpec:
    """Say what to run and what it finds; `datasets` and `kernels` map owner/slug to a folder.

    `layer` None takes the strongest one that works here.
    """

    script: Path
    competition_slug: str
    competition_input: Path
    datasets: Mapping[str, Path]
    working: Path
    fingerprint: Fingerprint
    rerun: bool = False
    time_limit_s: float = 9 * 3600
    memory_bytes: int = 29 << 30
    layout: plan.Layout = "nested"
    layer: Layer | None = None
    kernels: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class SandboxResult:
    """How a kernel ended; a return code above 128 is 128 + the signal that ended it."""

    layer: Layer
    returncode: int
    seconds: float
    peak_bytes: int
    timed_out: bool
    out_of_memory: bool
    log: list[LogRecord] = field(default_factory=list)


def probe_layers() -> list[Layer]:
    """Return the layers that work on this machine, strongest first, by running each."""
    interpreter = find_interpreter()
    return [layer for layer in LAYERS if _works(layer, interpreter)]


def strongest_layer() -> Layer:
    """Return the first layer that works; raises LocalError when none does."""
    interpreter = find_interpreter()
    for layer in LAYERS:
        if _works(layer, interpreter):
            return layer
    raise LocalError(
        "no sandbox works on this machine: neither bwrap nor unshare could cut the network",
        hint="apt install bubblewrap; on Ubuntu 24.04 also: "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    )


def run(
    spec: SandboxSpec, *, log_file: Path | None = None, on_line: OnLine | None = None
) -> SandboxResult:
    """Run `spec.script` and return how it ended; its outputs are in `spec.working`.

    The log goes to `log_file` in Kaggle's form while the kernel runs, and to `on_line`, which is
    called from other threads. Raises LocalError when no layer works.
    """
    layer = spec.layer or strongest_layer()
    interpreter = find_interpreter()
    mounts = [
        *plan.machine(interpreter),
        *plan.packages(interpreter, build_view(spec.fingerprint)),
        *plan.kaggle(
            spec.script,
            spec.working,
            competition=(spec.competition_slug, spec.competition_input),
            datasets=spec.datasets,
            kernels=spec.kernels,
            layout=spec.layout,
        ),
        *plan.stand_ins(spec.datasets.values(), spec.fingerprint),
    ]
    outcome = _start(
        layer,
        interpreter,
        mounts,
        [str(interpreter.executable), plan.SCRIPT],
        env=plan.environment(interpreter, rerun=spec.rerun, image=spec.fingerprint.digest),
        watch=(Log(log_file, on_line), spec.time_limit_s, spec.memory_bytes),
    )
    return SandboxResult(layer, **vars(outcome))


def _works(layer: Layer, interpreter: Interpreter) -> bool:
    with tempfile.TemporaryDirectory(prefix="kagflow-probe-") as folder:
        mounts = [*plan.machine(interpreter), plan.Mount("write", plan.WORKING, folder)]
        try:
            outcome = _start(
                layer,
                interpreter,
                mounts,
                [str(interpreter.executable), "-I", "-S", "-c", _PROBE],
                env={"PATH": "/usr/bin:/bin"},
                watch=(Log(None, None), 30, 1 << 40),
            )
        except (OSError, KagflowError):
            return False
    return outcome.returncode == 0


def _start(
    layer: Layer,
    interpreter: Interpreter,
    mounts: Sequence[plan.Mount],
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    watch: tuple[Log, float, int],
) -> Outcome:
    if layer == "bwrap":
        words, data = bwrap.arguments(mounts, command, env)
    else:
        words, data = unshare.arguments(mounts, command, env, python=interpreter.executable)
    descriptor, (alive, held) = os.memfd_create("plan"), os.pipe()
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        names = {"{fd}": str(descriptor), "{alive}": str(alive)}
        child = process.spawn(
            [names.get(word, word) for word in words],
            stdout=process.PIPE,
            stderr=process.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            pass_fds=[int(names[word]) for word in words if word in names],
        )
        log, time_limit_s, memory_bytes = watch
        return supervise(child, log, time_limit_s=time_limit_s, memory_bytes=memory_bytes)
    finally:
        for one in (descriptor, alive, held):
            os.close(one)
