"""Forty hostile archives: nothing leaves the folder, nothing half-made stays (F2, F29, F31)."""

from __future__ import annotations

import io
import random
import resource
import stat
import struct
import zipfile
import zlib

import pytest

from kagflow import durable
from kagflow.errors import DataError
from kagflow.ship import archive, listing

GOOD = ("train_images/a.png", random.Random(0).randbytes(5000))


def packed(*members, method=zipfile.ZIP_DEFLATED, good=True) -> bytes:
    """Return a zip of (name or ZipInfo, bytes) after a good member."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as made:
        for name, content in ((GOOD,) if good else ()) + members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = method
            made.writestr(info, content)
    return body.getvalue()


def named(name: str) -> bytes:
    """Return a zip whose member has a name that zipfile would mend while writing."""
    stand_in = "Q" * len(name.encode())
    return packed((stand_in, b"evil")).replace(stand_in.encode(), name.encode())


def typed(kind: int, name="evil", content=b"/etc/passwd") -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return packed((info, content))


def through_a_link() -> bytes:
    info = zipfile.ZipInfo("out")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return packed((info, b".."), ("out/evil", b"x"))


def central(body: bytes) -> int:
    """Return where the last member's entry in the listing begins."""
    return body.rindex(b"PK\1\2")


def local(body: bytes) -> int:
    """Return where the last member's own header begins."""
    return struct.unpack_from("<I", body, central(body) + 42)[0]


def poked(body: bytes, at: int, layout: str, value: int) -> bytes:
    spoilt = bytearray(body)
    struct.pack_into(layout, spoilt, at, value)
    return bytes(spoilt)


def two() -> bytes:
    return packed(("evil", b"e" * 300))


def listed_size(size: int) -> bytes:
    body = two()
    body = poked(body, central(body) + 24, "<I", size)
    return poked(body, local(body) + 22, "<I", size)


def crc() -> bytes:
    body = two()
    body = poked(body, central(body) + 16, "<I", 7)
    return poked(body, local(body) + 14, "<I", 7)


def overlapping(copies=50) -> bytes:
    """Return a listing in which every name points at the same packed bytes."""
    body = packed(("evil", b"\0" * 500_000), good=False)
    start = body.index(b"PK\1\2")
    end = body.index(b"PK\5\6")
    entries = b""
    for number in range(copies):
        entries += body[start:end].replace(b"evil", b"e%03d" % number)
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, copies, copies, len(entries), start, 0)
    return body[:start] + entries + tail


def many() -> bytes:
    return packed(*[(f"d/{number}", b"") for number in range(3000)], method=zipfile.ZIP_STORED)


def bits(flag: int) -> bytes:
    body = two()
    body = poked(body, central(body) + 8, "<H", flag)
    return poked(body, local(body) + 6, "<H", flag)


def method(number: int) -> bytes:
    body = two()
    body = poked(body, central(body) + 10, "<H", number)
    return poked(body, local(body) + 8, "<H", number)


def trailing() -> bytes:
    """Return a member whose packed bytes go on after their own end."""
    content = b"e" * 300
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = pack.compress(content) + pack.flush()
    body = packed(("evil", raw + b"junk"), method=zipfile.ZIP_STORED)
    for base, offset in ((central(body), 10), (local(body), 8)):
        body = poked(body, base + offset, "<H", zipfile.ZIP_DEFLATED)
    for base, offset in ((central(body), 16), (local(body), 14)):
        body = poked(body, base + offset, "<I", zlib.crc32(content))
    for base, offset in ((central(body), 24), (local(body), 22)):
        body = poked(body, base + offset, "<I", len(content))
    return body


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :]


