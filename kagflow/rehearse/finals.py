"""The submissions that a team ticked as its finals, which on Kaggle only a browser can do."""

from __future__ import annotations

from collections.abc import Collection

from kagflow.errors import UsageError
from kagflow.rehearse.store import Store


def selected(store: Store, slug: str) -> frozenset[int]:
    """Return the references that are ticked in a competition."""
    rows = store.rows(
        "SELECT final.ref FROM final JOIN submission USING (ref) WHERE competition = ?", (slug,)
    )
    return frozenset(row["ref"] for row in rows)


def select(store: Store, slug: str, refs: Collection[int]) -> None:
    """Tick these submissions of a competition and no others.

    Raises UsageError for one that is not there or has no score.
    """
    with store.write() as db:
        rows = db.execute(
            "SELECT ref FROM submission WHERE competition = ? AND status = 'COMPLETE'", (slug,)
        )
        there = {row["ref"] for row in rows}
        if wrong := sorted(set(refs) - there):
            raise UsageError(
                f"{slug} has no scored submission {', '.join(map(str, wrong))}",
                hint="kagflow history --profile local",
            )
        db.execute(
            "DELETE FROM final WHERE ref IN (SELECT ref FROM submission WHERE competition = ?)",
            (slug,),
        )
        db.executemany("INSERT INTO final VALUES (?)", [(ref,) for ref in sorted(set(refs))])
