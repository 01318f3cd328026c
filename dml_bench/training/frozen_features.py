"""What a frozen backbone, or its first stages, say of every image, computed once and kept."""

import hashlib

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from dml_bench.config import Experiment
from dml_bench.data.inputs import ImageInputs
from dml_bench.models.embedder import Embedder
from dml_bench.system import distributed
from dml_bench.system.files import is_whole, write_tensors
from dml_bench.training.training_state import TrainingState

__all__ = ["add_backbone", "frozen_features"]


def frozen_features(state: TrainingState, pixels: ImageInputs) -> Tensor:
    """(images, num_features) of the frozen backbone for every image of the data set, or what its
    first stages make, where the last ones are trained (see `Embedder`); computed once and kept
    beside the image cache, under a digest of the weights, the way of computing and the
    images' cache. Of several processes the first computes them."""
    # The number of threads is part of the key: sums in another order have other last bits, and a
    # run repeated with the same settings must find the same features.
    way = f"{state.precision}, folded" if state.embedder.is_folded else state.precision
    digest = hashlib.sha256(
        f"{state.device.type} {torch.get_num_threads()} {way}"
        f" {pixels.view_cache.folder.name}".encode()
    )
    add_backbone(digest, state.embedder, state.experiment)
    last = state.embedder.last_stages
    if last is not None:
        digest.update(f"after {last.cut_after}".encode())
    backbone = state.experiment.model.backbone.name.replace(":", "_")
    folder = pixels.view_cache.folder.parents[1] / "features"
    path = folder / f"{backbone}-{digest.hexdigest()[:16]}.safetensors"
    with distributed.main_process_first():
        if is_whole(path):
            return load_file(path)["features"].to(state.device)
        features = compute_features(state, pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, save({"features": features.cpu().contiguous()}))
        return features


def add_backbone(digest: "hashlib._Hash", embedder: Embedder, experiment: Experiment) -> None:
    """Let a digest depend on all that makes a backbone's features of pixels, weights included."""
    # A plug-in may compute something else with the same layers and weights once its file changes.
    for record in experiment.plugin_records:
        if record.kind == "backbone":
            digest.update(record.sha256.encode())
    # Layers without weights, such as poolings, change features too.
    digest.update(f"{experiment.model.pooling} {embedder.backbone}".encode())
    for name, tensor in {
        **embedder.backbone.state_dict(),
        "mean": embedder.mean,
        "std": embedder.std,
    }.items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())


@torch.no_grad()
def compute_features(state: TrainingState, pixels: ImageInputs) -> Tensor:
    state.embedder.eval()
    table = None
    count, size = len(state.dataset), state.embedded_at_a_time
    for start in range(0, count, size):
        images = np.arange(start, min(start + size, count))
        with state.autocast():
            features = part_features(state.embedder, pixels.view(images))
        if table is None:
            require_memory(state.experiment, features[0].nbytes, count)
            table = features.new_empty(count, *features.shape[1:])
        table[start : start + len(images)] = features
        state.callback.progress("features of the frozen backbone", start + len(images), count)
    assert table is not None, "a data set has images"
    return table


def part_features(embedder: Embedder, pixels: Tensor) -> Tensor:
    """Of a backbone that is one part its features in float32; else its first stages' map as it was
    computed, which is large."""
    if embedder.last_stages is None:
        return embedder.features(pixels).float()
    return embedder.first_stages(pixels)


def require_memory(experiment: Experiment, bytes_per_image: int, count: int) -> None:
    """Raises ValueError where the features, and a copy to be written, have no room."""
    import psutil

    needed, free = 2 * count * bytes_per_image, psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"model.trainable = {experiment.model.trainable} needs {needed / 2**30:.1f} GiB of"
            f" memory for features of {count:,} images, and {free / 2**30:.1f} GiB are free: lower"
            " images.size, or --set model.trainable=head"
        )
