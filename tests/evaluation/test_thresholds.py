"""Thresholds with a guarantee: by hand, by slow loops from their definition, against scipy's exact
interval, and on simulated images whose true precision is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from scipy.stats import t as student

from dml_bench.evaluation.thresholds import (
    Accepted,
    GuaranteedThreshold,
    PrecisionCurve,
    SearchOutcomes,
    fewest_answers,
    guaranteed_threshold,
    precision_curve,
)


def all_right(count: int) -> SearchOutcomes:
    return SearchOutcomes(np.linspace(0.9, 0.5, count), np.ones(count, bool))


def exact_bound(right: int, answers: int) -> float:
    interval = binomtest(right, answers, alternative="greater").proportion_ci(0.95, "exact")
    return float(interval.low)


@pytest.mark.parametrize(("goal", "fewest"), [(0.95, 59), (0.9, 29), (0.8, 14), (0.99, 299)])
def test_fewer_images_can_not_prove_a_precision_even_if_all_are_right(goal, fewest):
    assert fewest_answers(goal) == fewest
    assert exact_bound(fewest, fewest) >= goal > exact_bound(fewest - 1, fewest - 1)
    threshold = guaranteed_threshold(all_right(fewest), goal)
    assert (threshold.value, threshold.coverage) == (0.5, 1)
    assert threshold.bound == pytest.approx(exact_bound(fewest, fewest))
    too_few = guaranteed_threshold(all_right(fewest - 1), goal)
    assert not too_few.promised
    assert math.isnan(too_few.value)
    assert (too_few.known, too_few.known_needed, too_few.coverage) == (fewest - 1, fewest, 0)


@pytest.mark.parametrize("goal", [0, -0.1, 1, 1.1, math.nan])
def test_a_precision_that_no_number_of_images_proves_is_refused(goal):
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        guaranteed_threshold(all_right(99), goal)


@pytest.mark.parametrize("share", [-0.1, 1, math.nan])
def test_a_share_of_unknown_images_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        guaranteed_threshold(all_right(99), 0.9, unknown_share=share)


def simulated(seed: int, count: int = 300) -> SearchOutcomes:
    """Similarities with two decimals, so that some are equal."""
    rng = np.random.default_rng(seed)
    similarity = np.round(rng.normal(size=count), 2)
    return SearchOutcomes(similarity, rng.random(count) < 0.99 * expit(2 + 3 * similarity))


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_is_the_last_that_passes_from_strict_to_loose(seed):
    known = simulated(seed)
    expected = math.nan
    for value in sorted(set(known.similarity.tolist()), reverse=True):
        correct = known.correct[known.similarity >= value]
        if len(correct) < max(29, len(known.correct) / 10):
            continue
        if exact_bound(int(correct.sum()), len(correct)) < 0.9:
            break
        expected = value
    threshold = guaranteed_threshold(known, 0.9)
    assert threshold.value == pytest.approx(expected, nan_ok=True)
    if threshold.promised:
        correct = known.correct[known.similarity >= expected]
        assert threshold.precision == pytest.approx(correct.mean())
        assert threshold.coverage == pytest.approx(len(correct) / 300)


def test_nothing_is_tested_after_the_first_failure():
    """59 right, then a wrong one, then many right ones: the bound falls below .95 and comes
    back."""
    correct = np.ones(400, bool)
    known = SearchOutcomes(np.linspace(1, 0, 400), correct)
    assert guaranteed_threshold(known, 0.95).coverage == 1
    correct[59] = False
    threshold = guaranteed_threshold(SearchOutcomes(np.linspace(1, 0.1, 400), correct), 0.95)
    assert threshold.coverage == 59 / 400
    assert exact_bound(399, 400) > 0.95


def test_of_many_images_one_wrong_label_among_the_most_similar_does_not_decide():
    correct = np.ones(2000, bool)
    correct[3] = False
    threshold = guaranteed_threshold(SearchOutcomes(np.linspace(1, 0, 2000), correct), 0.95)
    assert threshold.coverage == 1


def test_equally_similar_images_are_answered_together():
    similarity = np.repeat([0.9, 0.5], [40, 40])
    correct = np.arange(80) != 40
    threshold = guaranteed_threshold(SearchOutcomes(similarity, correct), 0.9)
    assert (threshold.value, threshold.coverage) == (0.5, 1)
    curve = precision_curve(SearchOutcomes(similarity, correct))
    assert curve.similarity.tolist() == [0.9, 0.5]
    assert curve.precision.tolist() == [1, 79 / 80]


def test_a_threshold_on_other_images_by_hand():
    curve = precision_curve(
        SearchOutcomes(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 1, 0], bool))
    )
    assert curve.at(0.65) == (pytest.approx(2 / 3), 0.6)
    assert curve.at(0.7) == (pytest.approx(2 / 3), 0.6)
    assert curve.at(-math.inf) == (0.6, 1)
    for nothing in (0.95, math.nan):
        precision, coverage = curve.at(nothing)
        assert math.isnan(precision)
        assert coverage == 0


def test_unknown_images_count_as_much_as_their_share():
    """Of 80 known and 10 unknown images, a mix with 20% unknown has 40 known and 10 unknown ones:
    each known one counts half."""
    known = SearchOutcomes(np.full(80, 0.9), np.arange(80) < 72)
    unknown = SearchOutcomes(np.repeat([0.9, 0.1], 5), np.zeros(10, bool))
    curve = precision_curve(known, unknown, unknown_share=0.2)
    assert curve.total == 50
    assert curve.answers.tolist() == pytest.approx([45, 50])
    assert curve.precision.tolist() == pytest.approx([36 / 45, 36 / 50])
    assert curve.at(0.9) == (pytest.approx(36 / 45), pytest.approx(45 / 50))


def test_what_is_missing_is_said():
    wrong = SearchOutcomes(np.linspace(1, 0, 400), np.arange(400) % 2 == 0)
    never = guaranteed_threshold(wrong, 0.95)
    assert (never.promised, never.known_needed) == (False, None)
    assert never.bound < 0.6
    half = SearchOutcomes(np.linspace(1, 0, 60), np.arange(60) < 30)
    about = guaranteed_threshold(half, 0.95)
    assert about.known_needed == 118, "of half of the images, 59"
    no_unknown = guaranteed_threshold(all_right(99), 0.95, unknown_share=0.2)
    assert (no_unknown.promised, no_unknown.unknown) == (False, 0)
    assert (no_unknown.known_needed, no_unknown.unknown_needed) == (59, 15)
    nothing = guaranteed_threshold(all_right(0), 0.95)
    assert (nothing.known, nothing.known_needed, math.isnan(nothing.bound)) == (0, 59, True)


# Groups


def test_identical_images_of_a_group_count_once():
    """Korn & Graubard: as many answers as groups, but for Student's t."""
    rng = np.random.default_rng(0)
    correct = rng.random(80) < 0.9
    similarity = rng.random(80)
    single = SearchOutcomes(similarity, correct)
    copies = SearchOutcomes(
        np.repeat(similarity, 7), np.repeat(correct, 7), np.repeat(np.arange(80), 7)
    )
    once, again = precision_curve(single), precision_curve(copies)
    assert again.precision == pytest.approx(once.precision)
    assert again.answers == pytest.approx(7 * once.answers)
    assert (again.effective <= once.answers + 1e-6).all()
    assert again.effective[-1] == pytest.approx(80, rel=0.05)


