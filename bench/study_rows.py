"""The questions of the study, what their records answer, and the rows of STUDY.md.

A row is made when every record that it needs is there, appended once, and never computed again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import quality_stats as stats
import study_arms as arms
import study_finals
from quality_train import ARENAS

RESULTS = Path(__file__).parent / "STUDY.md"
# The one arm that is not named beforehand: the best out of fold of those that cost one budget.
CHOSEN = "chosen"
WHERE = {"oof": "fold 0, out of fold", "hidden": "hidden part"}
WAYS = {"final": "tuned", "half": "at .5"}
# As the first cells of a line: what a row is about.
KEYS = 4
Record = dict[str, Any]
Read = Callable[[str, str, int], Record]
There = Callable[[str, str, int], bool]


@dataclass(frozen=True)
class Question:
    """Ask whether one arm beats another, each `final` or at threshold .5 (`half`)."""

    ours: str
    theirs: str
    ways: tuple[str, str] = ("final", "final")
    seeds: int = 3

    @property
    def text(self) -> str:
        """Say what is compared."""
        ours, theirs = (
            f"{arm}, {'by hand' if arm == arms.BASELINE and way == 'final' else WAYS[way]}"
            for arm, way in zip((self.ours, self.theirs), self.ways, strict=True)
        )
        return f"{ours} / {theirs}"

    def candidates(self, data: str) -> list[str]:
        """Name the arms that `ours` may be: itself, or all that one is chosen of."""
        return single_budget(data) if self.ours == CHOSEN else [self.ours]

    def needs(self, data: str) -> list[tuple[str, int]]:
        """Return the arms and seeds whose records answer it, none where it cannot be asked."""
        names = [*self.candidates(data), self.theirs]
        if not set(names) <= set(arms.arms_of(data)):
            return []
        return [(name, seed) for seed in range(self.seeds) for name in dict.fromkeys(names)]


HALF = ("half", "half")


def _both(ours: str, theirs: str, seeds: int = 3) -> tuple[Question, ...]:
    return Question(ours, theirs, seeds=seeds), Question(ours, theirs, HALF, seeds)


ROWS: dict[str, tuple[Question, ...]] = {
    "baseline": (Question(arms.REFERENCE, arms.BASELINE), Question(CHOSEN, arms.BASELINE)),
    "steps": (
        Question(arms.REFERENCE, "one-view", HALF),
        Question(arms.REFERENCE, arms.REFERENCE, ("final", "half")),
        Question("joined", arms.REFERENCE),
    ),
    "texture": (*_both("shallow-deep", arms.REFERENCE), *_both("siamese", arms.REFERENCE)),
    "sampler": (*_both(arms.REFERENCE, "plain"), *_both("affinity", arms.REFERENCE)),
    "weights": _both(arms.REFERENCE, "random"),
    "gate": _both("gated", arms.REFERENCE, 5),
    "encoder": _both("random", "resnet-unet", 5),
    "finals": (),
}


def single_budget(data: str) -> list[str]:
    """Name kagflow's arms that cost one budget: of these one is chosen out of fold."""
    found = arms.arms_of(data).items()
    return [one for one, arm in found if arm.budgets == 1 and not (arm.by_hand or arm.one_view)]


def needs(row: str, data: str) -> list[tuple[str, int]]:
    """Return the arms and seeds whose records a row needs on a data set."""
    if row == "finals":
        return [(name, 0) for name in arms.arms_of(data)]
    return list(dict.fromkeys(one for each in ROWS[row] for one in each.needs(data)))


def lines(row: str, data: str, there: There, read: Read, images: Record) -> list[str]:
    """Return a row's lines for one data set, of the questions whose records are all there."""
    if row == "finals":
        if not all(there(data, *one) for one in needs(row, data)):
            return []
        named = {name: read(data, name, 0) for name in arms.arms_of(data)}
        return [_line(row, data, *one) for one in study_finals.compare(named, images)]
    found = []
    for question in ROWS[row]:
        needed = question.needs(data)
        if needed and all(there(data, *one) for one in needed):
            found += _answers(row, data, question, read, images)
    return found


def _answers(row: str, data: str, question: Question, read: Read, images: Record) -> list[str]:
    told = {
        name: [read(data, name, seed) for seed in range(question.seeds)]
        for name in (*question.candidates(data), question.theirs)
    }
    text, ours = question.text, question.ours
    if ours == CHOSEN:
        ours = choose({name: told[name] for name in question.candidates(data)})
        text = text.replace(CHOSEN, f"{CHOSEN} out of fold ({ours})")
    pair = told[ours], told[question.theirs]
    return [
        _line(row, data, where, text, *_judge(question, pair, images, key))
        for key, where in WHERE.items()
    ]


def choose(told: dict[str, list[Record]]) -> str:
    """Return the arm that is best out of fold, tuned; the hidden part is not looked at."""
    return max(
        told,
        key=lambda arm: statistics.mean(float(np.mean(one["oof"]["final"])) for one in told[arm]),
    )


def _judge(
    question: Question, told: Sequence[Sequence[Record]], images: Record, key: str
) -> tuple[stats.Paired, str, str, str, str]:
    """Return what is paired, the verdict, and the cells behind it."""
    pairs = list(zip(told, question.ways, strict=True))
    scores = [[np.array(one[key][way]) for one in ones] for ones, way in pairs]
    paired = stats.paired(scores[0], scores[1], np.array(images[key]))
    unanswered = question.ways == ("final", "final") and all(
        one["empty"] for ones in told for one in ones
    )
    dice = [statistics.mean(one["dice"][key][way] for one in ones) for ones, way in pairs]
    spent = [statistics.median(_seconds(one) for one in ones) for ones in told]
    return (
        paired,
        "not answered" if unanswered else verdict(paired),
        " / ".join(f"{one:.3f}" for one in dice),
        f"{images['floor'][key]:.4f}",
        " / ".join(f"{one:.0f}" for one in spent),
    )


def verdict(paired: stats.Paired) -> str:
    """Say win or loss where the interval leaves out 0, else undecided."""
    return paired.verdict.replace("tie", "undecided")


def _seconds(record: Record) -> float:
    return sum(float(one["cpu_seconds"]) for one in record["trainings"].values())


def _line(
    row: str, data: str, where: str, text: str, paired: stats.Paired, word: str, *cells: str
) -> str:
    spread = [
        f"{value:.4f}" + ("" if more is None else f" ± {more:.4f}")
        for value, more in (
            (paired.ours, paired.ours_spread),
            (paired.theirs, paired.theirs_spread),
        )
    ]
    gain = f"{paired.gain:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]"
    first = (row, ARENAS[data].data, f"{where}, {paired.images} images", text)
    told = (*first, *spread, gain, f"**{word}**", *cells, f"{datetime.now(UTC):%Y-%m-%d}")
    return f"| {' | '.join(told)} |"


def append(fresh: Sequence[str], path: Path) -> list[str]:
    """Add the lines whose question the file does not hold yet; return those."""
    text = path.read_text()
    known = {key_of(line) for line in text.splitlines() if line.startswith("| ")}
    kept = [line for line in fresh if key_of(line) not in known]
    path.write_text(text + "".join(f"{line}\n" for line in kept))
    return kept


def key_of(line: str) -> tuple[str, ...]:
    """Return what a line is about: row, data, where and what is compared, without its figures."""
    cells = [cell.strip() for cell in line.split("|")[1 : 1 + KEYS]]
    return (*cells[:3], cells[3].partition(" (")[0])
