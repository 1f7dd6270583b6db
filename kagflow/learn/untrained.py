"""Say which folds of the runs are not trained yet, what each would take, and what it may gain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow.learn import checkpoint
from kagflow.learn.evaluate import finished_folds, read_run


@dataclass(frozen=True)
class Untrained:
    """Hold one fold that a run lacks; `seconds` are those that its other folds took on `machine`.

    `share` of it is trained already. `gain` is what the score out of fold may gain over all images
    once this fold is there, None where its own folds say nothing; `over` names what it is held
    against: a run, or "" for an all-empty file.
    """

    run: str
    fold: int
    seconds: float
    machine: str
    measured: tuple[int, ...]
    share: float
    gain: float | None
    over: str

    @property
    def per_hour(self) -> float | None:
        """The score gained per hour of training."""
        return None if self.gain is None or not self.seconds else self.gain / self.seconds * 3600


def untrained(runs: Path, sizes: Mapping[int, int]) -> list[Untrained]:
    """List the folds that runs with a finished one lack, most gain per hour first.

    `sizes` holds the number of images of each fold. A fold's gain is how much better the run scores
    on its finished folds than the best other run does that holds the missing fold (than the
    all-empty file where none does), times the fold's share of all images.
    """
    facts = {
        folder.name: {int(one["fold"]): one for one in map(read_run, finished_folds(folder))}
        for folder in sorted(runs.glob("*"))
        if folder.is_dir()
    }
    facts = {run: ones for run, ones in facts.items() if ones}
    found = [
        _missing(runs / run / f"fold{fold}", facts, fold, sizes)
        for run, ones in facts.items()
        for fold in sizes
        if fold not in ones
    ]
    return sorted(found, key=lambda one: (-(one.per_hour or 0.0), one.run, one.fold))


def _missing(
    folder: Path, facts: Mapping[str, Mapping[int, Any]], fold: int, sizes: Mapping[int, int]
) -> Untrained:
    run = folder.parent.name
    own = facts[run]
    whole = sum(map(_seconds, own.values())) / len(own)
    steps = max(one["steps"] for one in own.values())
    share = min(max(checkpoint.steps(folder), default=0) / steps, 1.0) if steps else 0.0
    gain, over = _gain(run, facts, fold)
    weight = sizes[fold] / max(sum(sizes.values()), 1)
    newest = own[max(own)]
    return Untrained(
        run=run,
        fold=fold,
        seconds=whole * (1.0 - share),
        machine=str(newest.get("machine") or newest.get("device") or "an unknown machine"),
        measured=tuple(sorted(own)),
        share=share,
        gain=None if gain is None else gain * weight,
        over=over,
    )


def _seconds(fact: Mapping[str, Any]) -> float:
    """Return what a fold took: its training, and predicting what it held out."""
    each = float(fact.get("seconds_per_image") or 0.0)
    return float(fact["seconds"]) + each * int(fact["images"])


def _gain(run: str, facts: Mapping[str, Mapping[int, Any]], fold: int) -> tuple[float | None, str]:
    """Return how much better a run is than the best one that holds `fold`, and that one's name."""
    own = facts[run]
    predicts = next(iter(own.values()))["predicts"]
    others = {
        other: ones
        for other, ones in facts.items()
        if other != run and fold in ones and ones[fold]["predicts"] == predicts
    }
    if not others:
        return _mean((own[k]["score"] - own[k]["floor"], own[k]["images"]) for k in own), ""
    best = max(others, key=lambda other: float(others[other][fold]["score"]))
    common = own.keys() & others[best].keys()
    pairs = ((own[k]["score"] - others[best][k]["score"], own[k]["images"]) for k in common)
    return _mean(pairs), best


def _mean(values: Iterable[tuple[float, int]]) -> float | None:
    pairs = list(values)
    images = sum(count for _, count in pairs)
    return sum(value * count for value, count in pairs) / images if images else None
