"""How the rates of the demo profile were chosen: P@1 of trials on other birds than the demo's.

    python benchmarks/demo_rates.py EXPERIMENT KEY=VALUE ...   # one more trial, and the table
    python benchmarks/demo_rates.py                            # the table of all trials again
    python benchmarks/demo_rates.py --again                    # all trials again

A trial trains phase `all` of an experiment with the demo profile and the settings after it, on
birds that are drawn from another seed, in as many classes and images. It is judged by P@1 of the
test images of these birds alone: by no image of the demo, no held-out class and no drop. With
`data.dataset.seed=7` it checks a choice on the demo's own birds, and chooses nothing. The record,
reports/demo_rates/demo_rates.json, has all trials. Trials with twice the epochs on the demo's own
birds show, beside the records, whether training has converged.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from common import REPORTS, facts, save, table
from filelock import FileLock

from dml_bench.config import Experiment, as_table
from dml_bench.config.experiments import resolve
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback, EpochRecord

FOLDER = REPORTS.parent / "demo_rates"
NAME = "demo_rates"
CHOOSING_BIRDS = 8
"""The seed of the birds that choose; the demo's is 7."""
DEMO_BIRDS = "data.dataset.seed=7"
RECORDS = REPORTS.parent.parent / "results" / "demo"
CONVERGED = 2
"""Points by which P@1 may change where all epochs are doubled."""
UNSAID = ("name", "summary", "profile", "expects", "evaluate", "plugins")
"""Sections that change no weight of a trial."""

Trial = dict[str, Any]


class Progress(Callback):
    """Says the end of each epoch."""

    def on_epoch(self, record: EpochRecord) -> None:
        losses = [value for key, value in record.items() if key.startswith("train_loss")]
        print(f"  {record['phase']}, epoch {record['epoch']}: loss {losses[0]:.3f}", flush=True)


def experiment_of(name: str, settings: list[str]) -> Experiment:
    """Measured once, after the last epoch."""
    birds = f"data.dataset.seed={CHOOSING_BIRDS}"
    return resolve(name, profile="demo", overrides=[birds, "evaluate.every=1000", *settings])


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flattened |= flat(value, f"{prefix}{key}.")
        else:
            flattened[f"{prefix}{key}"] = value
    return flattened


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """All that decides the weights, with dotted keys."""
    return flat({key: value for key, value in as_table(experiment).items() if key not in UNSAID})


def changed(experiment: Experiment) -> dict[str, Any]:
    """All in which the trial differs from the experiment without a profile."""
    plain, tried = settings_of(resolve(experiment.name)), settings_of(experiment)
    tried.pop("train.precision")  # a trial says what it computed in
    return {key: tried[key] for key in sorted(tried) if plain.get(key) != tried[key]}


