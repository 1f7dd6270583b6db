"""Choose exactly one Kaggle credential and say where it came from."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kagflow.errors import AuthError

# The site's own shape of an access token; such a token inside kaggle.json is not an old-style key.
ACCESS_TOKEN = re.compile(r"KGAT_[0-9A-Za-z_-]{16,}")
# What fits into a header: anything else is a file of another kind, or two lines of one.
PLAIN = re.compile(r"[!-~]+")
RENEW = (
    "create a new token on https://www.kaggle.com/settings and save it as ~/.kaggle/access_token"
)


@dataclass(frozen=True)
class Credential:
    """Hold one secret: a `token` goes as Bearer, a `key` with its user name as Basic.

    `shadows` names the sources that are there as well and were not chosen.
    """

    kind: Literal["token", "key"]
    secret: str = field(repr=False)
    source: str
    username: str | None = None
    shadows: tuple[str, ...] = ()

    @property
    def mend(self) -> str:
        """Say what to do where Kaggle refuses this credential."""
        if self.shadows:
            return (
                f"{self.source} is used before {', '.join(self.shadows)}: renew it, or remove it "
                "so that the next one is used"
            )
        return f"{RENEW}; the order is {ORDER}"


ORDER = "KAGGLE_API_TOKEN, ~/.kaggle/access_token, KAGGLE_USERNAME with KAGGLE_KEY, kaggle.json"
LOCAL = Credential("key", "local", "the local profile's fixed credential", "local")


def choose(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Credential:
    """Return the first credential in the official client's own order.

    KAGGLE_API_TOKEN, ~/.kaggle/access_token(.txt), KAGGLE_USERNAME with KAGGLE_KEY, kaggle.json.
    Raises AuthError when there is none, or when what comes first cannot be one.
    """
    environ = os.environ if environ is None else environ
    home = Path.home() if home is None else home
    candidates = _candidates(environ, home)
    first = next(candidates, None)
    if first is None:
        raise _nothing(home)
    shadows = []
    with contextlib.suppress(AuthError):
        shadows += [other.source for other in candidates if other.secret != first.secret]
    return replace(first, shadows=tuple(shadows))


def live(environ: Mapping[str, str] | None = None, home: Path | None = None) -> list[Credential]:
    """Return every credential on this machine, chosen or not: none of them may be shown.

    A sign-in of the official client (`kaggle auth login`) is among them, though never chosen.
    """
    environ = os.environ if environ is None else environ
    home = Path.home() if home is None else home
    found = []
    for ways in (_tokens, _from_environment, _from_json):
        with contextlib.suppress(AuthError):
            found += list(ways(environ, home))
    signed_in = _sign_in(home)
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(signed_in.read_text())
        secrets = [content.get(name) for name in ("refresh_token", "access_token")]
        found += [Credential("token", str(one), str(signed_in)) for one in secrets if one]
    return found


def _candidates(environ: Mapping[str, str], home: Path) -> Iterator[Credential]:
    yield from _tokens(environ, home)
    yield from _from_environment(environ, home)
    yield from _from_json(environ, home)


def _nothing(home: Path) -> AuthError:
    signed_in = _sign_in(home)
    also = f"; {signed_in}, a browser sign-in, is not used" if signed_in.is_file() else ""
    return AuthError(
        "no Kaggle credential: neither KAGGLE_API_TOKEN, ~/.kaggle/access_token, "
        f"KAGGLE_USERNAME with KAGGLE_KEY, nor ~/.kaggle/kaggle.json is there{also}",
        hint="either create a token on https://www.kaggle.com/settings and save it as "
        "~/.kaggle/access_token, or set the environment variable KAGGLE_API_TOKEN "
        "(or KAGGLE_USERNAME and KAGGLE_KEY); `--profile local` needs no account",
    )


def _tokens(environ: Mapping[str, str], home: Path) -> Iterator[Credential]:
    value = environ.get("KAGGLE_API_TOKEN", "").strip()
    named = _is_file(value)
    if value.startswith(("/", "~", "./")) and not named:
        raise AuthError(
            "KAGGLE_API_TOKEN names a file that is not there",
            hint="it holds a token, or the path of a file with one; unset it to use another source",
        )
    secret = _content(Path(value)) if named else value
    if secret:
        yield _checked(Credential("token", secret, "KAGGLE_API_TOKEN"))
    for name in ("access_token", "access_token.txt"):
        file = home / ".kaggle" / name
        secret = _content(file)
        if secret:
            yield _checked(Credential("token", secret, str(file)))


def _from_environment(environ: Mapping[str, str], home: Path) -> Iterator[Credential]:
    del home
    username, key = environ.get("KAGGLE_USERNAME", ""), environ.get("KAGGLE_KEY", "")
    if username and key:
        yield _key(username, key, "KAGGLE_USERNAME and KAGGLE_KEY")


def _from_json(environ: Mapping[str, str], home: Path) -> Iterator[Credential]:
    settings = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    chosen = environ.get("KAGGLE_CONFIG_DIR")
    for folder in (Path(chosen),) if chosen else (home / ".kaggle", settings):
        file = folder / "kaggle.json"
        if file.is_file():
            yield _read_json(file)
            return


def _read_json(file: Path) -> Credential:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
        username, key = str(content["username"]), str(content["key"])
    except (OSError, ValueError, KeyError, TypeError):
        raise AuthError(
            f"{file} is not a Kaggle key file with 'username' and 'key'", hint=RENEW
        ) from None
    return _key(username, key, str(file))


def _key(username: str, key: str, source: str) -> Credential:
    username, key = username.strip(), key.strip()
    # Kaggle answers 401 to an access token that is sent as an old-style key.
    if ACCESS_TOKEN.fullmatch(key):
        return Credential("token", key, f"{source} (its key is an access token)", username)
    return _checked(Credential("key", key, source, username))


def _checked(credential: Credential) -> Credential:
    for part in (credential.secret, credential.username or "-"):
        if not PLAIN.fullmatch(part):
            raise AuthError(
                f"the credential from {credential.source} holds a space, a second line or a "
                "character that no credential has",
                hint=RENEW,
            )
    return credential


def _sign_in(home: Path) -> Path:
    return home / ".kaggle" / "credentials.json"


def _is_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except (OSError, ValueError):
        return False


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        return ""
