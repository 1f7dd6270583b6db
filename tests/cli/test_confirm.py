"""Before hours are spent a person is asked, once; a script goes on where all was proved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kagflow.cli.submit import confirm
from kagflow.errors import RefusedError

NEW = SimpleNamespace(pushes=True)


@pytest.fixture
def asked(monkeypatch):
    """Return what was asked on a terminal whose person says no to everything."""
    found: list[str] = []
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("typer.confirm", lambda text, **_: found.append(text))
    return found


@pytest.mark.parametrize(
    ("verdict", "question"),
    [("green", "Submit?"), ("yellow", "Submit with what could not be proved?")],
)
def test_a_person_is_asked_once(asked, verdict, question):
    receipt = SimpleNamespace(verdict=verdict)
    with pytest.raises(RefusedError, match="not submitted"):
        confirm(NEW, receipt, yes=False)
    assert asked == [question]
    confirm(NEW, receipt, yes=True)
    assert asked == [question]


def test_where_nobody_can_be_asked_only_what_was_proved_goes_on(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    confirm(NEW, SimpleNamespace(verdict="green"), yes=False)
    with pytest.raises(RefusedError, match="nobody can be asked"):
        confirm(NEW, SimpleNamespace(verdict="yellow"), yes=False)
    confirm(NEW, SimpleNamespace(verdict="yellow"), yes=True)


def test_what_was_pushed_is_not_asked_about_again(asked):
    confirm(SimpleNamespace(pushes=False), SimpleNamespace(verdict="yellow"), yes=False)
    assert asked == []
