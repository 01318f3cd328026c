"""One process's work on one run folder: its phases one after another, then what they found
together."""

import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from dml_bench.config.experiments import read_profile
from dml_bench.data.check import describe_boxes
from dml_bench.data.datasets import Dataset
from dml_bench.data.identity import (
    DataFacts,
    OtherData,
    copies_of,
    data_facts,
    describe_alike_groups,
    describe_copies,
)
from dml_bench.data.inputs import ImageInputs, tta_views
from dml_bench.data.sessions import session_warning
from dml_bench.data.split import Phase, Split, held_out_by
from dml_bench.evaluation.collapse import doubts
from dml_bench.evaluation.hubness import hubness
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.scatter import scatter, scatter_by_group
from dml_bench.evaluation.statistics import PROPORTION, Scores, interval
from dml_bench.models.embedder import Embedder, Numerics
from dml_bench.protocols import protocol_of
from dml_bench.protocols.base import PhaseOutput, Result
from dml_bench.runs import arrays, layout
from dml_bench.runs import folder as run_folder
from dml_bench.runs.embed_and_search import evaluate_ensemble, evaluate_phase, labelling_cost
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.learning import UnkeptState, require_learning
from dml_bench.runs.mirror import Mirror, MirroredRun
from dml_bench.runs.record_format import COST_DIGITS, rounded
from dml_bench.runs.request import RunRequest
from dml_bench.runs.schema import (
    BegunEnvironment,
    EpochRecord,
    PhaseCost,
    PhaseSummary,
    Place,
    Session,
    Summary,
)
from dml_bench.system import distributed, provenance
from dml_bench.system.code_digest import code_digest
from dml_bench.system.files import Damaged, write_csv, write_json
from dml_bench.system.spare_threads import own_threads_only
from dml_bench.system.tables import ResultTable
from dml_bench.training import checkpoint, loop
from dml_bench.training.batches import epoch_batches, sampled
from dml_bench.training.build import build
from dml_bench.training.contact_sheet import contact_sheet
from dml_bench.training.folds import TrainingJob, out_of_fold_labels, training_jobs
from dml_bench.training.labels import given_labels
from dml_bench.training.pretraining import Stage, stages
from dml_bench.training.training_state import TrainingState

__all__ = ["RunSession", "write_tables"]

BOXES = 200
"""So many are held against their photos when a run begins; `data check` looks at all."""


