"""A named experiment from its data set to its sealed run folder."""

import secrets
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dml_bench import environment, results, tracking
from dml_bench.config import Experiment, as_table
from dml_bench.data.cache import UnreadableImages
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.sources import Pixels, open_pixels
from dml_bench.data.split import Phase, Split, disjoint_phases, holdouts, make_disjoint_split, make_split, phases
from dml_bench.evaluation.answers import Answers
from dml_bench.evaluation.neighbours import Neighbours, flat_index, search, search_leaving_one_out
from dml_bench.evaluation.retrieval import Retrieval
from dml_bench.files import write_atomically, write_csv
from dml_bench.model.embedder import build_embedder
from dml_bench.results import RunFolder
from dml_bench.seeding import deterministic
from dml_bench.training import loop, state
from dml_bench.training.pretraining import Stage, stages
from dml_bench.training.run import Run, build, choose_device, choose_precision, unit
from dml_bench.training.watch import Watch

__all__ = ["Outcome", "Request", "run"]

LATENCIES, WARM_UP = 50, 3
"""Images that are looked up one at a time to measure latency, and those before them that don't count."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to run and where; nothing here changes the numbers, except the device and its precision."""

    experiment: Experiment
    data_dir: Path | None = None
    out: Path = Path("runs")
    cache_dir: Path
    device: str = "auto"
    wandb: Literal["offline", "online", "disabled"] = "offline"
    force: bool = False
    watch: Watch = field(default_factory=Watch)


@dataclass(frozen=True)
class Outcome:
    folder: Path
    summary: dict[str, Any]
    already_finished: bool


def run(request: Request) -> Outcome:
    """Train and evaluate both phases, or go on where an earlier process stopped. Raises ValueError in words for people."""
    experiment, watch = request.experiment, request.watch
    device = choose_device(request.device)
    precision = choose_precision(experiment.train.precision, device)
    deterministic()
    dataset = open_dataset(experiment.data.dataset, request.data_dir, request.cache_dir, watch.progress)
    folder = RunFolder(request.out, experiment, dataset.name)
    with folder.lock():
        if request.force:
            folder.clear()
        folder.claim()
        if (summary := folder.summary()) is not None:
            return Outcome(folder.path, summary, already_finished=True)
        build_embedder(experiment)  # weights that can't be had are met here, before the images are decoded
        pixels, dataset = open_readable_pixels(experiment, dataset, request.cache_dir, device, watch)
        split = split_of(experiment, dataset)
        session = Session(request, folder, dataset, split, pixels, device, precision)
        session.begin()
        try:
            for phase in session.phases:
                session.finish_phase(phase)
            summary = session.conclude()
        finally:
            session.mirror.finish()
        return Outcome(folder.path, summary, already_finished=False)


def split_of(experiment: Experiment, dataset: Dataset) -> Split:
    """Who trains and who asks, by the experiment's protocol."""
    data = experiment.data
    if experiment.protocol == "class_disjoint":
        return make_disjoint_split(dataset, method=data.split, valid_fraction=data.valid_fraction)
    return make_split(dataset, method=data.split, test_fraction=data.test_fraction, seed=experiment.seed)


def open_readable_pixels(
    experiment: Experiment, dataset: Dataset, cache_dir: Path, device: torch.device, watch: Watch
) -> tuple[Pixels, Dataset]:
    """The image caches and the data set they hold, which leaves out what can't be decoded if the experiment allows that."""
    try:
        return open_pixels(experiment, dataset, cache_dir, device, watch.progress), dataset
    except UnreadableImages as problem:
        if not experiment.data.skip_unreadable:
            raise
        watch.warn(f"left out: {problem}")
        dataset = dataset.without(problem.images)
        return open_pixels(experiment, dataset, cache_dir, device, watch.progress), dataset


def write_state(path: Path, module: torch.nn.Module) -> None:
    data = to_safetensors({name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()})
    write_atomically(path, lambda file: file.write(data))


