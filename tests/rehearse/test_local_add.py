"""A share of labelled images becomes the hidden test of an embedded competition."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kagflow.config import Competition
from kagflow.errors import DataError, RefusedError, UsageError
from kagflow.rehearse.local_add import Hidden, add
from kagflow.rehearse.register import facts_of, register
from kagflow.rehearse.scorer import score_submission
from kagflow.rehearse.store import Store
from kagflow.task.labels import read_labels
from kagflow.task.score import score_files
from kagflow.task.submission import write, write_empty
from kagflow.task.table import read_table

COUNT = 120


def competition(**changes) -> Competition:
    values = {"slug": "plates", "title": "Plates", "classes": ("1", "2"), "default_recipe": "x"}
    return Competition(**{**values, "rerun": "hidden", **changes})


@pytest.fixture
def data(tmp_path) -> Path:
    """Images in pairs of near-duplicates; one in six shows class 1, one in twelve class 2."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "data"
    (folder / "train_images").mkdir(parents=True)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for at in range(0, COUNT, 2):
        coarse = rng.integers(0, 255, (6, 6), np.uint8)
        image = cv2.resize(coarse, (60, 40 + at % 5), interpolation=cv2.INTER_CUBIC)
        for name in (f"{at:03}.jpg", f"{at + 1:03}.jpg"):
            cv2.imwrite(str(folder / "train_images" / name), image)
            if at % 12 == 0:
                rows.append(f"{name},1,1 10")
            if at % 24 == 2:
                rows.append(f"{name},2,5 5")
        # The second of a pair is a little darker.
        second = folder / "train_images" / f"{at + 1:03}.jpg"
        cv2.imwrite(str(second), (image * 0.95).astype(np.uint8))
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_parts_are_disjoint_stratified_and_keep_pairs(tmp_path, data) -> None:
    added = add(tmp_path / "store", facts_of(competition(), generated=False), data)
    assert added.train + added.public + added.private == COUNT
    assert added.public + added.private == pytest.approx(0.3 * COUNT, abs=4)
    assert abs(added.public - added.private) <= 4
    train = names(added.place / "public/train_images")
    public = names(added.place / "public/test_images")
    hidden = names(added.place / "hidden/test_images")
    assert len(train) == added.train
    assert len(public) == added.public
    assert public < hidden
    assert not train & hidden
    for name in train:
        assert f"{int(name[:3]) ^ 1:03}.jpg" in train
    task = competition().task()
    solution = read_labels(added.place / "solution.csv", task)
    kept = read_labels(added.place / "public/train.csv", task)
    assert set(kept) <= train
    assert set(solution) == hidden
    positives = sum(bool(found) for found in solution.values())
    assert positives == pytest.approx(0.3 * 30, abs=3)
    assert {1 for found in solution.values() if 1 in found}


def test_files_are_what_a_competition_gives(tmp_path, data) -> None:
    place = add(tmp_path / "store", facts_of(competition(), generated=False), data).place
    table = read_table(place / "solution.csv")
    assert table.header == ("ImageId", "ClassId", "EncodedPixels", "Usage", "Height", "Width")
    hidden = names(place / "hidden/test_images")
    assert len(table.rows) == 2 * len(hidden)
    usage = dict(zip(table.column("ImageId"), table.column("Usage"), strict=True))
    public = {name for name, half in usage.items() if half == "Public"}
    assert public == names(place / "public/test_images")
    sizes = dict(zip(table.column("ImageId"), table.column("Height"), strict=True))
    for name in sorted(hidden)[:5]:
        image = cv2.imread(str(place / "hidden/test_images" / name), cv2.IMREAD_GRAYSCALE)
        assert int(sizes[name]) == image.shape[0]
    sample = place / "hidden/sample_submission.csv"
    assert set(read_table(sample).column("ImageId")) == hidden
    assert set(read_table(place / "public/sample_submission.csv").column("ImageId")) == public
    task = competition().task()
    truth = read_labels(place / "solution.csv", task)
    write(tmp_path / "truth.csv", truth, task, sample)
    write_empty(tmp_path / "empty.csv", task, sample)
    best = score_files(tmp_path / "truth.csv", place / "solution.csv", task)
    floor = score_files(tmp_path / "empty.csv", place / "solution.csv", task)
    for part in ("Public", "Private", "all"):
        assert best[part].value == 1.0
        assert floor[part].value == pytest.approx(best[part].floor)
        assert floor[part].value < 1.0


