"""Samplers: shares, weights and determinism."""

from __future__ import annotations

import numpy as np
import pytest

from kagflow.errors import UsageError
from kagflow.learn.sampler import SAMPLERS, Balanced, Plain, draws, repeat_factors
from kagflow.resolve import build


def labels_of(*counts, clean):
    """Make labels `(N, C)` with so many images of each class alone, then clean ones."""
    rows = [np.eye(len(counts), dtype=bool)[c] for c, n in enumerate(counts) for _ in range(n)]
    return np.array(rows + [np.zeros(len(counts), bool)] * clean)


def epoch_of(sampler, labels, *, samples, epoch=0, epochs=5, seed=0):
    chosen = draws(sampler, labels, samples=samples, epoch=epoch, epochs=epochs, seed=seed)
    return np.array([draw.image for draw in chosen])


def test_plain_sees_every_image_once():
    labels = labels_of(5, clean=15)
    assert sorted(epoch_of(Plain(), labels, samples=20)) == list(range(20))
    twice = np.bincount(epoch_of(Plain(), labels, samples=50), minlength=20)
    assert set(twice) == {2, 3}


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.8), (2, 0.6), (4, 0.4)])
def test_the_defect_share_falls_in_a_line(epoch, share):
    labels = labels_of(100, 20, clean=880)
    chosen = epoch_of(Balanced(), labels, samples=500, epoch=epoch)
    assert labels[chosen].any(axis=1).mean() == pytest.approx(share)


def test_repeat_factors_are_those_of_the_paper():
    labels = labels_of(400, 25, clean=575)
    labels[0, 1] = True
    labels[425 - 1, 1] = False
    factors = repeat_factors(labels, threshold=0.1)
    assert factors[1] == 1.0
    assert factors[400] == pytest.approx((0.1 / 0.025) ** 0.5)
    assert factors[0] == pytest.approx((0.1 / 0.025) ** 0.5)
    assert factors[-1] == 1.0


def test_rare_classes_come_by_their_factor():
    labels = labels_of(400, 25, clean=575)
    chosen = epoch_of(Balanced(start=1.0, end=1.0), labels, samples=900)
    times = np.bincount(chosen, minlength=1000)
    assert times[:400].mean() * 2 == pytest.approx(times[400:425].mean(), rel=0.05)
    assert times[:400].min() >= 1


@pytest.mark.parametrize(("defects", "clean"), [(6, 0), (0, 6)])
def test_one_kind_alone_fills_the_epoch(defects, clean):
    assert len(epoch_of(Balanced(), labels_of(defects, clean=clean), samples=10)) == 10


def test_epochs_are_the_same_again_and_differ_from_each_other():
    labels = labels_of(10, clean=30)

    def make(**kwargs):
        given = {"samples": 40, "epoch": 1, "epochs": 4, "seed": 3} | kwargs
        return draws(Balanced(), labels, **given)

    assert make() == make()
    assert make() != make(epoch=2)
    assert make() != make(seed=4)
    assert len({draw.seed for draw in make()}) == 40


def test_the_share_of_centred_crops():
    labels = labels_of(10, clean=30)
    chosen = draws(Balanced(centred=0.25), labels, samples=4000, epoch=0, epochs=1, seed=0)
    assert np.mean([draw.centred for draw in chosen]) == pytest.approx(0.25, abs=0.03)
    assert not any(d.centred for d in draws(Plain(), labels, samples=99, epoch=0, epochs=1, seed=0))


def test_built_by_name_with_faults_named():
    assert build({"target": "balanced", "kwargs": {"start": 0.5}}, SAMPLERS).start == 0.5
    with pytest.raises(UsageError, match="begin"):
        build({"target": "balanced", "kwargs": {"begin": 0.5}}, SAMPLERS)


def test_the_last_epochs_may_see_the_true_share_of_defects():
    labels = labels_of(100, 20, clean=880)

    def share(epoch, epochs=9):
        sampler = Balanced(natural=1 / 3)
        chosen = epoch_of(sampler, labels, samples=1000, epoch=epoch, epochs=epochs)
        return labels[chosen].any(axis=1).mean()

    assert [share(epoch) for epoch in (6, 7, 8)] == [0.12] * 3
    # The share has fallen all the way by then: .8 to .4 over the first two thirds.
    assert share(0) == pytest.approx(0.8)
    assert share(4) == pytest.approx(0.8 - 0.4 * 0.5 / (2 / 3))
    assert share(5) == pytest.approx(0.8 - 0.4 * 0.625 / (2 / 3))
    assert len(set(epoch_of(Balanced(natural=1.0), labels, samples=1000))) == 1000


def test_shares_outside_zero_to_one_are_faults():
    for name in ("start", "end", "natural"):
        with pytest.raises(UsageError, match=f"{name} is 1.5"):
            Balanced(**{name: 1.5})
