"""Closed, frozen configuration: a YAML file and dotted overrides in, a typed model out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kagflow.errors import UsageError
from kagflow.resolve import Fault
from kagflow.task.spec import TaskSpec

Model = TypeVar("Model", bound=BaseModel)


class Closed(BaseModel):
    """Refuse unknown keys and later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(Closed):
    """Name a piece of code and its arguments."""

    target: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Optimiser(Target):
    """Name the optimiser; `encoder_lr` is the encoder's share of `lr`."""

    target: str = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    encoder_lr: Annotated[float, Field(gt=0)] = 0.1


Size = tuple[int, int] | None
WEIGHT_FILES = (".safetensors", ".pt", ".pth")


def _weights(value: str) -> str:
    if value in ("none", "imagenet", "packaged") or Path(value).suffix in WEIGHT_FILES:
        return value
    raise ValueError(f"none, imagenet, packaged or a file ({', '.join(WEIGHT_FILES)})")


Weights = Annotated[str, AfterValidator(_weights)]
Flip = Literal["none", "hflip", "vflip"]


class Recipe(Closed):
    """Describe one way to train; sizes are (height, width) in pixels.

    `batch` images go through the model at once, `accumulate` of them make an optimiser step.
    `average` best epochs become one model; `early_stop` is in epochs without a better glance.
    `weights` is none, imagenet, packaged or a file (.safetensors, .pt, .pth) with a state dict;
    `assets` are files made of the training images, by code, for the input to read.
    """

    predicts: Literal["mask", "label"] = "mask"
    model: Target
    weights: Weights = "none"
    input: Target = Target(target="grey")
    size: Size = None
    crop: Size = None
    loss: Target = Target(target="bce_dice")
    sampler: Target = Target(target="plain")
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
    workers: Annotated[int, Field(ge=0)] = 0


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
    """Describe a competition; a new one needs this one file."""

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
    requires: tuple[str, ...] = ()
    limits: Limits = Limits()
    mini: Mini | None = None

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


def load(path: Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file, lay overrides over it and validate the whole once."""
    found, faults = examine(path, model, overrides)
    if found is None:
        told = [f"{one.what}, {one.mend}" if one.mend else one.what for one in faults]
        raise UsageError(f"{path.name}: {'; '.join(told)}", hint=f"mend {path} or the override")
    return found


def examine(
    path: Path, model: type[Model], overrides: Sequence[str] = ()
) -> tuple[Model | None, list[Fault]]:
    """Return what `load` does, or None and every fault of file and overrides.

    Raises UsageError only where the file or an override cannot be read at all.
    """
    values = read_yaml(path)
    for item in overrides:
        _set(values, item)
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, [_fault(one, model) for one in error.errors()]


def key_lines(path: Path) -> dict[str, int]:
    """Return the line of each dotted key of a YAML file; list items count as keys 0, 1, ..."""
    lines: dict[str, int] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            inner = [(key.value, key, value) for key, value in node.value]
        else:
            items = node.value if isinstance(node, yaml.SequenceNode) else []
            inner = [(str(at), item, item) for at, item in enumerate(items)]
        for name, mark, value in inner:
            lines[f"{prefix}{name}"] = mark.start_mark.line + 1
            walk(value, f"{prefix}{name}.")

    walk(yaml.compose(path.read_text(), _Loader), "")
    return lines


class _Loader(yaml.SafeLoader):
    """Read YAML 1.2 floats, PyYAML takes `1e-4` for a string; refuse a key that stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - its form
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                what = f"key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|nan)$"),
    list("-+.0123456789"),
)


def parse_value(text: str) -> Any:
    """Read one override's value in the file's own grammar.

    Raises UsageError when it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more number form
    except yaml.YAMLError as error:
        raise UsageError(f"'{text}' is not a YAML value: {error}", hint="quote it") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises UsageError when the file is missing, not YAML, or no mapping.
    """
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 - see parse_value
    except FileNotFoundError:
        near = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise UsageError(f"no file {path}", hint=f"there are: {near or 'none'}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}", hint="mend the line named above") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no mapping", hint="write `key: value` lines")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Write a mapping as YAML, keys in their own order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def _set(values: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UsageError(f"'{item}' is no override", hint="write key=value, e.g. optimiser.lr=3e-4")
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UsageError(f"'{key}': '{parent}' is a value, not a section")
        place = inner
    place[last] = parse_value(text)


def _fault(error: Any, model: type[BaseModel]) -> Fault:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return Fault(where, f"'{where}' is missing")
    if error["type"] != "extra_forbidden":
        return Fault(where, f"'{where}': {error['msg']} (got {error['input']!r})")
    options = _fields_at(model, error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), options, n=1)
    advice = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(options))}"
    return Fault(where, f"unknown key '{where}'", advice)


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [annotation, *get_args(annotation)]
        models = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
