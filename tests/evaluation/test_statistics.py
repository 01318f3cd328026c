"""Intervals, against slow loops from the definition, scipy, hand calculation, and simulations whose
truth is known."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from dml_bench.evaluation.statistics import (
    Average,
    Scores,
    estimate,
    interval,
    resampled_means,
    spread,
)


def scores(*classes: list[float]) -> Scores:
    """The values of the queries of class 0, of class 1, ..."""
    return Scores(
        np.concatenate([np.array(values, float) for values in classes]),
        np.repeat(np.arange(len(classes)), list(map(len, classes))),
    )


UNEVEN = scores([1, 0, 1, 1], [0, 0], [-1, 1, 0, 1, 1], [1], [0, 0, -1, 1, 0, 0, 1])
OTHER = scores([0, 0, 1], [1, 0, -1], [1, 1, 1, 0], [0, 1], [-1])
CONTINUOUS = scores(
    [0.25, 0.5, 0.75, 0.1], [0.9, 0.8], [0.05, 0.3, 0.2], [0.6, 0.65, 0.7, 0.72, 0.9]
)


def slow_loop(
    seeds: list[Scores], average: Average, resamples: int, chance: np.random.Generator
) -> np.ndarray:
    """The two-stage bootstrap word for word: draw classes, then in each drawn class its queries,
    average."""

    def by_class(seed: Scores) -> list[np.ndarray]:
        return [seed.values[seed.labels == label] for label in np.unique(seed.labels)]

    queries = shrunk([by_class(seed) for seed in seeds], average)
    resampled = []
    for _ in range(resamples):
        drawn = chance.integers(len(queries[0]), size=len(queries[0]))
        means = []
        for of_class in queries:
            parts = [
                of_class[i][chance.integers(len(of_class[i]), size=len(of_class[i]))] for i in drawn
            ]
            means.append(
                np.mean([part.mean() for part in parts])
                if average == "macro"
                else np.concatenate(parts).mean()
            )
        resampled.append(np.mean(means))
    return np.array(resampled)


def shrunk(queries: list[list[np.ndarray]], average: Average) -> list[list[np.ndarray]]:
    """The shrinkage correction: class means drawn to the mean until their variance is free of
    noise, deviations of queries widened."""
    contributions, noises, means = [], [], []
    for classes in queries:
        images = sum(map(len, classes))
        weights = [
            len(own) * len(classes) / images if average == "micro" else 1.0 for own in classes
        ]
        mean = sum(w * own.mean() for w, own in zip(weights, classes, strict=True)) / len(classes)
        contributions.append(
            [w * (own.mean() - mean) for w, own in zip(weights, classes, strict=True)]
        )
        within = sum(((own - own.mean()) ** 2).sum() for own in classes) / (images - len(classes))
        noises.append(
            within * np.mean([w**2 / len(own) for w, own in zip(weights, classes, strict=True)])
        )
        means.append(mean)
    between = len(queries) * np.var(np.mean(contributions, axis=0))
    keep = math.sqrt(max(0.0, between - np.mean(noises)) / between)

    def corrected(own: np.ndarray, mean: float) -> np.ndarray:
        widening = math.sqrt(len(own) / max(len(own) - 1, 1))
        return mean + keep * (own.mean() - mean) + widening * (own - own.mean())

    result = []
    for mean, classes in zip(means, queries, strict=True):
        result.append([corrected(own, mean) for own in classes])
    return result


@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize(
    "seeds", [[UNEVEN], [UNEVEN, OTHER], [CONTINUOUS]], ids=["one seed", "two seeds", "continuous"]
)
def test_the_resampled_means_are_distributed_as_those_of_a_slow_loop(
    seeds: list[Scores], average: Average
):
    quick = resampled_means(seeds, average=average, resamples=10_000)
    slow = slow_loop(seeds, average, 1_600, np.random.default_rng(5))
    assert quick.mean() == pytest.approx(slow.mean(), abs=4 * slow.std() / math.sqrt(1_600))
    assert quick.std() == pytest.approx(slow.std(), rel=0.08)
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert (quick <= np.quantile(slow, share)).mean() == pytest.approx(share, abs=0.05)


def test_with_one_query_per_class_it_is_scipy_s_bootstrap_of_the_mean():
    values = np.array([0.1, 0.9, 0.4, 0.35, 0.8, 0.75, 0.2, 0.55, 0.6, 0.05])
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    )
    ours = resampled_means([Scores(values, np.arange(10))], resamples=20_000)
    assert np.quantile(ours, [0.025, 0.975]) == pytest.approx(
        list(theirs.confidence_interval), abs=0.006
    )
    assert ours.std() == pytest.approx(theirs.standard_error, rel=0.02)


@pytest.mark.parametrize("deviation", [0.0, 0.2], ids=["classes alike", "classes differ"])
def test_the_noise_of_the_queries_is_counted_once(deviation: float):
    chance = np.random.default_rng(2)
    labels = np.repeat(np.arange(100), 12)
    skill = np.clip(chance.normal(0.6, deviation, 100), 0, 1)[labels]
    answers = [Scores((chance.random(1200) < skill).astype(float), labels)]
    truth = math.sqrt((deviation**2 + (0.24 - deviation**2) / 12) / 100)
    assert resampled_means(answers, resamples=2000).std() == pytest.approx(truth, rel=0.15)
    assert spread(answers).standard_error == pytest.approx(truth, rel=0.15)


def test_the_mean_over_classes_differs_from_the_mean_over_queries():
    assert estimate([scores([1, 1, 1, 1], [0])]) == 0.5
    assert estimate([scores([1, 1, 1, 1], [0])], average="micro") == 0.8
    assert estimate([scores([1], [0]), scores([1], [1])]) == 0.75


def test_the_standard_error_of_one_seed_is_that_of_its_class_means():
    result = spread([scores([1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1])])
    assert result.standard_error == pytest.approx(np.std([0.5, 1.0, 0.25], ddof=1) / math.sqrt(3))
    assert result.degrees_of_freedom == 2


def test_what_seeds_differ_by_is_added_to_the_variance_and_costs_degrees_of_freedom():
    first, second = scores([0.2], [0.4], [0.9]), scores([0.4], [0.6], [1.1])
    result = spread([first, second])
    # mean squares: classes 2 * 0.13, seeds 3 * 0.02, rest 0
    assert result.standard_error == pytest.approx(math.sqrt((0.26 + 0.06) / 6))
    assert result.degrees_of_freedom == pytest.approx(0.32**2 / (0.26**2 / 2 + 0.06**2 / 1))


def test_seeds_that_differ_by_less_than_the_noise_within_them_add_nothing():
    result = spread([scores([0.2], [0.4], [0.9]), scores([0.4], [0.4], [0.7])])
    assert result.standard_error == pytest.approx(math.sqrt(0.14 / 6))
    assert result.degrees_of_freedom == 2


def test_seeds_that_differ_wildly_leave_as_many_degrees_of_freedom_as_there_are_seeds_less_one():
    result = spread([scores([0.1], [0.2], [0.1], [0.2]), scores([0.9], [0.8], [0.8], [0.9])])
    assert result.degrees_of_freedom == 1


def test_equal_class_means_of_noisy_queries_are_not_taken_for_certain():
    result = interval([scores([0, 1], [1, 0], [0, 1])])
    assert result.estimate == 0.5
    assert result.low < 0.3 and result.high > 0.7


@pytest.mark.parametrize(
    "alone", [scores([0, 1, 1, 0]), scores([1, 1], [1, 1, 1])], ids=["one class", "all alike"]
)
def test_where_nothing_can_be_said_there_is_no_interval(alone: Scores):
    result = interval([alone])
    assert result.estimate in (0.5, 1.0)
    assert math.isnan(result.low) and math.isnan(result.high)


def test_a_question_two_models_answer_alike_does_not_widen_their_difference():
    chance = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    skill = chance.random(40)[labels]
    first = Scores((chance.random(400) < skill).astype(float), labels)
    second = Scores(np.where(chance.random(400) < 0.9, first.values, 1 - first.values), labels)
    paired, alone = interval([first.minus(second)]), interval([first])
    assert paired.estimate == pytest.approx(estimate([first]) - estimate([second]))
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_models_that_were_asked_different_questions_are_not_compared():
    with pytest.raises(ValueError, match="evaluated on different queries"):
        scores([1, 0], [1]).minus(scores([1], [1, 0]))


def test_the_interval_is_a_function_of_the_scores_alone():
    order = np.random.default_rng(1).permutation(len(UNEVEN.values))
    shuffled = Scores(UNEVEN.values[order], UNEVEN.labels[order])
    np.random.seed(7)
    first = interval([UNEVEN], resamples=500)
    np.random.seed(8)
    assert interval([UNEVEN], resamples=500) == first
    again = interval([shuffled], resamples=500)
    assert (again.estimate, again.low, again.high) == pytest.approx(
        (first.estimate, first.low, first.high), rel=1e-12
    )


def test_a_higher_level_gives_a_wider_interval_and_the_range_cuts_it():
    narrow, wide = interval([UNEVEN], level=0.8), interval([UNEVEN], level=0.99)
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high
    assert wide.high > 1
    cut = interval([UNEVEN], level=0.99, within=(-1.0, 1.0))
    assert (cut.low, cut.high) == (wide.low, 1.0)


def test_undefined_values_are_left_out():
    assert interval([scores([1, math.nan, 0], [0, 1, 1, math.nan])]) == interval(
        [scores([1, 0], [0, 1, 1])]
    )


@pytest.mark.parametrize("seeds", [[], [scores([math.nan])]], ids=["no seed", "nothing defined"])
def test_without_scores_there_is_nothing_to_average(seeds: list[Scores]):
    with pytest.raises(ValueError, match="no scores to average"):
        interval(seeds)


def test_seeds_with_other_classes_are_not_averaged():
    with pytest.raises(ValueError, match="different classes"):
        interval([scores([1], [0]), Scores(np.array([1.0, 0.0]), np.array([0, 2]))])


def test_the_classes_of_a_group_can_be_picked_out():
    assert interval([UNEVEN.of_classes([0, 2, 4])]) == interval(
        [scores([1, 0, 1, 1], [-1, 1, 0, 1, 1], [0, 0, -1, 1, 0, 0, 1])]
    )


def test_ten_thousand_resamples_of_the_study_s_2400_queries_take_seconds():
    chance = np.random.default_rng(0)
    study = Scores(chance.choice([-1.0, 0.0, 1.0], 2400), np.repeat(np.arange(200), 12))
    start = time.process_time()
    interval([study], resamples=10_000)
    assert time.process_time() - start < 10


# Coverage: how often the interval of simulated experiments holds the truth.

Simulate = Callable[[np.random.Generator, int, int], list[Scores]]
MEAN = 0.6


def skills(chance: np.random.Generator, classes: int, deviation: float) -> np.ndarray:
    """(classes) probabilities around MEAN whose mean over all possible classes is exactly that:
    uniform, so never out of 0 to 1."""
    half = deviation * math.sqrt(3)
    return MEAN + chance.uniform(-half, half, classes)


def precision(class_deviation: float, seed_deviation: float = 0.0) -> Simulate:
    """P@1 of 12 queries a class: classes differ, and the models of all seeds by a shift."""

    def simulate(chance: np.random.Generator, classes: int, seeds: int) -> list[Scores]:
        labels = np.repeat(np.arange(classes), 12)
        skill = skills(chance, classes, class_deviation)
        shifts = chance.normal(0, seed_deviation, seeds) if seed_deviation else np.zeros(seeds)
        return [
            Scores((chance.random(len(labels)) < (skill + shift)[labels]).astype(float), labels)
            for shift in shifts
        ]

    return simulate


def drop(chance: np.random.Generator, classes: int, seeds: int) -> list[Scores]:
    """A precision drop of 0.1: the second model answers as the first, but loses some right answers,
    more in some classes."""
    labels = np.repeat(np.arange(classes), 12)
    skill, lost = skills(chance, classes, 0.2), chance.uniform(0, 1 / 3, classes)
    return [
        Scores(1.0 * (chance.random(len(labels)) < (skill * lost)[labels]), labels)
        for _ in range(seeds)
    ]


def coverage(
    simulate: Simulate, truth: float, *, classes: int, seeds: int, experiments: int
) -> float:
    chance = np.random.default_rng(classes + seeds)
    intervals = [
        interval(simulate(chance, classes, seeds), resamples=400) for _ in range(experiments)
    ]
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


@pytest.mark.parametrize(
    ("classes", "experiments"), [(200, 600), (20, 1000)], ids=["200 classes", "20 classes"]
)
@pytest.mark.parametrize(
    ("simulate", "truth", "seeds"),
    [
        (precision(0.2), MEAN, 1),
        (precision(0.0), MEAN, 1),
        (drop, MEAN / 6, 1),
        (precision(0.2), MEAN, 3),
        (precision(0.2, seed_deviation=0.01), MEAN, 3),
    ],
    ids=["precision", "classes alike", "drop", "three seeds", "three seeds that differ"],
)
def test_a_95_percent_interval_holds_the_truth_in_95_percent_of_experiments(
    simulate: Simulate, truth: float, seeds: int, classes: int, experiments: int
):
    assert (
        0.93
        <= coverage(simulate, truth, classes=classes, seeds=seeds, experiments=experiments)
        <= 0.97
    )
