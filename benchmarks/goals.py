"""The goals for speed and size, each beside what the other benchmarks measured.

    python benchmarks/goals.py

Reads what lies in reports/speed and writes its README.md; what was not measured is named.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import options_of, table

__all__ = ["GOALS"]


@dataclass(frozen=True)
class Goal:
    what: str
    bound: float
    at_least: bool
    """Whether more is better."""
    unit: str
    file: str
    measure: Callable[[dict[str, Any]], float]

    def row(self, folder: Path) -> list[str]:
        wanted = f"{'at least' if self.at_least else 'at most'} {self.bound:g}{self.unit}"
        path = folder / f"{self.file}.json"
        if not path.exists():
            return [self.what, wanted, "not measured", ""]
        try:
            value = self.measure(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, IndexError, StopIteration):
            return [self.what, wanted, "not measured", f"[{self.file}]({self.file}.md)"]
        met = value >= self.bound if self.at_least else value <= self.bound
        return [
            self.what,
            wanted,
            f"{value:.3g}{self.unit}",
            f"[{'met' if met else '**missed**'}]({self.file}.md)",
        ]


def ratio(result: dict[str, Any], over: str, under: str, key: str = "epoch") -> float:
    """Median over the rounds of a ratio within a round."""
    values = result["values"]
    return statistics.median(
        a / b for a, b in zip(values[over][key], values[under][key], strict=True)
    )


def share_of_input(result: dict[str, Any]) -> float:
    """Percent of a training step's time that its batch takes to be made."""
    rate = {what: statistics.median(result["values"]["ours"][what]) for what in ("input", "step")}
    return 100 * (1 / rate["input"]) / (1 / rate["input"] + 1 / rate["step"])


def seconds(result: dict[str, Any], images: str, way: str) -> float:
    return statistics.median(run["seconds"] for run in result["sizes"][images][way])


def step_ratio(result: dict[str, Any], backbone: str, slow: str, fast: str) -> float:
    """Median over the rounds of how many times as fast a training step is."""
    taken = result["seconds"][backbone]
    return statistics.median(a / b for a, b in zip(taken[slow], taken[fast], strict=True))


def growth(result: dict[str, Any], first: str, last: str) -> float:
    """Percent by which the own memory of one run exceeds that of another."""

    def peak(name: str) -> float:
        return max(run["own_megabytes"] for run in result["peak"][name])

    return 100 * (peak(last) / peak(first) - 1)


def added_by_ray(result: dict[str, Any]) -> float:
    """Seconds that a suite on Ray adds to each run."""
    return statistics.median(result["added"]["Ray, two nodes"])


def mixed(result: dict[str, Any]) -> float:
    """The slowest technique's epoch over the epoch without."""
    plain = result["seconds"]["none"]
    slowdowns = []
    for name, taken in result["seconds"].items():
        if name != "none":
            by_round = [a / b for a, b in zip(taken, plain, strict=True)]
            slowdowns.append(statistics.median(by_round))
    return max(slowdowns)


def beside_other_loops(size: int, *, usual: float, two_lines: float) -> tuple[Goal, ...]:
    """A whole epoch, against the loop that people write, the same with its two lines, and the bare
    loop."""
    file = f"epoch-{size}"
    return (
        Goal(
            f"whole epoch at {size} px, times as fast as the usual loop",
            *(usual, True, "x", file),
            lambda r: ratio(r, "usual", "ours"),
        ),
        Goal(
            f"whole epoch at {size} px, times as fast as the usual loop with two lines",
            *(two_lines, True, "x", file),
            lambda r: ratio(r, "usual, two lines", "ours"),
        ),
        Goal(
            f"whole epoch at {size} px over the bare loop",
            *(1.05, False, "x", f"floor-{size}"),
            lambda r: ratio(r, "ours", "floor"),
        ),
    )


