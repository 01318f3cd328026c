"""From the neighbours of both phases to the numbers, tables and predictions, by the study's names;
all by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import classification_report

from dml_bench.config import Experiment, load
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Split, phases
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols.class_holdout import HoldoutResult
from dml_bench.runs.session import write_tables
from dml_bench.system.tables import ResultTable

CLASSES = ("auk", "jay", "owl", "wren")
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
TRAIN, TEST = np.array([0, 2, 4, 5, 7, 9, 10]), np.array([1, 3, 6, 8, 11])
"""The gallery holds 2 auks, 2 jays, 2 owls and a wren; 2 auks and one of each other class ask."""
PATHS = tuple(f"{CLASSES[label]}/{image:02}.png" for image, label in enumerate(LABELS))
UNSEEN = (2, 3)


def experiment() -> Experiment:
    return load(
        {
            "name": "test",
            "loss": "NTXent",
            "optimizer": "sgd",
            "unseen": "last:2",
            "evaluate": {"vote_k": [1, 3, 50]},
        }
    )


def neighbours_of(order: list[list[int]], nearest: list[float]) -> Neighbours:
    similarities = np.array(nearest)[:, None] - 0.1 * np.arange(7)
    return Neighbours(np.array(order), similarities.astype(np.float32), LABELS[TRAIN], LABELS[TEST])


# Positions in the gallery: 0 and 1 auk, 2 and 3 jay, 4 and 5 owl, 6 wren. Rows: auk, auk, jay, owl,
# wren.
ALL = neighbours_of(
    [
        [1, 0, 2, 3, 4, 5, 6],  # auk: right
        [2, 0, 1, 3, 4, 5, 6],  # auk: wrong, a jay; three vote for auk
        [3, 2, 0, 1, 4, 5, 6],  # jay: right
        [4, 6, 5, 0, 1, 2, 3],  # owl: right
        [6, 4, 5, 0, 1, 2, 3],  # wren: right; three vote for owl
    ],
    [0.987654, 0.9, 0.8, 0.7, 0.6],
)
LIMITED = neighbours_of(
    [
        [0, 1, 2, 3, 4, 5, 6],  # auk: right
        [1, 0, 2, 3, 4, 5, 6],  # auk: right
        [0, 2, 3, 1, 4, 5, 6],  # jay: wrong, an auk; three vote for jay
        [0, 4, 5, 6, 1, 2, 3],  # owl: wrong, an auk; three vote for owl
        [6, 0, 1, 4, 5, 2, 3],  # wren: right; three vote for auk
    ],
    [0.95, 0.85, 0.75, 0.65, 0.55],
)


def split_of(train: np.ndarray, test: np.ndarray) -> Split:
    return Split(train, test, "fingerprint", gallery=train, valid=train[:0])


@pytest.fixture
def answers() -> HoldoutResult:
    dataset = Dataset(
        name="birds", root=Path("nowhere"), paths=PATHS, labels=LABELS, class_names=CLASSES
    )
    return HoldoutResult(
        experiment(),
        dataset,
        split_of(TRAIN, TEST),
        phases((UNSEEN,)),
        {"all": ALL, "limited": LIMITED},
        {},
    )


def test_tables_have_the_names_of_the_study_letter_for_letter(answers):
    assert set(answers.tables()) == {
        "all_classes_metrics",
        "all_classes_classification_report",
        "limited_classes_metrics",
        "limited_classes_classification_report",
        "comparison_unseen_classes_metrics",
        "comparison_seen_classes_metrics",
    }


def test_scalars_have_the_names_of_the_study_letter_for_letter(answers):
    assert answers.scalars() == {
        "precision_drop_unseen_classes": 0.5,  # owl 1 - 0, wren 1 - 1
        "precision_drop_seen_classes": 0.25,  # auk .5 - 1, jay 1 - 0
        "precision_drop_all_classes": 0.375,
    }


def test_the_class_metrics_of_all_count_the_training_images_of_every_class(answers):
    table = answers.tables()["all_classes_metrics"]
    assert table.columns == ("class name", "test samples", "training samples", "precision@1")
    assert table.rows == (
        ("auk", 2, 2, 0.5),
        ("jay", 1, 2, 1.0),
        ("owl", 1, 2, 1.0),
        ("wren", 1, 1, 1.0),
    )


def test_the_class_metrics_of_limited_have_no_training_images_of_unseen_classes(answers):
    table = answers.tables()["limited_classes_metrics"]
    assert table.rows == (
        ("auk", 2, 2, 1.0),
        ("jay", 1, 2, 0.0),
        ("owl", 1, 0, 0.0),
        ("wren", 1, 0, 1.0),
    )


def test_the_comparisons_hold_exactly_the_unseen_and_exactly_the_seen_classes(answers):
    tables = answers.tables()
    assert tables["comparison_unseen_classes_metrics"].rows == (
        ("owl", 1.0, 0.0),
        ("wren", 1.0, 1.0),
    )
    assert tables["comparison_seen_classes_metrics"].rows == (("auk", 0.5, 1.0), ("jay", 1.0, 0.0))
    for group in ("unseen", "seen"):
        columns = tables[f"comparison_{group}_classes_metrics"].columns
        assert columns == (
            "class name",
            "P@1 trained on all classes",
            "P@1 trained without the unseen classes",
        )


@pytest.mark.parametrize(
    ("phase", "predicted"), [("all", [0, 1, 1, 2, 3]), ("limited", [0, 0, 0, 0, 3])]
)
def test_the_classification_report_is_scikit_learns_of_the_first_neighbour_not_the_second(
    answers, phase, predicted
):
    table = answers.tables()[f"{phase}_classes_classification_report"]
    expected = classification_report(
        [0, 0, 1, 2, 3], predicted, target_names=CLASSES, output_dict=True, zero_division=0
    )
    measures = ("precision", "recall", "f1-score", "support")
    assert table.columns == ("class name", *measures)
    assert [row[0] for row in table.rows] == [
        "auk",
        "jay",
        "owl",
        "wren",
        "macro avg",
        "weighted avg",
    ]
    for name, *values in table.rows:
        assert values == pytest.approx([expected[name][measure] for measure in measures]), name


def test_the_classification_report_has_the_classes_that_nobody_predicted(answers):
    rows = {
        row[0]: row[1:] for row in answers.tables()["limited_classes_classification_report"].rows
    }
    assert rows["owl"] == (0, 0, 0, 1)
    assert rows["auk"] == pytest.approx((0.5, 1, 2 / 3, 2))


def test_predictions_have_one_row_per_query_with_the_nearest_and_the_vote(answers):
    table = answers.predictions()
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["query"] for row in rows] == [
        "auk/01.png",
        "auk/03.png",
        "jay/06.png",
        "owl/08.png",
        "wren/11.png",
    ]
    assert [row["class"] for row in rows] == ["auk", "auk", "jay", "owl", "wren"]
    assert [row["unseen"] for row in rows] == [False, False, False, True, True]
    assert [row["all_nearest"] for row in rows] == [
        "auk/02.png",
        "jay/04.png",
        "jay/05.png",
        "owl/07.png",
        "wren/10.png",
    ]
    assert [row["all_predicted"] for row in rows] == ["auk", "jay", "jay", "owl", "wren"]
    assert [row["all_correct"] for row in rows] == [True, False, True, True, True]
    assert [row["limited_nearest"] for row in rows] == [
        "auk/00.png",
        "auk/02.png",
        "auk/00.png",
        "auk/00.png",
        "wren/10.png",
    ]
    assert [row["limited_predicted"] for row in rows] == ["auk", "auk", "auk", "auk", "wren"]
    assert [row["limited_correct"] for row in rows] == [True, True, False, False, True]
    # All 7 gallery images vote: auk, jay and owl have 2 each, and the nearest of them wins.
    assert [row["all_vote"] for row in rows] == ["auk", "jay", "jay", "owl", "owl"]
    assert [row["limited_vote"] for row in rows] == ["auk", "auk", "auk", "auk", "auk"]
    assert [row["all_vote_share"] for row in rows] == [0.285714] * 5


def test_similarities_are_written_with_six_decimals(answers):
    table = answers.predictions()
    assert [row[table.columns.index("all_similarity")] for row in table.rows] == [
        0.987654,
        0.9,
        0.8,
        0.7,
        0.6,
    ]
    assert [row[table.columns.index("limited_similarity")] for row in table.rows] == [
        0.95,
        0.85,
        0.75,
        0.65,
        0.55,
    ]


def test_the_vote_of_the_predictions_is_of_ten():
    labels = np.array([0] * 5 + [1] * 6 + [0] * 5)
    order = np.arange(16)
    one_query = Neighbours(order[None], np.linspace(0.9, 0.1, 16)[None], labels, np.array([0]))
    dataset = Dataset(
        name="birds",
        root=Path("nowhere"),
        paths=tuple(f"{image:02}.png" for image in range(17)),
        labels=np.append(labels, 0),
        class_names=("auk", "jay"),
    )
    split = split_of(order, np.array([16]))
    table = HoldoutResult(
        experiment(), dataset, split, phases(((1,),))[:1], {"all": one_query}, {}
    ).predictions()
    row = dict(zip(table.columns, table.rows[0], strict=True))
    # 5 auks and 5 jays among the first ten: a tie, which goes to the nearer; of 11, jay would win.
    assert (row["all_vote"], row["all_vote_share"]) == ("auk", 0.5)


def test_the_summary_has_both_phases_with_macro_and_micro_by_their_names(answers):
    phases = answers.summary()["phases"]
    assert list(phases) == ["all", "limited"]
    expected = {
        "all": {
            "precision_at_1_macro": 0.875,
            "precision_at_1_micro": 0.8,
            "precision_at_1_macro_seen": 0.75,
            "precision_at_1_micro_seen": 2 / 3,
            "precision_at_1_macro_unseen": 1.0,
            "precision_at_1_micro_unseen": 1.0,
        },
        "limited": {
            "precision_at_1_macro": 0.5,
            "precision_at_1_micro": 0.6,
            "precision_at_1_macro_seen": 0.5,
            "precision_at_1_micro_seen": 2 / 3,
            "precision_at_1_macro_unseen": 0.5,
            "precision_at_1_micro_unseen": 0.5,
        },
    }
    for phase, numbers in expected.items():
        assert {name: phases[phase][name] for name in numbers} == pytest.approx(numbers)


def test_the_summary_has_the_accuracy_of_the_vote_by_k(answers):
    phases = answers.summary()["phases"]
    # Of 3: auk, auk, jay, owl and owl for a wren. Of 50, which is all 7: auk, jay for an auk, jay,
    # owl, owl for a wren.
    assert phases["all"]["knn_vote_accuracy"] == {"1": 0.8, "3": 0.8, "50": 0.6}
    # Of 3: auk, auk, jay, owl, auk for a wren. Of all 7, auk each time.
    assert phases["limited"]["knn_vote_accuracy"] == {"1": 0.6, "3": 0.8, "50": 0.4}
    assert list(phases["all"]["knn_vote_accuracy_distance_weighted"]) == ["1", "3", "50"]


def test_the_summary_has_the_metrics_of_retrieval(answers):
    phase = answers.summary()["phases"]["all"]
    # R is 2, 2, 2, 2 and 1; the second query finds one of its two in second place, the fourth one
    # in first place.
    assert phase["r_precision_micro"] == pytest.approx((1 + 0.5 + 1 + 0.5 + 1) / 5)
    assert phase["map_at_r_micro"] == pytest.approx((1 + 0.25 + 1 + 0.5 + 1) / 5)
    assert phase["map_at_r_micro_unseen"] == pytest.approx((0.5 + 1) / 2)
    assert phase["map_at_r_micro_seen"] == pytest.approx((1 + 0.25 + 1) / 3)


def test_the_summary_has_the_drops_and_the_classes_that_lost_most(answers):
    summary = answers.summary()
    assert {name: summary[name] for name in answers.scalars()} == answers.scalars()
    assert summary["largest_drops"] == [
        {"class": "jay", "unseen": False, "all": 1.0, "limited": 0.0, "drop": 1.0},
        {"class": "owl", "unseen": True, "all": 1.0, "limited": 0.0, "drop": 1.0},
    ], "wren keeps its precision and auk gains: neither loses"


def test_the_summary_has_the_cost_of_being_unseen_and_the_parts_of_the_seen_drop(answers):
    summary = answers.summary()
    assert summary["cost_of_being_unseen"] == 0.5 - 0.25
    assert summary["cost_of_being_unseen_compares"] == "other classes"
    # An auk is won back from a jay and a jay is lost to an auk: all are images of seen classes.
    assert summary["precision_drop_seen_to_unseen_classes"] == 0
    assert summary["precision_drop_seen_to_seen_classes"] == 0.25
    for name in ("cost_of_being_unseen", "precision_drop_unseen_classes"):
        assert summary[f"{name}_low"] < summary[name] < summary[f"{name}_high"]


def test_wandb_has_the_cost_beside_the_names_of_the_study(answers):
    highlights = answers.highlights()
    assert highlights["cost_of_being_unseen"] == 0.25
    assert highlights["cost_of_being_unseen_compares"] == "other classes"
    assert set(answers.scalars()) < set(highlights)


def test_every_table_is_written_with_the_kind_of_split_beside_its_numbers(answers, tmp_path):
    write_tables(answers, tmp_path, "grouped by shop")
    tables = {}
    for name, table in answers.tables().items():
        rows = [(*row, "grouped by shop") for row in table.rows]
        tables[name] = ResultTable((*table.columns, "split"), tuple(rows))
    tables["predictions"] = answers.predictions()
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.csv" for name in tables}
    for name, table in tables.items():
        with open(tmp_path / f"{name}.csv", encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        assert header == list(table.columns)
        assert rows == [list(map(str, row)) for row in table.rows]
