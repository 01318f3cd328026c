"""What a run reports while it goes on. The run only reports; a callback decides what to show."""

import logging
from typing import Any, Required, TypedDict

__all__ = ["Callback", "EpochRecord", "LoggingCallback"]

LOGGER = logging.getLogger("dml_bench")


class EpochRecord(TypedDict, total=False):
    """What is recorded of an epoch of one phase.

    There are also `train_loss` and, after validation, `test_accuracy` or `valid_accuracy`, each
    with the number of its phase at the end (`train_loss2`).
    """

    phase: Required[str]
    epoch: Required[int]
    """From 1."""
    learning_rate: float
    batches_without_tuples: int
    """Batches in which a miner found nothing, so that nothing was learnt."""
    train_images: int
    train_seconds: float
    train_cpu_seconds: float
    """Of this process and its threads. Other work on the machine lengthens only the seconds."""
    evaluate_images: int
    """Images that were embedded for validation; missing in epochs without validation."""
    evaluate_seconds: float


class Callback:
    """Hears everything and shows nothing; a subclass overrides what it wants to show.

    >>> class Losses(db.Callback):
    ...     def on_epoch(self, record):
    ...         print(record["phase"], record["epoch"])
    >>> Losses().on_epoch({"phase": "all", "epoch": 1})
    all 1
    """

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that went wrong without stopping the run."""

    def progress(self, message: str, done: int, total: int) -> None:
        """A preparation, e.g. decoding, has done `done` of `total` images."""

    def on_plan(self, plan: dict[str, Any]) -> None:
        """What is about to happen: `experiment`, `folder`, `environment`, `split`, `unseen` and
        `profile` in words, and per phase its classes, images and epochs."""

    def on_work(self, units: float) -> None:
        """This much is left to do in all: 3 units for an image trained on, 1 for one embedded. Said
        again before each part."""

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        """A phase begins or goes on: its name, all its epochs, the images of an epoch."""

    def on_step(self, images: int, loss: Any) -> None:
        """A batch was trained on; `loss` is a tensor, read only when shown."""

    def on_embedded(self, images: int) -> None:
        """A batch was embedded."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""

    def on_work_beside(self, units: float) -> None:
        """So much was done by another process, which trains a phase beside this one."""

    def on_epoch_beside(self, name: str, epochs: int, record: EpochRecord) -> None:
        """An epoch of `epochs` ended of a phase that another process trains."""


class LoggingCallback(Callback):
    """Writes what happens to the logger `dml_bench`. Python shows its warnings on stderr; progress
    is of level INFO and seen where logging is set up so.

    >>> import logging
    >>> logging.getLogger("dml_bench").setLevel(logging.ERROR)
    >>> db.LoggingCallback().warn("not shown, as the level is ERROR")
    >>> logging.getLogger("dml_bench").setLevel(logging.NOTSET)
    """

    def note(self, text: str) -> None:
        """Worth knowing: level INFO."""
        LOGGER.info("%s", text)

    def warn(self, text: str) -> None:
        """Wrong without stopping the run: level WARNING."""
        LOGGER.warning("%s", text)

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended: level INFO."""
        LOGGER.info("phase %s, epoch %d ended", record["phase"], record["epoch"])

    def on_epoch_beside(self, name: str, epochs: int, record: EpochRecord) -> None:
        """As `on_epoch`."""
        self.on_epoch(record)
