"""The governor's choices, and what a model that is really slow gets."""

from __future__ import annotations

import time

import numpy as np

from kagflow.infer.engine import Settings, predict
from kagflow.infer.governor import Governor, Order, Plan, order, plans
from kagflow.infer.postprocess import ClassRule
from kagflow.task.spec import TaskSpec


def test_views_are_shed_before_members_and_the_order_is_the_ensembles():
    assert list(map(str, plans([2, 1, 3], [1, 2, 0]))) == [
        "2+1+3",
        "2+1+1",
        "1+1+1",
        "1+0+1",
        "1+0+0",
        "0+0+0",
    ]
    assert plans([1, 1], [1, 2, 0]) == [
        Plan((1, 1)),
        Plan((1, 0)),
        Plan((1, 0), gated=False),
        Plan((0, 0), gated=False),
    ]


def test_the_order_is_the_lists_own_and_not_the_members():
    names = ["unet", "fpn", "lite"]
    # unet goes first, then lite: fpn is worth most a second.
    assert order(["unet", "lite", "fpn"], names) == Order((1, 2, 0), None)
    assert order(["unet", "lite", "fpn"], names).shed == [2, 1, 0]
    # Without a list the last goes first; whom a list does not name goes before the named.
    assert order([], names).best == (0, 1, 2)
    assert order(["fpn"], names).best == (1, 0, 2)
    # The folds of one run are several members.
    assert order(["a", "b"], ["a", "a", "b"]).best == (2, 0, 1)


def test_the_gates_stay_unless_the_ensemble_names_all_of_them():
    names, gates = ["unet", "fpn"], ["gate1", "gate2"]
    assert order(["fpn", "unet"], names, gates).gates_after is None
    assert order(["gate1", "fpn", "unet"], names, gates).gates_after is None
    found = order(["gate1", "fpn", "gate2", "unet"], names, gates)
    assert found == Order((0, 1), 1)
    assert found.shed == [1, 2, 0]
    assert order(["gate1", "fpn", "gate2"], names, gates).gates_after == 2


def test_a_member_that_never_ran_is_judged_by_its_measured_cost():
    now = [0.0]
    governor = Governor(100, 50.0, plans([1, 1], [1, 0]), priors=(1.0, 3.0), clock=lambda: now[0])
    governor.note_gate(images=8, passed=8, seconds=0.0)
    for _ in range(2):
        governor.note(0, views=1, images=8, seconds=1.6)
    # .2 s an image here, so .6 for the other: 100 images do not fit 50 s.
    assert governor.choose(8) == Plan((1, 0))


def test_the_gates_tell_what_segmenters_that_never_ran_may_take():
    now = [0.0]
    governor = Governor(
        100, 50.0, plans([1, 1], [1, 0]), priors=(1.0, 3.0), gate_prior=0.5, clock=lambda: now[0]
    )
    governor.note_gate(images=8, passed=8, seconds=6.0)
    # One batch may only have been cold.
    assert governor.choose(8) == Plan((1, 1))
    governor.note_gate(images=8, passed=8, seconds=0.8)
    assert governor.choose(8) == Plan((1, 0))


def test_a_cold_first_batch_and_loading_are_no_forecast():
    now = [30.0]
    governor = Governor(1000, 150.0, plans([1, 1], [1, 0]), clock=lambda: now[0])
    now[0] = 60.0
    for seconds in (16.0, 0.2):
        governor.note_gate(images=8, passed=8, seconds=0.0)
        governor.choose(8)
        for number in (0, 1):
            now[0] += seconds / 2
            governor.note(number, views=1, images=8, seconds=seconds / 2)
        governor.note_done(8)
    # 984 images at .025 s, and 73.8 s left; the 30 s before and the 16 s come no more.
    assert governor.choose(8) == Plan((1, 1))


def test_gates_that_the_ensemble_gives_up_are_no_longer_asked(member):
    files = [(str(n), np.full((32, 32), 255, np.uint8)) for n in range(8)]
    now = [0.0]
    governor = Governor(10, 10.0, plans([1], [1, 0]), clock=lambda: now[0])
    governor.note_gate(images=1, passed=1, seconds=90.0)
    settings = Settings(batch=2, governor=governor)
    spec = TaskSpec("tiny", "segmentation", ("a", "b"))
    members = [member("Bright"), member("MeanLabel", predicts="label", offset=-100.0)]
    rules = [ClassRule(gate=0.5)] * 2
    found = list(predict(members, rules, spec, files, settings=settings))
    # Asked, the gate would veto everything.
    assert all(0 in one.rows for one in found)
    assert governor.story() == {"1, no gate": 8}
    whole = list(predict(members, rules, spec, files, settings=Settings(batch=2)))
    assert not any(one.rows for one in whole)


def test_label_members_are_shed_where_labels_are_the_answer(member):
    files = [(str(n), np.full((32, 32), 255, np.uint8)) for n in range(40)]
    members = [member("MeanLabel", predicts="label", offset=number * 1.0) for number in range(2)]
    now = [0.0]
    governor = Governor(40, 10.0, plans([1, 1], [1, 0]), priors=(1, 9), clock=lambda: now[0])
    governor.note(0, views=1, images=1, seconds=0.2)
    settings = Settings(batch=4, governor=governor)
    spec = TaskSpec("tiny", "classification", ("a", "b"), 32, 32)
    found = list(predict(members, [ClassRule()] * 2, spec, files, settings=settings))
    assert all(one.rows == {0: "", 1: ""} for one in found)
    # Judged by its prior, the second takes 1.8 s an image; then the first is really measured.
    assert governor.story() == {"1+0": 4}


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
