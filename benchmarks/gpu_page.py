"""reports/gpu/gpu.md from gpu.json, and from first_light.json what the same machine did before.

python benchmarks/gpu_page.py
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import heading, table

__all__ = ["GOALS", "page"]


@dataclass(frozen=True)
class Goal:
    """A bound that a measured value is held against."""

    what: str
    bound: float
    is_least: bool
    unit: str
    measure: Callable[[dict[str, Any]], float]

    def row(self, result: dict[str, Any], before: dict[str, Any]) -> list[str]:
        wanted = f"{'at least' if self.is_least else 'at most'} {self.bound:,g}{self.unit}"
        value = self.value(result)
        if value is None:
            return [self.what, wanted, self.shown(before), "not measured", ""]
        met = value >= self.bound if self.is_least else value <= self.bound
        outcome = "met" if met else "**missed**"
        return [self.what, wanted, self.shown(before), self.shown(result), outcome]

    def value(self, result: dict[str, Any]) -> float | None:
        try:
            return self.measure(result)
        except (KeyError, TypeError):
            return None

    def shown(self, result: dict[str, Any]) -> str:
        value = self.value(result)
        return "" if value is None else f"{number(value)}{self.unit}"


def row_minutes(result: dict[str, Any]) -> float:
    return result["epoch"]["row_minutes"]


GOALS = (
    Goal("training, images a second", 7500, True, "", lambda r: median(r["epoch"]["train_rates"])),
    Goal(
        "embedding, images a second", 22500, True, "", lambda r: median(r["epoch"]["embed_rates"])
    ),
    Goal("the GPU is busy", 90, True, " %", lambda r: 100 * r["epoch"]["busy_share"]),
    Goal("a ResNet-18 row of the study", 6, False, " min", row_minutes),
    Goal("the study's sixteen rows", 2.2, False, " h", lambda r: r["study"]["hours"]),
    Goal(
        "embeddings in float32 against the CPU's",
        1e-4,
        False,
        "",
        lambda r: r["parity"]["against_cpu"]["float32"]["embeddings_max"],
    ),
)


def median(values: list[float]) -> float:
    return statistics.median(values)


def number(value: float) -> str:
    """Whole where it is large, three digits where it is not."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def page(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Lines of Markdown; what was not measured is left out."""
    machine = result.get("ceilings", {})
    lines = [
        "",
        (
            f"- {machine.get('gpu', 'no GPU')}, cuDNN {machine.get('cudnn', '-')};"
            f" {number(machine.get('bfloat16_teraflops', 0))} TFLOP/s in bfloat16,"
            f" {number(machine.get('copy_terabytes_per_second', 0))} TB/s of copies"
        ),
        "",
        "## Goals",
        "",
        "`EPSHN_cosine_resnet18_sgd_aug`: 224 px, bfloat16, batches of 128, 11,800 images.",
        "`first light` is how the suite ran before it had seen a GPU.",
        "",
        *table(
            ["", "goal", "first light", "now", ""],
            [goal.row(result, before) for goal in GOALS],
        ),
    ]
    for section in (step, parity, study, loops, waits, what_if, searching):
        try:
            lines += ["", *section(result, before)]
        except (KeyError, TypeError, AttributeError):
            lines += ["", f"({section.__name__}: not measured)"]
    return lines


