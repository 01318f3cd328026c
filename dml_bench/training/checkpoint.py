"""Checkpoints: all that must survive an interruption, and the weights of the best epoch.

The best epoch is chosen on validation images, never on queries.
"""

import io
from pathlib import Path
from typing import Any

import torch

from dml_bench.config import Experiment
from dml_bench.system import distributed
from dml_bench.system.files import UNSEALED, check, write_sealed
from dml_bench.training.training_state import TrainingState

__all__ = ["epochs_seen", "keep_if_best", "load", "restore_best", "save"]

FIRST_LINE = f"{UNSEALED}\n".encode()
"""A seal, before what torch writes."""


@distributed.main_process_only
def save(run: TrainingState, path: Path) -> None:
    """Write the state after a finished epoch, which all processes share. No generator state: each
    epoch seeds itself."""
    state = {
        "embedder": run.embedder.state_dict(),
        "objective": run.objective.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "labels": run.labels.state(),
        "best": run.best,
        "records": run.records,
    }
    content = io.BytesIO()
    torch.save(state, content)  # not into the file: torch says nothing of a disk that is full
    write_sealed(path, lambda file: file.writelines((FIRST_LINE, content.getbuffer())))


def load(run: TrainingState, path: Path) -> None:
    """Continue from the state at `path`. Raises Damaged, before the run is touched, if it is not
    what was saved."""
    check(path)
    content = io.BytesIO(path.read_bytes()[len(FIRST_LINE) :])
    state = torch.load(content, map_location=run.device, weights_only=True)
    run.embedder.load_state_dict(state["embedder"])
    run.objective.load_state_dict(state["objective"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.labels.restore(state["labels"])
    run.best = state["best"]
    run.records = state["records"]


def keep_if_best(run: TrainingState, record: dict[str, Any]) -> None:
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


def restore_best(run: TrainingState) -> None:
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
