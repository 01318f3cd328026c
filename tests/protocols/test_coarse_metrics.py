"""The share of errors that stay inside the coarse class: measured of a run, its record and its
tables, where the data set has coarse classes and nowhere else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import answered, dataset_of, finish

from dml_bench.config import Experiment
from dml_bench.config.experiments import resolve
from dml_bench.data.split import Split, phases
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import estimate
from dml_bench.protocols.class_disjoint import RetrievalResult
from dml_bench.protocols.class_holdout import HoldoutResult
from dml_bench.protocols.coarse_metrics import (
    BY_CHANCE,
    COARSE_OF_OTHERS,
    ERRORS_WITHIN,
    describe_coarse,
)
from dml_bench.runs.arrays import write_neighbours
from dml_bench.runs.metrics import difference, measure, metrics_of
from dml_bench.runs.record import content_of
from dml_bench.runs.run import RecordedRun
from dml_bench.system.files import write_csv

KINDS = ("Apple", "Apple", "Milk", "Milk")
RIGHT = {"all": [[1, 0], [1, 0], [0, 0], [1, 1]], "limited": [[1, 1], [1, 1], [1, 1], [1, 1]]}
"""A wrong answer is the next class: 0 -> 1 and 2 -> 3 stay inside, 1 -> 2 does not. So 3 of 4."""


def experiment(dataset: str) -> Experiment:
    return resolve(
        "EPSHN_cosine_resnet18_sgd_aug", overrides=["seed=42", f"data.dataset={dataset}"]
    )


@pytest.fixture
def run(tmp_path: Path):
    finished = finish(tmp_path, experiment("omniglot"), RIGHT)
    rows = [(f"class {label}", kind) for label, kind in enumerate(KINDS)]
    write_csv(finished.folder / "all_classes_metrics.csv", ("class name", "coarse class"), rows)
    return finished


def result(dataset_name: str = "omniglot", kinds: tuple[str, ...] | None = KINDS) -> HoldoutResult:
    labels = np.repeat(np.arange(4), 2)
    dataset = replace(dataset_of(dict.fromkeys("abcd", 3)), coarse_classes=kinds)
    train = np.array([0, 3, 6, 9])
    test = np.setdiff1d(np.arange(12), train)
    neighbours = {
        phase: answered(np.concatenate(right).astype(bool), labels)
        for phase, right in RIGHT.items()
    }
    split = Split(train, test, "fingerprint", gallery=train, valid=train[:0])
    return HoldoutResult(
        experiment(dataset_name), dataset, split, phases(((2, 3),)), neighbours, {}
    )


def test_the_share_of_errors_within_the_coarse_class_is_a_metric_of_a_run(run):
    assert measure([run], ERRORS_WITHIN).estimate == pytest.approx(0.75)
    assert difference([run], [run], ERRORS_WITHIN).estimate == 0.0
    assert run.coarse_groups.tolist() == [0, 0, 1, 1]


def test_a_record_keeps_the_coarse_classes(run):
    content = content_of(run, {})
    assert content.facts["coarse_classes"] == list(KINDS)
    recorded = RecordedRun(
        run.folder, run.experiment, content.facts["summary"], content=content, description={}
    )
    metric = metrics_of(run.experiment)[ERRORS_WITHIN]
    assert estimate([metric.scores(recorded)], average=metric.average) == pytest.approx(0.75)


def test_a_summary_has_the_share_of_each_phase_and_what_chance_would_give():
    of_phases = result().summary()["phases"]
    assert of_phases["all"][ERRORS_WITHIN] == pytest.approx(0.75)
    assert of_phases["all"][BY_CHANCE] == pytest.approx(1 / 3)
    assert of_phases["limited"][ERRORS_WITHIN] == 0.0


def test_the_class_table_has_the_coarse_class_of_each_class():
    table = result().tables()["all_classes_metrics"]
    assert table.columns[-1] == "coarse class"
    assert [row[-1] for row in table.rows] == list(KINDS)


def test_retrieval_among_unseen_classes_has_the_share_too():
    whatever = result()
    answers = whatever.neighbours["all"]
    disjoint = RetrievalResult(
        replace(whatever.experiment, evaluate=replace(whatever.experiment.evaluate, recall_k=(1,))),
        whatever.dataset,
        whatever.split,
        answers,
        None,
    )
    assert disjoint.summary()["retrieval"][ERRORS_WITHIN] == pytest.approx(0.75)
    assert disjoint.tables()["test_classes_metrics"].columns[-1] == "coarse class"


def with_a_class_without_queries(neighbours: Neighbours) -> Neighbours:
    """The same with class 4 in the gallery, which answers the first wrong query, of class 0."""
    indices = neighbours.indices.copy()
    indices[1, 0] = 4
    gallery = np.append(neighbours.gallery_labels, 4)
    return replace(neighbours, indices=indices, gallery_labels=gallery)


def test_an_answer_of_a_class_without_queries_counts_by_the_coarse_class_that_is_kept(run):
    whatever = result()
    answers = with_a_class_without_queries(whatever.neighbours["all"])
    dataset = replace(dataset_of(dict.fromkeys("abcde", 3)), coarse_classes=(*KINDS, "Apple"))
    disjoint = RetrievalResult(
        replace(whatever.experiment, evaluate=replace(whatever.experiment.evaluate, recall_k=(1,))),
        dataset,
        whatever.split,
        answers,
        None,
    )
    assert disjoint.summary()["retrieval"][ERRORS_WITHIN] == pytest.approx(0.75)
    table = disjoint.tables()[COARSE_OF_OTHERS]
    assert (table.columns, table.rows) == (("class id", "coarse class"), ((4, "Apple"),))
    write_neighbours(run.folder / "all" / "neighbours.safetensors", answers)
    with pytest.raises(ValueError, match=r"kept no coarse classes of classes that have no queries"):
        measure([replace(run)], ERRORS_WITHIN)
    write_csv(run.folder / f"{COARSE_OF_OTHERS}.csv", table.columns, table.rows)
    reread = replace(run)
    assert measure([reread], ERRORS_WITHIN).estimate == pytest.approx(0.75)
    assert reread.coarse_groups.tolist() == [0, 0, 1, 1, 0]
    reread.__dict__["predictions"] = [dict.fromkeys(("all_predicted", "all_vote"), "e")] * 8
    content = content_of(reread, {})
    assert content.facts["coarse_of_others"] == {"4": "Apple"}
    recorded = RecordedRun(
        run.folder, run.experiment, content.facts["summary"], content=content, description={}
    )
    assert recorded.coarse_groups.tolist() == [0, 0, 1, 1, 0]


def test_a_data_set_without_coarse_classes_has_none_of_it():
    without = result("cub", kinds=None)
    assert ERRORS_WITHIN not in without.summary()["phases"]["all"]
    assert "coarse class" not in without.tables()["all_classes_metrics"].columns
    assert ERRORS_WITHIN not in metrics_of(experiment("cub"))
    assert describe_coarse("all", without.summary()["phases"]["all"]) == ""


def test_the_terminal_says_the_share_beside_what_chance_would_give():
    numbers = {ERRORS_WITHIN: 0.346, BY_CHANCE: 0.041}
    assert describe_coarse("all", numbers) == (
        " Of the errors of all, 35% stay inside the coarse class (4% by chance)."
    )


def test_a_run_that_kept_no_coarse_classes_is_refused_in_one_line(tmp_path):
    finished = finish(tmp_path, experiment("omniglot"), RIGHT)
    with pytest.raises(ValueError, match=r"this run kept no coarse classes.*run again"):
        measure([finished], ERRORS_WITHIN)
