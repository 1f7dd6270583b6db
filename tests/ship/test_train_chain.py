"""Training in chained kernels against the embedded Kaggle, with a kernel that only counts steps.

Its sessions go, hand on and end like the real one's; what trains for real is in tests/cli.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
from pathlib import Path

import pytest
import uvicorn

from kagflow.errors import DataError, NetworkError, RefusedError, RemoteError
from kagflow.rehearse import app, server, settings
from kagflow.rehearse.runner import Runner
from kagflow.rehearse.sandbox import SandboxResult
from kagflow.rehearse.store import Store
from kagflow.ship import load, parts, train_chain, train_order, train_pull, waits
from kagflow.ship.records import HoursRow, Records, StepRow
from kagflow.ship.remote import Remote
from kagflow.ship.remote_types import KernelPush
from kagflow.ship.train_order import TrainJob, TrainOrder
from kagflow.ship.train_session import Session, moved

GOAL = 6
# What the stand-in is told; it never runs.
KERNEL = """
TOKEN = "@token"
SECONDS = @seconds
PREVIOUS = "@previous"
MODE = "@mode"
"""


def count(spec, *, log_file: Path) -> SandboxResult:
    """Count two steps, on from the previous session's, and leave what the real kernel leaves."""
    told = dict(re.findall(r'^([A-Z]+) = "(.*)"$', spec.script.read_text(), re.MULTILINE))
    mode, step, text = told["MODE"], 0, "begin"
    for folder in spec.kernels.values():
        manifest = json.loads((folder / train_pull.MANIFEST).read_text())
        if manifest["token"] == told["PREVIOUS"]:
            (name,) = [one for one in manifest["files"] if one.endswith(".pt")]
            step, text = json.loads((folder / name).read_text())
    code = int(mode == "fail" or bool(told["PREVIOUS"] and not step))
    lines = [f"from step {step}\n", *(["MemoryError: CUDA out of memory\n"] if code else [])]
    lines.append('{"what": "over", "of": "tiny fold 0"}\n')
    if not code:
        leave(spec.working, told["TOKEN"], mode, *steps(mode, step, text))
    records = [{"stream_name": "stdout", "time": 1.5, "data": line} for line in lines]
    log_file.write_text(json.dumps(records))
    return SandboxResult("bwrap", code, 1.5, 1, timed_out=mode == "late", out_of_memory=False)


def steps(mode: str, step: int, text: str) -> tuple[int, str]:
    for _ in range(0 if mode == "stuck" else 2):
        step, text = step + 1, hashlib.sha256(text.encode()).hexdigest()
    return step, text


