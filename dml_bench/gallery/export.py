"""A trained network as files that need none of this package: network, gallery, preprocessing and a
model card.

The network takes pixels, which preprocess.py makes of image files with the code of this package.
Files: embedder.pt2 (torch.export) or embedder.onnx  gallery.faiss  gallery.csv  preprocess.py
preprocessing.json  export.json  README.md, and embedder.int8.onnx where it was asked for. For the
Hugging Face Hub: model.safetensors  graph.pt2  config.json in place of the first."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dml_bench.data.cache import View, view_of
from dml_bench.data.datasets import Progress
from dml_bench.data.images import Unreadable, decode, photo_file
from dml_bench.gallery.calibration import (
    calibration_set,
    nearest_others,
    recall_queries,
    run_queries,
)
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.hub_folder import card_head, hub_config
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.index_store import build_index
from dml_bench.gallery.indexes import IndexSpec
from dml_bench.gallery.model_card import Agreement, card
from dml_bench.gallery.network_formats import FORMATS, Network, open_onnx, quantize
from dml_bench.gallery.preprocessing import source
from dml_bench.gallery.store import Gallery
from dml_bench.runs.run import Run
from dml_bench.system.drafts import drafted
from dml_bench.system.files import write_csv, write_json, write_text
from dml_bench.version import __version__

__all__ = ["Exported", "export"]

FLAT = IndexSpec("flat", {})
INT8_FILE = "embedder.int8.onnx"
CALIBRATED = 128
"""The number of gallery images that set the ranges of a network of 8 bits."""
MOST_QUERIES = 1000
"""The number of test images on which its loss is measured; of more, evenly spaced ones."""
CHECKED = 32
"""The number of gallery images on which the exported network is checked."""
LARGEST_DIFFERENCE = 1e-4
"""The largest allowed difference of a component from the network's own, both in float32."""
SMALLEST_COSINE = 0.99
"""The smallest allowed cosine of an exported embedding with the gallery's, which may have been
computed in bfloat16 or on a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Loss:
    """What a network of 8 bits loses on test images, searched in the gallery as it is, but for the
    image itself where that is in it."""

    images: int
    """The number of test images."""
    precision_at_1: float
    """The share of images whose closest gallery image is of their class, in float32."""
    precision_at_1_int8: float
    """The same with 8 bits."""
    other_answers: float
    """The share of images that get another class."""
    min_cosine: float
    """The smallest cosine of two embeddings of an image."""

    @property
    def points(self) -> float:
        """The loss of P@1 in points (hundredths); below zero is a gain."""
        return 100 * (self.precision_at_1 - self.precision_at_1_int8)

    def describe(self) -> str:
        """All of it in a sentence."""
        return (
            f"with 8 bits, P@1 is {self.precision_at_1_int8:.3f} instead of"
            f" {self.precision_at_1:.3f} on {self.images:,} test images (a loss of"
            f" {self.points:z.1f} points), {self.other_answers:.1%} of them get another class, and"
            f" the smallest cosine is {self.min_cosine:.4f}"
        )


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has measured."""

    folder: Path
    agreement: Agreement
    """How far the exported network is from the run's."""
    index: str
    """A description of the index, and of what it misses."""
    int8: Int8Loss | None = None
    """What the network of 8 bits loses; None where it was not asked for."""

    def describe(self) -> str:
        """All of it in a line."""
        parts = [f"{self.folder}: {self.agreement.describe()}", self.index]
        if self.int8 is not None:
            parts.append(self.int8.describe())
        return "; ".join(parts)


