"""Images of concurrent requests go through the network together: one thread takes all that wait
when it is free. Nobody waits for a batch to fill, and under load batches fill by themselves."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.training.training_state import unit

__all__ = ["Batches", "Crowded"]

LARGEST_BATCH = 64
"""Images; the batch size of the run's training where that is smaller."""
MOST_WAITING = 1024
"""Images that may wait. At 224 pixels, they take 150 MB."""


class Crowded(Exception):
    """Too many images wait already."""


@dataclass(frozen=True, slots=True)
class WaitingImage:
    """An image that waits for the network."""

    pixels: np.ndarray
    """(size, size, 3) uint8"""
    k: int
    """How many neighbours are wanted; 0 for the embedding alone."""
    answer: "Future[object]" = field(default_factory=Future)


class Batches:
    """Embeds images in a thread of its own, and lets `search` answer for those of a batch that want
    neighbours.

    Args: network: what embeds. search: takes (images, dim) unit vectors and their ks, and returns
    one answer per image. on_batch: is called with the size of each batch.
    """

    def __init__(
        self,
        network: GalleryEmbedder,
        search: Callable[[np.ndarray, Sequence[int]], Sequence[object]],
        on_batch: Callable[[int], None] = lambda size: None,
    ):
        self.network = network
        self.search = search
        self.on_batch = on_batch
        self.size = min(LARGEST_BATCH, network.batch_size)
        self._waiting: queue.Queue[WaitingImage | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def put(self, pixels: Sequence[np.ndarray], k: int) -> "list[Future[object]]":
        """Queue images, and return what will hold the answer to each: with a k, what `search`
        returns, and else the embedding. Raises Crowded."""
        if self._waiting.qsize() + len(pixels) > MOST_WAITING:
            raise Crowded
        images = [WaitingImage(image, k) for image in pixels]
        for image in images:
            self._waiting.put(image)
        return [image.answer for image in images]

    def close(self) -> None:
        """Answer what waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            ended = False
            while len(batch) < self.size and not ended and not self._waiting.empty():
                following = self._waiting.get()
                ended = following is None
                if following is not None:
                    batch.append(following)
            self._answer(batch)
            if ended:
                return

    def _answer(self, waiting: list[WaitingImage]) -> None:
        # What nobody waits for any more, as a server that is stopped gives requests up, is left
        # out; what begins can't be given up.
        batch = [image for image in waiting if image.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            raw = self.network.outputs_of(np.stack([image.pixels for image in batch]))
            embeddings = unit(torch.from_numpy(raw))
            looked_up = [row for row, image in enumerate(batch) if image.k]
            answers: dict[int, object] = {}
            if looked_up:
                ks = [batch[row].k for row in looked_up]
                answers = dict(zip(looked_up, self.search(embeddings[looked_up], ks), strict=True))
        except Exception as error:  # whoever asked has to hear of it, and the thread to go on
            for image in batch:
                image.answer.set_exception(error)
            return
        self.on_batch(len(batch))
        for row, image in enumerate(batch):
            image.answer.set_result(answers.get(row, embeddings[row]))