def test_the_effective_number_of_answers_equals_a_slow_loop():
    rng = np.random.default_rng(4)
    groups = rng.integers(0, 30, 300)
    effects = rng.normal(0, 2, 30)[groups]
    similarity = rng.normal(size=300)
    correct = rng.random(300) < expit(1 + 2 * similarity + effects)
    known = SearchOutcomes(similarity, correct, groups)
    unknown = SearchOutcomes(rng.normal(-1, 1, 80), np.zeros(80, bool), np.repeat(np.arange(16), 5))
    curve = precision_curve(known, unknown, unknown_share=0.2)
    last = len(curve.similarity) - 1
    for place in (200, last):
        design_effect, freedom = slow_design_effect(curve, place, known, unknown)
        expected = curve.answers[place] / max(design_effect, 1)
        ratio = student.ppf(0.95, curve.answers[place] - 1) / student.ppf(0.95, freedom)
        assert design_effect > 1.2
        assert curve.effective[place] <= expected * ratio**2 + 1e-9
    assert curve.effective[last] == pytest.approx(expected * ratio**2)


def slow_design_effect(
    curve: PrecisionCurve, place: int, known: SearchOutcomes, unknown: SearchOutcomes
) -> tuple[float, float]:
    """And its degrees of freedom by Satterthwaite."""
    variances, freedoms, of_images = [], [], 0.0
    for part, share in ((known, 0.8), (unknown, 0.2)):
        weight = curve.total * share / len(part.correct)
        accepted = part.similarity >= curve.similarity[place]
        residuals = weight * accepted * (part.correct - curve.precision[place])
        sums = [residuals[part.groups == group].sum() for group in np.unique(part.groups)]
        variances.append(len(sums) * np.var(sums, ddof=1))
        freedoms.append(len(sums) - 1)
        of_images += len(residuals) * np.var(residuals, ddof=1)
    squares = [variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True)]
    return sum(variances) / of_images, sum(variances) ** 2 / sum(squares)


