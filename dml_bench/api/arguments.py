"""How the public functions read what people hand them: names, paths, finished runs, overrides."""

import json
from collections.abc import Mapping, Sequence
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
    "experiment_of",
    "folder_and_images",
    "optional_path",
    "override_texts",
    "picture_file",
    "run_of",
]

PathLike = str | Path
WandbMode = Literal["offline", "online", "disabled"]
Overrides = Mapping[str, Any] | Sequence[str]


def optional_path(path: PathLike | None) -> Path | None:
    """The path as a Path; None where there is none."""
    return None if path is None else Path(path)


def callback_or_log(callback: Callback | None) -> Callback:
    """The callback, or one that logs: warnings are seen on stderr unless logging says otherwise."""
    return LoggingCallback() if callback is None else callback


def override_texts(overrides: Overrides) -> list[str]:
    """Overrides as `--set` takes them: `{"train.epochs": 3}` becomes `train.epochs=3`.

    Raises ValueError on a value that TOML can't express.
    """
    if not isinstance(overrides, Mapping):
        return list(overrides)
    texts = []
    for key, value in overrides.items():
        if not isinstance(value, str | bool | int | float | list | tuple):
            raise ValueError(
                f"overrides: {key} must be a text, number, truth value or list, got {value!r}:"
                f" set its parts one by one, as {key}.PART"
            )
        texts.append(f"{key}={json.dumps(value)}")  # of these, JSON and TOML write the same
    return texts


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
    profile = "demo" if demo else ""
    return resolve(str(experiment), profile=profile, overrides=override_texts(overrides))


def run_of(run: "Run | str | Path", data_dir: PathLike | None = None) -> "Run":
    """A finished run itself, or the one in a folder. Raises ValueError where the folder holds none,
    several, or one that has not ended or was changed since."""
    from dataclasses import replace

    from dml_bench.runs.run import Run, open_run

    if isinstance(run, Run):
        return run if data_dir is None else replace(run, data_dir=Path(data_dir))
    return open_run(Path(run), optional_path(data_dir))


def folder_and_images(
    run: "Run | str | Path", data_dir: PathLike | None
) -> tuple[Path, Path | None]:
    """The folder of a run, and where its images lie now if they were moved."""
    from dml_bench.runs.run import Run

    if isinstance(run, Run):
        return run.folder, run.data_dir if data_dir is None else Path(data_dir)
    return Path(run), optional_path(data_dir)


def picture_file(out: PathLike, suffixes: Sequence[str], default: str) -> Path:
    """A file to write whose name ends in one of the suffixes; its folder is made. Raises ValueError
    on another name."""
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        example = f"{path.stem or default}{suffixes[0]}"
        raise ValueError(
            f"--out {path}: the name must end in {' or '.join(suffixes)}, e.g. --out {example}"
        )
    return path
