"""Downloads in several streams: resumed, verified, and never of two versions (F1, F2, F7, F8)."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import re

import pytest

from kagflow.errors import DataError, NetworkError
from kagflow.ship import crc32c, remote_download, remote_parts

BODY = random.Random(0).randbytes(400_000)
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Storage:
    """Serve one body with ranges; `spoil(number, start)` may give another answer to a request."""

    def __init__(self, body=BODY, tag='"v1"', spoil=None):
        self.body, self.tag, self.spoil = body, tag, spoil
        self.number = itertools.count()
        self.asked = []

    def __call__(self, method, headers, _):
        match = RANGE.fullmatch(headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.asked.append(headers.get("Range"))
        other = self.spoil(next(self.number), start) if self.spoil else None
        if callable(other):
            return other(headers)
        if other is not None:
            return other
        return self.answer(headers)

    def answer(self, headers, **more):
        match = RANGE.fullmatch(headers.get("Range", ""))
        out = {"ETag": self.tag, "Accept-Ranges": "bytes", **more}
        if not match or headers.get("If-Range") != self.tag:
            return 200, out, self.body
        start, last = int(match[1]), int(match[2] or len(self.body) - 1)
        out["Content-Range"] = f"bytes {start}-{last}/{len(self.body)}"
        return 206, out, self.body[start : last + 1]


@pytest.fixture
def get(script, stub, remote, tmp_path, monkeypatch):
    """Download from a Storage and return the bytes; a file of this size comes in four streams."""
    monkeypatch.setattr(remote_download, "APART", 100_000)
    monkeypatch.setattr(remote_download, "CHUNK", 10_000)
    monkeypatch.setattr(remote_parts, "NOTE", 30_000)
    script.rpc("DownloadDataFiles", (302, {"Location": f"{stub}/a.zip"}, b""))

    def run(storage) -> bytes:
        script.on("/a.zip", storage)
        return remote.download("steel", tmp_path / "a.zip").path.read_bytes()

    return run


def test_a_large_file_comes_in_several_streams(get, tmp_path) -> None:
    storage = Storage()
    assert get(storage) == BODY
    assert sorted(map(str, storage.asked)) == [
        "None", "bytes=100000-199999", "bytes=200000-299999", "bytes=300000-",
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.part*"))


def test_a_server_without_ranges_gets_one_stream(get) -> None:
    storage = Storage(spoil=lambda *_: (200, {"ETag": '"v1"'}, BODY))
    assert get(storage) == BODY
    assert storage.asked == [None]


def test_a_server_that_says_ranges_and_gives_none_gets_one_stream(get) -> None:
    storage = Storage(spoil=lambda _, __: lambda headers: storage.answer({}))
    assert get(storage) == BODY
    assert storage.asked.count(None) == 2


def test_only_what_is_missing_is_asked_again(get) -> None:
    def spoil(number, start):
        # Each stream but the first breaks once, some way in.
        if 1 <= number <= 3:
            return lambda headers: storage.answer(headers, **{"X-Cut": "40000"})
        return None

    storage = Storage(spoil=spoil)
    assert get(storage) == BODY
    again = sorted(int(RANGE.match(asked)[1]) for asked in storage.asked[4:])
    assert [start - start // 100_000 * 100_000 for start in again] == [40_000] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda start: f"bytes {start + 1}-{start + 100_000}/400000",
        lambda start: f"bytes {start}-{start + 99_998}/400000",
        lambda start: f"bytes {start}-{start + 99_999}/400001",
        lambda start: f"bytes {start}-{start + 99_999}/*",
        lambda start: "",
        lambda start: "bytes 0-399999/400000",
    ],
)
def test_anything_but_the_asked_range_is_not_taken(get, wrong) -> None:
    def spoil(number, start):
        if number == 2:
            headers = {"ETag": '"v1"', "Content-Range": wrong(start)}
            return 206, headers, b"\0" * 100_000
        return None

    assert get(Storage(spoil=spoil)) == BODY


def test_a_file_that_changes_between_two_streams_is_fetched_anew(get) -> None:
    other = BODY[::-1]

    def spoil(number, _):
        if number == 2:
            storage.body, storage.tag = other, '"v2"'

    storage = Storage(spoil=spoil)
    assert get(storage) == other


def test_another_version_under_the_same_tag_and_size_is_caught_by_the_hash(get) -> None:
    digest = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    good = {"x-goog-hash": f"md5={digest}"}

    def spoil(number, start):
        if number in (1, 2):
            return lambda headers: (
                206,
                {**storage.answer(headers)[1], **good},
                bytes(len(storage.answer(headers)[2])),
            )
        return lambda headers: storage.answer(headers, **good)

    storage = Storage(spoil=spoil)
    assert get(storage) == BODY
    assert storage.asked.count(None) == 2
    always = Storage(
        tag='"w"', spoil=lambda *_: lambda h: always.answer(h, **{"x-goog-hash": "md5=AA=="})
    )
    with pytest.raises(DataError, match="checksum"):
        get(always)


def test_an_expired_link_is_renewed_and_the_rest_resumed(get, script) -> None:
    def spoil(number, _):
        return (403, {}, b"<Error>ExpiredToken</Error>") if 1 <= number <= 3 else None

    storage = Storage(spoil=spoil)
    assert get(storage) == BODY
    assert storage.asked.count(None) == 1
    links = [path for _, path, _, _ in script.seen if path.endswith("DownloadDataFiles")]
    assert len(links) == 2


def test_a_broken_download_goes_on_in_another_run(get, tmp_path) -> None:
    spoil = lambda number, _: (503, {}, b"") if number in (1, 3) or number > 4 else None  # noqa: E731
    with pytest.raises(NetworkError, match="broke off 5 times"):
        get(Storage(spoil=spoil))
    assert not (tmp_path / "a.zip").exists()
    storage = Storage()
    assert get(storage) == BODY
    assert None not in storage.asked
    assert 1 <= len(storage.asked) < 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda note: note.write_text(note.read_text().replace("v1", "v0")),
        lambda note: note.write_text(note.read_text()[:-20]),
        lambda note: note.unlink(),
        lambda note: note.with_suffix("").write_bytes(b""),
    ],
)
def test_a_part_without_a_true_note_is_not_continued(get, tmp_path, spoil) -> None:
    with pytest.raises(NetworkError):
        get(Storage(spoil=lambda number, _: (503, {}, b"") if number else None))
    part = tmp_path / "a.zip.part"
    part.write_bytes(bytes(part.stat().st_size))
    spoil(tmp_path / "a.zip.part.json")
    assert get(Storage()) == BODY


def test_what_is_whole_is_not_downloaded_again_unless_it_changed(get, script, tmp_path) -> None:
    assert get(Storage()) == BODY
    storage = Storage()
    sent = storage.answer

    def head_only(headers, **more):
        status, out, body = sent(headers, **more)
        return status, {**out, "X-Cut": "0"}, body

    storage.answer = head_only
    assert get(storage) == BODY
    assert storage.asked == [None]
    (tmp_path / "a.zip").write_bytes(BODY[:-1])
    assert get(Storage()) == BODY
    other = BODY[::-1]
    assert get(Storage(other, '"v2"')) == other


def test_progress_that_is_made_does_not_count_as_failure(get, monkeypatch) -> None:
    monkeypatch.setattr(remote_download, "GAINED", 1000)
    monkeypatch.setattr(remote_download, "APART", 1 << 30)
    # Ten breaks, each after some bytes: more than the five attempts that may be in vain.
    spoil = lambda number, _: (  # noqa: E731
        (lambda headers: storage.answer(headers, **{"X-Cut": "20000"})) if number < 10 else None
    )
    storage = Storage(spoil=spoil)
    assert get(storage) == BODY
    assert len(storage.asked) == 11


@pytest.mark.parametrize(
    ("content", "crc"),
    [
        (b"", 0),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_has_the_known_answers(tmp_path, content, crc) -> None:
    (tmp_path / "a").write_bytes(content)
    assert crc32c.crc32c_file(tmp_path / "a") == crc


def plain_crc32c(content: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (register & 1) * crc32c.POLYNOMIAL
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("size", [31, 1000, 1024, 1025, 50_001])
def test_crc32c_of_blocks_and_lanes_is_that_of_single_bits(tmp_path, monkeypatch, size) -> None:
    monkeypatch.setattr(crc32c, "BLOCK", 20_000)
    monkeypatch.setattr(crc32c, "LANES", 64)
    (tmp_path / "a").write_bytes(BODY[:size])
    assert crc32c.crc32c_file(tmp_path / "a") == plain_crc32c(BODY[:size])


def test_a_file_without_an_md5_is_checked_by_its_crc(get, tmp_path) -> None:
    (tmp_path / "whole").write_bytes(BODY)
    crc = crc32c.crc32c_file(tmp_path / "whole").to_bytes(4, "big")
    sent = {"x-goog-hash": f"crc32c={base64.b64encode(crc).decode()}"}
    storage = Storage(
        spoil=lambda number, _: (
            (200, {"ETag": '"v1"', **sent}, BODY[::-1])
            if number == 0
            else lambda headers: storage.answer(headers, **sent)
        )
    )
    assert get(storage) == BODY
    assert storage.asked.count(None) == 2
