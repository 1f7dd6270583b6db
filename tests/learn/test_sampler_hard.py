"""Hard examples of a finished run: which they are, how often they come, and what never leaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kagflow.errors import UsageError
from kagflow.learn.cache import data_hash
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.learn.past import Past, build_sampler
from kagflow.learn.sampler import draws
from kagflow.learn.sampler_hard import Wrong, hardest, judge
from kagflow.learn.train import train_fold
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels
from kagflow.task.rle import decode


@pytest.fixture
def world(squares, spec):
    """Return a maker of finished folds `{image: probs (2, 64, 64)}` and of what fold 0 may see."""

    class World:
        def __init__(self):
            self.truth = read_labels(squares / "train.csv", spec)
            folds = read_folds(squares / "folds.csv")
            self.folds = {name: fold for name, (_, fold) in folds.items()}
            self.runs = squares.parents[1] / "runs" / "squares"

        def images(self, fold):
            return sorted(name for name, own in self.folds.items() if own == fold)

        def perfect(self, name):
            probs = np.zeros((2, 64, 64), np.float32)
            for index, text in self.truth.get(name, {}).items():
                probs[index] = decode(text, 64, 64)
            return probs

        def finish(self, run, fold, changed=None, **facts):
            folder = self.runs / run / f"fold{fold}"
            folder.mkdir(parents=True)
            with OofWriter(folder / "oof", "mask", 2) as store:
                for name in self.images(fold):
                    store.add(name, (changed or {}).get(name, self.perfect(name)), 64, 64)
            told = {"fold": fold, "data": data_hash(squares)} | facts
            (folder / "run.json").write_text(json.dumps(told))

        def past(self, fold=0, keep=None):
            ids = tuple(n for other in {0, 1} - {fold} for n in self.images(other))
            return Past(self.runs, squares, spec, fold, ids, self.truth, keep)

        def labels(self, past):
            return np.array([[c in self.truth.get(n, {}) for c in (0, 1)] for n in past.ids])

    return World()


def blob(probs, index, side):
    changed = probs.copy()
    changed[index, :side, :side] = 1.0
    return changed


def spec_of(run="before", **kwargs):
    return {"target": "hard", "kwargs": {"run": run} | kwargs}


def clean_and_defect(world):
    names = world.images(1)
    clean = [name for name in names if not world.truth.get(name)]
    return clean, [name for name in names if world.truth.get(name)]


def test_false_alarms_by_area_and_missed_defects_come_twice_as_often(world):
    clean, defect = clean_and_defect(world)
    changed = {
        clean[0]: blob(world.perfect(clean[0]), 0, 20),
        clean[1]: blob(world.perfect(clean[1]), 1, 10),
        defect[0]: np.zeros((2, 64, 64), np.float32),
    }
    world.finish("before", 1, changed)
    past = world.past()
    # One in twelve: the larger of two false alarms, and the one that is missed.
    sampler = build_sampler(spec_of(cap=1 / 12, start=0.5, end=0.5, threshold=0.0), past)
    weights = dict(zip(past.ids, sampler.weights(world.labels(past)), strict=True))
    assert {name for name, value in weights.items() if value == 2} == {clean[0], defect[0]}
    assert set(weights.values()) == {1.0, 2.0}
    chosen = draws(sampler, world.labels(past), samples=2000, epoch=0, epochs=2, seed=0)
    times = np.bincount([one.image for one in chosen], minlength=len(past.ids))
    often = dict(zip(past.ids, times.tolist(), strict=True))
    assert often[clean[0]] == pytest.approx(2 * often[clean[1]], abs=2)
    assert often[defect[0]] == pytest.approx(2 * often[defect[1]], abs=2)
    assert sum(often[name] for name in defect) == 1000


def test_what_is_wrong_with_an_image(world, spec):
    clean, defect = clean_and_defect(world)
    both = next(name for name in defect if len(world.truth[name]) == 2)
    part = world.perfect(both)
    part[1] = 0
    changed = {clean[0]: blob(world.perfect(clean[0]), 1, 16), both: part}
    world.finish("before", 1, changed)
    with OofReader(world.runs / "before" / "fold1" / "oof") as store:
        past = world.past()
        assert judge(clean[0], store, past) == Wrong(false=256 / 64**2)
        missed = judge(both, store, past)
        assert missed.false == 0
        assert missed.missed == decode(world.truth[both][1], 64, 64).sum() / 64**2
        assert judge(clean[1], store, past) == Wrong()


def test_a_tenth_of_a_defect_is_found_and_less_is_missed(world):
    _, defect = clean_and_defect(world)
    name = next(one for one in defect if 0 in world.truth[one])
    true = decode(world.truth[name][0], 64, 64) > 0
    places = np.argwhere(true)
    for share, missed in ((0.09, True), (0.11, False)):
        probs = world.perfect(name)
        probs[0] = 0
        rows, columns = places[: int(share * len(places))].T
        probs[0, rows, columns] = 1.0
        run = f"run{share}"
        world.finish(run, 1, {name: probs})
        with OofReader(world.runs / run / "fold1" / "oof") as store:
            assert (judge(name, store, world.past()).missed > 0) == missed


def test_at_most_so_many_of_a_kind():
    wrong = {f"{n}": Wrong(false=n / 10, missed=(9 - n) / 10 if n > 6 else 0) for n in range(10)}
    assert set(hardest(wrong, 2)) == {"9", "8", "7"}
    assert hardest(wrong, 0) == {}
    assert "0" not in hardest(wrong, 10), "nothing is wrong with it"


def test_held_out_images_never_weigh(world):
    """The fold's own store, perfect or all wrong, changes nothing."""
    wrong = {name: 1 - world.perfect(name) for name in world.images(0)}
    world.finish("good", 1)
    world.finish("good", 0)
    world.finish("bad", 1)
    world.finish("bad", 0, wrong)
    past = world.past()
    labels = world.labels(past)
    good, bad = (build_sampler(spec_of(run, cap=1.0), past) for run in ("good", "bad"))
    assert (good.weights(labels) == bad.weights(labels)).all()
    assert not set(past.stores("bad")) & set(world.images(0))


