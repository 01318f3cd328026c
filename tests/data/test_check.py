"""Checking a data set: damaged images and copies are found, named, and put in proportion."""

import io
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dml_bench.api.data import check_data
from dml_bench.config import Component, Data
from dml_bench.data.check import Damage, DataReport, check, render
from dml_bench.data.check import sides as split_sides
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.sessions import Sessions


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
    return Dataset(
        name="birds",
        root=tmp_path,
        paths=PATHS,
        labels=np.array([0, 0, 0, 1, 1]),
        class_names=("a", "b"),
    )


def copy(dataset: Dataset, source: int, target: int) -> None:
    shutil.copyfile(dataset.root / PATHS[source], dataset.root / PATHS[target])


def sides(*test: int) -> Sides:
    return Sides(train=np.array([i for i in range(5) if i not in test]), test=np.array(test))


def printed(report: DataReport) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_sound_data_set_has_no_problems_and_its_sizes_are_told(dataset):
    report = check(dataset, split=sides(2, 4))
    assert report == DataReport(
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
def test_copies_in_one_class_and_on_one_side_of_the_split_are_told_but_no_problem(
    dataset, test_side
):
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
    assert (
        check(dataset, split=Sides(train=np.array([0, 3]), test=np.array([2, 4]))).across_split
        == ()
    )


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
    report = DataReport(
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


# Everything is found, not the first problem alone


def resave(dataset: Dataset, source: int, target: int) -> None:
    with Image.open(dataset.root / PATHS[source]) as image:
        image.save(dataset.root / PATHS[target], compress_level=1, optimize=False, dpi=(72, 72))


def test_the_same_pixels_saved_again_in_other_bytes_are_found_beside_byte_copies(dataset):
    resave(dataset, 0, 2)
    copy(dataset, 0, 1)
    report = check(dataset, split=sides(2, 4))
    assert report.duplicates == (("a/0.png", "a/1.png"),)
    assert report.resaved == report.across_split == (("a/0.png", "a/1.png", "a/2.png"),)
    assert report.conflicting == ()
    assert report.problems
    assert "groups of the same picture, saved again: 1" in printed(report)


def test_a_picture_in_another_format_under_another_class_is_a_contradiction(dataset):
    patches = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(patches).resize((160, 120), Image.Resampling.BICUBIC)
    picture.save(dataset.root / PATHS[0])
    picture.save(dataset.root / PATHS[3], "JPEG", quality=60)
    report = check(dataset, split=sides(3, 4))
    assert report.duplicates == ()
    assert report.resaved == report.conflicting == (("a/0.png", "b/3.png"),)
    assert report.across_split == report.conflicting


def test_images_that_all_have_the_same_pixels_are_told_as_that(dataset):
    for target in range(1, 5):
        resave(dataset, 0, target)
    report = check(dataset, split=sides(2, 4))
    assert report.one_picture and report.problems
    assert "all images show the same picture: nothing can tell their classes apart" in printed(
        report
    )


def test_the_same_photo_cut_to_two_boxes_is_two_images(dataset):
    with Image.open(dataset.root / PATHS[0]) as image:
        image.putpixel((0, 0), (255, 255, 255))
        image.save(dataset.root / PATHS[0])
    resave(dataset, 0, 1)
    boxes = np.array([[0, 0, 4, 4], [4, 2, 4, 4], [0, 0, 8, 6], [0, 0, 8, 6], [0, 0, 8, 6]], float)
    assert check(replace(dataset, boxes=boxes)).resaved == ()


def test_a_class_of_one_image_is_told_with_what_it_means_and_the_others_are_still_divided(dataset):
    with_one = replace(dataset, labels=np.array([0, 0, 0, 0, 1]))
    copy(dataset, 0, 1)
    copy(dataset, 0, 2)
    split, refused = split_sides(with_one, Data(), 42)
    report = check(with_one, split=split, refused=refused)
    assert report.single == ("b",)
    assert split is not None and 4 not in [*split.train, *split.test]
    assert "classes of one image, which is either looked up or asks: 1\n  b\n" in printed(report)
    assert "a run refuses this split: 1 classes have fewer than 2 images (b)" in printed(report)
    assert report.problems
    text = printed(report)
    assert text.index("a run refuses this split") < text.index("groups of exact copies")


@pytest.mark.parametrize("part", ["test", "catalogue"])
def test_a_class_of_one_image_does_not_hide_the_parts_of_the_others(tmp_path, part):
    paths = ("a/0.png", "b/1.png", "b/2.png", "b/3.png", "c/4.png", "c/5.png", "c/6.png")
    for image, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (40 * image, 0, 0)).save(tmp_path / path)
    images = Dataset(
        name="birds",
        root=tmp_path,
        paths=paths,
        labels=np.array([0, 1, 1, 1, 2, 2, 2]),
        class_names=("a", "b", "c"),
        parts=("train", "train", "train", part, "train", "train", part),
    )
    split, refused = split_sides(images, Data(), 42)
    assert "1 classes have fewer than 2 images (a)" in refused
    assert split is not None
    of_catalogue = {3, 6} if part == "catalogue" else set()
    assert {*split.train.tolist(), *split.test.tolist()} == {1, 2, 3, 4, 5, 6} - of_catalogue


def test_of_a_split_that_is_refused_for_two_reasons_the_first_is_told(dataset):
    images = replace(
        dataset,
        labels=np.array([0, 0, 1, 2, 2]),
        class_names=("a", "b", "c"),
        parts=("train", "catalogue", "train", "train", "test"),
    )
    split, refused = split_sides(images, Data(), 42)
    assert split is None
    assert refused.startswith("2 classes have fewer than 2 images (a, b)")


def test_a_data_set_that_is_divided_by_class_may_have_classes_of_one_image(dataset):
    divided = replace(
        dataset,
        labels=np.array([0, 0, 1, 2, 2]),
        class_names=("a", "b", "c"),
        parts=("train", "train", "train", "test", "test"),
    )
    split, refused = split_sides(divided, Data(split="given"), 42)
    assert refused == ""
    assert split is not None and split.test.tolist() == [3, 4]


def test_a_gallery_image_that_is_asked_too_is_a_copy_across_the_split(dataset):
    divided = replace(
        dataset,
        labels=np.array([0, 1, 2, 2, 2]),
        class_names=("a", "b", "c"),
        parts=("train", "train", "query", "gallery", "gallery"),
    )
    copy(dataset, 2, 4)
    split, refused = split_sides(divided, Data(split="given"), 42)
    assert check(divided, split=split, refused=refused).across_split == (("a/2.png", "b/4.png"),)


def test_faults_and_notes_of_the_reader_are_part_of_the_report(tmp_path):
    for path in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "stray.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.effect_noise((9, 9), 90 + len(path)).save(tmp_path / path)
    (tmp_path / "a" / "notes.txt").write_text("x")
    dataset = open_dataset(Component("folder", {"parts": ""}), tmp_path, tmp_path, tolerant=True)
    report = check(dataset, split=split_sides(dataset, Data(), 42)[0])
    text = printed(report)
    assert "faults, for which a run stops: 1" in text
    assert "outside of any class folder: 1" in text
    assert "1 file is no image and is left out (first: a/notes.txt)" in text
    assert report.problems


def test_a_folder_whose_name_is_no_text_is_told_among_the_faults(tmp_path):
    for folder in (os.fsdecode(b"caf\xe9"), "bar"):
        for image in range(2):
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            picture = Image.effect_noise((9, 9), 90)
            picture.save(tmp_path / "photos" / folder / f"{image}.png")
    report = check_data("folder", tmp_path / "photos", cache_dir=tmp_path / "cache")
    assert any("names in" in fault and "rename them" in fault for fault in report.faults)
    assert report.problems


def test_sessions_are_a_line_of_the_report_and_no_problem(dataset):
    report = check(dataset, split=sides(2, 4), sessions=Sessions("exif:hour", 0.39, 0.04))
    assert not report.problems
    assert (
        "a random split would put 39% of test photos beside one of their own session (chance 4%):"
        " use --set data.split=grouped --set data.group=exif:hour\n"
    ) in printed(report)
