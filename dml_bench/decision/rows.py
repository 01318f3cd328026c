"""The rows of a decision in their fixed order: how long each would take here, and their runs."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dml_bench.config import Experiment
from dml_bench.config.experiments import resolve
from dml_bench.config.variants import variant_name
from dml_bench.data.cache import view_of
from dml_bench.data.images import Unreadable, decode
from dml_bench.decision.parts import SEEDS, Parts, without_data_settings
from dml_bench.models.embedder import Embedder, build_embedder, fold_where_it_pays
from dml_bench.models.precision import autocast, network_precision
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_device
from dml_bench.system.memory import keep_freed_memory
from dml_bench.system.seeding import callers_draws_kept

__all__ = [
    "ROWS",
    "Clock",
    "Pace",
    "PlannedRow",
    "RowSpec",
    "SharedWork",
    "TimeUp",
    "plan",
    "run_seed",
]

PROBED = 48
"""Photos by which this machine is measured."""

Training = Literal["none", "probe", "head", "whole"]
"""What is trained: nothing, a linear classifier, a head on the frozen backbone, or all of it."""


@dataclass(frozen=True, slots=True)
class RowSpec:
    """One way to make embeddings."""

    label: str
    experiment: str
    backbone: str
    training: Training
    overrides: tuple[str, ...] = ()


def rows_of(label: str, backbone: str) -> tuple[RowSpec, ...]:
    """All that is tried on one backbone, in the order of what it needs."""
    rows = [
        RowSpec(f"{label}, no training", f"frozen_{backbone}", backbone, "none"),
        RowSpec(f"{label}, linear probe", f"linearprobe_{backbone}", backbone, "probe"),
    ]
    on_backbone = (f"model.backbone.name={backbone}",)
    for loss, experiment in HEADS.items():
        rows.append(RowSpec(f"{label}, {loss} head", experiment, backbone, "head", on_backbone))
    return tuple(rows)


HEADS = {
    "ProxyAnchor": "ProxyAnchor_cosine_head",
    "softmax": "crossentropy_head",
    "ProxyNCA": "ProxyNCA_cosine_head",
    "EPSHN": "EPSHN_cosine_head",
    "ArcFace": "ArcFace_cosine_head",
}
"""By name of the loss. On groceries (reports/grocery) the first loses least on new classes, and the
third knows its own classes best; the second is the rival."""
LITE0 = rows_of("EfficientNet-Lite0", "efficientnet_lite0")
MOBILENET = rows_of("MobileNetV2", "mobilenet_v2")
WHOLE = tuple(
    RowSpec(
        f"EfficientNet-Lite0, {loss}, trained as a whole",
        HEADS[loss],
        "efficientnet_lite0",
        "whole",
        (
            "model.backbone.name=efficientnet_lite0",
            "model.trainable=all",
            "optimizer.lr=0.0003",
        ),
    )
    for loss in ("softmax", "EPSHN")
)
ROWS = (
    *LITE0[:2],
    *MOBILENET[:2],
    *(row for pair in zip(LITE0[2:], MOBILENET[2:], strict=True) for row in pair),
    *WHOLE,
)
"""The first needs the least, and each answers a question that those before it leave open."""

FIRST_GUESS: dict[Training, tuple[float, float]] = {
    "none": (8.0, 2e-4),
    "probe": (8.0, 3e-8),
    "head": (8.0, 6e-5),
    "whole": (15.0, 4.0),
}
"""Seconds of a run beside decoding and a frozen backbone, before the first run of its kind is
measured: for any photos, and for each photo in a phase; of a head also in an epoch, of a probe for
each product of photos, classes and features. A network that is trained as a whole takes so many
times what its layers take to embed."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What this machine takes for a photo."""

    decoding: float
    """Seconds."""
    embedding: float
    """Seconds that it spends in the backbone."""
    layers: float
    """The same with BatchNorm layers of their own, as they are trained."""
    dim: int
    """Features of the backbone."""


class TimeUp(Exception):
    """The time that was allowed is over, or would be."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that a decision may take."""

    seconds: float
    start: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - self.spent

    @property
    def spent(self) -> float:
        """Seconds."""
        return time.monotonic() - self.start


