"""Samplers: how the training images of an epoch are cut into batches.

A registered function takes the training images (indices, ascending), their class labels, the batch size and the key of the
epoch (seed, phase, epoch), and returns the batches; it is a pure function of these.
"""

import numpy as np

from dml_bench.registry import samplers
from dml_bench.seeding import permutation


@samplers.register("shuffled", summary="each image once an epoch, in random order", source="the usual way")
def shuffled(images: np.ndarray, labels: np.ndarray, batch_size: int, key: tuple[object, ...]) -> list[np.ndarray]:
    """A last batch of a single image is left out."""
    order = permutation(*key, "order", items=images)
    return [batch for start in range(0, len(order), batch_size) if len(batch := order[start : start + batch_size]) > 1]
