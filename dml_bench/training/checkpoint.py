"""Checkpoints: all that must survive an interruption, and the weights of the best epoch.

The best epoch is chosen on validation images, never on queries.
"""

import io
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dml_bench.config import Experiment
from dml_bench.system import distributed
from dml_bench.system.callbacks import EpochRecord
from dml_bench.system.files import UNSEALED, check, write_sealed
from dml_bench.training.training_state import TrainingState

__all__ = ["CheckpointWriter", "epochs_seen", "keep_if_best", "load", "restore_best", "save"]

FIRST_LINE = f"{UNSEALED}\n".encode()
"""A seal, before what torch writes."""


CHEAP = 16e6
"""Bytes of a checkpoint up to which it is written after each epoch."""
SHARE = 50
"""A larger one takes at most one part in so many of the processor's time."""


def nothing() -> None:
    """Nothing follows."""


@distributed.main_process_only
def save(state: TrainingState, path: Path) -> None:
    """Write the state after a finished epoch, which all processes share."""
    write(contents(state), path)


class CheckpointWriter:
    """Saves a state after each epoch. Where a GPU trains, a thread of its own writes while the next
    epoch trains, as a file takes as long as a seventh of an epoch. Else it is written at once, and
    a large one after some epochs only, where these take seconds; after the last one always."""

    def __init__(self, device: torch.device):
        self.beside_training = device.type == "cuda"
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None
        self._written: dict[str, Any] = {}
        self._after: list[Callable[[], None]] = []
        self._left_out: list[Callable[[], None]] = []
        """What follows on epochs without a file."""
        self._bytes, self._cpu_seconds, self._written_at = 0, 0.0, 0.0

    @distributed.main_process_only
    def save(
        self,
        state: TrainingState,
        path: Path,
        then: Callable[[], None] = nothing,
        after: Callable[[], None] = nothing,
    ) -> None:
        """As `save`. When the file is there `then` is called, perhaps in the thread, and at last
        `after` in this one, for epochs without a file too. Raises what went wrong with the file of
        the epoch before."""
        self.finish()
        if self._is_too_dear(state):
            self._left_out.append(after)
            return
        self._after, self._left_out = [*self._left_out, after], []
        saved = contents(state)
        if self.beside_training:
            # Held here, so that no thread but this one gives pinned memory back to CUDA, which may
            # be recording a graph then.
            self._written = copied_to_host(saved)
            self._writing = self._thread.submit(write_then, self._written, path, then)
        else:
            start = time.process_time()
            write_then(saved, path, then)
            self._written_at = time.process_time()
            self._bytes, self._cpu_seconds = path.stat().st_size, self._written_at - start
            self.finish()

    def _is_too_dear(self, state: TrainingState) -> bool:
        if self.beside_training or self._bytes <= CHEAP:
            return False
        is_last = len(state.records) == state.experiment.train.epochs
        return not is_last and time.process_time() - self._written_at < SHARE * self._cpu_seconds

    def finish(self) -> None:
        """Wait until the last file is there. Raises what went wrong with it."""
        writing, after = self._writing, self._after
        self._writing, self._after = None, []
        if writing is not None:
            writing.result()
            self._written = {}
        for follow in after:
            follow()


def contents(state: TrainingState) -> dict[str, Any]:
    """What a checkpoint keeps. No generator state: each epoch seeds itself. No layers that stay as
    they are loaded: a frozen backbone is most of a network whose head learns in milliseconds."""
    weights = state.embedder.state_dict()
    return {
        "embedder": {name: weights[name] for name in weights if name not in state.constant},
        "objective": state.objective.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "labels": state.labels.state(),
        "best": state.best,
        "records": state.records,
    }


def copied_to_host(saved: dict[str, Any]) -> dict[str, Any]:
    """The same, on the CPU, whatever training does to it."""

    def copied_tensor(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.clone() if value.device.type == "cpu" else value.to("cpu", non_blocking=True)

    on_host: dict[str, Any] = tree_map(copied_tensor, saved)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return on_host


def write_then(saved: dict[str, Any], path: Path, then: Callable[[], None]) -> None:
    """One after the other."""
    write(saved, path)
    then()


def write(saved: dict[str, Any], path: Path) -> None:
    """The contents of a checkpoint as a sealed file."""
    content = io.BytesIO()
    torch.save(saved, content)  # not into the file: torch says nothing of a disk that is full
    write_sealed(path, lambda file: file.writelines((FIRST_LINE, content.getbuffer())))


def load(state: TrainingState, path: Path) -> None:
    """Continue from the checkpoint at `path`. Raises Damaged, before `state` is touched, if it is
    not what was saved."""
    check(path)
    content = io.BytesIO(path.read_bytes()[len(FIRST_LINE) :])
    saved = torch.load(content, map_location=state.device, weights_only=True)
    state.embedder.load_state_dict(state.embedder.state_dict() | saved["embedder"])
    state.objective.load_state_dict(saved["objective"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.schedule.load_state_dict(saved["schedule"])
    state.labels.restore(saved["labels"])
    state.best = saved["best"]
    state.records = saved["records"]


def keep_if_best(state: TrainingState, record: EpochRecord) -> None:
    """After an epoch: remember its weights if they are the best so far. The earlier of equals
    stays."""
    wanted = state.experiment.train.checkpoint
    value = cast(dict[str, Any], record).get(f"{wanted}{state.phase.suffix}")
    if wanted == "last" or value is None:
        return
    rank = value if wanted == "valid_accuracy" else -value
    if state.best is None or rank > state.best["rank"]:
        state.best = {
            "epoch": record["epoch"],
            "value": value,
            "rank": rank,
            "embedder": copied(state.embedder.state_dict()),
            "objective": copied(state.objective.state_dict()),
        }


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, whatever training does to them."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def restore_best(state: TrainingState) -> None:
    """After the last epoch: go back to the best one's weights. Raises ValueError where there was
    nothing to choose by."""
    wanted = state.experiment.train.checkpoint
    if wanted == "last":
        return
    if state.best is None:
        raise ValueError(
            f"train.checkpoint = {wanted}, but {state.dataset.name} has no validation images; --set"
            " data.valid_fraction=0.1"
        )
    state.embedder.load_state_dict(state.best["embedder"])
    state.objective.load_state_dict(state.best["objective"])


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
