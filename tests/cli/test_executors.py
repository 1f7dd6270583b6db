"""Where a training runs, by its word."""

from __future__ import annotations

import pytest

from kagflow.cli import executors
from kagflow.cli.on_kaggle import OnKaggle
from kagflow.cli.on_ssh import OnSsh
from kagflow.errors import UsageError


def test_a_word_names_a_place():
    assert isinstance(executors.executor("local"), executors.Local)
    assert isinstance(executors.executor("kaggle"), OnKaggle)
    assert isinstance(executors.executor("ssh:me@host"), OnSsh)


@pytest.mark.parametrize("word", ["", "cloud", "ssh", "ssh:", "Kaggle"])
def test_another_word_names_none(word):
    with pytest.raises(UsageError, match="--on"):
        executors.executor(word)


@pytest.mark.parametrize("wish", [{"attach": True}, {"hours": 2.0}])
def test_nothing_is_attached_to_or_limited_here(wish):
    order = executors.Order(None, None, (), None, wish.get("hours"), False, "train")
    with pytest.raises(UsageError, match="elsewhere"):
        executors.Local().run(order, attach=wish.get("attach", False))
