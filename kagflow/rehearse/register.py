"""Put a prepared competition into the embedded Kaggle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from kagflow.config import Competition
from kagflow.rehearse.facts import GENERATED_HOST, CompetitionFacts
from kagflow.rehearse.store import Store

Rerun = Literal["hidden", "none", "unknown"]

LOCAL_HOST = "kagflow-local"
# A competition without a deadline stays open.
_OPEN_END = "2100-01-01T00:00:00"


def facts_of(competition: Competition, *, generated: bool) -> CompetitionFacts:
    """Return what the embedded Kaggle knows of a competition.yaml."""
    limits = competition.limits
    return CompetitionFacts(
        slug=competition.slug,
        title=competition.title,
        host=GENERATED_HOST if generated else LOCAL_HOST,
        task=competition.task(),
        rerun=competition.rerun,
        inference_minutes=limits.inference_minutes,
        memory_gb=limits.memory_gb,
        daily_submissions=limits.daily_submissions,
        deadline=_OPEN_END,
    )


def register(
    store_dir: Path, facts: CompetitionFacts, folder: Path, *, rerun: Rerun | None = None
) -> Path:
    """Copy a folder {public/, hidden/, solution.csv} into the store and return its place.

    `rerun` overrides the facts' own. Raises DataError when a part is missing, RefusedError when
    the slug holds other data already.
    """
    return Store(store_dir).add_competition(replace(facts, rerun=rerun or facts.rerun), folder)
