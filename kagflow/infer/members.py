"""What an ensemble is made of, as plain data, and how it becomes modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from kagflow.errors import DataError
from kagflow.infer import light
from kagflow.infer.export import load_weights
from kagflow.infer.models import build_model, channels_last
from kagflow.infer.postprocess import ClassRule
from kagflow.task.spec import TaskSpec

TTA = ("none", "hflip", "vflip", "hvflip")
MEANS = ("probabilities", "logits")


@dataclass(frozen=True)
class Member:
    """One recipe's folds in an ensemble: a segmenter (`mask`) or a gate (`label`).

    `model` and `input` are {target, kwargs}; `size` is the working resolution (h, w), None the
    image's own; the folds' `weights` share the member's `weight` equally. `assets` are files that
    the input finds in its metadata; they are a fold's own, as its weights are. `mean` says what of
    it is averaged with the other members; over its own folds and views it is probabilities.
    `seconds` are what an image takes with all folds and views, 0 where that was not measured.
    """

    name: str
    predicts: str
    model: Mapping[str, Any]
    input: Mapping[str, Any]
    size: tuple[int, int] | None
    weights: tuple[Path, ...]
    weight: float = 1.0
    tta: tuple[str, ...] = ("none",)
    assets: Mapping[str, Path] = field(default_factory=dict)
    mean: str = MEANS[0]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.predicts not in ("mask", "label"):
            raise DataError(f"member {self.name}: predicts '{self.predicts}', not mask or label")
        if not self.tta or not set(self.tta) <= set(TTA):
            raise DataError(
                f"member {self.name}: tta {list(self.tta)}", hint=f"choose from {', '.join(TTA)}"
            )
        if self.mean not in MEANS:
            raise DataError(
                f"member {self.name}: mean '{self.mean}'", hint=f"choose from {', '.join(MEANS)}"
            )


def load_member(member: Member, classes: int, device: str) -> list[nn.Module]:
    """Build one module for each of the member's weights, rounded as the pack ships them.

    Raises DataError where a file is missing, damaged or of another model.
    """
    modules = []
    for path in member.weights:
        with light.building():
            model = build_model(member.model, classes=classes)
        load_weights(model, path, as_shipped=True)
        modules.append(channels_last(model, device))
    return modules


def members_from_config(
    config: Mapping[str, Any], folder: Path
) -> tuple[list[Member], list[ClassRule], TaskSpec]:
    """Read members, rules and task from an ensemble's or a pack's JSON.

    `folder` is what the paths of the weights are relative to: the workspace's home for an
    ensemble, the pack's own folder for a pack. Raises DataError naming what is missing.
    """
    try:
        spec = TaskSpec.from_dict(config["task"])
        members = [_member(entry, folder) for entry in config["members"]]
        rules = [ClassRule.from_dict(rule) for rule in config["rules"]]
    except KeyError as error:
        raise DataError(
            f"the ensemble's JSON lacks {error}", hint="make the ensemble anew"
        ) from None
    if len(rules) != len(spec.classes):
        raise DataError(f"{len(rules)} rules for {len(spec.classes)} classes")
    _check_kinds(members, spec)
    return members, rules, spec


def _member(entry: Mapping[str, Any], folder: Path) -> Member:
    size = entry.get("size")
    return Member(
        name=str(entry.get("name") or entry["run"]),
        predicts=entry["predicts"],
        model=entry["model"],
        input=entry["input"],
        size=None if size is None else (int(size[0]), int(size[1])),
        weights=tuple(folder / name for name in entry["weights"]),
        weight=float(entry.get("weight", 1.0)),
        tta=tuple(entry.get("tta") or ("none",)),
        assets={key: folder / name for key, name in (entry.get("assets") or {}).items()},
        mean=str(entry.get("mean") or MEANS[0]),
        seconds=float(entry.get("seconds_per_image") or 0.0),
    )


def _check_kinds(members: Sequence[Member], spec: TaskSpec) -> None:
    """Raise DataError for an ensemble that cannot answer its task."""
    for kind in ("mask", "label"):
        means = {member.mean for member in members if member.predicts == kind}
        if len(means) > 1:
            raise DataError(
                f"members that predict '{kind}' are averaged in two ways: {sorted(means)}",
                hint="make the ensemble anew",
            )
    needed = "mask" if spec.kind == "segmentation" else "label"
    if not any(member.predicts == needed and member.weights for member in members):
        raise DataError(
            f"no member with weights predicts '{needed}', which {spec.kind} needs",
            hint=f"train a recipe with predicts: {needed}",
        )
