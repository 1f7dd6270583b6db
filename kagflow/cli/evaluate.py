"""kagflow evaluate: what runs and ensembles are worth, alone and against each other."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow.cli import competitions, ensemble
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import UsageError
from kagflow.output import Output

if TYPE_CHECKING:
    from kagflow.learn.assess import Comparison, Kind, Worth
    from kagflow.learn.perimage import PerImage


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...")] = None,
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """List the finished runs, or score runs (and ensembles) out of fold, and compare them.

    A run is scored at default thresholds, an ensemble under rules that did not see the image.
    """
    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    competitions.manifest(session.workspace, known)
    if not words:
        _list(session, known)
        return
    from kagflow.learn import assess
    from kagflow.task import metric

    results = [_result(session, known, name) for name in dict.fromkeys(words)]
    measure = metric.load(known.config.task())
    worths = [assess.assess(one, measure) for one in results]
    pairs = [assess.compare(one, two) for one, two in combinations(results, 2)]
    for worth in worths:
        _show(session.out, worth)
    if pairs:
        _show_pairs(session.out, pairs)
    session.out.result(
        {
            "results": [asdict(worth) for worth in worths],
            "comparisons": [asdict(pair) for pair in pairs],
        }
    )


def _list(session: Session, known: Known) -> None:
    from kagflow.learn import evaluate

    rows = evaluate.list_runs(session.workspace.runs(known.name))
    if not rows:
        raise UsageError("there is no finished run", hint="kagflow train fold=0")
    session.out.table(
        "runs, at default thresholds",
        ("run", "predicts", "folds", "images", "score", "all-empty", "hours", "s an image", "on"),
        [
            (
                row.run,
                row.predicts,
                f"{','.join(map(str, row.folds))} of {row.of_folds}",
                row.images,
                f"{row.score:.4f}",
                f"{row.floor:.4f}",
                f"{row.hours:.2f}",
                f"{row.seconds_per_image:.3g}",
                row.device,
            )
            for row in rows
        ],
    )
    session.out.result({"runs": [asdict(row) for row in rows]})


def _result(session: Session, known: Known, name: str) -> PerImage:
    """Return a run's images, or an ensemble's where no run has the name."""
    from kagflow.learn import evaluate

    run = session.workspace.runs(known.name) / name
    if run.is_dir():
        data, progress = session.workspace.data(known.name), session.out.progress()
        return evaluate.per_image(run, known.config.task(), data, progress=progress)
    file = ensemble.path(session, known, name)
    if not file.is_file():
        raise UsageError(
            f"no run '{name}', nor an ensemble of that name", hint="kagflow evaluate lists the runs"
        )
    return evaluate.per_image_ensemble(file, known.config.task())


def _show(out: Output, worth: Worth) -> None:
    out.table(
        worth.name,
        ("", ""),
        [
            (
                "score",
                f"{worth.score:.4f} (95 %: {worth.interval[0]:.4f} to {worth.interval[1]:.4f})",
            ),
            ("all-empty floor", f"{worth.floor:.4f}"),
            ("gain over it", f"{worth.gain:+.4f}"),
            ("where something is", _figure(worth.nonempty)),
            ("images", f"{worth.images} in {worth.clusters} groups of near-duplicates"),
            *((f"fold {one.fold}", f"{one.score:.4f} on {one.images}") for one in worth.folds),
        ],
    )
    out.table(
        f"{worth.name} by class; points are of the whole score",
        ("class", "score", "95 %", "floor", "gain", "non-empty", "found", "missed", "invented"),
        [
            (
                one.label,
                f"{one.score:.4f}",
                f"{one.interval[0]:.4f} to {one.interval[1]:.4f}",
                f"{one.floor:.4f}",
                f"{one.gain:+.4f}",
                _figure(one.nonempty),
                *(_kind(kind) for kind in (one.found, one.missed, one.invented)),
            )
            for one in worth.classes
        ],
    )


def _show_pairs(out: Output, pairs: list[Comparison]) -> None:
    out.table(
        "compared on the images that both have",
        ("A", "B", "images", "A", "B", "A - B", "95 %", "P(A > B)"),
        [
            (
                one.first,
                one.second,
                one.images,
                *(f"{score:.4f}" for score in one.scores),
                f"{one.paired.difference:+.4f}",
                f"{one.paired.low:+.4f} to {one.paired.high:+.4f}",
                f"{one.paired.better:.2f}",
            )
            for one in pairs
        ],
    )


def _kind(kind: Kind | None) -> Any:
    return "-" if kind is None else f"{kind.images} (-{kind.points:.4f})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
