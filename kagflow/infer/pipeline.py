"""Two plumbing pieces: run a stage in its own thread, and group items of equal shape."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
_END = object()


def background(source: Iterable[T], *, ahead: int) -> Iterator[T]:
    """Yield the items of `source` in order, computed in one other thread, `ahead` at most.

    An error in `source` is raised here, after the items before it; closing this iterator stops
    the thread after the item that it is at.
    """
    items = iter(source)
    with ThreadPoolExecutor(1) as pool:
        queue = deque(pool.submit(next, cast("Iterator[Any]", items), _END) for _ in range(ahead))
        try:
            while (item := queue.popleft().result()) is not _END:
                queue.append(pool.submit(next, cast("Iterator[Any]", items), _END))
                yield cast(T, item)
        finally:
            pool.shutdown(cancel_futures=True)
            if close := getattr(items, "close", None):
                close()


class Batcher(Generic[T]):
    """Collect items into groups of one key, `size` items each.

    At most `8 * size` items wait: where shapes vary widely the fullest group leaves early, so
    that memory stays bounded.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: dict[Hashable, list[T]] = {}

    def add(self, key: Hashable, item: T) -> list[list[T]]:
        """Take an item; return the groups that are now due."""
        group = self._waiting.setdefault(key, [])
        group.append(item)
        if len(group) >= self.size:
            return [self._waiting.pop(key)]
        if sum(map(len, self._waiting.values())) >= 8 * self.size:
            return [self._waiting.pop(max(self._waiting, key=lambda k: len(self._waiting[k])))]
        return []

    def drain(self) -> list[list[T]]:
        """Return what is left, in the order of arrival of the first of each group."""
        groups, self._waiting = list(self._waiting.values()), {}
        return groups
