"""Batches cut out of decoded images: on the CPU from the mapped cache, or on a GPU that holds the
whole cache."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dml_bench.data.augmentations import Boxes, resized, resized_crops
from dml_bench.data.cache import ImageCache
from dml_bench.system.devices import to_device

__all__ = ["DeviceCrops", "HostCrops", "room_for_images"]

SHARE = 1 / 3
"""Of a GPU's free memory, what images may take: the rest is the network's."""
THREADS = min(8, os.cpu_count() or 1)
"""That make batches for a GPU whose memory doesn't hold the images."""
PART = 2**28
"""Bytes that are copied to a device at a time."""


class HostCrops:
    """Pixels stay on the disk until they are touched; each batch is uploaded."""

    def __init__(self, cache: ImageCache, device: torch.device):
        self.cache = cache
        self.device = device

    def cut(self, images: np.ndarray, boxes: Boxes, mirrored: np.ndarray, size: int) -> Tensor:
        """(batch) image indices, a box in each, and which are mirrored -> (batch, size, size, 3)
        uint8 on the device. Boxes of other sides are resized."""
        if self.device.type != "cuda":
            batch = np.empty((len(images), size, size, 3), np.uint8)
            self.fill(batch, images, boxes)
            batch[mirrored] = batch[mirrored, :, ::-1]
            return torch.from_numpy(batch)
        pinned = torch.empty((len(images), size, size, 3), dtype=torch.uint8, pin_memory=True)
        self.fill_in_threads(pinned.numpy(), images, boxes)
        return mirrored_where(pinned.to(self.device, non_blocking=True), mirrored)

    def fill(self, batch: np.ndarray, images: np.ndarray, boxes: Boxes) -> None:
        """Write the boxes of these images into (images, size, size, 3)."""
        size = batch.shape[1]
        for row, (image, top, left, height, width) in enumerate(zip(images, *boxes, strict=True)):
            piece = self.cache[image][top : top + height, left : left + width]
            batch[row] = piece if height == width == size else resized(piece, size)

    def fill_in_threads(self, batch: np.ndarray, images: np.ndarray, boxes: Boxes) -> None:
        """As `fill`, a part of the batch in each thread, so that a GPU is not waiting for pixels.
        Copying and resizing need Python's lock for a small part of their time."""
        size = -(-len(images) // THREADS)  # rounded up
        parts = []
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            of_rows = Boxes(*(side[rows] for side in boxes))
            parts.append(threads().submit(self.fill, batch[rows], images[rows], of_rows))
        for part in parts:
            part.result()


class DeviceCrops(HostCrops):
    """All pixels are in the device's memory, and a batch is one look-up there; only the places
    travel."""

    def __init__(self, cache: ImageCache, device: torch.device):
        super().__init__(cache, device)
        checked = cache.checked()
        flat = torch.empty(len(checked), dtype=torch.uint8, device=device)
        for first in range(0, len(flat), PART):
            part = np.array(checked[first : first + PART])
            flat[first : first + len(part)] = torch.from_numpy(part)
        self.pixels = flat.view(-1, 3)

    def cut(self, images: np.ndarray, boxes: Boxes, mirrored: np.ndarray, size: int) -> Tensor:
        """(batch, size, size, 3) uint8 on the device: the boxes, resized where they are not of the
        size."""
        widths = self.cache.widths[images]
        if (boxes.heights != size).any() or (boxes.widths != size).any():
            batch = resized_crops(self.pixels, self.cache.offsets[images] // 3, widths, boxes, size)
            return mirrored_where(batch, mirrored)
        first = self.cache.offsets[images] // 3 + boxes.tops * widths + boxes.lefts
        places = to_device(np.stack([first, widths, mirrored]), self.device)
        start, width, turned = places[:, :, None, None]
        along = torch.arange(size, device=self.device)
        return self.pixels[
            start + width * along[:, None] + torch.where(turned == 1, size - 1 - along, along)
        ]


def mirrored_where(pixels: Tensor, mirrored: np.ndarray) -> Tensor:
    """(batch, height, width, 3) with these of the images mirrored."""
    where = to_device(mirrored, pixels.device)[:, None, None, None]
    return torch.where(where, pixels.flip(2), pixels)


@cache
def threads() -> ThreadPoolExecutor:
    """Of this process, for all batches."""
    return ThreadPoolExecutor(max_workers=THREADS)


def room_for_images(device: torch.device) -> int:
    """Bytes. A CPU needs none: the system keeps mapped pages in its own memory."""
    return int(torch.cuda.mem_get_info(device)[0] * SHARE) if device.type == "cuda" else 0
