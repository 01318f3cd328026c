"""A gallery that answers many clients: photos are decoded by several threads, embedded by one, and
changes are made by another, and the threshold is chosen anew by one more."""

import asyncio
import io
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dml_bench.data.images import Unreadable, decode
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.index_store import catch_up
from dml_bench.gallery.predict import AppliedThreshold, Prediction
from dml_bench.gallery.store import Gallery, GalleryFile
from dml_bench.serve.answer_log import AnswerLog, LoggedAnswer, timestamp
from dml_bench.serve.batching import Batches
from dml_bench.serve.changes import Changed, Changes, Enrol, Remove, remove_unnamed_photos
from dml_bench.serve.measurements import Measurements
from dml_bench.serve.recalibration import Recalibration
from dml_bench.serve.served_gallery import (
    Calibration,
    ServedGallery,
    WantedThreshold,
    calibrated,
)
from dml_bench.serve.uploads import (
    Photo,
    RefusedRequest,
    SentImage,
    UploadLimits,
    formats,
    read_photo,
)
from dml_bench.system.callbacks import LOGGER

__all__ = ["Answer", "GalleryService", "PredictResult"]

THUMBNAIL = 192
"""Pixels of its longer side."""
MOST_DECODERS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gallery says of one photo."""

    name: str
    """What the client calls the photo."""
    prediction: Prediction
    by: ServedGallery
    """The gallery that answered."""


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What the gallery says of the photos of a request."""

    answers: tuple[Answer, ...]
    unreadable: tuple[tuple[str, str], ...]
    """The names of the others, and why they can't be read."""


