"""Say of every distribution that is asked for whether it travels, by whom it is asked, or why not.

May be read without a network, an ensemble or a pack.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kagflow.errors import KagflowError
from kagflow.fingerprint import Fingerprint
from kagflow.ship import runtime
from kagflow.ship.shelf import Shelf
from kagflow.ship.wheels import Closure, missing_wheels

Verdict = Literal["in", "out", "blocked"]


@dataclass(frozen=True)
class Told:
    """Tell one distribution's verdict; `where` is the wheel's origin, or the image's name.

    `why` lists who asks for it, or what stands against it.
    """

    name: str
    version: str
    verdict: Verdict
    where: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Hold all verdicts, why no resolver was asked ("" where uv was), and what stops the pack."""

    rows: tuple[Told, ...]
    offline: str
    error: KagflowError | None = None


def explain(
    asked: Mapping[str, Sequence[str]],
    fingerprint: Fingerprint,
    shelf: Shelf,
    *,
    allow_replace: Collection[str] = (),
) -> Explanation:
    """Return what packing would bring along; where it would fail, each requirement by itself."""
    try:
        closure = missing_wheels(asked, fingerprint, shelf, allow_replace=allow_replace)
    except KagflowError as error:
        rows = tuple(_apart(asked, fingerprint, shelf, allow_replace))
        return Explanation(rows, shelf.offline, error)
    return Explanation((_own(), *_rows(closure, fingerprint)), closure.offline)


def _apart(
    asked: Mapping[str, Sequence[str]],
    fingerprint: Fingerprint,
    shelf: Shelf,
    allow_replace: Collection[str],
) -> Iterator[Told]:
    seen: dict[str, Told] = {}
    for who, texts in asked.items():
        for text in texts:
            try:
                alone = missing_wheels(
                    {who: [text]}, fingerprint, shelf, allow_replace=allow_replace
                )
            except KagflowError as error:
                yield Told(text, "", "blocked", fingerprint.name, (error.message,))
            else:
                seen |= {row.name: row for row in _rows(alone, fingerprint)}
    yield from seen.values()


def _own() -> Told:
    return Told(runtime.NAME, "", "in", "made here", ("the kernel runs it",))


def _rows(closure: Closure, fingerprint: Fingerprint) -> Iterator[Told]:
    for wheel in closure.wheels:
        gone = closure.replaced.get(wheel.name)
        why = closure.reasons.get(wheel.name, (wheel.why,))
        if gone:
            why = (*why, f"it takes the place of the image's {gone}, as allow_replace says")
        yield Told(wheel.name, wheel.version, "in", wheel.origin, why)
    for name, version in closure.relied_on.items():
        yield Told(name, version, "out", fingerprint.name, closure.reasons.get(name, ()))