def export(  # noqa: PLR0913 - what a person can choose
    run: Run,
    phase: str,
    gallery: Gallery,
    out: Path,
    index: IndexSpec = FLAT,
    *,
    to: str = "torch",
    int8: bool = False,
    progress: Progress = lambda message, done, total: None,
) -> Exported:
    """Make the folder `out`, completely or not at all, with the network in a format of `FORMATS`,
    and with 8 bits besides. Raises ValueError where it exists, where no image of the gallery can be
    read to check the network, where that check fails, or where the index does not fit the
    gallery. `progress` hears of the test images on which 8 bits are measured, and of the index."""
    if out.exists():
        raise ValueError(f"{out} exists already: name a folder that does not")
    index.plan(*gallery.embeddings.shape)
    network_format = FORMATS[to]
    rows, pixels = readable_images(run, gallery)
    out.parent.mkdir(parents=True, exist_ok=True)
    with drafted(out) as draft:
        draft.mkdir()
        network = GalleryEmbedder(run, phase, "cpu")
        stored = facts(run, phase, gallery)
        file = draft / network_format.file
        labels = {name: str(stored[name]) for name in ("experiment", "phase", "embedder")}
        network_format.write(network.embedder, network.view.size, file, labels)
        exported = network_format.open(file)
        agreement = compare(exported, network, pixels, gallery.embeddings[rows], file.name)
        stored["agreement"], measured = agreement.as_dict(), [agreement.describe()]
        loss = None
        if int8:
            quantize(file, draft / INT8_FILE, readable_images(run, gallery, CALIBRATED)[1])
            both = exported, open_onnx(draft / INT8_FILE)
            loss = int8_loss(
                run, phase, gallery, *both, partial(progress, "test images with 8 bits")
            )
            stored["int8"] = {**asdict(loss), "points": loss.points}
            measured.append(loss.describe())
        queries = partial(recall_queries, run, phase, gallery)
        open_index = build_index(draft / "gallery.faiss", gallery, index, queries, progress)
        stored["index"] = open_index.as_dict()
        write_table(draft, gallery, Path(run.summary["dataset"]["root"]))
        write_preprocessing(draft, network, gallery, file.name)
        write_json(draft / "export.json", stored)
        calibration = calibration_set(run, phase, gallery, open_index.search)
        text = card(run, phase, gallery, measured, calibration, open_index, network_format)
        if to == "hf":
            write_json(draft / "config.json", hub_config(run, phase, gallery))
            text = card_head(run) + text
        write_text(draft / "README.md", text)
    return Exported(out, agreement, open_index.describe(), loss)


def write_preprocessing(
    draft: Path, network: GalleryEmbedder, gallery: Gallery, network_file: str
) -> None:
    """How a photo becomes what the network takes: as code, and as numbers."""
    write_text(draft / "preprocess.py", source(network.view, network_file))
    numbers = preprocessing(network.view, gallery.embeddings.shape[1])
    write_json(draft / "preprocessing.json", numbers)


