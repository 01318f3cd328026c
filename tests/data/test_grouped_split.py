"""Splits that keep groups or days whole: what belongs together is on one side, every class on
both, and each class has its share as nearly as groups allow."""

import itertools
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import dataset_of
from PIL import Image
from processor_time import with_slow

from dml_bench.config import Data
from dml_bench.data.datasets import Dataset
from dml_bench.data.group_division import NotDivisible, divide_groups
from dml_bench.data.grouping import groups_of
from dml_bench.data.split import Phase, Split, fold_phases, make_split

SHARES = (0.8, 0.2)


def random_set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Class ids and group names: sessions of one class, of any class, or both."""
    rng = np.random.default_rng(seed)
    num_classes, num_groups = rng.integers(2, 7), rng.integers(2, 12)
    num_images = int(rng.integers(2 * num_classes, 80))
    labels = np.append(
        np.arange(num_classes), rng.integers(0, num_classes, num_images - num_classes)
    )
    shared = rng.integers(0, num_groups, num_images)
    own = 100 * (labels + 1) + rng.integers(0, rng.integers(1, 6), num_images)
    groups = np.where(rng.random(num_images) < rng.choice([0, 0.3, 1]), shared, own)
    return labels, groups.astype(str).astype(object)


def num_groups_by_class(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.array([len(set(groups[labels == label])) for label in range(labels.max() + 1)])


def can_be_divided(labels: np.ndarray, groups: np.ndarray) -> bool:
    """By trying all ways: whether every class with two groups can be on both sides."""
    names = sorted(set(groups))
    rows = []
    for label in set(labels):
        members = np.isin(names, groups[labels == label])
        if members.sum() > 1:
            rows.append(members)
    for sides in itertools.product((0, 1), repeat=len(names)):
        if all(len(set(np.array(sides)[row])) == 2 for row in rows):
            return True
    return False


@pytest.mark.parametrize("sets", with_slow((200, 1000), 1000))
def test_in_random_sets_no_group_is_parted_and_every_class_with_two_groups_is_on_both_sides(sets):
    refused = 0
    for seed in range(sets):
        labels, groups = random_set(seed)
        try:
            part = divide_groups(groups, labels, SHARES, seed)
        except NotDivisible:
            assert not can_be_divided(labels, groups)
            refused += 1
            continue
        assert set(groups[part == 0]).isdisjoint(groups[part == 1])
        for label in np.flatnonzero(num_groups_by_class(labels, groups) > 1):
            assert set(part[labels == label]) == {0, 1}
    assert refused < sets / 50


def test_what_is_refused_can_be_divided_in_no_way():
    refused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pairs = []
        for label in range(9):
            pairs += [(label, str(group)) for group in rng.choice(5, 2, replace=False)]
        labels, groups = map(np.array, zip(*pairs, strict=True))
        try:
            divide_groups(groups, labels, SHARES, seed)
        except NotDivisible:
            refused += 1
            assert not can_be_divided(labels, groups)
        else:
            assert can_be_divided(labels, groups)
    assert 20 < refused < 200


def imbalance(labels: np.ndarray, is_test: np.ndarray) -> float:
    """How far the classes' shares in the test part are from a fifth, root mean square."""
    sizes = np.bincount(labels)
    shares = np.bincount(labels[is_test], minlength=len(sizes)) / sizes
    return float(np.sqrt(np.mean((shares - 0.2) ** 2)))


def test_classes_are_balanced_better_than_by_stratified_group_k_fold_of_scikit_learn():
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(60):
        labels, groups = random_set(seed)
        if len(set(groups)) < 5 or np.bincount(labels).max() < 5:
            continue
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes smaller than the number of folds
            tests = [test for _, test in folds.split(labels, labels, groups)]
        of_folds = [imbalance(labels, np.isin(np.arange(len(labels)), test)) for test in tests]
        theirs.append(np.mean(of_folds))
        ours.append(imbalance(labels, divide_groups(groups, labels, SHARES, seed) == 1))
    assert len(ours) > 30
    assert np.mean(ours) < np.mean(theirs)
    assert np.mean(np.array(ours) <= np.array(theirs)) > 0.9


