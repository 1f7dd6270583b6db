"""Fill the template: every value is escaped, nothing is fetched, no script but its own runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from kagflow import __version__, resources
from kagflow.report import errors, reliability
from kagflow.report.contours import PREDICTION, TRUTH
from kagflow.report.facts import Facts, Missing
from kagflow.report.gallery import Card

FOLDER = "report"
WIDE = 2.5
REASONS = {
    "worst": "the costliest images",
    "median": "images of the middle",
    "missed": "the costliest misses",
    "hallucinated": "the costliest inventions",
    "doubted": "labels in doubt",
}


@dataclass(frozen=True)
class Head:
    """What stands at the top: the competition's title and slug, and whence the page is.

    `made` is the moment as text, `origin` further pairs of word and value.
    """

    title: str
    slug: str
    judge: str
    made: str
    origin: tuple[tuple[str, str], ...] = ()


def render(head: Head, facts: Facts, ensemble: Mapping[str, Any] | None = None) -> str:
    """Return the page; equal arguments give equal text. `ensemble` is what its JSON holds."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates() / FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": _score, "points": _points, "hours": _hours, "number": _number, "json": _json,
    }  # fmt: skip
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    loader = environment.loader
    assert loader is not None
    script, style = (loader.get_source(environment, name)[0] for name in ("page.js", "page.css"))
    cards = () if isinstance(facts.cards, Missing) else facts.cards
    return environment.get_template("page.html.j2").render(
        head=head,
        facts=facts,
        ensemble=_told(ensemble) if ensemble else None,
        cv=ensemble["cv"] if ensemble else None,
        version=__version__,
        kinds=errors.KINDS,
        reasons={name: what for name, what in REASONS.items() if _any_reason(cards, name)},
        cards=[_numbered(card, at) for at, card in enumerate(cards)],
        card_width=_card_width(cards),
        outlines=any(card.truth or card.predicted for card in cards),
        folds=sorted({card.fold for card in cards}),
        clusters=sorted({card.cluster for card in cards if card.mates > 1}),
        classes=_classes(cards),
        gate_charts=_gate_charts(facts),
        truth=TRUTH,
        prediction=PREDICTION,
        script=script,
        style=style,
        script_hash=_sha256(script),
    )


def _told(ensemble: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an ensemble's JSON tells beside its members; an earlier version told less."""
    return {name: ensemble.get(name) for name in ("candidates", "cost", "kinds")}


def _numbered(card: Card, at: int) -> dict[str, Any]:
    """Return a card with what the page's script and its readers need to know of it."""
    told = [
        f"class {unit.label} {unit.kind} ({unit.true} px true, {unit.predicted} px predicted)"
        if card.truth or card.predicted
        else f"class {unit.label} {unit.kind}"
        for unit in card.units
    ]
    units = [{"c": unit.at, "k": unit.kind, "l": unit.loss, "s": unit.score} for unit in card.units]
    return {
        "card": card,
        "number": at,
        "alt": f"{card.image_id}: {'; '.join(told) or 'nothing is there, nothing is predicted'}",
        "units": units,
        "score": min((unit.score for unit in card.units), default=1.0),
        "area": sum(unit.true for unit in card.units),
        "left_out": sum(shape.left_out for shape in (*card.truth, *card.predicted)),
        "named": len({shape.label for shape in (*card.truth, *card.predicted)}) > 1,
    }


def _classes(cards: Iterable[Card]) -> list[tuple[int, str]]:
    return sorted({(unit.at, unit.label) for card in cards for unit in card.units})


def _any_reason(cards: Iterable[Card], reason: str) -> bool:
    return any(reason in card.why for card in cards)


def _card_width(cards: Iterable[Card]) -> int:
    """Return how wide a card should be, in pixels: strips need more than squares."""
    shapes = [card.picture.width / card.picture.height for card in cards if card.picture]
    return 520 if shapes and median(shapes) > WIDE else 270


def _gate_charts(facts: Facts) -> list[str]:
    if isinstance(facts.gates, Missing):
        return []
    return [reliability.chart(f"gate{at}", gate.classes) for at, gate in enumerate(facts.gates)]


def _score(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.4f}"


def _points(value: float) -> str:
    return f"{value:.5f}"


def _hours(value: float) -> str:
    return f"{value:.2f} h" if value >= 1 else f"{value * 60:.1f} min"


def _number(value: float) -> str:
    return f"{value:,}"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
