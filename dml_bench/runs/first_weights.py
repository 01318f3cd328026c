"""Whether a run would begin with weights of another run that trained on what it must not see."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dml_bench.config import Experiment, load
from dml_bench.data.datasets import Dataset
from dml_bench.data.datasets.dataset import image_digest
from dml_bench.data.split import Phase, Split, held_out_by
from dml_bench.protocols import protocol_named
from dml_bench.runs import layout
from dml_bench.system.files import Damaged, read_csv, read_json

__all__ = ["require_unseen_by_weights", "run_of_weights"]


def run_of_weights(experiment: Experiment) -> Path | None:
    """The run folder in which the file of the first weights lies; None where it lies in none that
    kept its images, and where they come from no file."""
    file = Path(experiment.model.weights).expanduser()
    if file.is_file():
        for folder in file.resolve().parents:
            if (folder / layout.EXPERIMENT).is_file() and (folder / layout.SPLIT).is_file():
                return folder
    return None


def require_unseen_by_weights(
    experiment: Experiment,
    dataset: Dataset,
    split: Split,
    phases: Sequence[Phase],
    judged_by: Sequence[int] = (),
) -> None:
    """Raises ValueError where the file of the first weights lies in the folder of a run that
    trained on a test or validation image of this one, or on an image of a class that is held out,
    or by which trials are judged. What other runs that one began with is not looked at."""
    folder = run_of_weights(experiment)
    if folder is None:
        return
    file = Path(experiment.model.weights).expanduser()
    seen = images_trained_on(folder, file.resolve())
    kept_apart = np.isin(dataset.labels, sorted({*held_out_by(phases), *judged_by}))
    kept_apart[split.test] = kept_apart[split.valid] = True
    digests = dataset.image_digests
    leaked = [image for image in np.flatnonzero(kept_apart).tolist() if digests[image] in seen]
    if leaked:
        raise ValueError(
            f"model.weights is {file}, of a run that trained on {len(leaked):,} images that must be"
            f" unseen here (first: {dataset.paths[leaked[0]]}): take weights of other images, or"
            " those of a phase with the same split that holds the same classes out"
        )


def images_trained_on(folder: Path, file: Path) -> set[str]:
    """The digests, as `Dataset.image_digests`, of the images that the backbone in a file of a run
    folder trained on; of a phase whose hold-outs are not known, all training images of the run."""
    experiment = load(read_json(folder / layout.EXPERIMENT))
    if experiment.model.trainable == "head" and experiment.start.name == "none":
        return set()
    phase = file.relative_to(folder.resolve()).parts[0]
    held_out = held_out_in(folder).get(phase, [])
    digests = set()
    for row in read_csv(folder / layout.SPLIT):
        if row["part"] == "train" and row["class"] not in held_out:
            digests.add(image_digest(row.get("sha256", ""), row["path"]))
    return digests


def held_out_in(folder: Path) -> dict[str, list[str]]:
    """By phase, the names of the classes that a finished run held out."""
    try:
        summary = read_json(folder / layout.SUMMARY)
        return protocol_named(summary["protocol"]).held_out(summary)
    except (OSError, Damaged, KeyError, ValueError):
        return {}
