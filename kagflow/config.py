"""Closed, frozen configuration: a YAML file and dotted overrides in, a typed model out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kagflow.errors import UsageError
from kagflow.fingerprint import is_fixed, normalise
from kagflow.naming import given_name
from kagflow.overrides import load
from kagflow.task.spec import TaskSpec


class Closed(BaseModel):
    """Refuse unknown keys and later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(Closed):
    """Name a piece of code and its arguments."""

    target: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Optimiser(Target):
    """Name the optimiser; `encoder_lr` is the encoder's share of `lr`.

    lr and encoder_lr are what scored best out of fold on real images, of five pairs tried with a
    convolutional encoder and some hundred steps (the log beside the shipped recipes). Transformers,
    and trainings of many thousand steps, want less: 1e-3, and the 0.1 of the winner of Clouds 2019.
    """

    target: str = "adamw"
    lr: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    encoder_lr: Annotated[float, Field(gt=0)] = 0.5


Size = tuple[int, int] | None
WEIGHT_FILES = (".safetensors", ".pt", ".pth")


def _weights(value: str) -> str:
    if value in ("none", "imagenet", "packaged") or Path(value).suffix in WEIGHT_FILES:
        return value
    raise ValueError(f"none, imagenet, packaged or a file ({', '.join(WEIGHT_FILES)})")


def _ensemble(value: str | None) -> str | None:
    try:
        return None if value is None else given_name(value)
    except UsageError:
        raise ValueError("the name of an ensemble, as `kagflow ensemble --name` gave it") from None


Weights = Annotated[str, AfterValidator(_weights)]
# What the back end onnxruntime imports.
ONNX = ("onnx>=1.16", "onnxruntime>=1.20")
Flip = Literal["none", "hflip", "vflip"]
# Of a step's images: about the 12 % of a batch of a solution that called them a great help.
PSEUDO_SHARE = 0.125


class Recipe(Closed):
    """Describe one way to train; sizes are (height, width) in pixels.

    `batch` images go through the model at once, `accumulate` of them make an optimiser step.
    `average` best epochs become one model; `early_stop` is in epochs without a better glance.
    `weights` is none, imagenet, packaged or a file (.safetensors, .pt, .pth) with a state dict;
    `assets` are files made of the training images, by code, for the input to read. `workers` are
    processes that prepare samples: where none is said, as many as keep a GPU fed, none on a CPU.
    `pseudo` names an ensemble that labels the test images for the fold to learn from; at most
    `pseudo_share` of a step's images, an eighth where none is said, are such.
    """

    predicts: Literal["mask", "label"] = "mask"
    model: Target
    weights: Weights = "none"
    input: Target = Target(target="grey")
    size: Size = None
    crop: Size = None
    loss: Target = Target(target="bce_dice")
    sampler: Target = Target(target="balanced")
    augment: Target = Target(target="flips")
    optimiser: Optimiser = Optimiser()
    schedule: Target = Target(target="cosine", kwargs={"warmup": 0.05})
    epochs: Annotated[int, Field(ge=1)] = 20
    samples: Annotated[int | None, Field(ge=1)] = None
    batch: Annotated[int, Field(ge=1)] = 8
    accumulate: Annotated[int, Field(ge=1)] = 1
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Annotated[float, Field(ge=0)] = 1.0
    average: Annotated[int, Field(ge=1)] = 1
    early_stop: Annotated[int | None, Field(ge=1)] = None
    compile: bool = False
    assets: dict[str, Target] = Field(default_factory=dict)
    tta: tuple[Flip, ...] = ("none", "hflip")
    seed: int = 0
    workers: Annotated[int | None, Field(ge=0)] = None
    pseudo: Annotated[str | None, AfterValidator(_ensemble)] = None
    pseudo_share: Annotated[float | None, Field(gt=0, le=0.5)] = None

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: Any) -> Any:
        # Only here: a run that was begun before there were pseudo-labels is still the same.
        if isinstance(values, dict) and values.get("pseudo") is not None:
            return {"pseudo_share": PSEUDO_SHARE} | values
        return values

    @field_validator("pseudo_share")
    @classmethod
    def _room(cls, share: float | None, info: ValidationInfo) -> float | None:
        step = info.data.get("batch", 1) * info.data.get("accumulate", 1)
        if share is not None and step * share < 1:
            raise ValueError(f"none of the {step} images of a step: a larger share or batch")
        return share


class Limits(Closed):
    """State what the competition allows; None where it is not known."""

    inference_minutes: float = 540.0
    public_images: int | None = None
    hidden_images: int | None = None
    daily_submissions: int = 5
    memory_gb: float = 29.0
    deadline: str | None = None


class Mini(Closed):
    """Name the generator of look-alike data and the small recipes for it."""

    generate: str
    recipe: str
    gate: str | None = None
    folds: Annotated[int, Field(ge=2)] = 2
    hidden_images: int | None = None
    seed: int = 0


class Competition(Closed):
    """Describe a competition; a new one needs this one file.

    `requires` is what its own code imports (PEP 508), `allow_replace` names distributions of
    Kaggle's image in whose place a wheel of the pack may come. `backend` runs the models where
    there is no GPU: auto measures in the kernel whether ONNX Runtime pays, member by member.
    """

    slug: str
    title: str
    kind: Literal["segmentation", "classification"] = "segmentation"
    classes: tuple[str, ...] = Field(min_length=1)
    height: int | None = None
    width: int | None = None
    metric: str = "dice"
    image_column: str = "ImageId"
    class_column: str = "ClassId"
    value_column: str = "EncodedPixels"
    exclusive: bool = False
    folds: Annotated[int, Field(ge=2)] = 5
    seed: int = 0
    dirt: Literal["fail", "skip"] = "fail"
    rerun: Literal["hidden", "none", "unknown"] = "unknown"
    default_recipe: str
    finals: int = 2
    accelerator: str = "NvidiaTeslaT4"
    backend: Literal["torch", "auto", "onnxruntime"] = "torch"
    requires: tuple[str, ...] = ()
    allow_replace: tuple[str, ...] = ()
    limits: Limits = Limits()
    mini: Mini | None = None

    @field_validator("allow_replace")
    @classmethod
    def _free(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any(map(is_fixed, names)):
            raise ValueError("torch and what is built on it, numpy and nvidia-* stay the image's")
        return tuple(map(normalise, names))

    def packed(self) -> tuple[str, ...]:
        """Return what a pack must bring along beside what kagflow's own code needs (PEP 508)."""
        return self.requires if self.backend == "torch" else (*self.requires, *ONNX)

    def task(self) -> TaskSpec:
        """Return the part that travels to the kernel."""
        shared = set(TaskSpec.__dataclass_fields__) & set(type(self).model_fields)
        return TaskSpec(**{name: getattr(self, name) for name in shared})


def load_competition(folder: Path) -> Competition:
    """Read `folder/competition.yaml`.

    Raises UsageError listing every fault of the file.
    """
    return load(folder / "competition.yaml", Competition)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay `dotted.key=value` overrides over it.

    Raises UsageError listing every fault of file and overrides.
    """
    return load(path, Recipe, overrides)
