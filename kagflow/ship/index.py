"""Fetch one wheel from a simple index (PEP 503 and 691) and check it against the index's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import requests
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from kagflow import durable
from kagflow.errors import DataError, LocalError, NetworkError
from kagflow.fingerprint import normalise
from kagflow.ship.sources import Sources

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
TIMEOUT_S = 30.0
ALGORITHMS = ("sha512", "sha384", "sha256")


@dataclass(frozen=True)
class IndexFile:
    """Name a file that an index offers; `hashes` maps an algorithm to its hexadecimal digest."""

    name: str
    url: str
    hashes: dict[str, str]
    requires_python: str = ""
    yanked: bool = False


def fetch_wheel(
    name: str, version: str, tags: list[Tag], python: str, sources: Sources, cache: Path
) -> Path:
    """Download the best wheel of one version into `cache`; nothing is kept that fails its hash.

    `tags` are the target's, best first; `python` is its version. Raises LocalError where no place
    has a fitting wheel, NetworkError where a place does not answer, DataError on a wrong hash.
    """
    ranks = {tag: rank for rank, tag in reversed(list(enumerate(tags)))}
    best: tuple[int, IndexFile] | None = None
    with _session(sources) as session:
        for file in _offered(normalise(name), sources, session):
            rank = _rank(file, name, version, python, ranks)
            if rank is not None and (best is None or rank < best[0]):
                best = (rank, file)
        if best is None:
            raise LocalError(
                f"no wheel of {name} {version} for this image on {_places(sources)}",
                hint=f"pip wheel --no-deps '{name}=={version}', on a machine like the image",
            )
        return _download(best[1], session, cache)


def _rank(
    file: IndexFile, name: str, version: str, python: str, ranks: dict[Tag, int]
) -> int | None:
    try:
        found, number, _, tags = parse_wheel_filename(file.name)
    except InvalidWheelFilename:
        return None
    if found != normalise(name) or number != Version(version):
        return None
    with suppress(InvalidSpecifier):
        if not SpecifierSet(file.requires_python).contains(python, prereleases=True):
            return None
    fitting = [ranks[tag] for tag in tags if tag in ranks]
    # A withdrawn file is taken only where nothing else fits: its version was asked for.
    return min(fitting) + (len(ranks) if file.yanked else 0) if fitting else None


def _offered(name: str, sources: Sources, session: requests.Session) -> Iterator[IndexFile]:
    for place in sources.find_links:
        yield from _page(place, session, flat=True)
    for index in sources.indexes:
        yield from _page(f"{index.rstrip('/')}/{name}/", session, flat=False)


def _page(address: str, session: requests.Session, *, flat: bool) -> Iterator[IndexFile]:
    local = _local(address)
    if local is not None:
        page = local if local.is_file() else local / "index.html"
        if page.is_file():
            yield from read_html(page.read_text(), page.as_uri())
        elif flat and local.is_dir():
            yield from (IndexFile(one.name, one.as_uri(), {}) for one in local.glob("*.whl"))
        return
    answer = _get(session, address)
    if answer is None:
        return
    if "json" not in answer.headers.get("Content-Type", ""):
        yield from read_html(answer.text, answer.url)
        return
    try:
        yield from list(read_json(answer.json(), answer.url))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        host = urlsplit(address).hostname
        raise NetworkError(
            f"{host} answers what is no index ({type(error).__name__})",
            hint="check pip's index-url",
        ) from None


def read_json(page: Any, base: str) -> Iterator[IndexFile]:
    """Yield the files of a project's page in JSON (PEP 691)."""
    for one in page.get("files", ()):
        yield IndexFile(
            name=one["filename"],
            url=urljoin(base, one["url"]),
            hashes=dict(one.get("hashes") or {}),
            requires_python=one.get("requires-python") or "",
            yanked=bool(one.get("yanked")),
        )


def read_html(text: str, base: str) -> Iterator[IndexFile]:
    """Yield the files of a project's page in HTML (PEP 503)."""
    parser = _Anchors()
    parser.feed(text)
    base = urljoin(base, parser.base)
    for attributes in parser.found:
        url, fragment = urldefrag(urljoin(base, attributes.get("href") or ""))
        algorithm, _, digest = fragment.partition("=")
        yield IndexFile(
            name=unquote(urlsplit(url).path.rpartition("/")[2]),
            url=url,
            hashes={algorithm: digest} if digest else {},
            requires_python=attributes.get("data-requires-python") or "",
            yanked="data-yanked" in attributes,
        )


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "base":
            self.base = dict(attrs).get("href") or ""
        if tag == "a":
            self.found.append(dict(attrs))


def _download(file: IndexFile, session: requests.Session, cache: Path) -> Path:
    local = _local(file.url)
    if local is not None:
        data = local.read_bytes()
    else:
        answer = _get(session, file.url)
        if answer is None:
            raise NetworkError(f"{file.name} is listed but can't be fetched")
        data = answer.content
    algorithm = next((one for one in ALGORITHMS if one in file.hashes), "")
    if not algorithm and local is None:
        raise DataError(
            f"{file.name}: its index gives no SHA-256 of it",
            hint="fetch it by a way that you trust and put it into the wheel cache",
        )
    if algorithm and hashlib.new(algorithm, data).hexdigest() != file.hashes[algorithm]:
        raise DataError(
            f"{file.name}: what came has not the {algorithm} that its index names",
            hint="run the same command again; where it stays so, do not trust that index",
        )
    target = cache / file.name
    durable.write_bytes(target, data)
    return target


def _session(sources: Sources) -> requests.Session:
    session = requests.Session()
    session.headers["Accept"] = ACCEPT
    if sources.certificate:
        session.verify = sources.certificate
    if sources.proxy:
        session.proxies = {"http": sources.proxy, "https": sources.proxy}
    return session


def _get(session: requests.Session, address: str) -> requests.Response | None:
    """Return the answer, None where there is no such page."""
    host = urlsplit(address).hostname
    try:
        answer = session.get(address, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise NetworkError(
            f"{host} does not answer ({type(error).__name__})", hint="check the connection"
        ) from None
    if answer.status_code == 404:
        return None
    if answer.status_code >= 400:
        raise NetworkError(f"{host} answers {answer.status_code}", hint="check pip's index-url")
    return answer


def _local(address: str) -> Path | None:
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(address)


def _places(sources: Sources) -> str:
    # Host names only: an address may hold a password.
    places = [*sources.indexes, *sources.find_links]
    return ", ".join(dict.fromkeys(urlsplit(one).hostname or one for one in places)) or "no index"
