from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kagflow.errors import UsageError
from kagflow.resolve import build, misfits, resolve, takes

NAMES = {"path": "pathlib:Path", "counter": "collections:Counter"}


def test_a_bare_name_is_a_builtin_and_a_target_is_the_users_own() -> None:
    assert resolve("path", NAMES) is Path
    assert resolve("pathlib:PurePath", {}).__name__ == "PurePath"


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("pth", "unknown name 'pth'", "did you mean 'path'? there are: counter, path"),
        ("pathlib:Pathh", "'pathlib' has no 'Pathh'", "did you mean 'Path'?"),
        ("no_such_module:x", "no module 'no_such_module'", "package.module:attribute"),
    ],
)
def test_what_is_not_there_names_the_nearest(target: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(target, NAMES)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_arguments_that_do_not_fit_are_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own_losses.py").write_text("def loss(alpha, gamma=2): return alpha * gamma\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build({"target": "own_losses:loss", "kwargs": {"alpha": 3}}, {}) == 6
    with pytest.raises(UsageError) as caught:
        build({"target": "own_losses:loss", "kwargs": {"alpha": 3, "gama": 1}}, {})
    assert caught.value.message == "'own_losses:loss' takes no 'gama'"
    assert caught.value.hint == "did you mean 'gamma'? it takes: alpha, gamma"
    with pytest.raises(UsageError, match="kagflow itself gives 'alpha'"):
        build({"target": "own_losses:loss", "kwargs": {"alpha": 3}}, {}, alpha=4)


TAKEN = "it takes: alpha, beta"
NOT_TAKEN = "'t' takes no 'classes', which kagflow gives"


def takes_two(alpha, *, beta=2): ...


def takes_any(alpha, **rest): ...


@pytest.mark.parametrize(
    ("found", "kwargs", "given", "faults"),
    [
        (takes_two, {"alpha": 1}, (), []),
        (
            takes_two,
            {"betta": 1, "xyz": 2},
            (),
            [
                ("kwargs.betta", "'t' takes no 'betta'", f"did you mean 'beta'? {TAKEN}"),
                ("kwargs.xyz", "'t' takes no 'xyz'", TAKEN),
                ("kwargs", "'t' needs 'alpha'", "add kwargs: {alpha: ...}"),
            ],
        ),
        (takes_two, {}, ("alpha",), []),
        (
            takes_two,
            {"alpha": 1},
            ("alpha", "classes"),
            [
                ("target", NOT_TAKEN, "add a parameter 'classes' to it"),
                ("kwargs.alpha", "kagflow itself gives 'alpha'", "leave it out"),
            ],
        ),
        (takes_any, {"alpha": 1, "betta": 1}, ("classes",), []),
        (3, {}, (), [("target", "'t' is no function or class but int", "name a callable")]),
    ],
)  # fmt: skip
def test_every_misfit_is_told_at_once(found, kwargs, given, faults) -> None:
    told = misfits("t", found, kwargs, given)
    assert [(one.key, one.what, one.mend) for one in told] == faults


def test_what_must_be_given_by_position_cannot_be_given() -> None:
    (fault,) = misfits("t", lambda alpha, /: alpha, {})
    assert fault.what == "'t' takes 'alpha' by position alone"


def test_whether_it_takes_an_argument() -> None:
    assert takes(takes_two, "beta")
    assert takes(takes_any, "anything")
    assert not takes(takes_two, "anything")


def test_an_error_inside_the_users_file_is_their_own(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_model.py").write_text("import missing_dependency_of_theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="missing_dependency_of_theirs"):
        resolve("broken_model:Net", {})
    assert "broken_model" not in sys.modules
