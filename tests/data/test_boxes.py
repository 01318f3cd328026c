"""Photos that show several products: an image is a part of a photo."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dml_bench.config import Data
from dml_bench.config.component import Component
from dml_bench.data.check import check, describe_boxes
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.images import (
    Unreadable,
    box_of,
    boxed,
    bytes_of,
    decode,
    photo_file,
    size_of,
)
from dml_bench.data.sessions import estimate_sessions
from dml_bench.data.split import make_split

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 30), "blue": (20, 30, 210)}


def shelf(file: Path, names: list[str], seed: int = 0) -> Path:
    """Products side by side, each 20 x 30 pixels, with some noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 20, (30, 20 * len(names), 3))
    for place, name in enumerate(names):
        pixels[:, 20 * place : 20 * place + 20] += COLOURS[name]
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return file


def shelves(folder: Path, count: int = 6, *, box_column: bool = False) -> Path:
    """A table that lists the three products of each photo."""
    lines = ["path,class,box" if box_column else "path,class,x0,y0,x1,y1"]
    for number in range(count):
        names = sorted(COLOURS)[number % 3 :] + sorted(COLOURS)[: number % 3]
        shelf(folder / f"shelf_{number}.png", names, number)
        for place, name in enumerate(names):
            corners = [20 * place, 0, 20 * place + 20, 30]
            text = " ".join(map(str, corners)) if box_column else ",".join(map(str, corners))
            lines.append(f"shelf_{number}.png,{name},{text}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder


def opened(folder: Path, **options: object) -> Dataset:
    return open_dataset(Component("csv", options), folder, folder / "cache")


def test_a_path_with_a_box_is_that_part_of_the_photo(tmp_path):
    photo = shelf(tmp_path / "shelf.png", ["red", "green"])
    part = Path(boxed(str(photo), (19.6, 0, 40, 30)))
    assert str(part) == f"{photo}#20,0,40,30"
    assert (box_of(part), box_of(photo)) == ((20, 0, 40, 30), None)
    assert (photo_file(part), photo_file(photo)) == (photo, photo)
    assert np.array_equal(np.asarray(decode(part)), np.asarray(decode(photo))[:, 20:])
    assert size_of(part) == decode(part).size == (20, 30)
    assert bytes_of(part, "") == photo.read_bytes()
    with pytest.raises(Unreadable, match="outside of the image of 40 x 30"):
        decode(Path(f"{photo}#50,0,60,30"))


@pytest.mark.parametrize("corners", [(5, 0, 5, 9), (9, 0, 5, 9), (0, 0, 9), (0, 0, 9, np.nan)])
def test_a_box_without_a_pixel_is_refused(corners):
    with pytest.raises(ValueError, match="must be left, top, right, bottom"):
        boxed("photo.jpg", corners)


@pytest.mark.parametrize("box_column", [False, True])
def test_a_photo_stands_in_a_table_once_for_each_box(tmp_path, box_column):
    dataset = opened(shelves(tmp_path, box_column=box_column))
    assert len(dataset) == 18
    assert dataset.paths[0] == "shelf_0.png#0,0,20,30"
    assert any("cut to the boxes" in note for note in dataset.notes)
    for path, label in zip(dataset.paths, dataset.labels, strict=True):
        mean = np.asarray(decode(dataset.root / path)).mean(axis=(0, 1))
        colour = COLOURS[dataset.class_names[label]]
        assert int(mean.argmax()) == int(np.argmax(colour))


def test_an_empty_box_is_the_whole_photo_and_a_wrong_one_a_fault(tmp_path):
    shelf(tmp_path / "one.png", ["red"])
    shelf(tmp_path / "two.png", ["green"])
    table = "path,class,x0,y0,x1,y1\none.png,red,,,,\ntwo.png,green,0,0,9,9\none.png,red,9,0,3,9\n"
    (tmp_path / "train.csv").write_text(table)
    dataset = open_dataset(Component("csv"), tmp_path, tmp_path / "cache", tolerant=True)
    assert dataset.paths == ("one.png", "two.png#0,0,9,9")
    (fault,) = dataset.faults
    assert "whose box is not left, top, right, bottom in pixels: 1 (first: line 4)" in fault


def test_boxes_of_photos_of_another_size_are_pointed_out(tmp_path):
    shelf(tmp_path / "one.png", ["red", "green"])
    shelf(tmp_path / "two.png", ["green"])
    rows = ["one.png,red,0,0,21,30", "one.png,green,20,0,40,30", "two.png,green,5,5,40,60"]
    (tmp_path / "train.csv").write_text("\n".join(["path,class,x0,y0,x1,y1", *rows, ""]))
    dataset = opened(tmp_path)
    assert describe_boxes(dataset, 3) == [
        "1 of 3 boxes that were looked at reach beyond their photo (first: two.png#5,5,40,60) and"
        " are cut there: write them in pixels of the photo as it is"
    ]
    assert describe_boxes(dataset, 1) == []
    assert check(dataset).notes[-1].startswith("1 of 3 boxes that were looked at reach beyond")
    boxes = np.array([[0, 0, 41, 30], [0, 0, 42.5, 30], [0, 0, 20, 30]])
    named = replace(dataset, boxes=boxes, paths=("one.png", "one.png", "two.png"))
    assert describe_boxes(named, 3)[0].startswith("1 of 3 boxes")


def test_without_boxes_the_columns_are_others(tmp_path):
    shelf(tmp_path / "one.png", ["red"])
    shelf(tmp_path / "two.png", ["green"])
    table = "path,class,x0,y0,x1,y1\none.png,red,0,0,5,5\ntwo.png,green,0,0,9,9\n"
    (tmp_path / "train.csv").write_text(table)
    dataset = opened(tmp_path, boxes=False)
    assert dataset.paths == ("one.png", "two.png")
    assert dataset.columns is not None and dataset.columns["x1"] == ("5", "9")


def test_parts_of_one_photo_are_no_copies_and_a_random_split_of_them_is_warned_of(tmp_path):
    dataset = opened(shelves(tmp_path, 12))
    report = check(dataset)
    assert not report.duplicates
    several = "path,class,x0,y0,x1,y1\n"
    for number in range(12):
        shelf(tmp_path / f"row_{number}.png", [sorted(COLOURS)[number % 3]] * 4, number)
        for place in range(4):
            corners = f"{20 * place},0,{20 * place + 20},30"
            several += f"row_{number}.png,product_{number // 2},{corners}\n"
    (tmp_path / "train.csv").write_text(several)
    sessions = estimate_sessions(opened(tmp_path), 0.2)
    assert sessions is not None
    assert sessions.settings == "--set data.split=grouped --set data.group=photo"


def test_grouped_by_photo_no_photo_is_on_both_sides(tmp_path):
    dataset = opened(shelves(tmp_path, 12))
    data = Data(split="grouped", group="photo")
    split = make_split(dataset, method=data.split, test_fraction=0.25, seed=1, group=data.group)
    photos = np.array([str(photo_file(Path(path))) for path in dataset.paths])
    trained, tested = set(photos[split.train]), set(photos[split.test])
    assert trained and tested
    assert trained.isdisjoint(tested)