def birds(sessions: int = 5, photos: int = 4, classes: int = 3) -> Dataset:
    """NAME/SESSION/PHOTO.jpg; sessions have a name in each class."""
    names = [f"bird{label}" for label in range(classes)]
    paths, labels = [], []
    for label, name in enumerate(names):
        for session, photo in itertools.product(range(sessions), range(photos)):
            paths.append(f"{name}/{name}-day{session}/{photo}.jpg")
            labels.append(label)
    return Dataset(
        name="birds",
        root=Path("nowhere"),
        paths=tuple(paths),
        labels=np.array(labels, np.int64),
        class_names=tuple(names),
    )


def sessions_of(dataset: Dataset, images: Sequence[int] | np.ndarray) -> set[str]:
    return {dataset.paths[image].split("/")[1] for image in images}


def grouped(dataset: Dataset, group: str = "parent", seed: int = 42, valid: float = 0.0) -> Split:
    return make_split(
        dataset,
        method="grouped",
        test_fraction=0.2,
        valid_fraction=valid,
        seed=seed,
        group=group,
    )


def test_a_grouped_split_is_this_one_on_every_platform():
    split = grouped(birds())
    sessions = sorted({birds().paths[image].split("/")[1] for image in split.test})
    assert sessions == ["bird0-day1", "bird1-day4", "bird2-day3"]
    assert split.kind == "grouped"
    assert grouped(birds(), seed=1).fingerprint != split.fingerprint


def test_validation_images_are_of_groups_of_their_own():
    dataset = birds()
    split = grouped(dataset, valid=0.25)
    of_part = [sessions_of(dataset, part) for part in (split.train, split.valid, split.test)]
    assert [len(sessions) for sessions in of_part] == [9, 3, 3]
    assert len(set.union(*of_part)) == 15


def test_a_class_of_two_groups_has_no_validation_images_and_is_named():
    first, other = birds(2, classes=1), birds(5, classes=2)
    keep = [
        image
        for image, path in enumerate(other.paths)
        if path.startswith("bird1") or path in first.paths
    ]
    dataset = other.without(set(range(len(other))) - set(keep))
    split = grouped(dataset, valid=0.25)
    assert set(dataset.labels[split.valid]) == {1}
    assert split.notes == ("1 classes have too few groups for validation images (bird0)",)


def test_a_class_in_one_group_is_refused_with_what_to_do():
    with pytest.raises(
        ValueError, match=r"3 classes of birds have all images in one group \(bird0, bird1, bird2\)"
    ):
        grouped(birds(sessions=1))


def test_folds_withhold_whole_groups():
    dataset = birds(sessions=6)
    split = grouped(dataset)
    parts = fold_phases(Phase("all"), dataset, split, dataset.labels, 3, 42)
    sessions = [sessions_of(dataset, part.fold_images) for part in parts]
    assert sum(map(len, sessions)) == len(set.union(*sessions)) == 15
    for part in parts:
        assert set(dataset.labels[part.trains_on(dataset, split)]) == {0, 1, 2}


def test_folds_of_a_class_with_one_group_left_are_refused():
    dataset = birds(sessions=2)
    with pytest.raises(ValueError, match="the training images of 3 classes can't be in two"):
        fold_phases(Phase("all"), dataset, grouped(dataset), dataset.labels, 2, 42)


@pytest.mark.parametrize(
    ("rule", "group"),
    [
        ("parent", "auk-2"),
        (r"regex:(\d)/", "2"),
        (r"regex:^(\w+)/.*-(\d)", "auk/2"),
        (r"regex:auk-\d", "auk-2"),
        ("shop", "north"),
        ("series", "auk-2_"),
    ],
)
def test_groups_follow_paths_or_a_column(rule, group):
    dataset = replace(
        dataset_of({"auk": 1, "jay": 1}),
        paths=("auk/auk-2/auk-2_7.jpg", "jay/auk-3/auk-3_8.jpg"),
        columns={"shop": (" north", "south")},
    )
    assert groups_of(dataset, rule)[0] == group