def test_the_same_seed_gives_the_same_split(tmp_path, data) -> None:
    facts = facts_of(competition(), generated=False)
    first = (add(tmp_path / "a", facts, data).place / "solution.csv").read_bytes()
    assert (add(tmp_path / "b", facts, data).place / "solution.csv").read_bytes() == first
    other = add(tmp_path / "c", facts, data, hidden=Hidden(seed=1)).place / "solution.csv"
    assert other.read_bytes() != first
    # Again into the same store changes nothing; another split would make old scores lie.
    add(tmp_path / "a", facts, data)
    with pytest.raises(RefusedError, match="other data"):
        add(tmp_path / "a", facts, data, hidden=Hidden(seed=1))


def test_the_source_is_left_alone(tmp_path, data) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    place = add(tmp_path / "store", facts_of(competition(), generated=False), data).place
    image = next((place / "public/train_images").iterdir())
    image.write_bytes(b"changed")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_classification_with_a_given_sample(tmp_path, data) -> None:
    every = sorted(names(data / "train_images"))
    rows = "".join(f"{name},{'a b' if at % 4 == 0 else ''}\n" for at, name in enumerate(every))
    (data / "train.csv").write_text("ImageId,Label\n" + rows)
    (data / "sample_submission.csv").write_text("Label,ImageId\nb,000.jpg\n")
    made = competition(kind="classification", classes=("a", "b"), value_column="Label")
    place = add(tmp_path / "store", facts_of(made, generated=False), data).place
    table = read_table(place / "solution.csv")
    assert table.header == ("ImageId", "Label", "Usage", "Height", "Width")
    assert set(table.column("Label")) == {"a b", ""}
    sample = read_table(place / "public/sample_submission.csv")
    assert sample.header == ("Label", "ImageId")
    assert set(sample.column("Label")) == {"b"}


@pytest.mark.parametrize("holdout", [0.0, 0.04, 0.96, 1.0, -1.0])
def test_a_share_must_leave_both_sides(tmp_path, data, holdout) -> None:
    with pytest.raises(UsageError, match="holdout"):
        add(tmp_path / "s", facts_of(competition(), generated=False), data, hidden=Hidden(holdout))


def test_too_few_images(tmp_path, data) -> None:
    for path in sorted((data / "train_images").iterdir())[5:]:
        path.unlink()
    (data / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    with pytest.raises(DataError, match="5 images"):
        add(tmp_path / "store", facts_of(competition(), generated=False), data)


def test_register_overrides_the_kind_of_rerun(tmp_path, data) -> None:
    facts = facts_of(competition(), generated=True)
    assert facts.host == "kagflow-mini"
    place = add(tmp_path / "one", facts, data).place
    register(tmp_path / "two", facts, place, rerun="none")
    assert Store(tmp_path / "two").competition("plates").scores_saved_output
    assert not Store(tmp_path / "one").competition("plates").scores_saved_output


def test_a_sealed_private_half_is_asked_for_and_not_scored(tmp_path, data) -> None:
    facts = facts_of(competition(), generated=False)
    open_ = add(tmp_path / "open", facts, data)
    sealed = add(tmp_path / "sealed", facts, data, hidden=Hidden(sealed=True))
    assert sealed.private == open_.private > 0
    one, two = ((at.place / "solution.csv").read_text() for at in (open_, sealed))
    assert one.replace(",Private,", ",Ignored,") == two
    empty = tmp_path / "empty.csv"
    write_empty(empty, facts.task, sealed.place / "hidden" / "sample_submission.csv")
    scored = score_submission(empty, sealed.place / "solution.csv", facts.task)
    assert scored.private is None
    assert scored.public == score_submission(empty, open_.place / "solution.csv", facts.task).public
