"""A panel for each explained image: what each phase predicts, its maps, and the closest gallery
image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dml_bench.explain.annotations import Annotations, box_in_view
from dml_bench.explain.images import ExplainedImage, RunImages
from dml_bench.explain.methods import methods
from dml_bench.explain.models import ImageTarget, Model, Target
from dml_bench.explain.tiles import PanelRow, Tile, heat_colours, heat_overlay, tile_sheet
from dml_bench.runs import layout
from dml_bench.system.files import short_name, write_atomically
from dml_bench.system.lettering import shortened

__all__ = ["MapPanels"]

PER_PIXEL = ("vanilla", "guided", "guided_gradcam")
"""Methods that have a value for each pixel; a picture below would hide it."""
COARSE = ("gradcam", "attention", "cam")
"""The other methods, the clearest one first."""
EMPTY = {
    "cam": "empty: no part of the\nimage raises the score",
    "gradcam": "empty: its mean gradients\nonly lower the score",
    "guided_gradcam": "empty where Grad-CAM\nor guided is",
}
"""Why a map has nothing to show, also of an image that is answered rightly."""
NO_GRADIENT = "empty: the score does not\ndepend on the image"
TITLES = {
    "class": "evidence for its class, against others",
    "predicted": "evidence for the predicted class, against others",
    "nearest": "similarity to the closest image",
    "logit": "evidence for its class in the classifier's score",
}
WITHOUT_CLASS = {
    "class": TITLES["predicted"],
    "logit": "evidence for the predicted class in the classifier's score",
}
"""The same of an image whose class is not known."""


@dataclass(frozen=True, kw_only=True)
class MapPanels:
    """Draws the maps of images: a row for each model, a column for each method."""

    run_images: RunImages
    models: Sequence[Model]
    names: Sequence[str]
    """The names of the methods."""
    annotations: Annotations
    target: Target
    other: np.ndarray | None
    """(size, size, 3) uint8 pixels of another image that is the target instead."""

    @property
    def pairs(self) -> bool:
        """Whether one other image is the target. It then has a map of its own: what in it is
        similar to the explained image."""
        return self.other is not None or self.target == "nearest"

    def write(
        self,
        images: Sequence[ExplainedImage],
        rows: Sequence[Sequence[PanelRow]],
        folder: Path,
    ) -> list[Path]:
        """Write a PNG file for each image, of its `rows`. Returns the files."""
        written = []
        for number, (image, of_image) in enumerate(zip(images, rows, strict=True), start=1):
            path = folder / f"{number:03d}-{short_name(image.file.stem)}.png"
            write_atomically(path, partial(self.panel(image, of_image).save, format="PNG"))
            written.append(path)
        return written

    def panels(self, images: Sequence[ExplainedImage]) -> list[Image.Image]:
        """A picture for each image."""
        rows = self.rows(images)
        return [self.panel(*of_image) for of_image in zip(images, rows, strict=True)]

    def rows(self, images: Sequence[ExplainedImage]) -> list[tuple[PanelRow, ...]]:
        """For each image, a row of tiles for each model: the image, its maps, the closest image."""
        pixels = np.stack([self.run_images.pixels(image) for image in images])
        by_model = [self._rows(model, images, pixels) for model in self.models]
        return list(zip(*by_model, strict=True))

    def panel(self, image: ExplainedImage, rows: Sequence[PanelRow]) -> Image.Image:
        """The picture of one image."""
        titles = [methods[name].facts["title"] for name in self.names]
        boxes = []
        box = self.annotations.objects.get(image.path)
        if box is not None:
            boxes.append(box_in_view(box, self.run_images.view, image.file))
        return tile_sheet(self._title(image), ["image", *titles, self.counterpart], rows, boxes)

    @property
    def counterpart(self) -> str:
        """What the last tile of a row is."""
        return "closest in the gallery" if self.other is None else "the other image"

    def subject(self, image: ExplainedImage) -> str:
        """What the maps of an image are about."""
        if self.other is not None:
            return "similarity to the other image"
        if image.label < 0 and self.target in WITHOUT_CLASS:
            return WITHOUT_CLASS[self.target]
        return TITLES[self.target]

    def _rows(
        self, model: Model, images: Sequence[ExplainedImage], pixels: np.ndarray
    ) -> list[PanelRow]:
        """The row of one model for each image."""
        embeddings = model.embed(pixels)
        other = None if self.other is None else model.embed(self.other[None])[0]
        targets = [
            model.target_of(image, embedding, self.target, other)
            for image, embedding in zip(images, embeddings, strict=True)
        ]
        maps = model.maps(self.names, pixels, targets)
        rows = []
        for number, (image, target) in enumerate(zip(images, targets, strict=True)):
            predicted = int(model.labels[target.nearest])
            self._check(model, image, predicted)
            good = None if image.label < 0 else predicted == image.label
            tiles = [Tile(pixels[number], f"predicted\n{self._class_name(predicted)}", good)]
            tiles += [map_tile(name, pixels[number], maps[name][number]) for name in maps]
            tiles.append(self._counterpart(model, target, embeddings[number], good))
            rows.append(PanelRow(row_label(model, image), tuple(tiles)))
        return rows

    @cached_property
    def _predictions(self) -> dict[str, dict[str, str]]:
        """The run's own prediction of each query, by the path of its image."""
        return {row["query"]: row for row in self.run_images.run.predictions}

    def _check(self, model: Model, image: ExplainedImage, label: int) -> None:
        """Raises ValueError where a panel would contradict the run's own predictions."""
        recorded = self._predictions.get(image.path, {}).get(f"{model.name}_predicted")
        predicted = self._class_name(label)
        if recorded is not None and recorded != predicted:
            raise ValueError(
                f"{image.path} is {predicted} here, and {recorded} in"
                f" {self.run_images.run.folder / layout.PREDICTIONS}: run it again with --force"
            )

    def _counterpart(
        self, model: Model, target: ImageTarget, embedding: np.ndarray, good: bool | None
    ) -> Tile:
        """The gallery's closest image, or the other one. Where it is the target, it has its own map
        of what is similar to the explained image."""
        if self.other is None:
            closest = self.run_images.image(int(model.gallery_images[target.nearest]))
            pixels = self.run_images.pixels(closest)
            caption = f"similarity {target.similarity:.3f}\n{self._class_name(closest.label)}"
        else:
            pixels = self.other
            caption = f"similarity {float(target.direction.numpy() @ embedding):.3f}"
            good = None
        coarse = [name for name in COARSE if name in self.names]
        if self.pairs and coarse:
            toward_image = replace(target, direction=torch.from_numpy(embedding))
            maps = model.maps(coarse[:1], pixels[None], [toward_image])
            pixels = heat_overlay(pixels, maps[coarse[0]][0])
        return Tile(pixels, caption, good)

    def _class_name(self, label: int) -> str:
        return self.run_images.class_names[label]

    def _title(self, image: ExplainedImage) -> str:
        name = "class not known" if image.label < 0 else self._class_name(image.label)
        return f"{shortened(image.file.name)}, {name}: {self.subject(image)}"


def map_tile(name: str, pixels: np.ndarray, heat: np.ndarray) -> Tile:
    """The map of one method: in colours of its own, or laid over the image."""
    if name == "rollout":
        # Every patch gets some attention, so only what exceeds the least is drawn.
        heat = heat - heat.min()
    picture = heat_colours(heat) if name in PER_PIXEL else heat_overlay(pixels, heat)
    return Tile(picture, "" if heat.max() > 0 else EMPTY.get(name, NO_GRADIENT))


def row_label(model: Model, image: ExplainedImage) -> str:
    """The phase, and whether its model was trained without the class."""
    if image.label in model.run.held_out.get(model.name, ()):
        return f"phase {model.name}, trained without this class"
    return f"phase {model.name}"
