"""The answers that travel with every file of weights, for the kernel to compare its own with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow.cli.competitions import Known
from kagflow.cli.drift import digest
from kagflow.cli.session import Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kagflow.infer.members import Member
    from kagflow.task.spec import TaskSpec


def make(
    session: Session, known: Known, value: Mapping[str, Any], exported: Mapping[str, Path]
) -> Path:
    """Return the file of stored images and answers of an ensemble's exported weights.

    `exported` maps names in the pack to files. It is made once for the same weights and images.
    """
    from kagflow.infer import parity
    from kagflow.infer.members import members_from_config

    members, _, spec = members_from_config(value, session.workspace.home)
    images = pictures(session.workspace.data(known.name), spec)
    key = hashlib.sha256()
    for image in images:
        key.update(image.tobytes())
    for name, file in sorted(exported.items()):
        key.update(f"{name} {digest(file)}".encode())
    target = session.workspace.cache / "parity" / f"{key.hexdigest()[:32]}.safetensors"
    if not target.is_file():
        parity.store(target, images, _answers(session, members, spec, images, exported))
    return target


def pictures(data: Path, spec: TaskSpec) -> list[NDArray[np.uint8]]:
    """Return up to 8 training images (H, W) uint8, half of them with labels where there are."""
    from kagflow.infer import parity
    from kagflow.infer.image import read_grey
    from kagflow.task.folds import read_folds
    from kagflow.task.labels import read_labels

    folds = read_folds(data / "folds.csv")
    truth = read_labels(data / spec.train_csv, spec, only=folds)
    labelled = [name for name in sorted(folds) if truth.get(name)]
    clean = [name for name in sorted(folds) if not truth.get(name)]
    half = parity.IMAGES // 2
    few = labelled[: max(half, parity.IMAGES - len(clean))]
    chosen = [*few, *clean[: parity.IMAGES - len(few)]]
    # Both kinds in turn, for whoever compares only the first.
    ordered = sorted(chosen, key=lambda name: chosen.index(name) % half)
    return [read_grey(data / spec.train_images / name) for name in ordered]


def _answers(
    session: Session,
    members: list[Member],
    spec: TaskSpec,
    images: list[NDArray[np.uint8]],
    exported: Mapping[str, Path],
) -> dict[str, list[NDArray[np.float32]]]:
    from dataclasses import replace

    from kagflow.cli.pack import weight_name
    from kagflow.infer import parity
    from kagflow.infer.members import load_member

    named = [(f"image.{number}", image) for number, image in enumerate(images)]
    progress = session.out.progress()
    progress.start("store answers for parity", len(exported), "files of weights")
    said = {}
    for member in members:
        for file in member.weights:
            name = weight_name(str(file))
            one = replace(member, weights=(exported[name],))
            (module,) = load_member(one, len(spec.classes), "cpu")
            said[name] = parity.answers(one, module, named, "cpu", half=False)
            progress.advance()
    progress.finish()
    return said
