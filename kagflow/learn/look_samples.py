"""Walk samples through crop, augmentation and input, and say what of it cannot be right.

Training's own code makes the samples; what stands in for augmentation and input only watches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kagflow.errors import KagflowError
from kagflow.frames import own_lines
from kagflow.learn.cache import Pixels
from kagflow.learn.dataset import Sample, Samples, Steps
from kagflow.learn.look_checks import augmented, entered, shown
from kagflow.learn.look_data import Scene
from kagflow.learn.look_steps import Ledger, describe
from kagflow.learn.sampler import Draw
from kagflow.progress import Progress
from kagflow.resolve import Fault


@dataclass(frozen=True)
class Views:
    """One sample for the contact sheet: before and after augmentation, and the model's input.

    `centred` tells whether the crop was laid around a defect.
    """

    image_id: str
    draw: Draw
    before: Pixels
    mask: Pixels | None
    after: Pixels
    changed: Pixels | None
    given: npt.NDArray[np.float32]
    label: tuple[int, ...]
    centred: bool


class Wrong(Exception):  # noqa: N818 - it carries a fault, which is what it is named for
    """Carry the fault of a step to the end of the walk."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


class Walk:
    """Take samples through a recipe's steps one by one."""

    def __init__(self, scene: Scene, steps: Steps, ledger: Ledger) -> None:
        self.scene, self.ledger = scene, ledger
        self.masks = steps.masks
        self.classes = scene.cache.classes
        self.augment = Watched(steps.compose)
        self.input = Watched(steps.make_input)
        watched = Steps(steps.crop, self.augment, self.input, steps.masks, steps.assets)
        self.samples = Samples(scene.cache, scene.rows, scene.labels, watched)
        self.views: list[Views] = []
        self.made: list[Sample] = []

    def all(self, progress: Progress) -> list[Fault]:
        """Walk every sample; the first fault of a step ends the walk, told with its sample."""
        progress.start("samples", len(self.scene.draws), "images")
        try:
            for number, draw in enumerate(self.scene.draws, 1):
                self.one(number, draw)
                progress.advance()
        except Wrong as wrong:
            return [wrong.fault]
        finally:
            progress.finish()
        return []

    def one(self, number: int, draw: Draw) -> None:
        """Walk one sample and look at what each step made of it.

        Raises Wrong.
        """
        row = int(self.scene.rows[draw.image])
        name = f"sample {number} ({self.scene.cache.ids[row]})"
        image, mask = self.scene.cache.image(row), self.scene.cache.mask(row)
        has_masks = self.scene.cache.masks.size > 0
        self.ledger.add("stored image", image)
        if has_masks:
            self.ledger.add("stored mask", mask, shown=shown(mask))
        self.augment.forget()
        self.input.forget()
        try:
            sample = self.samples[draw]
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            raise Wrong(self._raised(name, error)) from None
        finally:
            self._note()
        for fault in (self._augmented(), self._entered()):
            if fault is not None:
                raise Wrong(Fault(fault.key, f"{fault.what}, {name}", fault.mend))
        self._keep(draw, row, sample)

    def _note(self) -> None:
        """Put into the ledger what was seen, as far as the sample came."""
        given, made = self.augment.given, self.augment.made
        if "image" in given:
            self.ledger.add("crop" if self.samples.steps.crop else "whole image", given["image"])
            if given.get("mask") is not None:
                self.ledger.add("its mask", given["mask"], shown=shown(given["mask"]))
        if isinstance(made, dict):
            for key, name in (("image", "augmented"), ("mask", "augmented mask")):
                value = made.get(key)
                if isinstance(value, np.ndarray):
                    marks = shown(value) if key == "mask" else None
                    self.ledger.add(name, value, shown=marks)
        if isinstance(self.input.made, np.ndarray):
            self.ledger.add("input", self.input.made)

    def _raised(self, name: str, error: Exception) -> Fault:
        """Tell which step raised, with what went in; what it returned before may be the reason."""
        if isinstance(error, KagflowError):
            return Fault("", f"{error.message} ({name})", error.hint)
        for step, watched, looked in (
            ("input", self.input, self._entered),
            ("augment", self.augment, self._augmented),
        ):
            if not watched.given:
                continue
            if watched.made is not None and (fault := looked()) is not None:
                return Fault(fault.key, f"{fault.what}, {name}", fault.mend)
            said = f"{step} raised {type(error).__name__} on {name}: {error}"
            what = f"{said}\nit was given {describe(watched.given)}"
            return Fault(step, what, "mend the lines shown", own_lines(error))
        what = f"making {name} raised {type(error).__name__}: {error}"
        return Fault("", what, "", own_lines(error))

    def _augmented(self) -> Fault | None:
        return augmented(self.augment.given, self.augment.made, self.classes)

    def _entered(self) -> Fault | None:
        size = self.input.given["image"].shape[:2] if self.masks else None
        return entered(self.input.made, size)

    def _keep(self, draw: Draw, row: int, sample: Sample) -> None:
        label = tuple(np.flatnonzero(sample["label"].numpy() > 0.5).tolist())
        if "mask" in sample:
            self.ledger.add("target mask", sample["mask"], shown=label)
        self.ledger.add("target label", sample["label"], shown=label)
        given, made = self.augment.given, self.augment.made
        self.made.append(sample)
        self.views.append(
            Views(
                self.scene.cache.ids[row],
                draw,
                given["image"],
                given.get("mask"),
                made["image"],
                made.get("mask"),
                self.input.made,
                label,
                bool(
                    draw.centred and self.samples.steps.crop and self.scene.labels[draw.image].any()
                ),
            )
        )


class Watched:
    """Stand in for an augmentation or an input, and remember what went in and what came out."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self._inner = inner
        self.given: dict[str, Any] = {}
        self.made: Any = None

    def forget(self) -> None:
        """Begin anew with another sample."""
        self.given, self.made = {}, None

    def set_random_state(self, *state: Any) -> None:
        """Pass an augmentation its generators."""
        self._inner.set_random_state(*state)  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what is watched."""
        # The input is called by position, (image, metadata), an augmentation by name.
        self.given = kwargs or {"image": args[0]}
        self.made = self._inner(*args, **kwargs)
        return self.made


def sizes(views: Sequence[Views]) -> str:
    """Say how an augmentation changed sizes, "" where it did not."""
    changed = {(one.before.shape, one.after.shape) for one in views}
    told = [f"{before} to {after}" for before, after in sorted(changed) if before != after]
    return ", ".join(told[:3])