HOSTILE = {
    "parent": lambda: named("../evil"),
    "parent inside": lambda: named("a/../../evil"),
    "parent at the end": lambda: named("a/b/.."),
    "absolute": lambda: named("/tmp/evil"),
    "two slashes": lambda: named("//tmp/evil"),
    "backslashes": lambda: named("..\\..\\evil"),
    "drive": lambda: named("C:evil"),
    "drive path": lambda: named("C:/evil"),
    "dot": lambda: named("."),
    "second name by dot": lambda: named("./train_images/a.png"),
    "second name by slashes": lambda: named("train_images//a.png"),
    "newline": lambda: named("evil\nx"),
    "escape": lambda: named("evil\x1b[2J"),
    "nul": lambda: named("evil\0.png"),
    "empty name": lambda: packed(("", b"x")),
    "name too long": lambda: named("e" * 300),
    "path too long": lambda: named("e/" * 700 + "e"),
    "symbolic link": lambda: typed(stat.S_IFLNK),
    "symbolic link, then through it": through_a_link,
    "device": lambda: typed(stat.S_IFBLK),
    "character device": lambda: typed(stat.S_IFCHR),
    "pipe": lambda: typed(stat.S_IFIFO),
    "socket": lambda: typed(stat.S_IFSOCK),
    "folder with bytes": lambda: packed(("evil/", b"x")),
    "listed twice": lambda: packed(("evil", b"x"), ("evil", b"y")),
    "twice by case": lambda: packed(("evil", b"x"), ("EVIL", b"y")),
    "twice by accents": lambda: packed(("\u00e9vil", b"x"), ("e\u0301vil", b"y")),
    "file as a folder": lambda: packed(("evil", b"x"), ("evil/x", b"y")),
    "bomb": lambda: packed(("evil", b"\0" * 50_000_000)),
    "bomb in pieces": lambda: packed(*[(f"e{n}", b"\0" * 1_000_000) for n in range(60)]),
    "bomb that lies": lambda: listed_size(10),
    "member that is shorter": lambda: listed_size(301),
    "overlapping members": overlapping,
    "too many": many,
    "other name in the header": lambda: two().replace(b"evil", b"live", 1),
    "other CRC in the header": lambda: poked(two(), local(two()) + 14, "<I", 7),
    "other size in the header": lambda: poked(two(), local(two()) + 22, "<I", 7),
    "other method in the header": lambda: poked(two(), local(two()) + 8, "<H", 0),
    "wrong CRC": crc,
    "bytes after the packed end": trailing,
    "header out of the file": lambda: poked(two(), central(two()) + 42, "<I", 10**8),
    "encrypted": lambda: bits(1),
    "unknown method": lambda: method(99),
    "a damaged byte": lambda: flipped(two(), 2000),
    "cut off": lambda: two()[:-400],
    "cut in the listing": lambda: two()[:-30],
    "nothing": lambda: b"",
    "a page": lambda: b"<html><title>Sign in</title></html>" * 50,
    "tar": lambda: b"evil".ljust(100, b"\0") + b"0000777\0" * 3 + b"\0" * 2000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_f29_hostile_archives_never_land(kind, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(listing, "MEMBERS", 1000)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = inside / "data.zip"
    path.write_bytes(HOSTILE[kind]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught, durable.staging(inside / "made") as folder:
        archive.unpack(path, folder, listing.members(path))
    assert caught.value.message
    assert [found.name for found in tmp_path.rglob("*")].count("data.zip") == 1
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["a", "b", "data.zip"]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "kilobytes, for an archive of a few"


def test_f29_there_are_forty_and_more(capsys) -> None:
    with capsys.disabled():
        print(f" [hostile archives: {len(HOSTILE)} played] ", end="")
    assert len(HOSTILE) >= 40


def test_the_good_member_alone_lands(tmp_path) -> None:
    for way in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        path = tmp_path / f"{way}.zip"
        path.write_bytes(packed(("folder/", b""), ("\u00e9/b.csv", b"x" * 1000), method=way))
        out = tmp_path / str(way)
        out.mkdir()
        files = archive.unpack(path, out, listing.members(path))
        assert (out / GOOD[0]).read_bytes() == GOOD[1]
        assert (out / "\u00e9/b.csv").read_bytes() == b"x" * 1000
        assert {file.name for file in files} == {GOOD[0], "\u00e9/b.csv"}


def test_archives_whose_sizes_follow_the_bytes_are_read(tmp_path) -> None:
    class Stream(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

    body = Stream()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.csv", b"y" * 5000)
        made.writestr("b.csv", b"z")
    (tmp_path / "s.zip").write_bytes(body.getvalue())
    (tmp_path / "out").mkdir()
    assert [
        file.size
        for file in archive.unpack(
            tmp_path / "s.zip", tmp_path / "out", listing.members(tmp_path / "s.zip")
        )
    ] == [5000, 1]


def test_f31_a_link_in_the_way_is_never_written_through(tmp_path) -> None:
    (tmp_path / "a.zip").write_bytes(packed(("evil/x", b"x")))
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "out"
    (target / "train_images").mkdir(parents=True)
    (target / "train_images" / "a.png").symlink_to(outside / "a.png")
    with pytest.raises(DataError, match=r"a\.png"):
        archive.unpack(tmp_path / "a.zip", target, listing.members(tmp_path / "a.zip"))
    assert not list(outside.iterdir())


@pytest.mark.gauntlet
def test_f29_all_hostile_archives(tally, tmp_path) -> None:
    kinds = list(HOSTILE)

    def play(number: int) -> str | None:
        inside = tmp_path / str(number) / "b"
        inside.mkdir(parents=True)
        (inside / "data.zip").write_bytes(HOSTILE[kinds[number]]())
        try:
            with durable.staging(inside / "made") as folder:
                archive.unpack(inside / "data.zip", folder, listing.members(inside / "data.zip"))
        except DataError:
            left = sorted(found.name for found in (tmp_path / str(number)).rglob("*"))
            return None if left == ["b", "data.zip"] else f"{kinds[number]}: {left}"
        except BaseException as error:  # noqa: BLE001 - any other one is a failure
            return f"{kinds[number]}: {type(error).__name__}"
        return f"{kinds[number]}: unpacked"

    archive_limit = listing.MEMBERS
    listing.MEMBERS = 1000
    try:
        tally.full("hostile archives", play, len(kinds), note="escaped, accepted or raw exception")
    finally:
        listing.MEMBERS = archive_limit
