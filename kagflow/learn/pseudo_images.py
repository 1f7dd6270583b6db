"""Which test images a fold may learn from: none that looks like one of those it holds out."""

from __future__ import annotations

from kagflow.errors import DataError
from kagflow.learn.job import Job
from kagflow.progress import QUIET, Progress
from kagflow.task.folds import largest_group, make_clusters, read_folds
from kagflow.task.index import Broken, ImageRow, image_files, look, read_index
from kagflow.task.surveyed import INDEX


def unlabelled(job: Job, progress: Progress = QUIET) -> tuple[list[ImageRow], dict[str, str]]:
    """Return the test images to learn from, and why others are left out, by name.

    Raises DataError where none is left.
    """
    folds = {name: fold for name, (_, fold) in read_folds(job.data / "folds.csv").items()}
    known = [row for row in read_index(job.data / INDEX).values() if row.image_id in folds]
    found = look(image_files(job.data / job.spec.test_images), progress=progress)
    left_out = {one.image_id: one.reason for one in found if isinstance(one, Broken)}
    rows = [one for one in found if isinstance(one, ImageRow)]
    limit = largest_group(len(known), 1 + max(folds.values()))
    clusters = make_clusters([*known, *rows], limit=limit)
    held_out = {
        cluster
        for row, cluster in zip(known, clusters, strict=False)
        if folds[row.image_id] == job.fold
    }
    alike = [cluster in held_out for cluster in clusters[len(known) :]]
    kept = [row for row, one in zip(rows, alike, strict=True) if not one]
    twins = [row.image_id for row, one in zip(rows, alike, strict=True) if one]
    left_out |= dict.fromkeys(twins, "looks like an image that is held out")
    if not kept:
        raise DataError(
            f"{job.data / job.spec.test_images}: no image is left to take pseudo-labels of",
            hint="train without pseudo=",
        )
    return kept, left_out
