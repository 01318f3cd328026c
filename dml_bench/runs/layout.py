"""Every file and folder inside a run folder, by the only name that the program has for it.

A run lies in RUNS/<experiment>/<data set>/seed-<n>. It holds a folder for each phase (`all`,
`limited`, ...). A phase that trains several models has a folder in it for each: fold-1, judge-1
(`training.folds` names them).
"""

import re
from pathlib import Path

__all__ = [
    "ATTACKED",
    "CHECKPOINT",
    "CHOSEN_EPOCH",
    "CORRECTIONS",
    "COST",
    "EMBEDDINGS",
    "ENVIRONMENT",
    "EXPERIMENT",
    "FITTED",
    "JUDGED",
    "LABELS",
    "LOGITS",
    "NEIGHBOURS",
    "OBJECTIVE",
    "PREDICTIONS",
    "RECORDS",
    "SEAL",
    "SPLIT",
    "START",
    "SUMMARY",
    "WANDB",
    "WEIGHTS",
    "folds_of",
    "gallery",
    "has_finished_run",
    "is_seed_name",
    "judged_files",
    "neighbours_of_folds",
    "projection",
    "records_below",
    "run_folder",
    "runs_below",
    "seed_name",
    "table",
]

EXPERIMENT = "experiment.json"
"""The experiment as it was resolved. A folder that holds it is a run folder."""
ENVIRONMENT = "environment.json"
"""The images, the split, and each process that worked on the run, with its versions and machine."""
RECORDS = "metrics.jsonl"
"""One line for each epoch of each phase."""
SPLIT = "split.csv"
"""Each image of the data set: its path, class, part, the SHA-256 of its bytes, and its group where
the split keeps groups whole."""
PREDICTIONS = "predictions.csv"
"""One row for each query."""
SUMMARY = "summary.json"
"""The result. It is written last: a folder without it holds no finished run."""
WANDB = "wandb"
"""What W&B writes for itself. It is not part of the result."""

# Of a phase, a fold or a judge.
CHECKPOINT = "state.pt"
"""From what an interrupted training goes on. It goes away when the phase is sealed."""
START = "start.json"
"""What made the weights that training began with."""
WEIGHTS = "weights.safetensors"
OBJECTIVE = "objective.safetensors"
EMBEDDINGS = "embeddings.safetensors"
NEIGHBOURS = "neighbours.safetensors"
LOGITS = "logits.safetensors"
COST = "cost.json"
ATTACKED = "attacked.json"
"""How well the logits do on images changed against them."""
CHOSEN_EPOCH = "chosen.json"
"""Which epoch was kept, where validation chose one."""
FITTED = "fitted.json"
"""What was fitted at once, where nothing was trained in epochs."""
LABELS = "labels.json"
"""What became of the training labels, where they were changed."""
CORRECTIONS = "corrections.csv"
"""Each change of a training label."""
JUDGED = "judged.safetensors"
"""What a judge holds the images to be that it did not train on."""
SEAL = "complete.json"
"""The SHA-256 of each file of the phase. It is written last: a phase without it is not complete."""


def seed_name(seed: int) -> str:
    """What the folder of one seed is called, and its record."""
    return f"seed-{seed}"


def is_seed_name(name: str) -> bool:
    """Whether something is called so."""
    return re.fullmatch(r"seed-\d+", name) is not None


def run_folder(out: Path, experiment: str, dataset: str, seed: int) -> Path:
    """The folder of one seed of an experiment on a data set."""
    return out / experiment / dataset / seed_name(seed)


def runs_below(experiment: Path) -> list[Path]:
    """The run folders of one experiment, whose own folder is given."""
    return sorted(file.parent for file in experiment.glob(f"*/seed-*/{EXPERIMENT}"))


def has_finished_run(runs: Path) -> bool:
    """Whether a folder of run folders holds a finished run."""
    return any(runs.glob(f"*/*/seed-*/{SUMMARY}"))


def records_below(folder: Path) -> list[Path]:
    """The records of runs in a folder, at any depth."""
    return sorted(folder.rglob("seed-*.json"))


def judged_files(phase: Path) -> list[Path]:
    """What the judges of a phase left."""
    return sorted(phase.glob(f"judge-*/{JUDGED}"))


def neighbours_of_folds(phase: Path) -> list[Path]:
    """What each fold of a phase found."""
    return sorted(phase.glob(f"fold-*/{NEIGHBOURS}"))


def folds_of(phase: str, files: list[str]) -> list[str]:
    """The folds of a phase that have weights, in order, as folders relative to the run folder.
    `files` are the names of the files that the run sealed, relative to it."""
    pattern = re.compile(rf"({re.escape(phase)}/fold-(\d+))/{re.escape(WEIGHTS)}")
    matches = [match for name in files if (match := pattern.fullmatch(name))]
    return [match[1] for match in sorted(matches, key=lambda match: int(match[2]))]


def table(run: Path, name: str) -> Path:
    """A table of the result, such as `all_classes_metrics`."""
    return run / f"{name}.csv"


def gallery(run: Path) -> Path:
    """Where galleries are kept that were changed after the run. They are not sealed with it."""
    return run / "gallery"


def projection(run: Path, phase: str) -> Path:
    """Where the map of a phase's embeddings is kept. It is not sealed with the run."""
    return run / "projection" / f"{phase}.safetensors"
