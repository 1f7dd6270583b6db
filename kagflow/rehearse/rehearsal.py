"""Run a pack's kernel as a save and as a submission's rerun would, and write down what held."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kagflow.errors import DataError
from kagflow.fingerprint import Fingerprint
from kagflow.progress import QUIET, Progress
from kagflow.rehearse import foreign, sandbox, trial, verdict
from kagflow.rehearse.cells import code_of
from kagflow.rehearse.plan import Layout
from kagflow.rehearse.receipt import Receipt, Run
from kagflow.rehearse.sandbox import Layer, SandboxResult, SandboxSpec
from kagflow.rehearse.settle import settle
from kagflow.rehearse.trial import Trial
from kagflow.rehearse.verdict import Failure
from kagflow.rehearse.view import differences
from kagflow.task.costs import Pair
from kagflow.task.spec import TaskSpec

# The halves of a pack, each a dataset.
PARTS = ("env", "weights")
SAVE_IMAGES = 4
UNSEEN_IMAGES = 24
# Nobody waits hours to learn that two dozen images hang.
_PATIENCE_S = 900.0
_LEAKS = """
import json, os, socket
def blocked(call):
    try:
        call()
    except OSError:
        return True
    return False
print(json.dumps({
    "network_blocked": blocked(lambda: socket.create_connection(("192.0.2.1", 9), 1).close())
    and blocked(lambda: socket.getaddrinfo("kaggle.com", 443)),
    "home_hidden": sum(len(files) for _, _, files in os.walk("/home"))
    + sum(entry.is_file() for entry in os.scandir("/root")) == 0,
    "input_read_only": blocked(lambda: open("/kaggle/input/x", "w").close()),
}))
"""


@dataclass(frozen=True)
class Limits:
    """State the competition's limits; `hidden_images` None projects for the public test."""

    inference_minutes: float
    memory_gb: float
    hidden_images: int | None = None


@dataclass(frozen=True)
class RehearsalSpec:
    """Say what is rehearsed: a pack folder, its kernel.py or .ipynb, and data/<competition>.

    `rerun_kind` is the competition's `rerun`; under "none" the saved output is what is scored, so
    the unseen set is run as a save. `images` is the size of the unseen set; `full` runs as many as
    the hidden test has, and every public one, in both mount layouts. `pairs` are what was measured
    on the `accelerator`. `notes` go into the receipt as they are.
    """

    pack: Path
    kernel: Path
    data: Path
    task: TaskSpec
    rerun_kind: Literal["hidden", "none", "unknown"]
    limits: Limits
    fingerprint: Fingerprint
    images: int | None = None
    full: bool = False
    layer: Layer | None = None
    accelerator: str = ""
    pairs: tuple[Pair, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Ended:
    run: Run
    failure: Failure | None
    report: Mapping[str, Any]
    tail: tuple[str, ...]
    unproved: tuple[str, ...]


def rehearse(spec: RehearsalSpec, out: Path, *, progress: Progress = QUIET) -> Receipt:
    """Rehearse a pack, write the receipt to `out` and return it.

    A save on a few public images in one mount layout, then a rerun on unseen names with damaged
    input in the other. Not green before the accelerator itself was measured (`settle`). Raises
    LocalError when no sandbox works, DataError when pack or data are not whole.
    """
    manifest = _manifest(spec.pack)
    spec = replace(spec, layer=spec.layer or sandbox.strongest_layer())
    out.parent.mkdir(parents=True, exist_ok=True)
    progress.start("rehearse", 5 if spec.full else 3, "runs")
    # Beside the receipt, so that images can be linked instead of copied.
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=out.parent) as folder:
        spec = replace(spec, kernel=_script(spec.kernel, Path(folder)))
        held = _leaks(spec, Path(folder))
        progress.advance()
        ended = _runs(spec, Path(folder), progress)
    receipt = _receipt(spec, manifest, held, ended)
    receipt.write(out)
    progress.finish()
    return receipt


def _manifest(pack: Path) -> dict[str, Any]:
    try:
        name = json.loads((pack / "manifest.json").read_text())["pack"]
        env = json.loads((pack / "env" / "manifest.json").read_text())
        return {"pack": name, "relied_on": env.get("relied_on", {})}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{pack} is no whole pack: {error!r}", hint="pack again") from None


def _script(kernel: Path, folder: Path) -> Path:
    """Return what the sandbox runs: a script itself, or the code of a notebook."""
    if kernel.suffix != ".ipynb":
        return kernel
    script = folder / "notebook.py"
    script.write_text(code_of(kernel.read_text(), "notebook"))
    return script


def _runs(spec: RehearsalSpec, folder: Path, progress: Progress) -> list[_Ended]:
    """Save in one layout, rerun in the other, and all swapped in a full rehearsal; stop at red."""
    count = _hidden_images(spec) if spec.full else max(spec.images or UNSEEN_IMAGES, 2)
    public = _public_images(spec) if spec.full else min(SAVE_IMAGES, count)
    first = trial.seen(spec.data, spec.task, folder / "seen", images=public)
    other = trial.unseen(spec.data, spec.task, folder / "unseen", images=count)
    rerun = spec.rerun_kind != "none"
    turns: list[tuple[Trial, bool, Layout]] = [(first, False, "nested"), (other, rerun, "flat")]
    if spec.full:
        turns += [(first, False, "flat"), (other, rerun, "nested")]
    ended: list[_Ended] = []
    for number, (shown, again, layout) in enumerate(turns):
        ended.append(_run(spec, folder / f"run{number}", shown, rerun=again, layout=layout))
        progress.advance()
        if ended[-1].failure:
            break
    return ended


