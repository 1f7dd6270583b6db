"""kagflow local: the embedded Kaggle that stands in for the real one."""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow import resolve
from kagflow.cli import competitions
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from kagflow.rehearse import local_add

ACTIONS = ("start", "stop", "status", "add", "reset", "tick", "url")


@guarded
def command(
    context: typer.Context,
    action: Annotated[str, typer.Argument(help="start, stop, status, add, reset, tick or url.")],
    name: Annotated[str | None, typer.Argument(help="add, reset, tick: the competition.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="add: a folder with train_images/ and train.csv.")
    ] = None,
    holdout: Annotated[float, typer.Option(help="add: share kept as hidden test.")] = 0.3,
    seed: Annotated[int, typer.Option(help="add: seed of the split.")] = 0,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="add: leave the private half unscored.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="reset: do not ask.")] = False,
    refs: Annotated[str, typer.Option(help="tick: the finals, as 3,5; no others stay.")] = "",
) -> None:
    """Start, stop or look at the embedded Kaggle, reset it, or add a competition to it."""
    from kagflow.rehearse import local_add, server

    session = open_session(context)
    store = session.workspace.kaggle_store
    if action == "start":
        running = server.ensure(store)
        session.out.result({"url": running.url, "pid": running.pid}, f"running at {running.url}")
    elif action == "stop":
        stopped = server.stop(store)
        session.out.result({"stopped": stopped}, "stopped" if stopped else "was not running")
    elif action == "status":
        found = server.status(store)
        text = f"running at {found.url} (pid {found.pid})" if found else "not running"
        session.out.result({"running": asdict(found) if found else None}, text)
    elif action == "url":
        _print_environment(session, server.ensure(store).url)
    elif action == "add":
        _add(session, name, data, local_add.Hidden(holdout, seed, sealed))
    elif action == "reset":
        _reset(session, name, yes=yes)
    elif action == "tick":
        _tick(session, name, refs)
    else:
        raise UsageError(f"unknown action '{action}'", hint=f"there are: {', '.join(ACTIONS)}")


def ensure_registered(session: Session, known: Known) -> None:
    """Register the generated competition where the embedded Kaggle lacks the real one.

    Raises UsageError where there is no generator.
    """
    from kagflow.rehearse.store import Store

    if Store(session.workspace.kaggle_store).has_competition(known.config.slug):
        return
    if known.config.mini is None:
        raise UsageError(
            f"the embedded Kaggle has no '{known.config.slug}', and {known.name} has no generator",
            hint=f"kagflow local add {known.name} --data DIR",
        )
    session.out.say(
        f"the embedded Kaggle has no '{known.config.slug}': generating look-alike data for it"
    )
    generate_mini(session, known, seed=known.config.mini.seed)


def generate_mini(session: Session, known: Known, *, seed: int) -> None:
    """Generate a competition's look-alike data and register it under the real slug."""
    from kagflow.rehearse.register import facts_of, register

    mini = known.config.mini
    if mini is None:
        raise UsageError(f"{known.name} has no `mini` in its competition.yaml")
    generate = resolve.resolve(mini.generate, {})
    scratch = session.workspace.cache
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="mini-") as folder:
        generate(Path(folder), seed=seed, progress=session.out.progress())
        facts = facts_of(known.config, generated=True)
        register(session.workspace.kaggle_store, facts, Path(folder))


def _add(session: Session, name: str | None, data: Path | None, hidden: local_add.Hidden) -> None:
    from kagflow.rehearse import local_add
    from kagflow.rehearse.register import facts_of

    if name is None or data is None:
        raise UsageError("say which competition and data", hint="kagflow local add NAME --data DIR")
    known = competitions.find(session.workspace, name)
    added = local_add.add(
        session.workspace.kaggle_store,
        facts_of(known.config, generated=False),
        data,
        hidden=hidden,
        progress=session.out.progress(),
    )
    session.out.result(
        {"competition": known.name, **asdict(added)},
        f"{known.name}: {added.train} images to train on; hidden: {added.public} public, "
        f"{added.private} private\nnext: kagflow fetch {known.name} --profile local",
    )


def _tick(session: Session, name: str | None, refs: str) -> None:
    from kagflow.rehearse import finals
    from kagflow.rehearse.store import Store

    known = competitions.find(session.workspace, name)
    if not re.fullmatch(r"(\d+(,\d+)*)?", refs):
        raise UsageError(f"'{refs}' names no submissions", hint="--refs 3,5")
    chosen = [int(ref) for ref in refs.split(",") if ref]
    if len(chosen) > known.config.finals:
        raise UsageError(f"{known.name} takes {known.config.finals} finals, not {len(chosen)}")
    finals.select(Store(session.workspace.kaggle_store), known.config.slug, chosen)
    told = ", ".join(map(str, chosen)) or "none"
    session.out.result({"competition": known.name, "finals": chosen}, f"finals: {told}")


def _reset(session: Session, name: str | None, *, yes: bool) -> None:
    from kagflow.rehearse import reset

    slug = competitions.find(session.workspace, name).config.slug if name else None
    what = f"the competition {slug}" if slug else "all kernels, datasets, submissions and hours"
    if not yes:
        if not sys.stdin.isatty():
            raise RefusedError(f"forget {what}? nobody is here to ask", hint="add --yes")
        if not typer.confirm(f"Forget {what} of the embedded Kaggle?", err=True):
            raise RefusedError("nothing was forgotten")
    stopped = reset.reset(session.workspace.kaggle_store, slug)
    note = "; its server was stopped" if stopped else ""
    session.out.result({"forgot": slug or "all", "stopped": stopped}, f"forgot {what}{note}")


def _print_environment(session: Session, url: str) -> None:
    values = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "local",
        "KAGGLE_KEY": "local",
        "http_proxy": url,
        "https_proxy": url,
        "no_proxy": "",
        "NO_PROXY": "",
    }
    lines = "\n".join(f"export {key}={value}" for key, value in values.items())
    session.out.result({"url": url, "environment": values}, lines)
