"""Start-up, help, errors and JSON of the command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kagflow.cli.app import COMMANDS, main

HEAVY = {"torch", "pandas", "kaggle", "segmentation_models_pytorch", "albumentations", "rich"}


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from kagflow.cli.app import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert not loaded & HEAVY
    assert "fetch" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run([name, "--help"], capsys)
    assert code == 0
    assert COMMANDS[name][0].__doc__.split(".")[0].split(",")[0].split(":")[0] in out
    assert "--profile kaggle|local" in " ".join(out.split())


def test_the_commands_are_the_houses_words() -> None:
    words = "fetch train ensemble pack submit evaluate shakeup report score history quota"
    assert set(COMMANDS) <= {
        *words.split(),
        *["init", "doctor", "check", "predict", "target", "local", "demo"],
    }


def test_alone_it_says_where_you_are_and_what_is_next(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run([], capsys)
    assert code == 0
    assert "no competition fetched here yet" in out
    assert "next: kagflow fetch" in out


def test_next_is_the_competition_that_was_written_down_here(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "zebra"], capsys)[0] == 0
    assert "next: kagflow fetch zebra" in run([], capsys)[1]


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["fetch", "sevrstal"], "no competition 'sevrstal'", "did you mean 'severstal'?"),
        (["train", "severstal", "fold=0"], "severstal has not been fetched", "fetch severstal"),
        (["submit", "severstal"], "severstal has not been fetched", "fetch severstal"),
        (["train", "a", "b"], "more than one competition", "key=value"),
        (["--profile", "lokal", "fetch"], "unknown profile 'lokal'", "--profile kaggle or local"),
        (["local", "strat"], "unknown action 'strat'", "there are: start"),
        (["init", "my-steel"], "'my-steel' can't be imported", "steel_defects"),
    ],
)
def test_bad_input_is_one_message_with_the_next_step(
    argv: list[str], message: str, hint: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(argv, capsys)
    assert code == 2
    assert message in err
    assert hint in err
    assert "Traceback" not in err
    assert out == ""


def test_without_credentials_one_message_names_both_ways(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(["fetch", "severstal"], capsys)
    assert code == 3
    assert "KAGGLE_API_TOKEN" in err
    assert "access_token" in err or "kaggle.json" in err
    assert "--profile local" in err


def test_an_error_is_json_too(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["train", "severstal", "--json"], capsys)
    told = json.loads(out)
    assert code == 2
    assert set(told) == {"schema", "error", "hint", "exit_code"}
    assert told["exit_code"] == 2


def test_target_show_as_json(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["target", "show", "--find", "torch", "--json"], capsys)
    told = json.loads(out)
    assert code == 0
    assert set(told) == {
        "schema", "name", "approximate", "python", "glibc", "cuda", "distributions", "probed",
        "accelerator", "digest", "arches", "in_use", "for", "probed_images",
    }  # fmt: skip
    assert "torch" in told["distributions"]


def test_init_makes_a_competition_that_is_found(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "tiles"], capsys)[0] == 0
    assert (empty / "competitions" / "tiles" / "competition.yaml").is_file()
    code, _, err = run(["train", "tiles"], capsys)
    assert "tiles has not been fetched" in err
    assert run(["init", "tiles"], capsys)[0] == 8
    assert code == 2


def test_a_local_reset_asks_first(
    empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = run(["local", "reset", "--profile", "local"], capsys)
    assert code == 8
    assert "--yes" in err
    code, out, _ = run(["local", "reset", "--yes", "--profile", "local", "--json"], capsys)
    assert code == 0
    assert json.loads(out)["forgot"] == "all"
