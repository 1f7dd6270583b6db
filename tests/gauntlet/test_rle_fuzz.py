"""Broken run lengths: never accepted, never anything but a DataError (F15)."""

from __future__ import annotations

import random

import pytest

from kagflow.errors import DataError
from kagflow.task import rle

HEIGHT, WIDTH = 256, 1600
PIXELS = HEIGHT * WIDTH


def good(rng: random.Random) -> list[int]:
    """Return the numbers of a valid text: sorted runs with gaps between."""
    cuts = sorted(rng.sample(range(1, PIXELS), 2 * rng.randint(1, 40)))
    numbers = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=True):
        numbers += [start, end - start]
    return numbers


def text(numbers) -> str:
    return " ".join(map(str, numbers))


def odd(rng, numbers):
    del numbers[rng.randrange(len(numbers))]
    return text(numbers)


def set_one(*values):
    def spoil(rng, numbers):
        numbers[rng.randrange(len(numbers))] = rng.choice(values)
        return text(numbers)

    return spoil


def unsorted(rng, numbers):
    numbers += [numbers[-2] + numbers[-1] + 2, 1]
    at = 2 * rng.randrange(len(numbers) // 2 - 1)
    numbers[at : at + 4] = numbers[at + 2 : at + 4] + numbers[at : at + 2]
    return text(numbers)


def overlap(rng, numbers):
    at = 2 * rng.randrange(len(numbers) // 2)
    start = numbers[at] + rng.randrange(numbers[at + 1])
    numbers[at + 2 : at + 2] = [start, rng.randint(1, 5)]
    return text(numbers)


def outside(rng, numbers):
    if rng.random() < 0.5:
        numbers[-1] = PIXELS - numbers[-2] + 1 + rng.randint(1, 1000)
    else:
        numbers += [PIXELS + rng.randint(1, 10**6), 1]
    return text(numbers)


def apart(*separators):
    def spoil(rng, numbers):
        words = list(map(str, numbers))
        at = rng.randrange(1, len(words))
        return " ".join(words[:at]) + rng.choice(separators) + " ".join(words[at:])

    return spoil


def around(*strays):
    def spoil(rng, numbers):
        stray = rng.choice(strays)
        return stray + text(numbers) if rng.random() < 0.5 else text(numbers) + stray

    return spoil


def other_type(rng, numbers):
    return rng.choice([numbers, numbers[0], 1.5, True, text(numbers).encode(), tuple(numbers), {}])


def any_bytes(rng, _):
    return "".join(
        chr(rng.choice([rng.randrange(1, 128), rng.randrange(128, 0xD7FF)])) for _ in "x" * 9
    )


KINDS = [
    odd,
    set_one(0),
    set_one(-1, -7, "+3", "1_0"),
    set_one("1.0", "2.5", "1e3", "0x10", "1.", ".5"),
    set_one(10**20, 10**10, "9" * 400),
    set_one("nan", "NaN", "inf", "None", "null", "true"),
    set_one("\u0661", "\u00b2", "\uff11", "\u2167", "01", "007"),
    unsorted,
    overlap,
    outside,
    apart(",", ", ", "  ", "\t", "\n", "\r\n", ";", "\u00a0", "\u2003", "\0"),
    around(" ", "\n", "\t", ",", "\0", "\ufeff", "'", '"', "[", " 1"),
    other_type,
    any_bytes,
]


def play(number: int) -> str | None:
    rng = random.Random(number)
    value = KINDS[number % len(KINDS)](rng, good(rng))
    try:
        rle.decode(value, HEIGHT, WIDTH)
    except DataError as fault:
        named = fault.message and fault.hint
        return None if named else f"a fault without words: {value!r}"
    except BaseException as fault:  # noqa: BLE001 - any other one is a failure
        return f"{type(fault).__name__}: {value!r}"
    return f"accepted: {value!r}"


def test_f15_a_share_of_broken_run_lengths(tally) -> None:
    tally.share("broken run lengths", play, range(700))


def test_good_ones_are_accepted() -> None:
    for seed in range(50):
        numbers = good(random.Random(seed))
        assert rle.area(text(numbers)) == sum(numbers[1::2])
        rle.decode(text(numbers), HEIGHT, WIDTH)


@pytest.mark.gauntlet
def test_f15_ten_thousand_broken_run_lengths(tally) -> None:
    tally.full("broken run lengths", play, 10_000, note="accepted or raw exception")
