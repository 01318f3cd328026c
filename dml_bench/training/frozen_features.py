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


def frozen_features(run: TrainingState, pixels: ImageInputs) -> Tensor:
    """(images, num_features) of the frozen backbone for every image of the data set; computed once
    and kept beside the image cache, under a digest of the weights, the way of computing and the
    images' cache. Of several processes the first computes them."""
    state = hashlib.sha256(
        f"{run.device.type} {torch.get_num_threads()} {run.precision}"
        f" {pixels.view_cache.folder.name}".encode()
    )
    for name, tensor in {
        **run.embedder.backbone.state_dict(),
        "mean": run.embedder.mean,
        "std": run.embedder.std,
    }.items():
        state.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    path = (
        pixels.view_cache.folder.parents[1]
        / "features"
        / f"{run.experiment.model.backbone.name.replace(':', '_')}-{state.hexdigest()[:16]}.safetensors"
    )
    with distributed.main_process_first():
        if is_whole(path):
            return load_file(path)["features"].to(run.device)
        features = compute_features(run, pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, save({"features": features.cpu().contiguous()}))
        return features


@torch.no_grad()
def compute_features(run: TrainingState, pixels: ImageInputs) -> Tensor:
    run.embedder.eval()
    table = []
    everything = np.arange(len(run.dataset))
    size = run.experiment.train.batch_size
    for start in range(0, len(everything), size):
        with run.autocast():
            table.append(
                run.embedder.features(pixels.view(everything[start : start + size])).float()
            )
        run.callback.progress(
            "features of the frozen backbone", min(start + size, len(everything)), len(everything)
        )
    return torch.cat(table)
