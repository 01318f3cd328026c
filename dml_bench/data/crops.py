"""Batches cut out of decoded images: on the CPU from the mapped cache, or on a GPU that holds the
whole cache."""

import numpy as np
import torch
from torch import Tensor

from dml_bench.data.augmentations import Boxes, resized, resized_crops
from dml_bench.data.cache import ImageCache
from dml_bench.system.devices import to_device

__all__ = ["DeviceCrops", "HostCrops", "room_for_images"]

SHARE = 1 / 3
"""Of a GPU's free memory, what images may take: the rest is the network's."""
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
        batch = np.empty((len(images), size, size, 3), np.uint8)
        for row, (image, top, left, height, width) in enumerate(zip(images, *boxes, strict=True)):
            piece = self.cache[image][top : top + height, left : left + width]
            batch[row] = piece if height == width == size else resized(piece, size)
        batch[mirrored] = batch[mirrored, :, ::-1]
        return to_device(batch, self.device)


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
            return torch.where(
                to_device(mirrored, self.device)[:, None, None, None],
                batch.flip(2),
                batch,
            )
        first = self.cache.offsets[images] // 3 + boxes.tops * widths + boxes.lefts
        places = to_device(np.stack([first, widths, mirrored]), self.device)
        start, width, turned = places[:, :, None, None]
        along = torch.arange(size, device=self.device)
        return self.pixels[
            start + width * along[:, None] + torch.where(turned == 1, size - 1 - along, along)
        ]


def room_for_images(device: torch.device) -> int:
    """Bytes. A CPU needs none: the system keeps mapped pages in its own memory."""
    return int(torch.cuda.mem_get_info(device)[0] * SHARE) if device.type == "cuda" else 0
