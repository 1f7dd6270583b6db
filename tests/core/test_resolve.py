from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kagflow.errors import UsageError
from kagflow.resolve import build, resolve

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
    assert "gama" in caught.value.message
    assert caught.value.hint == "it takes: alpha, gamma"


def test_an_error_inside_the_users_file_is_their_own(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_model.py").write_text("import missing_dependency_of_theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="missing_dependency_of_theirs"):
        resolve("broken_model:Net", {})
    assert "broken_model" not in sys.modules
