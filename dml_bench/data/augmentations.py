"""Random changes of training images: those of SimCLR's views (Chen et al. 2020, appendix A),
symmetries and views from elsewhere, and light.

All functions are pure, and what an image gets follows from its own row of `draws` (uniform numbers
in [0, 1)) bit for bit, whatever else is in the batch and however many threads work on it: every
float operation rounds once (no fused multiply-add), and where numbers are summed, they are ones
whose sums float32 holds exactly.

Batches are (batch, size, size, 3) uint8; inside they are planes, (3, images, size, size) float32
levels from 0 to 255.

Homographies are (batch, 3, 3) matrices that take a place (x, y, 1) in the changed image to the
place in the image before where its colour is looked up, up to a factor; x grows to the right and y
downwards, from -1 to 1 between the borders. `first @ second` changes by `first` first.
"""

import math
from collections.abc import Callable
from functools import lru_cache, reduce
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.special import expit, logit
from torch import Tensor
from torch.nn.functional import grid_sample

from dml_bench.config import Augment
from dml_bench.system.devices import to_device

__all__ = [
    "Boxes",
    "Drawn",
    "augmented",
    "blur",
    "distort_colors",
    "project",
    "relight",
    "remove_colors",
    "resized",
    "resized_batch",
    "resized_crop_boxes",
    "resized_crops",
    "rotations",
    "symmetries",
    "tilts",
    "zooms",
]

Drawn = Callable[[str, int], np.ndarray]
"""(purpose, columns) -> (batch, columns) uniform numbers in [0, 1), a row for each image of a
batch."""

JITTERED = 0.8
"""Probability of a colour distortion."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = np.array(list(permutations(range(4))))
CHUNK = 2**17
"""Pixels that are changed at a time on a CPU, so that they stay in its cache."""
RESIZED_CHUNK = 2**24
"""Pixels between the two passes of a resize at a time: a gigabyte of a GPU's memory."""
WEIGHT_BITS = 22
"""Of a weight in Pillow's resize of 8 bits: sums of products fit into 32."""


class Boxes(NamedTuple):
    """Rectangles in pixels, (batch) whole numbers each."""

    tops: np.ndarray
    lefts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


def augmented(pixels: Tensor, augment: Augment, drawn: Drawn) -> Tensor:
    """The batch seen from elsewhere, by all the geometry at once; then in another light, in other
    colours and blurred."""
    homographies = []
    if augment.dihedral:
        homographies.append(symmetries(drawn("dihedral", 2), augment.dihedral))
    if augment.rotate:
        homographies.append(
            rotations(drawn("rotate", 2), augment.rotate, augment.geometry_probability)
        )
    if augment.zoom > 1:
        homographies.append(zooms(drawn("zoom", 4), augment.zoom, augment.geometry_probability))
    if augment.warp:
        homographies.append(tilts(drawn("warp", 3), augment.warp, augment.geometry_probability))
    if homographies:
        pixels = project(pixels, reduce(np.matmul, homographies), augment.padding)
    if augment.lighting:
        pixels = relight(
            pixels, drawn("lighting", 4), augment.lighting, augment.lighting_probability
        )
    if augment.color_jitter:
        pixels = distort_colors(pixels, drawn("color_jitter", 6), augment.color_jitter)
    if augment.grayscale:
        pixels = remove_colors(pixels, drawn("grayscale", 1), augment.grayscale)
    if augment.gaussian_blur:
        pixels = blur(pixels, drawn("gaussian_blur", 2), augment.gaussian_blur)
    return pixels


def resized_crop_boxes(
    heights: np.ndarray, widths: np.ndarray, draws: np.ndarray, min_area: float
) -> Boxes:
    """A random rectangle in each image of these (batch) sizes, from (batch, 4) draws: area, aspect
    ratio, top, left.

    The area is uniform from `min_area` to 1 of the image's, width / height log-uniform from 3/4 to
    4/3, as in torchvision's RandomResizedCrop. A side that is longer than the image's becomes the
    image's, where torchvision draws again (up to ten times), so that crops as high or as wide as
    the image are more frequent here.
    """
    areas = heights * widths * (min_area + draws[:, 0] * (1 - min_area))
    ratios = (4 / 3) ** (2 * draws[:, 1] - 1)
    crop_heights = np.clip(np.rint(np.sqrt(areas / ratios)), 1, heights).astype(int)
    crop_widths = np.clip(np.rint(np.sqrt(areas * ratios)), 1, widths).astype(int)
    tops = (draws[:, 2] * (heights - crop_heights + 1)).astype(int)
    lefts = (draws[:, 3] * (widths - crop_widths + 1)).astype(int)
    return Boxes(tops, lefts, crop_heights, crop_widths)


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3) uint8 -> (size, size, 3) uint8, bilinear with antialiasing: rows first,
    then columns, whichever order Pillow's version would choose."""
    narrow = Image.fromarray(pixels).resize((size, len(pixels)), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((size, size), Image.Resampling.BILINEAR))