def leave(working: Path, token: str, mode: str, step: int, text: str) -> None:
    run, state = working / "runs" / "tiny" / "fold0", json.dumps([step, text])
    run.mkdir(parents=True)
    (run / f"ckpt-{step}.pt").write_text(state)
    digest = hashlib.sha256(state.encode()).hexdigest()
    (run / f"ckpt-{step}.json").write_text(json.dumps({"sha256": digest, "step": step}))
    if step >= GOAL:
        (run / "run.json").write_text(json.dumps({"text": text}))
    files = {
        path.relative_to(working).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest()
        }
        for path in run.iterdir()
    }
    jobs = {"tiny/fold0": {"finished": step >= GOAL, "code": 3 if mode == "raise" else 0}}
    if mode == "half":
        whole = run.with_name("fold1") / "run.json"
        whole.parent.mkdir()
        whole.write_text("whole")
        facts = {"sha256": hashlib.sha256(b"whole").hexdigest()}
        files[whole.relative_to(working).as_posix()] = facts
        jobs["tiny/fold1"] = {"finished": True, "code": 0}
    told = {"token": "x" if mode == "other" else token, "files": files, "jobs": jobs}
    (working / train_pull.MANIFEST).write_text(json.dumps(told))
    if mode in ("damage", "half"):
        (run / f"ckpt-{step}.pt").write_text("torn")


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    """An embedded Kaggle in this process whose machine is `count`: (store, URL)."""
    store = Store(tmp_path_factory.mktemp("kaggle") / "store")
    store.add_competition(tiny.make_facts(), tiny.make_folder(tmp_path_factory.mktemp("tiny")))
    settings.change(store.path, dataset_ready_s=0.0)
    bound = server.listen(0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    runner = Runner(store, count)
    runner.start()
    config = uvicorn.Config(app.build(store, runner, url), log_level="error", lifespan="off")
    served = uvicorn.Server(config)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield store, url
    served.should_exit = True
    thread.join(5)


def part(root: Path, name: str, text: str) -> parts.Part:
    file = root / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    facts = {file.name: {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}}
    return load.place_part(root / name, parts.seal(name, facts, python="3.12"), {file.name: file})


class Notes:
    """Take notes; all else is of no interest."""

    def __init__(self, notes: list[str]) -> None:
        self.note = notes.append

    def __getattr__(self, name: str):
        return lambda *_, **__: None


class Away:
    """One user's training; `modes` say how the kernel of each session behaves."""

    def __init__(self, make_remote, folder: Path, monkeypatch) -> None:
        self.make_remote, self.folder, self.modes = make_remote, folder, {}
        self.records, self.runs = Records(folder / "records"), folder / "runs"
        self.parts = (part(folder / "parts", "code", "wheel"), part(folder / "parts", "load", "x"))
        self.asked: list[float] = []
        self.notes: list[str] = []
        self.jobs: list[tuple[TrainJob, ...]] = []
        self.order = TrainOrder(
            key="0123456789ab",
            competition="tiny",
            slug="tiny-squares",
            jobs=(TrainJob("tiny/fold0", ("train", "tiny", "fold=0")),),
            runs="runs/tiny",
            accelerator="NvidiaTeslaT4",
            task={},
            hours=1.0,
        )
        monkeypatch.setattr(train_chain, "session_push", self.push)

    def push(self, order, account, number, **given) -> KernelPush:
        self.jobs.append(order.jobs)
        told = {
            "@token": f"{order.key}/{number}",
            "@seconds": f"{given['seconds']:.1f}",
            "@previous": given["previous"],
            "@mode": self.modes.get(number, ""),
        }
        text = KERNEL
        for mark, value in told.items():
            text = text.replace(mark, value)
        return KernelPush(
            ref=order.kernel(account, given["turn"]),
            title=order.title(given["turn"]),
            text=text,
            datasets=given["datasets"],
            competition=order.slug,
            machine_shape=order.accelerator,
            timeout_s=60,
            kernels=given["sources"],
        )

    def run(self, *, attach: bool = False):
        chain = train_chain.Chain(
            self.order,
            self.parts,
            self.make_remote(),
            self.records,
            runs=self.runs,
            work=self.folder / "work",
            progress=Notes(self.notes),
        )
        return chain.run(attach=attach, ask=self.ask)

    def ask(self, judged, seconds: float) -> None:
        self.asked.append(seconds)

    @property
    def made(self) -> str:
        return json.loads((self.runs / "tiny" / "fold0" / "run.json").read_text())["text"]


def unbroken() -> str:
    text = "begin"
    for _ in range(GOAL):
        text = hashlib.sha256(text.encode()).hexdigest()
    return text


@pytest.fixture
def away(served, tmp_path: Path, monkeypatch) -> Away:
    user = f"user{abs(hash(tmp_path)) % 10**8}"
    url = served[1].replace("http://", f"http://{user}:local@")
    monkeypatch.setattr(waits, "LONGEST_WAIT", {"local": 0.05})
    monkeypatch.setattr(train_pull, "AGAIN_S", 0.0)

    def make() -> Remote:
        return Remote("local", url=url, state=tmp_path / "state")

    return Away(make, tmp_path, monkeypatch)


@pytest.fixture
def kaggle(served):
    """Change the embedded Kaggle's settings for one test."""
    folder = served[0].path
    yield lambda **values: settings.change(folder, **values)
    settings.change(folder, gpu_hours=30.0, gpu_slots=2)


def test_three_sessions_make_what_one_would(away: Away) -> None:
    ended = away.run()
    assert away.made == unbroken()
    assert [one.number for one in ended.sessions] == [1, 2, 3]
    assert len({one.ref for one in ended.sessions}) == 2
    assert len(away.asked) == 1
    rows = away.records.select(HoursRow, place="kaggle")
    assert len(rows) == 3
    assert all(row.ended and row.account == away.make_remote().account() for row in rows)
    assert sum(row.seconds for row in rows) == pytest.approx(ended.spent_s)
    # Nothing is left but to say so.
    again = away.run()
    assert [one.version for one in again.sessions] == [one.version for one in ended.sessions]
    assert not list((away.folder / "work").glob("*-*"))


@pytest.mark.parametrize("step", ["push 1", "run 1", "pull 1", "push 2", "dataset 2 load"])
def test_a_kill_before_any_note_is_found_again(away: Away, monkeypatch, step: str) -> None:
    done = Records.done

    def forget(self, row, result):
        if row.name == step:
            raise KeyboardInterrupt
        return done(self, row, result)

    with monkeypatch.context() as patched:
        patched.setattr(Records, "done", forget)
        with pytest.raises(KeyboardInterrupt):
            away.run()
    ended = away.run()
    assert away.made == unbroken()
    assert [(one.number, one.version) for one in ended.sessions] == [(1, 1), (2, 1), (3, 2)]
    assert len(away.records.select(HoursRow)) == 3


def test_attaching_starts_nothing(away: Away, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_chain, "follow_kernel", stop)
        with pytest.raises(KeyboardInterrupt):
            away.run()
    ended = away.run(attach=True)
    assert [one.number for one in ended.sessions] == [1]
    assert "goes on" in ended.why
    assert load.checkpoint_step(away.runs / "tiny" / "fold0") == 2


def test_a_quota_that_refuses_a_push_loses_nothing(away: Away, kaggle) -> None:
    away.order = TrainOrder(**{**vars(away.order), "over_quota": True})
    pull = train_pull.place

    def spend(left, runs):
        kaggle(gpu_hours=0.0)
        return pull(left, runs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_pull, "place", spend)
        with pytest.raises(RemoteError, match=r"weekly GPU quota .* reached") as refused:
            away.run()
    assert "kagflow quota" in refused.value.hint
    kaggle(gpu_hours=30.0)
    ended = away.run()
    assert away.made == unbroken()
    assert len(ended.sessions) == 3


def test_hours_that_do_not_fit_are_not_begun(away: Away, kaggle) -> None:
    kaggle(gpu_hours=1.1)
    with pytest.raises(RemoteError, match="does not fit") as refused:
        away.run()
    assert "--over-quota" in refused.value.hint
    assert away.asked == []


def test_a_no_is_an_answer_and_nothing_is_looked_for(away: Away, monkeypatch) -> None:
    def no(judged, seconds):
        raise RefusedError("not handed over")

    with monkeypatch.context() as patched:
        patched.setattr(away, "ask", no)
        with pytest.raises(RefusedError):
            away.run()
    (push,) = away.records.select(StepRow, name="push 1")
    assert push.state == "refused"
    assert "--attach goes on" in away.run(attach=True).why
    away.run()
    assert away.made == unbroken()


def test_a_slot_is_waited_for(away: Away, kaggle, monkeypatch) -> None:
    kaggle(gpu_slots=0)
    remote = away.make_remote()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        kaggle(gpu_slots=2)

    monkeypatch.setattr(remote.transport, "sleep", sleep)
    away.make_remote = lambda: remote
    away.run()
    assert waited
    assert away.made == unbroken()


@pytest.mark.parametrize("method", ["SaveKernel", "CreateDataset"])
def test_a_lost_answer_makes_nothing_twice(away: Away, method: str) -> None:
    remote = away.make_remote()
    call, sent = remote.transport.call, []

    def losing(service, name, request, response_type):
        answer = call(service, name, request, response_type)
        if name == method:
            sent.append(name)
            if len(sent) == 1:
                raise NetworkError("the answer was lost")
        return answer

    remote.transport.call, remote.transport.sleep = losing, lambda _: None
    away.make_remote = lambda: remote
    ended = away.run()
    assert away.made == unbroken()
    assert [one.version for one in ended.sessions] == [1, 1, 2]
    for part in away.parts:
        assert remote.dataset(f"{remote.account()}/kagflow-tiny-{part.name}").current == 1


def test_a_failed_session_says_why_once_and_the_next_goes_on(away: Away) -> None:
    away.modes = {2: "fail"}
    with pytest.raises(RemoteError, match="likely: out of memory") as failed:
        away.run()
    assert "from step 2" in failed.value.message
    assert '"what"' not in failed.value.message
    ended = away.run()
    assert [one.good for one in ended.sessions] == [True, False, True, True]
    assert away.made == unbroken()


def test_a_session_that_was_stopped_counts_up_to_its_end(away: Away) -> None:
    away.modes = {1: "late"}
    with pytest.raises(RemoteError, match="ran past its time limit"):
        away.run()
    (row,) = away.records.select(HoursRow)
    assert row.ended
    assert row.source == "estimated"
    assert away.run().sessions[0].left == {}
    assert away.made == unbroken()


def test_a_training_that_raises_is_told_with_its_last_lines(away: Away) -> None:
    away.modes = {1: "raise"}
    ended = away.run()
    assert ended.failed == ("tiny/fold0",)
    assert ended.tail[-1].startswith("from step 0")
    assert len(away.run().sessions) == 3
    assert away.made == unbroken()


def test_a_session_without_progress_ends_the_chain(away: Away) -> None:
    away.modes = {2: "stuck"}
    with pytest.raises(RemoteError, match="trained nothing"):
        away.run()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("mode", "words"), [("damage", "as left"), ("other", "session x")])
