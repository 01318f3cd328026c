"""Training batches as one picture: every image as the network sees it, and below it what it is
labelled as."""

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dml_bench.system.lettering import Pen
from dml_bench.training.batches import Batch, epoch_batches, training_batch
from dml_bench.training.training_state import TrainingState

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["contact_sheet"]

COLUMNS, GAP = 8, 8
SMALLEST = 128
"""Pixels: smaller images are magnified by a whole number, so that each pixel stays a square and
names fit below."""
TEXT, LINE = 11, 15
"""Height of the letters and of a line in pixels."""
LINES_PER_LABEL = 3
ROUNDS_TO_0 = 0.005
"""Weights below it are not worth a line; those as close to 1 go without saying."""
INKS = ("black", "#0b5394")
"""Of an image's labels, in turn."""


def contact_sheet(
    state: TrainingState, *, epoch: int = 1, batches: int = 1, images: int = 32
) -> "Image":
    """The first `images` of each of the first `batches` of an epoch, as the loop would be fed with
    them now; views side by side."""
    from PIL import Image

    parts, everything = [], epoch_batches(state, epoch)
    for step, indices in enumerate(everything[:batches]):
        batch = training_batch(state, indices, epoch, step)
        shown, views = min(images, len(indices)), state.experiment.train.views
        rows = [view * len(indices) + image for image in range(shown) for view in range(views)]
        title = (
            f"{state.experiment.name}, seed {state.experiment.seed}, phase {state.phase.name}:"
            f" batch {step + 1} of {len(everything)} in epoch {epoch}"
        )
        parts.append(
            batch_sheet(
                f"{title}, {facts(batch, shown, len(indices))}",
                as_pixels(batch.inputs)[rows],
                captions(state, batch, rows),
            )
        )
    sheet = Image.new(
        "RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white"
    )
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def facts(batch: Batch, shown: int, size: int) -> str:
    """What the pixels alone don't show."""
    parts = [
        f"{shown} of {size} images" if shown < size else f"{size} images",
        f"{batch.inputs.shape[1]} px",
    ]
    if batch.inside is not None:
        parts.append(f"mixed at the output of {batch.layer}")
    if batch.interpolate:
        parts.append("embeddings mixed in the loss")
    return ", ".join(parts)


def as_pixels(inputs: Tensor) -> np.ndarray:
    """(views * batch, size, size, 3) values 0-255 of any type -> uint8."""
    return inputs.float().round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def captions(state: TrainingState, batch: Batch, rows: list[int]) -> list[list[str]]:
    """What each of these inputs is labelled as, the labels with their weights where those are not
    1."""
    captions_of_images = []
    for row in rows:
        weights: dict[str, float] = {}
        for targets in batch.targets:
            name = label_name(state, int(targets.labels[row]))
            weight = (
                1.0
                if targets.weights is None
                else float(targets.weights.expand(len(batch.inputs))[row])
            )
            weights[name] = weights.get(name, 0.0) + weight
        present = {name: weight for name, weight in weights.items() if weight >= ROUNDS_TO_0}
        captions_of_images.append(
            [
                name if abs(weight - 1) <= ROUNDS_TO_0 else f"{weight:.2f} {name}"
                for name, weight in present.items()
            ]
        )
    return captions_of_images


def label_name(state: TrainingState, label: int) -> str:
    """The class, with spaces at which the name can be broken; or which image it is, where each is a
    class of its own."""
    if state.experiment.train.labels == "image":
        return f"image {label + 1}"
    return state.dataset.class_names[state.trained[label]].replace("_", " ")


def batch_sheet(title: str, pixels: np.ndarray, labels: list[list[str]]) -> "Image":
    """(images, size, size, 3) uint8 in rows of eight, their labels below them, a title above."""
    from PIL import Image

    pen = Pen(TEXT)
    side = pixels.shape[1] * -(-SMALLEST // pixels.shape[1])
    lines = []
    for of_image in labels:
        coloured = zip(of_image, cycle(INKS))
        lines.append([(line, ink) for label, ink in coloured for line in wrapped(label, side, pen)])
    width, height = side + GAP, side + LINE * max(map(len, lines)) + GAP
    heading = wrapped(title, COLUMNS * width - GAP, pen, most=4)
    top = LINE * len(heading) + 2 * GAP
    sheet = Image.new(
        "RGB", (COLUMNS * width + GAP, top + height * -(-len(pixels) // COLUMNS)), "white"
    )
    for number, line in enumerate(heading):
        pen.write(sheet, (GAP, GAP + LINE * number), line, "black")
    for place, (image, text) in enumerate(zip(pixels, lines, strict=True)):
        x, y = GAP + place % COLUMNS * width, top + place // COLUMNS * height
        sheet.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (x, y))
        for number, (line, ink) in enumerate(text):
            pen.write(sheet, (x, y + side + LINE * number), line, ink)
    return sheet


def wrapped(text: str, width: int, pen: Pen, most: int = LINES_PER_LABEL) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces; what does not fit into `most`
    lines ends with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.width(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) >= most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return [pen.fitted(line, width) for line in lines]
