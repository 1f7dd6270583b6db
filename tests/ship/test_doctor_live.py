"""doctor --live against the embedded Kaggle: as assumed, contradicted, refused, killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kagflow.errors import DataError, NetworkError
from kagflow.rehearse import sandbox, server, settings
from kagflow.rehearse.store import Store
from kagflow.ship import assumptions, doctor_live, doctor_probe, doctor_steps
from kagflow.ship.doctor_live import Live, Notes, Pace, climb
from kagflow.ship.doctor_probe import facts
from kagflow.ship.doctor_steps import STEPS
from kagflow.ship.records import HoursRow, Records
from kagflow.ship.remote import Remote
from kagflow.ship.remote_types import KernelStatus, LogLine


class Kaggle:
    """An embedded Kaggle whose settings a test may change, and climbs on it."""

    def __init__(self, store: Path, task, folder: Path) -> None:
        self.store, self.task, self.folder = store, task, folder

    def set(self, **values: object) -> None:
        settings.change(self.store, **values)

    def remote(self, **more) -> Remote:
        url = server.ensure(self.store).url.replace("http://", f"http://{self.folder.name}:local@")
        return Remote("local", url=url, state=self.folder / "client", **more)

    def live(self, remote: Remote | None = None) -> Live:
        remote = remote or self.remote()
        notes = Notes(remote.state, remote.account())
        return Live(remote, notes, self.records, self.task, "NvidiaTeslaT4")

    @property
    def records(self) -> Records:
        return Records(self.folder / "records")

    def hours(self) -> list[tuple[str, str, str, bool]]:
        """Return what the ledger knows: kind, subject, accelerator, whether it is closed."""
        rows = self.records.select(HoursRow, account=self.folder.name, place="kaggle")
        return [(one.kind, one.subject, one.accelerator, one.ended is not None) for one in rows]

    def version(self, number: int) -> str:
        return f"{self.folder.name}/kagflow-probe/v{number}"

    def climb(self, *numbers: int, live: Live | None = None) -> dict[int, doctor_live.Climbed]:
        steps = tuple(step for step in STEPS if step.number in numbers)
        ended = climb(live or self.live(), steps, agreed=lambda _: True)
        return {one.step.number: one for one in ended}

    def answer(self, name: str, key: str = "") -> assumptions.Answer | None:
        known = assumptions.read(self.folder / "client")
        return known.get(f"{name}@{key}" if key else name)


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory) -> Iterator[Path]:
    store = tmp_path_factory.mktemp("kaggle") / "store"
    Store(store).add_competition(tiny.make_facts(), tiny.make_folder(tmp_path_factory.mktemp("t")))
    server.ensure(store)
    yield store
    server.stop(store)


@pytest.fixture
def kaggle(store: Path, tiny, tmp_path: Path) -> Iterator[Kaggle]:
    (store / settings.FILE).unlink(missing_ok=True)
    # An account of the test's own: datasets and kernels of another test are not there.
    yield Kaggle(store, tiny.make_facts().task, tmp_path)
    (store / settings.FILE).unlink(missing_ok=True)


@pytest.fixture
def boxed() -> None:
    if not sandbox.probe_layers():
        pytest.skip("no sandbox works on this machine")


def test_the_free_steps_answer_what_they_can(kaggle: Kaggle) -> None:
    ended = kaggle.climb(1, 2)
    assert [one.ending for one in ended.values()] == ["done", "done"]
    assert "rules accepted, 5 submissions left" in ended[1].text
    assert kaggle.answer("error_shape").state == "verified"
    assert kaggle.answer("quota_week").value == 5
    ready = kaggle.answer("dataset_ready_s")
    assert ready.state == "verified"
    assert 0 < ready.value < 2
    assert ready.account == kaggle.folder.name
    assert assumptions.value(kaggle.folder / "client", "dataset_ready_s") == ready.value
    assert assumptions.value(kaggle.folder / "client", "timeout_honoured") is False


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ({"error_shape": "flat"}, "error_shape", "flat"),
        ({"error_shape": "html"}, "error_shape", "html"),
        ({"quota_weekday": 2}, "quota_week", 2),
    ],
)
def test_reads_see_what_is_otherwise(kaggle: Kaggle, setting, name, value) -> None:
    kaggle.set(**setting)
    assert kaggle.climb(1)[1].ending == "done"
    found = kaggle.answer(name)
    assert (found.state, found.value) == ("contradicted", value)
    assert assumptions.value(kaggle.folder / "client", name) == value


def test_rules_that_are_not_accepted_are_told(kaggle: Kaggle) -> None:
    kaggle.set(rules_accepted=False)
    assert "rules NOT accepted" in kaggle.climb(1)[1].text


def test_a_slow_dataset_is_measured(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor_live.PACES, "local", Pace(0.5, 2, 5.0, 3.0, 4.0))
    kaggle.set(dataset_ready_s=0.8)
    kaggle.climb(2)
    found = kaggle.answer("dataset_ready_s")
    assert found.state == "contradicted"
    assert found.value > 0.7


def test_what_is_done_is_not_done_again_unless_named(kaggle: Kaggle) -> None:
    kaggle.climb(2)
    live = kaggle.live()
    ref = f"{live.remote.account()}/kagflow-probe"
    assert kaggle.climb(2)[2].ending == "earlier"
    assert live.remote.dataset(ref).current == 2
    (again,) = climb(live, STEPS, only=2, agreed=lambda _: True)
    assert again.ending == "done"
    assert live.remote.dataset(ref).current == 4


def test_a_killed_climb_goes_on_with_what_it_began(kaggle: Kaggle) -> None:
    kaggle.set(dataset_ready_s=0.4)

    def kill(_: float) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            kaggle.climb(2, live=kaggle.live(kaggle.remote(sleep=kill)))
    assert kaggle.climb(2)[2].ending == "done"
    ref = f"{kaggle.folder.name}/kagflow-probe"
    assert kaggle.remote().dataset(ref).current == 2


def test_another_account_begins_anew_and_keeps_no_note(kaggle: Kaggle) -> None:
    state = kaggle.folder / "client"
    notes = Notes(state, "one")
    mark = notes.begin(2)
    assert Notes(state, "one").begin(2) == mark
    assert Notes(state, "two").of(2) == {}
    (state / doctor_live.FILE).write_text("{")
    assert Notes(state, "one").of(2) == {}


def test_what_took_long_goes_on_and_what_was_refused_is_tried_anew(kaggle: Kaggle) -> None:
    live, tries = kaggle.live(), []

    def late(live: Live) -> str:
        tries.append(live.notes.of(9)["nonce"])
        raise NetworkError("late")

    def refused(live: Live) -> str:
        tries.append(live.notes.of(9)["nonce"])
        raise DataError("refused", hint="mend it")

    for run in (late, refused, refused):
        step = doctor_live.Step(9, "a step", "free", run)
        (ended,) = climb(live, (step,), agreed=lambda _: True)
        assert ended.ending == "failed"
    assert (ended.text, ended.hint, ended.code) == ("refused", "mend it", 6)
    assert tries[0] == tries[1] != tries[2]


def test_nothing_runs_without_a_word(kaggle: Kaggle) -> None:
    ended = list(climb(kaggle.live(), STEPS, agreed=lambda step: step.number == 1))
    assert [(one.step.number, one.ending) for one in ended] == [(1, "done"), (2, "declined")]
    (left,) = climb(kaggle.live(), STEPS[4:], agreed=lambda _: None)
    assert left.ending == "left out"
    assert "--step 5" in left.hint


def test_a_cpu_kernel_tells_mounts_image_and_network(kaggle: Kaggle, boxed) -> None:
    ended = kaggle.climb(2, 3)
    assert ended[3].ending == "done", ended[3].text
    for name in ("mount_layout", "version_pin_honoured", "archives_unpacked", "wheels_whole"):
        assert kaggle.answer(name).state == "verified", name
    assert kaggle.answer("internet_off").state == "verified"
    image = kaggle.answer("image")
    assert image.value["python"]
    assert set(image.value["distributions"]) >= {"numpy", "torch"}
    # What is not on the list stays untold, and what is told is no secret.
    log = "".join(line.text for line in kaggle.remote().kernel_log(
        f"{kaggle.folder.name}/kagflow-probe", 1))  # fmt: skip
    assert "PATH" not in log
    assert "kagflow-probe" in log


def test_a_kernel_is_lied_to(kaggle: Kaggle, boxed) -> None:
    kaggle.set(
        mount_layout="flat",
        version_pin_honoured=False,
        archives_unpacked=False,
        wheels_whole=True,
        internet_really_off=False,
    )
    kaggle.climb(2, 3)
    for name, value in (
        ("mount_layout", "flat"),
        ("version_pin_honoured", False),
        ("archives_unpacked", False),
        ("internet_off", False),
    ):
        found = kaggle.answer(name)
        assert (found.state, found.value) == ("contradicted", value), name


@pytest.mark.slow
def test_an_unpacked_wheel_is_told(kaggle: Kaggle, boxed) -> None:
    kaggle.set(wheels_whole=False)
    kaggle.climb(2, 3)
    assert kaggle.answer("wheels_whole").state == "contradicted"
    assert kaggle.answer("archives_unpacked").state == "verified"


def test_a_gpu_kernel_tells_limit_cost_and_whose_status(kaggle: Kaggle, boxed) -> None:
    kaggle.set(accelerator_substituted="Tesla T4", quota_lag_s=0.7)
    ended = kaggle.climb(2, 3, 4)
    assert ended[4].ending == "done", ended[4].text
    account = kaggle.folder.name
    for name in ("timeout_honoured", "timeout_status", "status_version_honoured", "quota_lag_s"):
        assert kaggle.answer(name).state == "verified", name
    assert kaggle.answer("phone_verified", account).state == "verified"
    assert kaggle.answer("machine", "NvidiaTeslaT4").value == "Tesla T4 x1"
    # What is left of the lag when the end was noticed: how much depends on the machine.
    assert 0 <= kaggle.answer("quota_lag_s").value < 60


def test_a_gpu_probe_is_in_the_ledger_up_to_its_time_limit(
    kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log ends early, the run with its limit of two seconds; a second look adds nothing."""
    live = kaggle.live()
    live.notes.begin(4)
    push = doctor_probe.probe_push(
        live, 4, "gpu", {"seconds": 0, "reference": "", "reference_s": 0},
        shape="NvidiaTeslaT4", timeout_s=2,
    )  # fmt: skip
    started = (datetime.now(UTC) - timedelta(seconds=50)).isoformat()
    live.notes.put(4, ref="k", version=3, url="", since=started)
    cancelled = KernelStatus("CANCEL_ACKNOWLEDGED", "")
    monkeypatch.setattr(doctor_probe, "follow_kernel", lambda *_, **__: cancelled)
    monkeypatch.setattr(live.remote, "kernel_log", lambda *_: (LogLine(0.5, "stdout", "on\n"),))
    for _ in range(2):
        doctor_probe.follow(live, 4, push)
    (row,) = kaggle.records.select(HoursRow)
    assert (row.subject, row.seconds, row.accelerator) == ("k/v3", 2.0, "NvidiaTeslaT4")


