"""What the network is fed with: augmented training inputs and deterministic evaluation inputs, a
batch at a time."""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dml_bench.config import Experiment
from dml_bench.data.augmentations import Boxes, Drawn, augmented, resized_batch, resized_crop_boxes
from dml_bench.data.cache import LONGEST, ImageCache, open_caches, view_of
from dml_bench.data.crops import DeviceCrops, HostCrops, room_for_images
from dml_bench.data.datasets import Dataset, Progress
from dml_bench.system.devices import to_device
from dml_bench.system.seeding import uniform

__all__ = [
    "PLAIN",
    "FeatureInputs",
    "ImageInputs",
    "InputSource",
    "TTAView",
    "open_image_inputs",
    "tta_views",
]


class TTAView(NamedTuple):
    """One way to look at an image in an evaluation."""

    down: float | None
    """Where in the image at `augment.random_crop_from` the square is cut: 0 is its top, 1 its
    bottom; None is the usual view."""
    right: float | None
    """0 is its left, 1 its right."""
    mirrored: bool
    draw: int = 0
    """The number of a random change as training has them, from 1; 0 is none."""


PLAIN = TTAView(None, None, False)


def tta_views(tta: str, draws: int = 0) -> tuple[TTAView, ...]:
    """The views that `evaluate.tta` takes together; the ten of `crops` are those of Krizhevsky et
    al. 2012. The first of `random` is the image as it is."""
    if tta == "random":
        return (PLAIN, *(PLAIN._replace(draw=number) for number in range(1, draws + 1)))
    if tta == "crops":
        places = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
        return tuple(
            TTAView(down, right, mirrored) for mirrored in (False, True) for down, right in places
        )
    return (PLAIN, PLAIN._replace(mirrored=True)) if tta == "mirror" else (PLAIN,)


class InputSource(Protocol):
    """Inputs by image index. What `train` returns is a pure function of its arguments."""

    def train(self, images: np.ndarray, *, phase: str, epoch: int, view: int = 0) -> Tensor:
        """(batch, ...) inputs for training; an image's views differ where it is augmented."""
        ...

    def view(self, images: np.ndarray, variant: TTAView = PLAIN) -> Tensor:
        """(batch, ...) inputs for evaluation: the same for gallery and query, in every phase and
        epoch."""
        ...


