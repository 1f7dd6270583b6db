"""What every place but this machine is given, and how what came back is told."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from kagflow.cli.executors import Order
from kagflow.cli.jobs import Job
from kagflow.cli.sweep import Outcome
from kagflow.cli.training import How
from kagflow.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from kagflow.ship.parts import Part

NO_FILE = frozenset({"none", "packaged", "imagenet"})
PROFILE = "--profile"


def unfinished(order: Order) -> list[Job]:
    """Return the jobs that are yet to be trained.

    Raises RefusedError where a run's folder was begun from something else, as training here does.
    """
    from kagflow.cli.training import wanted
    from kagflow.learn.begin import standing

    for job in order.planned:
        now = standing(wanted(order.session, order.known, job, order.how, "auto"))
        if now.refused and not order.how.force:
            raise RefusedError(
                f"{job.folder} was begun from something else: {'; '.join([*now.other, *now.code])}",
                hint="name the run otherwise (name=...), put it back, or --force-resume",
            )
    return [job for job in order.planned if not (job.folder / "run.json").is_file()]


def build_load(order: Order, root: Path, *, hub: bool = False, test_images: bool = False) -> Part:
    """Write what the unfinished jobs need beside images and code as a folder below `root`.

    `hub` says that a model hub may be reached from there; else its files go along. `test_images`
    that those with pseudo-labels are not there. Pseudo-labels are made here, on first use.
    """
    from kagflow.learn import plugins
    from kagflow.ship import load

    code: dict[str, Path] = {}
    todo = unfinished(order)
    for job in todo:
        code |= plugins.files(job.recipe.model_dump(mode="json"))
    session, known = order.session, order.known
    # First: a run's folder names its store from then on.
    pseudo = _pseudo(order, todo, test_images=test_images)
    files = load.places(
        session.workspace,
        known.folder,
        code=code,
        weights=_weights(todo),
        runs=[job.folder for job in todo if job.folder.is_dir()],
    )
    files |= pseudo
    if not hub:
        files |= _from_hub(order, todo)
    place = load.data_place(session.workspace, known.name)
    return load.build_load(root, files, data=place, progress=session.out.progress())


def requires(order: Order) -> tuple[str, ...]:
    """List what the jobs need there beyond training's own requirements (PEP 508)."""
    from kagflow.learn.pretrained import PACKAGES

    found = list(order.known.config.requires)
    for module, _ in PACKAGES.values() if _packaged(order.planned) else ():
        name = module.replace("_", "-")
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def words(order: Order, job: Job) -> list[str]:
    """Return the command that trains one job there: kagflow's words, without budget and device."""
    how, known = order.how, order.known
    return [
        "train",
        known.name,
        *job.words,
        *([f"memory={how.memory}"] if how.memory is not None else []),
        *([f"gpus={how.gpus}"] if how.gpus > 1 else []),
        *(["tensorboard=true"] if how.tensorboard else []),
        *(["--force-resume"] if how.force else []),
        PROFILE,
        order.session.workspace.profile,
    ]


def check(how: How) -> None:
    """Raise UsageError for words that mean something on this machine only."""
    if how.until is not None:
        raise UsageError(
            "budget= stops a training on this machine", hint="--hours 8 limits one elsewhere"
        )
    if how.device != "auto":
        raise UsageError(
            f"--device {how.device} is of this machine", hint="leave it out: all that is there"
        )


def outcome(order: Order, *, interrupted: bool = False) -> Outcome:
    """Say of each job what its folder here holds now."""
    from kagflow.learn.outcome import result

    found = Outcome(interrupted=interrupted)
    for job in order.planned:
        if (job.folder / "run.json").is_file():
            told = result(job.folder).summary()
            found.finished.append({"run": job.run, "fold": job.fold, **told})
        else:
            found.left.append(job)
    return found


def _packaged(planned: tuple[Job, ...]) -> bool:
    return any(job.recipe.weights == "packaged" for job in planned)


def _weights(todo: list[Job]) -> list[str]:
    return sorted({job.recipe.weights for job in todo if not _begun(job)} - NO_FILE)


def _pseudo(order: Order, todo: list[Job], *, test_images: bool) -> dict[str, Path]:
    """Return the stores of pseudo-labels by where they belong, and the images they are of."""
    from kagflow.cli.training import wanted
    from kagflow.learn import pseudo
    from kagflow.learn.prepare import find_device

    session, known = order.session, order.known
    root, found = session.workspace.root, list[Path]()
    for job in [one for one in todo if one.recipe.pseudo is not None]:
        asked = wanted(session, known, job, order.how, "auto")
        store = pseudo.ensure(asked, str(find_device("auto")), session.out.progress())
        assert store is not None
        found += pseudo.files(store, asked.data / asked.spec.test_images if test_images else None)
    return {path.relative_to(root).as_posix(): path for path in found}


def _from_hub(order: Order, todo: list[Job]) -> dict[str, Path]:
    """Return the model hub's files that runs begin from, where they lie there: below hub/."""
    from kagflow.learn.pretrained import hub_files

    found: dict[str, Path] = {}
    for job in todo:
        if job.recipe.weights == "imagenet" and not _begun(job):
            recipe = job.recipe.model_dump(mode="json")
            found |= hub_files(recipe["model"], classes=len(order.known.config.classes))
    return {f"hub/{place}": path for place, path in found.items()}


def _begun(job: Job) -> bool:
    from kagflow.ship import load

    return load.newest_checkpoint(job.folder) is not None
