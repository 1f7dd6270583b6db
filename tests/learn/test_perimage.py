from __future__ import annotations

import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.learn import perimage
from kagflow.learn.perimage import Images
from kagflow.task import metric


def made(name, ids, *, gate=True, judge=metric.dice):
    rng = np.random.default_rng(len(ids))
    counts = np.zeros((3, len(ids), 2), np.int64)
    counts[0] = rng.integers(0, 3, (len(ids), 2)) * 50
    counts[1] = rng.integers(0, 90, (len(ids), 2))
    counts[2] = np.minimum(counts[0], counts[1]) // 2
    images = Images(tuple(ids), np.arange(len(ids)) // 2, np.arange(len(ids)) % 2)
    seen = rng.random((len(ids), 2)) if gate else None
    return perimage.from_counts(name, ("7", "9"), images, counts, judge, gate=seen)


def test_scores_are_the_metrics_and_their_mean_is_the_score():
    one = made("m", "abcdef")
    assert np.array_equal(one.scores, metric.dice(one.intersection, one.predicted, one.true))
    assert np.array_equal(one.floors, (one.true == 0).astype(float))
    assert one.image_scores.mean() == pytest.approx(one.scores.mean())
    whole = made("m", "abcdef", judge=metric.exact_match)
    assert whole.scores.shape == whole.floors.shape == (6, 1)


@pytest.mark.parametrize("gate", [True, False])
def test_what_is_written_is_read_again(tmp_path, gate):
    one, file = made("best", "abcdef", gate=gate), tmp_path / "best.json"
    perimage.write(perimage.path_beside(file), one)
    again = perimage.read(tmp_path / "best.images.csv", metric.dice, ("7", "9"))
    assert (again.name, again.image_ids, again.classes) == ("best", one.image_ids, ("7", "9"))
    for key in ("clusters", "folds", "true", "predicted", "intersection", "scores"):
        assert np.array_equal(getattr(again, key), getattr(one, key)), key
    assert (again.gate is None) == (not gate)
    if gate:
        assert np.allclose(again.gate, one.gate, atol=1e-5)
    with pytest.raises(DataError, match="no column 'true_8'"):
        perimage.read(tmp_path / "best.images.csv", metric.dice, ("7", "8"))


def test_results_are_compared_on_the_images_they_share():
    first, second = perimage.shared([made("a", "cabd"), made("b", "xdcz")])
    assert first.image_ids == second.image_ids == ("c", "d")
    one = made("a", "cabd")
    assert np.array_equal(first.scores, one.scores[[0, 3]])
    assert np.array_equal(first.gate, one.gate[[0, 3]])
    assert first.clusters.tolist() == [0, 1]
    with pytest.raises(DataError, match="a, b have no image in common"):
        perimage.shared([made("a", "ab"), made("b", "cd")])
    with pytest.raises(DataError, match="a says nothing of 1 images, the first is q"):
        one.take(["c", "q"])
