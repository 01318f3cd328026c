"""The panels of subjects: each phase's answer, its maps, and the gallery image that it found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dml_bench.explain.annotations import Annotations, seen
from dml_bench.explain.images import ExplainedImage, RunImages
from dml_bench.explain.methods import methods
from dml_bench.explain.models import ImageTarget, Model, Target
from dml_bench.explain.panels import PanelRow, Tile, coloured, overlaid, panel
from dml_bench.runs import layout
from dml_bench.system.files import short_name, write_atomically

__all__ = ["Drawing"]

FINE = ("vanilla", "guided", "guided_gradcam")
"""Methods with a value for each pixel, which an image below would hide."""
ROUGH = ("gradcam", "attention", "cam")
"""The others, the one that shows most first."""
WORDS = {
    "class": "what speaks for its class, against others",
    "predicted": "what speaks for the class that is said, against others",
    "nearest": "what is like the closest image",
    "logit": "what raises the classifier's score of its class",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    material: RunImages
    models: Sequence[Model]
    names: Sequence[str]
    """Of methods."""
    truth: Annotations
    target: Target
    other: np.ndarray | None
    """(size, size, 3) uint8 pixels of the image that is the target instead."""

    @property
    def pairs(self) -> bool:
        """Whether one other image is the target, which then has a map of its own: what in it is
        like the subject."""
        return self.other is not None or self.target == "nearest"

    def write(self, subjects: Sequence[ExplainedImage], folder: Path) -> list[Path]:
        written = []
        for place, (subject, sheet) in enumerate(
            zip(subjects, self.panels(subjects), strict=True), start=1
        ):
            path = folder / f"{place:03d}-{short_name(subject.file.stem)}.png"
            write_atomically(path, lambda file, sheet=sheet: sheet.save(file, "PNG"))  # type: ignore[misc]
            written.append(path)
        return written

    def panels(self, subjects: Sequence[ExplainedImage]) -> list[Image.Image]:
        """One for each subject."""
        pixels = np.stack([self.material.pixels(subject) for subject in subjects])
        rows = [self._rows(model, subjects, pixels) for model in self.models]
        ends = ["the other image" if self.other is not None else "closest in the gallery"]
        columns = ["image", *(methods[name].facts["title"] for name in self.names), *ends]
        sheets = []
        for place, subject in enumerate(subjects):
            known = subject.path in self.truth.objects
            boxes = (
                [seen(self.truth.objects[subject.path], self.material.view, subject.file)]
                if known
                else []
            )
            sheets.append(panel(self._title(subject), columns, [row[place] for row in rows], boxes))
        return sheets

    def _rows(
        self, model: Model, subjects: Sequence[ExplainedImage], pixels: np.ndarray
    ) -> list[PanelRow]:
        """What one model makes of each subject."""
        embeddings = model.embed(pixels)
        target = None if self.other is None else model.embed(self.other[None])[0]
        asked = [
            model.asked(subject, embedding, self.target, target)
            for subject, embedding in zip(subjects, embeddings, strict=True)
        ]
        maps = model.maps(self.names, pixels, asked)
        rows = []
        for place, (subject, each) in enumerate(zip(subjects, asked, strict=True)):
            heats = {name: heat[place] for name, heat in maps.items()}
            found = int(model.labels[each.nearest])
            self._check(model, subject, found)
            good = None if subject.label < 0 else found == subject.label
            answer = Tile(pixels[place], f"says\n{self._called(found)}", good)
            tiles = [tile_of(name, pixels[place], heat) for name, heat in heats.items()]
            rows.append(
                PanelRow(
                    label_of(model, subject),
                    (answer, *tiles, self._counterpart(model, each, embeddings[place], good)),
                )
            )
        return rows

    @cached_property
    def _predictions(self) -> dict[str, dict[str, str]]:
        """What the run wrote down of each query, by the path of its image."""
        return {row["query"]: row for row in self.material.run.predictions}

    def _check(self, model: Model, subject: ExplainedImage, found: int) -> None:
        """Raises ValueError where a panel would say something else than the run's own
        predictions."""
        told = self._predictions.get(subject.path, {}).get(f"{model.name}_predicted")
        says = self.material.run.class_names[found]
        if told is not None and told != says:
            raise ValueError(
                f"{subject.path} is {says} here, and {told} in"
                f" {self.material.run.folder / layout.PREDICTIONS}: run it again with --force"
            )

    def _counterpart(
        self, model: Model, asked: ImageTarget, embedding: np.ndarray, good: bool | None
    ) -> Tile:
        """The gallery's closest image, or the other one; with its own map of what is like the
        subject where it is the target."""
        closest = self.material.subject(int(model.gallery_images[asked.nearest]))
        pixels = self.material.pixels(closest) if self.other is None else self.other
        similarity = (
            asked.similarity if self.other is None else float(asked.direction.numpy() @ embedding)
        )
        name = f"\n{self._called(closest.label)}" if self.other is None else ""
        if self.pairs and (rough := [name for name in ROUGH if name in self.names]):
            back = replace(asked, direction=torch.from_numpy(embedding))
            pixels = overlaid(pixels, model.maps(rough[:1], pixels[None], [back])[rough[0]][0])
        return Tile(
            pixels, f"similarity {similarity:.3f}{name}", good if self.other is None else None
        )

    def _called(self, label: int) -> str:
        return self.material.run.class_names[label]

    def _title(self, subject: ExplainedImage) -> str:
        name = "A photo" if subject.label < 0 else self._called(subject.label)
        return (
            f"{name}:"
            f" {'what is like the other image' if self.other is not None else WORDS[self.target]}"
        )


def tile_of(name: str, pixels: np.ndarray, heat: np.ndarray) -> Tile:
    if name == "rollout":  # everything gets some attention: what is more than the least is drawn
        heat = heat - heat.min()
    return Tile(
        coloured(heat) if name in FINE else overlaid(pixels, heat),
        "" if heat.max() > 0 else "nothing speaks for it",
    )


def label_of(model: Model, subject: ExplainedImage) -> str:
    held_out = subject.label in model.run.held_out.get(model.name, ())
    return f"phase {model.name}{', which never saw this class' if held_out else ''}"
