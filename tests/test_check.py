"""Checking a data set: damaged images and copies are found, named, and put in proportion."""

import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dml_bench.data.check import Damage, Report, check, render
from dml_bench.data.datasets import Dataset


@dataclass(frozen=True)
class Sides:
    train: np.ndarray
    test: np.ndarray


PATHS = ("a/0.png", "a/1.png", "a/2.png", "b/3.png", "b/4.png")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for i, path in enumerate(PATHS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (40 * i, 0, 0)).save(tmp_path / path)
    return Dataset(name="birds", root=tmp_path, paths=PATHS, labels=np.array([0, 0, 0, 1, 1]), class_names=("a", "b"))


def copy(dataset: Dataset, source: int, target: int) -> None:
    shutil.copyfile(dataset.root / PATHS[source], dataset.root / PATHS[target])


def sides(*test: int) -> Sides:
    return Sides(train=np.array([i for i in range(5) if i not in test]), test=np.array(test))


def printed(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_sound_data_set_has_no_problems_and_its_sizes_are_told(dataset):
    report = check(dataset, split=sides(2, 4))
    assert report == Report(
        name="birds",
        num_images=5,
        num_classes=2,
        fewest=2,
        median=2.5,
        most=3,
        unreadable=(),
        duplicates=(),
        conflicting=(),
        across_split=(),
    )
    assert not report.problems
    assert "5 images, 2 classes, 2 to 3 in a class, median 2.5" in printed(report)
    assert "No problems." in printed(report)


def test_damaged_and_missing_images_are_named_with_the_reason(dataset):
    damaged = dataset.root / PATHS[1]
    damaged.write_bytes(damaged.read_bytes()[:40])
    (dataset.root / PATHS[3]).unlink()
    report = check(dataset, split=sides(2, 4))
    assert [damage.path for damage in report.unreadable] == ["a/1.png", "b/3.png"]
    assert report.unreadable[1] == Damage("b/3.png", "No such file or directory")
    assert report.problems
    assert "images that can't be decoded: 2" in printed(report)
    assert "b/3.png: No such file or directory" in printed(report)


def test_a_box_outside_of_its_image_is_found(dataset):
    boxes = np.array([[0, 0, 8, 6]] * 4 + [[8, 6, 2, 2]], float)
    report = check(replace(dataset, boxes=boxes))
    assert [damage.path for damage in report.unreadable] == ["b/4.png"]


@pytest.mark.parametrize("test_side", [(2, 4), (0, 1, 4)], ids=["both in training", "both in test"])
def test_copies_in_one_class_and_on_one_side_of_the_split_are_told_but_no_problem(dataset, test_side):
    copy(dataset, 0, 1)
    report = check(dataset, split=sides(*test_side))
    assert report.duplicates == (("a/0.png", "a/1.png"),)
    assert report.conflicting == report.across_split == ()
    assert not report.problems
    assert "a/0.png = a/1.png" in printed(report)


def test_copies_on_both_sides_of_the_split_are_a_problem(dataset):
    copy(dataset, 0, 1)
    copy(dataset, 0, 2)
    report = check(dataset, split=sides(1, 4))
    assert report.across_split == (("a/0.png", "a/1.png", "a/2.png"),)
    assert report.conflicting == ()
    assert report.problems


def test_images_on_neither_side_of_the_split_do_not_count_as_crossing_it(dataset):
    copy(dataset, 0, 1)
    assert check(dataset, split=Sides(train=np.array([0, 3]), test=np.array([2, 4]))).across_split == ()


def test_copies_with_two_classes_are_a_problem_on_whatever_side(dataset):
    copy(dataset, 0, 3)
    copy(dataset, 1, 2)
    report = check(dataset, split=sides(4))
    assert report.duplicates == (("a/0.png", "b/3.png"), ("a/1.png", "a/2.png"))
    assert report.conflicting == (("a/0.png", "b/3.png"),)
    assert report.across_split == ()
    assert report.problems


def test_without_a_split_any_copies_are_a_problem_and_it_is_said_that_none_was_given(dataset):
    assert not check(replace(dataset)).problems
    copy(dataset, 0, 1)
    report = check(dataset)
    assert report.across_split is None
    assert report.problems
    assert "not checked, no split given" in printed(report)


def test_a_long_list_is_shortened_and_its_length_told():
    damage = tuple(Damage(f"[bold]{i}.png", "truncated") for i in range(25))
    report = Report(
        name="birds",
        num_images=25,
        num_classes=2,
        fewest=5,
        median=12.5,
        most=20,
        unreadable=damage,
        duplicates=(),
        conflicting=(),
        across_split=None,
    )
    text = printed(report)
    assert "[bold]9.png: truncated" in text
    assert "[bold]10.png" not in text
    assert "and 15 more" in text


def test_progress_reaches_the_number_of_images(dataset):
    said = []
    check(dataset, progress=lambda *report: said.append(report))
    assert said[-1] == ("decoding images", 5, 5)
