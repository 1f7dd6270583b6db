"""submit against the embedded Kaggle: one submission for one pack, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from kagflow import durable
from kagflow.errors import DataError, NetworkError, RefusedError, RemoteError
from kagflow.ship import assumptions, hours, notebook, plan, submit
from kagflow.ship.parts import read_part, seal, seal_pack
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


def make_pack(root: Path, weights: bytes = b"weights", *, code: bytes = b"code") -> Path:
    """Write the smallest folder that read_pack takes."""
    files = {
        "env": {"runtime.whl": code},
        "weights": {"a.safetensors": weights, "config.json": b'{"rerun": "hidden"}'},
    }
    manifests = {
        name: seal(
            name,
            {
                file: {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
                for file, body in inside.items()
            },
        )
        for name, inside in files.items()
    }
    whole = seal_pack({name: manifest["hash"] for name, manifest in manifests.items()})
    folder = root / str(whole["pack"])
    for name, inside in files.items():
        (folder / name).mkdir(parents=True)
        for file, body in inside.items():
            (folder / name / file).write_bytes(body)
        durable.write_json(folder / name / "manifest.json", manifests[name])
    durable.write_json(folder / "manifest.json", whole)
    return folder


def make_kernel(folder: Path, text: str, *, account: str, slug: str, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.py").write_text(text)
    metadata = {
        "id": f"{account}/{plan.kernel_slug('tiny')}",
        "title": plan.kernel_title("tiny"),
        "code_file": "kernel.py",
        "kernel_type": "script",
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
    assert [one["part"] for one in said["datasets"]] == ["env", "weights"]
    for one in said["datasets"]:
        inside = list((road.pack / one["part"]).iterdir())
        assert one["ref"] == f"{account}/kagflow-tiny-{one['part']}"
        assert (one["version"], one["there"]) == (1, False)
        assert one["bytes"] == sum(path.stat().st_size for path in inside)
        assert one["files"] == len(inside)
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
    assert (row.kernel_version, row.attempt) == (1, 1)
    account = road.remote.account()
    pinned = (f"{account}/kagflow-tiny-env/1", f"{account}/kagflow-tiny-weights/1")
    assert row.datasets == pinned
    assert row.ensemble == "tiny"
    assert row.runs == ("a/fold0",)
    assert row.real_minutes > 0
    assert row.gpu_hours > 0
    once = {"CreateDataset": 2, "SaveKernel": 1, "CreateCodeSubmission": 1}
    assert road.writes() == once

    again = road.submit()
    assert again.already
    assert again.row == row
    assert road.writes() == once
    assert all(one.there for one in road.plan().datasets)

    kinds = {(h.kind, h.ended is not None) for h in road.records.select(HoursRow)}
    assert kinds == {("kernel", True), ("submission", True)}
    week = hours.hours_this_week(road.records, profile="local")
    assert week.seconds / 3600 == pytest.approx(row.gpu_hours, rel=0.01)

    wanted = road.submit(again=True)
    assert (wanted.row.attempt, wanted.row.status) == (2, "scored")
    assert wanted.row.kernel_version == 2
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 2, "CreateCodeSubmission": 2}


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
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 1, "CreateCodeSubmission": 1}
    assert len(road.records.select(HoursRow)) == 2


def test_a_notebook_goes_the_same_way(road: Road, monkeypatch) -> None:
    names = {"account": road.remote.account(), "slug": road.slug}
    changes = {"code_file": "kernel.ipynb", "kernel_type": "notebook"}
    make_kernel(road.kernel, "raise SystemExit('the script')", **names, **changes)
    (road.kernel / "kernel.ipynb").write_text(notebook.wrap("kagflow tiny", QUICK))
    assert road.plan().to_dict()["kernel_type"] == "notebook"
    with monkeypatch.context() as patched:
        patched.setattr(Records, "done", forgets("kernel"))
        with pytest.raises(KeyboardInterrupt):
            road.submit()
    assert road.submit().row.status == "scored"
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 1, "CreateCodeSubmission": 1}


@pytest.mark.parametrize("form", ["script", "notebook"])
def test_a_push_ends_in_its_own_mark(road: Road, form: str) -> None:
    code = notebook.wrap("t", "print(1)") if form == "notebook" else "print(1)"
    road.kernel.joinpath("kernel.py").write_text(code)
    planned = replace(road.plan(), kernel_type=form)
    push = submit.kernel_push(planned, ("a/b/1",))
    assert push.kernel_type == form
    text = json.loads(push.text)["cells"][1]["source"] if form == "notebook" else push.text
    assert text.strip() == f"print(1)\n# {planned.token}"


def forgets(name: str):
    """Return a `Records.done` that dies at one step: a kill between an effect and its note."""
    done = Records.done

    def dies(self, step, result):
        if step.name == name:
            raise KeyboardInterrupt
        return done(self, step, result)

    return dies


def test_effects_whose_result_was_never_noted_are_found_again(road: Road, monkeypatch) -> None:
    for name in ("dataset kagflow-tiny-env", "dataset kagflow-tiny-weights", "kernel", "submit"):
        with monkeypatch.context() as patched:
            patched.setattr(Records, "done", forgets(name))
            with pytest.raises(KeyboardInterrupt):
                road.submit()
    assert road.submit().row.status == "scored"
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 1, "CreateCodeSubmission": 1}


def test_a_lost_history_adopts_what_is_on_kaggle(road: Road, tmp_path) -> None:
    first = road.submit().row
    road.records = Records(tmp_path / "other-machine")
    found = road.submit()
    assert (found.row.ref, found.row.public) == (first.ref, first.public)
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 1, "CreateCodeSubmission": 1}


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
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 2, "CreateCodeSubmission": 1}


def test_a_failed_scoring_is_never_resubmitted_unasked(rerun_road: Road) -> None:
    road = rerun_road
    script = road.kernel / "kernel.py"
    script.write_text(
        "import os\nif os.environ.get('KAGGLE_IS_COMPETITION_RERUN'):\n    raise SystemExit(3)\n"
        + QUICK
    )
    with pytest.raises(RemoteError, match="failed") as caught:
        road.submit()
    (row,) = road.records.select(SubmissionRow)
    assert row.status == "failed"
    assert row.ref is not None
    assert caught.value.hint == f"kagflow history {row.ref} --profile local"
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
    assert road.writes() == {"CreateDataset": 2, "SaveKernel": 1, "CreateCodeSubmission": 1}


def test_one_submit_at_a_time(road: Road, monkeypatch) -> None:
    from filelock import FileLock

    planned = road.plan()
    held = FileLock(road.records.path.parent / f"submit-local-{planned.pack}.lock")
    monkeypatch.setattr(submit, "WAIT", 0.05)
    with held, pytest.raises(RefusedError, match="another kagflow is submitting"):
        execute(planned, road.remote, road.records)
    assert road.writes() == {}


@pytest.mark.parametrize(
    ("change", "versions"), [("weights", (1, 2)), ("code", (2, 1)), ("both", (2, 2))]
)
def test_only_the_half_that_changed_goes_up_again(road: Road, tmp_path, change, versions) -> None:
    road.submit()
    weights = b"weights" if change == "code" else b"other weights"
    road.pack = make_pack(
        tmp_path / "packs", weights, code=b"c" if change != "weights" else b"code"
    )
    planned = {one.part: one.there for one in road.plan().datasets}
    assert planned == {"env": versions[0] == 1, "weights": versions[1] == 1}
    sent = road.sent.count("StartBlobUpload")
    row = road.submit().row
    assert [int(name.rpartition("/")[2]) for name in row.datasets] == list(versions)
    assert row.kernel_version == 2
    again = [one for one in ("env", "weights") if not planned[one]]
    files = sum(len(list((road.pack / part).iterdir())) for part in again)
    assert road.sent.count("StartBlobUpload") - sent == files


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
    (road.pack / "weights" / "a.safetensors").write_bytes(b"flipped")
    with pytest.raises(DataError, match="not the file that was packed"):
        road.plan()


def believe(road: Road, name: str, value: object, key: str = "") -> None:
    answer = assumptions.Answer(name, "verified", value, "told by a test", key=key)
    assumptions.note(road.remote.state, [answer])


def test_a_half_that_is_not_the_newest_goes_up_again_until_pins_were_seen_to_hold(road) -> None:
    first, ref = road.pack, f"{road.remote.account()}/kagflow-tiny-weights"

    def weights():
        return next(one for one in road.plan().datasets if one.part == "weights")

    send = road.remote.dataset_create_or_version
    send(weights().push)
    road.pack = make_pack(road.folder / "packs", b"others")
    send(weights().push)
    road.pack = first
    careful = weights()
    assert (careful.there, careful.version) == (False, 3)
    assert send(careful.push) == 3
    assert weights().there
    road.pack = make_pack(road.folder / "packs2", b"others")
    believe(road, "version_pin_honoured", True)
    trusting = weights()
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


def with_hours_left(road: Road, monkeypatch, left_s: float) -> None:
    view = road.remote.quota()
    gpu = replace(view.gpu, used=view.gpu.total - left_s, reserved=0.0)
    monkeypatch.setattr(road.remote, "quota", lambda: replace(view, gpu=gpu))


def test_nothing_is_pushed_beyond_the_hours_left_unless_asked(road, monkeypatch) -> None:
    """Half a minute is projected, and again for a rerun that may be billed: 72 s with a fifth."""
    with_hours_left(road, monkeypatch, 71.0)
    measured = plan.Measured(cpu_minutes=0.9, cpu_command="kagflow submit --cpu")
    with pytest.raises(RemoteError, match="does not fit") as caught:
        road.submit(measured=measured)
    assert caught.value.exit_code == 4
    assert "kagflow submit --cpu takes 0 accelerator hours" in caught.value.hint
    assert "--over-quota" in caught.value.hint
    assert "SaveKernel" not in road.writes()
    told = road.plan().to_dict()["hours"]
    assert (told["fits"], told["fitting"], told["cpu"]) == (False, [], None)
    with_hours_left(road, monkeypatch, 73.0)
    assert road.plan().judgement.fits
    with_hours_left(road, monkeypatch, 0.0)
    done = road.submit(over_quota=True)
    assert done.row.status == "scored"
    assert not replace(road.plan(), previous=done.row).pushes


def test_a_kernel_without_accelerator_needs_no_hours(road, monkeypatch) -> None:
    names = {"account": road.remote.account(), "slug": road.slug}
    make_kernel(road.kernel, QUICK, **names, machine_shape="None")
    with_hours_left(road, monkeypatch, 0.0)
    done = road.submit()
    assert (done.row.status, done.row.gpu_hours, done.row.accelerator) == ("scored", 0.0, "None")
    assert road.plan().judgement.left is None


def test_what_was_not_projected_takes_all_its_time(road, monkeypatch) -> None:
    with_hours_left(road, monkeypatch, 143.0)
    (cost,) = road.plan(facts={}).judgement.actions
    assert (cost.least, cost.most) == (60.0, 120.0)
    assert not road.plan(facts={}).judgement.fits
    believe(road, "rerun_billed", False)
    assert road.plan(facts={}).judgement.fits


def test_an_unknown_rerun_is_what_was_seen(road) -> None:
    weights = road.pack / "weights"
    (weights / "config.json").write_text("{}")
    facts = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    manifest = json.loads((weights / "manifest.json").read_text())
    manifest = seal("weights", manifest["files"] | {"config.json": facts})
    durable.write_json(weights / "manifest.json", manifest)
    env = read_part(road.pack / "env", "env")
    whole = seal_pack({"env": env.hash, "weights": manifest["hash"]})
    durable.write_json(road.pack / "manifest.json", whole)
    assert road.plan().rerun == "unknown"
    believe(road, "rerun", "none", road.slug)
    assert road.plan().rerun == "none"
