"""All that must survive an interruption: one save, one load."""

from pathlib import Path

import torch

from dml_bench import distributed
from dml_bench.files import write_atomically
from dml_bench.training.run import Run

__all__ = ["load", "save"]


@distributed.only_first
def save(run: Run, path: Path) -> None:
    """Write the state after a finished epoch, which all processes share. No generator state: each epoch seeds itself."""
    state = {
        "embedder": run.embedder.state_dict(),
        "objective": run.objective.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "labels": run.labels.state(),
        "best": run.best,
        "records": run.records,
    }
    write_atomically(path, lambda file: torch.save(state, file))


def load(run: Run, path: Path) -> None:
    """Continue from the state at `path`. Raises ValueError if it can't be read."""
    try:
        state = torch.load(path, map_location=run.device, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} can't be read ({str(error).splitlines()[0]}); --force starts the run anew") from None
    run.embedder.load_state_dict(state["embedder"])
    run.objective.load_state_dict(state["objective"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.labels.restore(state["labels"])
    run.best = state["best"]
    run.records = state["records"]
