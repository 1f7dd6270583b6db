import threading
import time

import pytest

from kagflow.infer.pipeline import Batcher, background


def test_order_is_kept_and_the_source_runs_elsewhere():
    threads = set()

    def source():
        for index in range(50):
            threads.add(threading.get_ident())
            yield index

    assert list(background(source(), ahead=3)) == list(range(50))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_source_never_runs_further_ahead_than_allowed():
    made = []

    def source():
        for index in range(100):
            made.append(index)
            yield index

    reader = background(source(), ahead=4)
    for taken in range(5):
        next(reader)
        time.sleep(0.02)
        assert len(made) <= taken + 1 + 5
    reader.close()
    assert len(made) < 20


def test_an_error_comes_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise ValueError("third")

    reader = background(source(), ahead=4)
    assert next(reader) == 1
    assert next(reader) == 2
    with pytest.raises(ValueError, match="third"):
        next(reader)


def test_closing_closes_the_source_and_ends_the_thread():
    before, closed = threading.active_count(), []

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    reader = background(background(source(), ahead=2), ahead=2)
    next(reader)
    reader.close()
    assert closed == [True]
    assert threading.active_count() == before


def test_groups_hold_one_key_and_leave_when_full():
    batcher = Batcher(2)
    assert batcher.add("a", 1) == []
    assert batcher.add("b", 2) == []
    assert batcher.add("a", 3) == [[1, 3]]
    assert batcher.add("c", 4) == []
    assert batcher.drain() == [[2], [4]]
    assert batcher.drain() == []


def test_a_thousand_shapes_do_not_pile_up():
    batcher, left = Batcher(4), 0
    for index in range(1000):
        left += sum(map(len, batcher.add(index, index)))
        assert index + 1 - left < 32
