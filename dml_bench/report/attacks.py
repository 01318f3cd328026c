"""How right the logits are of test images that were changed against them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.statistics import (
    DIFFERENCE,
    PROPORTION,
    Interval,
    Scores,
    differences,
    interval,
)
from dml_bench.report.document import Block, Cell, Data, Row, Text
from dml_bench.report.format import interval_cell
from dml_bench.report.phase_tables import (
    PhaseFacts,
    experiments_table,
    folded_table,
    of_phases,
    phase_data,
)
from dml_bench.report.tables import name_cell

__all__ = ["attacks_blocks"]

ATTACKS = ("clean", "fgsm", "pgd")
ACCURACIES = tuple(f"logits_accuracy_{attack}" for attack in ATTACKS)
NUMBERS = ("epsilon", "steps", *ACCURACIES)
HEADS = ("seeds", "levels", "unchanged", "one step (FGSM)", "several steps (PGD)")
TITLE = "Accuracy under attack"
EXPLANATION = (
    "The part of the test images of trained classes whose class the logits choose: as the images"
    " are, and after each value of a pixel was changed by at most so many of its 255 levels,"
    " so that the loss grows. Of the first phase, means over images and seeds, with 95% intervals"
    " over classes, their images and seeds. Exploratory: no family of comparisons holds them."
)
CHANGE_HEADS = ("experiment", "without", "metric", "seeds", "difference", "low", "high")
DIFFERENCES = "The same minus that of the first experiment, image by image."


def attacks_blocks(study: Study) -> Iterator[Block]:
    """Two folded tables with a row for each experiment, a CSV file with a row for each phase of
    each run, and one of the differences; nothing where no image was attacked."""
    lines = [line for line in study.finished if of_phases(line, "attacked")]
    if not lines:
        return
    facts = {line.name: of_phases(line, "attacked") for line in lines}
    rows = [row_of(line, facts[line.name]) for line in lines]
    first, *others = lines
    different: list[Row] = []
    changes: list[list[Any]] = []
    for line in others:
        seeds, estimates = differences_of(facts[line.name], facts[first.name])
        if not estimates:
            continue
        different.append(row(line, seeds, estimates, is_signed=True))
        for metric, one in zip(ACCURACIES, estimates, strict=True):
            bounds = (one.estimate, one.low, one.high)
            changes.append([line.name, first.name, metric, len(seeds), *bounds])
    more: list[Block] = []
    if different:
        more.append(Text(DIFFERENCES, "soft"))
        more.append(experiments_table(f"{TITLE}, differences", HEADS, different))
    yield folded_table(TITLE, EXPLANATION, HEADS, rows, more)
    yield phase_data("attacks", NUMBERS, facts, lambda attacked: [attacked[n] for n in NUMBERS])
    yield Data("attack_changes", [*CHANGE_HEADS], changes)


def first_phase(facts: PhaseFacts) -> dict[int, dict[str, Any]]:
    """By seed, what is said of the first phase."""
    name = facts[0][1]
    return {seed: attacked for seed, phase, attacked in facts if phase == name}


def row_of(line: TableRow, facts: PhaseFacts) -> Row:
    """Means over seeds, with intervals where runs have the answers image by image."""
    seeds = first_phase(facts)
    estimates = []
    for attack, accuracy in zip(ATTACKS, ACCURACIES, strict=True):
        scores = [scores_of(attacked, attack) for attacked in seeds.values()]
        if all(len(values.values) for values in scores):
            estimates.append(interval(scores, average="micro", within=PROPORTION))
        else:
            means = [attacked[accuracy] for attacked in seeds.values()]
            estimates.append(Interval.around(float(np.mean(means)), math.nan, math.nan))
    return row(line, seeds, estimates, is_signed=False)


def differences_of(
    facts: PhaseFacts, of_first: PhaseFacts
) -> tuple[dict[int, dict[str, Any]], list[Interval]]:
    """The seeds that the two have in common, and what each attack makes of them; no differences
    where there are no such seeds, or no answers image by image."""
    seeds, first = first_phase(facts), first_phase(of_first)
    common = {seed: attacked for seed, attacked in seeds.items() if seed in first}
    estimates = []
    for attack in ATTACKS:
        own = [scores_of(attacked, attack) for attacked in common.values()]
        others = [scores_of(first[seed], attack) for seed in common]
        if not own or not all(len(scores.values) for scores in (*own, *others)):
            return common, []
        changes = differences(own, others)
        estimates.append(interval(changes, average="micro", within=DIFFERENCE))
    return common, estimates


def row(
    line: TableRow,
    seeds: Mapping[int, dict[str, Any]],
    estimates: Sequence[Interval],
    *,
    is_signed: bool,
) -> Row:
    epsilon = next(iter(seeds.values()))["epsilon"]
    cells = [name_cell(line), Cell(str(len(seeds)), len(seeds)), Cell(f"{epsilon:g}", epsilon)]
    cells += [Cell(interval_cell(one, is_signed=is_signed), one.estimate) for one in estimates]
    return Row(tuple(cells))


def scores_of(attacked: Mapping[str, Any], attack: str) -> Scores:
    """Whether each image was right; empty in runs of versions that kept the mean alone."""
    classes = attacked.get("right", {}).get(attack, ())
    right = np.array([*"".join(classes)], float)
    return Scores(right, np.repeat(np.arange(len(classes)), [len(images) for images in classes]))
