"""A kernel that fails under submit: its likely cause, the end of its log and the next command."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kagflow.errors import RemoteError
from kagflow.rehearse import sandbox
from kagflow.ship.records import HoursRow, SubmissionRow
from kagflow.ship.settle import TAIL

# Real failures of real kernels, in the sandbox that has neither network nor what is not packed.
KERNELS = {
    "out of memory": "raise MemoryError('Unable to allocate 80.0 GiB')",
    "out of time": "import time; time.sleep(60)",
    "a module is missing": "import module_that_nobody_packed",
    "no internet": "import urllib.request; urllib.request.urlopen('https://www.kaggle.com')",
    "an input is missing": "open('/kaggle/input/weights-of-yesterday/model.safetensors')",
}
TALK = "for number in range(40): print('line', number, flush=True)\n"


def load():
    path = Path(__file__).with_name("test_submit.py")
    spec = importlib.util.spec_from_file_location("causes_road", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


roads = load()


@pytest.fixture
def road(local, tmp_path):
    if not sandbox.probe_layers():
        pytest.skip("no sandbox layer works on this machine")
    return roads.Road(local, tmp_path, roads.QUICK, "tiny-saved")


@pytest.mark.parametrize("cause", KERNELS)
def test_a_failed_kernel_is_told_with_its_cause_log_and_next_command(road, cause) -> None:
    (road.kernel / "kernel.py").write_text(TALK + KERNELS[cause] + "\n")
    request = road.request()
    if cause == "out of time":
        request = type(request)(**{**vars(request), "timeout_s": 3})
    plan = roads.make_plan(request, road.remote, road.records)
    with pytest.raises(RemoteError) as caught:
        roads.execute(plan, road.remote, road.records)
    (row,) = road.records.select(SubmissionRow)
    head, likely, *log = caught.value.message.splitlines()
    assert head.startswith(f"kernel {row.kernel} version 1 failed: ")
    assert likely.startswith(f"likely: {cause}")
    assert log == list(row.detail["log"])
    assert len(log) == TAIL
    assert not {"line 0", "line 9"} & set(log)
    assert caught.value.exit_code == 4
    assert f"kagflow history {row.pack}" in caught.value.hint
    assert "kagflow submit" in caught.value.hint
    (hours,) = road.records.select(HoursRow)
    assert (hours.kind, hours.ended is not None) == ("kernel", True)
    if cause == "out of time":
        # Its log ended with its last line, the run with its time.
        assert hours.seconds == pytest.approx(3.0, abs=0.2)
        assert hours.source == "estimated"


def test_what_gave_the_cause_away_is_found_before_the_end_of_the_log(road) -> None:
    text = "print('CUDA out of memory: member a is left out', flush=True)\n"
    (road.kernel / "kernel.py").write_text(text + TALK + "raise SystemExit(1)\n")
    with pytest.raises(RemoteError, match="likely: out of memory, by: CUDA out of memory"):
        road.submit()
    (row,) = road.records.select(SubmissionRow)
    assert (row.cause, len(row.detail["log"])) == ("out of memory", TAIL)
    assert row.detail["telling"].startswith("CUDA")
