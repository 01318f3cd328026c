"""A study: which experiment is the best depends on the question."""

from pathlib import Path

import pytest
from handmade import experiment, finish

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.study import Study

RIGHT = {
    "accurate": {
        "all": [[1, 1], [1, 1], [1, 1], [1, 1]],
        "limited": [[1, 1], [1, 1], [0, 0], [0, 1]],
    },
    "robust": {
        "all": [[1, 1], [1, 0], [1, 1], [1, 0]],
        "limited": [[1, 0], [1, 0], [1, 1], [0, 1]],
    },
    "weak": {"all": [[1, 0], [1, 0], [1, 0], [1, 0]], "limited": [[1, 0], [1, 0], [0, 0], [0, 0]]},
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for name, right in RIGHT.items():
        finish(tmp_path, experiment(name, unseen="last:2"), right)
    [study] = studies_of(collect([tmp_path]))
    return study


@pytest.mark.parametrize(
    ("quantity", "best", "value"),
    [
        ("known", "accurate", 1.0),
        ("unseen_limited", "robust", 0.75),
        ("drop_unseen", "robust", 0.0),
        ("cost", "robust", -0.25),
    ],
)
def test_each_question_names_the_best_for_it_and_from_how_many_it_was_picked(
    study, quantity, best, value
):
    answer = study.best_by(quantity)
    assert answer is not None
    assert (answer.line.name, answer.picked_from) == (best, 3)
    assert answer.value.estimate == pytest.approx(value)


def test_nothing_is_the_best_by_what_no_method_has(study):
    assert study.best_by("logits") is None


def test_an_experiment_with_under_three_seeds_enters_no_rank_beside_one_that_has_them(tmp_path):
    for name, seeds in (("accurate", (42, 43)), ("weak", (42, 43, 44))):
        for seed in seeds:
            finish(tmp_path, experiment(name, unseen="last:2", seed=seed), RIGHT[name])
    [study] = studies_of(collect([tmp_path]))
    answer = study.best_by("known")
    assert answer is not None
    assert (answer.line.name, answer.picked_from) == ("weak", 1)
