"""Unpack an archive's members while the rest of it is still coming.

It is a head start and nothing else: the files wait in a folder that has no name yet, and whatever
goes wrong here is thrown away and left to the unpacking after the download, which says what it is.
"""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kagflow.errors import KagflowError
from kagflow.progress import QUIET, Progress
from kagflow.ship import archive, listing
from kagflow.ship.archive import Unpacked, Unpacker
from kagflow.ship.listing import Member
from kagflow.ship.remote_parts import Gap, Part

LARGEST = 64 << 20  # bytes of a member for which a stream may stand still
AT_ONCE = 2  # streams that unpack at the same time; the others go on bringing bytes


@dataclass
class Ahead:
    """Fill an empty folder with an archive's files, or those that match `only`.

    `need` hears how many bytes they have, and raises where the disk has no room for them.
    """

    folder: Path
    only: str | None
    need: Callable[[int], None]
    _chosen: list[Member] = field(default_factory=list, init=False)
    _waiting: dict[int, deque[Member]] = field(default_factory=dict, init=False)
    _done: dict[str, Unpacked] = field(default_factory=dict, init=False)
    _void: bool = field(default=False, init=False)
    _listing: threading.Lock = field(default_factory=threading.Lock, init=False)
    _turns: threading.Semaphore = field(init=False)
    _unpacker: Unpacker = field(init=False)

    def __post_init__(self) -> None:
        self._turns = threading.Semaphore(AT_ONCE)
        self._unpacker = Unpacker(self.folder)

    def begin(self) -> None:
        """Throw away what is there: the bytes that come now are others."""
        for inner in self.folder.iterdir():
            if inner.is_dir():
                shutil.rmtree(inner)
            else:
                inner.unlink()
        self._chosen, self._waiting, self._done, self._void = [], {}, {}, False
        self._unpacker = Unpacker(self.folder)

    def came(self, part: Part, gap: Gap) -> None:
        """Unpack what is whole before the end of what a stream has brought, in its own thread."""
        if self._void or not self._turns.acquire(blocking=gap.closed):
            return
        try:
            self._list(part)
            self._unpack(part, gap)
        except (KagflowError, OSError):
            self._void = True
        finally:
            self._turns.release()

    def finish(self, path: Path, *, progress: Progress = QUIET) -> list[Unpacked]:
        """Unpack the rest of the whole archive; return the files in its order.

        Raises as `archive.unpack` and `listing.members` do.
        """
        if self._void:
            self.begin()
        if not self._chosen:
            self._choose(path)
        rest = [member for member in self._chosen if member.name not in self._done]
        for file in archive.unpack(path, self.folder, rest, progress=progress):
            self._done[file.name] = file
        return [self._done[member.name] for member in self._chosen]

    def _choose(self, path: Path) -> None:
        chosen = listing.members(path, only=self.only)
        self.need(sum(member.size for member in chosen))
        self._chosen = chosen

    def _list(self, part: Part) -> None:
        """Read the listing as soon as the archive's last bytes are there, and share it out."""
        with self._listing:
            if self._chosen or len(part.gaps) < 2 or not part.gaps[-1].closed:
                return
            self._choose(part.path)
            begins = [0, *(gap.end or 0 for gap in part.gaps)]
            for begin, gap in zip(begins, part.gaps, strict=False):
                end = gap.end or 0
                mine = (m for m in self._chosen if begin <= m.at and m.end <= end)
                self._waiting[end] = deque(m for m in mine if m.size <= LARGEST)

    def _unpack(self, part: Part, gap: Gap) -> None:
        # Each stream has a queue of its own: no other thread takes from it.
        waiting = self._waiting.get(gap.end or 0)
        while waiting and waiting[0].end <= gap.at and not self._void:
            member = waiting.popleft()
            self._done[member.name] = self._unpacker.unpack(part.descriptor, member)
            if part.version.unchecked:
                archive.let_go(part.descriptor, member)
