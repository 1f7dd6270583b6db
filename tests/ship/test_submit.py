"""submit against the embedded Kaggle: one submission for one pack, whatever happens on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kagflow import durable
from kagflow.errors import DataError, NetworkError, RefusedError, RemoteError
from kagflow.ship import assumptions, hours, plan, submit
from kagflow.ship.pack import pack_hash
from kagflow.ship.records import HoursRow, Records, SubmissionRow, now
from kagflow.ship.submit import SubmitRequest, execute, make_plan

# Submits nothing found, without waiting for numpy.
QUICK = """
import shutil
from pathlib import Path
root = next(Path("/kaggle/input").rglob("sample_submission.csv")).parent
shutil.copyfile(root / "sample_submission.csv", "/kaggle/working/submission.csv")
print("done")
"""
FACTS = {"ensemble": "tiny", "runs": ("a/fold0",), "cv_naive": 0.91, "projected_p50": 0.5}


def make_pack(root: Path, weights: bytes = b"weights") -> Path:
    """Write the smallest folder that read_pack takes."""
    files = {"a.safetensors": weights, "config.json": b'{"rerun": "hidden"}'}
    manifest = {
        "schema": 1,
        "files": {
            name: {"sha256": durable.hashlib.sha256(body).hexdigest(), "bytes": len(body)}
            for name, body in files.items()
        },
    }
    manifest["pack"] = pack_hash(manifest)
    folder = root / str(manifest["pack"])
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    durable.write_json(folder / "manifest.json", manifest)
    return folder


def make_kernel(folder: Path, text: str, *, account: str, slug: str, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.py").write_text(text)
    metadata = {
        "id": f"{account}/{plan.kernel_slug('tiny')}",
        "title": plan.kernel_title("tiny"),
        "code_file": "kernel.py",
        "machine_shape": "NvidiaTeslaT4",
        "enable_internet": False,
        "is_private": True,
        "competition_sources": [slug],
    }
    durable.write_json(folder / "kernel-metadata.json", {**metadata, **changes})
    return folder


class Road:
    """One user's pack, kernel and records, and how often each write went out."""

    def __init__(self, make_remote, folder: Path, text: str, slug: str) -> None:
        self.remote, self.folder, self.text, self.slug = make_remote(), folder, text, slug
        self.records = Records(folder / "records")
        self.pack = make_pack(folder / "packs")
        self.kernel = make_kernel(folder / "kernel", text, account=self.remote.account(), slug=slug)
        self.sent: list[str] = []
        call = self.remote.transport.call

        def counted(service, method, request, response_type):
            self.sent.append(method)
            return call(service, method, request, response_type)

        self.remote.transport.call = counted

    def writes(self) -> dict[str, int]:
        names = ("CreateDataset", "CreateDatasetVersion", "SaveKernel", "CreateCodeSubmission")
        return {name: self.sent.count(name) for name in names if name in self.sent}

    def request(self, **changes) -> SubmitRequest:
        return SubmitRequest(
            "tiny", self.slug, self.pack, self.kernel, 60, **{"facts": FACTS, **changes}
        )

    def plan(self, **changes):
        return make_plan(self.request(**changes), self.remote, self.records)

    def submit(self, **changes):
        return execute(self.plan(**changes), self.remote, self.records)


@pytest.fixture
def road(local, tmp_path) -> Road:
    return Road(local, tmp_path, QUICK, "tiny-saved")


@pytest.fixture
def rerun_road(local, tiny, tmp_path) -> Road:
    """The same where the kernel runs again on the hidden test, with a kernel that scores 1.0."""
    return Road(local, tmp_path, tiny.kernel(), "tiny-squares")


def test_the_plan_says_all_and_changes_nothing(road: Road) -> None:
    planned = road.plan()
    said = json.loads(json.dumps(planned.to_dict()))
    account = road.remote.account()
    assert said["account"] == account
    (dataset,) = said["datasets"]
    assert dataset["ref"] == f"{account}/kagflow-tiny-pack"
    assert (dataset["version"], dataset["there"]) == (1, False)
    assert dataset["bytes"] == sum(path.stat().st_size for path in road.pack.iterdir())
    assert said["kernel"] == f"{account}/kagflow-tiny"
    assert (said["internet"], said["private"]) == (False, True)
    assert (said["accelerator"], said["timeout_s"]) == ("NvidiaTeslaT4", 60)
    assert said["pack"] in said["message"]
    assert "cv 0.91" in said["message"]
    assert said["submissions_left"] == 5
    assert 0 < said["quota_left_hours"] <= 30
    assert said["previous"] is None
    assert road.writes() == {}
    assert road.records.select(SubmissionRow) == []


