"""The cost of being unseen: both of its estimators by hand, and what they get wrong where the truth
is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pytest
from handmade import experiment, finish

import dml_bench as db
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import estimate
from dml_bench.protocols import class_holdout
from dml_bench.protocols.holdout_metrics import (
    compares,
    cost_metrics,
    cost_scores,
    costs_of_holdouts,
    drop_scores,
    lost_scores,
    p_at_1_metrics,
)
from dml_bench.protocols.holdout_outcome import points
from dml_bench.protocols.holdouts import Holdouts
from dml_bench.runs.metrics import measure, metrics_of


@dataclass
class Searched:
    """Nearest classes by phase, as a finished run has them."""

    nearest: Mapping[str, np.ndarray]
    query_labels: np.ndarray
    held_out: Mapping[str, np.ndarray]
    neighbours: dict[str, Neighbours] = field(init=False)

    def __post_init__(self) -> None:
        gallery = np.arange(self.query_labels.max() + 1)
        one = np.ones((len(self.query_labels), 1), np.float32)
        self.neighbours = {
            phase: Neighbours(classes[:, None], one, gallery, self.query_labels)
            for phase, classes in self.nearest.items()
        }

    @cached_property
    def holdouts(self) -> Holdouts:
        return Holdouts(self.neighbours, self.held_out)

    def logits(self, phase: str) -> Any:
        raise AssertionError(f"a cost needs no logits, as of {phase}")


def searched(held_out: dict[str, list[int]], **nearest: list[int]) -> Searched:
    """Two queries of each of four classes, by phase the class of each query's nearest image."""
    arrays = {phase.replace("_", "-"): np.array(classes) for phase, classes in nearest.items()}
    unseen = {phase: np.array(classes) for phase, classes in held_out.items()}
    return Searched(arrays, np.repeat(np.arange(4), 2), unseen)


ANSWERS = {
    "all": [0, 0, 1, 1, 2, 2, 3, 3],
    # Of its own classes: 1, 1; of those that it never saw: .5, 0.
    "limited_1": [0, 0, 1, 1, 2, 1, 1, 1],
    # It never saw the first two: .5, .5; its own: 1, .5.
    "limited_2": [0, 1, 3, 1, 2, 2, 3, 0],
}
ROTATED = searched({"limited-1": [2, 3], "limited-2": [0, 1]}, **ANSWERS)
ONE = searched(
    {"limited": [2, 3]},
    all=[0, 0, 1, 1, 2, 2, 3, 0],
    limited=[0, 3, 1, 0, 2, 1, 1, 3],
)

# By hand


def test_with_rotated_holdouts_the_cost_compares_models_on_the_same_queries():
    scores = cost_scores(ROTATED)
    assert scores.values.tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    assert estimate([scores]) == 0.5
    assert costs_of_holdouts(ROTATED) == {"limited-1": 0.5, "limited-2": 0.5}


def test_a_model_that_is_better_on_all_classes_does_not_move_the_cost():
    right, wrong = [0, 0, 1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3, 0, 0]
    held_out = {"limited-1": [2, 3], "limited-2": [0, 1]}
    run = searched(held_out, all=right, limited_1=right, limited_2=wrong)
    assert estimate([cost_scores(run)]) == 0
    assert costs_of_holdouts(run) == {"limited-1": -1, "limited-2": 1}


def test_a_class_that_no_limited_model_trained_on_has_no_cost():
    held_out = {"limited-1": [2, 3], "limited-2": [1, 3]}
    run = searched(held_out, all=[0] * 8, limited_1=[0] * 8, limited_2=[0] * 8)
    assert set(cost_scores(run).labels) == {1, 2}


def test_with_one_holdout_the_cost_is_the_unseen_drop_minus_the_seen_drop():
    assert estimate([drop_scores("unseen", ONE)]) == 0.25  # class 2: .5, class 3: 0
    assert estimate([drop_scores("seen", ONE)]) == 0.5
    assert estimate([cost_scores(ONE)]) == -0.25
    assert costs_of_holdouts(ONE) == {}


