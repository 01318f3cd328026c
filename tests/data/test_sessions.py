"""Sessions that nobody has named are estimated against known ones, and numbers that were given
afterwards are not taken for sessions."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from handmade import dataset_of

from dml_bench.data.datasets import Dataset
from dml_bench.data.exif import Capture
from dml_bench.data.grouping import groups_of, runs_of_names
from dml_bench.data.sessions import estimate_sessions, share_beside
from dml_bench.data.split import make_split

BIRDS = dataset_of({"auk": 20, "jay": 20, "owl": 20, "tit": 20})
TRUE_SESSIONS = np.arange(80) // 4
"""Four photos of one class each."""
DAYS = np.arange(80) // 8


def renamed(names: list[str]) -> Dataset:
    paths = [
        f"{BIRDS.class_names[label]}/{name}.jpg"
        for label, name in zip(BIRDS.labels, names, strict=True)
    ]
    return replace(BIRDS, paths=tuple(paths))


def with_captures(captures: list[Capture]) -> Dataset:
    dataset = replace(BIRDS)
    dataset.__dict__["captures"] = tuple(captures)  # instead of files
    return dataset


def times(sessions: np.ndarray) -> list[Capture]:
    """Sessions are three hours apart, their photos a minute."""
    start = datetime(2026, 5, 1)
    return [
        Capture(start + timedelta(hours=3 * int(session), minutes=photo % 4))
        for photo, session in enumerate(sessions)
    ]


def share_in_splits(labels: np.ndarray, sessions: np.ndarray, dataset: Dataset) -> float:
    """Of the test photos of 50 random splits, those beside their own session."""
    beside = []
    for seed in range(50):
        split = make_split(dataset, method="stratified", test_fraction=0.2, seed=seed)
        trained = set(zip(labels[split.train], sessions[split.train], strict=True))
        tested = zip(labels[split.test], sessions[split.test], strict=True)
        beside += [pair in trained for pair in tested]
    return float(np.mean(beside))


def test_the_expected_share_is_that_of_random_splits():
    rng = np.random.default_rng(0)
    sessions = rng.integers(0, 12, 80)
    counted = share_in_splits(BIRDS.labels, sessions, BIRDS)
    assert share_beside(BIRDS.labels, sessions, 0.2) == pytest.approx(counted, abs=0.03)


def test_sessions_are_seen_in_times_and_the_line_names_the_rule():
    estimate = estimate_sessions(with_captures(times(TRUE_SESSIONS)), 0.2)
    assert estimate is not None
    assert estimate.rule == "exif:hour"
    assert estimate.beside == pytest.approx(share_beside(BIRDS.labels, TRUE_SESSIONS, 0.2))
    assert estimate.chance < estimate.beside / 2
    assert estimate.advice.startswith("a random split would put ")
    assert estimate.advice.endswith("use --set data.split=grouped --set data.group=exif:hour")


def test_sessions_are_seen_in_the_numbers_of_a_camera():
    # The camera counts through all classes, and leaves out a number between two sessions.
    dataset = renamed([f"IMG_{photo + session:04}" for photo, session in enumerate(TRUE_SESSIONS)])
    estimate = estimate_sessions(dataset, 0.2)
    assert estimate is not None
    assert estimate.rule == "runs"
    assert estimate.beside == pytest.approx(share_beside(BIRDS.labels, TRUE_SESSIONS, 0.2))
    runs = groups_of(dataset, "runs")
    assert len(set(zip(runs, TRUE_SESSIONS, strict=True))) == len(set(runs)) == 20


def test_runs_of_numbers_that_begin_anew_in_each_class_stay_whole():
    paths = []
    for name in ("cola", "juice"):
        paths += [f"{name}/{number}.jpg" for number in (1, 2, 3, 7, 8, 9)]
    labels = np.repeat([0, 1], 6)
    of_class = runs_of_names(paths, labels)
    assert of_class == ["1"] * 3 + ["7"] * 3 + ["1 (1)"] * 3 + ["7 (1)"] * 3
    assert runs_of_names(paths) == (["1"] * 3 + ["7"] * 3) * 2


def photographed_trips(rng: np.random.Generator) -> tuple[Dataset, np.ndarray, list[Capture]]:
    """Trips of which each photographs most products a few times, some again on the way back, with
    (photos) their trips and times. The camera counts on between trips."""
    classes, names, labels, trips, captures = int(rng.integers(4, 12)), [], [], [], []
    time, number = datetime(2026, 5, 1), 100
    for trip in range(int(rng.integers(6, 15))):
        way = rng.permutation(classes)
        for label in (*way, *way[::-2]):
            for _ in range(rng.integers(0, 3)):
                time, number = time + timedelta(seconds=40), number + 1
                names.append(f"{label}/IMG_{number:05}.jpg")
                labels.append(label)
                trips.append(trip)
                captures.append(Capture(time))
        time, number = time + timedelta(hours=30), number + int(rng.integers(5, 400))
    known, ids = np.unique(labels, return_inverse=True)
    dataset = replace(
        BIRDS,
        paths=tuple(names),
        labels=ids,
        class_names=tuple(f"product {label}" for label in known.tolist()),
    )
    return dataset, np.array(trips), captures


@pytest.mark.parametrize("rule", ["exif:hour", "numbers"])
def test_trips_over_many_classes_are_seen_and_kept_whole(rule):
    rng = np.random.default_rng(3)
    for _ in range(20):
        dataset, trips, captures = photographed_trips(rng)
        timed = rule == "exif:hour"
        dataset.__dict__["captures"] = tuple(captures if timed else [Capture()] * len(captures))
        estimate = estimate_sessions(dataset, 0.2)
        assert estimate is not None
        assert estimate.rule == rule
        assert estimate.beside == pytest.approx(share_beside(dataset.labels, trips, 0.2))
        assert estimate.chance < estimate.beside / 2
        groups = groups_of(dataset, rule)
        assert len(set(zip(groups, trips, strict=True))) == len(set(groups)) == len(set(trips))
        split = make_split(dataset, method="grouped", test_fraction=0.2, seed=1, group=rule)
        assert not set(trips[split.train]) & set(trips[split.test])


def test_photos_that_were_taken_one_by_one_give_no_line():
    rng = np.random.default_rng(4)
    for _ in range(20):
        dataset, _, _ = photographed_trips(rng)
        labels = rng.permutation(dataset.labels)
        hours = rng.uniform(0, 3 * len(labels), len(labels))
        numbers = rng.choice(2 * len(labels), len(labels), replace=False)
        named = zip(labels, numbers, strict=True)
        dataset = replace(
            dataset,
            labels=labels,
            paths=tuple(f"{label}/DSC{number:06}.jpg" for label, number in named),
        )
        dataset.__dict__["captures"] = tuple(
            Capture(datetime(2026, 5, 1) + timedelta(hours=hour)) for hour in hours
        )
        assert estimate_sessions(dataset, 0.2) is None


def test_the_first_photos_of_a_shuffled_numbering_are_no_session():
    """Of each class the first 25 of a list that was shuffled and then numbered: nearly all numbers
    up to the first class's last one stand in a row, and were one session of most photos."""
    rng = np.random.default_rng(5)
    classes = rng.permutation(np.repeat(np.arange(60), rng.integers(25, 70, 60)))
    first = np.concatenate([np.flatnonzero(classes == label)[:25] for label in range(60)])
    dataset = replace(
        BIRDS,
        paths=tuple(f"{classes[number]}/{number:05}.jpg" for number in first.tolist()),
        labels=classes[first],
        class_names=tuple(f"car {label}" for label in range(60)),
    )
    dataset.__dict__["captures"] = (Capture(),) * len(first)
    assert estimate_sessions(dataset, 0.2) is None