def test_one_pack_is_submitted_once_and_scored(rerun_road: Road) -> None:
    road = rerun_road
    done = road.submit()
    row = done.row
    assert not done.already
    assert (row.status, row.public, row.private) == ("scored", 1.0, 1.0)
    assert (row.kernel_version, row.dataset_version, row.attempt) == (1, 1, 1)
    assert row.ensemble == "tiny"
    assert row.runs == ("a/fold0",)
    assert row.real_minutes > 0
    assert row.gpu_hours > 0
    once = {"CreateDataset": 1, "SaveKernel": 1, "CreateCodeSubmission": 1}
    assert road.writes() == once

    again = road.submit()
    assert again.already
    assert again.row == row
    assert road.writes() == once
    assert road.plan().dataset.there

    kinds = {(h.kind, h.ended is not None) for h in road.records.select(HoursRow)}
    assert kinds == {("kernel", True), ("submission", True)}
    week = hours.hours_this_week(road.records, profile="local")
    assert week.seconds / 3600 == pytest.approx(row.gpu_hours, rel=0.01)

    wanted = road.submit(again=True)
    assert (wanted.row.attempt, wanted.row.status) == (2, "scored")
    assert wanted.row.kernel_version == 2
    assert road.writes() == {"CreateDataset": 1, "SaveKernel": 2, "CreateCodeSubmission": 2}


