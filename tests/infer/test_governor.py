"""The governor's choices, and what a model that is really slow gets."""

from __future__ import annotations

import time

import numpy as np

from kagflow.infer.engine import Settings, predict
from kagflow.infer.governor import Governor, plans
from kagflow.infer.postprocess import ClassRule
from kagflow.task.spec import TaskSpec


def test_views_are_shed_before_members_and_the_order_is_the_ensembles():
    assert plans([2, 1, 3], [1, 2, 0]) == [
        (2, 1, 3),
        (2, 1, 1),
        (1, 1, 1),
        (1, 0, 1),
        (1, 0, 0),
        (0, 0, 0),
    ]


def test_a_member_that_never_ran_is_judged_by_its_measured_cost():
    now = [0.0]
    governor = Governor(100, 50.0, plans([1, 1], [1, 0]), priors=(1.0, 3.0), clock=lambda: now[0])
    governor.note_gate(images=8, passed=8, seconds=0.0)
    governor.note(0, views=1, images=8, seconds=1.6)
    # .2 s an image here, so .6 for the other: 100 images do not fit 50 s.
    assert governor.choose(8) == (1, 0)


def test_images_that_nobody_has_time_for_are_empty_and_said(member):
    files = [(str(n), np.full((32, 32), 255, np.uint8)) for n in range(6)]
    governor = Governor(6, time.monotonic() - 1, plans([1], [0]))
    settings = Settings(batch=2, governor=governor)
    spec = TaskSpec("tiny", "segmentation", ("a", "b"))
    found = list(predict([member("Bright")], [ClassRule()] * 2, spec, files, settings=settings))
    assert [one.image_id for one in found] == [name for name, _ in files]
    assert all(one.late and one.rows == {} for one in found)


def test_a_slow_model_is_shed_in_time(member):
    files = [(str(n), np.full((32, 32), 255, np.uint8)) for n in range(40)]
    began, limit = time.monotonic(), 2.0
    members = [member("Bright"), member("Slow", seconds=0.2, tta=("none", "hflip"))]
    governor = Governor(len(files), began + limit, plans([1, 2], [1, 0]))
    settings = Settings(batch=2, governor=governor)
    spec = TaskSpec("tiny", "segmentation", ("a", "b"))
    found = list(predict(members, [ClassRule()] * 2, spec, files, settings=settings))
    assert len(found) == 40
    # All at full would take 8 s; each got at least the fast one.
    assert time.monotonic() - began < limit + 0.5
    assert all(0 in one.rows for one in found)
    assert governor.story()["1+0"] > 10
