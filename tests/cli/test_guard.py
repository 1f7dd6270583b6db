"""What a rehearsal measured, as the guard takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kagflow.cli import competitions, guard, kernels
from kagflow.cli.kernels import How
from kagflow.cli.planned import save_seconds
from kagflow.cli.session import Session
from kagflow.errors import RemoteError
from kagflow.output import Output
from kagflow.rehearse.receipt import Receipt, Run
from kagflow.ship.budget import Action, Judgement
from kagflow.ship.kernel import KernelSpec, kernel_metadata
from kagflow.workspace import Workspace

HOUR = 3600.0
SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"
RECEIPT = Receipt(
    pack="abcd", competition="shapes", made="", verdict="yellow", layer="bwrap",
    network_blocked=True, home_hidden=True, input_read_only=True,
    runs=tuple(Run(mode, "nested", 4, 4, 1, seconds, 1, 0)
               for mode, seconds in (("save", 9.0), ("save", 11.0), ("rerun", 80.0))),
    device="cpu", seconds_per_image=0.3, projected_images=2000, projected_minutes=12.0,
    limit_minutes=60.0,
)  # fmt: skip


def test_the_saved_run_is_timed_apart() -> None:
    assert save_seconds(RECEIPT) == 11.0
    assert save_seconds(replace(RECEIPT, runs=RECEIPT.runs[2:])) is None


def test_a_cpu_is_projected_from_a_cpu_only() -> None:
    assert guard.cpu_minutes(RECEIPT) == 12.0
    assert guard.cpu_minutes(replace(RECEIPT, device="cuda:0")) is None
    # Calibrated, the projection is the accelerator's; the pace on this CPU is still known.
    calibrated = replace(RECEIPT, calibrated=True, projected_minutes=2.0)
    assert guard.cpu_minutes(calibrated) == pytest.approx(10.0)


def test_what_was_measured_is_read_from_beside_the_pack(tmp_path: Path) -> None:
    packed = SimpleNamespace(pack=SimpleNamespace(path=tmp_path / "abcd", hash="abcd"))
    offer = How(offer="kagflow submit --cpu")
    assert guard.measured(packed, offer).save_s is None
    RECEIPT.write(kernels.beside(packed, "receipt.json", notebook=False))
    found = guard.measured(packed, offer)
    assert (found.save_s, found.cpu_minutes) == (11.0, 12.0)
    assert found.cpu_command == "kagflow submit --cpu"
    assert guard.measured(packed, How()).cpu_minutes is None


FLAGS = {"cpu": False, "again": False, "notebook": False, "over_quota": False}


def test_the_commands_of_a_submission_ask_for_the_same(tmp_path: Path) -> None:
    session = Session(Output(), Workspace(tmp_path, "kaggle"))
    plain = guard.how(session, [], name="default", **FLAGS)
    assert (plain.same, plain.go_on) == ("kagflow submit", "kagflow submit")
    assert plain.offer == "kagflow submit --cpu"
    asked = guard.how(session, ["steel"], name="two best", **dict.fromkeys(FLAGS, True))
    given = "kagflow submit steel --ensemble 'two best'"
    assert asked.same == f"{given} --cpu --again --notebook --over-quota"
    # With --again, what goes on would be another submission once this one has its score.
    assert asked.go_on == f"{given} --cpu --notebook --over-quota"
    assert asked.offer == ""
    over = guard.how(session, ["steel"], name="default", **{**FLAGS, "over_quota": True})
    assert over.offer == "kagflow submit steel --cpu"
    assert over.over_quota


def judged(*, over: bool, pushes: bool = True, today: int = 5) -> SimpleNamespace:
    beyond = Judgement((Action("the submission", HOUR, HOUR),), 0.5 * HOUR, None)
    return SimpleNamespace(judgement=beyond, over_quota=over, pushes=pushes, submissions_left=today)


def test_a_dry_run_says_what_would_refuse_and_a_refusal_says_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(Output(), Workspace(tmp_path, "kaggle"))
    guard.hold(session, judged(over=False), dry_run=True)
    said = capsys.readouterr().err
    assert "hours: does not fit" in said
    assert "go on with --over-quota" in said
    with pytest.raises(RemoteError, match="does not fit"):
        guard.hold(session, judged(over=False), dry_run=False)
    guard.hold(session, judged(over=False, pushes=False), dry_run=False)
    assert capsys.readouterr().err == ""
    guard.hold(session, judged(over=True), dry_run=False)
    said = capsys.readouterr().err
    assert "--over-quota goes on" in said
    assert "warning" not in said


def test_a_day_without_submissions_is_said_before_the_push(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(Output(), Workspace(tmp_path, "kaggle"))
    guard.hold(session, judged(over=True, today=0), dry_run=False)
    assert "no submission is left today" in capsys.readouterr().err
    guard.hold(session, judged(over=True, today=0, pushes=False), dry_run=False)
    assert capsys.readouterr().err == ""


def test_an_attempt_says_what_became_of_the_one_before() -> None:
    def told(number: int, attempt: int, status: str, error: str | None = None) -> str:
        last = SimpleNamespace(attempt=attempt, status=status, error=error)
        return guard.earlier(SimpleNamespace(attempt=number, previous=last))

    assert told(2, 1, "failed", "out of memory") == "2; the one before failed: out of memory"
    assert told(3, 2, "scored") == "3; the one before scored"
    assert told(2, 2, "running") == "2, continued"
    assert guard.earlier(SimpleNamespace(attempt=2, previous=None)) == "2"


def test_a_kernel_on_a_cpu_asks_for_no_accelerator(tmp_path: Path) -> None:
    (tmp_path / "competitions").mkdir()
    (tmp_path / "competitions" / "shapes").symlink_to(SHAPES)
    known = guard.on_cpu(competitions.find(Workspace(tmp_path, "local"), "shapes"))
    spec = KernelSpec("ann", "kagflow-shapes", "kagflow shapes", known.config.slug, (),
                      known.config.accelerator, 60)  # fmt: skip
    metadata = kernel_metadata(spec)
    assert metadata["machine_shape"] == "None"
    assert not metadata["enable_gpu"]
    assert not metadata["enable_tpu"]
