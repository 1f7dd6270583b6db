"""No live secret in a message, log, traceback or output, whatever the server echoes."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from kagflow.cli.app import main
from kagflow.errors import KagflowError
from kagflow.redaction import hide, redact
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_types import KernelPush

TOKEN = "KGAT_" + "0f1e2d3c4b5a6978" * 2
KEY = "a1b2c3d4" * 4
REFRESH = "1//refresh-0123456789abcdef"
BASIC = base64.b64encode(f"ann:{KEY}".encode()).decode()
PLANTED = (TOKEN, KEY, REFRESH, BASIC)
ECHO = " ".join(PLANTED)

CALLS: dict[str, Callable[[Remote, Path], object]] = {
    "competition": lambda remote, _: remote.competition("steel"),
    "files": lambda remote, _: remote.files("steel"),
    "download": lambda remote, path: remote.download("steel", path / "a.zip"),
    "submit": lambda remote, _: remote.submit("s", "a/k", version=1, file="f", message="m"),
    "submission": lambda remote, _: remote.submission(7),
    "limits": lambda remote, _: remote.limits("steel"),
    "leaderboard": lambda remote, _: remote.leaderboard("steel"),
    "dataset": lambda remote, _: remote.dataset("a/d"),
    "dataset_status": lambda remote, _: remote.dataset_status("a/d"),
    "dataset_create": lambda remote, path: remote.dataset_create_or_version(push(path)),
    "push_kernel": lambda remote, _: remote.push_kernel(KERNEL),
    "kernel_status": lambda remote, _: remote.kernel_status("a/k", 1),
    "kernel_log": lambda remote, _: remote.kernel_log("a/k", 1),
    "kernel_stream": lambda remote, _: list(remote.kernel_stream("a/k", 1)),
    "quota": lambda remote, _: remote.quota(),
}
KERNEL = KernelPush("a/k", "k", "print(1)\n", (), "steel", "NvidiaTeslaT4", 60)
FLAT = json.dumps({"code": 400, "message": ECHO}).encode()
NESTED = json.dumps({"error": {"code": 403, "message": ECHO, "status": ECHO}}).encode()
ANSWERS: dict[str, object] = {
    "flat 400": (400, {}, FLAT),
    "nested 403": (403, {}, NESTED),
    "flat 401": (401, {}, FLAT),
    "text 404": (404, {}, ECHO.encode()),
    "html 500": (500, {}, f"<html><p>{ECHO}</p></html>".encode()),
    "429": (429, {"Retry-After": ECHO}, NESTED),
    "error in 200": {"error": ECHO, "code": 403, "message": ECHO},
    "every field": dict.fromkeys(
        ("status", "failureMessage", "errorDescription", "title", "description", "log"), ECHO
    ),
    "not JSON": (200, {}, ECHO.encode()),
    "redirect": (302, {"Location": f"http://127.0.0.1:9/{TOKEN}?sig={KEY}"}, b""),
    "dropped": None,
}


def push(path: Path) -> DatasetPush:
    folder = path / "pack"
    folder.mkdir(exist_ok=True)
    (folder / "a.bin").write_bytes(b"x")
    return DatasetPush("a/d", "title", folder, "mark")


def plant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a secret of every kind where kagflow looks; the key is the one that is chosen."""
    folder = home / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "kaggle.json").write_text(json.dumps({"username": "ann", "key": KEY}))
    (folder / "credentials.json").write_text(json.dumps({"refresh_token": REFRESH}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)


@pytest.fixture
def planted(stub, tmp_path, monkeypatch) -> Path:
    """A home full of secrets, and the stub in the place of Kaggle."""
    plant(tmp_path / "home", monkeypatch)
    monkeypatch.setattr("kagflow.ship.remote._site", lambda: stub)
    monkeypatch.setattr("kagflow.ship.remote_transport.pause", lambda _: 0.0)
    monkeypatch.chdir(tmp_path)
    for secret in (TOKEN, KEY, REFRESH):
        hide(secret, "ann")
    return tmp_path


def leaks(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


@pytest.mark.parametrize("name", CALLS)
def test_no_error_log_or_answer_holds_a_secret(
    name, script, planted, capfd, caplog, monkeypatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("VERBOSE", "1")
    remote = Remote("kaggle", state=planted / "state", sleep=lambda _: None)
    assert remote.credential.source == "KAGGLE_API_TOKEN"
    told = []
    for answer in ANSWERS.values():
        script.answers.clear()
        script.default = answer
        try:
            told.append(repr(CALLS[name](remote, planted)))
        except KagflowError as error:
            told += [error.message, error.hint, repr(error)]
            told.append("".join(traceback.format_exception(error)))
    assert leaks("\n".join(told)) == []
    assert leaks(caplog.text) == []
    out, err = capfd.readouterr()
    assert out + err == ""


@pytest.mark.parametrize("answer", [name for name in ANSWERS if name != "every field"])
@pytest.mark.parametrize(
    "words", [["quota"], ["fetch", "severstal"], ["history"], ["quota", "--json"]]
)
def test_no_command_prints_a_secret_even_with_debug(
    words, answer, script, planted, capfd, monkeypatch
) -> None:
    monkeypatch.setattr("kagflow.ship.remote_transport.time.sleep", lambda _: None)
    script.default = ANSWERS[answer]
    with pytest.raises(SystemExit):
        main([*words, "--debug"])
    out, err = capfd.readouterr()
    assert leaks(out + err) == []


def test_a_bug_keeps_its_traceback_without_the_secret(planted, capfd, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(f"cannot send Authorization: Basic {BASIC} or {TOKEN}")

    monkeypatch.setattr("kagflow.ship.remote.Remote.quota", broken)
    with pytest.raises(SystemExit) as stopped:
        main(["quota"])
    assert stopped.value.code == 1
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "ValueError" in err
    assert leaks(err) == []
    assert TOKEN[-4:] in err


@pytest.mark.parametrize("error", [KagflowError, ValueError])
def test_the_boundary_hides_every_credential_of_the_machine(
    error, tmp_path, capfd, monkeypatch
) -> None:
    plant(tmp_path / "home", monkeypatch)
    monkeypatch.chdir(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise error(f"{TOKEN} {KEY} {REFRESH} {BASIC}")

    monkeypatch.setattr("kagflow.ship.remote.Remote.quota", broken)
    with pytest.raises(SystemExit):
        main(["quota", "--debug", "--json"])
    out, err = capfd.readouterr()
    assert "Traceback" in err
    assert leaks(out + err) == []


def test_a_bug_without_a_secret_is_left_alone(planted, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("plain")

    monkeypatch.setattr("kagflow.ship.remote.Remote.quota", broken)
    with pytest.raises(ValueError, match="plain"):
        main(["quota"])


@pytest.mark.parametrize("logger", ["", "urllib3.connectionpool", "some.package"])
def test_every_log_record_is_clean_whoever_makes_it(logger, planted, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger(logger)
    log.debug("header %s", f"Bearer {TOKEN}")
    log.info("%(a)s", {"a": KEY})
    log.warning("wrong %d", TOKEN)
    log.error("basic %s", BASIC, stack_info=True)
    try:
        raise requests.exceptions.InvalidHeader(f"('Authorization', 'Bearer {TOKEN}')")
    except requests.RequestException:
        log.exception("failed")
    assert len(caplog.records) == 5
    assert leaks(caplog.text) == []
    assert "InvalidHeader" in caplog.text
    assert "***" in caplog.text


def test_records_without_a_secret_stay_as_they_are(planted, caplog) -> None:
    logging.getLogger("a").warning("%s of %d", "one", 2)
    (record,) = caplog.records
    assert (record.msg, record.args) == ("%s of %d", ("one", 2))


@pytest.mark.parametrize("length", range(255, 301, 5))
def test_a_secret_at_the_cut_of_a_long_answer_does_not_show(length, script, planted) -> None:
    script.default = (400, {}, ("x" * length + TOKEN + "y" * 100).encode())
    with pytest.raises(KagflowError) as caught:
        Remote("kaggle", state=planted / "state").limits("steel")
    assert TOKEN[:8] not in caught.value.message


def test_short_words_are_not_hidden() -> None:
    hide("local", "local")
    assert redact("the local profile") == "the local profile"


def test_a_secret_is_cut_to_its_last_four_characters(planted) -> None:
    assert redact(f"bad {TOKEN}!") == f"bad ***{TOKEN[-4:]}!"
    assert redact(base64.b64encode(TOKEN.encode()).decode()) == f"***{TOKEN[-4:]}"
