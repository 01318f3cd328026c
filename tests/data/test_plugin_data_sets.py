"""A data set of a plug-in is checked before anything is trained: fields that don't fit together
would give images other labels, or end in a traceback."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import dataset_of

import dml_bench as db
from dml_bench.config import Component
from dml_bench.data.datasets import ImageRow, assemble, open_dataset
from dml_bench.data.label_sets import LabelSets

MADE = dataset_of({"auk": 3, "jay": 2})


def opened(tmp_path: Path, made: object):
    """What a run gets of a plug-in that returns this."""

    @db.register_dataset(summary="photos of moths")
    def moths(where):
        return made

    return open_dataset(Component("moths", {}), tmp_path, tmp_path / "cache")


@pytest.mark.usefixtures("plugins_removed")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"root": "photos"}, "root must be a Path, got 'photos'"),
        ({"paths": MADE.paths[::-1]}, "paths must be sorted, and labels in their order"),
        ({"paths": (*MADE.paths[:4], MADE.paths[3])}, "paths must differ .*'jay/00.jpg' twice"),
        ({"paths": tuple(map(Path, MADE.paths))}, "paths must be a tuple of texts"),
        ({"paths": ("/auk.jpg", *MADE.paths[1:])}, "paths must be relative to root"),
        ({"labels": [0, 0, 0, 1, 1]}, "labels must be an int64 array, got list"),
        ({"labels": np.array([0.0, 0, 0, 1, 1])}, "labels must be an int64 array, got float64"),
        ({"labels": np.array([0, 0, 0, 1])}, r"labels must have the shape \(5,\).* got \(4,\)"),
        ({"labels": np.eye(5, dtype=int)}, r"labels must have the shape \(5,\).* got \(5, 5\)"),
        ({"labels": np.array([1, 1, 1, 2, 2])}, "labels must be from 0 to 1, .* got 1 to 2"),
        ({"class_names": ("auk", "auk")}, "class_names must differ .* got 'auk' twice"),
        ({"class_names": (1, 2)}, "class_names must be a tuple of texts"),
        ({"class_names": ("auk", "j\nay")}, "class_names must be Unicode text on one line"),
        ({"class_names": ("auk",)}, "class_names must have at least 2 names, got 1"),
        ({"parts": ("train",) * 4}, "parts must have 5 values, got 4"),
        ({"parts": ("Train",) * 5}, "parts must be catalogue, .*valid, got 'Train'"),
        ({"boxes": np.zeros((4, 4))}, r"boxes must have the shape \(5, 4\), got \(4, 4\)"),
        ({"boxes": np.full((5, 4), np.nan)}, "boxes must be finite numbers"),
        ({"coarse_classes": ("bird",)}, "coarse_classes must have 2 values, got 1"),
        ({"columns": {"shop": ("a", "b")}}, "column shop must have 5 values, got 2"),
        ({"label_sets": LabelSets(("x",), np.ones((3, 1), bool))}, r"shape \(2, 1\), got \(3, 1\)"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused_in_one_line(tmp_path, fields, message):
    with pytest.raises(ValueError, match=f"^data set moths: .*{message}.*: make it with dml_bench"):
        opened(tmp_path, replace(MADE, **fields))


@pytest.mark.usefixtures("plugins_removed")
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"^data set moths must be a dml_bench\.data\.datasets\.Dataset, got list"
    ):
        opened(tmp_path, [1, 2])


@pytest.mark.usefixtures("plugins_removed")
def test_labels_of_few_bytes_become_whole_numbers_of_eight(tmp_path):
    dataset = opened(tmp_path, replace(MADE, labels=MADE.labels.astype(np.uint8)))
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"part": "test"}, r"images in photos without a part: 1 \(first: a.jpg\); give one to all"),
        ({"box": (0.0, 0.0, 5.0, 5.0)}, r"images in photos without a box: 1 \(first: a.jpg\)"),
        ({"cells": (("shop", "x"),)}, r"without the columns of the first: 1 \(first: b.jpg\)"),
    ],
)
def test_rows_of_which_only_some_have_a_field_are_refused(second, message):
    rows = [ImageRow("a.jpg", 0), ImageRow("b.jpg", 1, **second)]
    with pytest.raises(ValueError, match=message):
        assemble("photos", Path("photos"), ("auk", "jay"), rows)
