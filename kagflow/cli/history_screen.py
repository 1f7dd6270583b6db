"""Show submissions as a person reads them: the list, the line from CV to public, one explained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kagflow.cli import ensemble, guard
from kagflow.cli.session import Session

if TYPE_CHECKING:
    from kagflow.ship.cvlb import Line
    from kagflow.ship.records import SubmissionRow

COLUMNS = {
    "ref": "ref", "intent_at": "when (UTC)", "pack": "pack", "runs": "runs", "cv_crossfitted": "CV",
    "cv_naive": "CV naive", "floor": "all-empty", "projected_p50": "projected min",
    "real_minutes": "real min", "gpu_hours": "GPU h", "public": "public", "private": "private",
    "status": "status",
}  # fmt: skip
# Where the terminal is too narrow for all of it: what was sent, and what it was worth and took.
NARROW = (
    ("submissions", ("ref", "intent_at", "pack", "runs", "public", "private", "status")),
    ("their CV, minutes and hours", ("ref", "pack", "cv_crossfitted", "cv_naive", "floor",
                                     "projected_p50", "real_minutes", "gpu_hours")),
)  # fmt: skip
SHORT = {"pack": 8, "intent_at": 16}
DIGITS = {"projected_p50": 1, "real_minutes": 1, "gpu_hours": 2, "public": 5, "private": 5}


def table(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the list of submissions, as two tables where one does not fit."""
    cells = [[_cell(name, row[name]) for name in COLUMNS] for row in rows]
    whole = session.out.holds(list(COLUMNS.values()), cells)
    for title, names in (("submissions", tuple(COLUMNS)),) if whole else NARROW:
        heads = [COLUMNS[name] for name in names]
        cells = [[_cell(name, row[name]) for name in names] for row in rows]
        session.out.table(title, heads, cells)


def lines(rows: Sequence[SubmissionRow]) -> dict[str, Line]:
    """Return the line from own to public scores of every competition that has one."""
    from kagflow.ship.cvlb import fit

    names = dict.fromkeys(row.competition for row in rows)
    found = {name: fit(row for row in rows if row.competition == name) for name in names}
    return {name: line for name, line in found.items() if line is not None}


def sentences(found: Mapping[str, Line]) -> list[str]:
    """Say each line and what lies off it."""
    from kagflow.ship.cvlb import METHOD

    told = []
    for name, line in found.items():
        told.append(
            f"{name}: public = {line.intercept:.4f} + {line.slope:.3f} x CV ({METHOD}, "
            f"{len(line.points)} submissions, robust spread {line.spread:.5f})"
        )
        told += [
            f"  off the line: submission {one.ref}, public {one.public:.5f} is "
            f"{one.residual:+.5f} from where its CV {one.cv:.5f} puts it ({one.off:+.1f} spreads)"
            for one in line.outliers
        ]
    return told


def explain(session: Session, row: SubmissionRow) -> dict[str, Any]:
    """Print everything known of one submission; return what is made of it."""
    session.out.table(f"submission {row.ref or row.pack}", ("", ""), _facts(row))
    log = (row.detail or {}).get("log") or []
    for line in log:
        session.out.say(f"  | {line}")
    explained = _explained(session, row)
    for name in ("likely", "check", "next"):
        if explained.get(name):
            session.out.say(f"{name}: {explained[name]}")
    return explained


def _explained(session: Session, row: SubmissionRow) -> dict[str, Any]:
    from kagflow.ship.cause import cause

    if row.status == "scored":
        return {}
    if row.status != "failed":
        does = "submits its finished run" if row.status == "ran" else "continues it"
        return {"next": f"{_submit(session, row)} {does}, unless the pack changed since"}
    detail = row.detail or {}
    found = cause(row.error or "", [detail.get("telling") or "", *(detail.get("log") or [])])
    if found is None:
        unknown = "not known: neither its error nor its log says"
        return {"likely": unknown, "next": _again(session, row)}
    given = f", by: {found.line}" if found.line else ""
    return {
        "likely": f"{found.name}{given}",
        "check": f"in the rehearsal, {found.check}",
        "next": _again(session, row),
    }


