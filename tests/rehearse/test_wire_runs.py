"""What becomes of a run and its submission, by a stand-in for the sandbox that ends as told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from kagglesdk.competitions.types import competition_api_service as competitions
from kagglesdk.kernels.types import kernels_api_service as kernels
from kagglesdk.kernels.types.kernels_enums import KernelExecutionType

from kagflow.errors import LocalError
from kagflow.rehearse import plan, wire_account, wire_kernels, wire_submissions
from kagflow.rehearse.blobs import Links
from kagflow.rehearse.quota import week_start
from kagflow.rehearse.runner import Runner, source_of
from kagflow.rehearse.sandbox import SandboxResult
from kagflow.rehearse.store import Store
from kagflow.rehearse.wire import Call, WireError, encode


class Stage:
    """A sandbox that copies a submission and ends as told; it remembers what it was asked."""

    def __init__(self, solution):
        self.rows = solution
        self.specs = []
        self.rerun = {}
        self.save = {}

    def __call__(self, spec, *, log_file):
        self.specs.append(spec)
        plan = self.rerun if spec.rerun else self.save
        if plan.get("raises"):
            raise plan["raises"]
        if plan.get("writes", True):
            text = (
                plan.get("text") or (spec.competition_input / "sample_submission.csv").read_text()
            )
            (spec.working / "submission.csv").write_text(text)
        log_file.write_text(json.dumps([{"stream_name": "stdout", "time": 0.1, "data": "x\n"}]))
        return SandboxResult(
            layer="bwrap",
            returncode=plan.get("returncode", 0),
            seconds=plan.get("seconds", 1.0),
            peak_bytes=1,
            timed_out=plan.get("timed_out", False),
            out_of_memory=plan.get("out_of_memory", False),
            log=[],
        )


@pytest.fixture
def stage(tiny_folder):
    return Stage(tiny_folder / "solution.csv")


@pytest.fixture
def call(store, stage):
    runner = Runner(store, stage)
    runner.start()
    return Call(store, runner, Links("http://127.0.0.1:1", store), "me")


def push(call, tiny, wait_for, **fields):
    request = kernels.ApiSaveKernelRequest()
    values = {
        "slug": "me/some-kernel",
        "new_title": "some kernel",
        "text": "pass",
        "language": "python",
        "kernel_type": "script",
        "enable_internet": False,
        "competition_data_sources": [tiny.SLUG],
        "session_timeout_seconds": 600,
    }
    for name, value in {**values, **fields}.items():
        setattr(request, name, value)
    answer = wire_kernels.save_kernel(call, request)
    if answer.error is None or answer.error == "":
        wait_for(lambda: status(call) not in ("QUEUED", "RUNNING"))
    return answer


def status(call, label=None):
    request = kernels.ApiGetKernelSessionStatusRequest()
    request.user_name, request.kernel_slug, request.version_label = "me", "some-kernel", label
    return wire_kernels.get_kernel_session_status(call, request).status.name


def submit(call, tiny, version=None):
    request = competitions.ApiCreateCodeSubmissionRequest()
    request.competition_name = tiny.SLUG
    request.kernel_owner, request.kernel_slug = "me", "some-kernel"
    request.kernel_version, request.file_name = version, "submission.csv"
    return wire_submissions.create_code_submission(call, request).ref


def result(call, ref, wait_for):
    request = competitions.ApiGetSubmissionRequest()
    request.ref = ref

    def done():
        found = wire_submissions.get_submission(call, request)
        return found if found.status.name != "PENDING" else None

    return wait_for(done)


def test_an_empty_submission_scores_the_floor(call, tiny, wait_for, stage, tiny_folder):
    from kagflow.task.score import score_files

    push(call, tiny, wait_for)
    found = result(call, submit(call, tiny), wait_for)
    floor = score_files(
        tiny_folder / "hidden" / "sample_submission.csv", tiny_folder / "solution.csv",
        tiny.make_facts().task,
    )  # fmt: skip
    assert found.public_score == f"{floor['Public'].value:.5f}"
    assert found.private_score == f"{floor['Private'].value:.5f}"
    assert found.public_score != found.private_score
    save, rerun = stage.specs
    assert (save.rerun, rerun.rerun) == (False, True)
    assert save.competition_input.name == "public"
    assert len(list((rerun.competition_input / "test_images").iterdir())) == 7
    # The competition allows a minute, the push asked for ten.
    assert (save.time_limit_s, rerun.time_limit_s) == (600, 60)
    assert rerun.memory_bytes == 4 * 2**30


def test_a_metric_of_ones_own_is_found_in_the_workspace(call, store, tiny, wait_for, tiny_folder):
    own = store.path.parent / "competitions" / "rolls"
    own.mkdir(parents=True)
    (own / "metrics.py").write_text(
        "def clean(intersection, predicted, true):\n    return 0.125 * (predicted == 0)\n"
    )
    facts = tiny.make_facts()
    task = replace(facts.task, metric="rolls.metrics:clean")
    store.add_competition(replace(facts, task=task), tiny_folder)
    push(call, tiny, wait_for)
    found = result(call, submit(call, tiny), wait_for)
    assert (found.public_score, found.private_score) == ("0.12500", "0.12500")


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"timed_out": True}, "Notebook Timeout"),
        ({"out_of_memory": True}, "Notebook Exceeded Allowed Compute"),
        ({"returncode": 1}, "Notebook Threw Exception"),
        ({"writes": False}, "Submission CSV Not Found"),
        ({"text": "a,b\n1,2\n"}, "Submission Scoring Error"),
        ({"raises": LocalError("no sandbox works")}, "Notebook Threw Exception"),
        ({"raises": RuntimeError("bug")}, "Notebook Threw Exception"),
    ],
)
def test_a_failed_rerun_ends_in_kaggles_words(call, tiny, wait_for, stage, ending, words):
    stage.rerun = ending
    push(call, tiny, wait_for)
    found = result(call, submit(call, tiny), wait_for)
    assert found.status.name == "ERROR"
    assert found.error_description.startswith(words)
    assert (found.public_score, found.private_score) == ("", "")
    # One bad run does not end the service.
    stage.rerun = {}
    assert result(call, submit(call, tiny), wait_for).status.name == "COMPLETE"


@pytest.mark.parametrize(
    ("ending", "shown"),
    [
        ({"timed_out": True}, "CANCEL_ACKNOWLEDGED"),
        ({"returncode": 1}, "ERROR"),
        ({"out_of_memory": True}, "ERROR"),
        ({}, "COMPLETE"),
    ],
)
def test_how_a_saved_run_ends(call, tiny, wait_for, stage, ending, shown):
    stage.save = ending
    push(call, tiny, wait_for)
    assert status(call, "v1") == shown
    if ending:
        with pytest.raises(WireError, match="has not completed"):
            submit(call, tiny)


def test_the_daily_limit_is_kaggles_400(call, tiny, wait_for, store, tiny_folder):
    store.add_competition(tiny.make_facts(daily_submissions=2), tiny_folder)
    push(call, tiny, wait_for)
    for _ in range(2):
        submit(call, tiny)
    with pytest.raises(WireError, match=r"daily Submission allowance \(2\) today") as caught:
        submit(call, tiny)
    assert caught.value.status == 400
    request = competitions.ApiGetSubmissionLimitsRequest()
    request.competition_name = tiny.SLUG
    limits = wire_submissions.get_submission_limits(call, request)
    assert (limits.num_today, limits.num_allowed_now) == (2, 0)
    # Yesterday's do not count.
    store.execute("UPDATE submission SET created = '2020-01-01T00:00:00.000'")
    submit(call, tiny)


def test_internet_missing_files_and_unknown_versions_are_refused(call, tiny, wait_for, stage):
    push(call, tiny, wait_for, enable_internet=True)
    with pytest.raises(WireError, match="internet"):
        submit(call, tiny)
    stage.save = {"writes": False}
    push(call, tiny, wait_for)
    with pytest.raises(WireError, match=r"submission\.csv"):
        submit(call, tiny)
    with pytest.raises(WireError, match="version not found"):
        submit(call, tiny, version=9)


def test_a_link_in_the_output_is_not_followed(call, tiny, wait_for, stage, store):
    class Linking(Stage):
        def __call__(self, spec, *, log_file):
            done = super().__call__(spec, log_file=log_file)
            if spec.rerun:
                (spec.working / "submission.csv").unlink()
                (spec.working / "submission.csv").symlink_to(self.rows)
            return done

    runner = Runner(store, Linking(stage.rows))
    runner.start()
    call = Call(store, runner, call.links, "me")
    push(call, tiny, wait_for)
    found = result(call, submit(call, tiny), wait_for)
    assert found.error_description == "Submission CSV Not Found"


def test_versions_count_up_and_labels_name_them(call, tiny, wait_for):
    assert push(call, tiny, wait_for).version_number == 1
    assert push(call, tiny, wait_for, text="print(2)").version_number == 2
    request = kernels.ApiGetKernelRequest()
    request.user_name, request.kernel_slug, request.version_label = "me", "some-kernel", "v1"
    first = wire_kernels.get_kernel(call, request)
    assert (first.blob.source, first.metadata.current_version_number) == ("pass", 1)
    for label in ("1", "v3"):
        with pytest.raises(WireError) as caught:
            status(call, label)
        assert caught.value.status == 404


def test_a_new_kernel_is_named_after_its_title(call, tiny, wait_for):
    answer = push(call, tiny, lambda done: None, slug="me/whatever", new_title="Other: Name!")
    assert answer.ref == "me/other-name"


def test_sources_that_are_not_there_are_named_and_the_run_starts(call, tiny, wait_for, stage):
    stage.save = {"writes": False}
    answer = push(
        call, tiny, wait_for, dataset_data_sources=["me/none"], kernel_data_sources=["a/b"],
        competition_data_sources=["nothing"],
    )  # fmt: skip
    assert list(answer.invalid_dataset_sources) == ["me/none"]
    assert list(answer.invalid_competition_sources) == ["nothing"]
    assert list(answer.invalid_kernel_sources) == ["a/b"]
    assert status(call) == "COMPLETE"


def test_a_kernel_source_mounts_the_newest_output_that_ended_well(call, tiny, wait_for, stage):
    push(call, tiny, wait_for)
    stage.save = {"returncode": 1, "text": "torn"}
    push(call, tiny, wait_for)
    answer = push(call, tiny, wait_for, kernel_data_sources=["me/some-kernel", "you/some-kernel"])
    assert list(answer.invalid_kernel_sources) == ["you/some-kernel"]
    (folder,) = stage.specs[-1].kernels.values()
    assert (folder / "submission.csv").read_text() != "torn"
    mounts = plan.kaggle(
        folder / "submission.csv", folder, competition=("c", folder), datasets={},
        kernels=stage.specs[-1].kernels, layout="nested",
    )  # fmt: skip
    there = [one.target for one in mounts if one.source == str(folder.resolve())]
    assert "/kaggle/input/notebooks/me/some-kernel" in there


def test_a_quick_save_never_runs(call, tiny, wait_for, stage):
    push(call, tiny, wait_for, kernel_execution_type=KernelExecutionType.QUICK_SAVE)
    assert status(call) == "NEW_SCRIPT"
    assert stage.specs == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"slug": "other/some-kernel"}, "Notebook not found"),
        ({"new_title": "abc"}, "at least five"),
        ({"language": "r"}, "Python only"),
    ],
)
def test_a_refused_push_is_an_error_in_a_200(call, tiny, wait_for, fields, words):
    answer = push(call, tiny, wait_for, **fields)
    assert words in answer.error
    assert not answer.version_number


def test_gpu_time_is_counted_and_ends(call, tiny, wait_for, stage, store):
    stage.save = {"seconds": 29 * 3600.0}
    push(call, tiny, wait_for, machine_shape="NvidiaTeslaT4")
    quota = wire_account.get_accelerator_quota_statistics(call, None)
    assert encode(quota)["gpuQuota"]["timeUsed"] == "104400s"
    assert encode(quota)["gpuQuota"]["timeReserved"] == "0s"
    push(call, tiny, wait_for, machine_shape="NvidiaTeslaT4")
    refused = push(call, tiny, wait_for, machine_shape="NvidiaTeslaT4")
    assert refused.error == "Maximum weekly GPU quota of 30.00 hours reached."
    push(call, tiny, wait_for)
    assert status(call) == "COMPLETE", "a CPU run costs no quota"


def test_two_gpu_runs_at_once_and_what_they_hold(store, stage, tiny):
    idle = Call(store, Runner(store, stage), Links("http://x", store), "me")  # never started
    ends = [
        push(idle, tiny, lambda done: None, machine_shape="NvidiaTeslaT4").error for _ in range(3)
    ]
    assert ends[2] == "Maximum batch GPU session count of 2 reached."
    quota = wire_account.get_accelerator_quota_statistics(idle, None)
    assert quota.gpu_quota.time_reserved.total_seconds() == 1200


@pytest.mark.parametrize(
    ("day", "start"),
    [
        ("2026-11-24T12:00", "2026-11-21T00:00"),
        ("2026-11-21T00:00", "2026-11-21T00:00"),
        ("2026-11-20T23:59", "2026-11-14T00:00"),
    ],
)
def test_the_quota_week_starts_on_saturday(day, start):
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    assert week_start(moment) == datetime.fromisoformat(start).replace(tzinfo=UTC)


def test_a_restart_closes_what_was_cut_off_and_takes_up_what_waits(store, stage, tiny, wait_for):
    idle = Call(store, Runner(store, stage), Links("http://x", store), "me")  # never started
    for name in ("first kernel", "second kernel"):
        push(idle, tiny, lambda done: None, slug=f"me/{name}", new_title=name)
    store.execute("UPDATE session SET status = 'RUNNING' WHERE id = 1")
    again = Store(store.path)
    Runner(again, stage).start()
    row = wait_for(lambda: again.row("SELECT * FROM session WHERE id = 2 AND status = 'COMPLETE'"))
    assert row["seconds"] == 1.0
    cut = again.row("SELECT * FROM session WHERE id = 1")
    assert (cut["status"], cut["failure"]) == ("ERROR", "The server stopped during this run")
    assert len(stage.specs) == 1, "what was running is not run again"


def test_a_submission_waiting_at_a_kill_is_scored_after_it(call, store, stage, tiny, wait_for):
    push(call, tiny, wait_for)
    idle = Call(store, Runner(store, stage), call.links, "me")
    waiting, running = submit(idle, tiny), submit(idle, tiny)
    store.execute(
        "UPDATE session SET status = 'RUNNING' "
        "WHERE id = (SELECT session FROM submission WHERE ref = ?)",
        (running,),
    )
    Runner(store, stage).start()
    assert result(call, waiting, wait_for).status.name == "COMPLETE"
    found = result(call, running, wait_for)
    assert found.status.name == "ERROR"
    assert "stopped" in found.error_description


def test_a_notebooks_code_cells_are_its_source():
    cells = [
        {"cell_type": "markdown", "source": "# no"},
        {"cell_type": "code", "source": "a = 1"},
        {"cell_type": "code", "source": ["b = 2\n", "print(a)"]},
    ]
    request = {"kernelType": "notebook", "text": json.dumps({"cells": cells})}
    assert source_of(request) == "a = 1\n\nb = 2\nprint(a)\n"