def test_an_output_that_stays_damaged_is_a_lost_session(
    away: Away, number: int, mode: str, words: str
) -> None:
    """It is said and asked about, and the next one goes on from the last that was whole."""
    away.modes = {number: mode}
    ended = away.run()
    assert [one.number for one in ended.sessions if one.lost] == [number]
    assert words in ended.sessions[number - 1].lost
    assert len(ended.sessions) == 4
    assert away.made == unbroken()
    assert load.checkpoint_step(away.runs / "tiny" / "fold0") == GOAL
    assert len(away.asked) == 2
    notes = [one for one in away.notes if words in one]
    assert [one.rpartition("; ")[2] for one in notes[:1]] == ["downloading it once more"]
    assert notes[1].startswith(f"session {number} counts as lost: ")
    assert len(away.records.select(HoursRow)) == 4


def test_two_lost_sessions_in_a_row_stop_until_the_same_command_comes(away: Away) -> None:
    away.modes = {2: "damage", 3: "damage", 4: "damage"}
    with pytest.raises(DataError, match="two sessions in a row are lost; session 3"):
        away.run()
    assert load.checkpoint_step(away.runs / "tiny" / "fold0") == 2
    ended = away.run(attach=True)
    assert "session 3 is lost; the same command without --attach" in ended.why
    with pytest.raises(DataError, match="session 4") as lost:
        away.run()
    assert "begins one more" in lost.value.hint
    away.run()
    assert away.made == unbroken()
    assert len(away.records.select(HoursRow)) == 6


