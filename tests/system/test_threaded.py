"""Threads do what takes long, in order, and short things stay in one."""

import threading
import time

import pytest

from dml_bench.system.threaded import threaded_map


@pytest.mark.parametrize(("seconds", "several"), [(0.0, False), (0.004, True)])
def test_threads_take_part_where_an_item_takes_long(seconds, several):
    threads = set()

    def double(item: int) -> int:
        threads.add(threading.current_thread().name)
        time.sleep(seconds)
        return 2 * item

    assert list(threaded_map(double, range(100))) == [2 * item for item in range(100)]
    assert (len(threads) > 1) == several


def test_a_first_item_that_imports_something_does_not_count():
    threads = set()

    def work(item: int) -> None:
        threads.add(threading.current_thread().name)
        time.sleep(0.02 if item == 0 else 0)

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
