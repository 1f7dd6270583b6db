"""Whose code raised: the user's lines alone are shown."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from kagflow.frames import is_own, own_lines
from kagflow.resolve import build


def raised(code: str, folder: Path, monkeypatch) -> tuple[str, ...]:
    (folder / "of_frames.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.delitem(__import__("sys").modules, "of_frames", raising=False)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever their code raises
        build({"target": "of_frames:make"}, {})
    return own_lines(caught.value)


def test_only_their_frames_are_shown(tmp_path: Path, monkeypatch) -> None:
    code = "import json\n\ndef make():\n    return json.loads('{')\n"
    lines = raised(code, tmp_path, monkeypatch)
    assert [line.strip() for line in lines[:2]] == [
        f'File "{tmp_path}/of_frames.py", line 4, in make', "return json.loads('{')",
    ]  # fmt: skip
    assert lines[-1].startswith("json.decoder.JSONDecodeError: Expecting property name")
    assert not any("kagflow/resolve.py" in line or "json/decoder" in line for line in lines)


def test_an_import_error_inside_their_file(tmp_path: Path, monkeypatch) -> None:
    lines = raised("import no_such_thing_here\n", tmp_path, monkeypatch)
    assert "line 1" in lines[0]
    assert lines[-1] == "ModuleNotFoundError: No module named 'no_such_thing_here'"


def test_a_syntax_error_points_at_its_place(tmp_path: Path, monkeypatch) -> None:
    lines = raised("def make(:\n    pass\n", tmp_path, monkeypatch)
    assert lines[0].strip() == f'File "{tmp_path}/of_frames.py", line 1'
    assert lines[1].strip() == "def make(:"
    assert lines[-1].startswith("SyntaxError")


def test_what_is_raised_in_no_code_of_theirs_names_the_last_place() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    caught.value.__traceback__ = caught.value.__traceback__.tb_next
    lines = own_lines(caught.value)
    assert "json" in lines[0]
    assert len(lines) <= 4


def test_whose_a_file_is() -> None:
    import kagflow

    package = Path(kagflow.__file__).parent
    assert is_own("/home/me/competitions/steel/models.py")
    assert is_own(str(package / "competitions" / "steel" / "models.py"))
    assert not is_own(str(package / "resolve.py"))
    assert not is_own(json.__file__)
    assert not is_own("<frozen importlib._bootstrap>")
