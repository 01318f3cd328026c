"""What the network is fed with: augmented training inputs and deterministic evaluation inputs, a batch at a time."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dml_bench.config import Experiment
from dml_bench.data.cache import ImageCache, View, open_caches
from dml_bench.data.datasets import Dataset, Progress
from dml_bench.seeding import draws

__all__ = ["Features", "Pixels", "Source", "open_pixels"]


class Source(Protocol):
    """Inputs by image index. What `train` returns is a pure function of its arguments."""

    def train(self, images: np.ndarray, *, phase: str, epoch: int) -> Tensor:
        """(batch, ...) inputs for training."""
        ...

    def view(self, images: np.ndarray) -> Tensor:
        """(batch, ...) inputs for evaluation: the same for gallery and query, in every phase and epoch."""
        ...


class Pixels:
    """Batches (batch, size, size, 3) of uint8 pixels from the image cache, cropped and mirrored per image."""

    def __init__(self, experiment: Experiment, num_images: int, train_cache: ImageCache, view_cache: ImageCache, device: torch.device):
        self.experiment = experiment
        self.num_images = num_images
        self.train_cache = train_cache
        self.view_cache = view_cache
        self.device = device
        self._epoch_draws: tuple[tuple[str, int], np.ndarray] | None = None

    def train(self, images: np.ndarray, *, phase: str, epoch: int) -> Tensor:
        augment, size = self.experiment.augment, self.experiment.images.size
        top, left, mirror = self._draws(phase, epoch)[images].T
        heights, widths = self.train_cache.heights[images], self.train_cache.widths[images]
        if augment.random_crop_from:
            tops, lefts = (top * (heights - size + 1)).astype(int), (left * (widths - size + 1)).astype(int)
        else:
            tops, lefts = np.zeros(len(images), int), np.zeros(len(images), int)
        return self._gather(self.train_cache, images, tops, lefts, mirror < augment.horizontal_flip)

    def view(self, images: np.ndarray) -> Tensor:
        zeros = np.zeros(len(images), int)
        return self._gather(self.view_cache, images, zeros, zeros, zeros.astype(bool))

    def statistics(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Channel means and standard deviations (3), 0-1, over every pixel of these images' views."""
        sums, squares, pixels = np.zeros(3), np.zeros(3), 0
        for image in images:
            values = self.view_cache[image].reshape(-1, 3) / 255
            sums, squares, pixels = sums + values.sum(0), squares + (values**2).sum(0), pixels + len(values)
        mean = sums / pixels
        return torch.tensor(mean, dtype=torch.float32), torch.tensor(
            np.sqrt(np.maximum(squares / pixels - mean**2, 0)), dtype=torch.float32
        )

    def _draws(self, phase: str, epoch: int) -> np.ndarray:
        """(images, 3) numbers for crop top, crop left and mirroring, drawn once an epoch."""
        if self._epoch_draws is None or self._epoch_draws[0] != (phase, epoch):
            drawn = draws(self.experiment.seed, phase, epoch, "augment", rows=self.num_images, columns=3)
            self._epoch_draws = ((phase, epoch), drawn)
        return self._epoch_draws[1]

    def _gather(self, cache: ImageCache, images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, mirrored: np.ndarray) -> Tensor:
        size = self.experiment.images.size
        batch = np.empty((len(images), size, size, 3), np.uint8)
        for row, (image, top, left) in enumerate(zip(images, tops, lefts, strict=True)):
            batch[row] = cache[image][top : top + size, left : left + size]
        batch[mirrored] = batch[mirrored, :, ::-1]
        pixels = torch.from_numpy(batch)
        return pixels.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else pixels


class Features:
    """Rows of a frozen backbone's features, computed once: (batch, features) float32."""

    def __init__(self, table: Tensor):
        self.table = table

    def train(self, images: np.ndarray, *, phase: str, epoch: int) -> Tensor:
        return self.view(images)

    def view(self, images: np.ndarray) -> Tensor:
        return self.table[torch.from_numpy(images).to(self.table.device)]


def open_pixels(
    experiment: Experiment,
    dataset: Dataset,
    cache_dir: Path,
    device: torch.device,
    progress: Progress | None = None,
) -> Pixels:
    """The pixel source of an experiment; builds the image caches where they are missing."""
    views = [View(experiment.images.fit, experiment.images.size)]
    if experiment.augment.random_crop_from:
        views.append(View("shorter", experiment.augment.random_crop_from))
    caches = open_caches(dataset, *views, cache_dir=cache_dir, progress=progress)
    return Pixels(experiment, len(dataset), caches[-1], caches[0], device)
