"""Mixing: training images blended with others, and how much of each label is then true.

A registered function takes the options of a technique and returns a `Mixer`, or None. What is mixed
is a pure function of (seed, phase, epoch, image), and for what a batch shares, of (seed, phase,
epoch, step). Facts:

- `where`: `pixels`, `layer` (inside the backbone) or `embeddings` (a term of the loss, see
  `losses.metrix`);
- `two_labels`: the label of the other image counts too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from dml_bench.registry import mixings
from dml_bench.registry.option_checks import Fraction, Positive, at_least
from dml_bench.system.seeding import permutation, uniform

if TYPE_CHECKING:
    from dml_bench.data.augmentations import Boxes

__all__ = ["BatchRng", "Mix", "Mixer"]

Share = Literal["image", "batch"]
"""Whose lambda it is."""


@dataclass(frozen=True, slots=True)
class BatchRng:
    """Random numbers of one batch."""

    images: np.ndarray
    """(batch) image indices."""
    num_images: int
    """Of the data set."""
    key: tuple[object, ...]
    """The seed, the phase and the epoch."""
    step: int

    def per_image(self, purpose: str, columns: int = 1) -> np.ndarray:
        """(batch, columns) uniform in [0, 1); an image's own, whatever batch it is in."""
        return uniform(*self.key, "mixing", purpose, rows=self.num_images, columns=columns)[
            self.images
        ]

    def per_batch(self, purpose: str, columns: int = 1) -> np.ndarray:
        """(batch, columns) uniform in [0, 1), the same in every row."""
        return np.repeat(
            uniform(*self.key, "mixing", purpose, self.step, rows=1, columns=columns),
            len(self.images),
            axis=0,
        )

    def of(self, share: Share, purpose: str, columns: int = 1) -> np.ndarray:
        """(batch, columns) uniform in [0, 1), for each image or one for the batch."""
        return (self.per_image if share == "image" else self.per_batch)(purpose, columns)

    def rows(self) -> np.ndarray:
        """(batch) a random permutation of the batch's places."""
        return permutation(
            *self.key, "mixing", "rows", self.step, items=np.arange(len(self.images))
        )


@dataclass(frozen=True, slots=True)
class Mix:
    """How one batch is mixed."""

    others: np.ndarray
    """(batch) indices of the images that are mixed in."""
    rows: np.ndarray | None
    """(batch) where in the batch they are; None where they come from elsewhere."""
    kept: np.ndarray
    """(batch) part of the image's own values that stays, 0 .. 1."""
    share: np.ndarray
    """(batch) part of the image's own label that is true, 0 .. 1; the rest is the other's."""
    boxes: "Boxes | None" = None
    """Pixels that are taken whole from the other image; then `kept` has no effect."""
    layer: str = ""
    """The backbone's layer at which it happens; empty for the pixels."""


@dataclass(frozen=True, slots=True)
class Mixer:
    """A technique with its options."""

    mix: Callable[[BatchRng, np.ndarray, int], Mix]
    """Takes the random numbers of the batch, (images) the training images, and the side of an image
    in pixels."""
    layers: tuple[str, ...] | None = None
    """Layers of the backbone that may be mixed, `input` among them; empty for all. None where it is
    always the pixels."""


def beta(alpha: float, uniform: np.ndarray) -> np.ndarray:
    """Numbers of Beta(alpha, alpha) by inversion."""
    # By inversion, because numpy's own sampler rejects: how many random numbers it takes for one
    # image would depend on the images before it.
    from scipy.stats import beta as distribution

    return distribution.ppf(uniform, alpha, alpha)


@mixings.register(
    "none", summary="images are trained on as they are", source="the usual way", where=""
)
def none() -> None:
    return None


@mixings.register(
    "samplepairing",
    summary="the mean with a random training image, under the first one's label",
    source="Inoue 2018, Data augmentation by pairing samples for images classification",
    two_labels=False,
)
def samplepairing(*, p: Fraction = 1.0) -> Mixer:
    """`p` is the probability per image of being mixed; .5 is "random sample pairing"."""

    def mix(rng: BatchRng, pool: np.ndarray, side: int) -> Mix:
        other, mixed = rng.per_image("other", 2).T
        kept = np.where(mixed < p, 0.5, 1.0)
        return Mix(pool[(other * len(pool)).astype(int)], None, kept, np.ones(len(kept)))

    return Mixer(mix)


