"""How the public functions read what people hand them: names, paths, finished runs, overrides."""

import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dml_bench.system.callbacks import Callback, LoggingCallback

if TYPE_CHECKING:
    from dml_bench.config import Experiment
    from dml_bench.runs.run import Run

__all__ = [
    "Overrides",
    "PathLike",
    "WandbMode",
    "callback_or_log",
    "count_of",
    "experiment_of",
    "folder_and_images",
    "optional_path",
    "override_texts",
    "path_of",
    "paths_of",
    "picture_file",
    "run_of",
    "seed_of",
    "seeds_of",
    "texts_of",
    "unseen_of",
]

PathLike = str | Path
WandbMode = Literal["offline", "online", "disabled"]
Overrides = Mapping[str, Any] | Sequence[str]


def path_of(path: PathLike) -> Path:
    """The path as a Path. Raises ValueError on what is none."""
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise ValueError(f"a path must be text or a Path, got {path!r}: name one file or folder")


def optional_path(path: PathLike | None) -> Path | None:
    """The path as a Path; None where there is none."""
    return None if path is None else path_of(path)


def paths_of(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """One path, or several, as Paths. Raises ValueError on what is none."""
    if isinstance(paths, Iterable) and not isinstance(paths, str | os.PathLike):
        return [path_of(path) for path in paths]
    return [path_of(paths)]


def texts_of(texts: str | Iterable[str], what: str) -> list[str]:
    """One text, or several, as a list. Raises ValueError on what is none."""
    if isinstance(texts, str):
        return [texts]
    listed = list(texts) if isinstance(texts, Iterable) else [texts]
    if all(isinstance(text, str) for text in listed):
        return listed
    raise ValueError(f'{what} must be a text or a list of texts, got {texts!r}: write ["..."]')


def seed_of(seed: int) -> int:
    """The seed itself. Raises ValueError on what is no whole number."""
    try:
        return operator.index(seed)
    except TypeError:
        raise ValueError(f"seed must be a whole number, got {seed!r}: write one, as 42") from None


def seeds_of(seeds: int | Iterable[int]) -> list[int]:
    """One seed, or several, as a list. Raises ValueError on what is none."""
    listed = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    try:
        return [operator.index(seed) for seed in listed]
    except TypeError:
        raise ValueError(
            f"seeds must be a list of whole numbers, got {seeds!r}: write [42, 43]"
        ) from None


def count_of(count: int, what: str) -> int:
    """The number itself. Raises ValueError on what is no whole number of at least 0."""
    try:
        number = operator.index(count)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(
            f"{what} must be a whole number of at least 0, got {count!r}: write 0 for none"
        )
    return number


def unseen_of(unseen: str) -> str:
    """The rule itself. Raises ValueError on what is no text."""
    if isinstance(unseen, str):
        return unseen
    raise ValueError(
        f"unseen must be one text, got {unseen!r}: write last:20, random:20:SEED, or names with"
        " commas between"
    )


def callback_or_log(callback: Callback | None) -> Callback:
    """The callback, or one that logs: warnings are seen on stderr unless logging says otherwise.

    Raises ValueError on what is no callback.
    """
    if isinstance(callback, Callback | None):
        return LoggingCallback() if callback is None else callback
    raise ValueError(
        f"callback must be a dml_bench.Callback, got {callback!r}: derive a class from that, and"
        " override what you want to hear"
    )


def override_texts(overrides: Overrides) -> list[str]:
    """Overrides as `--set` takes them: `{"train.epochs": 3}` becomes `train.epochs=3`. Texts stand
    as a person types them, so that the same settings have the same name and run folder.

    Raises ValueError on what is neither a mapping nor texts, and on a value that TOML can't
    express.
    """
    if not isinstance(overrides, Mapping):
        texts = [overrides] if isinstance(overrides, str) else overrides
        if isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts):
            return list(texts)
        raise ValueError(
            f"overrides must be a mapping or a list of texts, got {overrides!r}: write them as"
            ' {"train.epochs": 3}'
        )
    texts = []
    for key, value in overrides.items():
        typed = plain(value)
        if not is_of_toml(typed):
            raise ValueError(
                f"overrides: {key} must be a text, number, truth value or list, got {value!r}:"
                f" {other_value(key, value)}"
            )
        texts.append(f"{key}={as_typed(typed)}")
    return texts


def is_of_toml(value: Any) -> bool:
    """Whether an override can be such a value: TOML has no nothing, no bytes, no set."""
    if isinstance(value, list):
        return all(is_of_toml(part) for part in value)
    return isinstance(value, str | bool | int | float)


def other_value(key: str, value: Any) -> str:
    """What to write in place of a value that no override can be."""
    if value is None:
        return "leave it out for its default"
    if isinstance(value, Mapping):
        return f"set its parts one by one, as {key}.PART"
    return "write it as one of these"


def plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and PyTorch as Python's own, and a path as text."""
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def as_typed(value: Any) -> str:
    """A value as a person types it after `--set KEY=`: a plain word where it is read as that."""
    from dml_bench.config.experiments import parse_value

    is_plain = isinstance(value, str) and value.isprintable() and value == value.strip() != ""
    if is_plain and parse_value(value) == value:
        return str(value)
    # Of these, JSON and TOML write the same, but for half characters and this one.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def experiment_of(
    experiment: "Experiment | str | Path", overrides: Overrides = (), *, demo: bool = False
) -> "Experiment":
    """The experiment itself, or the one of that name or file, with the overrides applied.

    Raises ValueError where a resolved experiment comes with overrides.
    """
    from dml_bench.config import Experiment
    from dml_bench.config.experiments import resolve

    if isinstance(experiment, Experiment):
        if overrides or demo:
            raise ValueError(
                f"{experiment.name} is resolved already: give the name with demo and overrides to"
                " resolve(), and its result alone to this function"
            )
        return experiment
    if not isinstance(experiment, str | Path):
        raise ValueError(
            f"an experiment must be a name, a file or what resolve() gives, got {experiment!r}:"
            " `dml-bench list experiments` lists the names"
        )
    profile = "demo" if demo else ""
    return resolve(str(experiment), profile=profile, overrides=override_texts(overrides))


def run_of(run: "Run | str | Path", data_dir: PathLike | None = None) -> "Run":
    """A finished run itself, or the one in a folder. Raises ValueError where the folder holds none,
    several, or one that has not ended or was changed since."""
    from dataclasses import replace

    from dml_bench.runs.run import Run, open_run

    if isinstance(run, Run):
        return run if data_dir is None else replace(run, data_dir=path_of(data_dir))
    return open_run(path_of(run), optional_path(data_dir))


def folder_and_images(
    run: "Run | str | Path", data_dir: PathLike | None
) -> tuple[Path, Path | None]:
    """The folder of a run, and where its images lie now if they were moved."""
    from dml_bench.runs.run import Run

    if isinstance(run, Run):
        return run.folder, run.data_dir if data_dir is None else path_of(data_dir)
    return path_of(run), optional_path(data_dir)


def picture_file(out: PathLike, suffixes: Sequence[str], default: str) -> Path:
    """A file to write whose name ends in one of the suffixes; its folder is made. Raises ValueError
    on another name."""
    path = path_of(out)
    if path.suffix.lower() not in suffixes:
        example = f"{path.stem or default}{suffixes[0]}"
        raise ValueError(
            f"--out {path}: the name must end in {' or '.join(suffixes)}, e.g. --out {example}"
        )
    return path