def _run(
    spec: RehearsalSpec, working: Path, shown: Trial, *, rerun: bool, layout: Layout
) -> _Ended:
    working.mkdir()
    box = _box(spec, spec.kernel, working, shown.folder)
    result = sandbox.run(replace(box, rerun=rerun, layout=layout))
    failure = verdict.judge(result, working, spec.task, shown)
    failure = foreign.attributed(failure, spec.pack / "env", spec.fingerprint)
    report = verdict.read_report(working)
    run = Run(
        mode="rerun" if rerun else "save",
        layout=layout,
        images=shown.images,
        predicted=int(report.get("predicted", 0)),
        nonempty=int(report.get("nonempty", 0)),
        seconds=round(result.seconds, 2),
        peak_bytes=result.peak_bytes,
        returncode=result.returncode,
        failure=failure.name if failure else "",
        sentence=failure.sentence if failure else "",
    )
    tail = verdict.lines(result.log)[-verdict.TAIL :] if failure else []
    return _Ended(run, failure, report, tuple(tail), verdict.unproved(result.log))


def _box(spec: RehearsalSpec, script: Path, working: Path, shown: Path) -> SandboxSpec:
    return SandboxSpec(
        script=script,
        competition_slug=spec.task.slug,
        competition_input=shown,
        datasets={f"kagflow/{spec.task.slug[:40]}-{part}": spec.pack / part for part in PARTS},
        working=working,
        fingerprint=spec.fingerprint,
        time_limit_s=_patience(spec),
        memory_bytes=int(spec.limits.memory_gb * 2**30),
        layer=spec.layer,
    )


def _patience(spec: RehearsalSpec) -> float:
    """Return the seconds that a run may take: the competition's own limit, less for few images."""
    limit = spec.limits.inference_minutes * 60
    return limit if spec.full else min(limit, _PATIENCE_S)


def _leaks(spec: RehearsalSpec, folder: Path) -> dict[str, bool]:
    """Prove from inside the very sandbox that the kernel gets what it must not reach."""
    script, working, empty = folder / "leaks.py", folder / "leaks", folder / "empty"
    script.write_text(_LEAKS)
    working.mkdir()
    empty.mkdir()
    result: SandboxResult = sandbox.run(_box(spec, script, working, empty))
    try:
        told = json.loads(verdict.lines(result.log)[-1])
    except (IndexError, ValueError):
        told = {}
    names = ("network_blocked", "home_hidden", "input_read_only")
    return {name: bool(told.get(name)) for name in names}


def _receipt(
    spec: RehearsalSpec,
    manifest: Mapping[str, Any],
    held: Mapping[str, bool],
    ended: list[_Ended],
) -> Receipt:
    last = ended[-1]
    failure = last.failure or _leak(held) or foreign.refused(spec.pack / "env", spec.fingerprint)
    images = _hidden_images(spec)
    pace = _pace(last)
    minutes = None if pace is None else round((pace[0] + pace[1] * images) / 60, 2)
    receipt = Receipt(
        pack=manifest["pack"],
        competition=spec.task.slug,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict="red" if failure else "yellow",
        layer=str(spec.layer),
        runs=tuple(one.run for one in ended),
        device=str(last.report.get("device", "")),
        seconds_per_image=None if pace is None else round(pace[1], 5),
        projected_images=images,
        projected_minutes=minutes,
        limit_minutes=spec.limits.inference_minutes,
        not_run=max(images - max(one.run.images for one in ended), 0),
        failure=failure.name if failure else "",
        sentence=failure.sentence if failure else "",
        warnings=tuple(_warnings(last)),
        costs=last.report.get("costs"),
        unproved=tuple(dict.fromkeys(_unproved(spec, manifest["relied_on"], ended))),
        notes=spec.notes,
        log_tail=last.tail,
        network_blocked=held["network_blocked"],
        home_hidden=held["home_hidden"],
        input_read_only=held["input_read_only"],
    )
    return settle(receipt, spec.pairs, spec.accelerator)


def _leak(held: Mapping[str, bool]) -> Failure | None:
    open_ = ", ".join(name for name, ok in held.items() if not ok)
    return Failure(verdict.THREW, f"the sandbox does not hold: not {open_}") if open_ else None


def _pace(ended: _Ended) -> tuple[float, float] | None:
    """Return the seconds before the second image and those for each image after it."""
    report, run = ended.report, ended.run
    if ended.failure or run.predicted < 2 or not report.get("seconds"):
        return None
    loaded = float(report.get("load_seconds") or 0.0)
    each = (float(report["seconds"]) - loaded) / (run.predicted - 1 if loaded else run.predicted)
    return max(run.seconds - each * (run.predicted - 1), 0.0), each


def _hidden_images(spec: RehearsalSpec) -> int:
    return spec.limits.hidden_images or _public_images(spec)


def _public_images(spec: RehearsalSpec) -> int:
    return sum(1 for _ in (spec.data / spec.task.test_images).iterdir())


def _warnings(last: _Ended) -> Iterable[str]:
    if not last.failure and not last.run.nonempty:
        yield "no image of the unseen set got any prediction"


def _unproved(
    spec: RehearsalSpec, relied_on: Iterable[str], ended: Iterable[_Ended]
) -> Iterable[str]:
    """List what differs here from the image, and what the kernel itself could not try."""
    image, here = spec.fingerprint, platform.python_version()
    if here.split(".")[:2] != image.python.split(".")[:2]:
        yield f"python: {here} here, {image.python} in the image"
    yield from differences(image, relied_on)
    if image.approximate:
        yield f"the list of the image's distributions ({image.name}) is approximate"
    for one in ended:
        yield from one.unproved
