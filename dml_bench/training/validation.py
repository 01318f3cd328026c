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


def validate(run: TrainingState) -> dict[str, Any]:
    """P@1 of the images that the phase watches; the accuracy of the objective's logits on them, if
    it has any; of validation images of the trained classes also the loss. Validation knows the
    labels that are given, wrong ones among them; the test is by the true ones."""
    if not run.monitored.queries:
        return {}
    start = time.perf_counter()
    record: dict[str, Any] = {}
    gallery = None if run.phase.leaves_one_out else run.embed(run.monitored.gallery)
    for name, images in run.monitored.queries.items():
        known = run.labels.initial if name == "valid" else run.dataset.labels
        labels, outputs = known[images], run.outputs(images)
        if gallery is None:
            found = search_leaving_one_out(unit(outputs), labels, k=1)
        else:
            found = search(gallery, unit(outputs), known[run.monitored.gallery], labels, k=1)
        correct, suffix = precision_at_1(found), run.phase.suffix
        record |= {
            f"{name}_accuracy{suffix}": micro(correct),
            f"{name}_accuracy{suffix}_macro": macro(correct, labels),
        }
        if run.objective.classifies and gallery is not None:
            record[f"{name}_logits_accuracy{suffix}"] = micro(
                (run.classify(outputs) == labels).astype(float)
            )
        if name == "valid" and gallery is not None:
            record[f"valid_loss{suffix}"] = valid_loss(run, images, outputs)
    return {
        **record,
        "evaluate_images": run.monitored.num_images,
        "evaluate_seconds": time.perf_counter() - start,
    }


@torch.no_grad()
def valid_loss(run: TrainingState, images: np.ndarray, outputs: Tensor) -> float:
    """Mean loss over batches of validation images, always the same ones, by the labels that are
    given. (images, dim) outputs before normalisation."""
    run.objective.eval()
    order = permutation(run.experiment.seed, run.phase.name, "valid", items=np.arange(len(images)))
    labels = torch.from_numpy(np.searchsorted(run.trained, run.labels.initial[images]))
    values = []
    for start in range(0, len(order), run.experiment.train.batch_size):
        rows = torch.from_numpy(order[start : start + run.experiment.train.batch_size])
        if len(rows) > 1 or len(order) == 1:
            values.append(
                float(run.objective(outputs[rows].to(run.device), labels[rows].to(run.device)))
            )
    return float(np.mean(values))