def test_a_refused_gpu_names_the_phone_and_is_tried_anew(kaggle: Kaggle) -> None:
    kaggle.set(phone_verified=False)
    ended = kaggle.climb(4)[4]
    assert (ended.ending, ended.code) == ("failed", 4)
    assert "phone" in ended.hint
    assert kaggle.answer("phone_verified", kaggle.folder.name).state == "contradicted"
    kaggle.set(gpu_slots=0, phone_verified=True)
    ended = kaggle.climb(4)[4]
    assert "session count" in ended.text
    assert "is the phone verified?" in ended.hint
    assert kaggle.live().notes.of(4)["failed"]


@pytest.mark.slow
def test_a_gpu_kernel_is_lied_to(kaggle: Kaggle, boxed) -> None:
    kaggle.set(
        accelerator_substituted="Tesla P100-PCIE-16GB",
        session_timeout_honoured=False,
        quota_lag_s=60.0,
        status_version_honoured=False,
    )
    kaggle.climb(2, 3, 4)
    for name in ("timeout_honoured", "quota_lag_s", "status_version_honoured"):
        assert kaggle.answer(name).state == "contradicted", name
    assert kaggle.answer("machine", "NvidiaTeslaT4").value == "Tesla P100-PCIE-16GB x1"
    assert assumptions.value(kaggle.folder / "client", "quota_lag_s") >= 3600