def test_everything_may_learn_from_every_fold(world):
    world.finish("before", 0)
    world.finish("before", 1)
    past = world.past()
    everything = Past(
        past.runs, past.data, past.spec, "full", (*world.images(0), *world.images(1)), world.truth
    )
    assert len(everything.stores("before")) == 24


@pytest.mark.parametrize(
    ("facts", "run", "message", "hint"),
    [
        ({}, "befor", "no finished run 'befor'", "before"),
        ({"data": "other"}, "before", "trained on other data", "another name="),
    ],
)
def test_a_run_that_does_not_fit_is_named(world, facts, run, message, hint):
    world.finish("before", 1, **facts)
    with pytest.raises(UsageError, match=message) as caught:
        build_sampler(spec_of(run), world.past())
    assert hint in caught.value.hint


def test_the_folds_own_run_alone_is_no_use(world):
    world.finish("before", 0)
    with pytest.raises(UsageError, match="finished fold 0 alone"):
        build_sampler(spec_of(), world.past())
    assert len(world.past(fold=1).stores("before")) == 12


def test_folds_that_were_cut_anew_are_refused(world):
    world.folds = {name: 1 - fold for name, fold in world.folds.items()}
    world.finish("before", 1)
    with pytest.raises(UsageError, match=r"held out 000\.png in fold 1, which is fold 0 now"):
        world.past().stores("before")


def test_what_was_worked_out_is_kept_for_the_resume(world, tmp_path):
    clean, _ = clean_and_defect(world)
    world.finish("before", 1, {clean[0]: blob(world.perfect(clean[0]), 0, 20)})
    past = world.past(keep=tmp_path)
    first = build_sampler(spec_of(), past).weights(world.labels(past))
    lines = (tmp_path / "hard.csv").read_text().splitlines()
    assert lines == ["image_id,false_share,missed_share", f"{clean[0]},{400 / 4096:.6f},0.000000"]
    (world.runs / "before" / "fold1" / "oof" / "index.csv").unlink()
    assert (build_sampler(spec_of(), past).weights(world.labels(past)) == first).all()


def test_a_gates_labels_count_by_their_probability(world, spec):
    clean, defect = clean_and_defect(world)
    folder = world.runs / "gate" / "fold1"
    folder.mkdir(parents=True)
    sure = {clean[0]: (0.9, 0.2), clean[1]: (0.4, 0.4), defect[0]: (0.1, 0.1)}
    with OofWriter(folder / "oof", "label", 2) as store:
        for name in world.images(1):
            there = [float(c in world.truth.get(name, {})) for c in (0, 1)]
            store.add(name, np.array(sure.get(name, there), np.float32), 0, 0)
    with OofReader(folder / "oof") as store:
        past = world.past()
        assert judge(clean[0], store, past) == Wrong(false=pytest.approx(0.9))
        assert judge(clean[1], store, past) == Wrong()
        assert judge(defect[0], store, past).missed == pytest.approx(0.9)


def test_a_training_learns_from_a_training(squares, spec, recipe):
    runs = squares.parents[1] / "runs" / "squares"
    train_fold(runs / "tiny" / "fold1", recipe(epochs=1), spec, squares, fold=1, device="cpu")
    changes = {"epochs": 2, "sampler": spec_of("tiny")}
    run_dir: Path = runs / "again" / "fold0"
    train_fold(run_dir, recipe(**changes), spec, squares, fold=0, device="cpu")
    names = [line.split(",")[0] for line in (run_dir / "hard.csv").read_text().splitlines()[1:]]
    assert names
    folds = read_folds(squares / "folds.csv")
    assert {folds[name][1] for name in names} == {1}