class RunSession:
    """One process's work on one run folder. Of several that train together, the first writes, and
    decides by what is written."""

    def __init__(
        self,
        request: RunRequest,
        folder: RunFolder,
        dataset: Dataset,
        split: Split,
        pixels: ImageInputs,
        device: torch.device,
        numerics: Numerics,
    ):
        self.request = request
        self.experiment = request.experiment
        self.callback = request.callback
        self.folder = folder
        self.dataset = dataset
        self.split = split
        self.pixels = pixels
        self.device = device
        self.numerics = numerics
        self.untrained: Embedder | None = None
        """For the first training, where it has been built already: that takes as long as loading
        its weights."""
        self.protocol = protocol_of(self.experiment)
        self.phases = self.protocol.phases(self.experiment, dataset, split)
        self.members = {
            phase.name: training_jobs(
                self.experiment, phase, dataset, split, folder.phase(phase.name)
            )
            for phase in self.phases
        }
        self.records = folder.records()
        trained = [job.phase for jobs in self.members.values() for job in jobs]
        self.mirror = Mirror()
        self.photo_rates: dict[str, float] = {}
        self.shares_folder = request.is_beside or request.phases_at_once > 1
        self.writer = checkpoint.CheckpointWriter(device)
        self.stages = stages(
            self.experiment,
            trained,
            dataset,
            split,
            request.cache_dir,
            device,
            numerics.precision,
            self.callback,
        )
        self.unkept: UnkeptState | None = None
        """Of the training that begins, where it has components of one's own."""
        self.work: dict[str, float] = {}
        """Units of work that are left of each training, once the plan was said."""

    @distributed.main_process_only
    def begin(self) -> None:
        """Record where and on what this happens; refuse to go on with other data; start the mirror
        and say the plan."""
        here: Place = {
            **provenance.describe(),
            "device": (
                torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
            ),
            "threads": torch.get_num_threads(),
            "processes": distributed.world_size(),
            "precision": self.numerics.precision,
            "folded_batch_norm": self.numerics.folded_batch_norm,
            "code": code_digest(),
        }
        kind = self.experiment.data.described_split
        facts = data_facts(self.dataset, self.split, self.folder.path, kind)
        before = self.folder.begun
        if before:
            self._require_same_data(before, facts)
            self._warn_of_another_place(before["sessions"][-1], here)
        session: Session = {
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            **here,
        }
        digests = self.pixels.view_cache.digests
        copies = copies_of(self.dataset, self.split, self.phases, digests)
        self.environment: BegunEnvironment = {
            **facts,
            "copies": copies,
            "middle_only": list(self.pixels.train_cache.cut),
            "unseen_classes": [self.dataset.class_names[label] for label in self._unseen()],
            "wandb_id": before["wandb_id"] if before else secrets.token_hex(4),
            "sessions": [*(before["sessions"] if before else ()), session],
        }
        self.folder.write_environment(self.environment)
        self._write_split()
        self._start_mirror()
        self._say_plan()
        for copies_line in describe_copies(copies):
            self.callback.warn(copies_line)
        if divided_sessions := session_warning(self.dataset, self.experiment.data):
            self.callback.warn(divided_sessions)
        notes = [*self.dataset.notes, *self.split.notes]
        notes += describe_alike_groups(self.experiment.data, self.split)
        notes += describe_boxes(self.dataset, BOXES)
        for note in notes:
            self.callback.note(note)
        if self.experiment.data.split == "stratified" and {"train", "test"} <= set(
            self.dataset.parts or ()
        ):
            self.callback.note(
                f"{self.dataset.name} has train and test images of its own; --set data.split=given"
                " keeps them apart"
            )
        if blind := checkpoint.epochs_seen(self.experiment):
            self.callback.note(blind)

    def _require_same_data(self, before: DataFacts, now: DataFacts) -> None:
        """Raises OtherData where the run was begun on other images or another split."""
        fingerprints = {
            "dataset": (before["dataset"]["fingerprint"], now["dataset"]["fingerprint"]),
            "split": (before["split"]["fingerprint"], now["split"]["fingerprint"]),
        }
        for part, (old, new) in fingerprints.items():
            if old[:12] != new[:12]:
                raise OtherData(
                    f"{self.folder.path} was begun on other images ({part} fingerprint {old[:12]},"
                    f" now {new[:12]}); --force starts anew, --out DIR keeps both"
                )

    def _warn_of_another_place(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """`before` is of the last process that worked on the run."""
        last = {"processes": 1, "code": now["code"], "folded_batch_norm": False, **before}
        changed = [key for key in now if last.get(key) != now[key]]
        if changed:
            self.callback.warn(
                f"this run was begun with another {', '.join(changed)}: it goes on, but its"
                " numbers may differ from an uninterrupted run's"
            )

    def _unseen(self) -> list[int]:
        """Ids of all classes that are looked up and were not trained on in some phase."""
        never = held_out_by(self.phases)
        return sorted(never & set(self.dataset.labels[self.split.test].tolist()))

    def _write_split(self) -> None:
        part = np.full(len(self.dataset), "unused", dtype=object)
        part[self.split.valid], part[self.split.catalogue] = "valid", "catalogue"
        part[self.split.gallery], part[self.split.train], part[self.split.test] = (
            "gallery",
            "train",
            "test",
        )
        names = self.dataset.class_names
        columns = {
            "path": self.dataset.paths,
            "class": [names[label] for label in self.dataset.labels],
            "part": part,
            "sha256": self.dataset.digests,
        }
        if self.split.groups is not None:
            columns["group"] = self.split.groups
        rows = zip(*columns.values(), strict=True)
        write_csv(self.folder.path / layout.SPLIT, tuple(columns), rows)

    def _start_mirror(self) -> None:
        self.mirror = self.request.mirror(
            MirroredRun(
                experiment=self.experiment,
                folder=self.folder.path,
                run_id=self.environment["wandb_id"],
                notes=what_is_logged(self.phases),
                warn=self.callback.warn,
            )
        )
        if self.mirror.forgets:
            for record in self.records:
                self.mirror.log(record)

    def _say_plan(self) -> None:
        plan = []
        for phase in self.phases:
            plan += [self._planned(phase, job) for job in self.members[phase.name]]
        self.work = {job["name"]: job["work"] for job in plan}
        profile = self.experiment.profile
        self.callback.on_plan(
            {
                "experiment": self.experiment,
                "folder": self.folder.path,
                "environment": self.environment,
                "split": self.protocol.describe_split(self.experiment, self.environment["split"]),
                "unseen": self.protocol.describe_unseen(self.experiment),
                "profile": read_profile(profile)["summary"] if profile else "",
                "phases": plan,
            }
        )

    def _planned(self, phase: Phase, job: TrainingJob) -> dict[str, Any]:
        """One training of a phase: its size, and the units of work that are left of it (see
        `Callback.on_work`)."""
        train, split = job.experiment.train, self.split
        images = job.phase.trains_on(self.dataset, split)
        labels = given_labels(job.experiment, job.phase, self.dataset, split)
        drawn = sum(map(len, sampled(job.experiment, job.phase, images, labels[images])))
        done = sum(record["phase"] == job.phase.name for record in self.records)
        left = train.epochs - done
        validated = job.phase.monitored_images(self.dataset, split).num_images
        validations = -(-left // job.experiment.evaluate.every)  # rounded up
        if job.labels_only:
            embedded = len(job.phase.fold_images)
        else:
            evaluate = job.experiment.evaluate
            views = len(tta_views(evaluate.tta, evaluate.tta_draws))
            parts = (split.gallery, split.test, split.valid, split.catalogue)
            embedded = views * sum(map(len, parts))
        work = 3 * train.views * drawn * left + validated * validations + embedded
        sealed = run_folder.is_sealed(self.folder.phase(phase.name)) or (
            job.folder.exists() and run_folder.is_sealed(job.folder)
        )
        return {
            "name": job.phase.name,
            "classes": self.dataset.num_classes - len(phase.held_out_classes),
            "images": len(images),
            "epochs": train.epochs,
            "epochs_done": done,
            "work": 0 if sealed else work,
        }

    @distributed.main_process_only
    def _say_work_left(self) -> None:
        of_stages = {}  # by what it makes, as phases may begin from the same weights
        for phase, stage in self.stages.items():
            if stage and self.work.get(phase):
                of_stages.update(stage.work())
        self.callback.on_work(sum(self.work.values()) + sum(of_stages.values()))

    def make_source_weights(self) -> None:
        """Train what all phases begin with, where it is not there: before they part."""
        for stage in self.stages.values():
            if stage is not None and stage.first.phase.name == "source":
                self._say_work_left()
                stage.first.weights(self.callback)
                return

    def is_sealed(self, phase: Phase) -> bool:
        """Whether nothing is left to do of a phase."""
        return run_folder.is_sealed(self.folder.phase(phase.name))

    def finish_phase(self, phase: Phase) -> None:
        """Train what is left of a phase, evaluate it, seal it; a sealed phase is left as it is."""
        folder, jobs = self.folder.phase(phase.name), self.members[phase.name]
        if not distributed.broadcast_object(lambda: self.is_sealed(phase)):
            for job in jobs:
                self._finish(job, folder, [other for other in jobs if other.labels_only])
            self._seal(folder, jobs)
        self._end(folder, jobs)

    @distributed.main_process_only
    def _seal(self, phase_folder: Path, jobs: tuple[TrainingJob, ...]) -> None:
        if self.experiment.train.folds:
            evaluate_ensemble(
                [job.folder for job in jobs],
                self.experiment,
                self.dataset,
                self.split,
                phase_folder,
            )
        run_folder.seal_phase(phase_folder)

    @distributed.main_process_only
    def _end(self, folder: Path, jobs: tuple[TrainingJob, ...]) -> None:
        """Of a phase or a part of it that is sealed: what it still had to do, and what it would
        have gone on from."""
        self.work |= {job.phase.name: 0 for job in jobs}
        (folder / layout.CHECKPOINT).unlink(missing_ok=True)

    def _finish(
        self, job: TrainingJob, phase_folder: Path, labelling_jobs: Sequence[TrainingJob]
    ) -> None:
        """Train what is left of one model, and let it answer. A fold or a judge is sealed by
        itself. `labelling_jobs` are the judges of the phase."""
        job.folder.mkdir(exist_ok=True)
        own_folder = job.folder != phase_folder
        if not (
            own_folder and distributed.broadcast_object(lambda: run_folder.is_sealed(job.folder))
        ):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)  # each model's own
            run = self._trained(job, phase_folder)
            if not job.labels_only:
                names = [other.phase.name for other in labelling_jobs]
                labelling = labelling_cost(
                    self.experiment,
                    [record for record in self.records if record["phase"] in names],
                    [other.folder for other in labelling_jobs],
                )
                with own_threads_only():
                    evaluate_phase(run, self.split, job.folder, self.photo_rates, labelling)
            elif (judged := out_of_fold_labels(run)) and distributed.is_main_process():
                arrays.write_arrays(job.folder / layout.JUDGED, judged)
            if own_folder and distributed.is_main_process():
                run_folder.seal_phase(job.folder)
        if own_folder:
            self._end(job.folder, (job,))

    def _trained(self, job: TrainingJob, phase_folder: Path) -> TrainingState:
        untrained, self.untrained = self.untrained, None
        run = build(
            job.experiment,
            job.phase,
            self.dataset,
            self.split,
            self.pixels,
            device=self.device,
            precision=self.numerics.precision,
            callback=self.callback,
            start=self._start(self.stages[job.phase.name], job.folder),
            predicted=(
                None
                if job.labels_only
                else distributed.broadcast_object(lambda: self._judged(phase_folder))
            ),
            untrained=untrained,
        )
        require_learning(run)
        unfinished = job.folder / layout.CHECKPOINT
        if distributed.broadcast_object(unfinished.exists):
            self._resume(run, unfinished)
        if not self.records and self.mirror.listening and self.experiment.model.trainable == "all":
            with distributed.as_single_process():
                self.mirror.picture("training_batch", contact_sheet(run))
        if self.experiment.plugins is not None:
            self.unkept = UnkeptState(run)
        self._say_work_left()
        self.callback.on_phase(
            job.phase.name, job.experiment.train.epochs, sum(map(len, epoch_batches(run, 1)))
        )
        try:
            loop.fit(run, lambda run: self._keep(run, unfinished))
        finally:
            self.writer.finish()
        return run

    def _resume(self, run: TrainingState, unfinished: Path) -> None:
        try:
            checkpoint.load(run, unfinished)
        except Damaged as problem:
            raise ValueError(f"{problem}; delete it to train phase {run.phase.name} anew") from None
        self._record(run.phase.name, run.records)

    def _judged(self, phase_folder: Path) -> np.ndarray | None:
        """(images) what the judges of a phase hold its training images to be; None where it has
        none."""
        parts = [arrays.read_arrays(path) for path in layout.judged_files(phase_folder)]
        if not parts:
            return None
        predicted = self.dataset.labels.copy()
        for part in parts:
            predicted[part["images"]] = part["predicted"]
        return predicted

    def _start(self, stage: Stage | None, folder: Path) -> dict[str, Tensor] | None:
        """The weights that the phase begins with, where a stage makes them; what made them is kept
        beside the result."""
        if stage is None:
            return None
        self._say_work_left()
        weights = stage.weights(self.callback)
        if distributed.is_main_process():
            write_json(
                folder / layout.START, stage.record()
            )  # with what trained it and how that went
        return weights

    def _keep(self, run: TrainingState, path: Path) -> None:
        """State first, then the record of it: what a crash loses in between is written again from
        the state."""
        self._look_for_unkept_state(run)
        phase, records = run.phase.name, list(run.records)
        self.writer.save(
            run,
            path,
            then=lambda: self._record(phase, records),
            after=lambda: self.mirror.log(records[-1]),
        )

    def _look_for_unkept_state(self, run: TrainingState) -> None:
        """After the first epoch of a training in this process."""
        unkept, self.unkept = self.unkept, None
        if unkept is not None:
            for sentence in unkept.check(run):
                self.callback.warn(sentence)

    @distributed.main_process_only
    def _record(self, phase: str, records: list[EpochRecord]) -> None:
        with self._records_alone():
            others = [record for record in self.records if record["phase"] != phase]
            self.records = sorted(others + records, key=self._place)
            self.folder.write_records(self.records)

    @contextmanager
    def _records_alone(self) -> Iterator[None]:
        """Within, no other process writes records, and those of others are there."""
        if not self.shares_folder:
            yield
            return
        with FileLock(self.folder.records_lock):
            self.records = self.folder.records()
            yield

    def _place(self, record: EpochRecord) -> int:
        """Where the phase of an epoch stands among all trainings."""
        names = [job.phase.name for jobs in self.members.values() for job in jobs]
        return names.index(record["phase"])

    def _output(self, phase: Phase) -> PhaseOutput:
        """What the model of a sealed phase gave."""
        folder = self.folder.phase(phase.name)
        logits = arrays.Logits(folder / layout.LOGITS)
        embeddings = arrays.Embeddings(folder / layout.EMBEDDINGS)
        return PhaseOutput(
            neighbours=arrays.read_neighbours(folder / layout.NEIGHBOURS),
            predicted=logits.predicted if logits.path.exists() else None,
            probabilities=(lambda: logits.probabilities) if logits.path.exists() else None,
            query_embeddings=lambda: embeddings.query,
        )

    def _of_training(self, folder: Path) -> PhaseSummary:
        """Which epoch was kept, what became of labels and of attacked images, why its P@1 is to be
        doubted, and the P@1 of each fold with its mean, where a phase has these."""
        summary: PhaseSummary = {}
        if (folder / layout.FITTED).exists():
            summary["fitted"] = run_folder.read_json(folder / layout.FITTED)
        if (folder / layout.CHOSEN_EPOCH).exists():
            summary["chosen"] = run_folder.read_json(folder / layout.CHOSEN_EPOCH)
        if (folder / layout.ATTACKED).exists():
            summary["attacked"] = run_folder.read_json(folder / layout.ATTACKED)
        if (folder / layout.LABELS).exists():
            summary["labels"] = run_folder.read_json(folder / layout.LABELS)
        gallery = arrays.Embeddings(folder / layout.EMBEDDINGS).gallery
        reasons = doubts(gallery, arrays.read_neighbours(folder / layout.NEIGHBOURS))
        if reasons:
            summary["doubts"] = reasons["doubts"]
        folds = [arrays.read_neighbours(path) for path in layout.neighbours_of_folds(folder)]
        if folds:
            scores = [Scores(precision_at_1(fold), fold.query_labels) for fold in folds]
            mean = interval(scores, within=PROPORTION)
            summary["folds"] = {
                "precision_at_1_macro": [
                    interval([fold], within=PROPORTION).estimate for fold in scores
                ],
                "mean": mean.estimate,
                "low": mean.low,
                "high": mean.high,
            }
        return summary

    def _spread(self, phase: Phase) -> PhaseSummary:
        """How far the queries of a phase scatter against its gallery, and how unevenly that
        answers; nothing where each image is searched among all others, or has several labels."""
        folder = self.folder.phase(phase.name)
        neighbours = arrays.read_neighbours(folder / layout.NEIGHBOURS)
        if neighbours.leaves_one_out or self.protocol.label_sets:
            return {}
        stored = arrays.Embeddings(folder / layout.EMBEDDINGS)
        labels = neighbours.gallery_labels, neighbours.query_labels
        unseen = phase.held_out_classes or sorted(held_out_by(self.phases))
        groups = scatter_by_group(scatter(stored.gallery, stored.query, *labels), list(unseen))
        by_measure: dict[str, dict[str, dict[str, float]]] = {}
        for group, means in groups.items():
            by_measure[group] = {measure: mean.as_table() for measure, mean in means.items()}
        return {"scatter": by_measure, "hubness": hubness(neighbours).as_table()}

    def conclude(self) -> Summary:
        """Metrics, tables and the summary from what both phases found; seals the run."""
        costs: dict[str, PhaseCost] = {
            phase.name: run_folder.read_json(self.folder.phase(phase.name) / layout.COST)
            for phase in self.phases
        }
        outputs = {phase.name: self._output(phase) for phase in self.phases}
        result = self.protocol.evaluate(
            self.experiment, self.dataset, self.split, self.phases, outputs
        )
        kind = self.experiment.data.described_split
        tables = write_tables(result, self.folder.path, kind)
        metrics = result.summary()
        for phase in self.phases:
            of_training = self._of_training(self.folder.phase(phase.name)) | self._spread(phase)
            if of_training:
                metrics.setdefault("phases", {}).setdefault(phase.name, {}).update(of_training)
        session = self.environment["sessions"][-1]
        at_once = self.request.phases_at_once
        summary = {
            "schema_version": run_folder.SCHEMA_VERSION,
            "experiment": self.experiment.name,
            "protocol": self.experiment.protocol,
            "profile": self.experiment.profile,
            "seed": self.experiment.seed,
            "dataset": self.environment["dataset"],
            "split": self.environment["split"],
            "copies": self.environment["copies"],
            "unseen_classes": self.environment["unseen_classes"],
            **metrics,
            "cost": {
                **costs,
                "total_seconds": rounded(total_seconds(costs.values()), COST_DIGITS),
                "device": session["device"],
                "precision": session["precision"],
                "processes": session["processes"],
                "threads": session["threads"],
                "processor": session["processor"],
                **({"phases_at_once": at_once} if at_once > 1 else {}),
            },
        }
        self.mirror.tables(tables)
        self.mirror.summary({"split": kind, **result.highlights()})
        return self.folder.write_summary(summary)


def total_seconds(costs: Iterable[PhaseCost]) -> float:
    """Of all that phases do one after another."""
    seconds = 0.0
    for cost in costs:
        seconds += cost["start_seconds"]
        seconds += cost.get("labelling_seconds", 0.0)
        seconds += cost["train_seconds"]
        seconds += cost["watch_seconds"]
        seconds += cost["embed_seconds"]
        seconds += cost["search_seconds"]
    return seconds


def write_tables(result: Result, folder: Path, split_kind: str) -> dict[str, ResultTable]:
    """Write all tables of a result, and its predictions, into the run folder. Returns the tables by
    name, with the kind of split beside the numbers."""
    tables = {name: table.beside("split", split_kind) for name, table in result.tables().items()}
    for name, table in tables.items():
        write_csv(layout.table(folder, name), table.columns, table.rows)
    predictions = result.predictions()
    write_csv(folder / layout.PREDICTIONS, predictions.columns, predictions.rows)
    return tables


def what_is_logged(phases: Sequence[Phase]) -> str:
    """What the names of the curves stand for, which end in the number of their phase."""
    lines = []
    for phase in phases:
        lines.append(f"train_loss{phase.suffix}: the loss of phase {phase.name}")
        if phase.leaves_one_out:
            lines.append(
                f"valid_accuracy{phase.suffix}: P@1 of phase {phase.name} among the validation"
                " classes, mean over images"
            )
        else:
            queries = "all test images"
            if phase.held_out_classes:
                queries = "the test images of the classes that it trained on"
            lines.append(
                f"test_accuracy{phase.suffix}: P@1 of phase {phase.name} on {queries}, mean over"
                " images"
            )
    return "\n".join(lines)