def step(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    epoch = result["epoch"]
    added = 128 / median(epoch["train_rates"]) * 1e3
    longest = [[name, number(ms)] for name, ms in list(epoch["longest_ms"].items())[:10]]
    return [
        "## A step",
        "",
        (
            f"A step takes {epoch['step_ms']:.1f} ms, in which kernels run for"
            f" {epoch['busy_ms']:.1f} ms ({epoch['kernels']:.0f} of them). The host needs"
            f" {epoch['host_ms']:.1f} ms to ask for it. In a whole epoch a step takes"
            f" {added:.1f} ms, so the parts add up to {epoch['step_ms'] / added:.0%} of the whole."
            f" Writing a checkpoint takes {epoch['checkpoint_seconds']:.2f} s an epoch. The most"
            f" GPU memory is {epoch['peak_gigabytes']:.1f} GB."
        ),
        "",
        *table(["kernel", "ms a step"], longest),
    ]


def parity(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    measured = result["parity"]
    against = [
        [name, f"{row['embeddings_max']:.1e}", f"{row['update_relative']:.1e}"]
        for name, row in measured["against_cpu"].items()
    ]
    pixels = [
        [name, str(row["levels_max"]), number(row["images_per_second"])]
        for name, row in measured["pixels"].items()
    ]
    repeats = [
        [name.removeprefix("same_bits_").replace("_", " "), "yes" if same else "**no**"]
        for name, same in measured["repeats"].items()
    ]
    return [
        "## The same as on a CPU, and the same again",
        "",
        *table(["against float32 on the CPU", "embeddings, most", "a step, relative"], against),
        "",
        *table(["crops and augmentations", "levels apart, most", "images a second"], pixels),
        "",
        *table(["the same seed gives the same bits", ""], repeats),
    ]


def study(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    rows = [
        [name, *map(number, (row["train_rate"], row["embed_rate"], row["hours"]))]
        if "hours" in row
        else [name, row["failed"], "", ""]
        for name, row in result["study"]["rows"].items()
    ]
    return [
        "## The study's rows",
        "",
        (
            "Hours are projected from measured steps: 1.79 million images trained on and 2.26"
            " million embedded a row. Loading, checkpoints and starts of processes come on top."
        ),
        "",
        *table(["", "trained a second", "embedded a second", "hours"], rows),
    ]


def loops(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    epoch, others = result["epoch"], result["loops"]
    ours = {
        "train_rate": median(epoch["train_rates"]),
        "embed_rate": median(epoch["embed_rates"]),
    }
    rows = [
        [
            name.replace("_", " "),
            number(row["train_rate"]),
            number(row["embed_rate"]),
            f"{ours['train_rate'] / row['train_rate']:.2f}",
        ]
        for name, row in {"ours": ours, **others}.items()
        if isinstance(row, dict)
    ]
    return [
        "## Beside other loops",
        "",
        (
            "`network alone` trains a classifier on one batch that never changes: no loop with this"
            " network is faster. `bare` is a loop without features on decoded images in the host's"
            " memory. `usual` is the loop that people write, on JPEG files of 500 x 375 pixels;"
            " `two lines` adds bfloat16 and channels-last."
        ),
        "",
        *table(["", "trained a second", "embedded a second", "ours over it"], rows),
    ]


def waits(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    rows = [
        [name, earlier_waits(before, name), str(row["waits"]), ", ".join(row["not_deterministic"])]
        if "waits" in row
        else [name, earlier_waits(before, name), row["failed"], ""]
        for name, row in result["audit"].items()
        if isinstance(row, dict)
    ]
    return [
        "## How often the host waits in a step",
        "",
        *table(["", "first light", "now", "no deterministic form"], rows),
    ]


def earlier_waits(before: dict[str, Any], name: str) -> str:
    row = before.get("audit", {}).get(name, {})
    return str(row.get("waits", "")) if isinstance(row, dict) else ""


def what_if(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    earlier = before.get("what_if", {})
    rows = [
        [name, shown(earlier.get(name, "")), shown(value)]
        for name, value in result["what_if"].items()
        if name != "stage_seconds"
    ]
    return [
        "## One change at a time",
        "",
        "Images a second, trained on where nothing else is said.",
        "",
        *table(["", "first light", "now"], rows),
    ]


def shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)[:80]


def searching(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    rows = [
        [name, f"{row['faiss_seconds']:.3f}", f"{row['device_seconds']:.4f}"]
        for name, row in result["searching"].items()
        if isinstance(row, dict)
    ]
    return [
        "## Search",
        "",
        "Seconds of an exact search of all vectors among all.",
        "",
        *table(["vectors", "FAISS on the CPU", "product and topk on the GPU"], rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    folder = parser.parse_args().out
    result = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    first = folder / "first_light.json"
    before = json.loads(first.read_text(encoding="utf-8")) if first.exists() else {}
    lines = [*heading("A GPU, measured", result), *page(result, before), ""]
    (folder / "gpu.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