def int8_loss(
    run: Run,
    phase: str,
    gallery: Gallery,
    exact: Network,
    int8: Network,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Int8Loss:
    """Both networks on the run's test images of classes in the gallery. Raises ValueError where
    these are gone, or there are none."""
    embeddings = run.embeddings(phase)
    images, queries = embeddings.query_images, run_queries(run, embeddings, "query", gallery)
    there = np.flatnonzero(queries.labels >= 0)
    images, queries = images[there], queries.rows(there)
    if not len(images):
        raise ValueError(
            "no test image of the run is of a class in the gallery, so that the loss of 8 bits"
            " can't be measured: leave --int8 out"
        )
    spaced = np.linspace(0, len(images) - 1, min(len(images), MOST_QUERIES))
    chosen = np.unique(spaced.round().astype(int))
    images, queries = images[chosen], queries.rows(chosen)
    boxes, view = boxes_of(run), view_of(run.experiment.images)
    vectors: list[list[np.ndarray]] = [[], []]
    for number, image in enumerate(images):
        progress(number, len(images))
        file = run.images.file(image)
        pixels = np.asarray(view.apply(decode(file, boxes.get(file))))[None]
        for kept, network in zip(vectors, (exact, int8), strict=True):
            kept.append(network(pixels))
    progress(len(images), len(images))
    embedded = [np.concatenate(kept) for kept in vectors]
    answers = [nearest_others(gallery, query, queries.own_rows).labels[:, 0] for query in embedded]
    return Int8Loss(
        images=len(images),
        precision_at_1=float((answers[0] == queries.labels).mean()),
        precision_at_1_int8=float((answers[1] == queries.labels).mean()),
        other_answers=float((answers[0] != answers[1]).mean()),
        min_cosine=float((embedded[0] * embedded[1]).sum(1).min()),
    )


def readable_images(
    run: Run, gallery: Gallery, most: int = CHECKED
) -> tuple[list[int], np.ndarray]:
    """(images) rows of the gallery, at most so many and evenly spaced, and (images, size, size, 3)
    uint8 what the network sees of them."""
    view = view_of(run.experiment.images)
    files = [
        run.images.located(entry.path) if entry.origin == "run" else Path(entry.path)
        for entry in gallery.entries
    ]
    boxes = boxes_of(run) if any(entry.origin == "run" for entry in gallery.entries) else {}
    rows, pixels = [], []
    there = [row for row, file in enumerate(files) if photo_file(file).is_file()]
    for gallery_file in np.unique(
        np.linspace(0, max(len(there) - 1, 0), min(most, len(there))).round().astype(int)
    ):
        file = files[there[gallery_file]]
        try:
            pixels.append(view.apply(decode(file, boxes.get(file))))
        except Unreadable:
            continue
        rows.append(there[gallery_file])
    if not rows:
        raise ValueError(
            "none of the gallery's images can be read (the run's were in"
            f" {run.images.recorded_root}), and without any the exported network can't be"
            " checked: say where they lie now with --data-dir DIR, or enrol some photos"
        )
    return rows, np.stack(pixels)


def boxes_of(run: Run) -> dict[Path, np.ndarray]:
    """The boxes to which the run cut its images, by file; empty where it took whole images, or they
    are gone."""
    root = run.images.known_root
    return {root / path: box for path, box in run.images.boxes.items()} if root.is_dir() else {}


@torch.no_grad()
def compare(
    exported: Network,
    network: GalleryEmbedder,
    pixels: np.ndarray,
    stored: np.ndarray,
    file: str = "embedder.pt2",
) -> Agreement:
    """Compare the exported network with the run's, in one batch and with one image alone. Raises
    ValueError where they differ, or the images have changed."""
    mine = exported(pixels)
    assert np.abs(exported(pixels[:1]) - mine[:1]).max() < LARGEST_DIFFERENCE, (
        "the exported network depends on the size of its batches"
    )
    own = functional.normalize(network.embedder(torch.from_numpy(pixels)), dim=1).numpy()
    agreement = Agreement(
        file=file,
        images=len(pixels),
        network_max_difference=float(np.abs(mine - own).max()),
        gallery_max_difference=float(np.abs(mine - stored).max()),
        gallery_min_cosine=float((mine * stored).sum(1).min()),
        gallery_precision=network.precision,
    )
    assert agreement.network_max_difference < LARGEST_DIFFERENCE, agreement
    if agreement.gallery_min_cosine < SMALLEST_COSINE:
        raise ValueError(
            "the exported network does not agree with the gallery (smallest cosine"
            f" {agreement.gallery_min_cosine:.3f} over {len(pixels)} images): were image files"
            " changed after they were embedded? Put them back, or run and enrol anew"
        )
    return agreement


def write_table(folder: Path, gallery: Gallery, root: Path) -> None:
    """Write gallery.csv: row i of the index is its line i, not counting the header. Paths are
    relative to the run's folder of images, or, of enrolled photos, to the folder of their class
    folders: other machines have other folders."""
    rows = [
        (entry.class_name, below(entry.path, root), entry.sha256, entry.origin)
        for entry in gallery.entries
    ]
    write_csv(folder / "gallery.csv", ("class", "path", "sha256", "origin"), rows)


def below(file: str, root: Path) -> str:
    """A path relative to `root`, or its last two parts where it is elsewhere."""
    path = Path(file)
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    if len(path.parts) > 2:
        return Path(*path.parts[-2:]).as_posix()
    return path.name


def preprocessing(view: View, dim: int) -> dict[str, Any]:
    """What preprocessing.json says."""
    shorter = f"{view.crop_from} pixels" if view.crop_from else "`size`"
    return {
        "code": "preprocess.py",
        "decode": "first frame, turned upright by EXIF orientation, transparency over white, RGB",
        "resize": {
            "squash": "both sides to `size`",
            "crop": f"shorter side to {shorter}, the other in proportion, rounded down",
            "shorter": "",
        }[view.fit],
        "crop": "centre, `size` x `size`" if view.fit == "crop" else None,
        "fit": view.fit,
        "size": view.size,
        "interpolation": f"{view.interpolation}, antialiased (Pillow's Image.resize with"
        f" {view.interpolation.upper()})",
        "input": {
            "layout": "batch, height, width, channel",
            "type": "uint8",
            "range": [0, 255],
            "normalisation": "inside the network",
        },
        "output": {
            "layout": f"batch, {dim}",
            "type": "float32",
            "length": 1,
            "similarity": "inner product, -1 to 1, higher is closer",
        },
    }


def facts(run: Run, phase: str, gallery: Gallery) -> dict[str, Any]:
    """What export.json says of the run and its gallery."""
    return {
        "experiment": run.experiment.name,
        "seed": run.seed,
        "phase": phase,
        "dataset": {
            key: run.summary["dataset"][key]
            for key in ("name", "fingerprint", "num_images", "num_classes")
        },
        "weights_sha256": run.weights_digest(phase),
        "embedder": embedder_digest(run, phase),
        "gallery": {"images": len(gallery.entries), "classes": len(gallery.class_names)},
        "dml_bench": __version__,
        "torch": torch.__version__,
    }