class ImageInputs:
    """Batches (batch, size, size, 3) of uint8 pixels from the image cache, each image changed as
    its own random numbers say."""

    def __init__(
        self,
        experiment: Experiment,
        num_images: int,
        train_cache: ImageCache,
        view_cache: ImageCache,
        device: torch.device,
        corner_cache: ImageCache | None = None,
    ):
        self.experiment = experiment
        self.num_images = num_images
        self.train_cache = train_cache
        self.view_cache = view_cache
        self.corner_cache = corner_cache or train_cache
        """Where the views of `evaluate.tta = crops` are cut from."""
        self.device = device
        self.resident: dict[Path, DeviceCrops] = {}
        """What the device's memory holds, by the folder of its cache."""
        self._drawn_for: tuple[str, int] | None = None
        self._drawn: dict[tuple[str, int], np.ndarray] = {}

    def changed_as(self, experiment: Experiment) -> "ImageInputs":
        """The same images, changed as another experiment with the same caches says."""
        others = copy(self)
        others.experiment = experiment
        others._drawn_for, others._drawn = None, {}
        return others

    def keep_on_device(self) -> None:
        """From now on a GPU cuts batches out of its own memory, where that has room for the images;
        what comes out stays the same."""
        room = room_for_images(self.device)
        for cache in (self.train_cache, self.view_cache, self.corner_cache):
            if cache.folder not in self.resident and len(cache.pixels) <= room:
                room -= len(cache.pixels)
                self.resident[cache.folder] = DeviceCrops(cache, self.device)

    def train(self, images: np.ndarray, *, phase: str, epoch: int, view: int = 0) -> Tensor:
        """(batch, side, side, 3) uint8 crops, augmented as the phase, epoch and view say."""

        def drawn(purpose: str, columns: int) -> np.ndarray:
            return self._draws(phase, epoch, view, purpose, columns)[images]

        pixels = self._cropped(images, drawn)
        size = self.experiment.images.training_size(epoch, self.experiment.train.epochs)
        if size != pixels.shape[1]:
            pixels = resized_batch(pixels, size)
        return augmented(pixels, self.experiment.augment, drawn)

    def _cropped(self, images: np.ndarray, drawn: Drawn) -> Tensor:
        """What is cut from each image, at the network's size, some of them mirrored."""
        augment = self.experiment.augment
        top, left, mirror = drawn("augment", 3).T
        heights, widths = self.train_cache.heights[images], self.train_cache.widths[images]
        if augment.resized_crop:
            boxes = resized_crop_boxes(
                heights, widths, drawn("resized_crop", 4), augment.resized_crop
            )
        else:
            boxes = self._squares(len(images))
            if augment.random_crop_from:
                tops, lefts = (
                    top * (heights - boxes.heights + 1),
                    left * (widths - boxes.widths + 1),
                )
                boxes = boxes._replace(tops=tops.astype(int), lefts=lefts.astype(int))
        return self._cut(self.train_cache, images, boxes, mirror < augment.horizontal_flip)

    def view(self, images: np.ndarray, variant: TTAView = PLAIN) -> Tensor:
        """(batch, size, size, 3) uint8 under the deterministic view, or a variant of it."""
        if variant.draw:
            return self._changed_view(images, variant.draw)
        boxes, mirrored = self._squares(len(images)), np.full(len(images), variant.mirrored)
        if variant.down is None or variant.right is None:
            return self._cut(self.view_cache, images, boxes, mirrored)
        room_below, room_beside = (
            self.corner_cache.heights[images] - boxes.heights,
            self.corner_cache.widths[images] - boxes.widths,
        )
        tops, lefts = (
            (room_below * variant.down).astype(int),
            (room_beside * variant.right).astype(int),
        )
        return self._cut(
            self.corner_cache, images, boxes._replace(tops=tops, lefts=lefts), mirrored
        )

    def _changed_view(self, images: np.ndarray, draw: int) -> Tensor:
        """The images as training could see them; the same in every phase and epoch."""

        def drawn(purpose: str, columns: int) -> np.ndarray:
            return self._draws("tta", 0, draw, purpose, columns)[images]

        return augmented(self._cropped(images, drawn), self.experiment.augment, drawn)

    def statistics(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Channel means and standard deviations (3), 0-1, over every pixel of these images'
        views."""
        sums, squares, pixels = np.zeros(3), np.zeros(3), 0
        for image in images:
            values = self.view_cache[image].reshape(-1, 3) / 255
            sums, squares, pixels = (
                sums + values.sum(0),
                squares + (values**2).sum(0),
                pixels + len(values),
            )
        mean = sums / pixels
        return torch.tensor(mean, dtype=torch.float32), torch.tensor(
            np.sqrt(np.maximum(squares / pixels - mean**2, 0)), dtype=torch.float32
        )

    def _draws(self, phase: str, epoch: int, view: int, purpose: str, columns: int) -> np.ndarray:
        """(images, columns) numbers for one purpose, drawn once an epoch."""
        if self._drawn_for != (phase, epoch):
            self._drawn_for, self._drawn = (phase, epoch), {}
        if (purpose, view) not in self._drawn:
            key: tuple[object, ...] = (self.experiment.seed, phase, epoch, purpose)
            # The first view has no view in its key: a run with one view keeps its bits whatever
            # was added for several.
            if view:
                key += (view,)
            self._drawn[purpose, view] = uniform(*key, rows=self.num_images, columns=columns)
        return self._drawn[purpose, view]

    def _squares(self, count: int) -> Boxes:
        """Boxes of the network's size at the top left."""
        zeros, sides = np.zeros(count, int), np.full(count, self.experiment.images.size)
        return Boxes(zeros, zeros, sides, sides)

    def _cut(
        self, cache: ImageCache, images: np.ndarray, boxes: Boxes, mirrored: np.ndarray
    ) -> Tensor:
        cutter = self.resident.get(cache.folder) or HostCrops(cache, self.device)
        return cutter.cut(images, boxes, mirrored, self.experiment.images.size)


class FeatureInputs:
    """What a frozen backbone, or its first stages, make of images, computed once: (batch, ...)."""

    def __init__(self, table: Tensor):
        self.table = table

    def train(self, images: np.ndarray, *, phase: str, epoch: int, view: int = 0) -> Tensor:
        """(batch, ...), the same in every epoch."""
        return self.view(images)

    def view(self, images: np.ndarray, variant: TTAView = PLAIN) -> Tensor:
        """(batch, ...) of the one view there is."""
        assert variant == PLAIN, "there are features of one view"
        return self.table[to_device(images, self.table.device)]


def open_image_inputs(
    experiment: Experiment,
    dataset: Dataset,
    cache_dir: Path,
    device: torch.device,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> ImageInputs:
    """The pixel source of an experiment; builds the image caches where they are missing. `warn`
    hears of images of which training sees only the middle, and of damage that was mended."""
    augment, size = experiment.augment, experiment.images.size
    view = view_of(experiment.images)
    corners, trained = view, view
    if augment.random_crop_from:
        corners = replace(view, fit="shorter", size=augment.random_crop_from, crop_from=0)
        trained = corners
    if augment.resized_crop:
        detail = detailed(size, augment.resized_crop)
        trained = replace(view, fit="detail", size=detail, crop_from=0)
    if experiment.evaluate.tta != "crops":
        corners = trained
    caches = open_caches(
        dataset, view, trained, corners, cache_dir=cache_dir, progress=progress, warn=warn
    )
    if cut := caches[1].cut:
        named = ", ".join(cut[:3]) + (f" and {len(cut) - 3} more" if len(cut) > 3 else "")
        warn(
            f"{len(cut)} of {len(dataset)} images are longer than {LONGEST}:1; training crops see"
            f" their middle: {named}"
        )
    return ImageInputs(experiment, len(dataset), caches[1], caches[0], device, caches[2])


def detailed(size: int, min_area: float) -> int:
    """The shorter side at which an image is kept for `augment.resized_crop`, unless its file is
    smaller: the smallest crop of a square then has the network's size, so that none is enlarged
    that would not be if it were cut from the file. Crops of less than a sixteenth are enlarged
    nevertheless, as memory grows with the square of this."""
    return math.ceil(size / max(math.sqrt(min_area), 1 / 4))
