from __future__ import annotations

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kagflow.errors import DataError
from kagflow.task import rle

MASKS = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)
)


def usual_encode(mask):
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def test_known_answer_counts_down_columns_from_one():
    mask = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    assert rle.encode(mask) == "2 3"
    assert rle.decode("2 3", 2, 3).tolist() == mask.tolist()
    corner = np.zeros((2, 3), np.uint8)
    corner[1, 2] = 1
    assert rle.encode(corner) == "6 1"
    assert rle.encode(np.ones((2, 3), bool)) == "1 6"


@pytest.mark.parametrize("empty", ["", None, float("nan")])
def test_empty_cells_are_empty_masks(empty):
    assert rle.decode(empty, 2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert rle.area(empty) == 0
    assert rle.encode(np.zeros((2, 3))) == ""


@given(MASKS)
def test_encode_agrees_with_the_usual_kernel_and_decodes_back(mask):
    text = rle.encode(mask)
    assert text == usual_encode(mask)
    back = rle.decode(text, *mask.shape)
    assert back.dtype == np.uint8
    assert np.array_equal(back, mask)
    assert rle.area(text) == mask.sum()


def test_any_nonzero_value_and_any_memory_layout_counts():
    mask = np.zeros((5, 7), np.int64)
    mask[1:3, 2:5] = 7
    assert rle.encode(mask) == rle.encode(mask > 0) == usual_encode((mask > 0).astype(np.uint8))
    assert rle.encode(mask[:, ::-1]) == usual_encode((mask[:, ::-1] > 0).astype(np.uint8))
    assert rle.encode(np.asfortranarray(mask)) == rle.encode(mask)
    assert rle.encode((mask / 14).astype(np.float32)) == rle.encode(mask)


def test_touching_runs_are_read_and_merged():
    assert rle.encode(rle.decode("1 2 3 2", 2, 3)) == "1 4"
    assert rle.area("1 2 3 2") == 4


@given(st.data())
def test_intersection_is_that_of_the_masks(data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    first, second = (
        data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))) for _ in range(2)
    )
    both = rle.intersection(rle.encode(first), rle.encode(second))
    assert both == np.logical_and(first, second).sum()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3", "pair 1: start 3 has no length"),
        ("1 1 5", "pair 2: start 5 has no length"),
        ("0 3", "pair 1: '0'"),
        ("1 0", "pair 1: '0'"),
        ("1 2 -4 1", "pair 2: '-4'"),
        ("1 2.0", "pair 1: '2.0'"),
        ("1,2", "pair 1: '1,2'"),
        ("nan", "'nan'"),
        (" 1 2", "pair 1: ''"),
        ("1  2", "pair 1: ''"),
        ("01 2", "'01'"),
        ("1 2\n", "pair 1"),
        ("1\t2", "pair 1"),
        ("\u0661 \u0662", "pair 1"),
        ("100000000000000000000 1", "pair 1: '100000000000000000000'"),
        ("5 2 1 1", "pair 2: start 1 is not sorted"),
        ("1 3 3 1", "pair 2: start 3 overlaps"),
        ("1 1 6 2", "pair 2: 6 2 ends at pixel 7 of an image of 6"),
        ("7 1", "pair 1: 7 1 ends at pixel 7 of an image of 6"),
        (3, "got 3"),
    ],
)
def test_broken_text_is_refused_by_name(text, says):
    with pytest.raises(DataError) as caught:
        rle.decode(text, 2, 3)
    assert says in str(caught.value)
    assert caught.value.hint


def test_too_many_runs_are_refused():
    with pytest.raises(DataError, match="at most 1000000"):
        rle.area(" ".join(f"{2 * i + 1} 1" for i in range(10**6 + 1)))


def strictly_valid(text, pixels):
    """Judge by the grammar alone, one token at a time."""
    if text == "":
        return True
    tokens = text.split(" ")
    if len(tokens) % 2:
        return False
    end = 0
    for start, length in zip(tokens[::2], tokens[1::2], strict=True):
        for token in (start, length):
            if not token or token[0] == "0" or len(token) > 10 or set(token) - set(string.digits):
                return False
        if int(start) <= end:
            return False
        end = int(start) + int(length) - 1
    return end <= pixels


def mutate(rng, text):
    at = rng.randrange(len(text) + 1)
    junk = rng.choice(["", " ", "0", "-", "9999999999", "1e3", ".5", ",", "NaN", "\n", "x", " 1 1"])
    return text[:at] + junk + text[at + rng.randrange(3) :]


def test_ten_thousand_fuzzed_texts_are_read_right_or_refused():
    rng = random.Random(0)
    mask_rng = np.random.default_rng(0)
    refused = accepted = 0
    for _ in range(10_000):
        mask = mask_rng.random((4, 9)) < 0.3
        text = mutate(rng, rle.encode(mask)) if rng.random() < 0.9 else rle.encode(mask)
        valid = strictly_valid(text, 36)
        try:
            found = rle.decode(text, 4, 9)
        except DataError:
            assert not valid, text
            refused += 1
        else:
            assert valid, text
            assert found.sum() == rle.area(text)
            accepted += 1
    assert refused > 3000
    assert accepted > 1000