def trained(name: str, settings: list[str], threads: int, cache: Path) -> Trial:
    """One trial; a training that diverges has P@1 0."""
    import torch

    from dml_bench.system.devices import choose_precision
    from dml_bench.system.memory import keep_freed_memory
    from dml_bench.system.seeding import deterministic
    from dml_bench.training import loop
    from dml_bench.training.build import build
    from dml_bench.training.inputs import open_inputs
    from dml_bench.training.pretraining import stages

    torch.set_num_threads(threads)
    deterministic()
    keep_freed_memory()
    experiment, device, callback = experiment_of(name, settings), torch.device("cpu"), Progress()
    precision = choose_precision(experiment.train.precision, device)
    inputs = open_inputs(experiment, None, cache, device, callback)
    phase = inputs.phases[0]
    stage = stages(
        experiment, (phase,), inputs.dataset, inputs.split, cache, device, precision, callback
    )[phase.name]
    start = stage.weights(callback) if stage else None
    began = time.process_time()
    state = build(
        experiment,
        phase,
        inputs.dataset,
        inputs.split,
        inputs.pixels,
        device=device,
        precision=precision,
        callback=callback,
        start=start,
    )
    trial: Trial = {
        "experiment": name,
        "settings": settings,
        "changed": changed(experiment),
        "precision": precision,
        "threads": threads,
    }
    try:
        loop.fit(state, lambda state: None)
    except loop.NonFiniteLoss as diverged:
        return trial | {"p_at_1": 0.0, "diverged": str(diverged)}
    records: list[dict[str, Any]] = [dict(record) for record in state.records]
    first, last = records[0], records[-1]
    labels = state.labels.summary(state.images)
    if labels["replaced"]:
        trial["labels"] = labels
    return trial | {
        "p_at_1": round(last["test_accuracy_macro"], 4),
        "logits_top_1": last.get("test_logits_accuracy"),
        "steps": len(state.records) * -(-len(state.images) // experiment.train.batch_size),
        "first_loss": round(first["train_loss"], 3),
        "last_loss": round(last["train_loss"], 3),
        "cpu_seconds": round(time.process_time() - began),
    }


def same(one: Trial, other: Trial) -> bool:
    keys = ("experiment", "changed", "precision", "threads")
    return all(one[key] == other[key] for key in keys)


def remember(trial: Trial, out: Path) -> None:
    """Put a trial into the record, in place of an earlier one like it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{NAME}.json"
    with FileLock(path.with_suffix(".lock")):
        trials = [earlier for earlier in read(out) if not same(earlier, trial)]
        write(out, [*trials, trial])


def read(out: Path) -> list[Trial]:
    path = out / f"{NAME}.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    return [
        trial | {"changed": record["changed_in_all"][trial["experiment"]] | trial["changed"]}
        for trial in record["trials"]
    ]


def changed_in_all(trials: list[Trial]) -> dict[str, dict[str, Any]]:
    """By experiment, what all of its trials changed to the same, which the record says once."""
    common: dict[str, dict[str, Any]] = {}
    for trial in trials:
        before = common.get(trial["experiment"], trial["changed"])
        common[trial["experiment"]] = dict(sorted(before.items() & trial["changed"].items()))
    return common


def write(out: Path, trials: list[Trial]) -> None:
    """The record and its page."""
    common = changed_in_all(trials)
    shortened = []
    for trial in sorted(trials, key=lambda trial: trial["experiment"]):
        own = trial["changed"].items() - common[trial["experiment"]].items()
        shortened.append(trial | {"changed": dict(sorted(own))})
    result = facts() | {"changed_in_all": common, "trials": shortened}
    lines = ["# Trials that chose the demo's rates", "", *(__doc__ or "").splitlines()[6:], ""]
    lines += ["Bold: what the profile does now. A dash: the value without a profile.", ""]
    for name in sorted({trial["experiment"] for trial in trials}):
        lines += [f"## {name}", "", *rows([t for t in trials if t["experiment"] == name]), ""]
    lines += ["## Twice the steps, on the demo's own birds", ""]
    lines += [
        "Means over the seeds of the trials; once: those of results/demo. Training has converged"
        f" where P@1 changes by less than {CONVERGED} points.",
        "",
    ]
    lines += [*doubled(trials), ""]
    save(NAME, result, "\n".join(lines), out)


def pairs_of(trials: list[Trial]) -> dict[str, list[tuple[float, float]]]:
    """By experiment, for each seed: P@1 of results/demo, in the profile's epochs, and of a trial in
    which only the epochs are others, twice as many; in percent."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for trial in trials:
        name = trial["experiment"]
        plain = experiment_of(name, [])
        seed, twice = trial["changed"].get("seed", plain.seed), 2 * plain.train.epochs
        settings = [DEMO_BIRDS, f"train.epochs={twice}", f"seed={seed}"]
        if trial["changed"] != changed(experiment_of(name, settings)):
            continue
        record = min(RECORDS.glob(f"*/{name}/seed-{seed}.json"))
        numbers = json.loads(record.read_text(encoding="utf-8"))["numbers"]
        pair = (100 * numbers["precision_at_1_macro"], 100 * trial["p_at_1"])
        pairs.setdefault(name, []).append(pair)
    return pairs


def means(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Over the seeds: P@1 once, and with twice the epochs."""
    once, twice = zip(*pairs, strict=True)
    return statistics.mean(once), statistics.mean(twice)


def doubled(trials: list[Trial]) -> list[str]:
    """The table of training once and for twice as long."""
    body = []
    for name, of_seeds in sorted(pairs_of(trials).items()):
        once, twice = means(of_seeds)
        row = [f"{once:.1f}", f"{twice:.1f}", f"{twice - once:+.1f}"]
        body.append([name, str(experiment_of(name, []).train.epochs), str(len(of_seeds)), *row])
    return table(["experiment", "epochs", "seeds", "P@1 once", "P@1 twice", "points"], body)


def rows(trials: list[Trial]) -> list[str]:
    """The trials of one experiment, best first, with the settings in which they differ; "-" is the
    value that the experiment has without a profile. What the profile does now is in bold."""
    keys = {key for trial in trials for key in trial["changed"]}
    varied = ["optimizer.lr", "pretrain.classes"]
    for key in sorted(keys.difference(varied)):
        tried = {str(trial["changed"].get(key)) for trial in trials}
        if len(tried) > 1:
            varied.append(key)
    now = changed(experiment_of(trials[0]["experiment"], []))
    body = []
    for trial in sorted(trials, key=lambda trial: -trial["p_at_1"]):
        values = [str(trial["changed"].get(key, "-")) for key in varied]
        p_at_1 = f"{trial['p_at_1']:.3f}"
        if trial["changed"] == now:
            p_at_1 = f"**{p_at_1}**"
        losses = "diverged"
        if "steps" in trial:
            losses = f"{trial['first_loss']} to {trial['last_loss']}"
        row = [p_at_1, *values, trial["precision"], str(trial["threads"]), losses]
        body.append([*row, describe_corrections(trial)])
    heads = ["P@1", *varied, "precision", "threads", "training loss", "corrections of labels"]
    if not any(row[-1] for row in body):
        heads, body = heads[:-1], [row[:-1] for row in body]
    return table(heads, body)


def describe_corrections(trial: Trial) -> str:
    """How many labels were replaced, and how many of them rightly."""
    labels = trial.get("labels", {})
    if not labels.get("replaced"):
        return ""
    rightly = round(labels["replaced"] * labels["replaced_precision"])
    return f"{rightly} of {labels['replaced']} right"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", nargs="?", help="by default no new trial is made")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--again", action="store_true", help="make all trials of the record again")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--cache-dir", type=Path)
    options = parser.parse_args()
    cache = cache_folder(options.cache_dir)
    if options.experiment:
        remember(trained(options.experiment, options.settings, options.threads, cache), options.out)
    elif options.again:
        for trial in read(options.out):
            # All that was changed then, whatever the profile changes now.
            settings = [f"{key}={json.dumps(value)}" for key, value in trial["changed"].items()]
            settings.append(f"train.precision={trial['precision']}")
            again = trained(trial["experiment"], settings, trial["threads"], cache)
            remember(again | {"settings": trial["settings"]}, options.out)
    else:
        write(options.out, read(options.out))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
