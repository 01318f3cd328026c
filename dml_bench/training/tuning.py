"""A search for settings: trials that train on some of the known classes, and are judged by others.

No trial sees a test image, or an image of a class that any phase of the experiment holds out. Each
trial is a pure function of those before it, so a search that was stopped and goes on equals one
that was not. Settings are proposed by the tree-structured Parzen estimator of optuna (Bergstra et
al. 2011); the first trial has the settings of the experiment's file.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dml_bench.config import Experiment, as_table, load
from dml_bench.config.experiments import assign, value_at
from dml_bench.config.sections import Tuned
from dml_bench.config.tuning import TuningSpace
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split, held_out_by
from dml_bench.evaluation.metrics import macro, map_at_r
from dml_bench.evaluation.search import search_leaving_one_out
from dml_bench.models.embedder import build_embedder
from dml_bench.models.precision import network_precision
from dml_bench.registry import schedules
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_device
from dml_bench.system.files import Damaged, Shape, defined, read_json, write_json
from dml_bench.system.memory import keep_freed_memory
from dml_bench.system.seeding import deterministic, permutation
from dml_bench.training import loop
from dml_bench.training.build import build
from dml_bench.training.inputs import TrainingInputs, open_inputs
from dml_bench.training.pretraining import stages
from dml_bench.training.training_state import Diverged, TrainingState

__all__ = [
    "SEARCHES",
    "Search",
    "Trial",
    "TuningRequest",
    "read_search",
    "search_files",
    "search_settings",
]

Settings: TypeAlias = dict[str, float]

SEARCHES = "tuning"
"""The folder of searches, beside those of experiments."""
SCHEMA_VERSION = 1
SHAPE: Shape = {
    "schema_version": int,
    "experiment": dict,
    "space": {"name": str, "digest": str},
    "dataset": {"name": str, "fingerprint": str},
    "split": str,
    "validation_classes": [str],
    "trials": [
        {"settings": {...: int | float}, "score": int | float, "state": str, "reported": dict}
    ],
}
IN_EPOCHS = {
    "mixing.start_from": 0,
    "mixing.finetuning_epoch": 1,
    "train.head_epochs": 0,
    "start.epochs": 1,
}
"""Settings that are numbers of epochs, and become fewer with them, and the fewest that they become:
0 would say that mixing never ends, and a start has at least one."""
NOT_SEARCHED = {
    "data.": "decides images and labels",
    "images.": "decides how gallery and query are seen",
    "evaluate.": "no trial follows",
    "augment.resized_crop": "needs all images decoded anew for each value",
}
"""By the beginning of their keys, settings that no space may have, and why."""
HALVES = 4
"""How often a trial that may be stopped early is measured."""
UNTRIED = 2
"""So many trials have to be measured at an epoch before another may be stopped there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training with proposed settings."""

    settings: Settings
    """By key; of a multiple, the factor."""
    score: float
    """MAP@R on the validation classes, mean over classes; 0 where training diverged."""
    state: str
    """`complete`, `pruned` or `diverged`."""
    reported: Mapping[str, float]
    """The score by epoch, where it may be stopped early."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """All trials of an experiment so far."""

    experiment: Experiment
    """As its file has it."""
    space: str
    shared: bool
    """Whether it holds for experiments that extend this one."""
    multiples: tuple[str, ...]
    """The settings whose values are multiples of the experiment's own."""
    split: str
    validation_classes: tuple[str, ...]
    trials: tuple[Trial, ...]
    path: Path

    @property
    def best(self) -> Trial:
        """The complete trial with the highest score, the first of equals."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete or self.trials, key=lambda trial: trial.score)

    @property
    def own(self) -> Trial:
        """The trial with the settings of the experiment's file."""
        return self.trials[0]

    def describe(self) -> str:
        """The chosen settings beside the experiment's own, in lines for people."""
        lines = []
        for key, value in self.best.settings.items():
            own = f"(own {self.own.settings[key]:.3g})"
            beside = "times its own value" if key in self.multiples else own
            lines.append(f"{key} = {value:.3g} {beside}")
        counts = Counter(trial.state for trial in self.trials)
        ended = ", ".join(f"{counts[state]} {state}" for state in counts)
        classes = len(self.validation_classes)
        lines += [
            f"MAP@R on {classes} validation classes: {self.best.score:.3f} (own"
            f" {self.own.score:.3f})",
            f"{len(self.trials)} trials ({ended}), {self.path}",
        ]
        return "\n".join(lines)

    def chosen(self, experiment: Experiment) -> Settings:
        """The values that the search chose, for the searched experiment or one that extends it."""
        chosen = {}
        for key, value in self.best.settings.items():
            is_multiple = key in self.multiples
            chosen[key] = value * own_value(experiment, key) if is_multiple else value
        return chosen

    def tuned(self) -> Tuned:
        """What a run with these settings says of the search."""
        tried = [[trial.settings, trial.score, trial.state] for trial in self.trials]
        content = json.dumps([self.split, self.validation_classes, tried])
        return Tuned(
            space=self.space,
            by=self.experiment.name,
            trials=len(self.trials),
            settings=tuple(self.best.settings),
            score=round(self.best.score, 6),
            own_score=round(self.own.score, 6),
            unseen=self.experiment.unseen,
            split=self.split,
            study=hashlib.sha256(content.encode()).hexdigest(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningRequest:
    """What is searched, where, and for how long."""

    experiment: Experiment
    name: str
    """Under which the search is kept: that of the experiment, or of the variant."""
    space: TuningSpace
    trials: int
    data_dir: Path | None
    out: Path
    cache_dir: Path
    device: str
    callback: Callback


def search_settings(request: TuningRequest) -> Search:
    """Try settings until there are so many trials, and keep each as it ends. Raises ValueError
    where the experiment can't be searched, or the file holds a search of something else."""
    optuna = imported_optuna()
    plain = shortened(request.experiment, request.space)
    first = own_settings(plain, request.space)
    trainer = TrialTrainer(plain, request)
    path = search_file(
        request.out, request.name, trainer.inputs.dataset.name, request.experiment.seed
    )
    content = trainer.begun(path)
    trials = list(map(trial_of, content["trials"]))
    while len(trials) < request.trials:
        proposed = propose(optuna, trials, plain, request.space) if trials else first
        trials.append(trainer.train(proposed, trials))
        content["trials"].append(as_record(trials[-1]))
        write_json(path, content)
        request.callback.progress("trials", len(trials), request.trials)
    return read_search(path)


def search_file(out: Path, experiment: str, dataset: str, seed: int) -> Path:
    """Where the search of an experiment with a seed is kept."""
    return out / SEARCHES / experiment / dataset / f"{seed}.json"


def search_files(out: Path, experiment: str) -> list[Path]:
    """All files of an experiment's searches."""
    return sorted((out / SEARCHES / experiment).glob("*/*.json"))


def imported_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("tuning needs optuna: pip install 'dml-bench[tune]'") from None
    return optuna


def own_settings(experiment: Experiment, space: TuningSpace) -> Settings:
    """The settings of the first trial, which are the experiment's own. Raises ValueError where one
    is missing, outside of its range, or none that trials could try."""
    own = {}
    for key, of_key in space.of(experiment).items():
        for start, reason in NOT_SEARCHED.items():
            if key.startswith(start):
                raise ValueError(
                    f"the space {space.name} has {key}, which {reason}: leave it out of the space"
                )
        value = own_value(experiment, key)
        if of_key.times and not value:
            raise ValueError(
                f"{key} of {experiment.name} must not be 0, of which all multiples are 0: --set"
                f" another {key}"
            )
        own[key] = 1.0 if of_key.times else value
        if not of_key.low <= own[key] <= of_key.high:
            raise ValueError(
                f"{key} of {experiment.name} must be within the space {space.name}, {of_key.low:g}"
                f" to {of_key.high:g}, got {value:g}: widen the space in a file of your own and"
                " name it with --space FILE.toml"
            )
    return own


def propose(
    optuna: Any, trials: Sequence[Trial], experiment: Experiment, space: TuningSpace
) -> Settings:
    """What is tried after these trials. The sampler is made anew and seeded by their number, so
    that no state has to survive an interruption."""
    number_range = optuna.distributions.FloatDistribution
    distributions = {}
    for key, of_key in space.of(experiment).items():
        distributions[key] = number_range(of_key.low, of_key.high, log=of_key.log)
    # NumPy has no seeds below 0, and experiments may.
    sequence = np.random.SeedSequence([abs(experiment.seed), len(trials)])
    sampler = optuna.samplers.TPESampler(
        seed=int(sequence.generate_state(1)[0]), n_startup_trials=space.startup_trials
    )
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line for each study
    try:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in trials:
            ended = optuna.trial.create_trial(
                params=trial.settings, distributions=distributions, value=trial.score
            )
            study.add_trial(ended)
        return dict(study.ask(distributions).params)
    finally:
        optuna.logging.set_verbosity(verbosity)


def own_value(experiment: Experiment, key: str) -> float:
    """The number that an experiment has at a key. Raises ValueError where it has none."""
    try:
        value = value_at(experiment, key)
    except AttributeError:
        value = None
    if not isinstance(value, int | float):
        raise ValueError(
            f"the space has {key}, which {experiment.name} lacks: name a space without it with"
            " --space FILE.toml"
        )
    if isinstance(value, int):  # of settings that may be fractions, numbers are floats
        raise ValueError(
            f"the space has {key}, which is no fraction, as all are that trials try: name a space"
            " without it with --space FILE.toml"
        )
    return float(value)


def shortened(experiment: Experiment, space: TuningSpace) -> Experiment:
    """The experiment that a trial trains: for fewer epochs, and without what validation images
    choose. Raises ValueError for what a trial can't do."""
    if experiment.tuned is not None:
        raise ValueError(
            f"{experiment.name} has the settings of a search already: tune what it extends"
        )
    if not experiment.train.epochs:
        raise ValueError(f"{experiment.name} makes no steps, so there is nothing to tune")
    if experiment.train.folds or experiment.labelling.name == "softlabels":
        raise ValueError(
            f"{experiment.name} trains several models, each of which would be a trial: tune what it"
            " extends"
        )
    if experiment.labelling.options.get("listen_from"):
        raise ValueError(
            f"{experiment.name} waits with labelling.listen_from until its logits are right about"
            " validation images, and a trial trains on none of their classes: --set"
            " labelling.listen_from=0"
        )
    epochs = space.epochs_of(experiment)
    follows = schedules.of(experiment.schedule).facts["needs_validation"]
    table = as_table(experiment)
    if epochs < experiment.train.epochs:
        for key, value in fewer_epochs(experiment, epochs).items():
            assign(table, key, value)
    assign(table, "train.epochs", epochs)
    assign(table, "train.checkpoint", "last")
    if not follows:
        assign(table, "evaluate.every", max(1, epochs // HALVES) if space.prune else epochs)
    assign(table, "expects", [])
    shorter: Experiment = load(table)
    return shorter


def fewer_epochs(experiment: Experiment, epochs: int) -> dict[str, Any]:
    """By key, the settings that count epochs, for fewer of them: what begins or ends during the
    training does so in the shorter one, as far as there is an epoch for it."""
    before = experiment.train.epochs
    settings: dict[str, Any] = {}
    for key, fewest in IN_EPOCHS.items():
        current = value_at(experiment, key)
        if current:
            settings[key] = max(round(current * epochs / before), fewest)
    for key in ("mixing.start_from", "train.head_epochs"):
        if key in settings and value_at(experiment, key) < before:
            settings[key] = min(settings[key], epochs - 1)
    if "mixing.finetuning_epoch" in settings:
        earliest = settings.get("mixing.start_from", 0) + 1
        settings["mixing.finetuning_epoch"] = max(settings["mixing.finetuning_epoch"], earliest)
    if experiment.images.progressive:
        settings["images.progressive"] = list(experiment.images.progressive[-epochs:])
    return settings


class TrialTrainer:
    """Trains trials of one experiment on the same images."""

    def __init__(self, experiment: Experiment, request: TuningRequest):
        self.experiment = experiment
        self.request = request
        self.device = choose_device(request.device)
        self.precision = network_precision(
            experiment.train.precision, self.device, build_embedder(experiment)
        )
        deterministic()
        keep_freed_memory()
        inputs = open_inputs(
            experiment, request.data_dir, request.cache_dir, self.device, request.callback
        )
        self.inputs = inputs
        self.validation = validation_classes(experiment, inputs, request.space.valid_classes)
        self.phase, self.split = among_known_classes(inputs, self.validation)
        require_pairs(inputs.dataset, self.split.valid)

    def begun(self, path: Path) -> dict[str, Any]:
        """What the file of the search holds; a new one where there is none. Raises ValueError where
        it holds a search of other settings, images or classes."""
        names = self.inputs.dataset.class_names
        ranges = self.request.space.of(self.experiment)
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "experiment": as_table(self.request.experiment),
            "space": {
                "name": self.request.space.name,
                "digest": self.request.space.digest,
                "shared": self.request.space.shared,
                "startup_trials": self.request.space.startup_trials,
            },
            "multiples": [key for key, of_key in ranges.items() if of_key.times],
            "dataset": {
                "name": self.inputs.dataset.name,
                "fingerprint": self.inputs.dataset.fingerprint,
            },
            "split": self.inputs.split.fingerprint,
            "validation_classes": [names[label] for label in self.validation],
            "trials": [],
        }
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            return content
        before = read_content(path)
        # Settings that came after the search have their defaults.
        before["experiment"] = defined(as_table(load(before["experiment"])))
        before["multiples"] = multiples_in(before)
        before["space"].setdefault("startup_trials", self.request.space.startup_trials)
        for key, now in defined(content).items():
            if key != "trials" and before[key] != now:
                raise ValueError(
                    f"{path} holds a search with another {key}: move it away, or choose another"
                    " folder with --out DIR"
                )
        return before

    def train(self, proposed: Settings, before: Sequence[Trial]) -> Trial:
        """One trial, from the first weights to its score; `before` are those that ended."""
        start = time.perf_counter()
        reported: dict[str, float] = {}
        try:
            state = self.state(with_settings(self.experiment, proposed, self.request.space))
            loop.fit(state, lambda state: self.report(state, reported, before))
            score, ending = self.score(state), "complete"
        except Worse:
            score, ending = list(reported.values())[-1], "pruned"
        except Diverged:
            score, ending = 0.0, "diverged"
        seconds = round(time.perf_counter() - start, 3)
        return Trial(
            settings=proposed, score=score, state=ending, reported=reported, seconds=seconds
        )

    def state(self, experiment: Experiment) -> TrainingState:
        inputs, callback = self.inputs, self.request.callback
        stage = stages(
            experiment,
            (self.phase,),
            inputs.dataset,
            self.split,
            self.request.cache_dir,
            self.device,
            self.precision,
            callback,
        )[self.phase.name]
        return build(
            experiment,
            self.phase,
            inputs.dataset,
            self.split,
            inputs.pixels.changed_as(experiment),
            device=self.device,
            precision=self.precision,
            callback=Callback(),
            start=stage.weights(callback) if stage else None,
        )

    def report(
        self, state: TrainingState, reported: dict[str, float], before: Sequence[Trial]
    ) -> None:
        """Measure a trial on its way, where the space says so. Raises Worse where it is stopped."""
        epoch, epochs = state.records[-1]["epoch"], self.experiment.train.epochs
        is_measured = epoch % self.experiment.evaluate.every == 0 and epoch < epochs
        if not self.request.space.prune or not is_measured:
            return
        reported[str(epoch)] = self.score(state)
        if is_worse(reported, str(epoch), before):
            raise Worse

    def score(self, state: TrainingState) -> float:
        """MAP@R of the validation images among themselves, mean over classes, by the true labels
        where training has wrong ones."""
        images = self.split.valid
        labels = state.dataset.labels[images]
        most = int(np.bincount(labels).max())
        neighbours = search_leaving_one_out(state.embed(images), labels, k=most)
        return float(macro(map_at_r(neighbours), labels))


class Worse(Exception):
    """A trial is worse than half of those before it."""


def is_worse(reported: Mapping[str, float], epoch: str, before: Sequence[Trial]) -> bool:
    """Whether the score at an epoch lies below the median of those that earlier trials had there
    (the median stopping rule of Golovin et al. 2017)."""
    scores = [trial.reported[epoch] for trial in before if epoch in trial.reported]
    return len(scores) >= UNTRIED and reported[epoch] < float(np.median(scores))


def validation_classes(
    experiment: Experiment, inputs: TrainingInputs, fraction: float
) -> np.ndarray:
    """Ids of the classes by which trials are judged: those that the split sets aside for
    validation, or else a part of those that no phase holds out, drawn by the seed. Raises
    ValueError where too few are known."""
    dataset, split = inputs.dataset, inputs.split
    trained = np.unique(dataset.labels[split.train])
    set_aside = np.setdiff1d(np.unique(dataset.labels[split.valid]), trained)
    if len(set_aside):
        return set_aside
    known = np.setdiff1d(trained, sorted(held_out_by(inputs.phases)))
    count = round(fraction * len(known))
    if count < 2 or len(known) - count < 2:
        raise ValueError(
            f"{len(known)} classes of {dataset.name} are held out by no phase, too few to train on"
            " some and validate on others: hold out fewer, e.g. --set unseen=random:20:1"
        )
    order = permutation(experiment.seed, "tuning", items=known)
    return np.sort(order[:count])


def among_known_classes(inputs: TrainingInputs, validation: np.ndarray) -> tuple[Phase, Split]:
    """The phase of a trial, and a split that has neither test images nor held-out classes."""
    dataset, split = inputs.dataset, inputs.split
    unused = {*validation.tolist(), *held_out_by(inputs.phases)}
    trained = split.train[~np.isin(dataset.labels[split.train], sorted(unused))]
    pool = np.union1d(split.train, split.valid)
    judged = pool[np.isin(dataset.labels[pool], validation)]
    absent = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[trained])
    trial_phase = Phase("tuning", tuple(absent.tolist()), leaves_one_out=True)
    no_queries = np.array([], dtype=split.train.dtype)
    return trial_phase, replace(split, train=trained, valid=judged, test=no_queries, gallery=judged)


def require_pairs(dataset: Dataset, images: np.ndarray) -> None:
    """Raises ValueError where no two of the validation images are of one class: no trial would have
    a score."""
    if np.bincount(dataset.labels[images]).max(initial=0) < 2:
        raise ValueError(
            f"each validation class of {dataset.name} has a single image, which nothing of its own"
            " class could find: add images, or raise data.per_class where that is set"
        )


def with_settings(
    experiment: Experiment, settings: Mapping[str, float], space: TuningSpace
) -> Experiment:
    """The experiment with proposed settings; a multiple becomes a value."""
    table, ranges = as_table(experiment), space.of(experiment)
    for key, value in settings.items():
        assign(table, key, value * own_value(experiment, key) if ranges[key].times else value)
    changed: Experiment = load(table)
    return changed


def as_record(trial: Trial) -> dict[str, Any]:
    return {
        "settings": trial.settings,
        "score": trial.score,
        "state": trial.state,
        "reported": dict(trial.reported),
        "seconds": trial.seconds,
    }


def trial_of(record: Mapping[str, Any]) -> Trial:
    return Trial(
        settings=dict(record["settings"]),
        score=float(record["score"]),
        state=record["state"],
        reported=record["reported"],
        seconds=float(record.get("seconds") or 0.0),
    )


def read_content(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path, SHAPE)
    except Damaged as problem:
        raise ValueError(f"{problem}; delete it to search anew") from None
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {content['schema_version']}, this program reads"
            f" {SCHEMA_VERSION}: delete it to search anew"
        )
    return content


def multiples_in(content: Mapping[str, Any]) -> list[str]:
    """The settings whose values are multiples. A file that doesn't say so has all or none."""
    if "multiples" in content:
        return list(content["multiples"])
    return list(content["trials"][0]["settings"]) if content["space"]["shared"] else []


def read_search(path: Path) -> Search:
    """The search in a file. Raises ValueError where there is none, or it was changed."""
    content = read_content(path)
    if not content["trials"]:
        raise ValueError(f"{path} has no trial yet: dml-bench tune goes on with it")
    return Search(
        experiment=load(content["experiment"]),
        space=content["space"]["name"],
        shared=bool(content["space"]["shared"]),
        multiples=tuple(multiples_in(content)),
        split=content["split"],
        validation_classes=tuple(content["validation_classes"]),
        trials=tuple(map(trial_of, content["trials"])),
        path=path,
    )