GOALS = (
    *beside_other_loops(224, usual=5.5, two_lines=2.3),
    *beside_other_loops(64, usual=3.5, two_lines=3.5),
    Goal("input pipeline's share of a step, 224 px", 5, False, "%", "epoch-224", share_of_input),
    Goal(
        "epoch with mixing over the same without, 64 px, the slowest",
        1.1,
        False,
        "x",
        "mixing-64",
        mixed,
    ),
    Goal(
        "epoch with mixing over the same without, 224 px, the slowest",
        1.1,
        False,
        "x",
        "mixing-224",
        mixed,
    ),
    Goal(
        "evaluation of 60,000 x 512 over one exact FAISS search",
        *(1.3, False, "x", "evaluation"),
        lambda r: seconds(r, "60000", "ours") / seconds(r, "60000", "faiss"),
    ),
    Goal(
        "its peak memory above the embeddings",
        *(2, False, " GB", "evaluation"),
        lambda r: max(run["gigabytes"] for run in r["sizes"]["60000"]["ours"]),
    ),
    Goal(
        "evaluation of 11,800 x 512, times as fast as AccuracyCalculator's default",
        *(5, True, "x", "evaluation"),
        lambda r: seconds(r, "11800", "pml") / seconds(r, "11800", "ours"),
    ),
    Goal(
        "fine-tuning EfficientNet-Lite0 at 96 px, times as fast as all in bfloat16",
        *(3, True, "x", "finetuning"),
        lambda r: step_ratio(r, "efficientnet_lite0", "all, bfloat16", "all, bfloat16_dense"),
    ),
    Goal(
        "fine-tuning MobileNetV2 at 96 px, times as fast as all in bfloat16",
        *(1.5, True, "x", "finetuning"),
        lambda r: step_ratio(r, "mobilenet_v2", "all, bfloat16", "all, bfloat16_dense"),
    ),
    Goal(
        "training the last stage of EfficientNet-Lite0, times as fast as all stages",
        *(3, True, "x", "finetuning"),
        lambda r: step_ratio(
            r, "efficientnet_lite0", "all, bfloat16_dense", "last:1, bfloat16_dense"
        ),
    ),
    Goal(
        "`dml-bench --help`",
        0.3,
        False,
        " s",
        "startup",
        lambda r: statistics.median(r["seconds"]["dml-bench --help"]),
    ),
    Goal(
        "`dml-bench list losses`",
        1,
        False,
        " s",
        "startup",
        lambda r: statistics.median(r["seconds"]["dml-bench list losses"]),
    ),
    Goal(
        "`dml-bench list experiments`",
        1,
        False,
        " s",
        "startup",
        lambda r: statistics.median(r["seconds"]["dml-bench list experiments"]),
    ),
    Goal(
        "`run` to its first step on cached images",
        *(10, False, " s", "startup"),
        lambda r: statistics.median(r["seconds"]["first training step, cached images"]),
    ),
    Goal(
        "opening the image caches of 11,788 images",
        *(1, False, " s", "trusted_pixels"),
        lambda r: statistics.median(run["open"] for run in r["values"]["opening"]),
    ),
    Goal(
        "comparing pixels with their digests, share of the first epoch at 224 px",
        *(2, False, "%", "trusted_pixels"),
        lambda r: statistics.median(
            100 * run["comparing"] / run["epoch"] for run in r["values"]["first epoch"]
        ),
    ),
    Goal(
        "damaged images of the cache that are found and mended",
        *(100, True, "%", "trusted_pixels"),
        lambda r: (
            100
            * r["damage"]["whole_again"]
            * r["damage"]["found"]
            / (r["damage"]["bits"] + r["damage"]["pages"])
        ),
    ),
    Goal(
        "first opening of 12,000 images in FiftyOne",
        180,
        False,
        " s",
        "browse",
        lambda r: r["seconds"]["first opening"][0],
    ),
    Goal(
        "first opening of 50,000 images in FiftyOne",
        180,
        False,
        " s",
        "browse",
        lambda r: r["seconds_by_images"]["50,000"]["first opening"][0],
    ),
    Goal(
        "the first UMAP of 12,000 x 128 on a machine, with all that it compiles",
        *(30, False, " s", "umap_map"),
        lambda r: statistics.median(made["seconds"] for made in r["maps"]["nothing compiled"]),
    ),
    Goal(
        "later openings",
        20,
        False,
        " s",
        "browse",
        lambda r: statistics.median(r["seconds"]["later"]),
    ),
    Goal(
        "seconds that a suite on a Ray cluster of two nodes adds to each of 200 tiny runs",
        *(2, False, " s", "ray_jobs"),
        added_by_ray,
    ),
    Goal(
        "growth of own memory from 1 to 16 epochs",
        5,
        False,
        "%",
        "memory",
        lambda r: growth(r, *names(r, "1000 images")),
    ),
    Goal(
        "growth of own memory from 1,000 to 16,000 images",
        25,
        False,
        "%",
        "memory",
        lambda r: growth(r, *names(r, " 1 epochs")),
    ),
)


def names(result: dict[str, Any], part: str) -> tuple[str, str]:
    """The first and the last run whose name has that part."""
    matching = [name for name in result["peak"] if part in name]
    return matching[0], matching[-1]


def main() -> None:
    options = options_of(__doc__)
    others = sorted(path.stem for path in options.out.glob("*.md") if path.stem != "README")
    lines = [
        "# Speed and size",
        "",
        (
            "Made by `make bench`, from the JSON files beside it; never edited by hand. How to"
            " read it: benchmarks/README.md."
        ),
        "",
        *table(["goal", "wanted", "measured", ""], [goal.row(options.out) for goal in GOALS]),
        "",
        "Pages: " + ", ".join(f"[{name}]({name}.md)" for name in others) + ".",
        "",
        "No figure here was measured on a GPU.",
        "",
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "README.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
