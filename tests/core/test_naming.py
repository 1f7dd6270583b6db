"""Run names: one folder for one recipe, one recipe for one folder."""

from __future__ import annotations

import itertools

import pytest

from kagflow.errors import UsageError
from kagflow.naming import LONGEST, fold_folder, given_name, run_name, spell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0003, "3e-4"), (0.001, "1e-3"), (0.01, "0.01"), (0.9, "0.9"), (1.0, "1"), (20, "20"),
        (1e-12, "1e-12"), (123456.5, "123456.5"), (0.1 + 0.2, "0.30000000000000004"),
        (True, "true"), (None, "null"), ("cosine", "cosine"),
        ("mini.models:Net", "mini.models:Net"),
        ("1", '"1"'), ("a b", '"a b"'), ([256, 512], "[256,512]"), (-0.5, "-0.5"),
        ({"b": 1, "a": "x:y"}, '{a:"x:y",b:1}'),
    ],
)  # fmt: skip
def test_a_value_has_one_short_spelling(value: object, text: str) -> None:
    assert spell(value) == text


def test_names_are_read_as_they_are_typed() -> None:
    name = run_name("fpn-effnet", {"seed": 1, "optimiser.lr": 3e-4, "crop": [256, 512]})
    assert name == "fpn-effnet+crop=[256,512]+optimiser.lr=3e-4+seed=1"


def test_equal_values_in_any_order_are_one_run() -> None:
    one = run_name("x", {"a": 1e-3, "b": 2})
    assert one == run_name("x", {"b": 2.0, "a": 0.001})


def test_different_things_never_share_a_name() -> None:
    odd = [
        "a",
        "b",
        "a/b",
        "a b",
        "a_b",
        "ab",
        "a+b=c",
        "1",
        "%2F",
        "a%2Fb",
        "~",
        "a,b",
        "[a]",
        "é",
    ]
    changes = [{"k": word} for word in odd]
    changes += [{"k": value} for value in (1, None, True, "null", "true", ["a", "b"], ["a,b"])]
    changes += [
        {"k": {"a:b": "c"}},
        {"k": {"a": "b:c"}},
        {"k": "a", "b": "c"},
        {"k": "a", "b=c": ""},
    ]
    changes += [{"k": "x" * n} for n in (300, 301)]
    names = [run_name(recipe, one) for recipe in ("x", "x+k=a") for one in changes]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name.encode()) <= LONGEST
        assert not set(name) & set('/ \0"\\')


def test_what_a_shortened_name_hides_still_counts() -> None:
    long = [run_name("x", {"k": "y" * 400, "z": n}) for n in range(3)]
    assert len(set(long)) == 3
    assert all(name.startswith("x+k=yyy") for name in long)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\nb", "y" * 201])
def test_a_given_name_must_be_one_folder(name: str) -> None:
    with pytest.raises(UsageError):
        given_name(name)


def test_a_computed_name_may_be_given() -> None:
    for one, two in itertools.pairwise([{"a": "x/y"}, {"a": "z" * 400}, {"a": [1, 2]}]):
        assert given_name(run_name("r", one)) != given_name(run_name("r", two))


def test_folds_have_folders() -> None:
    assert (fold_folder(3), fold_folder("full")) == ("fold3", "full")
