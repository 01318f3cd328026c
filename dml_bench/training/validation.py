"""What is measured of a phase between epochs, on the images that the phase may look at."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.evaluation.search import search, search_leaving_one_out
from dml_bench.system.seeding import permutation
from dml_bench.training.training_state import TrainingState, unit

__all__ = ["valid_loss", "validate"]


def validate(state: TrainingState) -> dict[str, Any]:
    """P@1 of the phase's monitored images; the accuracy of the objective's logits on them, if it
    has any; of validation images of the trained classes also the loss. Validation images have the
    labels that are given, wrong ones among them; test images have the true ones."""
    if not state.monitored.queries:
        return {}
    start = time.perf_counter()
    record: dict[str, Any] = {}
    gallery = None if state.phase.leaves_one_out else state.embed(state.monitored.gallery)
    for name, images in state.monitored.queries.items():
        known = state.labels.initial if name == "valid" else state.dataset.labels
        labels, outputs = known[images], state.outputs(images)
        if gallery is None:
            neighbours = search_leaving_one_out(unit(outputs), labels, k=1)
        else:
            neighbours = search(gallery, unit(outputs), known[state.monitored.gallery], labels, k=1)
        correct, suffix = precision_at_1(neighbours), state.phase.suffix
        record |= {
            f"{name}_accuracy{suffix}": micro(correct),
            f"{name}_accuracy{suffix}_macro": macro(correct, labels),
        }
        if state.objective.classifies and gallery is not None:
            record[f"{name}_logits_accuracy{suffix}"] = micro(
                (state.classify(outputs) == labels).astype(float)
            )
        if name == "valid" and gallery is not None:
            record[f"valid_loss{suffix}"] = valid_loss(state, images, outputs)
    return {
        **record,
        "evaluate_images": state.monitored.num_images,
        "evaluate_seconds": time.perf_counter() - start,
    }


@torch.no_grad()
def valid_loss(state: TrainingState, images: np.ndarray, outputs: Tensor) -> float:
    """Mean loss over batches of validation images, always the same ones, by the labels that are
    given. (images, dim) outputs before normalisation."""
    state.objective.eval()
    order = permutation(
        state.experiment.seed, state.phase.name, "valid", items=np.arange(len(images))
    )
    labels = torch.from_numpy(np.searchsorted(state.trained, state.labels.initial[images]))
    values = []
    for start in range(0, len(order), state.experiment.train.batch_size):
        rows = torch.from_numpy(order[start : start + state.experiment.train.batch_size])
        if len(rows) > 1 or len(order) == 1:
            values.append(
                float(
                    state.objective(outputs[rows].to(state.device), labels[rows].to(state.device))
                )
            )
    return float(np.mean(values))
