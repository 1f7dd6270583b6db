"""Join what history knows of submissions with what their images were worth, and keep the advice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow.cli import ensemble
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.errors import UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.learn.perimage import PerImage
    from kagflow.learn.shakeup import Advice, Candidate
    from kagflow.learn.shakeup_sampling import Paired
    from kagflow.ship.records import SubmissionRow


@dataclass(frozen=True)
class Joined:
    """Hold the candidates, their scores on the images that all have, and who was left out, why."""

    candidates: tuple[Candidate, ...]
    paired: Paired
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """Hold the advice as `shakeup` wrote it; `refs` to tick, `seen` those it knew."""

    refs: tuple[int, ...]
    names: tuple[str, ...]
    seen: tuple[int, ...]
    at: datetime


def page(known: Known) -> str:
    """Return the address where a person ticks finals."""
    from kagflow.ship.remote_competitions import SITE

    return f"{SITE}/competitions/{known.config.slug}/submissions"


def path(session: Session, known: Known) -> Path:
    """Return the file of the last advice, beside the ensembles' folder."""
    folder = session.workspace.ensembles(known.name)
    return folder.with_name(f"{folder.name}.shakeup.json")


def kept(value: dict[str, Any], advice: Advice) -> dict[str, Any]:
    """Return the advice as it is kept for `kagflow` alone."""
    names = advice.names(advice.pair) if advice.pair else ()
    seen = [one.ref for one in advice.outlooks if one.ref is not None]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {**value, "names": list(names), "seen": sorted(seen), "at": at}


def read(session: Session, known: Known) -> Kept | None:
    """Return the last advice, None where there is none that can be read."""
    try:
        value = json.loads(path(session, known).read_text(encoding="utf-8"))
        return Kept(
            refs=tuple(map(int, value["refs"])),
            names=tuple(map(str, value["names"])),
            seen=tuple(map(int, value["seen"])),
            at=datetime.fromisoformat(value["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def submitted(session: Session, known: Known) -> list[SubmissionRow]:
    """Return the submissions that can be ticked: the newest of each pack that did not fail."""
    from kagflow.ship import history
    from kagflow.ship.records import Records

    rows = history.history(
        Records(user_state()), profile=session.workspace.profile, competition=known.name
    )
    return list({row.pack: row for row in rows if row.ref and row.status != "failed"}.values())


def join(session: Session, known: Known) -> Joined:
    """Return every submission and every other ensemble whose images were kept.

    Raises UsageError where there is none.
    """
    from kagflow.learn import perimage
    from kagflow.learn.shakeup_sampling import Paired

    found, remarks = _candidates(session, known)
    if not found:
        raise UsageError("there is no ensemble to judge", hint="kagflow ensemble")
    progress, results = session.out.progress(), []
    progress.start("read out-of-fold scores", len(found), "files")
    for _, file in found:
        results.append(_read(known, file))
        progress.advance()
    progress.finish()
    most = max(len(result.image_ids) for result in results)
    results = perimage.shared(results)
    count = len(results[0].image_ids)
    if count < most:
        remarks.append(f"compared on the {count} images that all have, of {most}")
    return Joined(tuple(one for one, _ in found), _paired(Paired, results), tuple(remarks))


def _candidates(session: Session, known: Known) -> tuple[list[tuple[Candidate, Path]], list[str]]:
    """Return the candidates with the files of their images, and who has none."""
    from kagflow.learn import perimage
    from kagflow.learn.shakeup import Candidate

    found, remarks, contents = [], [], set()
    for row in submitted(session, known):
        file = _images(session, known, row)
        if file is None:
            remarks.append(f"left out: {row.ref} ({row.ensemble}), its images were not kept")
            continue
        contents.add(file.read_bytes())
        found.append(
            (Candidate(f"{row.ensemble or row.pack} {row.ref}", row.ref, row.public), file)
        )
    for file in sorted(session.workspace.ensembles(known.name).glob(f"*{perimage.SUFFIX}")):
        content = file.read_bytes()
        if content not in contents:
            contents.add(content)
            found.append((Candidate(file.name.removesuffix(perimage.SUFFIX)), file))
    return found, remarks


def _paired(kind: type[Paired], results: Sequence[PerImage]) -> Paired:
    import numpy as np

    return kind(np.stack([one.image_scores for one in results]), results[0].clusters)


def _read(known: Known, file: Path) -> PerImage:
    from kagflow.learn import perimage
    from kagflow.task import metric

    task = known.config.task()
    return perimage.read(file, metric.load(task), task.classes)


def _images(session: Session, known: Known, row: SubmissionRow) -> Path | None:
    """Return the file of a submission's images: kept at packing, or its ensemble's if unchanged."""
    from kagflow.learn import perimage

    beside = session.workspace.packs(known.name) / f"{row.pack}{perimage.SUFFIX}"
    if beside.is_file():
        return beside
    file = ensemble.path(session, known, row.ensemble or "")
    images = perimage.path_beside(file)
    if not row.ensemble or not file.is_file() or not images.is_file():
        return None
    cv = json.loads(file.read_text())["cv"]
    same = (cv["naive"], cv["crossfitted"]) == (row.cv_naive, row.cv_crossfitted)
    return images if same else None
