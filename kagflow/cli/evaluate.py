"""kagflow evaluate: list the runs with what they are worth."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kagflow.cli import competitions
from kagflow.cli.session import guarded, open_session, sole
from kagflow.errors import UsageError


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[RUN]")] = None,
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """List the finished runs, or score one run's out-of-fold predictions, per class."""
    from dataclasses import asdict

    from kagflow.learn import evaluate

    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    competitions.manifest(session.workspace, known)
    runs = session.workspace.runs(known.name)
    name = sole(words or [], "run")
    if name is None:
        rows = evaluate.list_runs(runs)
        _table(session.out, [asdict(row) for row in rows])
        session.out.result({"runs": [asdict(row) for row in rows]})
        return
    if not (runs / name).is_dir():
        raise UsageError(f"no run '{name}'", hint="kagflow evaluate lists them")
    scored = evaluate.evaluate_run(
        runs / name, known.config.task(), session.workspace.data(known.name)
    )
    value = asdict(scored)
    session.out.table(name, ("", "value"), [(key, _cell(cell)) for key, cell in value.items()])
    session.out.result(value)


def _table(out: Any, rows: list[dict[str, Any]]) -> None:
    if not rows:
        raise UsageError("there is no finished run", hint="kagflow train fold=0")
    columns = list(rows[0])
    out.table("runs", columns, [[_cell(row[column]) for column in columns] for row in rows])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(one) for one in value)
    return str(value)