def _again(session: Session, row: SubmissionRow) -> str:
    mend = f"{_submit(session, row, '--dry-run', '--full')}, mend it, then"
    # What failed before it was submitted is a new attempt unasked.
    if row.ref is None:
        return f"{mend} {_submit(session, row)}"
    return f"{mend} {_submit(session, row, '--again')} (a changed pack needs no --again)"


def _submit(session: Session, row: SubmissionRow, *flags: str) -> str:
    """Return the command that submits as a row was submitted."""
    from kagflow.ship.hours import family
    from kagflow.ship.plan import kernel_slug

    given = ["submit", row.competition]
    if row.ensemble not in (None, ensemble.DEFAULT):
        given += ["--ensemble", row.ensemble]
    if row.accelerator and family(row.accelerator) is None:
        given.append("--cpu")
    if (row.kernel or "").endswith(f"/{kernel_slug(row.competition, notebook=True)}"):
        given.append("--notebook")
    return session.command(shlex.join([*given, *flags]))


def _facts(row: SubmissionRow) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("competition", f"{row.competition}, {row.account} on {row.profile}"),
        ("pack", f"{row.pack}, attempt {row.attempt}, ensemble {row.ensemble}"),
        ("runs", ", ".join(row.runs)),
        ("rehearsal", row.receipt),
        ("CV", _cv(row)),
        ("kernel", f"{row.kernel} version {row.kernel_version}, {guard.named(row.accelerator)}"
                   if row.kernel else None),
        ("datasets", ", ".join(row.datasets)),
        ("minutes", _minutes(row)),
        ("GPU hours", _number(row.gpu_hours, 2)),
        ("pushed, submitted, scored (UTC)", ", ".join(_moment(one) for one in
                                                (row.pushed_at, row.submitted_at, row.scored_at))),
        ("status", row.status),
        ("public", _number(row.public, 5)),
        ("private", _number(row.private, 5)),
        ("error", row.error),
        ("message", row.message),
    ]  # fmt: skip
    return [(name, value) for name, value in facts if value not in (None, "", "-")]


def _cv(row: SubmissionRow) -> str:
    known = (
        ("cross-fitted", row.cv_crossfitted),
        ("naive", row.cv_naive),
        ("all-empty", row.floor),
    )
    told = ", ".join(f"{name} {value:.4f}" for name, value in known if value is not None)
    return f"{told}, on {row.cv_images} images ({row.cv_label})" if told else "-"


def _minutes(row: SubmissionRow) -> str:
    detail = row.detail or {}
    known = (("projected", row.projected_p50), ("real", row.real_minutes))
    parts = [f"{value:.1f} {name}" for name, value in known if value is not None]
    for key, name in (("save_minutes", "saved version"), ("rerun_minutes", "rerun")):
        if detail.get(key) is not None:
            parts.append(f"{name} {detail[key]:.1f}")
    return ", ".join(parts)


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if name == "runs":
        return _runs(value)
    if isinstance(value, float):
        return f"{value:.{DIGITS.get(name, 4)}f}"
    return str(value).replace("T", " ")[: SHORT.get(name, 40)]


def _runs(value: object) -> str:
    """Write runs with their folds: lite fold 0,1; gate fold 0."""
    folds: dict[str, list[str]] = {}
    for one in value if isinstance(value, list | tuple) else ():
        run, _, fold = str(one).rpartition("/")
        folds.setdefault(run, []).append(fold.removeprefix("fold"))
    return "; ".join(f"{run} {','.join(ones)}" for run, ones in folds.items())


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _moment(text: str | None) -> str:
    return "-" if text is None else text.replace("T", " ")[:16]