def test_which_queries_are_of_unseen_classes_is_looked_up_once_for_all_metrics(monkeypatch):
    run = searched({"limited-1": [2, 3], "limited-2": [0, 1]}, **ANSWERS)
    looked_up, isin = [], np.isin

    def counted(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        if labels is run.query_labels:
            looked_up.append(classes.tolist())
        return isin(labels, classes)

    monkeypatch.setattr(np, "isin", counted)
    for metric in (*cost_metrics("same classes"), *p_at_1_metrics()):
        metric.scores(run)
    assert looked_up == [[2, 3], [0, 1]]


def test_phases_that_answered_different_queries_have_no_drop_and_no_cost():
    run = searched({"limited": [2, 3]}, all=[0] * 8, limited=[0] * 8)
    other = replace(run.neighbours["limited"], query_labels=run.query_labels[::-1])
    run.neighbours["limited"] = other
    for scores in (cost_scores, partial(drop_scores, "seen")):
        with pytest.raises(ValueError, match="^the phases were evaluated on different queries"):
            scores(run)


def test_a_class_counts_as_unseen_where_a_phase_or_for_the_phase_of_all_any_never_trained_on_it():
    one_class = {"limited-1": [1], "limited-2": [3]}
    holdouts = searched(one_class, **ANSWERS).holdouts
    for phase, classes in {"all": [1, 3], **one_class}.items():
        groups = holdouts.groups(phase)
        unseen = np.isin(np.repeat(np.arange(4), 2), classes)
        assert {suffix: queries.tolist() for suffix, queries in groups.items()} == {
            "": [True] * 8,
            "_seen": (~unseen).tolist(),
            "_unseen": unseen.tolist(),
        }


def test_which_classes_are_compared_is_said_by_the_holdouts():
    assert compares([["owl", "wren"]]) == "other classes"
    assert compares([["owl", "wren"], ["owl", "wren"]]) == "other classes"
    assert compares([["owl", "wren"], ["owl", "auk"]]) == "same classes"


@pytest.mark.parametrize(
    ("unseen", "label"), [("last:2", " (other classes)"), ("random:2 x 2", "")]
)
def test_the_label_of_the_estimator_stands_wherever_the_cost_is_named(unseen, label):
    run = experiment(unseen=unseen)
    metric = metrics_of(run)["cost_of_being_unseen"]
    assert metric.head == metric.column == metric.description == f"cost of being unseen{label}"
    first = class_holdout.ClassHoldout().columns([run])[0]
    assert (first.key, first.head) == (metric.name, metric.head)


# The drop of the seen classes in two


def test_the_seen_drop_is_lost_to_images_of_unseen_or_of_seen_classes():
    # One query of class 0 goes to class 3, one of class 1 to class 0.
    assert lost_scores("unseen", ONE).values.tolist() == [0, 1, 0, 0]
    assert lost_scores("seen", ONE).values.tolist() == [0, 0, 0, 1]


def test_what_is_won_back_from_an_image_counts_against_what_is_lost_to_it():
    run = searched(
        {"limited": [2, 3]},
        all=[3, 1, 1, 0, 2, 2, 3, 3],  # wrong: one to class 3, one to class 1, one to class 0
        limited=[0, 3, 1, 1, 2, 2, 3, 3],  # the second is wrong in both: it counts nowhere
    )
    assert lost_scores("unseen", run).values.tolist() == [-1, 0, 0, 0]
    assert lost_scores("seen", run).values.tolist() == [0, 0, 0, -1]


@pytest.mark.parametrize("held_out", [{"limited": [2, 3]}, {"limited-1": [2, 3], "limited-2": [0]}])
def test_the_two_parts_add_up_to_the_seen_drop_of_each_query(held_out):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    nearest = {phase: rng.integers(0, 4, 200) for phase in ("all", *held_out)}
    run = Searched(nearest, labels, {phase: np.array(ids) for phase, ids in held_out.items()})
    parts = lost_scores("unseen", run).values + lost_scores("seen", run).values
    np.testing.assert_allclose(parts, drop_scores("seen", run).values, atol=1e-12)
    assert np.abs(lost_scores("unseen", run).values).sum() > 10


# Runs of versions that knew no cost

RIGHT = {
    "all": [[1, 1], [1, 1], [1, 1], [1, 0]],
    "limited": [[1, 1], [1, 0], [1, 0], [0, 0]],
}


def test_an_old_run_is_measured_from_its_neighbours(tmp_path):
    run = finish(tmp_path / "runs", experiment(unseen="last:2"), RIGHT)
    assert "cost_of_being_unseen" not in run.summary
    cost = measure([run], "cost_of_being_unseen")
    assert cost.estimate == pytest.approx(0.5 - 0.25)
    assert run.metrics["cost_of_being_unseen"] == cost.estimate
    assert run.metrics["cost_of_being_unseen_low"] == cost.low
    parts = "precision_drop_seen_to_unseen_classes", "precision_drop_seen_to_seen_classes"
    # `answered` gives a wrong query the next class: class 1 goes to class 2, which is unseen.
    assert [run.metrics[name] for name in parts] == [0.25, 0]

    [row] = db.load_runs(tmp_path / "runs").to_dict("records")
    assert row["cost_of_being_unseen"] == cost.estimate
    assert row["cost_of_being_unseen_compares"] == "other classes"


def test_the_end_of_an_old_run_shows_its_cost(tmp_path):
    run = finish(tmp_path / "runs", experiment(unseen="last:2"), RIGHT)
    summary = {**run.summary, **run.metrics, "experiment": run.experiment.name, "seed": run.seed}
    table = class_holdout.cost_table(summary, "other classes")
    cost = measure([run], "cost_of_being_unseen")
    assert table.rows[0] == (
        "cost of being unseen (other classes)",
        "+25.0",
        f"{100 * cost.low:+.1f} to {100 * cost.high:+.1f}",
    )
    assert [row[1] for row in table.rows[1:]] == ["+50.0", "+25.0", "+25.0", "+0.0"]


def test_a_cost_that_is_zero_but_for_its_last_bit_has_no_minus():
    shown = [points(value) for value in (-7e-18, -0.0004, 0.0, 0.123, -0.123)]
    assert shown == ["+0.0", "+0.0", "+0.0", "+12.3", "-12.3"]
    assert points(-7e-18, ".1f") == "0.0"


# What both estimators get wrong, where the truth is known

CLASSES, HELD_OUT, QUERIES, DRAWS = 40, 10, 60, 30
LESS_TRAINING, NEVER_TRAINED = 0.6, 1.2
"""What a query's own class loses in its logit: in every limited model, and where it is unseen."""


@dataclass(frozen=True)
class World:
    """A query's nearest image is of a class with a probability of exp(logit): that of its own class
    is its strength, that of every other class 0, or `pull` where that class is unseen: images of
    classes that were never trained on lie scattered among the others."""

    strength: np.ndarray
    """(classes) how easy each is."""
    pull: float

    def logits(self, unseen: np.ndarray, *, limited: bool = True) -> np.ndarray:
        """(classes, classes) of the query's class and of the nearest image."""
        is_unseen = np.isin(np.arange(CLASSES), unseen)
        logits = np.tile(self.pull * is_unseen, (CLASSES, 1))
        own = self.strength - LESS_TRAINING * limited - NEVER_TRAINED * is_unseen
        logits[np.arange(CLASSES), np.arange(CLASSES)] = own
        return logits

    def precision(self, unseen: np.ndarray, *, limited: bool = True) -> np.ndarray:
        """(classes) the true P@1."""
        weights = np.exp(self.logits(unseen, limited=limited))
        return np.diagonal(weights) / weights.sum(1)

    def true_costs(self, rng: np.random.Generator) -> np.ndarray:
        """(classes) P@1 where a random set of other classes is held out, minus P@1 where the class
        is in the set that is held out."""
        trained, untrained = np.zeros((2, CLASSES)), np.zeros((2, CLASSES))
        for _ in range(400):
            unseen = rng.permutation(CLASSES)[:HELD_OUT]
            is_unseen = np.isin(np.arange(CLASSES), unseen)
            precision = self.precision(unseen)
            trained += np.where(is_unseen, 0, [precision, np.ones(CLASSES)])
            untrained += np.where(is_unseen, [precision, np.ones(CLASSES)], 0)
        return trained[0] / trained[1] - untrained[0] / untrained[1]

    def draw(self, held_out: dict[str, np.ndarray], noise: np.ndarray) -> Searched:
        """One run; (query, classes) Gumbel `noise` is shared by all of its models."""
        labels = np.repeat(np.arange(CLASSES), QUERIES)
        nothing = np.array([], int)
        nearest = {"all": (self.logits(nothing, limited=False)[labels] + noise).argmax(1)}
        for phase, unseen in held_out.items():
            nearest[phase] = (self.logits(unseen)[labels] + noise).argmax(1)
        return Searched(nearest, labels, held_out)


EQUAL = np.full(CLASSES, 4.5)
EASY_UNSEEN = np.where(np.arange(CLASSES) < CLASSES - HELD_OUT, 4.5, 6.5)
WORLDS = {
    "neither": World(EQUAL, 0),
    "spill-over": World(EQUAL, 1),
    "unequal headroom": World(EASY_UNSEEN, 0),
    "both": World(EASY_UNSEEN, 1),
}
LAST = np.arange(CLASSES - HELD_OUT, CLASSES)


@pytest.fixture(scope="module")
def biases() -> dict[str, dict[str, float]]:
    """By world, in points: the bias of both estimators, each against the truth of the classes that
    it held out; and what seen classes lose to the pull of unseen ones, true and measured."""
    rng = np.random.default_rng(15)
    rows = {}
    noises = [rng.gumbel(size=(CLASSES * QUERIES, CLASSES)) for _ in range(DRAWS)]
    for name, world in WORLDS.items():
        truth = world.true_costs(rng)
        same, other, lost = [], [], []
        for noise in noises:
            order = rng.permutation(CLASSES).reshape(-1, HELD_OUT)
            rotated = {f"limited-{number}": ids for number, ids in enumerate(order, start=1)}
            same.append(estimate([cost_scores(world.draw(rotated, noise))]))
            single = world.draw({"limited": LAST}, noise)
            other.append(estimate([cost_scores(single)]))
            lost.append(estimate([lost_scores("unseen", single)]))
        seen = np.arange(CLASSES - HELD_OUT)
        pulled = World(world.strength, 0).precision(LAST) - world.precision(LAST)
        shares = {
            "true cost": truth.mean(),
            "bias, same classes": np.mean(same) - truth.mean(),
            "true cost of the last": truth[LAST].mean(),
            "bias, other classes": np.mean(other) - truth[LAST].mean(),
            "true spill-over": pulled[seen].mean(),
            "lost to unseen": np.mean(lost),
        }
        rows[name] = {key: 100 * value for key, value in shares.items()}
    return rows


def test_the_biases_are_printed(biases):
    heads = list(biases["both"])
    print(f"\n{'in points':<18}", *(f"{head:>22}" for head in heads))
    for name, row in biases.items():
        print(f"{name:<18}", *(f"{row[head]:>22.1f}" for head in heads))
    assert all(row["true cost"] > 5 for row in biases.values())


def test_on_the_same_classes_the_cost_has_no_bias_in_any_world(biases):
    for name, row in biases.items():
        assert abs(row["bias, same classes"]) < 0.5, name


def test_on_other_classes_the_cost_has_no_bias_only_where_classes_are_alike(biases):
    for name in ("neither", "spill-over"):
        assert abs(biases[name]["bias, other classes"]) < 1, name
    for name in ("unequal headroom", "both"):
        assert biases[name]["bias, other classes"] < -5, "easy classes look as if they cost nothing"


def test_what_seen_classes_lose_to_unseen_ones_is_an_upper_bound_of_the_spill_over(biases):
    for name, row in biases.items():
        assert row["lost to unseen"] > row["true spill-over"], name
    by_chance = biases["neither"]["lost to unseen"]
    assert by_chance > 1, "less training loses queries to all classes, the unseen ones among them"
    assert biases["spill-over"]["lost to unseen"] > by_chance + 3
