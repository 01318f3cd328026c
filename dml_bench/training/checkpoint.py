"""Checkpoints: all that must survive an interruption, and the weights of the best epoch.

The best epoch is chosen on validation images, never on queries.
"""

import io
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dml_bench.config import Experiment
from dml_bench.system import distributed
from dml_bench.system.callbacks import EpochRecord
from dml_bench.system.files import UNSEALED, check, write_sealed
from dml_bench.training.training_state import Diverged, TrainingState

__all__ = ["CheckpointWriter", "epochs_seen", "keep_if_best", "load", "restore_best", "save"]

FIRST_LINE = f"{UNSEALED}\n".encode()
"""A seal, before what torch writes."""


def nothing() -> None:
    """Nothing follows."""


@distributed.main_process_only
def save(state: TrainingState, path: Path) -> None:
    """Write the state after a finished epoch, which all processes share."""
    write(contents(state), path)


class CheckpointWriter:
    """Saves a state after each epoch: in a thread of its own while the next epoch trains, where a
    GPU trains, as a file takes as long as a seventh of an epoch; else at once."""

    def __init__(self, device: torch.device):
        self.beside_training = device.type == "cuda"
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None
        self._written: dict[str, Any] = {}
        self._after: Callable[[], None] = nothing

    @distributed.main_process_only
    def save(
        self,
        state: TrainingState,
        path: Path,
        then: Callable[[], None] = nothing,
        after: Callable[[], None] = nothing,
    ) -> None:
        """As `save`. When the file is there `then` is called, perhaps in the thread, and at last
        `after` in this one. Raises what went wrong with the file of the epoch before."""
        self.finish()
        self._after = after
        saved = contents(state)
        if self.beside_training:
            # Held here, so that no thread but this one gives pinned memory back to CUDA, which may
            # be recording a graph then.
            self._written = copied_to_host(saved)
            self._writing = self._thread.submit(write_then, self._written, path, then)
        else:
            write_then(saved, path, then)
            self.finish()

    def finish(self) -> None:
        """Wait until the last file is there. Raises what went wrong with it."""
        writing, after = self._writing, self._after
        self._writing, self._after = None, nothing
        if writing is not None:
            writing.result()
            self._written = {}
        after()


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
    """The contents of a checkpoint as a sealed file, without checksums beside the seal."""

    def save_below_seal(file: BinaryIO) -> None:
        file.write(FIRST_LINE)
        sink = Sink(file)
        try:
            torch.save(saved, cast(BinaryIO, sink))
        finally:
            if sink.error:
                raise sink.error

    has_checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        write_sealed(path, save_below_seal)
    finally:
        torch.serialization.set_crc32_options(has_checksums)


class Sink:
    """A file for torch.save, whose own error does not say that a disk is full."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """The file is flushed when it is whole."""


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
    stays. Raises Diverged for a value that can't be compared with others."""
    wanted = state.experiment.train.checkpoint
    value = cast(dict[str, Any], record).get(f"{wanted}{state.phase.suffix}")
    if wanted == "last" or value is None:
        return
    if math.isnan(value):
        raise Diverged(
            f"{wanted} is {value} in phase {state.phase.name}, epoch {record['epoch']}, so no epoch"
            " can be chosen by it: mend the loss, or --set train.checkpoint=valid_accuracy"
        )
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
    """After the last epoch: go back to the best one's weights."""
    if state.experiment.train.checkpoint == "last":
        return
    assert state.best is not None, "an epoch was measured"
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
