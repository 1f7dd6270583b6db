"""The arm that is called kagflow's default is nothing but the defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kagflow.config import Recipe

SHARED = {"model", "weights", "size", "batch", "epochs", "samples", "seed"}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import quality_train

    yield quality_train
    for name in ("quality_train", "plain_smp"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["magnetic_tile", "neu_steel"])
def test_only_what_both_arms_share_is_said(training, name: str) -> None:
    arena = training.ARENAS[name]
    ours = training.default_recipe(arena, 1, 420)
    bare = Recipe(model=ours.model)
    differing = {key for key in Recipe.model_fields if getattr(ours, key) != getattr(bare, key)}
    assert differing <= SHARED
    script = training.plain_script(arena, 3, 1e-3, 1)
    assert (script.size, script.batch) == (ours.size, ours.batch)
    given = ours.model.kwargs
    assert script.model["encoder_name"] == given["encoder"]
    assert script.arch == given["arch"]


@pytest.mark.parametrize("name", ["magnetic_tile", "neu_steel"])
def test_whole_epochs_hold_as_many_images_as_the_arena_allows(training, name: str) -> None:
    arena = training.ARENAS[name]
    ours = training.default_recipe(arena, 0, 420)
    seen = ours.epochs * ours.samples
    assert arena.images - ours.epochs < seen <= arena.images
