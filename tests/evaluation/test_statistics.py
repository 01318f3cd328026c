"""Intervals, against hand calculation, scipy, and simulations whose truth is known."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from dml_bench.evaluation.statistics import (
    PROPORTION,
    Interval,
    Scores,
    SeedPrior,
    agreed_degrees,
    components_of,
    estimate,
    fit_difference_prior,
    fit_seed_prior,
    interval,
    query_share,
    seeds_to_detect,
    share_of_width_kept,
    smallest_detectable,
)


def scores(*classes: list[float]) -> Scores:
    """The values of the queries of class 0, of class 1, ..."""
    return Scores(
        np.concatenate([np.array(values, float) for values in classes]),
        np.repeat(np.arange(len(classes)), list(map(len, classes))),
    )


UNEVEN = scores([1, 0, 1, 1], [0, 0], [-1, 1, 0, 1, 1], [1], [0, 0, -1, 1, 0, 0, 1])


@pytest.mark.parametrize("deviation", [0.0, 0.2], ids=["classes alike", "classes differ"])
def test_the_noise_of_the_queries_is_counted_once(deviation: float):
    chance = np.random.default_rng(2)
    labels = np.repeat(np.arange(100), 12)
    skill = np.clip(chance.normal(0.6, deviation, 100), 0, 1)[labels]
    answers = [Scores((chance.random(1200) < skill).astype(float), labels)]
    truth = math.sqrt((deviation**2 + (0.24 - deviation**2) / 12) / 100)
    assert interval(answers).standard_error == pytest.approx(truth, rel=0.15)


def test_the_mean_over_classes_differs_from_the_mean_over_queries():
    assert estimate([scores([1, 1, 1, 1], [0])]) == 0.5
    assert estimate([scores([1, 1, 1, 1], [0])], average="micro") == 0.8
    assert estimate([scores([1], [0]), scores([1], [1])]) == 0.75


def test_the_standard_error_of_one_seed_is_that_of_its_class_means():
    result = interval([scores([1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1])])
    assert result.standard_error == pytest.approx(np.std([0.5, 1.0, 0.25], ddof=1) / math.sqrt(3))
    assert result.degrees_of_freedom == 2


def test_what_seeds_differ_by_is_added_to_the_variance_and_costs_degrees_of_freedom():
    first, second = scores([0.2], [0.4], [0.9]), scores([0.4], [0.6], [1.1])
    result = interval([first, second])
    # mean squares: classes 2 x 0.13, seeds 3 x 0.02, rest 0
    assert result.standard_error == pytest.approx(math.sqrt((0.26 + 0.06) / 6))
    assert result.degrees_of_freedom == pytest.approx(0.32**2 / (0.26**2 / 2 + 0.06**2 / 1))


def test_seeds_that_differ_by_less_than_the_noise_within_them_add_nothing():
    result = interval([scores([0.2], [0.4], [0.9]), scores([0.4], [0.4], [0.7])])
    # mean squares: classes 0.14, seeds 0, rest 0.02
    assert result.standard_error == pytest.approx(math.sqrt(0.14 / 6))
    assert result.degrees_of_freedom == pytest.approx(0.14**2 / (0.14**2 / 2 + 0.02**2 / 2))


def test_seeds_that_differ_wildly_leave_as_many_degrees_of_freedom_as_there_are_seeds_less_one():
    result = interval([scores([0.1], [0.2], [0.1], [0.2]), scores([0.9], [0.8], [0.8], [0.9])])
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
    first = interval([UNEVEN])
    np.random.seed(8)
    assert interval([UNEVEN]) == first
    again = interval([shuffled])
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


def rare(values: list[float], labels: list[int]) -> Scores:
    return Scores(np.array(values), np.array(labels), are_of_all_seeds=False)


def test_classes_that_some_seed_lacks_are_taken_for_one_where_that_may_be():
    seeds = [rare([1, 0, 1, 0], [0, 0, 1, 2]), rare([1, 1, 0, 0], [0, 0, 1, 3])]
    assert interval(seeds).estimate == pytest.approx(np.mean([0.75, 0.5, 0]))
    assert interval(seeds, average="micro").estimate == pytest.approx(0.5)
    changed = rare([1, 1, 1, 1], [0, 0, 1, 2]).minus(seeds[0])
    assert interval([changed, seeds[1]]).estimate == pytest.approx(np.mean([0.75, 0, 0.5]))


def test_a_class_that_one_seed_has_beside_those_of_all_is_left_out():
    seeds = [rare([1, 0, 1], [0, 1, 2]), rare([1, 1], [0, 1])]
    assert interval(seeds).estimate == pytest.approx(0.75)


def test_the_classes_of_a_group_can_be_picked_out():
    assert interval([UNEVEN.of_classes([0, 2, 4])]) == interval(
        [scores([1, 0, 1, 1], [-1, 1, 0, 1, 1], [0, 0, -1, 1, 0, 0, 1])]
    )


def test_all_numbers_of_a_large_table_take_less_than_a_second():
    chance = np.random.default_rng(0)
    labels = chance.permutation(np.repeat(np.arange(200), 60))
    answers = (chance.random((16, 5, 12_000)) < 0.6).astype(float)
    table = [scored(of_row, labels) for of_row in answers]
    interval(table[0], prior=fit_seed_prior(table[:4]))  # imports SciPy
    start = time.process_time()
    prior, of_differences = fit_seed_prior(table), fit_difference_prior(table)
    for row in table:
        interval(row, prior=prior)
        interval(differences(row, table[0]), prior=of_differences)
    assert time.process_time() - start < 1


def differences(first: list[Scores], second: list[Scores]) -> list[Scores]:
    return [one.minus(other) for one, other in zip(first, second, strict=True)]


# Two groups of classes


def contrast() -> Scores:
    return Scores.contrast(
        scores([0.2], [0.4], [0.9]), Scores(np.array([0.1, 0.3]), np.array([7, 8]))
    )


def test_a_contrast_is_the_mean_of_one_group_of_classes_minus_that_of_the_other():
    result = interval([contrast()])
    assert result.estimate == pytest.approx(0.5 - 0.2)
    assert result.standard_error == pytest.approx(math.sqrt(0.13 / 3 + 0.02 / 2))
    assert result.degrees_of_freedom == pytest.approx(
        (0.13 / 3 + 0.01) ** 2 / ((0.13 / 3) ** 2 / 2 + 0.01**2 / 1)
    )


def test_what_both_groups_of_a_seed_share_is_not_in_their_contrast():
    first = contrast()
    better = replace(first, values=first.values + 0.3)
    assert interval([first, better]).standard_error == pytest.approx(
        interval([first]).standard_error
    )
    one_group = Scores(first.values + 0.3 * ~first.sides, first.labels, first.subtracted)
    assert interval([first, one_group]).standard_error > interval([first]).standard_error


def test_a_contrast_has_two_groups_of_different_classes():
    with pytest.raises(ValueError, match="share 1"):
        Scores.contrast(scores([1], [0]), Scores(np.array([1.0]), np.array([1])))
    unknown = Scores(np.array([math.nan]), np.array([9]))
    with pytest.raises(ValueError, match="one of the two groups"):
        interval([Scores.contrast(scores([1], [0]), unknown)])


def test_contrasts_of_the_same_groups_can_be_compared_in_pairs():
    first = contrast()
    assert interval([first.minus(first)]).estimate == 0
    turned = Scores(first.values, first.labels, ~first.sides)
    with pytest.raises(ValueError, match="different queries"):
        first.minus(turned)
    assert interval([first.of_classes([0, 1, 8])]).estimate == pytest.approx(0.3 - 0.3)


# Levels, p-values, and what could have been detected


def test_an_interval_at_another_level_is_that_of_the_same_scores():
    measured = interval([UNEVEN], within=(-1.0, 1.0))
    assert measured.at(0.9) == interval([UNEVEN], within=(-1.0, 1.0), level=0.9)
    t = stats.t.interval(0.9, measured.degrees_of_freedom, 0, measured.standard_error)
    assert measured.at(0.9).low == pytest.approx(measured.estimate + t[0])


def test_the_p_value_is_5_percent_where_the_95_percent_interval_ends_at_zero():
    measured = interval([UNEVEN])
    reach = measured.high - measured.estimate
    assert replace(measured, estimate=reach).p == pytest.approx(0.05)
    assert (
        replace(measured, estimate=-2 * reach).p < 0.05 < replace(measured, estimate=0.5 * reach).p
    )


def test_the_difference_the_other_way_round_has_the_other_sign():
    measured = interval([UNEVEN], within=(-1.0, 0.5))
    turned = measured.negative()
    assert (turned.estimate, turned.low, turned.high) == (
        -measured.estimate,
        -measured.high,
        -measured.low,
    )
    assert turned.at(0.95) == turned


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 15])
def test_the_smallest_detectable_difference_is_detected_in_80_percent_of_experiments(level: float):
    measured = interval([scores([0.1], [0.2], [0.4], [0.9], [0.6], [0.3])])
    size = smallest_detectable(measured, level=level)
    chance = np.random.default_rng(0)
    normal = size + measured.standard_error * chance.standard_normal(40_000)
    errors = measured.standard_error * np.sqrt(chance.chisquare(5, 40_000) / 5)
    critical = stats.t.ppf((1 + level) / 2, 5)
    assert (np.abs(normal / errors) > critical).mean() == pytest.approx(0.8, abs=0.01)


def seeds_that_differ(seeds: int, deviation: float, classes: int = 40) -> list[Scores]:
    chance = np.random.default_rng(4)
    skill = chance.normal(0.5, 0.05, classes)
    shifts = chance.normal(0, deviation, seeds)
    answers = skill + shifts[:, None] + chance.normal(0, 0.05, (seeds, classes))
    return [Scores(values, np.arange(classes)) for values in answers]


def test_as_many_seeds_as_are_advised_detect_the_difference_and_one_fewer_do_not():
    measured = interval(seeds_that_differ(5, 0.02))
    advised = seeds_to_detect(measured, 0.03)
    assert 5 < advised < 50
    for seeds, detects in ((int(advised), True), (int(advised) - 1, False)):
        expected = measured.components.with_seeds(seeds).spread()
        size = smallest_detectable(
            Interval.around(0, expected.standard_error, expected.degrees_of_freedom)
        )
        assert (size <= 0.03) is detects


def test_more_seeds_make_up_for_differing_seeds_but_not_for_few_classes():
    assert seeds_to_detect(interval(seeds_that_differ(5, 0.02)), 0.001) == math.inf
    assert seeds_to_detect(interval(seeds_that_differ(3, 0.0)), 0.2) == 2
    assert math.isnan(seeds_to_detect(interval(seeds_that_differ(1, 0.0)), 0.2))


@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.05])
def test_of_a_width_so_much_is_kept_as_an_interval_of_hundreds_of_seeds_has(deviation: float):
    few, many = (interval(seeds_that_differ(seeds, deviation)) for seeds in (8, 800))
    width = (many.high - many.low) / (few.high - few.low)
    assert share_of_width_kept(few) == pytest.approx(width, rel=0.15)


def test_what_is_kept_of_a_width_is_less_the_more_seeds_differ_and_unknown_of_a_single_seed():
    kept = [share_of_width_kept(interval(seeds_that_differ(5, by))) for by in (0.0, 0.02, 0.1)]
    assert 1 > kept[0] > kept[1] > kept[2] > 0
    assert math.isnan(share_of_width_kept(interval(seeds_that_differ(1, 0.0))))


def test_the_same_number_of_seeds_is_expected_to_give_the_same_interval():
    measured = interval(seeds_that_differ(5, 0.02))
    expected = measured.components.with_seeds(5).spread()
    assert expected.standard_error == pytest.approx(measured.standard_error)
    assert expected.degrees_of_freedom == pytest.approx(measured.degrees_of_freedom)


# What is usual among the experiments of a table


def table_of(
    chance: np.random.Generator,
    *,
    rows: int = 16,
    seeds: int = 3,
    classes: int = 40,
    queries: int = 5,
    deviation: float = 0.05,
    mean: float = 0.5,
) -> list[list[Scores]]:
    """Experiments whose classes, seeds and queries all differ by chance."""
    labels = np.repeat(np.arange(classes), queries)
    skill = mean + chance.uniform(-0.2, 0.2, (rows, 1, classes))
    skill = np.clip(skill + chance.normal(0, deviation, (rows, seeds, 1)), 0, 1)
    right = chance.random((rows, seeds, len(labels))) < skill[..., labels]
    return [scored(answers, labels) for answers in right.astype(float)]


def scored(answers: np.ndarray, labels: np.ndarray) -> list[Scores]:
    """(seed, query) answers."""
    return [Scores(of_seed, labels) for of_seed in answers]


def shifted(row: list[Scores], shifts: np.ndarray) -> list[Scores]:
    """Every answer of a seed by the same amount."""
    return [replace(one, values=one.values + by) for one, by in zip(row, shifts, strict=True)]


def with_one_answer_flipped(
    table: list[list[Scores]], row: int, chance: np.random.Generator
) -> list[list[Scores]]:
    seed, query = chance.integers(len(table[0])), chance.integers(len(table[0][0].values))
    values = table[row][seed].values.copy()
    values[query] = 1 - values[query]
    flipped = [list(seeds) for seeds in table]
    flipped[row][seed] = Scores(values, table[row][seed].labels)
    return flipped


def of_experiment(table: list[list[Scores]], row: int) -> Interval:
    return interval(table[row], prior=fit_seed_prior(table))


def of_difference(table: list[list[Scores]], row: int) -> Interval:
    return interval(differences(table[row], table[0]), prior=fit_difference_prior(table))


@pytest.mark.parametrize("measured", [of_experiment, of_difference])
def test_one_flipped_answer_of_600_moves_an_interval_by_little(
    measured: Callable[[list[list[Scores]], int], Interval],
):
    chance = np.random.default_rng(1)
    widths, degrees = [], []
    for _ in range(3):
        table = table_of(chance)
        for row in range(1, 16):
            before = measured(table, row)
            after = measured(with_one_answer_flipped(table, row, chance), row)
            widths.append((after.high - after.low) / (before.high - before.low))
            degrees.append(after.degrees_of_freedom / before.degrees_of_freedom)
    assert np.quantile(np.abs(np.log(widths)), 0.95) < math.log(1.05)
    assert np.abs(np.log(degrees)).max() < math.log(1.5)


@pytest.mark.parametrize(("rows", "most"), [(16, 20), (5, 8)])
def test_experiments_that_agree_make_a_prior_that_counts_as_much_as_it_may(rows: int, most: int):
    chance = np.random.default_rng(0)
    [row] = table_of(chance, rows=1)
    prior = fit_seed_prior([shifted(row, np.full(3, by)) for by in range(rows)])
    alone = interval(row)
    assert (prior.degrees_of_freedom, prior.num_rows) == (most, rows)
    assert prior.ratio == pytest.approx(alone.components.of_seeds / alone.components.of_rest)
    together = interval(row, prior=prior)
    assert together.standard_error == pytest.approx(alone.standard_error)
    assert together.components.seed_degrees_of_freedom == most + 2
    assert together.high - together.low < alone.high - alone.low


def test_experiments_whose_seeds_differ_by_other_amounts_make_a_prior_that_counts_less():
    chance = np.random.default_rng(0)
    alike = table_of(chance, deviation=0.05, classes=200)
    varied = table_of(chance, rows=8, deviation=0.0, classes=200)
    varied += table_of(chance, rows=8, deviation=0.15, classes=200)
    assert fit_seed_prior(varied).degrees_of_freedom < 4 < fit_seed_prior(alike).degrees_of_freedom


def test_a_failed_seed_widens_its_own_interval_and_hardly_those_of_the_others():
    table = table_of(np.random.default_rng(0))
    failed = [*table[:-1], [*table[-1][:2], replace(table[-1][2], values=np.zeros(200))]]
    before, after = fit_seed_prior(table), fit_seed_prior(failed)
    assert after.ratio < 1.3 * before.ratio
    assert after.degrees_of_freedom < before.degrees_of_freedom
    width = [interval(table[0], prior=prior) for prior in (before, after)]
    assert width[1].high - width[1].low < 1.2 * (width[0].high - width[0].low)


def test_an_unstable_experiment_is_not_taken_for_a_usual_one():
    prior = SeedPrior(1.5, 20.0, 16)
    usual, unstable = prior.counts_beside(1.5, 2), prior.counts_beside(15.0, 2)
    assert usual == 20
    assert unstable == pytest.approx(20 * stats.f.sf(10, 2, 20) / 0.3)
    seeds = [*seeds_that_differ(2, 0.0), *shifted(seeds_that_differ(1, 0.0), np.array([0.5]))]
    alone, moderated = interval(seeds), interval(seeds, prior=prior)
    assert moderated.high - moderated.low == pytest.approx(alone.high - alone.low, rel=0.01)


def test_the_degrees_of_freedom_of_a_prior_are_those_that_the_ratios_were_drawn_with():
    ratios = 1.7 * stats.f.rvs(4, 8, size=3000, random_state=np.random.default_rng(2))
    agreed = agreed_degrees(ratios, np.full(3000, 4.0), ratios.mean(), 20.0)
    assert agreed == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_that_have_the_same_mean_by_chance_do_not_make_a_prior_count_the_most(seeds):
    chance = np.random.default_rng(3)
    varied = np.exp(chance.normal(0, 1.5, 16)) * stats.f.rvs(
        seeds - 1, 40, size=16, random_state=chance
    )
    nearly, exactly = varied.copy(), varied.copy()
    nearly[varied.argmin()], exactly[varied.argmin()] = 1e-6, 0.0
    degrees = np.full(16, seeds - 1.0)
    agreed = [agreed_degrees(ratios, degrees, varied.mean(), 15.0) for ratios in (nearly, exactly)]
    assert agreed[0] < 8
    assert agreed[1] == pytest.approx(agreed[0], rel=1e-3)


def test_a_variance_of_seeds_is_drawn_towards_the_usual_by_what_each_counts():
    seeds = [scores([0.2], [0.4], [0.9]), scores([0.5], [0.6], [1.1]), scores([0.1], [0.5], [0.8])]
    alone = interval(seeds).components
    drawn = interval(seeds, prior=SeedPrior(30.0, 6.0, 16)).components
    assert drawn.of_seeds == pytest.approx((6 * 30.0 * alone.of_rest + 2 * alone.of_seeds) / 8)
    assert drawn.seed_degrees_of_freedom == 8
    assert (drawn.groups, drawn.num_seeds) == (alone.groups, 3)


def test_a_single_seed_and_seeds_with_the_same_answers_take_nothing_from_the_others():
    prior = SeedPrior(3.0, 6.0, 16)
    assert interval([UNEVEN], prior=prior) == interval([UNEVEN])
    assert interval([UNEVEN, UNEVEN], prior=prior) == interval([UNEVEN, UNEVEN])
    table = table_of(np.random.default_rng(0))
    frozen = [[UNEVEN, UNEVEN, UNEVEN], [UNEVEN]]
    assert fit_seed_prior([*table, *frozen]) == fit_seed_prior(table)


def test_where_most_experiments_have_the_same_mean_with_every_seed_there_are_intervals():
    """Of few queries, seeds often have as many right, and the prior divided by zero."""

    def right_but_for(*wrong: int) -> Scores:
        values = np.ones(8)
        values[list(wrong)] = 0
        return Scores(values, np.repeat(np.arange(4), 2))

    places = [(0, 2, 4), (1, 3, 6), (6, 2, 0), (1, 4, 6)]
    table = [list(map(right_but_for, row)) for row in places]
    table.append([right_but_for(0, 2, 4), right_but_for(1), right_but_for()])
    prior = fit_seed_prior(table)
    assert prior is not None and prior.ratio == 0
    for row in table[:4]:
        assert interval(row, prior=prior).standard_error == interval(row).standard_error > 0
    assert interval(table[4], prior=prior) == interval(table[4])


def test_three_experiments_have_no_prior():
    table = table_of(np.random.default_rng(0), rows=4)
    assert fit_seed_prior(table) is not None
    assert fit_seed_prior(table[:3]) is None


def test_what_a_seed_s_split_does_to_all_experiments_is_no_part_of_their_differences():
    chance = np.random.default_rng(3)
    table = table_of(chance, deviation=0.0)
    shifts = chance.normal(0, 0.3, 3)
    moved = [shifted(row, shifts) for row in table]
    before, after = fit_difference_prior(table), fit_difference_prior(moved)
    assert after.ratio == pytest.approx(before.ratio)
    assert after.degrees_of_freedom == pytest.approx(before.degrees_of_freedom)
    assert fit_seed_prior(moved).ratio > 3 * fit_seed_prior(table).ratio


def test_a_prior_of_many_experiments_narrows_intervals_that_still_hold_the_truth():
    chance = np.random.default_rng(7)
    held, alone, together = [], [], []
    for _ in range(40):
        table = table_of(chance, classes=20, queries=12)
        prior = fit_seed_prior(table)
        for row in table:
            moderated, plain = interval(row, prior=prior), interval(row)
            held.append(moderated.low <= 0.5 <= moderated.high)
            together.append(moderated.high - moderated.low)
            alone.append(plain.high - plain.low)
    assert 0.93 <= np.mean(held) <= 0.97
    assert np.mean(together) < 0.95 * np.mean(alone)
    assert np.quantile(together, 0.9) < 0.8 * np.quantile(alone, 0.9)


def test_an_interval_of_a_share_reaches_as_far_to_both_sides_in_logits():
    """By hand: at .97 with a standard error of .01 and many degrees of freedom, logit(.97) is 3.476
    and the reach 1.96 x .01 / (.97 x .03) = .6735."""
    measured = Interval.around(0.97, 0.01, 1e9, within=PROPORTION)
    assert (measured.low, measured.high) == pytest.approx((0.94281, 0.98447), abs=1e-5)
    nearly_all = Interval.around(0.995, 0.01, 9, within=PROPORTION)
    assert nearly_all.low < 0.965
    assert 0.995 < nearly_all.high < 1
    of_difference = Interval.around(0.97, 0.01, 1e9, within=(-1.0, 1.0))
    assert (of_difference.low, of_difference.high) == pytest.approx((0.9504, 0.9896), abs=1e-4)


def test_shares_that_are_all_or_none_are_cut_to_their_range():
    assert Interval.around(1.0, 0.01, 9, within=PROPORTION).high == 1.0
    assert Interval.around(0.0, 0.01, 9, within=PROPORTION).low == 0.0


def test_classes_that_differ_by_less_than_their_noise_are_taken_for_what_they_are():
    """They were taken for as different as the noise of their queries would make them. Equal ones
    are still taken for half of that."""
    labels = np.repeat(np.arange(20), 10)
    right = np.tile([1.0] * 6 + [0.0] * 4, 20)
    noise = 2.4 / 9 / 10  # the squares of a class, its degrees of freedom, its queries
    (group,) = components_of([Scores(right, labels)]).groups
    assert group.between == pytest.approx(0.5 * noise)
    assert query_share(Scores(right, labels)) == 1.0
    right[:20] = np.tile([1.0] * 9 + [0.0], 2)
    right[20:40] = np.tile([1.0] * 3 + [0.0] * 7, 2)
    (group,) = components_of([Scores(right, labels)]).groups
    means = right.reshape(20, 10).mean(1)
    assert 0.5 * noise < means.var(ddof=1) < 0.9 * noise
    assert group.between == pytest.approx(means.var(ddof=1))


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
    intervals = [interval(simulate(chance, classes, seeds)) for _ in range(experiments)]
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


def test_an_interval_near_one_holds_the_truth_too():
    """Skewed: of 20 classes with a mean of .97 most are always right. A plain t held it in 91%."""
    chance, held = np.random.default_rng(0), []
    labels = np.repeat(np.arange(20), 12)
    for _ in range(800):
        skill = expit(chance.normal(3.847, 0.9, 20))[labels]
        seeds = [Scores(1.0 * (chance.random(240) < skill), labels) for _ in range(10)]
        measured = interval(seeds, within=PROPORTION)
        held.append(measured.low <= 0.97 <= measured.high)
    assert 0.93 <= np.mean(held) <= 0.97


def two_groups(chance: np.random.Generator, classes: int, seeds: int) -> list[Scores]:
    """A contrast of 0.2: a third of the classes, of other skill, minus the others; each seed's
    models are better in all classes by another amount, and in the first third by yet another."""
    labels = np.repeat(np.arange(classes), 12)
    first = labels < classes // 3
    skill = skills(chance, classes, 0.15)[labels] - np.where(first, 0.0, 0.2)
    several = []
    for _ in range(seeds):
        shift = chance.normal(0, 0.05) + chance.normal(0, 0.02) * first
        right = chance.random(len(labels)) < skill + shift
        several.append(Scores(right.astype(float), labels, ~first))
    return several


@pytest.mark.parametrize(
    ("classes", "experiments"), [(200, 500), (20, 800)], ids=["200 classes", "20 classes"]
)
@pytest.mark.parametrize(
    ("simulate", "truth", "seeds"),
    [
        (precision(0.2), MEAN, 1),
        (precision(0.0), MEAN, 1),
        (drop, MEAN / 6, 1),
        (precision(0.2), MEAN, 3),
        (precision(0.2, seed_deviation=0.01), MEAN, 3),
        (two_groups, 0.2, 3),
    ],
    ids=[
        "precision",
        "classes alike",
        "drop",
        "three seeds",
        "three seeds that differ",
        "contrast",
    ],
)
def test_a_95_percent_interval_holds_the_truth_in_95_percent_of_experiments(
    simulate: Simulate, truth: float, seeds: int, classes: int, experiments: int
):
    assert (
        0.93
        <= coverage(simulate, truth, classes=classes, seeds=seeds, experiments=experiments)
        <= 0.97
    )
