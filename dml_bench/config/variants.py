"""Names of experiments that were run with other settings than their file has:
`NAME~optimizer.lr=0.1`. Whatever tells experiments apart by name tells these apart too."""

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from dml_bench.config.experiment import LONGEST_NAME, Experiment
from dml_bench.config.experiments import value_at

__all__ = [
    "TUNED",
    "Sweep",
    "base_name",
    "is_named",
    "refuse_twice",
    "setting_of",
    "settings_in",
    "settings_in_short",
    "suffix_of",
    "sweep_overrides",
    "tuned_name",
    "variant_name",
]

SEPARATOR = "~"
TUNED = "tuned"
LONGEST_VARIANT = LONGEST_NAME - 30
"""Bytes. What is appended to names, such as a log's ending, has to fit too."""
DIGEST_LETTERS = 8
ELSEWHERE = (
    *("name", "summary", "profile", "seed", "unseen"),
    *("data.split", "data.group", "data.time", "data.skip_unreadable"),
)
"""Settings that the run folder's path or a report's sections show by themselves."""


def variant_name(name: str, overrides: Sequence[str]) -> str:
    """The name of experiment `name` when it is run with `key=value` overrides, sorted by key. It is
    `name` itself where these only choose seed, data or the classes held out, or set the name.

    Characters that file names may lack become `-`. Where that happens, or where the name gets too
    long, a digest of all settings ends it.
    """
    settings: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        settings[key.strip()] = value.strip()
    own = {key: settings[key] for key in sorted(settings) if is_named(key)}
    if not own or "name" in settings:
        return name
    exact = ",".join(f"{key}={value}" for key, value in own.items())
    shown = ",".join(f"{key}={file_safe(value)}" for key, value in own.items())
    variant = f"{name}{SEPARATOR}{shown}"
    if shown == exact and len(variant.encode()) <= LONGEST_VARIANT:
        return variant
    digest = hashlib.sha256(exact.encode()).hexdigest()[:DIGEST_LETTERS]
    room = max(LONGEST_VARIANT - DIGEST_LETTERS - 1, len(f"{name}{SEPARATOR}".encode()))
    kept = variant.encode()[:room].decode(errors="ignore").rstrip(" ,")
    return f"{kept},{digest}"


def is_named(key: str) -> bool:
    """Whether a setting belongs into the name."""
    in_data_set = key == "data.dataset" or key.startswith("data.dataset.")
    return key not in ELSEWHERE and not in_data_set


def file_safe(value: str) -> str:
    """A value in a file's name, without the characters that part settings from one another."""
    return "".join(
        character if character.isalnum() or character in "._+-" else "-" for character in value
    )


def base_name(name: str) -> str:
    """The name of the experiment that a variant is of."""
    return name.partition(SEPARATOR)[0]


def tuned_name(name: str) -> str:
    """The name of an experiment, or of a variant of one, when its settings are a search's."""
    return f"{name},{TUNED}" if SEPARATOR in name else f"{name}{SEPARATOR}{TUNED}"


def suffix_of(name: str) -> str:
    """What tells a variant from its experiment, `~` included; empty for no variant."""
    return name[len(base_name(name)) :]


def settings_in_short(name: str) -> list[str]:
    """`lr=0.1` for each setting of a variant's name; of what has a name, `mobilenet_v2`."""
    settings = []
    for setting in filter(None, suffix_of(name).removeprefix(SEPARATOR).split(",")):
        key, equals, value = setting.partition("=")
        short = key.rpartition(".")[2]
        settings.append(value if short == "name" else f"{short}{equals}{value}")
    return settings


def settings_in(experiment: Experiment) -> dict[str, Any]:
    """The settings that a variant's name shows, with the values that the experiment has there."""
    settings: dict[str, Any] = {}
    for part in suffix_of(experiment.name).removeprefix(SEPARATOR).split(","):
        key, equals, _ = part.partition("=")
        try:
            value = value_at(experiment, key) if equals else None
        except AttributeError:  # a name that was cut short, or that a person chose
            continue
        if value is not None:
            settings[key] = getattr(value, "name", value)
    return settings


@dataclass(frozen=True, slots=True)
class Sweep:
    """One setting and the values that it takes in turn."""

    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Sweep":
        """`optimizer.lr=0.01,0.1`. Raises ValueError for a text without key or values."""
        key, equals, listed = text.partition("=")
        values = tuple(dict.fromkeys(value.strip() for value in split_values(listed)))
        if not equals or not key.strip() or not all(values):
            raise ValueError(
                f"--sweep must be KEY=VALUE,VALUE,..., got {text!r}: write it as"
                " optimizer.lr=0.01,0.1"
            )
        return cls(key.strip(), values)


def split_values(text: str) -> Iterator[str]:
    """Values joined by commas: of TOML, lists among them, or plain words."""
    try:
        parsed = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        yield from text.split(",")
        return
    kinds = set(map(type, parsed))
    if list in kinds and dict not in kinds:
        yield from map(str, parsed)
        return
    if not any("," in str(value) for value in parsed):
        yield from text.split(",")
        return
    part = ""
    for piece in text.split(","):  # they stay as they were written, as Python writes no TOML
        part = f"{part},{piece}" if part else piece
        if is_toml(part):
            yield part
            part = ""


def is_toml(text: str) -> bool:
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def setting_of(override: str) -> str:
    """What a key, or a `key=value`, sets: `optimizer` and `optimizer.name` are one setting."""
    return override.partition("=")[0].strip().removesuffix(".name")


def refuse_twice(overrides: Iterable[str], key: str, other: str) -> None:
    """Raises ValueError where one of `key=value` sets what `other`, an option, sets as well: one of
    the two would be lost."""
    for override in overrides:
        if setting_of(override) == key:
            raise ValueError(f"{key} is set by {other} and by --set {override}: leave one out")


def sweep_overrides(sweeps: Sequence[Sweep], overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each combination of the swept values, the last setting changing first.
    Raises ValueError where a setting is swept twice, or set as well."""
    keys = [sweep.key for sweep in sweeps]
    swept = list(map(setting_of, keys))
    for key in keys:
        if swept.count(setting_of(key)) > 1:
            raise ValueError(f"--sweep {key} must be given once: join all its values by commas")
        if any(setting_of(override) == setting_of(key) for override in overrides):
            raise ValueError(f"{key} is both set and swept: leave out --set {key}")
        if not is_named(key):
            raise ValueError(f"--sweep {key} can't be swept: run a suite for each value instead")
    combinations = []
    for values in product(*(sweep.values for sweep in sweeps)):
        pairs = zip(keys, values, strict=True)
        combinations.append([f"{key}={value}" for key, value in pairs])
    return combinations
