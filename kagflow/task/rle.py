"""Kaggle run lengths: pairs `start length`, 1-based, column-major, sorted, not overlapping."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kagflow.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
# Possessive, so that a long wrong string fails in linear time.
_PAIRS = re.compile(r"[1-9][0-9]{0,9} [1-9][0-9]{0,9}(?: [1-9][0-9]{0,9} [1-9][0-9]{0,9})*+")
_MAX_PAIRS = 10**6
_NO_NUMBER = "is not a whole number from 1 to 9999999999, single spaces between"
_HINT = "A mask is pairs 'start length': counted from 1, downwards then to the right, sorted."


def encode(mask: NDArray[Any]) -> str:
    """Write a mask (H, W), non-zero where set, as run lengths; "" when nothing is set.

    Runs that touch are merged, across columns too, so the text is canonical.
    """
    grey = np.ascontiguousarray(mask != 0).view(np.uint8)
    left, _, width, _ = cv2.boundingRect(grey)
    if not width:
        return ""
    height = grey.shape[0]
    flat = cv2.transpose(grey[:, left : left + width]).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [0] * int(flat[0]), [flat.size] * int(flat[-1])
    edges = np.concatenate([ends[0], edges, ends[1]]).astype(np.int64)
    pairs = edges.reshape(-1, 2)
    pairs[:, 1] -= pairs[:, 0]
    pairs[:, 0] += left * height + 1
    return " ".join(map(str, pairs.ravel().tolist()))


def decode(text: object, height: int, width: int) -> NDArray[np.uint8]:
    """Read run lengths into a mask (H, W), uint8 0/1; an empty or NaN cell is an empty mask.

    Raises DataError naming the value and the pair's number where the text breaks the grammar.
    """
    spans = runs(text, pixels=height * width)
    mask = np.zeros((height, width), np.uint8)
    if not len(spans):
        return mask
    # Only the columns between the first and the last pixel are unrolled.
    left, right = int(spans[0, 0]) // height, -(-int(spans[-1, 1]) // height)
    edges = np.concatenate([[left * height], spans.ravel(), [right * height]])
    colours = np.zeros(len(edges) - 1, np.uint8)
    colours[1::2] = 1
    columns = np.repeat(colours, np.diff(edges)).reshape(right - left, height)
    mask[:, left:right] = cv2.transpose(columns).reshape(height, right - left)
    return mask


def area(text: object) -> int:
    """Count the pixels that the run lengths cover; raises DataError as `decode` does."""
    spans = runs(text)
    return int((spans[:, 1] - spans[:, 0]).sum())


def intersection(first: object, second: object) -> int:
    """Count the pixels that both run lengths cover, without making masks."""
    spans = runs(first)
    if not len(spans):
        return 0
    below = _covered_below(runs(second), spans)
    return int((below[:, 1] - below[:, 0]).sum())


def runs(text: object, *, pixels: int | None = None) -> NDArray[np.int64]:
    """Read run lengths as spans (N, 2) int64: first pixel from 0, and the pixel after the last.

    Raises DataError on an odd count, a zero, a sign, a fraction, a value of over ten digits, runs
    that are unsorted or overlap, or that end after `pixels` where that is given.
    """
    if text is None or text == "" or (isinstance(text, float) and np.isnan(text)):
        return np.zeros((0, 2), np.int64)
    if not isinstance(text, str):
        raise DataError(f"run lengths are text, got {text!r}", hint=_HINT)
    if not _PAIRS.fullmatch(text):
        raise _grammar_fault(text)
    spans = np.fromstring(text, dtype=np.int64, sep=" ").reshape(-1, 2)
    if len(spans) > _MAX_PAIRS:
        raise DataError(f"{len(spans)} runs in one mask; at most {_MAX_PAIRS} are read", hint=_HINT)
    spans[:, 0] -= 1
    spans[:, 1] += spans[:, 0]
    _check_order(spans, pixels)
    return spans


def faults(text: str, *, pixels: int | None = None) -> Iterator[str]:
    """Say of every pair what `runs` refuses; nothing where it accepts the text.

    A pair is compared with the one before it, where both can be read.
    """
    tokens = text.split(" ")
    if text and len(tokens) > 2 * _MAX_PAIRS:
        yield f"{len(tokens) // 2} runs in one mask; at most {_MAX_PAIRS} are read"
        return
    end = 0
    for at in range(0, len(tokens) if text else 0, 2):
        pair, name = tokens[at : at + 2], f"pair {at // 2 + 1}"
        strange = [token for token in pair if not _NUMBER.fullmatch(token)]
        if strange:
            yield from (f"{name}: {token[:40]!r} {_NO_NUMBER}" for token in strange)
            end = 0
        elif len(pair) == 1:
            yield f"{name}: start {pair[0]} has no length ({len(tokens)} values, an odd count)"
        else:
            start, length = map(int, pair)
            if start <= end:
                yield f"{name}: start {start} is not after pixel {end}, where the pair before ends"
            end = start + length - 1
            if pixels is not None and end > pixels:
                yield f"{name}: {start} {length} ends at pixel {end} of an image of {pixels}"


def _check_order(spans: NDArray[np.int64], pixels: int | None) -> None:
    early = np.flatnonzero(spans[1:, 0] < spans[:-1, 1])
    if early.size:
        at = int(early[0]) + 1
        kind = "is not sorted" if spans[at, 0] < spans[at - 1, 0] else "overlaps the pair before"
        raise DataError(f"run lengths, pair {at + 1}: start {spans[at, 0] + 1} {kind}", hint=_HINT)
    if pixels is not None and spans[-1, 1] > pixels:
        at = int(np.flatnonzero(spans[:, 1] > pixels)[0])
        raise DataError(
            f"run lengths, pair {at + 1}: {spans[at, 0] + 1} {spans[at, 1] - spans[at, 0]} ends at "
            f"pixel {spans[at, 1]} of an image of {pixels}",
            hint=_HINT,
        )


def _grammar_fault(text: str) -> DataError:
    tokens = text.split(" ")
    for number, token in enumerate(tokens):
        if not _NUMBER.fullmatch(token):
            return DataError(
                f"run lengths, pair {number // 2 + 1}: {token[:40]!r} {_NO_NUMBER}",
                hint=_HINT,
            )
    return DataError(
        f"run lengths, pair {len(tokens) // 2 + 1}: start {tokens[-1]} has no length "
        f"({len(tokens)} values, an odd count)",
        hint=_HINT,
    )


def _covered_below(spans: NDArray[np.int64], points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for every point, the pixels of `spans` that lie before it."""
    if not len(spans):
        return np.zeros_like(points)
    total = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
    at = np.searchsorted(spans[:, 0], points, side="right")
    last = spans[np.maximum(at - 1, 0), 1]
    over = np.where(at > 0, np.maximum(last - points, 0), 0)
    counted: NDArray[np.int64] = total[at] - over
    return counted
