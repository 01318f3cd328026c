"""The weights that a backbone begins a phase with, where they have to be trained first.

A stage is an experiment like any other, trained by the same loop: on other drawn species
(`model.weights = "source"`), or on the training images of the phase itself (`start`). What was
trained is kept and shared by all experiments that need the same.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dml_bench.config import Component, Experiment, Pretrain, as_table, load
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.inputs import open_image_inputs
from dml_bench.data.split import Phase, Split, make_split
from dml_bench.registry import starts
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import torch_threads
from dml_bench.system.files import (
    Damaged,
    is_whole,
    read_json,
    sha256_of,
    write_json,
    write_tensors,
)
from dml_bench.system.spare_threads import spare_threads
from dml_bench.training import checkpoint, loop
from dml_bench.training.build import build
from dml_bench.training.training_state import TrainingState

__all__ = ["Stage", "source_experiment", "stages"]

FORMAT = 5
"""Raised when a change of code changes the bits of a training."""


LATER_SETTINGS: dict[str, Any] = {
    "data.per_class": 0,
    "images.crop_from": 0,
    "train.head_lr_factor": 1.0,
    "train.layer_lr_decay": 1.0,
    "train.head_epochs": 0,
    "train.weight_decay_on": "all",
    "train.clip_value": 0.0,
    "train.clip_norm": 0.0,
    "model.head.dropout": 0.0,
    "optimizer.nesterov": False,
    "optimizer.betas": [0.9, 0.999],
    "sampler.drop_last": False,
    "labelling.listen_from": 0.0,
    "augment.padding": "reflection",
    "evaluate.attack_epsilon": 0.0,
    "evaluate.attack_steps": 10,
    "evaluate.tta_draws": 4,
    "evaluate.tta_plain_weight": 0.25,
    "mixing.pair_weight": "anchor",
    "model.lora_alpha": 16.0,
    "model.lora_rank": 0,
}
"""Settings that came after the first caches of trained stages, as they are where they change
nothing: a stage without them keeps its key, and caches of earlier versions are used."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A training that gives a backbone its first weights. Its place in `cache_dir` is a digest of
    all that decides its bits."""

    experiment: Experiment
    phase: Phase
    dataset: Dataset
    split: Split
    before: "Stage | None"
    """The stage that this one begins with."""
    cache_dir: Path
    device: torch.device
    precision: str
    threads: int
    """On how many threads torch trains it; where there are more, they help as far as the bits
    stay the same."""

    @property
    def key(self) -> str:
        """The first digits of a digest of all that decides the bits of the training."""
        table = without_later_settings(as_table(self.experiment))
        file = Path(self.experiment.model.weights).expanduser()
        facts = [
            FORMAT,
            self.precision,
            self.device.type,
            self.threads,
            table,
            self.phase.name,
            self.phase.held_out_classes,
            self.phase.fold_images,
            self.dataset.fingerprint,
            self.split.fingerprint,
            self.before.key if self.before else "",
            sha256_of(file) if file.is_file() else "",
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where the weights are kept."""
        backbone = self.experiment.model.backbone.name.replace(":", "_")
        return (
            self.cache_dir
            / "pretrained"
            / f"{self.experiment.name}-{backbone}-{self.key}.safetensors"
        )

    @property
    def first(self) -> "Stage":
        """The stage that is trained before all others that this one needs."""
        return self.before.first if self.before else self

    def work(self) -> dict[Path, int]:
        """Units of work (see `Callback.on_work`) that are left at most, by the file that they
        make."""
        if self._is_there:
            return {}
        images = len(self.phase.trains_on(self.dataset, self.split))
        monitored = self.phase.monitored_images(self.dataset, self.split).num_images
        own = 3 * self.experiment.train.views * images * self.experiment.train.epochs + monitored
        return {self.path: own} | (self.before.work() if self.before else {})

    def weights(self, callback: Callback) -> dict[str, Tensor]:
        """The backbone's state dict, statistics included: read, or trained now; an interrupted
        training goes on. Of several processes the first trains it, so that it is the same however
        many there are."""
        from filelock import FileLock
        from safetensors.torch import load_file

        with distributed.main_process_first():
            if not self._is_there:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(self.path.with_name(f".{self.path.stem}.lock")):
                    self._make(callback)
            with suppress(OSError):  # it is not there, or in a cache that can't be written to
                self._unfinished.unlink()
            return load_file(self.path)

    def _make(self, callback: Callback) -> None:
        from safetensors.torch import save

        if self._is_there:  # by the process that had the lock before
            return
        with spare_threads(torch.get_num_threads()), torch_threads(self.threads):
            state = self._train(callback)
        weights = {
            name: tensor.cpu().contiguous()
            for name, tensor in state.embedder.backbone.state_dict().items()
        }
        record = {"experiment": as_table(self.experiment), "records": state.records}
        write_json(self._record_path, record)
        write_tensors(self.path, save(weights))

    def record(self) -> dict[str, Any]:
        """What was trained and how it went, with the digest of the weights. Only after
        `weights`."""
        record = read_json(self._record_path, sealed=True)
        record["weights_sha256"] = sha256_of(self.path)
        return record | ({"before": self.before.record()} if self.before else {})

    @property
    def _is_there(self) -> bool:
        """Whether it was trained, and is on the disk as it was written: else it is trained anew, to
        the same bits."""
        return is_whole(self._record_path) and is_whole(self.path)

    @property
    def _record_path(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def _unfinished(self) -> Path:
        return self.path.with_suffix(".state.pt")

    def _train(self, callback: Callback) -> TrainingState:
        before = self.before.weights(callback) if self.before else None
        callback.note(
            f"training once, kept in {self.path.parent}: {self.experiment.name} weights for phase"
            f" {self.phase.name}"
        )
        epochs, images = (
            self.experiment.train.epochs,
            len(self.phase.trains_on(self.dataset, self.split)),
        )
        pixels = open_image_inputs(
            self.experiment,
            self.dataset,
            self.cache_dir,
            self.device,
            callback.progress,
            callback.warn,
        )
        state = build(
            self.experiment,
            self.phase,
            self.dataset,
            self.split,
            pixels,
            device=self.device,
            precision=self.precision,
            callback=callback,
            start=before,
        )
        if self._unfinished.exists():
            with suppress(Damaged):  # it begins anew, and ends with the same bits
                checkpoint.load(state, self._unfinished)
        name = (
            self.phase.name
            if self.phase.name == self.experiment.name
            else f"{self.phase.name}, {self.experiment.name} start"
        )
        callback.on_phase(name, epochs, images * self.experiment.train.views)
        writer = checkpoint.CheckpointWriter(self.device)
        try:
            loop.fit(state, lambda state: writer.save(state, self._unfinished))
        finally:
            writer.finish()
        return state


def stages(
    experiment: Experiment,
    phases: Sequence[Phase],
    dataset: Dataset,
    split: Split,
    cache_dir: Path,
    device: torch.device,
    precision: str,
    callback: Callback,
) -> dict[str, Stage | None]:
    """By phase, the stage whose weights it begins with; None where the configured weights are there
    to be loaded."""
    before = (
        _source(experiment, cache_dir, device, precision, callback)
        if experiment.model.weights == "source"
        else None
    )
    start = experiment.start
    stage = starts[start.name].build(experiment, **start.options)
    if stage is None:
        return {phase.name: before for phase in phases}
    return {
        phase.name: Stage(
            experiment=stage,
            phase=phase,
            dataset=dataset,
            split=split,
            before=before,
            cache_dir=cache_dir,
            device=device,
            precision=precision,
            threads=torch.get_num_threads(),
        )
        for phase in phases
    }


def without_later_settings(table: dict[str, Any]) -> dict[str, Any]:
    """The table of an experiment without those of LATER_SETTINGS that are off."""
    table = deepcopy(table)
    for key, off in LATER_SETTINGS.items():
        *sections, name = key.split(".")
        section = table
        for part in sections:
            section = section.get(part) or {}
        if name in section and section[name] == off:
            del section[name]
    return table


def source_experiment(experiment: Experiment) -> Experiment:
    """The classifier that makes the `source` weights for this experiment's backbone and image size.

    It stands in for ImageNet where no weights can be downloaded: real transfer learning, from drawn
    species that no benchmark uses.
    """
    recipe, size = experiment.pretrain or Pretrain(), experiment.images.size
    species = {
        "name": "source_species",
        "classes": recipe.classes,
        "per_class": recipe.per_class,
        "size": size * 9 // 8,
        "seed": recipe.seed,
    }
    backbone, pooling = (
        component_table(component)
        for component in (experiment.model.backbone, experiment.model.pooling)
    )
    return load(
        {
            "name": "source",
            "seed": recipe.seed,
            "data": {"dataset": species},
            "images": {"size": size},
            "augment": {"random_crop_from": size * 9 // 8, "horizontal_flip": 0.5},
            "model": {
                "backbone": backbone,
                "pooling": pooling,
                "weights": "none",
                "head": "identity",
            },
            "loss": "crossentropy",
            "optimizer": {"name": "sgd", "lr": recipe.lr, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": component_table(recipe.schedule),
            "train": {
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "precision": experiment.train.precision,
            },
            "evaluate": {"every": recipe.epochs},
        }
    )


def component_table(component: Component) -> dict[str, object]:
    return {"name": component.name, **component.options}


def _source(
    experiment: Experiment,
    cache_dir: Path,
    device: torch.device,
    precision: str,
    callback: Callback,
) -> Stage:
    source = source_experiment(experiment)
    with distributed.main_process_first():
        dataset = open_dataset(source.data.dataset, None, cache_dir, callback.progress)
    split = make_split(
        dataset, method="stratified", test_fraction=source.data.test_fraction, seed=source.seed
    )
    return Stage(
        experiment=source,
        phase=Phase("source"),
        dataset=dataset,
        split=split,
        before=None,
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        threads=1,  # else the results of a run depended on how many there were
    )