def test_what_is_whole_of_a_lost_session_is_kept_and_not_trained_again(away: Away) -> None:
    other = TrainJob("tiny/fold1", ("train", "tiny", "fold=1"))
    away.order = TrainOrder(**{**vars(away.order), "jobs": (*away.order.jobs, other)})
    away.modes = {1: "half"}
    away.run()
    assert (away.runs / "tiny" / "fold1" / "run.json").read_text() == "whole"
    assert away.made == unbroken()
    assert [len(one) for one in away.jobs] == [2, 1, 1, 1]


def test_fewer_runs_need_not_be_further_than_more_were() -> None:
    def left(step: int, *runs: str) -> dict[str, object]:
        return {"jobs": {run: {"finished": False} for run in runs}, "progress": [0, step]}

    both, lost = Session(1, "a", 1, left=left(500, "x", "y")), Session(2, "b", 1, lost="torn")
    assert moved([both, lost, Session(3, "b", 2, left=left(400, "x"))])
    assert not moved([both, lost, Session(3, "b", 2, left=left(500, "x", "y"))])


def test_an_output_that_was_listed_late_is_no_lost_session(away: Away, monkeypatch) -> None:
    remote, seen = away.make_remote(), []
    outputs = remote.kernel_outputs

    def late(*given, **where):
        seen.append(given)
        return () if len(seen) == 1 else outputs(*given, **where)

    monkeypatch.setattr(remote, "kernel_outputs", late)
    away.make_remote = lambda: remote
    assert [one.lost for one in away.run().sessions] == ["", "", ""]


def test_the_hours_end_the_chain(away: Away, monkeypatch) -> None:
    monkeypatch.setattr(train_order, "LEAST_SESSION_S", 3600.0)
    away.order = TrainOrder(**{**vars(away.order), "hours": 1e-5})
    ended = away.run()
    assert len(ended.sessions) == 1
    assert "hours are spent" in ended.why


def test_a_finished_run_is_never_replaced(away: Away) -> None:
    run = away.runs / "tiny" / "fold0"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"text": "mine"}')
    away.run()
    assert away.made == "mine"


def test_the_ledger_is_one_file_of_sqlite(away: Away) -> None:
    away.run()
    with sqlite3.connect(away.records.path) as db:
        open_steps = db.execute("SELECT name FROM steps WHERE state != 'done'").fetchall()
    assert open_steps == []
