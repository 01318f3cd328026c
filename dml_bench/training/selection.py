"""Which epoch's weights are kept: chosen on validation images, never on queries."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dml_bench.config import Experiment
from dml_bench.system.seeding import permutation

if TYPE_CHECKING:
    from dml_bench.training.training_state import TrainingState

__all__ = ["epochs_seen", "keep_if_best", "restore_best", "valid_loss"]


def epochs_seen(experiment: Experiment) -> str:
    """In words: among which epochs the best is looked for, where that isn't all of them; else
    empty."""
    wanted, every = experiment.train.checkpoint, experiment.evaluate.every
    if wanted == "last" or every == 1:
        return ""
    measured = sorted({*range(every, experiment.train.epochs + 1, every), experiment.train.epochs})
    few = (
        ", ".join(map(str, measured))
        if len(measured) <= 10
        else f"{measured[0]}, {measured[1]}, ..., {measured[-1]}"
    )
    return (
        f"train.checkpoint = {wanted} chooses among epochs {few}, which evaluate.every = {every}"
        " measures; --set evaluate.every=1 for all"
    )


def keep_if_best(run: "TrainingState", record: dict[str, Any]) -> None:
    """After an epoch: remember its weights if they are the best so far. The earlier of equals
    stays."""
    wanted = run.experiment.train.checkpoint
    value = record.get(f"{wanted}{run.phase.suffix}")
    if wanted == "last" or value is None:
        return
    rank = value if wanted == "valid_accuracy" else -value
    if run.best is None or rank > run.best["rank"]:
        states = {"embedder": run.embedder.state_dict(), "objective": run.objective.state_dict()}
        copies = {
            name: {key: tensor.detach().clone() for key, tensor in state.items()}
            for name, state in states.items()
        }
        run.best = {"epoch": record["epoch"], "value": value, "rank": rank, **copies}


def restore_best(run: "TrainingState") -> None:
    """After the last epoch: go back to the best one's weights. Raises ValueError where there was
    nothing to choose by."""
    wanted = run.experiment.train.checkpoint
    if wanted == "last":
        return
    if run.best is None:
        raise ValueError(
            f"train.checkpoint = {wanted}, but {run.dataset.name} has no validation images; --set"
            " data.valid_fraction=0.1"
        )
    run.embedder.load_state_dict(run.best["embedder"])
    run.objective.load_state_dict(run.best["objective"])


@torch.no_grad()
def valid_loss(run: "TrainingState", images: np.ndarray, outputs: Tensor) -> float:
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