@pytest.mark.slow
def test_a_limit_that_ends_as_an_error_is_told(kaggle: Kaggle, boxed) -> None:
    kaggle.set(timeout_status="ERROR")
    kaggle.climb(4)
    assert kaggle.hours() == [("kernel", kaggle.version(1), "NvidiaTeslaT4", True)]
    assert kaggle.answer("timeout_honoured").value is True
    assert kaggle.answer("timeout_status").state == "contradicted"
    assert kaggle.answer("machine") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "rerun", "billed"),
    [
        ({}, "hidden", False),
        ({"rerun_billed": True}, "hidden", True),
        ({"rerun": "none"}, "none", None),
    ],
)
def test_a_submission_tells_of_reruns(kaggle: Kaggle, boxed, setting, rerun, billed) -> None:
    kaggle.set(**setting)
    ended = kaggle.climb(5)[5]
    assert ended.ending == "done", ended.text
    slug = kaggle.task.slug
    assert kaggle.answer("rerun", slug).value == rerun
    found = kaggle.answer("rerun_billed")
    assert (found.value if found else None) == billed
    assert len(kaggle.remote().submissions(slug)) == 1
    kaggle.climb(5)
    (sent,) = kaggle.remote().submissions(slug)
    assert kaggle.hours() == [
        ("kernel", kaggle.version(1), "NvidiaTeslaT4", True),
        ("submission", str(sent.ref), "" if rerun == "none" else "NvidiaTeslaT4", True),
    ]


