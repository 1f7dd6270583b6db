"""Are training and test images told apart where they differ, and only there?"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kagflow.learn import adversarial
from kagflow.learn.adversarial import Likeness, auc, compare, tell_apart
from kagflow.learn.adversarial_features import NAMES, describe
from kagflow.task.index import ImageRow, perceptual_hash
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec(slug="plates", kind="segmentation", classes=("1",))


def write(folder: Path, name: str, count: int, *, seed: int, brighter: float = 0.0) -> None:
    rng = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    for number in range(count):
        image = cv2.resize(rng.normal(120, 30, (8, 12)).astype(np.float32), (48, 32))
        image += rng.normal(brighter, 3, image.shape)
        cv2.imwrite(
            str(folder / name / f"{name}{number:03}.png"), image.clip(0, 255).astype(np.uint8)
        )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path, "train_images", 120, seed=0)
    (tmp_path / "manifest.json").write_text(json.dumps({"files": 1}))
    return tmp_path


def test_images_of_one_source_are_not_told_apart(data: Path) -> None:
    write(data, "test_images", 60, seed=1)
    found = compare(data, SPEC, cache=data / "cache")
    assert isinstance(found, Likeness)
    assert (found.train, found.test) == (120, 60)
    assert 0.3 < found.auc < 0.7
    assert found.trusted


def test_another_light_is_told_and_named(data: Path) -> None:
    write(data, "test_images", 60, seed=1, brighter=35)
    found = compare(data, SPEC, cache=data / "cache")
    assert isinstance(found, Likeness)
    assert found.auc > 0.9
    assert not found.trusted
    assert all(size > 1 for _, size in found.features)
    assert {name for name, _ in found.features} & {"brightness", "grey at 50 %", "grey at 25 %"}


def test_near_duplicates_on_both_sides_of_a_fit_would_flatter(data: Path) -> None:
    # Scenes of one kind, each seen many times on one side: only by heart could they be told.
    rng = np.random.default_rng(2)
    features, rows = [], []
    for number in range(60):
        scene = cv2.resize(rng.normal(120, 40, (8, 12)).astype(np.float32), (48, 32))
        for copy in range(6):
            image = (scene + rng.normal(0, 0.3, scene.shape)).clip(0, 255).astype(np.uint8)
            hashed = perceptual_hash(scene.clip(0, 255).astype(np.uint8))
            rows.append(ImageRow(f"{number}-{copy}", 32, 48, hashed))
            features.append(describe(image))
    test = np.arange(360) // 6 % 2 == 1
    honest = tell_apart(rows, np.array(features), test).auc
    strangers = [ImageRow(row.image_id, 32, 48, 31**9 * at) for at, row in enumerate(rows)]
    assert honest < 0.7 < 0.85 < tell_apart(strangers, np.array(features), test).auc


def test_the_answer_is_kept_for_the_same_data_only(data: Path, monkeypatch) -> None:
    write(data, "test_images", 30, seed=1)
    first = compare(data, SPEC, cache=data / "cache")
    monkeypatch.setattr(adversarial, "_look", None)
    assert compare(data, SPEC, cache=data / "cache") == first
    (data / "manifest.json").write_text(json.dumps({"files": 2}))
    with pytest.raises(TypeError):
        compare(data, SPEC, cache=data / "cache")


def test_too_few_or_no_test_images_are_said(data: Path) -> None:
    assert compare(data, SPEC, cache=data) == "there are no test images to look at"
    write(data, "test_images", 4, seed=1)
    assert "4 test images are too few" in str(compare(data, SPEC, cache=data))


def test_auc_shares_ties() -> None:
    positive = np.array([True, False, True, False])
    assert auc(positive, np.array([2.0, 1.0, 4.0, 3.0])) == 0.75
    assert auc(positive, np.zeros(4)) == 0.5


def test_every_feature_has_a_name_and_small_images_work() -> None:
    for shape in ((256, 300), (1, 1), (2, 5)):
        found = describe(np.full(shape, 7, np.uint8))
        assert found.shape == (len(NAMES),)
        assert np.isfinite(found).all()