def test_the_variance_over_sessions_that_run_over_classes_equals_a_slow_loop():
    """Cameron, Gelbach & Miller: of classes, plus of sessions, minus of classes in a session."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        known = SearchOutcomes(rng.normal(size=300), rng.random(300) < 0.9, np.arange(300))
        names = rng.integers(0, 12, 200)
        sessions = rng.integers(0, 9, 200)
        similarity = rng.normal(-1, 1, 200) + rng.normal(0, 1, 9)[sessions]
        unknown = SearchOutcomes(similarity, np.zeros(200, bool), names, sessions)
        curve = precision_curve(known, unknown, unknown_share=0.2)
        place = len(curve.similarity) // 2
        weight = curve.total * 0.2 / 200
        accepted = unknown.similarity >= curve.similarity[place]
        wrong = -weight * accepted * curve.precision[place]
        variances = []
        for ids in (names, sessions, 9 * names + sessions):
            sums = [wrong[ids == group].sum() for group in np.unique(ids)]
            variances.append(len(sums) * np.var(sums, ddof=1))
        kind = Accepted.of(unknown, curve.similarity, weight, right=False)
        two_way = max(variances[0] + variances[1] - variances[2], *variances[:2])
        assert kind.variance(curve.precision)[place] == pytest.approx(two_way)
        assert kind.num_groups == 9
        by_class = precision_curve(known, replace(unknown, crossed=None), unknown_share=0.2)
        assert curve.effective[place] <= by_class.effective[place]


def test_sessions_that_are_the_classes_change_nothing_but_for_rounding():
    rng = np.random.default_rng(1)
    known = SearchOutcomes(rng.normal(size=200), rng.random(200) < 0.9)
    unknown = absent(rng, 16)
    same = replace(unknown, crossed=unknown.groups)
    once = precision_curve(known, unknown, unknown_share=0.2)
    again = precision_curve(known, same, unknown_share=0.2)
    assert again.effective == pytest.approx(once.effective)


# The promise, on images whose true precision is known


def missed(draws: list[tuple[GuaranteedThreshold, PrecisionCurve]], goal: float) -> float:
    """The share of draws with a threshold that has less than its goal on the population; of
    them all, most have a threshold."""
    promised = [threshold.promised for threshold, _ in draws]
    assert np.mean(promised) > 0.5
    return float(np.mean([curve.at(threshold.value)[0] < goal for threshold, curve in draws]))


def most_misses(draws: int) -> float:
    """5%, and three standard errors of a simulation."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


def population(
    rng: np.random.Generator, count: int, size: int = 1, effect: float = 0.0
) -> SearchOutcomes:
    """Images whose chance to be right rises with their similarity, in sessions of a size."""
    sessions = np.arange(count) // size
    effects = rng.normal(0, effect, sessions[-1] + 1)[sessions]
    similarity = rng.normal(size=count) + effects / 3
    correct = rng.random(count) < 0.995 * expit(3 + 3 * similarity + effects)
    return SearchOutcomes(similarity, correct, sessions if size > 1 else None)


def absent(rng: np.random.Generator, classes: int) -> SearchOutcomes:
    """10 images of each of some classes that are not enrolled, some of which look like others."""
    groups = np.repeat(np.arange(classes), 10)
    similarity = rng.normal(-2, 0.5, classes)[groups] + rng.normal(size=10 * classes)
    return SearchOutcomes(similarity, np.zeros(10 * classes, bool), groups)


