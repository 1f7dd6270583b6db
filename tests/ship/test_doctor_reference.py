"""The reference that a probe times on an accelerator, and this machine beside it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from kagflow.rehearse.projection import project
from kagflow.ship import costs, doctor_reference
from kagflow.ship.remote_types import Pushed
from kagflow.task.costs import Turn

THERE = {"machine": "2 x Tesla T4", "lanes": 2, "loaded": 9.0, "forward": 0.002, "host": 0.004}
HERE = {"machine": "2 threads of a desk", "lanes": 1, "loaded": 3.0, "forward": 0.1, "host": 0.002}


@pytest.mark.slow  # imports torch in a process of its own
def test_this_machine_measures_itself():
    found = doctor_reference.measure()
    assert set(found) == set(THERE)
    assert found["forward"] > 0
    assert found["host"] > 0
    assert found["loaded"] > 0


def test_what_a_probe_measured_calibrates(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_reference, "measure", lambda: HERE)
    remote = SimpleNamespace(state=tmp_path)
    live = SimpleNamespace(remote=remote, machine_shape="NvidiaTeslaT4")
    made = Pushed("me/kagflow-probe", 4, "")
    doctor_reference.keep(live, {"reference": None}, made)
    doctor_reference.keep(live, {}, made)
    assert costs.read(tmp_path) == []
    doctor_reference.keep(live, {"reference": THERE}, made)
    (pair,) = costs.read(tmp_path, "NvidiaTeslaT4")
    assert (pair.source, pair.subject) == ("probe", "me/kagflow-probe/v4")
    pack = doctor_reference.as_costs({**HERE, "forward": 1.0})
    found = project(replace(pack, members=(Turn("unet", "unet", 1.0),)), [pair], 1000)
    # .02 s there for each second here, shared by two GPUs; the start takes three times as long.
    assert found.calibrated
    assert found.minutes == pytest.approx((3.0 * 3.0 + 1000 * 1.0 * 0.02 / 2) / 60)


def test_a_gpu_that_does_not_compute_measures_nothing():
    assert "need_gpu=True" in doctor_reference.script(need_gpu=True)
    compile(doctor_reference.script(need_gpu=True), "reference", "exec")
