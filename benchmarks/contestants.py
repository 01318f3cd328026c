"""The three loops behind one face, so that they are timed by the same code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from floor import Floor
from torch import Tensor
from usual_loop import UsualLoop

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import ImageInputs
from dml_bench.data.split import Monitored, Phase, Split
from dml_bench.system.callbacks import Callback
from dml_bench.system.memory import keep_freed_memory, set_thresholds
from dml_bench.system.seeding import deterministic
from dml_bench.training import loop, validation
from dml_bench.training.batches import epoch_batches, targets_of
from dml_bench.training.build import build

__all__ = ["Bare", "Contestant", "Ours", "Setting", "Usual"]


@dataclass(frozen=True)
class Setting:
    """What both loops are given."""

    experiment: Experiment
    dataset: Dataset
    split: Split
    pixels: ImageInputs
    device: torch.device
    workers: int


class Contestant(Protocol):
    name: str

    def train(self) -> None: ...
    def evaluate(self) -> float: ...
    def shorten(self, batches: int) -> Callable[[], None]:
        """Use this many batches for a warm-up, until the returned function is called."""
        ...

    def inputs(self, passes: int) -> Iterator[Tensor]:
        """Augmented, normalised training batches on the device."""
        ...

    def steps(self, count: int) -> Callable[[], None]:
        """Training steps on one batch that is already there."""
        ...


class Ours:
    """dml-bench's own build and loop, as `dml-bench run` calls them."""

    def __init__(self, setting: Setting, precision: str, name: str = "ours"):
        self.name = name
        self.run = build(
            setting.experiment,
            Phase("all"),
            setting.dataset,
            setting.split,
            setting.pixels,
            device=setting.device,
            precision=precision,
            callback=Callback(),
        )
        self.epoch = 0

    def train(self) -> None:
        self.epoch += 1
        with determinism(), kept_memory():
            loop.train_epoch(self.run, self.epoch)

    def evaluate(self) -> float:
        with determinism(), kept_memory():
            return validation.validate(self.run)["test_accuracy"]

    def shorten(self, batches: int) -> Callable[[], None]:
        originals = self.run.images, self.run.monitored
        few = batches * self.run.experiment.train.batch_size
        queries = {name: images[:few] for name, images in self.run.monitored.queries.items()}
        self.run.images, self.run.monitored = (
            self.run.images[:few],
            Monitored(self.run.monitored.gallery[:few], queries),
        )

        def restore() -> None:
            self.run.images, self.run.monitored = originals

        return restore

    def inputs(self, passes: int) -> Iterator[Tensor]:
        embedder = self.run.embedder
        for epoch in range(passes):
            for images in epoch_batches(self.run, epoch + 1):
                pixels = self.run.source.train(images, phase="all", epoch=epoch + 1)
                yield (pixels.float() - embedder.mean) / embedder.std

    def steps(self, count: int) -> Callable[[], None]:
        run = self.run
        images = epoch_batches(run, 1)[0]
        inputs, targets = (
            run.source.train(images, phase="all", epoch=1).clone(),
            targets_of(run, images)[0].labels,
        )

        def work() -> None:
            run.embedder.train()
            with determinism(), kept_memory():
                for _ in range(count):
                    self.step(inputs, targets)

        return work

    def step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """What `loop.train_epoch` does with a batch."""
        with self.run.autocast():
            embeddings = self.run.forward(inputs)
        loss = self.run.objective(embeddings, targets)
        self.run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.run.optimizer.step()
        return loss.detach()


class Usual:
    """The usual loop, as people write it or with what makes it faster."""

    def __init__(
        self,
        setting: Setting,
        name: str = "usual",
        *,
        two_lines: bool = False,
        in_memory: bool = False,
    ):
        self.name = name
        experiment = setting.experiment
        self.loop = UsualLoop(
            setting.dataset.root,
            setting.split.train.tolist(),
            setting.split.test.tolist(),
            size=experiment.images.size,
            crop_from=experiment.augment.random_crop_from,
            batch_size=experiment.train.batch_size,
            workers=setting.workers,
            device=setting.device,
            two_lines=two_lines,
            in_memory=in_memory,
        )
        files = [
            Path(path).relative_to(setting.dataset.root).as_posix()
            for path, _ in self.loop.train_set.dataset.samples
        ]
        assert files == list(setting.dataset.paths), "both loops must count the images alike"

    def train(self) -> None:
        self.loop.train_epoch()

    def evaluate(self) -> float:
        return self.loop.evaluate()

    def shorten(self, batches: int) -> Callable[[], None]:
        sets = self.loop.train_set, self.loop.gallery_set, self.loop.query_set
        originals = [images.indices for images in sets]
        for images in sets:
            images.indices = images.indices[: batches * self.loop.batch_size]

        def restore() -> None:
            for images, indices in zip(sets, originals, strict=True):
                images.indices = indices

        return restore

    def inputs(self, passes: int) -> Iterator[Tensor]:
        return (pixels.to(self.loop.device) for pixels in self.loop.batches(passes))

    def steps(self, count: int) -> Callable[[], None]:
        pixels, labels = next(iter(self.loop.loader(self.loop.train_set)))

        def work() -> None:
            self.loop.model.train()
            for _ in range(count):
                self.loop.step(pixels, labels)

        return work


class Bare:
    """The floor, on the pixels of our cache."""

    name = "floor"

    def __init__(self, setting: Setting, precision: str):
        pixels, everything = setting.pixels, np.arange(len(setting.dataset))
        self.loop = Floor(
            [np.array(pixels.train_cache[image]) for image in everything],
            pixels.view(everything).cpu().numpy(),
            setting.dataset.labels,
            setting.split.train,
            setting.split.test,
            batch_size=setting.experiment.train.batch_size,
            device=setting.device,
            dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
        )

    def train(self) -> None:
        with kept_memory():
            self.loop.train_epoch()

    def evaluate(self) -> float:
        with kept_memory():
            return self.loop.evaluate()

    def shorten(self, batches: int) -> Callable[[], None]:
        originals = self.loop.train_images, self.loop.test_images
        few = batches * self.loop.batch_size
        self.loop.train_images, self.loop.test_images = originals[0][:few], originals[1][:few]

        def restore() -> None:
            self.loop.train_images, self.loop.test_images = originals

        return restore

    def inputs(self, passes: int) -> Iterator[Tensor]:
        for _ in range(passes):
            for pixels, _labels in self.loop.batches():
                yield self.loop.normalised(pixels)

    def steps(self, count: int) -> Callable[[], None]:
        pixels, labels = next(iter(self.loop.batches()))

        def work() -> None:
            self.loop.model.train()
            with kept_memory():
                for _ in range(count):
                    self.loop.step(pixels, labels)

        return work


@contextmanager
def kept_memory() -> Iterator[None]:
    """Ours and the bare loop keep freed memory; for the usual loop glibc's thresholds are what they
    become by themselves, at their highest."""
    keep_freed_memory()
    try:
        yield
    finally:
        set_thresholds(mmap=32 * 2**20, trim=64 * 2**20)


@contextmanager
def determinism() -> Iterator[None]:
    """Ours pays for equal bits every time, as in `dml-bench run`; the usual loop does not ask for
    them."""
    deterministic()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
