"""F14: an image that cannot be read stops training by name, or is in no part of it."""

from __future__ import annotations

import pytest
import torch

from kagflow.errors import DataError
from kagflow.learn import cache
from kagflow.learn.job import Job
from kagflow.learn.oof import OofReader
from kagflow.learn.train import train
from kagflow.task.folds import read_folds, write_folds

BAD = ("004.png", "007.png")  # one of each fold


@pytest.fixture
def harmed(squares):
    (squares / "train_images" / BAD[0]).write_bytes(b"")
    path = squares / "train_images" / BAD[1]
    path.write_bytes(path.read_bytes()[:20])
    return squares


def test_a_corrupt_image_that_is_in_a_fold_stops_training_by_name(harmed, spec, recipe, run_dir):
    with pytest.raises(DataError, match=r"004\.png") as caught:
        train(Job(run_dir, recipe(epochs=1), spec, harmed, 0, "cpu"))
    assert caught.value.exit_code == 6
    assert not list(run_dir.glob("ckpt-*"))


def test_one_that_the_survey_skipped_is_in_no_part_of_a_run(
    harmed, spec, recipe, run_dir, monkeypatch
):
    folds = read_folds(harmed / "folds.csv")
    write_folds(harmed / "folds.csv", {k: v for k, v in folds.items() if k not in BAD})
    read: list[str] = []
    image = cache.Cache.image

    def noted(self, row):
        read.append(self.ids[row])
        return image(self, row)

    monkeypatch.setattr(cache.Cache, "image", noted)
    train(Job(run_dir, recipe(epochs=2), spec, harmed, 0, "cpu"))
    assert len(set(read)) > 11
    assert not set(read) & set(BAD)
    held = {name for name, (_, fold) in folds.items() if fold == 0} - set(BAD)
    with OofReader(run_dir / "oof") as store:
        assert set(store.image_ids) == held
        assert len(store.image_ids) == len(held)
        assert all(torch.from_numpy(store.mask(name)).isfinite().all() for name in held)


def test_one_that_breaks_after_its_decoding_stops_the_prediction_by_name(
    squares, spec, recipe, run_dir
):
    class BreakAtTheEnd:
        def start(self, label, total=None, unit=""):
            if label.startswith("predict"):
                (squares / "train_images" / "004.png").write_bytes(b"no image")

        def advance(self, n=1): ...
        def show(self, figures, *, whole=False): ...
        def note(self, text): ...
        def finish(self): ...

    with pytest.raises(DataError, match=r"004\.png"):
        train(Job(run_dir, recipe(epochs=1), spec, squares, 0, "cpu"), BreakAtTheEnd())
    assert list(run_dir.glob("ckpt-*.pt"))
    assert not (run_dir / "oof").exists()
    assert not (run_dir / "run.json").exists()
