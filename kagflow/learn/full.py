"""Weights trained on everything in an ensemble: only beside folds that judge their recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kagflow.errors import RefusedError
from kagflow.naming import FULL

Facts = Sequence[Mapping[str, Any]]
# What may differ between trainings of one recipe without making another model.
_HOW = ("batch", "accumulate", "workers")


def check_twins(facts: Mapping[str, Facts]) -> None:
    """Refuse runs on everything that have no fold, or folds of another recipe, beside them."""
    for run, ones in facts.items():
        alone = all(one["fold"] == FULL for one in ones)
        if alone:
            raise RefusedError(
                f"{run} was trained on everything alone: nothing says what it is worth",
                hint=f"train fold=all of {run} too, or name other runs",
            )
        if any(one["fold"] == FULL for one in ones) and len({_recipe(one) for one in ones}) > 1:
            raise RefusedError(
                f"{run}: its folds and its training on everything are of two recipes",
                hint="train one of them anew under another name=",
            )


def judged(runs: Mapping[str, Sequence[Path]], facts: Mapping[str, Facts]) -> dict[str, list[Path]]:
    """Return the folders of each run that predict images out of fold."""
    return {
        run: [at for at, one in zip(folders, facts[run], strict=True) if one["fold"] != FULL]
        for run, folders in runs.items()
    }


def with_cost(facts: Facts) -> list[dict[str, Any]]:
    """Give a training on everything the mean cost of its folds: it is the same model."""
    known = [float(one["seconds_per_image"]) for one in facts if one["fold"] != FULL]
    mean = {"seconds_per_image": sum(known) / len(known)}
    return [{**one, **(mean if one["fold"] == FULL else {})} for one in facts]


def labelled(cv: dict[str, Any], facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Say beside the score which runs also have weights that it does not judge."""
    names = sorted(run for run, ones in facts.items() if any(o["fold"] == FULL for o in ones))
    if not names:
        return cv
    said = f"{cv['label']}; not judged: the weights of {', '.join(names)} trained on everything"
    return cv | {"label": said, "unjudged": names}


def _recipe(fact: Mapping[str, Any]) -> str:
    return repr(sorted((key, value) for key, value in fact["recipe"].items() if key not in _HOW))
