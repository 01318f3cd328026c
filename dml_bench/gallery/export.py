"""A trained network as files that need none of this package: network, gallery, preprocessing and a
model card.

The network (of torch.export) takes pixels, which preprocess.py makes of image files with the code
of this package. Files: embedder.pt2  gallery.faiss  gallery.csv  preprocess.py  preprocessing.json
export.json  README.md"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.data.cache import View, view_of
from dml_bench.data.images import Unreadable, decode, photo_file
from dml_bench.gallery.calibration import calibration_set, recall_queries
from dml_bench.gallery.embedder import FoldEnsemble, GalleryEmbedder, MirrorTTA
from dml_bench.gallery.index_store import build_index
from dml_bench.gallery.indexes import IndexSpec
from dml_bench.gallery.model_card import Agreement, card
from dml_bench.gallery.preprocessing import source
from dml_bench.gallery.store import Gallery
from dml_bench.models.embedder import Embedder
from dml_bench.runs.run import Run
from dml_bench.system.drafts import drafted
from dml_bench.system.files import write_atomically, write_csv, write_json
from dml_bench.version import __version__

__all__ = ["Exported", "export"]

FLAT = IndexSpec("flat", {})
CHECKED = 32
"""The number of gallery images on which the exported network is checked."""
LARGEST_DIFFERENCE = 1e-4
"""The largest allowed difference of a component from the network's own, both in float32."""
SMALLEST_COSINE = 0.99
"""The smallest allowed cosine of an exported embedding with the gallery's, which may have been
computed in bfloat16 or on a GPU."""


class PixelsToUnitVectors(nn.Module):
    """(batch, height, width, 3) uint8 -> (batch, dim) float32 unit vectors."""

    def __init__(self, embedder: Embedder | MirrorTTA | FoldEnsemble):
        super().__init__()
        self.embedder = embedder

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels to unit vectors."""
        return functional.normalize(self.embedder(pixels), dim=1)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has measured."""

    agreement: Agreement
    """How far the exported network is from the run's."""
    index: str
    """A description of the index, and of what it misses."""


def export(run: Run, phase: str, gallery: Gallery, out: Path, index: IndexSpec = FLAT) -> Exported:
    """Make the folder `out`, completely or not at all. Raises ValueError where it exists, where no
    image of the gallery can be read to check the network, where that check fails, or where the
    index does not fit the gallery."""
    if out.exists():
        raise ValueError(f"{out} exists already: name a folder that does not")
    index.plan(*gallery.embeddings.shape)
    rows, pixels = readable_images(run, gallery)
    out.parent.mkdir(parents=True, exist_ok=True)
    with drafted(out) as draft:
        draft.mkdir()
        network = GalleryEmbedder(run, phase, "cpu")
        save(network.embedder, network.view.size, draft / "embedder.pt2")
        exported = torch.export.load(str(draft / "embedder.pt2")).module()
        agreement = compare(exported, network, pixels, gallery.embeddings[rows])
        open_index = build_index(
            draft / "gallery.faiss", gallery, index, lambda: recall_queries(run, phase, gallery)
        )
        write_table(draft, gallery, Path(run.summary["dataset"]["root"]))
        write_atomically(
            draft / "preprocess.py", lambda file: file.write(source(network.view).encode())
        )
        write_json(
            draft / "preprocessing.json", preprocessing(network.view, gallery.embeddings.shape[1])
        )
        write_json(
            draft / "export.json",
            facts(run, phase, gallery, agreement) | {"index": open_index.as_dict()},
        )
        text = card(
            run,
            phase,
            gallery,
            agreement,
            calibration_set(run, phase, gallery, open_index.search),
            open_index,
        )
        write_atomically(draft / "README.md", lambda file: file.write(text.encode()))
    return Exported(agreement, open_index.describe())


@torch.no_grad()
def save(embedder: Embedder | MirrorTTA | FoldEnsemble, size: int, path: Path) -> None:
    """Write the network as a graph of torch.export for batches of any size; `compare` checks it
    with a single image too."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    network = PixelsToUnitVectors(embedder).eval()
    graph = torch.export.export(
        network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    for module in graph.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.meta.pop("stack_trace", None)  # it names folders of this machine
    with warnings.catch_warnings():
        # about weights that share a file's memory
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        write_atomically(path, lambda file: torch.export.save(graph, file))


def readable_images(run: Run, gallery: Gallery) -> tuple[list[int], np.ndarray]:
    """(images) rows of the gallery, evenly spaced, and (images, size, size, 3) uint8 what the
    network sees of them."""
    view = view_of(run.experiment.images)
    files = [
        run.images.located(entry.path) if entry.origin == "run" else Path(entry.path)
        for entry in gallery.entries
    ]
    boxes = boxes_of(run) if any(entry.origin == "run" for entry in gallery.entries) else {}
    rows, pixels = [], []
    there = [row for row, file in enumerate(files) if photo_file(file).is_file()]
    for gallery_file in np.unique(
        np.linspace(0, max(len(there) - 1, 0), min(CHECKED, len(there))).round().astype(int)
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
    exported: nn.Module, network: GalleryEmbedder, pixels: np.ndarray, stored: np.ndarray
) -> Agreement:
    """Compare the exported network with the run's, in one batch and with one image alone. Raises
    ValueError where they differ, or the images have changed."""
    batch = torch.from_numpy(pixels)
    mine = exported(batch).numpy()
    assert np.abs(exported(batch[:1]).numpy() - mine[:1]).max() < LARGEST_DIFFERENCE, (
        "the exported network depends on the size of its batches"
    )
    own = functional.normalize(network.embedder(batch), dim=1).numpy()
    agreement = Agreement(
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


def facts(run: Run, phase: str, gallery: Gallery, agreement: Agreement) -> dict[str, Any]:
    """What export.json says, but for the index."""
    return {
        "experiment": run.experiment.name,
        "seed": run.seed,
        "phase": phase,
        "dataset": {
            key: run.summary["dataset"][key]
            for key in ("name", "fingerprint", "num_images", "num_classes")
        },
        "weights_sha256": run.weights_digest(phase),
        "gallery": {"images": len(gallery.entries), "classes": len(gallery.class_names)},
        "agreement": agreement.as_dict(),
        "dml_bench": __version__,
        "torch": torch.__version__,
    }
