"""Exactly one credential is chosen, in the official client's order, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kagflow.errors import AuthError
from kagflow.ship import credentials

TOKEN = "KGAT_" + "0123456789abcdef" * 2
KEY = "f0e1d2c3" * 4


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def key_file(path: Path, key: str = KEY) -> Path:
    return write(path, json.dumps({"username": "ann", "key": key}))


def test_the_order_is_the_official_clients(tmp_path: Path) -> None:
    key_file(tmp_path / ".kaggle" / "kaggle.json")
    legacy = {"KAGGLE_USERNAME": "bob", "KAGGLE_KEY": KEY}
    found = credentials.choose({}, tmp_path)
    assert (found.kind, found.username) == ("key", "ann")
    assert found.source.endswith("kaggle.json")

    assert credentials.choose(legacy, tmp_path).username == "bob"

    write(tmp_path / ".kaggle" / "access_token", TOKEN + "\n")
    found = credentials.choose(legacy, tmp_path)
    assert (found.kind, found.secret) == ("token", TOKEN)
    assert found.source.endswith("access_token")

    found = credentials.choose({**legacy, "KAGGLE_API_TOKEN": "another"}, tmp_path)
    assert (found.secret, found.source) == ("another", "KAGGLE_API_TOKEN")


def test_an_environment_token_may_be_a_path(tmp_path: Path) -> None:
    file = write(tmp_path / "token", TOKEN + "\n")
    assert credentials.choose({"KAGGLE_API_TOKEN": str(file)}, tmp_path).secret == TOKEN


def test_config_folders(tmp_path: Path) -> None:
    key_file(tmp_path / "elsewhere" / "kaggle.json")
    environ = {"KAGGLE_CONFIG_DIR": str(tmp_path / "elsewhere")}
    assert credentials.choose(environ, tmp_path).username == "ann"
    key_file(tmp_path / ".config" / "kaggle" / "kaggle.json")
    assert credentials.choose({}, tmp_path).username == "ann"


def test_an_access_token_in_the_key_file_is_sent_as_a_token(tmp_path: Path) -> None:
    key_file(tmp_path / ".kaggle" / "kaggle.json", TOKEN)
    found = credentials.choose({}, tmp_path)
    assert found.kind == "token"
    assert "its key is an access token" in found.source


def test_none_is_one_message_with_both_ways_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(AuthError) as caught:
        credentials.choose({}, tmp_path)
    assert caught.value.exit_code == 3
    for word in ("access_token", "KAGGLE_API_TOKEN", "kaggle.com/settings", "--profile local"):
        assert word in caught.value.hint
    assert "no Kaggle credential" in caught.value.message


def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / ".kaggle" / "kaggle.json", "{")
    with pytest.raises(AuthError, match=str(file)):
        credentials.choose({}, tmp_path)


def test_the_secret_is_never_shown(tmp_path: Path) -> None:
    found = credentials.choose({"KAGGLE_API_TOKEN": TOKEN}, tmp_path)
    assert TOKEN not in repr(found)


def test_a_path_that_is_not_there_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="names a file that is not there"):
        credentials.choose({"KAGGLE_API_TOKEN": str(tmp_path / "gone")}, tmp_path)


def test_a_browser_sign_in_is_named_and_not_used(tmp_path: Path) -> None:
    content = {"refresh_token": "refresh-0123456789", "access_token": "access-0123456789"}
    write(tmp_path / ".kaggle" / "credentials.json", json.dumps(content))
    with pytest.raises(AuthError, match=r"credentials\.json, a browser sign-in, is not used"):
        credentials.choose({}, tmp_path)
    assert {one.secret for one in credentials.live({}, tmp_path)} == set(content.values())


@pytest.mark.parametrize("secret", ["two\nlines", "a b", "\u201cquoted\u201d", "bell\x07"])
def test_what_cannot_be_a_credential_is_named_at_once(secret: str, tmp_path: Path) -> None:
    file = write(tmp_path / ".kaggle" / "access_token", secret)
    with pytest.raises(AuthError, match=f"the credential from {file}") as caught:
        credentials.choose({}, tmp_path)
    assert secret not in caught.value.message
    with pytest.raises(AuthError, match="KAGGLE_USERNAME and KAGGLE_KEY"):
        credentials.choose({"KAGGLE_USERNAME": secret, "KAGGLE_KEY": KEY}, tmp_path / "empty")


def test_a_byte_order_mark_is_no_part_of_a_credential(tmp_path: Path) -> None:
    write(tmp_path / ".kaggle" / "access_token", "\ufeff" + TOKEN + "\n")
    assert credentials.choose({}, tmp_path).secret == TOKEN


def test_every_credential_of_this_machine_is_known_whichever_is_chosen(tmp_path: Path) -> None:
    key_file(tmp_path / ".kaggle" / "kaggle.json")
    environ = {"KAGGLE_API_TOKEN": TOKEN, "KAGGLE_USERNAME": "bob", "KAGGLE_KEY": "b" * 32}
    assert [one.secret for one in credentials.live(environ, tmp_path)] == [TOKEN, "b" * 32, KEY]
    chosen = credentials.choose(environ, tmp_path)
    assert chosen.shadows[0] == "KAGGLE_USERNAME and KAGGLE_KEY"
    assert len(chosen.shadows) == 2


def test_a_broken_file_behind_the_chosen_one_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path / ".kaggle" / "kaggle.json", "{")
    chosen = credentials.choose({"KAGGLE_API_TOKEN": TOKEN}, tmp_path)
    assert (chosen.secret, chosen.shadows) == (TOKEN, ())
