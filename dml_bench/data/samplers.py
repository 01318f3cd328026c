"""Samplers: how the training images of an epoch are cut into batches.

A registered function takes the training images (indices, ascending), their class labels, the batch
size and the key of the epoch (seed, phase, epoch), and returns the batches; it is a pure function
of these. No batch has fewer than two images.
"""

from typing import Annotated, Literal

import numpy as np

from dml_bench.registry import samplers
from dml_bench.registry.option_checks import at_least
from dml_bench.system.seeding import permutation, uniform


@samplers.register(
    "shuffled", summary="each image once an epoch, in random order", source="the usual way"
)
def shuffled(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    key: tuple[object, ...],
    *,
    drop_last: bool = False,
) -> list[np.ndarray]:
    """A last batch of a single image is left out; with `drop_last` any that is not full. Raises
    ValueError where none is full then."""
    if drop_last and len(images) < batch_size:
        raise ValueError(
            f"train.batch_size must be at most {len(images)}, all training images, with"
            f" sampler.drop_last, got {batch_size}: lower it"
        )
    batches = batches_of(permutation(*key, "order", items=images), batch_size)
    return [batch for batch in batches if len(batch) == batch_size or not drop_last]


@samplers.register(
    "m_per_class",
    summary="m images of each of batch_size // m classes in every batch",
    source="PK batches: Schroff et al. 2015 (FaceNet), Hermans et al. 2017",
    balances_classes=True,
)
def m_per_class(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    key: tuple[object, ...],
    *,
    m: Annotated[int, at_least(2)] = 4,
) -> list[np.ndarray]:
    """Batches of batch_size // m different classes with m images each, class by class; of all
    classes where there are fewer.

    An epoch draws about as many images as there are, every class as often as any other give or take
    one visit. A class deals its images in random order, all of them before any comes again; one
    with fewer than m repeats images within a batch, and some of a class larger than the average
    wait for a later epoch.

    Raises ValueError if batch_size has no room for m images of two classes.
    """
    if batch_size < 2 * m:
        raise ValueError(
            f"train.batch_size must be at least {2 * m}, {m} images (sampler.m) of two classes,"
            f" got {batch_size}"
        )
    num_classes = len(np.unique(labels))
    in_batch = min(num_classes, batch_size // m)
    num_batches = -(-len(images) // (in_batch * m))
    visited = class_visits(num_classes, in_batch, num_batches, key)
    return list(
        deal(images, labels, np.repeat(visited.ravel(), m), key).reshape(num_batches, in_batch * m)
    )


@samplers.register(
    "class_balanced",
    summary="as many draws from each class, however large",
    source="over- and undersampling by class",
    balances_classes=True,
)
def class_balanced(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    key: tuple[object, ...],
    *,
    balance: Literal["both", "oversample", "undersample"] = "both",
) -> list[np.ndarray]:
    """Each class is drawn equally often in an epoch, and the draws are cut as by `shuffled`.

    As often as the largest class has images (oversample), as the smallest has (undersample), or so
    that there are as many draws as images (both; give or take one a class). A class deals its
    images in random order, all of them before any comes again: small classes repeat images, perhaps
    within a batch, and some of a large class's images wait for a later epoch.
    """
    counts = np.unique(labels, return_counts=True)[1]
    draws_of = {
        "both": len(images),
        "oversample": len(counts) * counts.max(),
        "undersample": len(counts) * counts.min(),
    }
    shares = np.resize(
        permutation(*key, "classes", items=np.arange(len(counts))), draws_of[balance]
    )
    return batches_of(
        deal(images, labels, permutation(*key, "order", items=shares), key), batch_size
    )


@samplers.register(
    "repeated_class",
    summary="each image once an epoch, those of one class several times",
    source="oversampling of one class by a factor",
)
def repeated_class(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    key: tuple[object, ...],
    *,
    label: Annotated[int, at_least(0)] = 0,
    factor: Annotated[float, at_least(1)] = 2.0,
) -> list[np.ndarray]:
    """Images of the class number `label` (from 0, in the order of the names) are drawn `factor`
    times as often as others. Of a factor that is no whole number, the rest is that part of them,
    drawn anew in each epoch. A phase that holds the class out is trained as by `shuffled`."""
    own = permutation(*key, "repeated", items=images[labels == label])
    again = np.resize(own, round((factor - 1) * len(own))) if len(own) else own
    return batches_of(permutation(*key, "order", items=np.concatenate([images, again])), batch_size)


def batches_of(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive batches; a last one of a single image is left out."""
    return [
        batch
        for start in range(0, len(order), batch_size)
        if len(batch := order[start : start + batch_size]) > 1
    ]


def class_visits(
    num_classes: int, in_batch: int, num_batches: int, key: tuple[object, ...]
) -> np.ndarray:
    """(num_batches, in_batch) classes, different ones in each row, all classes in random order
    before any comes again."""
    rounds = -(-num_batches * in_batch // num_classes)
    visits = np.argsort(
        uniform(*key, "classes", rows=rounds, columns=num_classes), axis=1, kind="stable"
    )
    for previous in range(rounds - 1):
        # The batch that begins in one round and ends in the next would meet some classes twice:
        # these go later in the next.
        begun = (previous + 1) * num_classes % in_batch
        if begun:
            following = visits[previous + 1]
            again = np.isin(following, visits[previous, -begun:])
            first = np.flatnonzero(~again)[: in_batch - begun]
            visits[previous + 1] = np.concatenate([following[first], np.delete(following, first)])
    return visits.ravel()[: num_batches * in_batch].reshape(num_batches, in_batch)


def deal(
    images: np.ndarray, labels: np.ndarray, wanted: np.ndarray, key: tuple[object, ...]
) -> np.ndarray:
    """An image for each of `wanted`, which numbers classes in ascending order of their labels.

    The images of a class come in random order, and in the same order again when they are used up.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = permutation(*key, "images", items=np.arange(len(images)))
    hands = images[order[np.argsort(classes[order], kind="stable")]]
    visits = np.bincount(wanted, minlength=len(counts))
    by_class = np.argsort(wanted, kind="stable")
    turns = np.empty(len(wanted), int)
    turns[by_class] = np.arange(len(wanted)) - np.repeat(np.cumsum(visits) - visits, visits)
    return hands[(np.cumsum(counts) - counts)[wanted] + turns % counts[wanted]]