def test_an_interrupt_at_any_wait_is_continued(road: Road, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("follow_kernel", "poll"):
        with monkeypatch.context() as patched:
            patched.setattr(submit, name, stop)
            with pytest.raises(KeyboardInterrupt):
                road.submit()
    (row,) = road.records.select(SubmissionRow)
    assert row.status == "submitted"
    assert road.submit().row.status == "scored"
    assert road.writes() == {"CreateDataset": 1, "SaveKernel": 1, "CreateCodeSubmission": 1}
    assert len(road.records.select(HoursRow)) == 2


def test_effects_whose_result_was_never_noted_are_found_again(road: Road, monkeypatch) -> None:
    """A kill between an effect and its note, at each step: the note is what fails here."""
    done = Records.done

    for name in ("dataset", "kernel", "submit"):

        def dies(self, step, result, name=name):
            if step.name == name:
                raise KeyboardInterrupt
            return done(self, step, result)

        with monkeypatch.context() as patched:
            patched.setattr(Records, "done", dies)
            with pytest.raises(KeyboardInterrupt):
                road.submit()
    assert road.submit().row.status == "scored"
    assert road.writes() == {"CreateDataset": 1, "SaveKernel": 1, "CreateCodeSubmission": 1}


def test_a_lost_history_adopts_what_is_on_kaggle(road: Road, tmp_path) -> None:
    first = road.submit().row
    road.records = Records(tmp_path / "other-machine")
    found = road.submit()
    assert (found.row.ref, found.row.public) == (first.ref, first.public)
    assert road.writes() == {"CreateDataset": 1, "SaveKernel": 1, "CreateCodeSubmission": 1}


def test_a_failing_kernel_shows_its_end_and_a_mended_one_goes_on(road: Road, tmp_path) -> None:
    script = road.kernel / "kernel.py"
    script.write_text("print('about to fall')\nraise SystemExit('no such weights')\n")
    with pytest.raises(RemoteError, match="no such weights") as caught:
        road.submit()
    assert "about to fall" in caught.value.message
    (row,) = road.records.select(SubmissionRow)
    assert (row.status, row.ref) == ("failed", None)
    assert "no such weights" in "\n".join(row.detail["log"])
    assert all(h.ended for h in road.records.select(HoursRow))

    script.write_text(road.text)
    mended = road.submit().row
    assert (mended.attempt, mended.status) == (2, "scored")
    assert road.writes() == {"CreateDataset": 1, "SaveKernel": 2, "CreateCodeSubmission": 1}


def test_a_failed_scoring_is_never_resubmitted_unasked(rerun_road: Road) -> None:
    road = rerun_road
    script = road.kernel / "kernel.py"
    script.write_text(
        "import os\nif os.environ.get('KAGGLE_IS_COMPETITION_RERUN'):\n    raise SystemExit(3)\n"
        + QUICK
    )
    with pytest.raises(RemoteError, match="failed"):
        road.submit()
    (row,) = road.records.select(SubmissionRow)
    assert row.status == "failed"
    assert row.ref is not None
    with pytest.raises(RefusedError, match="submitted before and failed"):
        road.submit()
    assert road.writes()["CreateCodeSubmission"] == 1


def test_refusals_of_the_moment_leave_the_attempt_open(road: Road, monkeypatch) -> None:
    def busy(_: object) -> None:
        raise RemoteError("Maximum batch GPU session count of 2 reached.")

    with monkeypatch.context() as patched:
        patched.setattr(road.remote, "push_kernel", busy)
        with pytest.raises(RemoteError, match="session count"):
            road.submit()
    limits = road.remote.limits(road.slug)
    with monkeypatch.context() as patched:
        patched.setattr(road.remote, "limits", lambda _: replace(limits, left=0))
        with pytest.raises(RemoteError, match="submissions of today"):
            road.submit()
    assert road.submit().row.attempt == 1
    assert road.writes() == {"CreateDataset": 1, "SaveKernel": 1, "CreateCodeSubmission": 1}


def test_one_submit_at_a_time(road: Road, monkeypatch) -> None:
    from filelock import FileLock

    planned = road.plan()
    held = FileLock(road.records.path.parent / f"submit-local-{planned.pack}.lock")
    monkeypatch.setattr(submit, "WAIT", 0.05)
    with held, pytest.raises(RefusedError, match="another kagflow is submitting"):
        execute(planned, road.remote, road.records)
    assert road.writes() == {}


def test_a_new_pack_is_a_new_version_of_the_same_dataset(road: Road, tmp_path) -> None:
    road.submit()
    road.pack = make_pack(tmp_path / "packs", b"other weights")
    row = road.submit().row
    assert (row.dataset_version, row.kernel_version) == (2, 2)


def test_a_waiting_time_has_an_end(road: Road, monkeypatch) -> None:
    with pytest.raises(NetworkError, match="has not ended"):
        submit.poll(road.remote, lambda: 1, lambda _: False, limit_s=-1, what="kernel")


def test_a_damaged_pack_and_a_talking_kernel_are_refused(road: Road) -> None:
    names = {"account": "ann", "slug": road.slug}
    make_kernel(road.kernel, QUICK, **names, enable_internet=True)
    with pytest.raises(RefusedError, match="no internet"):
        road.plan()
    make_kernel(road.kernel, QUICK, **names, competition_sources=["other"])
    with pytest.raises(DataError, match="is a kernel of"):
        road.plan()
    (road.pack / "a.safetensors").write_bytes(b"flipped")
    with pytest.raises(DataError, match="not the file that was packed"):
        road.plan()


def believe(road: Road, name: str, value: object, key: str = "") -> None:
    answer = assumptions.Answer(name, "verified", value, "told by a test", key=key)
    assumptions.note(road.remote.state, [answer])


def test_a_pack_that_is_not_the_newest_goes_up_again_until_pins_were_seen_to_hold(road) -> None:
    first, ref = road.pack, f"{road.remote.account()}/kagflow-tiny-pack"
    send = road.remote.dataset_create_or_version
    send(road.plan().dataset.push)
    road.pack = make_pack(road.folder / "packs", b"others")
    send(road.plan().dataset.push)
    road.pack = first
    careful = road.plan().dataset
    assert (careful.there, careful.version) == (False, 3)
    assert send(careful.push) == 3
    assert road.plan().dataset.there
    road.pack = make_pack(road.folder / "packs2", b"others")
    believe(road, "version_pin_honoured", True)
    trusting = road.plan().dataset
    assert (trusting.there, trusting.version) == (True, 2)
    assert road.remote.dataset(ref).current == 3


def test_a_plan_says_what_is_not_known_of_kaggle(road) -> None:
    careful = road.plan()
    assert (careful.most_s, careful.machine) == (12 * 3600, None)
    believe(road, "timeout_honoured", True)
    believe(road, "machine", "Tesla T4 x2", "NvidiaTeslaT4")
    seen = road.plan().to_dict()
    assert (seen["most_hours"], seen["machine"]) == (round(60 / 3600, 2), "Tesla T4 x2")


def test_a_late_run_is_taken_off_the_quota(road) -> None:
    before = road.plan().quota_left_s
    row = HoursRow("local", road.remote.account(), "kernel", "tiny", "k/v1", "kaggle",
                   "NvidiaTeslaT4", now(), ended=now(), seconds=7200.0)  # fmt: skip
    road.records.add(row)
    assert before - road.plan().quota_left_s == pytest.approx(7200.0)
    believe(road, "quota_lag_s", 0.0)
    assert before - road.plan().quota_left_s == pytest.approx(0.0)


def test_an_unknown_rerun_is_what_was_seen(road) -> None:
    config = road.pack / "config.json"
    config.write_text("{}")
    manifest = json.loads((road.pack / "manifest.json").read_text())
    body = config.read_bytes()
    manifest["files"]["config.json"] = {
        "sha256": durable.hashlib.sha256(body).hexdigest(), "bytes": len(body)
    }  # fmt: skip
    manifest["pack"] = pack_hash(manifest)
    durable.write_json(road.pack / "manifest.json", manifest)
    road.pack = road.pack.rename(road.pack.with_name(manifest["pack"]))
    assert road.plan().rerun == "unknown"
    believe(road, "rerun", "none", road.slug)
    assert road.plan().rerun == "none"
