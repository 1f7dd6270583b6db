"""Choose exactly one Kaggle credential and say where it came from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kagflow.errors import AuthError

# The site's own shape of an access token; such a token inside kaggle.json is not an old-style key.
ACCESS_TOKEN = re.compile(r"KGAT_[0-9A-Za-z_-]{16,}")


@dataclass(frozen=True)
class Credential:
    """Hold one secret: a `token` goes as Bearer, a `key` with its user name as Basic."""

    kind: Literal["token", "key"]
    secret: str = field(repr=False)
    source: str
    username: str | None = None

    def redact(self, text: str) -> str:
        """Replace the secret by its last four characters wherever it occurs in `text`."""
        if len(self.secret) < 8:
            return text
        return text.replace(self.secret, f"***{self.secret[-4:]}")


LOCAL = Credential("key", "local", "the local profile's fixed credential", "local")


def choose(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Credential:
    """Return the first credential in the official client's own order.

    KAGGLE_API_TOKEN, ~/.kaggle/access_token(.txt), KAGGLE_USERNAME with KAGGLE_KEY, kaggle.json.
    Raises AuthError when there is none, naming both ways to mend it.
    """
    environ = os.environ if environ is None else environ
    home = Path.home() if home is None else home
    found = _token(environ, home) or _from_environment(environ) or _from_json(environ, home)
    if found is None:
        raise AuthError(
            "no Kaggle credential: neither KAGGLE_API_TOKEN, ~/.kaggle/access_token, "
            "KAGGLE_USERNAME with KAGGLE_KEY, nor ~/.kaggle/kaggle.json is there",
            hint="either create a token on https://www.kaggle.com/settings and save it as "
            "~/.kaggle/access_token, or set the environment variable KAGGLE_API_TOKEN "
            "(or KAGGLE_USERNAME and KAGGLE_KEY); `--profile local` needs no account",
        )
    return found


def _token(environ: Mapping[str, str], home: Path) -> Credential | None:
    value = environ.get("KAGGLE_API_TOKEN", "").strip()
    if value:
        secret = _first_line(Path(value)) if _is_file(value) else value
        if secret:
            return Credential("token", secret, "KAGGLE_API_TOKEN")
    for name in ("access_token", "access_token.txt"):
        file = home / ".kaggle" / name
        secret = _first_line(file)
        if secret:
            return Credential("token", secret, str(file))
    return None


def _from_environment(environ: Mapping[str, str]) -> Credential | None:
    username, key = environ.get("KAGGLE_USERNAME", ""), environ.get("KAGGLE_KEY", "")
    if username and key:
        return _key(username, key, "KAGGLE_USERNAME and KAGGLE_KEY")
    return None


def _from_json(environ: Mapping[str, str], home: Path) -> Credential | None:
    settings = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    chosen = environ.get("KAGGLE_CONFIG_DIR")
    for folder in (Path(chosen),) if chosen else (home / ".kaggle", settings):
        file = folder / "kaggle.json"
        if file.is_file():
            return _read_json(file)
    return None


def _read_json(file: Path) -> Credential:
    try:
        content = json.loads(file.read_text())
        return _key(str(content["username"]), str(content["key"]), str(file))
    except (OSError, ValueError, KeyError, TypeError):
        raise AuthError(
            f"{file} is not a Kaggle key file with 'username' and 'key'",
            hint="create a new token on https://www.kaggle.com/settings and save it as "
            "~/.kaggle/access_token",
        ) from None


def _key(username: str, key: str, source: str) -> Credential:
    # Kaggle answers 401 to an access token that is sent as an old-style key.
    if ACCESS_TOKEN.fullmatch(key):
        return Credential("token", key, f"{source} (its key is an access token)", username)
    return Credential("key", key, source, username)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:
        return False


def _first_line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
