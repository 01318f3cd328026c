"""Which candidate is expected to answer best on other photos."""

from itertools import product

import numpy as np
import pytest

from dml_bench.decision.choice import Candidate, Selection, best_of, choose, expected
from dml_bench.evaluation.statistics import Scores

BACKBONES = ("MobileNetV2", "EfficientNet-Lite0")
TRAININGS = ("no training", "softmax head", "EPSHN head", "ProxyNCA head", "ArcFace head")
WAYS = ("nearest photo", "class means")
SORTS = tuple(product(BACKBONES, TRAININGS, WAYS))
NUM_CLASSES = 12
LABELS = np.repeat(np.arange(NUM_CLASSES), 3)


def candidates(right: np.ndarray) -> list[Candidate]:
    """From (candidates, photos), or from (seeds, candidates, photos)."""
    seeds = right if right.ndim == 3 else right[None]
    made = []
    for place, (backbone, training, way) in enumerate(SORTS[: seeds.shape[1]]):
        scores = tuple(Scores(values.astype(float), LABELS) for values in seeds[:, place])
        made.append(Candidate(f"{backbone}, {training}", way, scores, "photo"))
    return made


def measured(made: list[Candidate]) -> np.ndarray:
    return np.array([candidate.precision.estimate for candidate in made])


def test_candidates_that_differ_by_their_parts_alone_are_expected_to_reach_what_the_parts_do():
    rng = np.random.default_rng(0)
    truth = 0.55 + np.array(
        [
            0.06 * BACKBONES.index(backbone)
            + 0.03 * TRAININGS.index(training)
            + 0.02 * WAYS.index(way)
            for backbone, training, way in SORTS
        ]
    )
    regrets, errors = [], []
    for _ in range(200):
        made = candidates(rng.random((len(SORTS), len(LABELS))) < truth[:, None])
        for values in (measured(made), np.array(expected(made))):
            regrets.append(truth.max() - truth[values.argmax()])
            errors.append(((values - truth) ** 2).mean())
    before, after = np.mean(regrets[::2]), np.mean(regrets[1::2])
    assert after < 0.6 * before
    assert np.mean(errors[1::2]) < 0.5 * np.mean(errors[::2])


def test_a_candidate_that_is_better_in_every_class_stays_so():
    right = np.zeros((len(SORTS), len(LABELS)))
    right[:, ::3] = 1
    right[4] = LABELS >= 0
    made = candidates(right)
    assert best_of(made) is made[4]
    assert expected(made) == pytest.approx(measured(made))


def test_what_chance_alone_tells_apart_is_drawn_together():
    rng = np.random.default_rng(1)
    right = (rng.random((len(SORTS), len(LABELS))) < 0.5).astype(float)
    made = candidates(right)
    values = expected(made)
    assert np.ptp(values) < 0.6 * np.ptp(measured(made))


def test_what_nothing_else_shares_its_parts_with_is_taken_as_measured():
    for count in (1, 2):
        made = candidates(np.arange(count * len(LABELS)).reshape(count, -1) % 3 == 0)
        assert expected(made) == pytest.approx(measured(made))
    assert expected([]) == []
    assert best_of([]) is None


def test_of_equal_ones_the_first_is_best():
    made = candidates(np.tile(LABELS % 2, (len(SORTS), 1)))
    assert best_of(made) is made[0]


def test_seeds_count_alike():
    rng = np.random.default_rng(2)
    made = candidates(rng.random((3, len(SORTS), len(LABELS))) < 0.6)
    assert np.mean(expected(made)) == pytest.approx(np.mean(measured(made)))


def test_no_more_than_all_photos_are_said_to_be_expected():
    """Two good parts together may sum to more than everything."""
    rng = np.random.default_rng(4)
    good = [(row[0] == BACKBONES[0]) | (row[1] == TRAININGS[0]) for row in SORTS]
    right = rng.random((len(SORTS), len(LABELS))) < np.where(good, 1, 0.8)[:, None]
    made = candidates(right)
    assert max(expected(made)) > 1
    said = Selection(tuple(made), made[0], None, None).expected
    assert max(said.values()) == 1
    assert list(said) == [candidate.name for candidate in made]


def test_a_single_seed_is_held_against_those_that_were_tested_on_its_photos(monkeypatch):
    """Of a row for which the time sufficed for one seed; each seed draws its own test photos."""
    right = np.ones(len(LABELS))
    half = np.tile([1.0, 0.0, 1.0], NUM_CLASSES)
    gallery = Candidate("a, none", "nearest photo", (Scores(half, LABELS),), "photo", ("42",))
    scores = tuple(Scores(values, LABELS) for values in (right, half, half))
    rival = Candidate("b, probe", "classifier", scores, "photo", ("42", "43", "44"))
    monkeypatch.setattr("dml_bench.decision.choice.candidates_of", lambda rows: (gallery, rival))
    assert choose({}).ahead.estimate == pytest.approx(1 / 3)
    same = Candidate("b, probe", "classifier", scores, "photo", ("42", "42", "42"))
    monkeypatch.setattr("dml_bench.decision.choice.candidates_of", lambda rows: (gallery, same))
    assert choose({}).ahead.estimate == pytest.approx(1 / 9)
