"""What the study compares: every arm as a change of the one reference recipe.

A training (`Training`) is kagflow's default recipe with some keys changed, a recipe of the data
set's own, or the script of plain_smp. An arm (`Arm`) is what is scored: one or more trainings of
a seed, joined. All cost the same: as many images as take the reference's time (`budget`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import plain_smp
from quality_train import ENCODER, WIDTHS, Arena, Place, default_recipe

from kagflow.config import Recipe
from kagflow.yaml_file import read_yaml

KEPT = Path(__file__).parent / "study"
COSTS = KEPT / "costs.json"
REFERENCE = "lite"
BASELINE = "baseline"
MODEL = {"arch": "FPN", "encoder": ENCODER, **WIDTHS}
# The mean and deviation that the default input has.
GREY = {"mean": 0.449, "std": 0.226}
# The learning rate of the script: what was better out of fold in QUALITY.md.
RATES = {"magnetic_tile": 1e-3, "neu_steel": 3e-3}
# As their author sets them: in pixels, a little below the smallest true mask of a class (one of
# three pixels aside): 200, 1300, 300 cost the reference .0012 out of fold on neu_steel.
AREAS = {"magnetic_tile": (25, 80, 110, 160, 1000), "neu_steel": (30, 800, 200)}


@dataclass(frozen=True)
class Training:
    """Say how one training differs from the reference; `share` is of a whole budget.

    `change` are keys of the recipe; `recipe` names one of the data set's own to start from;
    `script` is the encoder of a Unet of plain_smp, then nothing else counts. `probed` says whether
    an image takes another time than in the reference.
    """

    change: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    script: str | None = None
    share: float = 1.0
    probed: bool = True


def _smp(**kwargs: Any) -> dict[str, Any]:
    return {"target": "smp", "kwargs": MODEL | kwargs}


def _lite_unet(number: int) -> Training:
    return Training(script=f"tu-tf_efficientnet_lite{number}", share=1 / 3)


TRAININGS = {
    REFERENCE: Training(probed=False),
    "random": Training({"weights": "none"}, probed=False),
    "resnet-unet": Training(
        {
            "model": {"target": "smp", "kwargs": {"arch": "Unet", "encoder": "resnet18"}},
            "weights": "none",
        }
    ),
    "plain": Training({"sampler": {"target": "plain"}}, probed=False),
    "affinity": Training({"model": _smp(affinity=True), "loss": {"target": "affinity"}}),
    "shallow-deep": Training(
        {"model": {"target": "severstal.models:ShallowDeep", "kwargs": MODEL | {"width": 24}}}
    ),
    "siamese": Training(
        {
            "model": {"target": "severstal.models:Siamese", "kwargs": MODEL},
            "assets": {"references": {"target": "severstal.siamese:references"}},
            "input": {"target": "severstal.siamese:Paired", "kwargs": GREY},
        }
    ),
    "gate": Training(recipe="gate"),
    "unet-lite0": _lite_unet(0),
    "unet-lite1": _lite_unet(1),
    "unet-lite2": _lite_unet(2),
}


@dataclass(frozen=True)
class Arm:
    """What is scored: the mean of `trainings` of one seed, a gate among them as a gate.

    `one_view` leaves test-time flips out, `by_hand` takes the areas of AREAS at threshold .5 where
    others are tuned. `only` names the data sets that it can be asked on, None for all.
    """

    trainings: tuple[str, ...]
    seeds: int = 3
    one_view: bool = False
    by_hand: bool = False
    only: tuple[str, ...] | None = None

    @property
    def budgets(self) -> float:
        """Return how many times a training's time went into it."""
        return sum(TRAININGS[name].share for name in self.trainings)


ARMS = {
    REFERENCE: Arm((REFERENCE,), seeds=5),
    "one-view": Arm((REFERENCE,), one_view=True),
    BASELINE: Arm(("unet-lite0", "unet-lite1", "unet-lite2"), by_hand=True),
    "shallow-deep": Arm(("shallow-deep",)),
    "joined": Arm((REFERENCE, "shallow-deep")),
    "plain": Arm(("plain",)),
    "affinity": Arm(("affinity",)),
    # A reference frame is one without a defect, and the steel strips have none.
    "siamese": Arm(("siamese",), only=("magnetic_tile",)),
    "gated": Arm((REFERENCE, "gate"), seeds=5),
    "random": Arm(("random",), seeds=5),
    "resnet-unet": Arm(("resnet-unet",), seeds=5),
}


def arms_of(data: str) -> dict[str, Arm]:
    """Return the arms that a data set can be asked for."""
    return {name: arm for name, arm in ARMS.items() if arm.only is None or data in arm.only}


def costs() -> dict[str, dict[str, float]]:
    """Return {data: {training: seconds of an image over the reference's}}, {} before `probe`."""
    return dict(json.loads(COSTS.read_text())["costs"]) if COSTS.is_file() else {}


def budget(arena: Arena, name: str, known: Mapping[str, float]) -> int:
    """Return how many images a training sees; raises KeyError where its cost is not known."""
    training = TRAININGS[name]
    cost = known[name] if training.probed else 1.0
    return max(arena.batch, int(arena.images * training.share / cost))


def recipe(place: Place, name: str, seed: int, images: int) -> Recipe:
    """Return the recipe of a training that sees so many images."""
    training = TRAININGS[name]
    trained = len(place.files(held_out=False))
    value = default_recipe(replace(place.arena, images=images), seed, trained).model_dump(
        mode="json"
    )
    if training.recipe:
        home = place.root / "competitions" / place.arena.name / "recipes"
        own = dict(read_yaml(home / f"{training.recipe}.yaml"))
        return Recipe.model_validate(
            own | {key: value[key] for key in ("epochs", "samples", "seed")}
        )
    return Recipe.model_validate(value | dict(training.change))


def script(place: Place, name: str, seed: int, images: int) -> plain_smp.Script:
    """Return a script's settings: a Unet as smp makes it, at the data set's constant rate."""
    arena, classes = place.arena, len(place.spec.classes)
    model = {"encoder_name": TRAININGS[name].script}
    return plain_smp.Script(
        "Unet", model, classes, arena.size, arena.batch, RATES[arena.name], seed, images
    )
