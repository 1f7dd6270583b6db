"""Where `train --attach` looks where no place is named."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kagflow.cli import handed
from kagflow.cli.session import Session
from kagflow.errors import UsageError
from kagflow.output import Output
from kagflow.ship.records import Records, StepRow
from kagflow.workspace import Workspace, user_state

KNOWN: Any = SimpleNamespace(name="shapes")


def job(fold: int) -> Any:
    return SimpleNamespace(words=("recipe=tiny", f"fold={fold}"))


class Past:
    """What was handed over from a workspace, one after another."""

    def __init__(self, root: Path) -> None:
        self.session = Session(Output(), Workspace(root, "kaggle"))
        self.records = Records(user_state())

    def to_kaggle(self, fold: int, *, state: Any = "done", session: int = 1) -> None:
        effect = handed.effect(self.session, KNOWN, [job(fold)])
        order = self.records.intend(f"train:{fold}", handed.ORDER, effect)
        self.records.done(order, {})
        push = self.records.intend(f"train:{fold}", f"push {session}", {})
        self.records.update(StepRow, push.id, state=state)
        time.sleep(0.002)

    def to_host(self, host: str, fold: int, *, started: str = "today") -> None:
        with handed.noted(
            self.session, KNOWN, [job(fold)], host=host, job=f"{host}{fold}", started=started
        ):
            time.sleep(0.002)

    def last(self, *folds: int) -> str:
        return handed.last(self.session, KNOWN, [job(fold) for fold in folds])


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


def test_the_last_place_is_found(past: Past) -> None:
    past.to_kaggle(0)
    assert past.last() == "kaggle"
    past.to_host("box", 1)
    assert past.last() == "ssh:box"
    past.to_kaggle(0, session=2)
    assert past.last() == "kaggle"
    past.to_host("box", 1, started="tomorrow")
    assert past.last() == "ssh:box"


def test_named_runs_are_found_where_they_are(past: Past) -> None:
    past.to_host("me@box:2222", 1)
    past.to_kaggle(0)
    assert past.last(1) == "ssh:me@box:2222"
    with pytest.raises(UsageError, match="nothing of this was handed over"):
        past.last(2)


def test_what_was_refused_or_is_anothers_is_none(past: Past, tmp_path: Path) -> None:
    past.to_kaggle(0, state="refused")
    Past(tmp_path / "other").to_host("box", 0)
    with pytest.raises(UsageError, match="nothing of shapes was handed over") as nothing:
        past.last()
    assert "--on ssh:HOST" in nothing.value.hint


def test_a_start_that_was_cut_off_may_have_begun(past: Past) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        handed.noted(past.session, KNOWN, [job(0)], host="box", job="0", started="now"),
    ):
        raise KeyboardInterrupt
    assert past.last() == "ssh:box"
