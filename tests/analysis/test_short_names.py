"""Short names of experiments: what the tables that come with the package call their rows."""

from dataclasses import replace

import pytest
from handmade import experiment

from dml_bench.analysis.short_names import LONGEST, short_names
from dml_bench.config import experiments
from dml_bench.config.tables import read_table, table_names, tables_over_data
from dml_bench.config.variants import settings_in_short, tuned_name
from dml_bench.suite.plan import chosen_rows
from dml_bench.suite.tuned import trains


@pytest.mark.parametrize("table", sorted({*table_names()} - {*tables_over_data()}))
def test_the_rows_of_a_table_have_short_names_of_which_no_two_are_the_same(table):
    _, _, rows = chosen_rows([], table, [], profile="", overrides=[], seeds=[])
    names = short_names([row.seeds[0] for row in rows])
    assert list(names) == list(read_table(table).rows)
    assert len(set(names.values())) == len(rows)
    for name, short in names.items():
        settings = "".join(f", {setting}" for setting in settings_in_short(name))
        assert len(short.removesuffix(settings)) <= LONGEST


def test_a_short_name_says_how_an_experiment_differs_from_most_others_of_its_table():
    names = short_names([experiments.resolve(row) for row in read_table("study").rows])
    assert names["EPSHN_cosine_resnet18_sgd_aug"] == "EPSHN"
    assert names["EPSHN_cosine_resnet50_sgd_aug"] == "EPSHN, resnet50"
    assert names["EPSHN_cosine_resnet18+1dBN_sgd_aug"] == "EPSHN + 1dBN"
    assert names["EPSHN_euclidean_resnet18"] == "EPSHN, Euclidean, Adam, no aug."
    assert names["crossentropy_resnet18_sgd_aug"] == "classifier"


def test_a_profile_changes_no_short_name():
    rows = read_table("study").rows
    plain = short_names([experiments.resolve(row) for row in rows])
    assert short_names([experiments.resolve(row, profile="demo") for row in rows]) == plain


def test_an_experiment_that_a_person_named_keeps_a_short_name_and_loses_a_long_one():
    long = "the_one_with_all_the_settings_that_worked_best_in_june"
    assert short_names([experiment("mine"), experiment(long)]) == {"mine": "mine", long: "EPSHN"}


@pytest.mark.parametrize("tables", [["field"], ["losses", "photographs"]])
def test_a_tuned_row_is_called_as_the_row_beside_it_and_tuned(tables):
    planned = []
    for table in tables:
        planned += chosen_rows([], table, [], profile="", overrides=[], seeds=[])[2]
    rows = [row.seeds[0] for row in planned]
    for row in filter(trains, planned):
        faster = {**row.seeds[0].optimizer.options, "lr": 0.05}
        optimizer = replace(row.seeds[0].optimizer, options=faster)
        rows.append(replace(row.seeds[0], name=tuned_name(row.name), optimizer=optimizer))
    names = short_names(rows)
    for row in filter(trains, planned):
        assert names[tuned_name(row.name)] == f"{names[row.name]}, tuned"
    assert not any("lr=" in name for name in names.values())


def test_experiments_that_would_be_called_the_same_are_distinguished_by_a_setting():
    first = experiment()
    faster = replace(first.optimizer, options={**first.optimizer.options, "lr": 0.1})
    swept = replace(first, name=f"{first.name}~optimizer.lr=0.1", optimizer=faster)
    slower = replace(first.optimizer, options={**first.optimizer.options, "lr": 1e-4})
    own = replace(first, name="an_experiment_with_a_name_that_is_too_long", optimizer=slower)
    names = short_names([first, swept, own])
    assert list(names.values()) == ["EPSHN, lr=0.001", "EPSHN, lr=0.1", "EPSHN, lr=0.0001"]
