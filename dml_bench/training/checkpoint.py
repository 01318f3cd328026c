"""All that must survive an interruption: one save, one load."""

import io
from pathlib import Path

import torch

from dml_bench.system import distributed
from dml_bench.system.files import UNSEALED, check, write_sealed
from dml_bench.training.training_state import TrainingState

__all__ = ["load", "save"]

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
