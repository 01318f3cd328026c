"""Which settings a search may change, and how far (`experiments/tuning/`)."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dml_bench import registry
from dml_bench.config.experiment import Experiment
from dml_bench.config.experiments import EXPERIMENTS
from dml_bench.registry import UnknownName, near_miss

__all__ = ["Range", "TuningSpace", "read_space", "space_for", "space_names"]

FOLDER = EXPERIMENTS / "tuning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """From where to where a setting may be changed."""

    low: float
    high: float
    log: bool = False
    """Whether factors count instead of differences."""
    times: bool = False
    """Whether the numbers are multiples of the experiment's own value."""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range must be low < high, and above 0 with log, got {self.low:g} to"
                f" {self.high:g}: correct it"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningSpace:
    """A file of `experiments/tuning/`."""

    name: str
    summary: str
    trials: int
    """How many settings are tried where a command doesn't say; the same for every loss."""
    epochs: float
    """The part of the experiment's epochs that each trial trains for."""
    valid_classes: float
    """The part of the known classes that no trial trains on, and by which it is judged."""
    prune: bool
    """Whether a trial is stopped that is worse half-way than half of those before it."""
    shared: bool
    """Whether what is chosen also holds for experiments that extend the one that was searched. Then
    all ranges are multiples."""
    ranges: Mapping[str, Range]
    """By key, for every loss."""
    of_loss: Mapping[str, Mapping[str, Range]]
    """By the name of a loss, for that loss only."""

    def __post_init__(self) -> None:
        every = [*self.ranges.values(), *(r for own in self.of_loss.values() for r in own.values())]
        if self.trials < 2 or not 0 < self.epochs <= 1 or not 0 < self.valid_classes < 1:
            raise ValueError(
                "trials must be at least 2, epochs above 0 and up to 1, valid_classes between 0 and"
                f" 1, got {self.trials}, {self.epochs:g} and {self.valid_classes:g}: correct them"
            )
        if self.shared and not all(one.times for one in every):
            raise ValueError("a shared space must have multiples only: set times = true in each")

    def of(self, experiment: Experiment) -> dict[str, Range]:
        """By key, the ranges for an experiment."""
        return {**self.ranges, **self.of_loss.get(experiment.loss.name, {})}

    def epochs_of(self, experiment: Experiment) -> int:
        """For how many epochs a trial of an experiment trains."""
        return max(1, round(self.epochs * experiment.train.epochs))

    @property
    def startup_trials(self) -> int:
        """How many settings are drawn at random before trials learn from those before them."""
        return max(2, self.trials // 3)

    @property
    def digest(self) -> str:
        """SHA-256 of what can be chosen, by which trials are judged and how long they train."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        decisive = {key: content[key] for key in ("epochs", "valid_classes", "prune", "shared")}
        decisive["ranges"] = as_numbers(self.ranges)
        decisive["of_loss"] = {name: as_numbers(own) for name, own in self.of_loss.items()}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def as_numbers(ranges: Mapping[str, Range]) -> dict[str, list[float]]:
    numbers = {}
    for key, of_key in ranges.items():
        numbers[key] = [of_key.low, of_key.high, float(of_key.log), float(of_key.times)]
    return numbers


def space_names() -> list[str]:
    """The names of all spaces that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def space_for(experiment: Experiment) -> str:
    """The name of the space in which an experiment is searched where a command names none."""
    if experiment.model.trainable == "head":
        return "heads"
    # A recipe for disjoint classes extends another only to be shorter: its loss is its own.
    by_class = registry.protocols[experiment.protocol].facts["validates_by_class"]
    return "recipes" if by_class else "networks"


def read_space(name: str) -> TuningSpace:
    """The space of that name, or in that .toml file. Raises UnknownName where there is none, and
    ValueError for a file that is none."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UnknownName(
            f"unknown space {name!r}{near_miss(name, space_names())}; there are:"
            f" {', '.join(space_names())}, or name a .toml file"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        ranges = read_ranges(content.pop("all"))
        of_loss = {loss: read_ranges(own) for loss, own in content.pop("loss", {}).items()}
        return TuningSpace(name=path.stem, ranges=ranges, of_loss=of_loss, **content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}); a space has summary, trials, epochs, valid_classes,"
            " prune, shared, and ranges with low and high in [all] and [loss.NAME]"
        ) from None


def read_ranges(table: Mapping[str, Any]) -> dict[str, Range]:
    return {str(key): Range(**value) for key, value in table.items()}