@pytest.mark.parametrize("kept", [0.5, 0.8, 0.95])
def test_gaps_where_photos_were_taken_out_at_random_end_no_session(kept):
    """Oxford's flowers are numbered class by class. A training part lacks those of the others, and
    94% of test photos were said to be beside their own session."""
    rng = np.random.default_rng(7)
    numbers = np.flatnonzero(rng.random(3000) < kept)
    labels = numbers // 100
    dataset = replace(
        BIRDS,
        paths=tuple(
            f"{label}/image_{number:05}.jpg" for label, number in zip(labels, numbers, strict=True)
        ),
        labels=labels,
        class_names=tuple(f"flower {label}" for label in range(30)),
    )
    dataset.__dict__["captures"] = (Capture(),) * len(numbers)
    assert estimate_sessions(dataset, 0.2) is None


@pytest.mark.parametrize("lost", [0.0, 0.1])
def test_sessions_are_seen_though_a_camera_goes_through_the_classes_once(lost):
    """Four sessions of each class, a pause of some fifty numbers after each, and a few photos
    that were taken out."""
    rng = np.random.default_rng(8)
    sessions = np.repeat(np.arange(80), 10)
    numbers = np.arange(800) + 50 * sessions
    there = rng.random(800) >= lost
    numbers, sessions = numbers[there], sessions[there]
    dataset = replace(
        BIRDS,
        paths=tuple(
            f"{session // 4}/DSC{number:05}.jpg"
            for number, session in zip(numbers, sessions, strict=True)
        ),
        labels=sessions // 4,
        class_names=tuple(f"product {label}" for label in range(20)),
    )
    dataset.__dict__["captures"] = (Capture(),) * len(numbers)
    estimate = estimate_sessions(dataset, 0.2)
    assert estimate is not None
    assert estimate.rule == "numbers"


