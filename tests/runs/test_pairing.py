"""Runs are compared query by query only where seed and queries are the same."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from dml_bench.config import experiments
from dml_bench.runs.pairing import NotPaired, Side, pair_runs, runs_in_common
from dml_bench.runs.run import Run
from tests.handmade import finish

RIGHT = {"all": [[1, 0]] * 4, "limited": [[1, 0]] * 4}


def runs(out: Path, seeds: Iterable[int], splits: Sequence[str] = ()) -> tuple[Run, ...]:
    """Finished runs with these seeds; a name of a split stands for other queries."""
    made = []
    for number, seed in enumerate(seeds):
        experiment = experiments.resolve("EPSHN_cosine_resnet18_sgd", overrides=[f"seed={seed}"])
        split = splits[number] if splits else ""
        made.append(finish(out, experiment, RIGHT, split=split))
    return tuple(made)


def test_only_seeds_of_all_experiments_are_in_common_in_the_order_of_the_first(tmp_path):
    first = runs(tmp_path / "a", (44, 42, 43))
    second = runs(tmp_path / "b", (42, 43, 44))
    third = runs(tmp_path / "c", (45, 44, 42))
    shared = runs_in_common(first, second, third)
    assert shared == [(first[0], second[2], third[1]), (first[1], second[0], third[2])]


def test_a_seed_with_other_queries_is_left_out_or_refused(tmp_path):
    first = runs(tmp_path / "a", (42, 43))
    second = runs(tmp_path / "b", (42, 43), splits=("", "another"))
    assert [pair[0].seed for pair in runs_in_common(first, second)] == [42]
    with pytest.raises(NotPaired, match="a and b can't be compared: the same seed divided their"):
        pair_runs(Side("a", first), Side("b", second))


def test_a_pair_has_one_run_of_each_experiment(tmp_path):
    first, second = runs(tmp_path / "a", (42, 43)), runs(tmp_path / "b", (43, 44))
    [pair] = pair_runs(Side("a", first), Side("b", second))
    assert (pair.first, pair.second) == (first[1], second[0])
