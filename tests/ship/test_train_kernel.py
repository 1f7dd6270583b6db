"""The script of a training session, its parts called one by one."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kagflow.progress import read_news
from kagflow.ship.parts import Part
from kagflow.ship.train_kernel import session_push, token
from kagflow.ship.train_order import TrainJob, TrainOrder, reserve

ORDER = TrainOrder(
    key="0123456789ab",
    competition="a-competition-with-quite-a-long-name",
    slug="c",
    jobs=tuple(TrainJob(f"tiny/fold{fold}", ("train", "c", f"fold={fold}")) for fold in range(3)),
    runs="runs/c",
    accelerator="NvidiaTeslaT4",
    task={"test_images": "test", "sample_submission": "s.csv"},
    hours=1.0,
)


def push(**changes: Any):
    parts = {
        name: Part(name, Path(), f"{name}-hash", {"python": "3.12"}) for name in ("code", "load")
    }
    given = {"seconds": 600.0, "previous": "", **parts, **changes}
    return session_push(ORDER, "me", 1, **given)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch) -> dict[str, Any]:
    monkeypatch.setenv("KAGGLE_WORKING_ROOT", str(tmp_path))
    monkeypatch.delenv("KAGFLOW_REHEARSAL", raising=False)
    names: dict[str, Any] = {"__name__": "kernel"}
    exec(compile(push().text, "kernel.py", "exec"), names)
    return names


def gpus(kernel: dict[str, Any], count: int) -> None:
    answer = SimpleNamespace(stdout=f"{count}\n", stderr="", returncode=0)
    kernel["subprocess"] = SimpleNamespace(run=lambda *_, **__: answer)


def test_a_session_ends_by_itself_and_is_told_so_twice() -> None:
    made = push()
    assert made.timeout_s == 600
    assert "\nSECONDS = 600.0\n" in made.text
    assert f"\nRESERVE = {reserve(600.0)}\n" in made.text
    assert reserve(600.0) < 600 / 5
    assert f'\nTOKEN = "{token(ORDER, 1)}"\n' in made.text
    assert made.ref == f"me/{made.title.replace(' ', '-')}"
    assert 5 <= len(made.title) <= 50
    assert push(turn="b").ref != made.ref


def test_each_gpu_trains_a_run_at_a_time(kernel: dict[str, Any]) -> None:
    gpus(kernel, 2)
    both, seen = threading.Barrier(2, timeout=10), []

    def train(job, root, place):
        seen.append((job["run"], place["CUDA_VISIBLE_DEVICES"]))
        if len(seen) <= 2:
            both.wait()
        return 0

    kernel["train"] = train
    assert kernel["train_all"](Path()) == {job.run: 0 for job in ORDER.jobs}
    assert {place for _, place in seen[:2]} == {"0", "1"}


def test_two_gpus_may_share_a_run(kernel: dict[str, Any]) -> None:
    gpus(kernel, 2)
    assert kernel["slots"](2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}]


def test_hours_are_not_spent_without_the_gpu(kernel: dict[str, Any]) -> None:
    gpus(kernel, 0)
    with pytest.raises(kernel["Failed"], match="0 GPUs here"):
        kernel["slots"](1)


def test_news_keep_their_form_among_the_lines_of_several(
    kernel: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    news = '{"what": "advance", "of": "tiny fold 1", "n": 3}\n'
    asked: dict[str, Any] = {}

    def popen(command, *, env, **_):
        asked.update(env)
        lines = ["a remark\n", news, "next: x\n"]
        ends = {"wait": lambda: 0, "terminate": None, "kill": None}
        return SimpleNamespace(stdout=lines, **ends)

    kernel["subprocess"] = SimpleNamespace(Popen=popen, PIPE=0, STDOUT=0)
    kernel["END"] = kernel["time"].monotonic() + 60
    assert kernel["train"](kernel["JOBS"][1], Path(), {}) == 0
    assert capsys.readouterr().out == f"tiny/fold1: a remark\n{news}"
    assert read_news(news) is not None
    assert float(asked["KAGFLOW_NEWS"]) > 0


def test_nothing_is_begun_after_the_deadline(kernel: dict[str, Any]) -> None:
    gpus(kernel, 1)
    kernel["END"] = kernel["time"].monotonic() + 5
    kernel["train"] = None
    assert kernel["train_all"](Path()) == {}


def test_what_is_left_is_the_newest_checkpoint_and_hashes(
    kernel: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "tiny" / "fold0"
    run.mkdir(parents=True)
    for name in ("ckpt-9.json", "ckpt-9.pt", "ckpt-10.json", "ckpt-10.pt", ".lock", "run.json"):
        (run / name).write_text(name)
    kernel["seal"]({"tiny/fold0": 0})
    told = json.loads((tmp_path / "kagflow-session.json").read_text())
    names = [f"runs/tiny/fold0/{name}" for name in ("ckpt-10.json", "ckpt-10.pt", "run.json")]
    assert sorted(told["files"]) == names
    assert told["files"][names[2]]["sha256"] == hashlib.sha256(b"run.json").hexdigest()
    assert told["jobs"]["tiny/fold0"] == {"finished": True, "code": 0}
    assert told["jobs"]["tiny/fold2"] == {"finished": False, "code": None}


def test_the_output_of_another_session_is_not_taken_over(
    kernel: dict[str, Any], tmp_path: Path
) -> None:
    stale = tmp_path / "input" / "notebooks" / "me" / "other"
    stale.mkdir(parents=True)
    (stale / "kagflow-session.json").write_text('{"token": "another/3", "files": {}}')
    kernel["INPUT"], kernel["PREVIOUS"] = tmp_path / "input", "mine/1"
    with pytest.raises(kernel["Failed"], match="there is another/3"):
        kernel["find_previous"]()
