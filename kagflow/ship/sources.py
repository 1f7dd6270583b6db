"""Where this machine's pip and uv look for distributions, and nothing else of their settings.

A constraint file, a pre-release switch or a platform set on this machine would leak into a pack
made for another one. What has to be carried over is how an index is reached.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow.workspace import user_cache

PYPI = "https://pypi.org/simple"
OFFLINE = "KAGFLOW_OFFLINE"
_DROPPED = ("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "SETUPTOOLS_", "DISTUTILS_")


@dataclass(frozen=True)
class Sources:
    """Name the indexes (the default one first), find-links, CA bundle, proxy and trusted hosts."""

    indexes: tuple[str, ...] = (PYPI,)
    find_links: tuple[str, ...] = ()
    certificate: str = ""
    proxy: str = ""
    trusted: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """Return this process's environment with pip and uv set to these sources only."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
        default, *more = self.indexes or ("",)
        uv = {
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            # Their settings were written for pip, which takes the best of all indexes.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_CACHE_DIR": str(user_cache() / "uv"),
            "UV_HTTP_RETRIES": "1",
            "UV_HTTP_TIMEOUT": "30",
            "UV_DEFAULT_INDEX": default,
            "UV_INDEX": " ".join(more),
            "UV_INSECURE_HOST": " ".join(self.trusted),
        }
        pip = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": default,
            "PIP_EXTRA_INDEX_URL": " ".join(more),
            "PIP_FIND_LINKS": " ".join(self.find_links),
            "PIP_CERT": self.certificate,
            "PIP_TRUSTED_HOST": " ".join(self.trusted),
        }
        if not self.indexes:
            uv["UV_NO_INDEX"] = pip["PIP_NO_INDEX"] = "1"
        # In the environment and not on a command line: an address may hold a password.
        made = {name: value for name, value in {**uv, **pip}.items() if value}
        if self.certificate:
            made["SSL_CERT_FILE"] = self.certificate
        if self.proxy:
            made |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), self.proxy)
        return {**kept, **made}


def offline() -> bool:
    """Tell whether the user wants no index asked (KAGFLOW_OFFLINE)."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


def host_sources() -> Sources:
    """Read where pip and uv look on this machine: their variables and configuration files."""
    pip, uv = _pip_settings(), _uv_settings()
    default = uv["default"] or pip.get("index-url", "") or PYPI
    named = [*uv["extra"], *pip.get("extra-index-url", "").split()]
    indexes = () if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else (
        default, *dict.fromkeys(one for one in named if one != default)
    )  # fmt: skip
    return Sources(
        indexes=indexes,
        find_links=tuple(dict.fromkeys([*uv["links"], *pip.get("find-links", "").split()])),
        certificate=pip.get("cert", ""),
        proxy=pip.get("proxy", ""),
        trusted=tuple(pip.get("trusted-host", "").split()),
    )


def _pip_settings() -> dict[str, str]:
    """Read pip's documented files and variables; `pip config list` would take most of a second."""
    found: dict[str, str] = {}
    parser = configparser.RawConfigParser()
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser.read(_pip_files())
    for section in ("global", "install", "download", "wheel"):
        if parser.has_section(section):
            found |= dict(parser.items(section))
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found


def _pip_files() -> list[Path]:
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    shared = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    home, user = Path.home(), os.environ.get("XDG_CONFIG_HOME")
    return [
        *(Path(folder) / "pip" / "pip.conf" for folder in shared.split(os.pathsep)),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        (Path(user) if user else home / ".config") / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(named)] if named else []),
    ]


def _uv_settings() -> dict[str, Any]:
    found: dict[str, Any] = {"default": "", "extra": [], "links": []}
    for file in _uv_files():
        _add_uv_file(found, file)
    env = os.environ
    found["default"] = env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or found["default"]
    # An index may carry a name: NAME=URL.
    words = [*env.get("UV_INDEX", "").split(), *env.get("UV_EXTRA_INDEX_URL", "").split()]
    found["extra"] += [word if "://" in word.partition("=")[0] else word.partition("=")[2] or word
                       for word in words]  # fmt: skip
    found["links"] += [one for one in env.get("UV_FIND_LINKS", "").split(",") if one]
    return found


def _uv_files() -> list[Path]:
    named = os.environ.get("UV_CONFIG_FILE")
    if named:
        return [Path(named)]
    if os.environ.get("UV_NO_CONFIG"):
        return []
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path("/etc/uv/uv.toml"), home / "uv" / "uv.toml"]


def _add_uv_file(found: dict[str, Any], file: Path) -> None:
    try:
        whole = tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return
    tables: list[Mapping[str, Any]] = [whole, whole.get("pip", {})]
    for table in tables:
        found["default"] = table.get("index-url", found["default"])
        found["extra"] += table.get("extra-index-url", [])
        found["links"] += table.get("find-links", [])
        for index in table.get("index", []):
            if index.get("default"):
                found["default"] = index["url"]
            else:
                found["extra"].append(index["url"])
