"""What the JSON files of a run folder hold.

These are typed dictionaries, not classes: a file is read and written as it stands, so that the keys
of other versions are kept, and key order and digits don't change. A key that is `NotRequired` is
missing in runs of older versions, or where the run has nothing of the kind.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from dml_bench.data.identity import Copies, DataFacts, DatasetFacts, SplitFacts
from dml_bench.system.callbacks import EpochRecord
from dml_bench.system.provenance import Provenance

__all__ = [
    "BegunEnvironment",
    "Copies",
    "DatasetFacts",
    "Environment",
    "EpochRecord",
    "FoldScores",
    "Holdout",
    "PhaseCost",
    "PhaseSummary",
    "Place",
    "Session",
    "SplitFacts",
    "Summary",
    "costs_of",
]


class Place(Provenance):
    """On what a process works, by which versions, and with which settings."""

    device: str
    """The GPU's name, or `cpu`."""
    threads: int
    processes: int
    """Of torchrun; 1 without."""
    precision: str
    folded_batch_norm: NotRequired[bool]
    """Whether embeddings were computed with BatchNorm folded into the convolutions
    (`models.folding`); runs of older versions never did."""
    code: NotRequired[str]
    """SHA-256 of the code that decides the answers (`system.code_digest`)."""


class Session(Place):
    """One process that worked on a run."""

    started_at: str
    """Date and time, ISO 8601, UTC."""
    command: list[str]


class Environment(TypedDict):
    """environment.json, as far as a reader may rely on it."""

    sessions: list[Session]
    dataset: NotRequired[DatasetFacts]
    split: NotRequired[SplitFacts]
    wandb_id: NotRequired[str]


class BegunEnvironment(DataFacts):
    """environment.json of a run that has begun, as it is written and gone on with."""

    copies: Copies
    middle_only: list[str]
    """Images of which only the middle is trained on."""
    unseen_classes: list[str]
    wandb_id: str
    sessions: list[Session]


class PhaseCost(TypedDict):
    """cost.json: what one phase took."""

    train_seconds: float
    train_cpu_seconds: NotRequired[float]
    """What other work on the machine does not lengthen; missing in runs of older versions."""
    train_images_per_second: NotRequired[float]
    """Missing where nothing was trained in epochs."""
    start_seconds: NotRequired[float]
    start_cpu_seconds: NotRequired[float]
    """Missing in runs of older versions, as the other CPU time is."""
    labelling_seconds: NotRequired[float]
    """Training of the models that only labelled images for this one, their starts included;
    missing where there are none, and in runs of older versions."""
    labelling_cpu_seconds: NotRequired[float]
    watch_seconds: NotRequired[float]
    """Spent on validation between the epochs."""
    embed_seconds: NotRequired[float]
    embed_images_per_second: NotRequired[float]
    search_seconds: NotRequired[float]
    peak_memory_bytes: NotRequired[int]
    peak_gpu_memory_bytes: NotRequired[int]
    gallery_bytes: NotRequired[int]
    parameter_bytes: NotRequired[int]
    embed_ms_median: NotRequired[float]
    """Of one image alone, in milliseconds, as are the next three."""
    embed_ms_p95: NotRequired[float]
    look_up_ms_median: NotRequired[float]
    look_up_ms_p95: NotRequired[float]
    photos_per_second: NotRequired[float]
    """From the file to the embedding, by the clock."""
    photo_cpu_seconds: NotRequired[float]
    """Of one photo on the same way; missing on a GPU, and in runs of older versions."""


class FoldScores(TypedDict):
    """P@1 (mean over classes) of each fold, and their mean with its 95% interval."""

    precision_at_1_macro: list[float]
    mean: float
    low: float
    high: float


class PhaseSummary(TypedDict):
    """What a summary says of one phase, besides the metrics of its protocol."""

    chosen: NotRequired[dict[str, float]]
    """The epoch whose weights were kept, and the value that chose it."""
    fitted: NotRequired[dict[str, Any]]
    """What was fitted at once instead of in epochs."""
    attacked: NotRequired[dict[str, Any]]
    """Accuracy of the logits on images changed against them."""
    labels: NotRequired[dict[str, Any]]
    """What became of the training labels."""
    doubts: NotRequired[dict[str, float]]
    """Reasons to doubt P@1."""
    scatter: NotRequired[dict[str, dict[str, dict[str, float]]]]
    """For `seen` and `unseen` classes, by measure of `evaluation.scatter`, the mean over classes
    with its 95% interval; missing in runs of older versions."""
    hubness: NotRequired[dict[str, float]]
    """How unevenly the gallery answers (`evaluation.hubness`)."""
    folds: NotRequired[FoldScores]


class Holdout(TypedDict):
    """The classes that one phase never saw."""

    phase: str
    unseen_classes: list[str]


class Summary(TypedDict):
    """summary.json: the result. The metrics of its protocol stand beside these keys."""

    schema_version: int
    experiment: str
    protocol: str
    profile: str
    seed: int
    dataset: DatasetFacts
    split: SplitFacts
    copies: NotRequired[Copies]
    unseen_classes: list[str]
    phases: NotRequired[dict[str, PhaseSummary]]
    holdouts: NotRequired[list[Holdout]]
    retrieval: NotRequired[dict[str, float]]
    cost: dict[str, Any]
    """A PhaseCost for each phase (`costs_of`), and facts on the whole run."""
    files: dict[str, str]
    """SHA-256 of each file of the result, by its path relative to the run folder."""


def costs_of(cost: Mapping[str, Any]) -> dict[str, PhaseCost]:
    """The part of a summary's `cost` that is by phase."""
    return {phase: cast(PhaseCost, part) for phase, part in cost.items() if isinstance(part, dict)}
