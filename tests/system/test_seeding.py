"""Randomness as a pure function of its purpose."""

import random

import numpy as np
import pytest
import torch

from dml_bench.system.seeding import (
    callers_draws_kept,
    deterministic,
    permutation,
    seed_everything,
    uniform,
)


@pytest.fixture(autouse=True)
def keep_global_generators():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def test_draws_are_these_numbers_on_every_platform():
    assert uniform(42, "all", 3, "augment", rows=3, columns=2).tolist() == [
        [0.7802131026092254, 0.5325547958852224],
        [0.5334594475619414, 0.7386169953373862],
        [0.5388766991947981, 0.9868546582167567],
    ]


def test_a_row_does_not_depend_on_the_number_of_rows():
    many = uniform(1, "all", 2, rows=1000, columns=3)
    for rows in (1, 2, 7, 999):
        assert np.array_equal(uniform(1, "all", 2, rows=rows, columns=3), many[:rows])


def test_draws_depend_on_each_part_of_their_purpose():
    reference = uniform(1, "all", 2, "augment", rows=4, columns=2)
    for what in (
        (2, "all", 2, "augment"),
        (1, "limited", 2, "augment"),
        (1, "all", 3, "augment"),
        (1, "all", 2, "order"),
    ):
        assert not np.any(uniform(*what, rows=4, columns=2) == reference)


def test_draws_do_not_depend_on_what_was_drawn_before():
    first = uniform(5, "x", rows=3, columns=1)
    uniform(6, "y", rows=100, columns=9)
    np.random.default_rng().random(10)
    assert np.array_equal(uniform(5, "x", rows=3, columns=1), first)


def test_draws_are_uniform_from_0_to_1():
    values = uniform(0, "uniform", rows=20000, columns=2)
    assert values.min() >= 0 and values.max() < 1
    assert np.histogram(values, bins=10, range=(0, 1))[0] == pytest.approx([4000] * 10, abs=300)
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.03


def test_a_permutation_has_each_item_once():
    items = np.array([3, 10, 4, 99, 50])
    assert sorted(permutation(1, "all", 0, items=items).tolist()) == [3, 4, 10, 50, 99]


def test_a_permutation_is_pinned_and_another_one_in_each_epoch():
    assert permutation(42, "all", 0, items=np.arange(8)).tolist() == [3, 1, 7, 5, 6, 0, 4, 2]
    assert permutation(42, "all", 1, items=np.arange(8)).tolist() == [0, 1, 5, 7, 6, 2, 4, 3]


def test_a_permutation_leaves_its_items_as_they_were():
    items = np.arange(5)
    permutation(1, items=items)
    assert items.tolist() == [0, 1, 2, 3, 4]


def test_an_item_comes_first_as_often_as_any_other():
    first = [int(permutation(7, "all", epoch, items=np.arange(4))[0]) for epoch in range(800)]
    assert np.bincount(first) == pytest.approx([200] * 4, abs=60)


def drawn() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_seed_everything_makes_torch_numpy_and_python_draw_the_same_again():
    seed_everything(42, "all", 3)
    first = drawn()
    drawn()
    seed_everything(42, "all", 3)
    assert drawn() == first


def test_seed_everything_gives_each_epoch_other_numbers():
    seed_everything(42, "all", 3)
    first = drawn()
    seed_everything(42, "all", 4)
    assert all(now != before for now, before in zip(drawn(), first, strict=True))


def test_what_is_seeded_for_a_caller_leaves_the_draws_and_the_mode_of_torch_as_they_were():
    seed_everything(42, "caller")
    expected = drawn()
    seed_everything(42, "caller")
    mode = torch.get_deterministic_debug_mode()
    with pytest.raises(KeyboardInterrupt), callers_draws_kept():
        deterministic()
        seed_everything(7, "a run")
        torch.backends.cudnn.benchmark = True
        raise KeyboardInterrupt
    assert drawn() == expected
    assert torch.get_deterministic_debug_mode() == mode
    assert not torch.backends.cudnn.benchmark
    assert torch.utils.deterministic.fill_uninitialized_memory