def test_groups_whose_names_look_the_same_are_one_however_accents_are_stored():
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    places = (one, other, "bar", one, other, "bar")
    dataset = replace(dataset_of({"auk": 3, "jay": 3}), columns={"place": places})
    assert set(groups_of(dataset, "place")) == {one, "bar"}
    only = replace(dataset, columns={"place": (other, other, "bar") * 2})
    assert set(groups_of(only, "place")) == {other, "bar"}, "a split by these names stays as it was"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (r"regex:auk", r"gives 1 of 2 images of birds no group \(first: jay/00.jpg\)"),
        ("shpo", r"no column of birds \(did you mean shop\?\): its columns are shop"),
        ("exif:day", "gives 2 of 2 images of birds no group"),
        ("parent", "which is a rule and a column of birds: rename the column"),
    ],
)
def test_images_without_a_group_and_unknown_columns_are_refused(rule, problem):
    columns = {"shop": ("a", "b")} | ({"parent": ("a", "b")} if rule == "parent" else {})
    dataset = replace(dataset_of({"auk": 1, "jay": 1}), columns=columns)
    with pytest.raises(ValueError, match=problem):
        groups_of(dataset, rule)


def photo(path: Path, taken: str, camera: str = "A") -> None:
    exif = Image.Exif()
    exif[272] = camera
    exif.get_ifd(0x8769)[36867] = taken
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, exif=exif)


def test_photos_are_grouped_by_day_by_pauses_of_an_hour_and_by_camera(tmp_path):
    times = ("2026:05:01 09:50:00", "2026:05:01 10:40:00", "2026:05:01 11:40:00")
    for number, taken in enumerate((*times, "2026:05:02 00:10:00")):
        photo(tmp_path / f"auk/0{number}.jpg", taken, "AB"[number % 2])
    dataset = replace(dataset_of({"auk": 4}), root=tmp_path)
    assert groups_of(dataset, "exif:day").tolist() == ["2026-05-01"] * 3 + ["2026-05-02"]
    assert groups_of(dataset, "exif:camera").tolist() == ["A", "B", "A", "B"]
    # 50 minutes are no pause, 60 are one.
    first, second, third, fourth = groups_of(dataset, "exif:hour")
    assert first == second
    assert len({first, third, fourth}) == 3


def by_time(dataset: Dataset, fraction: float = 0.25, valid: float = 0.0) -> Split:
    return make_split(
        dataset,
        method="time",
        test_fraction=fraction,
        valid_fraction=valid,
        seed=42,
        time="taken",
    )


def test_the_newest_images_of_each_class_are_queries_and_no_day_is_parted():
    days = ("2020", "2021", "2022", "2023")
    jays = ("2026-01-01T08:00", "2026-01-02T07:00", "2026-01-02T20:00", "2026:01:03 09:00:00")
    dataset = replace(dataset_of({"auk": 4, "jay": 4}), columns={"taken": days + jays})
    assert by_time(dataset).test.tolist() == [3, 7]
    assert by_time(dataset, 0.5).test.tolist() == [2, 3, 7]
    split = by_time(dataset, valid=0.3)
    assert split.valid.tolist() == [2, 5, 6]
    assert split.kind == "time"


def test_a_class_of_one_day_is_refused_by_the_split_of_time():
    columns = {"taken": ("1", "2", "3", "3")}
    dataset = replace(dataset_of({"auk": 2, "jay": 2}), columns=columns)
    with pytest.raises(ValueError, match=r"1 classes of birds have all .* one day \(jay\)"):
        by_time(dataset)


def test_dates_and_numbers_in_one_class_have_no_order_and_are_refused():
    times = ("2025-03-01", "2027", "2025-04-01")
    dataset = replace(dataset_of({"auk": 3}), columns={"taken": times})
    expected = (
        r"class auk has a number \(2027\) and a date \(2025-03-01\), and neither comes before"
    )
    with pytest.raises(ValueError, match=expected):
        by_time(dataset)


def test_a_time_that_is_none_is_refused_with_its_image():
    dataset = replace(dataset_of({"auk": 2}), columns={"taken": ("1", "yesterday")})
    with pytest.raises(ValueError, match=r"1 of 2 images of birds no time \(first: auk/01.jpg\)"):
        by_time(dataset)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"split": "grouped"}, "grouped needs data.group"),
        ({"group": "parent"}, "data.group has no effect with data.split = stratified"),
        ({"split": "time"}, "data.time goes with data.split = time"),
        ({"time": "exif"}, "data.time goes with data.split = time"),
        ({"split": "grouped", "group": "exif:year"}, "exif:day, exif:hour or exif:camera"),
        ({"split": "grouped", "group": "regex:("}, "a regular expression"),
    ],
)
def test_settings_without_effect_and_wrong_rules_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Data(**settings)