def test_a_submission_needs_a_competition(kaggle: Kaggle) -> None:
    kaggle.task = None
    ended = kaggle.climb(5)[5]
    assert (ended.ending, ended.code) == ("failed", 4)
    assert "COMPETITION" in ended.hint


def test_a_log_is_read_whatever_its_pieces() -> None:
    def line(key: str, value: object) -> str:
        return f"kagflow-probe {json.dumps([key, value])}\n"

    text = (
        "noise\n" + line("a", {"x": 1}) + line("a", {"y": 2}) + "kagflow-probe [\n" + line("b", 3)
    )
    log = [LogLine(0.0, "stdout", text[at : at + 7]) for at in range(0, len(text), 7)]
    assert facts(log) == {"a": {"x": 1, "y": 2}, "b": 3}


def test_every_assumption_has_a_careful_value_and_a_step_that_exists() -> None:
    numbers = {step.number for step in STEPS} | {None}
    for name, one in assumptions.table().items():
        assert one.believed, name
        assert one.until, name
        assert one.step in numbers, name
    source = Path(doctor_steps.__file__).parent
    code = "".join(file.read_text() for file in source.glob("doctor_*.py"))
    told = {name for name, one in assumptions.table().items() if one.step is not None}
    assert all(f'"{name}"' in code for name in told)


def test_answers_outlive_nothing_but_their_own_file(tmp_path: Path) -> None:
    one = assumptions.Answer("quota_lag_s", "verified", 12.0, "seen")
    other = assumptions.Answer("rerun", "verified", "none", "seen", key="a")
    blank = assumptions.Answer("machine", "unknown", None, "not seen")
    assumptions.note(tmp_path, [one, other, blank])
    assert assumptions.value(tmp_path, "quota_lag_s") == 12.0
    assert assumptions.value(tmp_path, "rerun", "a") == "none"
    assert assumptions.value(tmp_path, "rerun", "b") == "unknown"
    assert set(assumptions.read(tmp_path)) == {"quota_lag_s", "rerun@a"}
    (tmp_path / assumptions.FILE).write_text("[]")
    with pytest.raises(DataError, match="answers"):
        assumptions.value(tmp_path, "rerun", "a")


def test_a_push_whose_note_was_lost_is_found_and_not_repeated(
    kaggle: Kaggle, boxed, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Notes.put

    def killed(self: Notes, step: int, **values: object) -> object:
        if "version" in values:
            raise KeyboardInterrupt
        return put(self, step, **values)

    monkeypatch.setattr(Notes, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        kaggle.climb(3)
    monkeypatch.setattr(Notes, "put", put)
    ended = kaggle.climb(3)[3]
    assert ended.ending == "done", ended.text
    # Step 2 was not taken: what it would have shown stays unknown.
    assert kaggle.answer("mount_layout") is None
    assert kaggle.answer("internet_off").state == "verified"
    assert kaggle.remote().kernel_version(f"{kaggle.folder.name}/kagflow-probe")[0] == 1
    assert kaggle.hours() == [("kernel", kaggle.version(1), "None", True)]


@pytest.mark.slow
def test_a_submission_whose_note_was_lost_is_found_and_not_repeated(
    kaggle: Kaggle, boxed, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Notes.put

    def killed(self: Notes, step: int, **values: object) -> object:
        if "submission" in values:
            raise KeyboardInterrupt
        return put(self, step, **values)

    kaggle.set(rerun="none")
    monkeypatch.setattr(Notes, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        kaggle.climb(5)
    monkeypatch.setattr(Notes, "put", put)
    assert kaggle.climb(5)[5].ending == "done"
    assert len(kaggle.remote().submissions(kaggle.task.slug)) == 1
    assert kaggle.remote().kernel_version(f"{kaggle.folder.name}/kagflow-probe")[0] == 1
