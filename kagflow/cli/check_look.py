"""Show what a recipe makes of real images: a table of its steps, a contact sheet, its faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kagflow.cli import competitions
from kagflow.cli.check_recipes import Located, Sound
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.errors import UsageError

if TYPE_CHECKING:
    from kagflow.learn.look import Seen
    from kagflow.learn.look_steps import Step

SHOWN = 8


def show(session: Session, known: Known, sound: Sequence[Sound], fold: str) -> None:
    """Look at one sound recipe; leaves with exit code 2 where a step of it is faulty.

    Raises UsageError for several recipes, and where the competition has not been fetched.
    """
    from kagflow.cli import jobs
    from kagflow.learn.job import Job
    from kagflow.learn.look import look

    if len(sound) != 1:
        raise UsageError("--look takes one recipe at a time", hint="kagflow check RECIPE --look")
    competitions.manifest(session.workspace, known)
    asked = {**sound[0].changes, "recipe": sound[0].name, "fold": fold}
    (planned,) = jobs.plan(session, known, asked)
    job = Job(
        planned.folder,
        planned.recipe.model_dump(mode="json"),
        known.config.task(),
        session.workspace.data(known.name),
        planned.fold,
        "cpu",
    )
    sheet = session.workspace.looks(known.name) / f"{planned.run}.png"
    seen = look(job, session.workspace.runs(known.name), sheet, session.out.progress())
    _tell(session, planned.label, seen, sound[0].name)


def _tell(session: Session, label: str, seen: Seen, recipe: str) -> None:
    out = session.out
    rows = [(s.name, s.shape, s.dtype, _range(s), _classes(s.classes)) for s in seen.steps]
    out.table(label, ("step", "shape", "type", "range", "samples by class"), rows)
    for note in seen.notes:
        out.say(f"  {note}")
    text = [_gradients(seen)] if seen.step.gradient_norm is not None else []
    text += [f"contact sheet: {_near(seen.sheet)}"] if seen.sheet else []
    text += [Located(f"recipes/{recipe}.yaml", None, one).text() for one in seen.faults]
    value = _value(label, seen)
    if not seen.faults:
        out.result(value, "\n".join([*text, f"a step holds, {seen.seconds:.1f} s"]))
        return
    where = ", ".join(dict.fromkeys(one.key or "a sample" for one in seen.faults))
    error = UsageError(f"{label}: faulty at {where}", hint="mend what is named above")
    told = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    out.result(value | told, "\n".join(text))
    if not out.json_mode:
        out.error(error)
    raise typer.Exit(error.exit_code)


def _value(label: str, seen: Seen) -> dict[str, Any]:
    step = seen.step
    return {
        "look": label,
        "samples": [
            {"image_id": image_id, "seed": draw.seed, "centred": draw.centred, "classes": classes}
            for image_id, draw, classes in seen.samples
        ],
        "steps": [asdict(one) for one in seen.steps],
        "loss": step.loss,
        "gradient_norm": step.gradient_norm,
        "parameters": step.parameters,
        "without_gradient": step.without_gradient,
        "frozen": step.frozen,
        "notes": seen.notes,
        "faults": [asdict(one) for one in seen.faults],
        "sheet": None if seen.sheet is None else str(seen.sheet),
        "seconds": seen.seconds,
    }


def _gradients(seen: Seen) -> str:
    step = seen.step
    silent = (
        f"; no gradient reached {_listed(step.without_gradient)}" if step.without_gradient else ""
    )
    frozen = f"; frozen: {_listed(step.frozen)}" if step.frozen else ""
    reached = step.parameters - len(step.without_gradient) - len(step.frozen)
    return (
        f"gradient norm {step.gradient_norm:.4g}, reaching {reached} of {step.parameters} "
        f"parameters{silent}{frozen}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _range(step: Step) -> str:
    if step.low is None or step.high is None:
        return ""
    return f"{step.low:.4g}" if step.low == step.high else f"{step.low:.4g} to {step.high:.4g}"


def _classes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or 'none'}: {count}" for name, count in counts.items())


def _near(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