@dataclass(slots=True)
class Pace:
    """How much longer runs take than was guessed, measured by those that ended."""

    ratios: dict[Training, float] = field(default_factory=dict)
    """By kind of run, of the last one that decoded no photos."""
    _guessed: float = 0.0
    _took: float = 0.0
    """Seconds of all runs with the photos that they decoded. Each run halves the weight of those
    before it: the machine may be busier now. A short run alone says little of long work."""

    @property
    def slower(self) -> float:
        """How much longer any work takes than guessed; at least 1."""
        return max(1.0, self._took / self._guessed) if self._guessed else 1.0

    def seconds(self, training: Training, guessed: float) -> float:
        """What a run of this kind will take."""
        return guessed * self.ratios.get(training, self.slower)

    def measured(
        self, training: Training, guessed: float, of_photos: float, seconds: float
    ) -> None:
        """The last run of a kind says what the next will take. One that also decoded photos says
        nothing of others, which don't."""
        self._guessed = self._guessed / 2 + guessed + of_photos
        self._took = self._took / 2 + seconds
        if not of_photos:
            self.ratios[training] = seconds / guessed


@dataclass(frozen=True, slots=True)
class SharedWork:
    """What one row does for all that come after it: decoded photos, or features of a backbone."""

    name: str
    seconds: float
    final_seconds: float
    """The same for the photos of the final part, afterwards."""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row and how long it would take."""

    spec: RowSpec
    experiments: tuple[Experiment, ...]
    """One for each seed."""
    named: tuple[str, ...]
    """The settings in which they differ from the experiment's file."""
    shared: tuple[SharedWork, ...]
    """What it needs and an earlier row may have done."""
    seed_seconds: float
    """The rest of the run of a seed, as guessed."""
    final_seconds: float
    """What its answers on the final part take afterwards, without shared work."""

    def left_of(self, done: Collection[str]) -> tuple[float, float]:
        """The seconds of shared work that is not done, and what it means for the final part."""
        left = [work for work in self.shared if work.name not in done]
        return sum(work.seconds for work in left), sum(work.final_seconds for work in left)


class Interrupting(Callback):
    """Passes on what it hears, and ends a run when its time is over. The run can go on later.

    `reserve` are the seconds that the final part and the page take on a machine as it was; where
    the run takes longer than the `guessed` seconds, these will too.
    """

    def __init__(self, inner: Callback, clock: Clock, reserve: float, guessed: float):
        self.inner, self.clock, self.reserve, self.guessed = inner, clock, reserve, guessed
        self.begun = clock.left

    def check(self) -> None:
        """Raises TimeUp where only the time for the final part is left."""
        left = self.clock.left
        slower = max(1.0, (self.begun - left) / self.guessed)
        if left < self.reserve * slower:
            raise TimeUp

    def warn(self, text: str) -> None:
        self.inner.warn(text)

    def progress(self, message: str, done: int, total: int) -> None:
        self.check()
        self.inner.progress(message, done, total)

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        self.check()

    def on_step(self, images: int, loss: Any) -> None:
        self.check()

    def on_embedded(self, images: int) -> None:
        self.check()


def plan(
    parts: Parts, overrides: Sequence[str], device: str
) -> tuple[list[PlannedRow], dict[str, str]]:
    """All rows in their order, each with its seconds here; and, by label, why others can't be run.
    Raises ValueError where none can be run."""
    files = parts.development_photos()
    shown = [files[place] for place in np.linspace(0, len(files) - 1, PROBED).astype(int)]
    num_final = parts.num_photos - len(files)
    phases = 1 + int(parts.holdouts.rpartition(" ")[2])
    rows: list[PlannedRow] = []
    unavailable: dict[str, str] = {}
    measured: dict[str, Rates | str] = {}
    for spec in ROWS:
        experiments = experiments_of(spec, parts, overrides)
        experiment = experiments[0]
        photos = f"photos {view_of(experiment.images)}"
        features = f"{experiment.model.backbone} {photos}"
        if features not in measured:
            measured[features] = rates_of(experiment, shown, device)
        rates = measured[features]
        if isinstance(rates, str):
            unavailable[spec.label] = rates
            continue
        fixed, per_unit = FIRST_GUESS[spec.training]
        seen = len(files) * phases
        work = {
            "none": seen,
            "probe": seen * len(parts.class_names) * rates.dim,
            "head": seen * experiment.train.epochs,
            "whole": seen * experiment.train.epochs * rates.layers,
        }[spec.training]
        shared = [SharedWork(photos, len(files) * rates.decoding, 0.0)]
        final_seconds = 0.1 * phases * len(experiments)
        of_final = num_final * (rates.decoding + rates.embedding)
        if spec.training == "whole":
            final_seconds += phases * len(experiments) * of_final
        else:
            shared.append(SharedWork(features, len(files) * rates.embedding, of_final))
        named = (*spec.overrides, *without_data_settings(overrides))
        seconds = fixed + per_unit * work
        rows.append(PlannedRow(spec, experiments, named, tuple(shared), seconds, final_seconds))
    if not rows:
        raise ValueError(next(iter(unavailable.values())))
    return rows, unavailable


