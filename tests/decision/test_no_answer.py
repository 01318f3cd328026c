"""What would make an answer of none: photos of the same classes only where these narrow the
interval."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from dml_bench.decision.decide import wanted, why_none
from dml_bench.evaluation.statistics import PROPORTION, Scores, interval, query_share


def drawn(spread: float, classes: int, photos: int, rng: np.random.Generator) -> Scores:
    """Classes whose P@1 lies this far around .6, with so many photos each."""
    precision = rng.uniform(0.6 - spread, 0.6 + spread, classes)
    labels = np.repeat(np.arange(classes), photos)
    return Scores((rng.random(len(labels)) < precision[labels]).astype(float), labels)


def parts(photos: int, classes: int, rule: str = "") -> SimpleNamespace:
    names = tuple(f"{number}" for number in range(classes))
    return SimpleNamespace(num_photos=photos, class_names=names, rule=rule)


def reach(scores: Scores) -> float:
    known = interval([scores], within=PROPORTION)
    return (known.high - known.low) / 2


@pytest.mark.parametrize(("spread", "photos"), [(0.0, 4), (0.3, 4), (0.3, 60)])
def test_the_share_of_the_photos_is_what_more_of_them_take_away(spread, photos):
    rng = np.random.default_rng(1)
    few, many = drawn(spread, 2000, photos, rng), drawn(spread, 2000, 10 * photos, rng)
    left = 1 - 0.9 * query_share(few)
    assert (reach(many) / reach(few)) ** 2 == pytest.approx(left, abs=0.05)


def test_more_photos_are_asked_for_where_they_help_and_classes_where_these_differ():
    alike = wanted(0.2, 1.0, parts(300, 10))
    assert alike == "you need about 1,200 photos, you have 300"
    partly = wanted(0.12, 0.6, parts(3000, 10))
    assert partly.startswith("you need about ")
    needed = int(re.search(r"about ([\d,]+)", partly)[1].replace(",", ""))
    # The variance is then that of a reach of 10 points.
    assert 0.12**2 * (0.4 + 0.6 * 3000 / needed) == pytest.approx(0.1**2, rel=0.03)
    differing = wanted(0.12, 0.02, parts(20_000, 43))
    assert differing == (
        "some classes are much easier than others, which more photos like these don't change: you"
        " need about 28,800 photos of about 62 classes, you have 20,000 of 43 classes"
    )
    in_sessions = wanted(0.12, 0.02, parts(20_000, 43, "series"))
    assert "of about 62 classes or of more sessions, you have" in in_sessions
    assert wanted(np.nan, np.nan, parts(80, 4)) == "you need about 400 photos, you have 80"


def test_a_narrow_interval_is_an_answer_whatever_its_classes():
    known = interval([drawn(0.05, 60, 40, np.random.default_rng(0))], within=PROPORTION)
    assert why_none(known, 0.0, parts(2400, 60)) == ""