def test_a_promise_is_missed_in_at_most_5_percent_of_draws():
    rng = np.random.default_rng(0)
    truth = precision_curve(population(rng, 100_000))
    draws = [(guaranteed_threshold(population(rng, 500), 0.95), truth) for _ in range(200)]
    assert missed(draws, 0.95) <= most_misses(200)
    plain = []
    for _ in range(200):
        curve = precision_curve(population(rng, 500))
        reached = np.flatnonzero(curve.precision >= 0.95)
        plain.append(truth.at(curve.similarity[reached[-1]])[0] < 0.95)
    assert np.mean(plain) > 0.3, "the lowest threshold that reaches the goal in its own sample"


@pytest.mark.slow
def test_a_promise_holds_for_new_sessions():
    rng = np.random.default_rng(1)
    truth = precision_curve(population(rng, 100_000, size=40, effect=2))
    draws, naive = [], []
    for _ in range(120):
        known = population(rng, 2000, size=40, effect=2)
        draws.append((guaranteed_threshold(known, 0.9), truth))
        ungrouped = SearchOutcomes(known.similarity, known.correct)
        naive.append((guaranteed_threshold(ungrouped, 0.9), truth))
    assert missed(draws, 0.9) <= most_misses(120)
    assert missed(naive, 0.9) > most_misses(120), "as if each image were a session of its own"


def test_a_promise_holds_with_photos_of_classes_that_are_not_enrolled():
    rng = np.random.default_rng(2)
    truth = precision_curve(population(rng, 100_000), absent(rng, 5000), unknown_share=0.2)
    draws = []
    for _ in range(120):
        threshold = guaranteed_threshold(
            population(rng, 800), 0.9, unknown=absent(rng, 40), unknown_share=0.2
        )
        draws.append((threshold, truth))
    assert missed(draws, 0.9) <= most_misses(120)
    without = guaranteed_threshold(population(rng, 800), 0.9)
    assert truth.at(without.value)[0] < 0.9, "a promise without them is none with them"


@pytest.mark.parametrize(
    ("sessions", "promised"), [(4, False), (10, False), (20, False), (60, True)]
)
def test_few_sessions_without_a_wrong_answer_promise_nothing(sessions, promised):
    """Where one session in seven is bad, four in a row are good in every second sample."""
    groups = np.repeat(np.arange(sessions), 60)
    known = SearchOutcomes(np.linspace(1, 0, len(groups)), np.ones(len(groups), bool), groups)
    assert guaranteed_threshold(known, 0.95).promised is promised


def test_a_promise_holds_where_bad_sessions_are_rare():
    rng = np.random.default_rng(3)
    missed_promises = 0
    for _ in range(200):
        groups = np.repeat(np.arange(15), 30)
        chance = np.where(rng.random(15) < 0.15, 0.5, 1.0)[groups]  # .925 in all
        known = SearchOutcomes(rng.random(450), rng.random(450) < chance, groups)
        missed_promises += guaranteed_threshold(known, 0.95).promised
    assert missed_promises / 200 <= 0.05


@pytest.mark.slow
def test_a_promise_holds_where_sessions_run_over_classes_that_are_not_enrolled():
    rng = np.random.default_rng(5)

    def on_trips(trips: int, classes: int) -> SearchOutcomes:
        outcomes = absent(rng, classes)
        taken_on = rng.integers(0, trips, 10 * classes)
        similarity = outcomes.similarity + rng.normal(0, 1, trips)[taken_on]
        return replace(outcomes, similarity=similarity, crossed=taken_on)

    truth = precision_curve(population(rng, 100_000), on_trips(2000, 5000), unknown_share=0.2)
    draws, by_class = [], []
    for _ in range(100):
        known, unknown = population(rng, 3000), on_trips(10, 200)
        for drawn, outcomes in ((draws, unknown), (by_class, replace(unknown, crossed=None))):
            threshold = guaranteed_threshold(known, 0.85, unknown=outcomes, unknown_share=0.2)
            drawn.append((threshold, truth))
    assert missed(draws, 0.85) <= most_misses(100)
    assert missed(by_class, 0.85) > most_misses(100), "as if each photo were a trip of its own"
