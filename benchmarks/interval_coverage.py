"""How often intervals hold the truth, how wide they are, and how much one answer moves them, in
simulated tables: ours, and those of simpler methods.

    python benchmarks/interval_coverage.py
    python benchmarks/interval_coverage.py --tables 2000 --seeds 3 --classes 40

Experiments of a table answer the same images. Whether an answer is right is drawn from a logistic
model: classes and images are easier or harder for all experiments, classes also for one of them, a
seed's model may be better than others, and each of its classes too. Each seed draws its own test
images. Writes coverage/README.md and coverage/coverage.json below --out.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import REPORTS, facts, heading, options_of, table
from scipy import optimize, special

from dml_bench.evaluation.statistics import (
    Interval,
    Scores,
    SeedPrior,
    fit_difference_prior,
    fit_seed_prior,
    interval,
)
from dml_bench.system.files import write_json

EXPERIMENTS = 8
"""Of a table."""
TEST_IMAGES, IMAGES = 12, 60
"""Of a class: looked up with one seed, and all there are."""
RESAMPLES = 500
OTHERS_TABLES = 150
"""In so many, the first ones, the other methods are tried too, which takes most of the time."""
BY_CLASS, BY_IMAGE, BY_CLASS_AND_SEED, BY_CLASS_AND_EXPERIMENT = 0.8, 1.0, 0.3, 0.4
"""Standard deviations in logits."""
SEEDS_DIFFER = {"little": 0.03, "much": 0.25}
"""Standard deviations, in logits, of what a seed's model is better by in all classes."""
PRECISIONS = (0.5, 0.97)
QUANTITIES = ("P@1", "difference")
OURS = ("t on classes x seeds, own seeds", "t on classes x seeds, seeds of the table")
OTHERS = (
    "bootstrap of classes",
    "bootstrap of classes x seeds",
    "t over seeds",
    "bootstrap of seeds in each class",
)
"""The last one is stratified by task, as rliable does it; the tasks are the classes."""
METHODS = (*OURS, *OTHERS)
WANTED = (0.93, 0.97)

