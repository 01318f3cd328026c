"""How the rates of heads on frozen backbones were chosen: P@1 of trials on training photographs.

    python benchmarks/head_rates.py --data-dir DIR           # all trials again, and the page

A trial trains on three quarters of the training images of `grocery`'s own split, and is judged by
P@1 of the last quarter of each class in the order of their names, which is that of shopping trips.
No test image, no held-out class and no drop has a part in it. All trials are on
EfficientNet-Lite0, and the choice is used for the other backbones too. The record is
reports/head_rates/head_rates.json.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import REPORTS, facts, save, table

from dml_bench.config.experiments import resolve
from dml_bench.data.split import Monitored, Phase
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback

FOLDER = REPORTS.parent / "head_rates"
NAME = "head_rates"
EPOCHS = (15,)
RATES = {"optimizer.lr": (0.001, 0.003, 0.01), "train.epochs": EPOCHS}
PROXIES = {"optimizer.lr": (0.003,), "train.proxy_lr_factor": (10,), "train.epochs": EPOCHS}
LOSSES: dict[str, dict[str, tuple[float, ...]]] = {
    "crossentropy_head": RATES,
    "EPSHN_cosine_head": RATES,
    "ArcFace_cosine_head": PROXIES,
    "SubCenterArcFace_cosine_head": PROXIES,
    "ProxyNCA_cosine_head": PROXIES,
    "ProxyAnchor_cosine_head": PROXIES,
    "MultiSimilarity_cosine_head": RATES,
    "SupCon_cosine_head": RATES,
}
"""What is tried for each, beside what the record has already."""
HELD_BACK = 4
"""One of so many training images of a class judges."""

Trial = dict[str, Any]


class Heads:
    """The data set and its images, opened once for all trials."""

    def __init__(self, data_dir: Path, cache: Path):
        import torch

        from dml_bench.training.inputs import open_inputs

        self.device = torch.device("cpu")
        self.inputs = open_inputs(
            resolve("EPSHN_cosine_head"), data_dir, cache, self.device, Callback()
        )
        self.judges = last_of_each_class(self.inputs.dataset.labels, self.inputs.split.train)

    def trained(self, name: str, settings: tuple[str, ...]) -> Trial:
        """One trial."""
        from dml_bench.models.embedder import build_embedder
        from dml_bench.models.precision import network_precision
        from dml_bench.training import loop
        from dml_bench.training.build import build

        experiment = resolve(name, overrides=settings)
        phase = Phase("all", fold_images=tuple(self.judges.tolist()))
        began = time.process_time()
        state = build(
            experiment,
            phase,
            self.inputs.dataset,
            self.inputs.split,
            self.inputs.pixels,
            device=self.device,
            precision=network_precision("auto", self.device, build_embedder(experiment)),
            callback=Callback(),
        )
        state = replace(state, monitored=Monitored(state.images, {"valid": self.judges}))
        trial: Trial = {"experiment": name, "settings": list(settings)}
        try:
            loop.fit(state, lambda state: None)
        except loop.NonFiniteLoss as diverged:
            return trial | {"p_at_1": 0.0, "diverged": str(diverged)}
        last: dict[str, Any] = dict(state.records[-1])
        return trial | {
            "p_at_1": round(last["valid_accuracy_macro"], 4),
            "logits_top_1": last.get("valid_logits_accuracy"),
            "first_loss": round(state.records[0]["train_loss"], 3),
            "last_loss": round(last["train_loss"], 3),
            "cpu_seconds": round(time.process_time() - began, 1),
        }


def last_of_each_class(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The last of the (images) indices of each class, in their order, which is that of names."""
    parts = []
    for label in np.unique(labels[images]):
        of_class = images[labels[images] == label]
        parts.append(of_class[len(of_class) - len(of_class) // HELD_BACK :])
    return np.sort(np.concatenate(parts))


def combinations(tried: dict[str, tuple[float, ...]]) -> list[tuple[str, ...]]:
    """All settings of a grid."""
    settings: list[tuple[str, ...]] = [()]
    for key, values in tried.items():
        settings = [(*earlier, f"{key}={value}") for earlier in settings for value in values]
    return settings


def page(trials: list[Trial]) -> str:
    """A table for each loss, best first; what its experiment does now is in bold."""
    lines = ["# Trials that chose the rates of heads on frozen backbones", ""]
    lines += [*(__doc__ or "").splitlines()[4:], ""]
    for name in LOSSES:
        rows = []
        of_loss = [trial for trial in trials if trial["experiment"] == name]
        for trial in sorted(of_loss, key=lambda trial: -trial["p_at_1"]):
            p_at_1 = f"{trial['p_at_1']:.3f}"
            if resolve(name, overrides=trial["settings"]) == resolve(name):
                p_at_1 = f"**{p_at_1}**"
            losses = trial.get("diverged") or f"{trial['first_loss']} to {trial['last_loss']}"
            rows.append([p_at_1, ", ".join(trial["settings"]), losses])
        lines += [f"## {name}", "", *table(["P@1", "settings", "training loss"], rows), ""]
    return "\n".join(lines)


def main() -> None:
    import torch

    from dml_bench.system.seeding import deterministic

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    deterministic()
    record = options.out / f"{NAME}.json"
    trials: list[Trial] = []
    if record.exists():
        trials = json.loads(record.read_text(encoding="utf-8"))["trials"]
    done = [(trial["experiment"], trial["settings"]) for trial in trials]
    heads = Heads(options.data_dir, cache_folder(options.cache_dir))
    for name, tried in LOSSES.items():
        for settings in combinations(tried):
            if (name, list(settings)) not in done:
                trials.append(heads.trained(name, settings))
                print(trials[-1], flush=True)
    save(NAME, facts() | {"trials": trials}, page(trials), options.out)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
