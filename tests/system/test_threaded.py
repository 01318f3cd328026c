"""Threads do what takes long, in order, and short things stay in one."""

import threading
import time

import pytest

from dml_bench.system.threaded import threaded_map


class Clock:
    """Says how late it is. A busy machine would stretch real seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


@pytest.mark.parametrize(("seconds", "several"), [(0.0005, False), (0.004, True)])
def test_threads_take_part_where_an_item_takes_long(seconds, several, clock):
    threads = set()

    def double(item: int) -> int:
        threads.add(threading.current_thread().name)
        clock.now += seconds
        return 2 * item

    assert list(threaded_map(double, range(100))) == [2 * item for item in range(100)]
    assert (len(threads) > 1) == several


def test_a_first_item_that_imports_something_does_not_count(clock):
    threads = set()

    def work(item: int) -> None:
        threads.add(threading.current_thread().name)
        clock.now += 0.02 if item == 0 else 0

    list(threaded_map(work, range(50)))
    assert len(threads) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.004])
def test_an_error_is_raised_in_its_turn(seconds):
    def work(item: int) -> int:
        time.sleep(seconds)
        if item == 30:
            raise ValueError("item 30")
        return item

    done = []
    with pytest.raises(ValueError, match="item 30"):
        done.extend(threaded_map(work, range(100)))
    results = threaded_map(work, range(100))
    assert [next(results) for _ in range(30)] == list(range(30))
    assert list(threaded_map(work, [])) == []