@mixings.register(
    "mixup",
    summary="weighted mean of two images of the batch, and of their losses",
    source="Zhang et al. 2018, mixup: beyond empirical risk minimization",
)
def mixup(*, alpha: Positive = 0.4, share: Share = "image") -> Mixer:
    """lambda ~ Beta(alpha, alpha), for each image or one for the `batch` as in the paper; at least
    a half is the image's own, which only says which of two images is the first."""
    return Mixer(lambda rng, pool, side: in_batch(rng, alpha, share))


@mixings.register(
    "manifoldmixup",
    summary="mixup at a layer drawn at random for each batch",
    source=(
        "Verma et al. 2019, Manifold mixup: better representations by interpolating hidden states"
    ),
    where="layer",
)
def manifoldmixup(
    *, alpha: Positive = 2.0, share: Share = "batch", layers: tuple[str, ...] = ()
) -> Mixer:
    """`layers` are names of the backbone's layers, and `input`; by default the input and the output
    of each stage."""
    return Mixer(lambda rng, pool, side: in_batch(rng, alpha, share), layers)


@mixings.register(
    "cutmix",
    summary="a box of another image of the batch pasted in; labels by the area that is there",
    source=(
        "Yun et al. 2019, CutMix: regularization strategy to train strong classifiers with"
        " localizable features"
    ),
)
def cutmix(*, alpha: Positive = 1.0, p: Fraction = 1.0, share: Share = "image") -> Mixer:
    """The box has part 1 - lambda of the area, lambda ~ Beta(alpha, alpha), before it is cut at the
    border. `p` is the probability of pasting at all; with `share` = batch one box serves the whole
    batch, as in the paper."""

    def mix(rng: BatchRng, pool: np.ndarray, side: int) -> Mix:
        from dml_bench.data.augmentations import Boxes  # brings torch

        rows, (size, y, x, pasted) = rng.rows(), rng.of(share, "box", 4).T
        half = np.sqrt(1 - beta(alpha, size)) * side / 2 * (pasted < p)
        top, left = (
            np.clip(np.round(centre * side - half), 0, side).astype(int) for centre in (y, x)
        )
        bottom, right = (
            np.clip(np.round(centre * side + half), 0, side).astype(int) for centre in (y, x)
        )
        boxes = Boxes(top, left, bottom - top, right - left)
        own = 1 - boxes.heights * boxes.widths / side**2
        return Mix(rng.images[rows], rows, own, own, boxes)

    return Mixer(mix)


@mixings.register(
    "metrix",
    summary="a term of the loss in which mixtures of a positive and a negative are partly positive",
    source="Venkataramanan et al. 2022, It takes two to tango: mixup for deep metric learning",
    where="embeddings",
)
def metrix(
    *,
    alpha: Positive = 2.0,
    weight: Positive = 0.4,
    level: Literal["embeddings", "features", "input"] = "embeddings",
    pairs: Literal["positive_negative", "anchor_negative", "either"] = "positive_negative",
    share: Share = "image",
    hardest: Annotated[int, at_least(0)] = 1,
) -> None:
    """lambda ~ Beta(alpha, alpha) for each mixture, or one for the `batch` as in the authors' code;
    `weight` is that of the term. `level` is what is mixed: embeddings, maps of the last stage
    (`features`), or images; of the latter two each positive pair, or anchor, with the `hardest`
    nearest negatives (0: all), which go through the network again. `either` draws the kind of
    pairs for each batch, as the paper does."""


def in_batch(rng: BatchRng, alpha: float, share: Share) -> Mix:
    rows = rng.rows()
    kept = beta(alpha, rng.of(share, "lambda")[:, 0])
    kept = np.maximum(kept, 1 - kept)
    return Mix(rng.images[rows], rows, kept, kept)
