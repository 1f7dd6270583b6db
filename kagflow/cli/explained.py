"""kagflow pack --explain: why each wheel is in, and what of the image is relied on."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from kagflow.cli.competitions import Known
from kagflow.cli.session import Session


def show(session: Session, known: Known) -> None:
    """Print a verdict on every distribution that is asked for.

    Raises the error that would stop the pack, after the table.
    """
    from kagflow.ship import target
    from kagflow.ship.explain import explain
    from kagflow.ship.wheels import asked_for, own_shelf

    image = target.chosen(session.workspace.targets, known.config.accelerator)
    with tempfile.TemporaryDirectory(prefix="kagflow-explain-") as work:
        told = explain(
            asked_for(known.config.packed()),
            image,
            own_shelf(Path(work)),
            allow_replace=known.config.allow_replace,
        )
    rows = [(one.name, one.version, one.verdict, one.where, "; ".join(one.why))
            for one in told.rows]  # fmt: skip
    columns = ("distribution", "version", "verdict", "from", "why")
    session.out.table(f"wheels for {image.name}", columns, rows)
    if told.offline:
        session.out.warn(f"no index was asked: {told.offline}")
    if told.error is not None:
        raise told.error
    count = sum(one.verdict == "in" for one in told.rows)
    session.out.result(
        {
            "image": image.name,
            "approximate": image.approximate,
            "resolver": "local" if told.offline else "uv",
            "offline": told.offline,
            "distributions": [asdict(one) for one in told.rows],
            "next": session.command("pack"),
        },
        f"{count} wheels travel, {len(told.rows) - count} distributions are the image's own\n"
        f"next: {session.command('pack')}",
    )