def test_a_single_photo_has_no_sessions():
    dataset = replace(BIRDS, paths=("a/IMG_0001.jpg",), labels=np.array([0]), class_names=("bird",))
    dataset.__dict__["captures"] = (Capture(),)
    assert estimate_sessions(dataset, 0.2) is None


@pytest.mark.parametrize("times_each", [1, 3])
def test_trips_are_seen_whether_a_product_is_taken_once_or_several_times_in_a_row(times_each):
    rng = np.random.default_rng(6)
    labels: list[int] = []
    numbers: list[int] = []
    for trip in range(8):
        way = np.repeat(rng.permutation(20), times_each)
        labels += way.tolist()
        numbers += (500 * trip + np.arange(len(way))).tolist()
    dataset = replace(
        BIRDS,
        paths=tuple(f"{label}/IMG_{n:05}.jpg" for label, n in zip(labels, numbers, strict=True)),
        labels=np.array(labels),
        class_names=tuple(f"product {label}" for label in range(20)),
    )
    dataset.__dict__["captures"] = (Capture(),) * len(labels)
    estimate = estimate_sessions(dataset, 0.2)
    if times_each == 1:
        assert estimate is None, "no two photos of a product are of one trip"
    else:
        assert estimate is not None
        assert estimate.rule == "numbers"


@pytest.mark.parametrize(
    ("names", "sessions"),
    [
        ([f"{photo // 4 % 5:05}_{photo % 4:05}" for photo in range(80)], TRUE_SESSIONS),
        ([f"clip{photo // 4}-frame{photo}" for photo in range(80)], TRUE_SESSIONS),
        ([f"IMG_202605{1 + photo // 8:02}_1530{photo:02}" for photo in range(80)], DAYS),
    ],
    ids=["tracks anew in each class", "frames of videos", "days of a phone"],
)
def test_sessions_are_seen_in_names_that_end_in_the_number_of_a_series_and_another(names, sessions):
    dataset = renamed(names)
    estimate = estimate_sessions(dataset, 0.2)
    assert estimate is not None
    assert estimate.rule == "series"
    assert estimate.beside == pytest.approx(share_beside(BIRDS.labels, sessions, 0.2))
    groups = groups_of(dataset, "series")
    assert len(set(zip(groups, sessions, strict=True))) == len(set(groups)) == len(set(sessions))


@pytest.mark.parametrize(
    "names",
    [
        [f"{photo % 20:02}" for photo in range(80)],
        [f"{BIRDS.class_names[photo // 20]}_{photo + photo // 7}" for photo in range(80)],
        [f"IMG_{photo:04}" for photo in range(80)],
        [f"IMG_{3 * photo:04}" for photo in range(80)],
        ["view of the sea" + "!" * photo for photo in range(80)],
        [f"{7**27 * (1 + 37 * photo % 83)}" for photo in range(80)],
        [f"camera{photo % 2}_{photo:03}" for photo in range(80)],
        [f"species{photo // 20}_{photo:03}" for photo in range(80)],
        [f"bird_{photo:04}_{7 * photo}" for photo in range(80)],
    ],
    ids=[
        "anew in each class",
        "after the class",
        "one run a class",
        "no runs",
        "no numbers",
        "identifiers",
        "two cameras",
        "a number of the class",
        "a series each",
    ],
)
def test_names_that_show_no_sessions_give_no_line(names):
    assert estimate_sessions(renamed(names), 0.2) is None


def test_one_time_missing_means_no_estimate_by_times():
    captures = times(TRUE_SESSIONS)
    captures[7] = Capture()
    assert estimate_sessions(with_captures(captures), 0.2) is None


def test_the_estimate_is_remembered_by_the_fingerprint_so_that_files_are_read_once(tmp_path):
    first = replace(with_captures(times(TRUE_SESSIONS)), cache_dir=tmp_path)
    first.__dict__["captures"] = tuple(times(TRUE_SESSIONS))
    estimate = estimate_sessions(first, 0.2)
    again = replace(BIRDS, cache_dir=tmp_path)
    again.__dict__["captures"] = ()  # would give another estimate
    assert estimate is not None
    assert estimate_sessions(again, 0.2) == estimate
    other_part = estimate_sessions(replace(first, cache_dir=tmp_path), 0.5)
    assert other_part != estimate  # what is remembered is of one part of test photos


def test_that_there_are_no_sessions_is_remembered_too(tmp_path):
    assert estimate_sessions(replace(BIRDS, cache_dir=tmp_path), 0.2) is None
    again = replace(BIRDS, cache_dir=tmp_path)
    again.__dict__["captures"] = tuple(times(TRUE_SESSIONS))
    assert estimate_sessions(again, 0.2) is None
