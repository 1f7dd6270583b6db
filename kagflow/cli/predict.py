"""kagflow predict: an ensemble on any folder of images."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from kagflow.cli import competitions, ensemble
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import UsageError
from kagflow.task.spec import TaskSpec

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


@guarded
def command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder of images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The submission CSV to write.")],
    name: Annotated[str, typer.Option("--ensemble", help="Which one.")] = ensemble.DEFAULT,
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Predict every image of a folder with an ensemble and write a submission CSV."""
    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGES)
    if not files:
        raise UsageError(f"no images in {folder}", hint=f"it reads {', '.join(IMAGES)}")
    faults = predict(session, known, files, output, name=name, device=device)
    session.out.result(
        {"images": len(files), "output": str(output), "unreadable": faults},
        f"{len(files)} images -> {output}"
        + (f"; unreadable, left empty: {', '.join(faults)}" if faults else ""),
    )


def predict(
    session: Session, known: Known, files: list[Path], output: Path, *, name: str, device: str
) -> list[str]:
    """Write the submission CSV of an ensemble on some files; return the unreadable images."""
    import torch

    from kagflow.infer import engine
    from kagflow.task import submission

    value = ensemble.ensure(session, known, name=name)
    members, rules, spec = engine.members_from_config(value, session.workspace.home)
    faults: list[str] = []
    progress = session.out.progress()
    progress.start("predict", len(files), "images")
    rows: dict[str, dict[int, str]] = {}
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = engine.Settings(device=device)
    found = engine.predict(
        members,
        rules,
        spec,
        [(file.name, file) for file in files],
        settings=settings,
        on_fault=lambda image_id, _: faults.append(image_id),
    )
    for one in found:
        rows[one.image_id] = dict(one.rows)
        progress.advance()
    progress.finish()
    with tempfile.TemporaryDirectory() as scratch:
        sample = Path(scratch) / "sample.csv"
        _write_sample(sample, [file.name for file in files], spec)
        submission.write(output, rows, spec, sample)
    return faults


def _write_sample(path: Path, image_ids: list[str], spec: TaskSpec) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if spec.kind == "classification":
            writer.writerow([spec.image_column, spec.value_column])
            writer.writerows([image_id, ""] for image_id in image_ids)
            return
        writer.writerow([spec.image_column, spec.class_column, spec.value_column])
        writer.writerows([image_id, one, ""] for image_id in image_ids for one in spec.classes)