def latency(run: Run, gallery: np.ndarray, query: np.ndarray) -> dict[str, float]:
    """Milliseconds that one image alone takes, decoded already: through the network, and in the look-up of its 10 nearest."""
    index, taken = flat_index(gallery), []
    for image in query[: WARM_UP + LATENCIES]:
        start = time.perf_counter()
        embedding = run.embed(np.array([image]))
        embedded = time.perf_counter()
        index.search(embedding, min(10, len(gallery)))
        taken.append((embedded - start, time.perf_counter() - embedded))
    warm = np.array(taken[WARM_UP:] or taken) * 1000
    told = {}
    for name, column in (("embed", 0), ("look_up", 1)):
        told[f"{name}_ms_median"] = float(np.median(warm[:, column]))
        told[f"{name}_ms_p95"] = float(np.quantile(warm[:, column], 0.95))
    return told


class Session:
    """One process's work on one run folder."""

    def __init__(
        self, request: Request, folder: RunFolder, dataset: Dataset, split: Split, pixels: Pixels, device: torch.device, precision: str
    ):
        self.request = request
        self.experiment = request.experiment
        self.watch = request.watch
        self.folder = folder
        self.dataset = dataset
        self.split = split
        self.pixels = pixels
        self.device = device
        self.precision = precision
        if self.experiment.protocol == "class_disjoint":
            self.phases = disjoint_phases(dataset, split)
        else:
            self.phases = phases(holdouts(self.experiment.unseen, dataset))
        self.records = folder.records()
        self.stages = stages(self.experiment, self.phases, dataset, split, request.cache_dir, device, precision, self.watch)

    def begin(self) -> None:
        """Record where and on what this happens; refuse to go on with other data; start the mirror and say the plan."""
        here: dict[str, Any] = {
            **environment.describe(),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision": self.precision,
        }
        facts: dict[str, Any] = {
            "dataset": {
                "name": self.dataset.name,
                "root": str(self.dataset.root),
                "fingerprint": self.dataset.fingerprint,
                "num_images": len(self.dataset),
                "num_classes": self.dataset.num_classes,
                "left_out": list(self.dataset.left_out),
            },
            "split": {
                "fingerprint": self.split.fingerprint,
                "train_images": len(self.split.train),
                "valid_images": len(self.split.valid),
                "test_images": len(self.split.test),
            },
            "unseen_classes": [self.dataset.class_names[label] for label in self._unseen()],
        }
        before = self.folder.environment
        if before:
            for what in ("dataset", "split"):
                if before[what]["fingerprint"] != facts[what]["fingerprint"]:
                    raise ValueError(
                        f"{self.folder.path} was begun on other images ({what} fingerprint differs); --force starts anew, --out DIR keeps both"
                    )
            changed = [key for key in here if before["sessions"][-1].get(key) != here[key]]
            if changed:
                self.watch.warn(
                    f"this run was begun with another {', '.join(changed)}: it goes on, but its numbers may differ from an uninterrupted run's"
                )
        session = {"started_at": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv, **here}
        self.environment = {
            **facts,
            "wandb_id": before.get("wandb_id", secrets.token_hex(4)),
            "sessions": [*before.get("sessions", []), session],
        }
        self.folder.write_environment(self.environment)
        self._write_split()
        self._start_mirror()
        self._say_plan()

    def _unseen(self) -> list[int]:
        """Ids of all classes that are looked up and were not trained on in some phase."""
        never = {label for phase in self.phases for label in phase.excluded}
        return sorted(never & set(self.dataset.labels[self.split.test].tolist()))

    def _write_split(self) -> None:
        part = np.full(len(self.dataset), "valid", dtype=object)
        part[self.split.gallery], part[self.split.train], part[self.split.test] = "gallery", "train", "test"
        names = self.dataset.class_names
        rows = zip(self.dataset.paths, (names[label] for label in self.dataset.labels), part, strict=True)
        write_csv(self.folder.path / "split.csv", ("path", "class", "part"), rows)

    def _start_mirror(self) -> None:
        self.mirror = tracking.start(
            self.request.wandb,
            directory=self.folder.path,
            run_id=self.environment["wandb_id"],
            name=f"{self.experiment.name} seed {self.experiment.seed}",
            group=self.experiment.name,
            config=as_table(self.experiment),
            warn=self.watch.warn,
        )
        if self.request.wandb == "offline":  # each offline process makes a folder of its own: repeat what earlier ones logged
            for record in self.records:
                self.mirror.log(record)

    def _say_plan(self) -> None:
        plan = []
        for phase in self.phases:
            images = phase.trains_on(self.dataset, self.split)
            watched = sum(map(len, phase.watched(self.dataset, self.split)))
            done = sum(record["phase"] == phase.name for record in self.records)
            left = self.experiment.train.epochs - done
            embedded = watched * -(-left // self.experiment.evaluate.every) + len(self.split.gallery) + len(self.split.test)
            plan.append(
                {
                    "name": phase.name,
                    "classes": self.dataset.num_classes - len(phase.excluded),
                    "images": len(images),
                    "epochs": self.experiment.train.epochs,
                    "epochs_done": done,
                    "work": 0
                    if results.is_sealed(self.folder.phase(phase.name))
                    else 3 * self.experiment.train.views * len(images) * left + embedded,
                }
            )
        self.work = {phase["name"]: phase["work"] for phase in plan}
        self.watch.plan({"experiment": self.experiment, "folder": self.folder.path, "environment": self.environment, "phases": plan})

    def _say_work_left(self) -> None:
        begun = [stage.work() for phase, stage in self.stages.items() if stage and self.work[phase]]
        self.watch.work(sum(self.work.values()) + sum({path: units for work in begun for path, units in work.items()}.values()))

    def finish_phase(self, phase: Phase) -> None:
        """Train what is left of a phase, evaluate it, seal it; a sealed phase is left as it is."""
        folder = self.folder.phase(phase.name)
        if not results.is_sealed(folder):
            run = build(
                self.experiment,
                phase,
                self.dataset,
                self.split,
                self.pixels,
                device=self.device,
                precision=self.precision,
                watch=self.watch,
                start=self._start(self.stages[phase.name], folder),
            )
            unfinished = folder / "state.pt"
            if unfinished.exists():
                state.load(run, unfinished)
                self._record(run)
            self._say_work_left()
            self.watch.phase(phase.name, self.experiment.train.epochs, len(run.images))
            loop.fit(run, lambda run: self._keep(run, unfinished))
            self._evaluate(run, folder)
            results.seal_phase(folder)
        self.work[phase.name] = 0
        (folder / "state.pt").unlink(missing_ok=True)

    def _start(self, stage: Stage | None, folder: Path) -> dict[str, Tensor] | None:
        """The weights that the phase begins with, where a stage makes them; what made them is kept beside the result."""
        if stage is None:
            return None
        self._say_work_left()
        weights = stage.weights(self.watch)
        results.write_json(folder / "start.json", stage.record())  # with what trained it and how that went
        return weights

    def _keep(self, run: Run, path: Path) -> None:
        """State first, then the record of it: what a crash loses in between is written again from the state."""
        state.save(run, path)
        self._record(run)
        self.mirror.log(run.records[-1])

    def _record(self, run: Run) -> None:
        others = [record for record in self.records if record["phase"] != run.phase.name]
        self.records = others + run.records
        self.folder.write_records(self.records)

    def _evaluate(self, run: Run, folder: Path) -> None:
        """Gallery and queries embedded once, searched once with the most neighbours that any metric needs."""
        gallery, query = self.split.gallery, self.split.test
        start = time.perf_counter()
        outputs = run.outputs(query)
        embeddings = {"query": unit(outputs)}
        embeddings["gallery"] = embeddings["query"] if self.split.leaves_one_out else run.embed(gallery)
        embed_seconds = time.perf_counter() - start
        start = time.perf_counter()
        neighbours = self._search(embeddings["gallery"], embeddings["query"])
        search_seconds = time.perf_counter() - start
        cost = {
            "train_seconds": sum(record["train_seconds"] for record in run.records),
            "start_seconds": self._start_seconds(folder),
            "watch_seconds": sum(record.get("evaluate_seconds", 0.0) for record in run.records),
            "embed_seconds": embed_seconds,
            "search_seconds": search_seconds,
            "train_images_per_second": sum(r["train_images"] for r in run.records) / sum(r["train_seconds"] for r in run.records),
            "embed_images_per_second": (len(query) + len(gallery) * (not self.split.leaves_one_out)) / embed_seconds,
            "peak_memory_bytes": environment.peak_memory_bytes(),
            "gallery_bytes": embeddings["gallery"].nbytes,
            "parameter_bytes": sum(tensor.nbytes for tensor in run.embedder.parameters()),
            **latency(run, embeddings["gallery"], query),
        }
        if self.device.type == "cuda":
            cost["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        write_state(folder / "weights.safetensors", run.embedder)
        write_state(folder / "objective.safetensors", run.objective)
        results.write_arrays(folder / "embeddings.safetensors", {**embeddings, "gallery_images": gallery, "query_images": query})
        results.write_neighbours(folder / "neighbours.safetensors", neighbours)
        if run.objective.classifies and not self.split.leaves_one_out:
            results.write_arrays(folder / "logits.safetensors", {"predicted": run.classify(outputs)})
        results.write_json(folder / "cost.json", cost)

    def _start_seconds(self, folder: Path) -> float:
        """Training of the phase's own start, whether it was trained now or found; weights from elsewhere, as ImageNet's, cost nothing."""
        if self.experiment.start.name == "none":
            return 0.0
        return sum(record["train_seconds"] for record in results.read_json(folder / "start.json")["records"])

    def _search(self, gallery: np.ndarray, query: np.ndarray) -> Neighbours:
        labels, evaluate = self.dataset.labels, self.experiment.evaluate
        deepest = int(np.bincount(labels[self.split.gallery]).max())
        if self.split.leaves_one_out:
            return search_leaving_one_out(query, labels[self.split.test], max(*evaluate.recall_k, 10, deepest))
        needed = max(*evaluate.vote_k, *(evaluate.recall_k if self.experiment.protocol == "class_disjoint" else ()), 10, deepest)
        return search(gallery, query, labels[self.split.gallery], labels[self.split.test], needed)

    def _answers(self) -> Answers | Retrieval:
        folders = {phase.name: self.folder.phase(phase.name) for phase in self.phases}
        found = {name: results.read_neighbours(folder / "neighbours.safetensors") for name, folder in folders.items()}
        if self.experiment.protocol == "class_disjoint":
            return Retrieval(self.experiment, self.dataset, self.split, found["disjoint"])
        paths = {name: folder / "logits.safetensors" for name, folder in folders.items()}
        classified = {name: results.read_arrays(path)["predicted"] for name, path in paths.items() if path.exists()}
        return Answers(self.experiment, self.dataset, self.split, self.phases, found, classified)

    def conclude(self) -> dict[str, Any]:
        """Metrics, tables and the summary from what both phases found; seals the run."""
        cost = {phase.name: results.read_json(self.folder.phase(phase.name) / "cost.json") for phase in self.phases}
        answers = self._answers()
        answers.write(self.folder.path)
        summary = {
            "schema_version": results.SCHEMA_VERSION,
            "experiment": self.experiment.name,
            "protocol": self.experiment.protocol,
            "profile": self.experiment.profile,
            "seed": self.experiment.seed,
            **{key: self.environment[key] for key in ("dataset", "split", "unseen_classes")},
            **answers.summary(),
            "cost": {
                **cost,
                "total_seconds": sum(
                    c[key]
                    for c in cost.values()
                    for key in ("start_seconds", "train_seconds", "watch_seconds", "embed_seconds", "search_seconds")
                ),
                **{key: self.environment["sessions"][-1][key] for key in ("device", "precision", "threads", "processor")},
            },
        }
        self.mirror.tables(answers.tables())
        self.mirror.summary(answers.scalars())
        return self.folder.write_summary(summary)
