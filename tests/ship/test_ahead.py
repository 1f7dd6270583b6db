"""Unpacking while the archive still comes: a head start that changes nothing in the outcome."""

from __future__ import annotations

import random
import zipfile

import pytest

from kagflow.errors import DataError, LocalError
from kagflow.ship import ahead, listing
from kagflow.ship.ahead import Ahead
from kagflow.ship.remote_parts import Part, Version

NAMES = [f"train_images/{number:02}.png" for number in range(40)]
NOISE = random.Random(0)
CONTENT = {name: NOISE.randbytes(3000) for name in NAMES} | {"train.csv": b"a,b\n" * 2000}


class Coming:
    """An archive of which some bytes are here, in four streams and its end apart."""

    def __init__(self, folder, *, spoil=None, method=zipfile.ZIP_DEFLATED, only=None, need=None):
        whole = folder / "whole.zip"
        with zipfile.ZipFile(whole, "w", method) as made:
            for name, content in CONTENT.items():
                made.writestr(name, content)
        self.bytes = bytearray(whole.read_bytes())
        if spoil:
            at = self.bytes.index(CONTENT[spoil][100:200])
            self.bytes[at] ^= 1
        self.path, self.out = folder / "a.zip", folder / "out"
        self.out.mkdir()
        self.ahead = Ahead(self.out, only, need or (lambda _: None))
        self.start()

    def start(self) -> None:
        version = Version(len(self.bytes), '"1"')
        self.part = Part.begin(self.path, version, 4, tail=len(self.bytes) // 8)

    def bring(self, number: int, share: float = 1.0) -> None:
        """Let a share of one stream's bytes come."""
        gap = self.part.gaps[number]
        size = int((gap.end - gap.at) * share) if share < 1 else gap.end - gap.at
        while size:
            step = min(size, 1000)
            self.part.write(gap, bytes(self.bytes[gap.at : gap.at + step]))
            self.ahead.came(self.part, gap)
            size -= step

    def bring_all(self) -> None:
        for number in reversed(range(5)):
            self.bring(number)

    def here(self) -> set[str]:
        return {
            path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()
        }

    def end(self) -> dict[str, bytes]:
        self.part.close()
        self.part.keep(mark=False)
        files = self.ahead.finish(self.path)
        assert self.here() == {file.name for file in files}
        return {file.name: (self.out / file.name).read_bytes() for file in files}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_members_are_there_before_the_archive_is(tmp_path, method) -> None:
    coming = Coming(tmp_path, method=method)
    begins = [gap.at for gap in coming.part.gaps]
    coming.bring(0, 0.5)
    # Nothing is written before the listing is judged.
    assert coming.here() == set()
    coming.bring(4)
    coming.bring(1, 0.5)
    coming.bring(0, 0.5)
    whole = {
        member.name
        for member in listing.members(tmp_path / "whole.zip")
        for begin, gap in zip(begins, coming.part.gaps, strict=True)
        if begin <= member.at and member.end <= gap.at
    }
    assert coming.here() == whole
    assert {NAMES[0], NAMES[12], "train.csv"} < whole < set(CONTENT)
    coming.bring(2)
    coming.bring(3)
    coming.bring(1)
    coming.bring(0)
    # What lies in two streams is left for the end.
    assert len(CONTENT) - 4 <= len(coming.here()) < len(CONTENT)
    assert coming.end() == CONTENT


def test_only_what_matches_is_unpacked(tmp_path) -> None:
    coming = Coming(tmp_path, only="*/1?.png")
    coming.bring_all()
    assert coming.end() == {name: CONTENT[name] for name in NAMES[10:20]}


def test_damage_is_left_to_the_end_which_names_it(tmp_path) -> None:
    coming = Coming(tmp_path, spoil=NAMES[3], method=zipfile.ZIP_STORED)
    for number in (4, 0, 1, 2, 3):
        coming.bring(number)
    assert NAMES[2] in coming.here()
    assert coming.here().isdisjoint(NAMES[4:39])
    with pytest.raises(DataError, match=f"'{NAMES[3]}' has another CRC"):
        coming.end()


def test_a_listing_longer_than_the_end_that_came_first_is_read_later(tmp_path) -> None:
    coming = Coming(tmp_path)
    coming.part.close()
    coming.part = Part.begin(coming.path, coming.part.version, 4, tail=30)
    coming.bring_all()
    assert coming.here() == set()
    assert coming.end() == CONTENT


def test_bytes_of_another_version_leave_nothing_behind(tmp_path) -> None:
    coming = Coming(tmp_path)
    coming.bring(4)
    coming.bring(1)
    assert coming.here()
    coming.ahead.begin()
    coming.start()
    assert coming.here() == set()
    coming.bring_all()
    assert coming.end() == CONTENT


def test_a_full_disk_is_told_at_the_end(tmp_path) -> None:
    def need(size: int) -> None:
        assert size == sum(map(len, CONTENT.values()))
        raise LocalError("too full")

    coming = Coming(tmp_path, need=need)
    coming.bring_all()
    assert coming.here() == set()
    with pytest.raises(LocalError, match="too full"):
        coming.end()


def test_what_a_broken_download_brought_is_unpacked_when_it_goes_on(tmp_path) -> None:
    coming = Coming(tmp_path)
    coming.bring(4)
    coming.bring(1, 0.5)
    coming.part.close()
    some = coming.here()
    coming.part = Part.find(coming.path)
    coming.bring(1)
    assert coming.here() > some
    coming.bring(0)
    coming.bring(2)
    coming.bring(3)
    assert coming.end() == CONTENT


def test_large_members_do_not_hold_a_stream(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ahead, "LARGEST", 3500)
    coming = Coming(tmp_path)
    coming.bring_all()
    assert "train.csv" not in coming.here()
    assert coming.end() == CONTENT
