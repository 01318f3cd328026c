"""What a frozen backbone says of every image, computed once and kept."""

import hashlib

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from dml_bench.data.inputs import ImageInputs
from dml_bench.system import distributed
from dml_bench.system.files import is_whole, write_tensors
from dml_bench.training.training_state import TrainingState

__all__ = ["frozen_features"]


def frozen_features(state: TrainingState, pixels: ImageInputs) -> Tensor:
    """(images, num_features) of the frozen backbone for every image of the data set; computed once
    and kept beside the image cache, under a digest of the weights, the way of computing and the
    images' cache. Of several processes the first computes them."""
    # The number of threads is part of the key: sums in another order have other last bits, and a
    # run repeated with the same settings must find the same features.
    digest = hashlib.sha256(
        f"{state.device.type} {torch.get_num_threads()} {state.precision}"
        f" {pixels.view_cache.folder.name}".encode()
    )
    for name, tensor in {
        **state.embedder.backbone.state_dict(),
        "mean": state.embedder.mean,
        "std": state.embedder.std,
    }.items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
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


@torch.no_grad()
def compute_features(state: TrainingState, pixels: ImageInputs) -> Tensor:
    state.embedder.eval()
    table = []
    everything = np.arange(len(state.dataset))
    size = state.experiment.train.batch_size
    for start in range(0, len(everything), size):
        with state.autocast():
            table.append(
                state.embedder.features(pixels.view(everything[start : start + size])).float()
            )
        state.callback.progress(
            "features of the frozen backbone", min(start + size, len(everything)), len(everything)
        )
    return torch.cat(table)
