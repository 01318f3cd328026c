"""What a run reports while it goes on. The run only reports; a callback decides what to show."""

from typing import Any

__all__ = ["Callback"]


class Callback:
    """Hears everything and shows nothing; a terminal overrides what it wants to show."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that went wrong without stopping the run."""

    def progress(self, message: str, done: int, total: int) -> None:
        """A preparation, e.g. decoding, has done `done` of `total` images."""

    def on_plan(self, plan: dict[str, Any]) -> None:
        """What is about to happen: `experiment`, `folder`, `environment`, `split` and `unseen` in
        words, and per phase its classes, images and epochs."""

    def on_work(self, units: float) -> None:
        """This much is left to do in all: 3 units for an image trained on, 1 for one embedded. Said
        again before each part."""

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        """A phase begins or goes on: its name, all its epochs, the images of an epoch."""

    def on_step(self, images: int, loss: Any) -> None:
        """A batch was trained on; `loss` is a tensor, read only when shown."""

    def on_embedded(self, images: int) -> None:
        """A batch was embedded."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """An epoch ended."""