def experiments_of(spec: RowSpec, parts: Parts, overrides: Sequence[str]) -> tuple[Experiment, ...]:
    """One for each seed. What needs no epochs gives the same again where the split does, and then
    has one seed."""
    settings = [*spec.overrides, *parts.settings, "data.skip_unreadable=true"]
    settings += without_data_settings(overrides)
    experiments = tuple(
        resolve(spec.experiment, overrides=[*settings, f"seed={seed}"]) for seed in SEEDS
    )
    is_loaded = experiments[0].model.weights != "none"  # else each seed draws its own
    is_same_again = spec.training in ("none", "probe") and parts.split == "given" and is_loaded
    return experiments[:1] if is_same_again else experiments


@callers_draws_kept()
def rates_of(experiment: Experiment, files: Sequence[Path], device_name: str) -> Rates | str:
    """How fast the backbone is here, or why it can't be had."""
    try:
        embedder = build_embedder(experiment).eval()
    except ValueError as problem:
        return str(problem)
    return probe(experiment, embedder, files, device_name)


@torch.no_grad()
def probe(
    experiment: Experiment, embedder: Embedder, files: Sequence[Path], device_name: str
) -> Rates:
    """Take some photos through the backbone, as a run would. Raises ValueError where none of them
    can be read."""
    keep_freed_memory()
    view = view_of(experiment.images)
    pixels = []
    start = time.perf_counter()
    for file in files:
        try:
            pixels.append(view.apply(decode(file)))
        except Unreadable:
            continue
        if len(pixels) == 1:  # the first one also loads the decoder
            start = time.perf_counter()
    if not pixels:
        raise ValueError(f"none of {len(files)} photos can be read, e.g. {files[0]}: restore them")
    decoding = (time.perf_counter() - start) / max(len(pixels) - 1, 1)
    device = choose_device(device_name)
    precision = network_precision(experiment.train.precision, device, embedder)
    embedder = embedder.to(device)
    batch = torch.from_numpy(np.stack(pixels)).to(device)
    with autocast(device, precision):
        layers, dim = seconds_and_dim(embedder, batch)
        folded = fold_where_it_pays(embedder, experiment, device, precision)
        embedding = seconds_and_dim(embedder, batch)[0] if folded else layers
    return Rates(decoding, embedding, layers, dim)


def seconds_and_dim(embedder: Embedder, batch: torch.Tensor) -> tuple[float, int]:
    """Seconds in the backbone for each of (batch, height, width, 3) pixels, and its features."""
    float(embedder.features(batch).float().sum())  # memory is asked for, and kept
    start = time.perf_counter()
    features = embedder.features(batch)
    float(features.float().sum())  # so that a GPU has ended
    return (time.perf_counter() - start) / len(batch), features.shape[1]


def run_seed(
    row: PlannedRow,
    experiment: Experiment,
    parts: Parts,
    cache_dir: Path,
    device: str,
    heard: Callback,
) -> Run:
    """Train and measure one seed of a row on the development photos, or read its finished run.
    Raises TimeUp."""
    request = RunRequest(
        experiment=experiment,
        variant=variant_name(experiment.name, row.named),
        data_dir=parts.development,
        out=parts.out / "runs",
        cache_dir=cache_dir,
        device=device,
        callback=heard,
    )
    return read_folder(execute(request).folder)
