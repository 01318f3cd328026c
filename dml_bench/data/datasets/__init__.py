"""Readers of image data sets: each turns a folder on disk into one `Dataset` value."""

from dml_bench.data.datasets import (
    cars196,
    drawn,
    flowers,
    grocery,
    inshop,
    omniglot,
    own_images,
    sop,
)
from dml_bench.data.datasets.by_name import open_dataset
from dml_bench.data.datasets.cub import cub_folder, read_cub_layout
from dml_bench.data.datasets.dataset import Dataset, ImageRow, Progress, assemble

__all__ = [
    "Dataset",
    "ImageRow",
    "Progress",
    "assemble",
    "cub_folder",
    "open_dataset",
    "read_cub_layout",
]
