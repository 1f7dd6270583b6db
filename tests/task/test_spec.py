from __future__ import annotations

import json

import pytest

from kagflow.errors import DataError
from kagflow.task.spec import TaskSpec


def test_json_brings_back_the_same_task():
    spec = TaskSpec("s", "classification", ("a", "b"), metric="m:f", exclusive=True, height=3)
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_numbers_are_class_labels_too():
    assert TaskSpec("s", "segmentation", (1, 2)).classes == ("1", "2")


@pytest.mark.parametrize("classes", [(), ("1", "1"), ("a b",), ("",)])
def test_classes_that_no_csv_can_tell_apart_are_refused(classes):
    with pytest.raises(DataError):
        TaskSpec("s", "segmentation", classes)


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(DataError, match=r"\['colour'\].*\['classes'\]"):
        TaskSpec.from_dict({"slug": "s", "kind": "segmentation", "colour": 1})
    with pytest.raises(DataError, match="regression"):
        TaskSpec("s", "regression", ("1",))
