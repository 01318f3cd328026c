"""The rows of a decision in their fixed order: how long each would take here, and their runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dml_bench.config import Experiment
from dml_bench.config.experiments import resolve
from dml_bench.config.variants import variant_name
from dml_bench.data.cache import View
from dml_bench.data.images import Unreadable, decode
from dml_bench.decision.parts import Parts
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.callbacks import Callback

__all__ = ["ROWS", "Clock", "PlannedRow", "RowSpec", "TimeUp", "plan", "run_row"]

PROBED = 12
"""Photos by which this machine is measured."""
ROW_SECONDS, STEP_SECONDS = 15.0, 0.0004
"""What a row takes beside decoding and backbone, and what a head takes for a photo in an epoch."""


@dataclass(frozen=True, slots=True)
class RowSpec:
    """One way to make embeddings."""

    label: str
    experiment: str
    backbone: str
    overrides: tuple[str, ...] = ()


HEAD = ("train.epochs=20",)
ROWS = (
    RowSpec("EfficientNet-Lite0, no training", "frozen_efficientnet_lite0", "efficientnet_lite0"),
    RowSpec(
        "EfficientNet-Lite0, linear probe", "linearprobe_efficientnet_lite0", "efficientnet_lite0"
    ),
    RowSpec("MobileNetV2, no training", "frozen_mobilenet_v2", "mobilenet_v2"),
    RowSpec("MobileNetV2, linear probe", "linearprobe_mobilenet_v2", "mobilenet_v2"),
    RowSpec(
        "EfficientNet-Lite0, EPSHN head",
        "EPSHN_cosine_efficientnet_lite0_head_sgd",
        "efficientnet_lite0",
        HEAD,
    ),
    RowSpec(
        "MobileNetV2, EPSHN head",
        "EPSHN_cosine_efficientnet_lite0_head_sgd",
        "mobilenet_v2",
        (*HEAD, "model.backbone=mobilenet_v2"),
    ),
)
"""The first needs the least, and each answers a question that those before it leave open."""


class TimeUp(Exception):
    """The time that was allowed is over."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that a decision may take."""

    seconds: float
    start: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.start + self.seconds - time.monotonic()


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row and how long it would take."""

    spec: RowSpec
    experiment: Experiment
    overrides: tuple[str, ...]
    seconds: float
    final_seconds: float
    """What its answers on the final part take afterwards."""


class Interrupting(Callback):
    """Passes on what it hears, and ends a run when its time is over. The run can go on later."""

    def __init__(self, inner: Callback, clock: Clock, reserve: float):
        self.inner, self.clock, self.reserve = inner, clock, reserve

    def check(self) -> None:
        """Raises TimeUp where only the time for the final part is left."""
        if self.clock.left < self.reserve:
            raise TimeUp

    def note(self, text: str) -> None:
        self.inner.note(text)

    def warn(self, text: str) -> None:
        self.inner.warn(text)

    def progress(self, message: str, done: int, total: int) -> None:
        self.check()
        self.inner.progress(message, done, total)

    def on_step(self, images: int, loss: Any) -> None:
        self.check()

    def on_embedded(self, images: int) -> None:
        self.check()


def plan(parts: Parts, overrides: Sequence[str]) -> list[PlannedRow]:
    """All rows in their order, each with its seconds here. A row that shares decoded photos or a
    backbone with an earlier one takes less."""
    files = parts.development_photos()
    shown = [files[place] for place in np.linspace(0, len(files) - 1, PROBED).astype(int)]
    num_final = parts.num_photos - len(files)
    rows: list[PlannedRow] = []
    rates: dict[tuple[str, int], tuple[float, float]] = {}
    views: set[tuple[str, int]] = set()
    for spec in ROWS:
        settings = (
            *spec.overrides,
            *("data.dataset=csv", "data.split=given", f"unseen={parts.holdouts}"),
            "data.skip_unreadable=true",
            *overrides,
        )
        experiment = resolve(spec.experiment, overrides=list(settings))
        view = (experiment.images.fit, experiment.images.size)
        key = (spec.backbone, experiment.images.size)
        is_new = key not in rates
        if is_new:
            rates[key] = probe(experiment, shown)
        decoding, embedding = rates[key]
        phases = 1 + int(parts.holdouts.rpartition(" ")[2])
        seconds = ROW_SECONDS + experiment.train.epochs * phases * len(files) * STEP_SECONDS
        final = 1.0
        if is_new:
            seconds += len(files) * embedding
            final += num_final * (decoding + embedding)
        if view not in views:
            seconds += len(files) * decoding
            views.add(view)
        rows.append(PlannedRow(spec, experiment, settings, seconds, final))
    return rows


@torch.no_grad()
def probe(experiment: Experiment, files: Sequence[Path]) -> tuple[float, float]:
    """Seconds for decoding a photo, and for taking it through the backbone."""
    view = View(experiment.images.fit, experiment.images.size)
    start = time.perf_counter()
    pixels = []
    for file in files:
        try:
            pixels.append(view.apply(decode(file)))
        except Unreadable:
            continue
    if not pixels:
        raise ValueError(f"none of {len(files)} photos can be read, e.g. {files[0]}: restore them")
    decoding = (time.perf_counter() - start) / len(pixels)
    embedder = build_embedder(experiment).eval()
    batch = torch.from_numpy(np.stack(pixels))
    embedder.features(batch[:2])
    start = time.perf_counter()
    embedder.features(batch)
    return decoding, (time.perf_counter() - start) / len(pixels)


def run_row(row: PlannedRow, parts: Parts, cache_dir: Path, device: str, heard: Callback) -> Run:
    """Train and measure a row on the development photos, or read its finished run. Raises
    TimeUp."""
    request = RunRequest(
        experiment=row.experiment,
        variant=variant_name(row.experiment.name, list(row.overrides)),
        data_dir=parts.development,
        out=parts.out / "runs",
        cache_dir=cache_dir,
        device=device,
        callback=heard,
    )
    return read_folder(execute(request).folder)
