"""What is measured of a phase between epochs, on the images that the phase may look at."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.evaluation.search import (
    Neighbours,
    search,
    search_leaving_one_out,
    search_nearest_on,
)
from dml_bench.system.devices import to_device
from dml_bench.system.seeding import permutation
from dml_bench.training.training_state import TrainingState, unit

__all__ = ["valid_loss", "validate"]


def validate(state: TrainingState) -> dict[str, Any]:
    """P@1 of the phase's monitored images, where an image has several labels by all of them; the
    accuracy of the objective's logits on them, if each of these is of a class; of validation images
    of the trained classes also the loss. Validation images have the labels that are given, wrong
    ones among them; test images have the true ones."""
    if not state.monitored.queries:
        return {}
    start = time.perf_counter()
    record: dict[str, Any] = {}
    gallery = None if state.phase.leaves_one_out else state.embed(state.monitored.gallery)
    for name, images in state.monitored.queries.items():
        known = state.labels.initial if name == "valid" else state.dataset.labels
        labels, outputs = known[images], state.outputs(images)
        neighbours = nearest(state, unit(outputs), labels, gallery, known)
        correct, suffix = precision_at_1(neighbours), state.phase.suffix
        record |= {
            f"{name}_accuracy{suffix}": micro(correct),
            f"{name}_accuracy{suffix}_macro": macro(correct, labels),
        }
        has_sets = state.dataset.label_sets is not None  # no logit is of one of them as a whole
        if state.objective.classifies and gallery is not None and not has_sets:
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


def nearest(
    state: TrainingState,
    query: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray | None,
    known: np.ndarray,
) -> Neighbours:
    """The nearest gallery image of each of these (query, dim) unit vectors, or the nearest other
    one of them where there is no gallery. `known` are (images) labels of the data set."""
    among_themselves = gallery is None
    if gallery is None:
        gallery, gallery_labels = query, labels
    else:
        gallery_labels = known[state.monitored.gallery]
    if state.device.type == "cuda":
        return search_nearest_on(
            state.device,
            gallery,
            query,
            gallery_labels,
            labels,
            leaving_one_out=among_themselves,
        )
    if among_themselves:
        return search_leaving_one_out(query, labels, k=1)
    return search(gallery, query, gallery_labels, labels, k=1)


@torch.no_grad()
def valid_loss(state: TrainingState, images: np.ndarray, outputs: Tensor) -> float:
    """Mean loss over batches of validation images, always the same ones, by the labels that are
    given. (images, dim) outputs before normalisation."""
    state.objective.eval()
    order = permutation(
        state.experiment.seed, state.phase.name, "valid", items=np.arange(len(images))
    )
    labels = to_device(
        np.searchsorted(state.trained, state.labels.initial[images])[order], state.device
    )
    embeddings = to_device(outputs[order], state.device)
    size = state.experiment.train.batch_size
    values = []
    for batch, of_batch in zip(embeddings.split(size), labels.split(size), strict=True):
        if len(batch) > 1 or len(order) == 1:
            values.append(state.objective(batch, of_batch))
    return float(np.mean(torch.stack(values).double().cpu().numpy()))
