"""What the experiments of a table say together about how much seeds differ, from run folders."""

from pathlib import Path

import numpy as np
import pytest
from handmade import experiment, finish

from dml_bench.analysis.priors import SeedPriors, digest
from dml_bench.analysis.table import Group, grouped
from dml_bench.config.experiments import resolve
from dml_bench.config.tables import PlannedRow
from dml_bench.evaluation.statistics import fit_seed_prior
from dml_bench.runs.metrics import difference, measure, metric_of
from dml_bench.runs.run import Run

P_AT_1, DROP = "precision_at_1_macro", "precision_drop_unseen_classes"


def rows_of_runs(out: Path, rows: int = 5, seeds: int = 3) -> list[list[Run]]:
    """Experiments that answer by chance, some seeds better than others."""
    chance = np.random.default_rng(0)
    table = []
    for row in range(rows):
        runs = []
        for seed in range(seeds):
            right = chance.random((2, 6, 8)) < chance.uniform(0.3, 0.7)
            phases = dict(zip(("all", "limited"), right.astype(int).tolist(), strict=True))
            runs.append(finish(out, experiment(f"row {row}", seed=seed), phases, unseen=3))
        table.append(runs)
    return table


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> list[list[Run]]:
    return rows_of_runs(tmp_path_factory.mktemp("runs"))


def test_each_metric_has_a_prior_of_its_own(table):
    priors = SeedPriors(table)
    assert priors.of(P_AT_1).num_rows == 5
    assert priors.of(P_AT_1) != priors.of(DROP)
    assert priors.of(P_AT_1) != priors.of_differences(P_AT_1)
    scores = metric_of(table[0][0].experiment, DROP).scores
    assert priors.of(DROP) == fit_seed_prior([list(map(scores, runs)) for runs in table])


def test_differences_are_of_the_experiments_with_the_same_seeds_and_queries(table):
    fewer = [*table[:4], table[4][:2]]
    assert SeedPriors(fewer).of(P_AT_1).num_rows == 5
    assert SeedPriors(fewer).of_differences(P_AT_1).num_rows == 4
    assert SeedPriors(fewer[1:]).of_differences(P_AT_1) is None


def grouped_of(table: list[list[Run]]) -> Group:
    rows, finished = [], {}
    for runs in table:
        experiments = tuple(run.experiment for run in runs)
        rows.append(PlannedRow(experiments[0], experiments))
        finished |= {(run.experiment.name, run.seed): run for run in runs}
    [group] = grouped(rows, finished, {})
    return group


def test_a_table_draws_every_interval_towards_what_is_usual_in_it(table):
    group = grouped_of(table)
    place = [column.key for column in group.columns].index(P_AT_1)
    for line, runs in zip(group.lines, table, strict=True):
        assert line.values[place] == measure(runs, P_AT_1, group.priors.of(P_AT_1))
        assert line.values[place] != measure(runs, P_AT_1)


def test_rows_that_train_no_features_do_not_say_how_much_seeds_usually_differ(table, tmp_path):
    fixed = []
    for name in ("frozen_resnet18", "linearprobe_resnet18"):
        experiments = [resolve(name, overrides=[f"seed={seed}"]) for seed in range(3)]
        answers = {phase: [[1, 0, 1, 0, 1, 1, 0, 0]] * 6 for phase in ("all", "limited")}
        fixed.append([finish(tmp_path, one, answers, unseen=3) for one in experiments])
    with_fixed, without = grouped_of([*table, *fixed]), grouped_of(table)
    assert len(with_fixed.lines) == 7
    assert with_fixed.priors.rows == without.priors.rows


def test_below_a_table_stands_what_its_experiments_add_to_an_interval(table):
    rows = [PlannedRow(runs[0].experiment, (runs[0].experiment,)) for runs in table]
    finished = {(runs[0].experiment.name, 0): runs[0] for runs in table}
    [alone] = grouped(rows, finished, {})
    assert not any(line.startswith("Seeds:") for line in alone.explanation)
    group = grouped_of(table)
    [line] = [line for line in group.explanation if line.startswith("Seeds:")]
    degrees = group.priors.of(P_AT_1).degrees_of_freedom
    assert f"{degrees:.2g} for P@1" in line


def test_a_difference_is_drawn_towards_what_is_usual_of_differences(table):
    prior = SeedPriors(table).of_differences(P_AT_1)
    alone, together = (difference(*table[:2], P_AT_1, prior=own) for own in (None, prior))
    assert together.estimate == alone.estimate
    assert together.components.seed_degrees_of_freedom == 2 + prior.degrees_of_freedom


def test_what_was_fitted_and_to_which_runs_is_recorded(table):
    priors = SeedPriors(table)
    prior = priors.of_differences(P_AT_1)
    record = priors.record()
    assert record["fitted"] == [
        {
            "metric": P_AT_1,
            "of": "differences",
            "ratio": prior.ratio,
            "degrees_of_freedom": prior.degrees_of_freedom,
            "experiments": 5,
        }
    ]
    assert record["members"]["row 4, seed 2"] == digest(table[4][2])
    assert len(set(record["members"].values())) == 15