class GalleryService:
    """Looks photos up and changes the gallery, for many clients at once. Inside an event loop.

    Raises ValueError where the gallery can't be read, or the precision that is wanted can't be
    promised. This process has to hold the gallery's lock.
    """

    def __init__(
        self,
        gallery_file: GalleryFile,
        network: GalleryEmbedder,
        wanted: WantedThreshold,
        limits: UploadLimits,
    ):
        self.file = gallery_file
        self.view = network.view
        self.wanted = wanted
        self.limits = limits
        gallery = gallery_file.read(new=True)
        catch_up(gallery_file, gallery)
        if gallery_file.journal_path.exists():  # of a server that was killed
            gallery_file.write(gallery)
        gallery = gallery.hashed()
        calibration = calibrated(gallery_file, gallery, wanted)
        if calibration.lack:
            raise ValueError(calibration.lack)
        self.served = ServedGallery(gallery, calibration)
        self._publishing = threading.Lock()
        # Where somebody took the file away, as where it is damaged, photos are all that is left.
        if gallery_file.path.exists():
            remove_unnamed_photos(gallery_file, gallery)
        self.measurements = Measurements(self.served)
        self.log = AnswerLog(gallery_file)
        self.embedder = embedder_digest(gallery_file.run, gallery_file.phase)
        decoders = min(os.cpu_count() or 1, MOST_DECODERS)
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decoder")
        # The first batch takes longest: nobody has to wait for it.
        network.outputs_of(np.zeros((1, self.view.size, self.view.size, 3), np.uint8))
        self._batches = Batches(network, self._search, self.measurements.batch_embedded)
        self._recalibration = Recalibration(self._choose, self._publish_threshold)
        self._changes = Changes(gallery_file, gallery, self._publish)
        self.thumbnail = lru_cache(maxsize=4096)(self._thumbnail)

    async def predict(self, images: Sequence[SentImage], k: int) -> PredictResult:
        """Look photos up. Raises RefusedRequest where none can be read, and Crowded."""
        photos, unreadable = await self._decoded(images)
        if not photos:
            raise RefusedRequest(422, "; ".join(f"{name}: {why}" for name, why in unreadable))
        waiting = self._batches.put([photo.pixels for photo in photos], k)
        answers = []
        for photo, (prediction, by) in zip(photos, await all_of(waiting), strict=True):
            answers.append(Answer(photo.name, prediction, by))
        self.log.add([logged(answer, self.wanted, self.embedder) for answer in answers])
        self.measurements.answered([answer.prediction for answer in answers])
        return PredictResult(tuple(answers), unreadable)

    async def enrol(self, class_name: str, images: Sequence[SentImage]) -> Changed:
        """Add photos to a class, all or none. Raises RefusedRequest where one can't be read,
        ValueError where the gallery has one under another class, and Crowded."""
        photos, unreadable = await self._decoded(images)
        if unreadable:
            reasons = "; ".join(f"{name}: {why}" for name, why in unreadable)
            raise RefusedRequest(422, f"nothing was enrolled: {reasons}")
        embeddings = await all_of(self._batches.put([photo.pixels for photo in photos], 0))
        change = Enrol(class_name, photos, np.stack(embeddings))
        return await asyncio.wrap_future(self._changes.put(change))

    async def remove(self, class_name: str) -> Changed:
        """Take a class out. Raises UnknownName where there is none of that name, ValueError where
        it is the last."""
        return await asyncio.wrap_future(self._changes.put(Remove(class_name)))

    async def in_decoder(self, function: Callable[[], bytes]) -> bytes:
        """Let a thread for images call a function."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function)

    def close(self) -> None:
        """Finish what waits."""
        self._decoders.shutdown()
        self._batches.close()
        self._changes.close()
        self._recalibration.close()

    async def _decoded(
        self, images: Sequence[SentImage]
    ) -> tuple[list[Photo], tuple[tuple[str, str], ...]]:
        loop = asyncio.get_running_loop()
        decoding = [
            loop.run_in_executor(self._decoders, read_photo, image, self.view, self.limits)
            for image in images
        ]
        results = await asyncio.gather(*decoding, return_exceptions=True)
        photos, unreadable = [], []
        for image, result in zip(images, results, strict=True):
            if isinstance(result, Unreadable):
                unreadable.append((image.name, result.reason))
            elif isinstance(result, BaseException):
                raise result
            else:
                photos.append(result)
        return photos, tuple(unreadable)

    def _search(
        self, embeddings: np.ndarray, ks: Sequence[int]
    ) -> list[tuple[Prediction, ServedGallery]]:
        by = self.served
        return [(prediction, by) for prediction in by.predict(embeddings, ks)]

    def _publish(self, gallery: Gallery) -> None:
        with self._publishing:
            self.served = self.served.changed(gallery)
            self.measurements.gallery_changed(self.served)
        self._recalibration.changed(gallery)

    def _choose(self, gallery: Gallery) -> Calibration:
        try:
            return calibrated(self.file, gallery, self.wanted)
        except Exception as problem:  # nothing is answered without a threshold that was chosen
            LOGGER.warning("the threshold can't be chosen: %s", problem)  # which may name files
            nothing = AppliedThreshold(value=math.nan)
            lack = "its threshold can't be chosen, and the server printed why"
            return Calibration(gallery, nothing, lack, self.served.calibration.curve)

    def _publish_threshold(self, calibration: Calibration) -> None:
        with self._publishing:
            self.served = self.served.recalibrated(calibration)
            self.measurements.gallery_changed(self.served)

    def _thumbnail(self, recorded: str) -> bytes:
        """A small JPEG of an image of the gallery. Raises Unreadable where its file is gone."""
        path = self.file.run.images.located(recorded)
        # What came over HTTP is decoded as the format that it was taken for.
        came_here = Path(recorded).parent == self.file.photos_folder
        picture = decode(Path(path), formats=formats() if came_here else None)
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=85)
        return content.getvalue()


def logged(answer: Answer, wanted: WantedThreshold, embedder: str) -> LoggedAnswer:
    """What is kept of an answer of a model."""
    return LoggedAnswer(
        time=timestamp(),
        similarity=round(answer.prediction.similarity, 6),
        known=answer.prediction.known,
        class_name=answer.prediction.class_name,
        threshold=answer.by.threshold,
        precision=wanted.precision,
        unknown_share=wanted.unknown_share,
        images=len(answer.by.gallery.entries),
        embedder=embedder,
    )


async def all_of(waiting: "Sequence[Future[object]]") -> list:
    """The results of futures of threads."""
    return await asyncio.gather(*(asyncio.wrap_future(future) for future in waiting))