Bounds = dict[str, np.ndarray]
"""By method, (quantity, 2) low and high."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is simulated."""

    seeds: int
    classes: int
    precision: float
    seeds_differ: str
    test_images: int = TEST_IMAGES

    def answers(self, chance: np.random.Generator) -> np.ndarray:
        """(experiment, seed, class, image) whether right."""
        shape = EXPERIMENTS, self.seeds, self.classes
        by_seed = SEEDS_DIFFER[self.seeds_differ]
        looked_up = chance.random((*shape[1:], IMAGES)).argpartition(self.test_images, axis=2)
        of_images = chance.normal(0, BY_IMAGE, (1, self.classes, IMAGES))
        logits = np.take_along_axis(of_images, looked_up[..., : self.test_images], 2)
        by_experiment = chance.normal(0, BY_CLASS_AND_EXPERIMENT, (EXPERIMENTS, 1, self.classes))
        skill = chance.normal(0, BY_CLASS, self.classes) + by_experiment
        skill = skill + chance.normal(0, by_seed, (EXPERIMENTS, self.seeds, 1))
        skill = skill + chance.normal(0, BY_CLASS_AND_SEED, shape) + self.intercept(by_seed)
        # Two models are right about the same images, beyond what makes these easy or hard.
        together = chance.random(logits.shape)
        alone = chance.random((EXPERIMENTS, *logits.shape))
        luck = np.where(chance.random(alone.shape) < 0.5, together, alone)
        return luck < special.expit(skill[..., None] + logits)

    def intercept(self, by_seed: float) -> float:
        """The logit with which P@1 is as wanted in the mean over all that is drawn."""
        parts = (BY_CLASS, BY_IMAGE, BY_CLASS_AND_SEED, BY_CLASS_AND_EXPERIMENT, by_seed)
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        nodes, weights = nodes * math.hypot(*parts), weights / weights.sum()
        return float(
            optimize.brentq(
                lambda logit: weights @ special.expit(logit + nodes) - self.precision, -15, 15
            )
        )

    @property
    def truths(self) -> np.ndarray:
        """(quantity) of `Intervals.bounds`."""
        return np.repeat([self.precision, 0.0], EXPERIMENTS // 2)


class Intervals:
    """All methods' intervals of the first half of a table's experiments, and of the differences of
    its pairs. Bootstraps resample alike in all tables of a cell, which saves most of their time."""

    def __init__(self, seeds: int, classes: int, chance: np.random.Generator):
        self.classes = chance.multinomial(classes, np.full(classes, 1 / classes), RESAMPLES)
        self.seeds = chance.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
        within = chance.multinomial(seeds, np.full(seeds, 1 / seeds), (RESAMPLES, classes))
        self.seeds_of_classes = np.swapaxes(within, 1, 2).astype(np.float32)

    def bounds(self, values: np.ndarray) -> Bounds:
        """Of (experiment, seed, class, image) answers, 1 where right."""
        differences = values[1::2] - values[::2]
        ours = self.ours(values)
        means = np.concatenate([values[: EXPERIMENTS // 2], differences]).mean(3)
        return {**ours, **self.others(means)}

    def ours(self, values: np.ndarray) -> Bounds:
        labels = np.repeat(np.arange(values.shape[2]), values.shape[3])
        rows = [scored(of_row, labels) for of_row in values]
        pairs = [scored(of_pair, labels) for of_pair in values[1::2] - values[::2]]
        prior, of_differences = fit_seed_prior(rows), fit_difference_prior(rows)
        measured: list[tuple[list[Scores], SeedPrior | None, float]] = []
        measured += [(row, prior, 0.0) for row in rows[: EXPERIMENTS // 2]]
        measured += [(pair, of_differences, -1.0) for pair in pairs]
        own, of_table = [], []
        for scores, usual, least in measured:
            own.append(ends(interval(scores, within=(least, 1.0))))
            of_table.append(ends(interval(scores, within=(least, 1.0), prior=usual)))
        return {OURS[0]: np.array(own), OURS[1]: np.array(of_table)}

    def others(self, means: np.ndarray) -> Bounds:
        """Of (quantity, seed, class) means."""
        _, seeds, classes = means.shape
        of_classes = self.classes @ means.mean(1).T / classes
        reweighted = np.einsum("bs,qsc->bqc", self.seeds, means)
        of_both = np.einsum("bqc,bc->bq", reweighted, self.classes) / (seeds * classes)
        flat = means.reshape(len(means), -1).T.astype(np.float32)
        of_seeds = self.seeds_of_classes.reshape(RESAMPLES, -1) @ flat / (seeds * classes)
        by_seed = means.mean(2)
        error = by_seed.std(1, ddof=1) / math.sqrt(seeds)
        reach = special.stdtrit(seeds - 1, 0.975) * error
        centre = by_seed.mean(1)
        return {
            OTHERS[0]: percentiles(of_classes),
            OTHERS[1]: percentiles(of_both),
            OTHERS[2]: np.stack([centre - reach, centre + reach], axis=1),
            OTHERS[3]: percentiles(of_seeds),
        }


def scored(answers: np.ndarray, labels: np.ndarray) -> list[Scores]:
    """(seed, class, image) answers."""
    return [Scores(of_seed.ravel(), labels) for of_seed in answers]


def ends(measured: Interval) -> tuple[float, float]:
    """Equal where there is no interval, so that it holds nothing."""
    if math.isnan(measured.low):
        return measured.estimate, measured.estimate
    return measured.low, measured.high


def percentiles(resampled: np.ndarray) -> np.ndarray:
    return np.quantile(resampled, [0.025, 0.975], axis=0).T


def simulate(cell: Cell, tables: int) -> list[dict[str, Any]]:
    """A row for each quantity: by method, how often the truth was held, its standard error, and the
    mean width."""
    chance = np.random.default_rng([cell.seeds, cell.classes, int(100 * cell.precision)])
    intervals = Intervals(cell.seeds, cell.classes, chance)
    held: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    widths: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    for place in range(tables):
        answers = cell.answers(chance)
        bounds_of = intervals.bounds if place < OTHERS_TABLES else intervals.ours
        for method, bounds in bounds_of(answers.astype(float)).items():
            holds = (bounds[:, 0] <= cell.truths) & (cell.truths <= bounds[:, 1])
            held[method].append(holds.reshape(2, -1).mean(1))
            widths[method].append((bounds[:, 1] - bounds[:, 0]).reshape(2, -1).mean(1))
    rows = []
    for place, quantity in enumerate(QUANTITIES):
        row: dict[str, Any] = {
            "quantity": quantity,
            "precision": cell.precision,
            "classes": cell.classes,
            "seeds": cell.seeds,
            "seeds_differ": cell.seeds_differ,
        }
        for method in METHODS:
            shares = np.array(held[method])[:, place]
            row[method] = {
                "coverage": float(shares.mean()),
                "standard_error": float(shares.std() / math.sqrt(len(shares))),
                "width": float(np.array(widths[method])[:, place].mean()),
            }
        rows.append(row)
    return rows


def flips(tables: int, per_table: int) -> list[dict[str, Any]]:
    """How much one flipped answer of 600 moves the width of the interval that it is in: three
    seeds, 40 classes, five images of each."""
    cell = Cell(3, 40, 0.5, "little", test_images=5)
    chance = np.random.default_rng(0)
    intervals = Intervals(cell.seeds, cell.classes, chance)
    moves: dict[tuple[str, str], list[float]] = {}
    for _ in range(tables):
        answers = cell.answers(chance)
        before = intervals.bounds(answers.astype(float))
        for _ in range(per_table):
            flipped = answers.copy()
            experiment = int(chance.integers(EXPERIMENTS // 2))
            place = (experiment, *(int(chance.integers(size)) for size in answers.shape[1:]))
            flipped[place] = ~flipped[place]
            after = intervals.bounds(flipped.astype(float))
            for method in METHODS:
                for quantity, index in (
                    (QUANTITIES[0], experiment),
                    (QUANTITIES[1], EXPERIMENTS // 2 + experiment // 2),
                ):
                    old, new = (np.diff(ends_of[method][index]) for ends_of in (before, after))
                    moves.setdefault((quantity, method), []).append(float(abs(new / old - 1)[0]))
    return [
        {
            "quantity": quantity,
            "method": method,
            "median": float(np.median(of_method)),
            "in_95_percent": float(np.quantile(of_method, 0.95)),
            "most": max(of_method),
        }
        for (quantity, method), of_method in moves.items()
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def coverage_lines(rows: list[dict[str, Any]], quantity: str) -> list[str]:
    body = []
    for row in rows:
        if row["quantity"] != quantity:
            continue
        numbers = [f"{percent(row[m]['coverage'])} / {percent(row[m]['width'])}" for m in METHODS]
        key = (f"{row['precision']:g}", row["classes"], row["seeds"], row["seeds_differ"])
        body.append([*map(str, key), *numbers])
    return table(["P@1", "classes", "seeds", "seeds differ", *METHODS], body)


def summary_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Over all rows."""
    body = []
    for method in METHODS:
        covered = np.array([row[method]["coverage"] for row in rows])
        widths = [row[method]["width"] / row[OURS[0]]["width"] for row in rows]
        good = int(((covered >= WANTED[0]) & (covered <= WANTED[1])).sum())
        body.append(
            [
                method,
                f"{percent(covered.min())} to {percent(covered.max())}",
                percent(covered.mean()),
                f"{good} of {len(rows)}",
                f"{np.mean(widths):.2f}",
            ]
        )
    return table(
        ["", "coverage, least to most", "mean", "rows of 93 to 97%", "width beside the first"], body
    )


def flip_lines(rows: list[dict[str, Any]]) -> list[str]:
    body = []
    for row in rows:
        moved = [percent(row[key]) for key in ("median", "in_95_percent", "most")]
        body.append([f"{row['quantity']}: {row['method']}", *moved])
    return table(["width moves by, %", "median", "in 95% of flips at most", "most"], body)


def outside(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of ours out of what is wanted, with the standard error of their coverage."""
    lines = []
    for row in rows:
        for method in OURS:
            coverage, error = row[method]["coverage"], row[method]["standard_error"]
            if not WANTED[0] <= coverage <= WANTED[1]:
                lines.append(
                    f"- {method}: {row['quantity']} at {row['precision']:g}, {row['classes']}"
                    f" classes, {row['seeds']} seeds that differ {row['seeds_differ']}:"
                    f" {percent(coverage)}% +- {percent(error)}"
                )
    return lines or ["- none"]


def page(result: dict[str, Any]) -> str:
    rows = result["coverage"]
    errors = [row[OURS[1]]["standard_error"] for row in rows]
    lines = [
        *heading("How often intervals hold the truth", result),
        "",
        (
            f"{result['tables']} simulated tables of {EXPERIMENTS} experiments for each row; the"
            f" other methods see {min(result['tables'], OTHERS_TABLES)} of them. A coverage of ours"
            f" has a standard error of {percent(float(np.median(errors)))} points (median;"
            f" at most {percent(max(errors))}). Wanted: 95%."
        ),
        "",
        *summary_lines(rows),
        "",
        "Ours outside 93 to 97%, with the standard error of the simulation:",
        "",
        *outside(rows),
    ]
    for quantity, title in zip(
        QUANTITIES, ("P@1 of an experiment", "Difference of two experiments"), strict=True
    ):
        lines += ["", f"## {title}", "", "Coverage in % / mean width in points.", ""]
        lines += coverage_lines(rows, quantity)
    lines += [
        "",
        "## One flipped answer of 600",
        "",
        "Three seeds, 40 classes with 5 queries each, P@1 .5. One answer of one seed is flipped.",
        "",
        *flip_lines(result["flips"]),
    ]
    return "\n".join([*lines, ""])


def cells(options: Any) -> list[Cell]:
    chosen = []
    for precision in PRECISIONS:
        for classes in options.classes:
            for seeds in options.seeds:
                chosen += [Cell(seeds, classes, precision, differ) for differ in SEEDS_DIFFER]
    return chosen


def timed(work: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    begun = time.process_time()
    rows = work()
    for row in rows:
        held = ", ".join(percent(row[method]["coverage"]) for method in METHODS)
        key = [row[name] for name in ("quantity", "precision", "classes", "seeds", "seeds_differ")]
        print(*key, held, f"({time.process_time() - begun:.0f} s)", flush=True)
    return rows


def main() -> None:
    options = options_of(__doc__, tables=600, seeds=(3, 5, 10), classes=(20, 40, 200))
    if options.quick:
        options.tables, options.seeds, options.classes = 4, [3], [20]
    rows = []
    for cell in cells(options):
        rows += timed(lambda cell=cell: simulate(cell, options.tables))
    result = {
        **facts(),
        "tables": options.tables,
        "coverage": rows,
        "flips": flips(2, 2) if options.quick else flips(30, 20),
    }
    text = page(result)
    print(text)
    out = (REPORTS.parent if options.out == REPORTS else options.out) / "coverage"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "coverage.json", result)
    (out / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
