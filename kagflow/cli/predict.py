"""kagflow predict: an ensemble on any folder of images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow import durable
from kagflow.cli import competitions, ensemble
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import UsageError

if TYPE_CHECKING:
    from kagflow.infer.engine import Prediction
    from kagflow.task.spec import TaskSpec


@dataclass
class Found:
    """What came of a folder: rows by image id, and the images that could not be read."""

    rows: dict[str, dict[int, str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


@guarded
def command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder of images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The submission CSV to write.")],
    overlays: Annotated[
        Path | None, typer.Option(help="Draw what is predicted into PNG files of this folder.")
    ] = None,
    name: Annotated[str, typer.Option("--ensemble", help="Which one.")] = ensemble.DEFAULT,
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Predict every image of a folder with an ensemble and write a submission CSV.

    An image that cannot be read gets empty rows and a warning.
    """
    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    files = _files(folder, output, overlays)
    found = predict(session, known, files, name=name, device=device, overlays=overlays)
    _write(session, known, list(files), output, found)
    for image_id, reason in found.unreadable.items():
        session.out.warn(f"{image_id} gets empty rows: {reason}")
    predicted = sum(bool(rows) for rows in found.rows.values())
    session.out.result(
        {
            "images": len(files),
            "with_predictions": predicted,
            "output": str(output),
            "overlays": str(overlays) if overlays else None,
            "unreadable": found.unreadable,
        },
        f"{len(files)} images, {predicted} with predictions -> {output}"
        + (f", drawn in {overlays}" if overlays else ""),
    )


def predict(
    session: Session,
    known: Known,
    files: dict[str, Path],
    *,
    name: str,
    device: str,
    overlays: Path | None = None,
) -> Found:
    """Predict {image id: file} with an ensemble, drawing each image where `overlays` is given."""
    import torch

    from kagflow.infer import engine

    value = ensemble.ensure(session, known, name=name)
    members, rules, spec = engine.members_from_config(value, session.workspace.home)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = Found()
    progress = session.out.progress()
    progress.start("predict", len(files), "images")
    predictions = engine.predict(
        members,
        rules,
        spec,
        list(files.items()),
        settings=engine.Settings(device=device),
        on_fault=found.unreadable.__setitem__,
    )
    for one in predictions:
        found.rows[one.image_id] = dict(one.rows)
        if overlays and not one.fault:
            _draw(one, files[one.image_id], overlays, spec)
        progress.advance()
    progress.finish()
    return found


def _files(folder: Path, output: Path, overlays: Path | None) -> dict[str, Path]:
    """Return {image id: file} of a folder, and refuse what would spoil it."""
    from kagflow.task.index import SUFFIXES, image_files

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name a folder of images")
    if not any(file.suffix.lower() in SUFFIXES for file in folder.iterdir()):
        raise UsageError(f"no images in {folder}", hint=f"it reads {', '.join(sorted(SUFFIXES))}")
    if overlays and overlays.resolve() == folder.resolve():
        raise UsageError(f"--overlays {overlays} is the folder of the images", hint="name another")
    if output.is_dir():
        raise UsageError(f"-o {output} is a folder", hint=f"-o {output / 'submission.csv'}")
    return {file.name: file for file in image_files(folder)}


def _write(
    session: Session, known: Known, image_ids: Sequence[str], output: Path, found: Found
) -> None:
    from kagflow.task import submission, table

    spec = known.config.task()
    own = session.workspace.data(known.name) / spec.sample_submission
    with tempfile.TemporaryDirectory() as scratch:
        sample = Path(scratch) / "sample.csv"
        header = _header(own, spec)
        table.write_table(sample, header, _empty_rows(header, image_ids, spec))
        submission.write(output, found.rows, spec, sample)


def _header(own: Path, spec: TaskSpec) -> tuple[str, ...]:
    """Return the columns of the competition's own sample, or those of the separate form."""
    from kagflow.task import table

    if own.is_file():
        return table.read_table(own).header
    named = (spec.image_column, spec.class_column, spec.value_column)
    return named if spec.kind == "segmentation" else (spec.image_column, spec.value_column)


def _empty_rows(
    header: tuple[str, ...], image_ids: Sequence[str], spec: TaskSpec
) -> Iterator[list[str]]:
    from kagflow.task import forms

    form = forms.detect(header, spec, Path(spec.sample_submission))
    labels: Sequence[str | None] = spec.classes if spec.kind == "segmentation" else (None,)
    for image_id in image_ids:
        for label in labels:
            yield form.join(image_id, label, "")


def _draw(one: Prediction, file: Path, folder: Path, spec: TaskSpec) -> None:
    import cv2

    from kagflow.infer.image import read_grey
    from kagflow.report.contours import draw
    from kagflow.task.rle import decode

    image = read_grey(file)
    found = sorted(one.rows)
    masks = [decode(one.rows[at], *image.shape) for at in found] if _has_masks(spec) else []
    drawn = draw(image, masks, [spec.classes[at] for at in found])
    png = cv2.imencode(".png", drawn)[1]
    durable.write_bytes(folder / f"{file.name}.png", png.tobytes())


def _has_masks(spec: TaskSpec) -> bool:
    return spec.kind == "segmentation"
