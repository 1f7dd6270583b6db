"""kagflow report: runs, ensemble, submissions, hours and every telling image in one HTML file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow import durable
from kagflow.cli import competitions, ensemble
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session, sole
from kagflow.errors import DataError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.report.facts import Facts


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: reports/<competition>.html.")
    ] = None,
    name: Annotated[str, typer.Option("--ensemble", help="Which one.")] = ensemble.DEFAULT,
    images: Annotated[int, typer.Option(min=0, help="Images of the gallery, at most.")] = 300,
    megabytes: Annotated[float, typer.Option(min=2, help="Size of the file, at most.")] = 24.0,
    date: Annotated[
        str | None, typer.Option(help="The moment that the page states; default: now.")
    ] = None,
) -> None:
    """Write one self-contained HTML file: scores, errors, submissions, members, and a gallery.

    It shows whatever there is, and says what is missing and which command makes it.
    """
    from kagflow.report import page
    from kagflow.report.facts import Missing

    session = open_session(context)
    known = competitions.find(session.workspace, sole(words or [], "competition"))
    competitions.manifest(session.workspace, known)
    value = _ensemble(session, known, name)
    facts = _facts(session, known, value, images=images, megabytes=megabytes)
    judge = f"ensemble {name}" if value else "no ensemble yet"
    head = page.Head(
        title=known.config.title,
        slug=known.config.slug,
        judge=judge,
        made=date or datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        origin=_origin(session, value),
    )
    progress = session.out.progress()
    progress.start("write the page")
    text = page.render(head, facts, value)
    path = output or session.workspace.reports / f"{known.name}.html"
    durable.write_text(path, text)
    progress.finish()
    size, cards = path.stat().st_size, facts.cards
    shown = 0 if isinstance(cards, Missing) else len(cards)
    missing = {
        section: {"what": one.what, "command": one.command}
        for section, one in vars(facts).items()
        if isinstance(one, Missing)
    }
    told = dict.fromkeys(f"missing: {one['what']} {one['command']}" for one in missing.values())
    session.out.result(
        {"report": str(path), "bytes": size, "images": shown, "missing": missing},
        "\n".join([f"{path} ({size / 1e6:.1f} MB, {shown} images)", *told]),
    )


def _ensemble(session: Session, known: Known, name: str) -> dict[str, Any] | None:
    """Return the ensemble, made where it is missing; None where runs do not give one yet."""
    from kagflow.learn.perimage import path_beside

    if name == ensemble.DEFAULT and not ensemble.finished_runs(session, known):
        return None
    try:
        value = ensemble.ensure(session, known, name=name)
        if not path_beside(ensemble.path(session, known, name)).is_file():
            runs = list(value["considered"])
            value = ensemble.make(session, known, runs=runs, name=name)
    except DataError as fault:
        session.out.warn(f"no ensemble: {fault.message}")
        return None
    return value


def _facts(
    session: Session,
    known: Known,
    value: dict[str, Any] | None,
    *,
    images: int,
    megabytes: float,
) -> Facts:
    from dataclasses import asdict

    from kagflow.report.collect import Collector
    from kagflow.report.facts import Limits, Place
    from kagflow.ship import history
    from kagflow.ship.records import HoursRow, Records

    records, workspace = Records(user_state()), session.workspace
    profile, name = workspace.profile, known.name
    sent = history.history(records, profile=profile, competition=name)
    spent = records.select(HoursRow, profile=profile, competition=name)
    file = ensemble.path(session, known, value["name"]) if value else None
    place = Place(
        spec=known.config.task(),
        data=workspace.data(name),
        runs=workspace.runs(name),
        ensemble=value,
        images_file=file,
        command=session.command,
        submissions=[history.as_dict(row) for row in sent],
        hours=[asdict(row) for row in spent],
    )
    return Collector(place, Limits(images, megabytes), session.out.progress()).collect()


def _origin(session: Session, value: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    data = (("data", str(value["data"])[:12]),) if value else ()
    return (("profile", session.workspace.profile), *data)