def resized_crops(
    pixels: Tensor, images: np.ndarray, strides: np.ndarray, boxes: Boxes, size: int
) -> Tensor:
    """(batch, size, size, 3) uint8: what `resized` makes of a box of each image, bit by bit, on the
    device where the pixels are.

    `pixels` are (pixels, 3) uint8 of many images one after another, `images` (batch) at which pixel
    each begins, `strides` (batch) its width. As Pillow does it: weights are computed in float64 and
    rounded to 22 bits, rows are resized and rounded to 8 bits, then columns.
    """
    firsts = images + boxes.tops * strides + boxes.lefts
    parts, start = [], 0
    while start < len(images):
        together = max(1, RESIZED_CHUNK // (size * int(boxes.heights[start:].max())))
        some = slice(start, start + together)
        heights, widths = boxes.heights[some], boxes.widths[some]
        first, stride = (
            to_device(part[some], pixels.device)[:, None, None] for part in (firsts, strides)
        )
        # Rows beyond a box's height are computed for others' sake: they repeat its last one, and no
        # weight reaches them.
        lowest = to_device(heights - 1, pixels.device)[:, None]
        rows = torch.arange(int(heights.max()), device=pixels.device).minimum(lowest)
        narrow = _weighted(
            pixels,
            first + stride * rows[:, :, None],
            widths,
            size,
            along=2,
        )
        top = torch.arange(len(heights), device=pixels.device)[:, None, None] * (
            narrow.shape[1] * size
        )
        column = torch.arange(size, device=pixels.device)
        parts.append(_weighted(narrow.view(-1, 3), top + column, heights, size, along=1, step=size))
        start += together
    return torch.cat(parts)


def _weighted(
    pixels: Tensor, starts: Tensor, lengths: np.ndarray, size: int, *, along: int, step: int = 1
) -> Tensor:
    """One pass of a resize: (images, ...) places in `pixels` where lines of so many pixels begin,
    each `step` after the last, become `size` pixels along that dimension of the result (images,
    rows, columns, 3)."""
    places, weights = resize_weights(lengths, size, pixels.device)
    shape = (len(lengths), size, 1) if along == 1 else (len(lengths), 1, size)
    total: Tensor | int = 1 << (WEIGHT_BITS - 1)
    for place, weight in zip(places * step, weights, strict=True):
        total = total + pixels[starts + place.view(shape)].int() * weight.view(shape)[..., None]
    assert isinstance(total, Tensor)
    return (total >> WEIGHT_BITS).to(torch.uint8)


def resize_weights(lengths: np.ndarray, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each pixel of a resized line looks, and how much that counts: two (taps, lines, size),
    int64 and int32, from (lines) lengths.

    Pillow's `precompute_coeffs` with its triangle, in the same order of float64 operations. Weights
    of 0 fill up short looks.
    """
    taps = math.ceil(2 * max(float(lengths.max()) / size, 1.0)) + 1
    line = to_device(lengths, device)[:, None]
    # A GPU divides by a number of the host by multiplying with its inverse, which rounds twice.
    scales = line.double() / torch.full((1,), size, dtype=torch.float64, device=device)
    supports = scales.clamp_min(1.0)
    centres = (torch.arange(size, device=device).double() + 0.5) * scales
    least = (centres - supports + 0.5).long().clamp_min(0)
    end = torch.minimum((centres + supports + 0.5).long(), line)
    places = least + torch.arange(taps, device=device)[:, None, None]
    weights = (1 - ((places - centres + 0.5) * (1 / supports)).abs()).clamp_min(0)
    weights = weights.masked_fill(places >= end, 0)
    weights = weights / reduce(torch.add, weights.unbind())
    return torch.minimum(places, line - 1), (0.5 + weights * (1 << WEIGHT_BITS)).int()


def resized_batch(pixels: Tensor, size: int) -> Tensor:
    """(batch, ...) -> (batch, size, size, 3) uint8, bilinear with antialiasing, on the device where
    the pixels are."""
    from torchvision.transforms.v2.functional import resize

    return (
        resize(pixels.permute(0, 3, 1, 2), [size, size], antialias=True)
        .permute(0, 2, 3, 1)
        .contiguous()
    )


def symmetries(draws: np.ndarray, probability: float) -> np.ndarray:
    """With this probability one of the eight symmetries of the square, the identity among them.
    (batch, 2) draws: whether, which."""
    turn, mirror = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.diag([-1, 1, 1])
    turns = [np.linalg.matrix_power(turn, times) for times in range(4)]
    eight = np.array(turns + [mirror @ turned for turned in turns], dtype=float)
    return eight[np.where(draws[:, 0] < probability, 8 * draws[:, 1], 0).astype(int)]


def rotations(draws: np.ndarray, largest: float, probability: float) -> np.ndarray:
    """With this probability a rotation about the centre by up to `largest` degrees either way.
    (batch, 2) draws: whether, angle."""
    angles = np.radians(np.where(draws[:, 0] < probability, largest * (2 * draws[:, 1] - 1), 0))
    matrices = _identities(len(draws))
    matrices[:, 0, 0] = matrices[:, 1, 1] = np.cos(angles)
    matrices[:, 1, 0] = np.sin(angles)
    matrices[:, 0, 1] = -matrices[:, 1, 0]
    return matrices


def zooms(draws: np.ndarray, largest: float, probability: float) -> np.ndarray:
    """With this probability a part of the image, anywhere in it, magnified by 1 to `largest`.
    (batch, 4) draws: whether, factor, x, y."""
    parts = np.where(draws[:, 0] < probability, 1 / (1 + (largest - 1) * draws[:, 1]), 1)
    matrices = _identities(len(draws))
    matrices[:, 0, 0] = matrices[:, 1, 1] = parts
    matrices[:, :2, 2] = (1 - parts[:, None]) * (2 * draws[:, 2:] - 1)
    return matrices


def tilts(draws: np.ndarray, magnitude: float, probability: float) -> np.ndarray:
    """With this probability the image as it is seen from above or below, and then from the left or
    right.

    Each tilt by t, uniform up to `magnitude` either way, looks up one side at 1 + t and the
    opposite at 1 - t of its length, and leaves both where they are. As fastai's Warp (Howard and
    Gugger 2020), which draws whether for each tilt and moves the corners by both at once, where
    here one follows the other. (batch, 3) draws: whether, the second tilt, the first.
    """
    amounts = np.where(draws[:, :1] < probability, magnitude * (2 * draws[:, 1:] - 1), 0)
    both = []
    for along, amount in enumerate(amounts.T):
        matrices = _identities(len(draws))
        matrices[:, 1 - along, 1 - along] = 1 - amount**2
        matrices[:, along, 2] = matrices[:, 2, along] = amount
        both.append(matrices)
    return both[1] @ both[0]


def _identities(count: int) -> np.ndarray:
    return np.tile(np.eye(3), (count, 1, 1))


def project(pixels: Tensor, matrices: np.ndarray, padding: str = "reflection") -> Tensor:
    """Changes each image by its homography, looked up once and bilinearly; beyond the borders the
    image is mirrored, or as `padding` says: `border` goes on with its last pixels, `zeros` is
    black.

    An image whose matrix is the identity keeps its bits. Nothing is antialiased, so matrices should
    not make images much smaller.
    """
    size = pixels.shape[1]
    x = to_device((2 * torch.arange(size) + 1) / size - 1, pixels.device)

    def change(some: Tensor, rows: np.ndarray) -> Tensor:
        def coordinate(row: int) -> Tensor:
            by_x, by_y, shift = (_column(matrices[rows, row, j], some) for j in range(3))
            return x * by_x + (x[:, None] * by_y + shift)

        across, down, depth = coordinate(0), coordinate(1), coordinate(2)
        places = torch.empty(*depth.shape, 2, device=some.device)
        torch.div(across, depth, out=places[..., 0])
        torch.div(down, depth, out=places[..., 1])
        return _levels(
            grid_sample(
                some.permute(0, 3, 1, 2).float(),
                places,
                "bilinear",
                padding,
                align_corners=False,
            ).transpose(0, 1)
        )

    return _changed(pixels, np.flatnonzero((matrices != np.eye(3)).any((1, 2))), change)


def relight(pixels: Tensor, draws: np.ndarray, strength: float, probability: float) -> Tensor:
    """Changes brightness and contrast, each with this probability, where levels are log-odds: black
    and white stay what they are.

    To the log-odds of a level (0-1) the brightness adds those of 0.5 + 0.5 b, b uniform up to
    `strength` either way; the contrast multiplies them by a factor that is log-uniform from 1 -
    strength to 1 / (1 - strength); as in fastai (Howard and Gugger 2020). (batch, 4) draws: whether
    and how much, for brightness and contrast.
    """
    chosen = draws[:, ::2] < probability
    amounts = np.where(chosen, 2 * draws[:, 1::2] - 1, 0)
    shift, slope = logit(0.5 + 0.5 * strength * amounts[:, :1]), (1 - strength) ** -amounts[:, 1:]
    levels = logit(np.arange(256) / 255)
    tables = to_device(
        np.rint(255 * expit(slope * (levels + shift))).astype(np.uint8), pixels.device
    )

    def change(some: Tensor, rows: np.ndarray) -> Tensor:
        own = to_device(256 * rows.astype(np.int32), some.device).view(-1, 1, 1, 1)
        return tables.flatten().index_select(0, (some + own).flatten()).view_as(some)

    return _changed(pixels, np.flatnonzero(chosen.any(1)), change)


def distort_colors(pixels: Tensor, draws: np.ndarray, strength: float) -> Tensor:
    """Changes brightness, contrast, saturation and hue, in random order, of four images in five.

    The first three are multiplied by factors from max(0, 1 - 0.8 strength) to 1 + 0.8 strength, the
    hue is turned by up to 0.2 strength of the circle, as in torchvision's ColorJitter. (batch, 6)
    draws: whether, four amounts, the order.
    """
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    amounts = low + draws[:, 1:5] * (high - low)
    amounts[:, HUE] = (2 * draws[:, 4] - 1) * 0.2 * strength
    orders = ORDERS[(draws[:, 5] * len(ORDERS)).astype(int)]

    chosen = np.flatnonzero(draws[:, 0] < JITTERED)
    # By the step that turns the hue, so that images whose hue turns at the same step lie side by
    # side.
    chosen = chosen[np.argsort(np.argmax(orders[chosen] == HUE, axis=1), kind="stable")]

    def change(planes: Tensor, rows: np.ndarray) -> Tensor:
        for kinds in orders[rows].T:
            now, turning = amounts[rows, kinds], np.flatnonzero(kinds == HUE)
            if len(turning) < len(rows):
                _blend(planes, kinds, now)
            if len(turning):
                _turn(planes[:, turning[0] : turning[-1] + 1], now[turning])
        return planes

    return _changed_planes(pixels, chosen, change)


def remove_colors(pixels: Tensor, draws: np.ndarray, probability: float) -> Tensor:
    """Makes images grey with this probability. (batch, 1) draws."""
    chosen = np.flatnonzero(draws[:, 0] < probability)
    return _changed_planes(
        pixels, chosen, lambda planes, rows: _luminance(planes).expand_as(planes)
    )


def blur(pixels: Tensor, draws: np.ndarray, probability: float) -> Tensor:
    """Blurs images with this probability by a Gaussian whose deviation is uniform from 0.1 to 2
    pixels; borders are mirrored.

    The kernel is a tenth of the side wide: one pixel and size // 20 (at least 1) to each side.
    (batch, 2) draws: whether, deviation. The kernel is in 4096ths and the rows' sums are rounded to
    16ths of a level, 24 bits together, so that matrix products are exact and don't depend on their
    order.
    """
    size = pixels.shape[1]
    taps = _taps(size, max(1, size // 20), pixels.device)
    kernels = _kernels(0.1 + draws[:, 1] * 1.9, len(taps) // 2)

    def change(planes: Tensor, rows: np.ndarray) -> Tensor:
        spread = (to_device(kernels[rows], taps.device) @ taps.flatten(1)).view(-1, size, size)
        return torch.stack(
            [(spread @ plane).mul_(16).round_().div_(16) @ spread.mT for plane in planes]
        )

    return _changed_planes(pixels, np.flatnonzero(draws[:, 0] < probability), change)


def _changed(
    pixels: Tensor, chosen: np.ndarray, change: Callable[[Tensor, np.ndarray], Tensor]
) -> Tensor:
    """A copy of the batch in which `change(their pixels, rows)` replaces the chosen images; on a
    CPU some of them at a time."""
    result = pixels.clone()
    together = (
        max(1, CHUNK // pixels.shape[1] ** 2)
        if pixels.device.type == "cpu"
        else max(1, len(chosen))
    )
    for start in range(0, len(chosen), together):
        rows = chosen[start : start + together]
        where = to_device(rows, pixels.device)
        result.index_copy_(0, where, change(pixels.index_select(0, where), rows))
    return result


def _changed_planes(
    pixels: Tensor, chosen: np.ndarray, change: Callable[[Tensor, np.ndarray], Tensor]
) -> Tensor:
    """The same where `change` takes and returns planes."""
    return _changed(
        pixels,
        chosen,
        lambda some, rows: _levels(change(some.permute(3, 0, 1, 2).contiguous().float(), rows)),
    )


def _levels(planes: Tensor) -> Tensor:
    """(3, images, size, size) -> (images, size, size, 3) uint8. Stacking takes half as long as
    permuting does."""
    return torch.stack(planes.round().to(torch.uint8).unbind(), dim=-1)


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """(images) numbers -> (images, 1, 1), to multiply planes with."""
    return to_device(values.astype(np.float32), like.device).view(-1, 1, 1)


def _luminance(planes: Tensor) -> Tensor:
    """(images, size, size) by ITU-R BT.601."""
    red, green, blue = planes
    return (red * 0.299).add_(green * 0.587).add_(blue * 0.114)


def _blend(planes: Tensor, kinds: np.ndarray, factors: np.ndarray) -> None:
    """Moves planes in place away from (factor > 1) or towards (< 1) black, the image's mean grey or
    each pixel's own grey, which changes brightness, contrast or saturation (Haeberli and Voorhies
    1994); where the kind is hue, they stay as they were."""
    factor = _column(np.where(kinds == HUE, 1, factors), planes)
    grey = _luminance(planes)
    mean = grey.round().sum(-1).double().sum(-1).div(grey[0].numel()).float().view(-1, 1, 1)
    reference = grey.mul_(_column(kinds == SATURATION, grey)).add_(
        mean.mul_(_column(kinds == CONTRAST, grey))
    )
    planes.mul_(factor).add_(reference.mul_(1 - factor)).clamp_(0, 255)


def _turn(planes: Tensor, turns: np.ndarray) -> None:
    """Turns the hue of HSV in place by this part of the circle and keeps saturation and value.

    Without `torch.where`, which takes as long as twenty additions on a CPU.
    """
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - least
    # In sixths of the circle times chroma, if red is largest, else green, else blue.
    if_red, if_green, if_blue = (
        green - blue,
        (blue - red).add_(chroma * 2),
        (red - green).add_(chroma * 4),
    )
    not_red, not_green = (value - red).sign_(), (value - green).sign_()
    hue = (
        if_blue.sub_(if_green)
        .mul_(not_green)
        .add_(if_green)
        .sub_(if_red)
        .mul_(not_red)
        .add_(if_red)
    )
    hue.div_(chroma.clamp(min=1e-6)).add_(_column(turns * 6, planes))
    hue -= (hue / 6).floor_().mul_(6)
    shares = [
        (hue - 3).abs_().sub_(1),
        (hue - 2).abs_().neg_().add_(2),
        (hue - 4).abs_().neg_().add_(2),
    ]
    for plane, share in zip(planes, shares, strict=True):
        plane.copy_(share.clamp_(0, 1).mul_(chroma).add_(least))


def _kernels(deviations: np.ndarray, radius: int) -> np.ndarray:
    """(images, 2 radius + 1) Gaussian kernels in float32 whole 4096ths that sum to exactly 1."""
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * deviations[:, None] ** 2))
    weights = np.rint(4096 * weights / weights.sum(1, keepdims=True))
    weights[:, radius] += 4096 - weights.sum(1)
    return (weights / 4096).astype(np.float32)


@lru_cache(maxsize=4)
def _taps(size: int, radius: int, device: torch.device) -> Tensor:
    """(2 radius + 1, size, size): 1 where a tap of the kernel at pixel `row` meets pixel `column`,
    mirrored at the borders."""
    padded = np.pad(np.eye(size, dtype=np.float32), ((0, 0), (radius, radius)), mode="reflect")
    taps = np.stack([padded[:, tap : tap + size].T for tap in range(2 * radius + 1)])
    return to_device(taps, device)
