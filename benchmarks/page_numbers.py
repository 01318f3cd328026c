"""Writes the measured numbers of README.md and docs/ anew from the records in results/.

python benchmarks/page_numbers.py            writes them
python benchmarks/page_numbers.py --check    says which pages differ; exit code 1 where one does

A page marks a number in a sentence, and a table, by comments that are not shown:

    <!-- number of results/demo/stratified-last-10: EXPERIMENT METRIC percent -->61.2%<!-- end -->

    <!-- numbers of results/demo/stratified-last-10
    columns = { "P@1" = "precision_at_1_macro", "cost" = "cost_of_being_unseen" }
    rows = { "baseline" = "EPSHN_cosine_resnet18_sgd_aug" }
    -->
    ...
    <!-- end -->

A column `METRIC of FOLDER` is of other records, as of another kind of split. Where features can't
differ between phases, a cell of a drop or of a cost says why.

A number is written as `percent` (61.2%), `round_percent` (61%), `points` (20.3 points) or `round`;
with an interval as `percent_interval` (61.2% [56.0, 66.1]) or `points_interval`. EXPERIMENT is the
name of a row, or `pooled` for the mean over all metric-learning rows. METRIC is the name of a
metric, as in the CSV files of a report, or `seeds`, or a place in a run's summary such as
`phases.all.labels.memorised`, of which the mean over seeds is written, without an interval.

What a report compares is read from its CSV, which `dml-bench report` made from the records:

    <!-- number of reports/demo/family.csv: EXPERIMENT METRIC less_points -->3.8 points<!-- end -->

The row is the one of EXPERIMENT and METRIC, `METRIC.COLUMN` is another column than `difference`.
`more_points` and `less_points`, or without the unit `more` and `less`, are for sentences that say
the direction themselves. Where a CSV has a row for each seed and phase, METRIC is a column, of
which the sum is written (`count`), or two as `replaced_rightly/replaced`, the ratio of two sums.

What `benchmarks/decide.py` measured is read from its JSON: EXPERIMENT is the name of a set, with _
for a space, METRIC a place in what is said of it.

    <!-- number of reports/decide/decide.json: other_groceries final.known.estimate percent -->
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from math import nan
from pathlib import Path

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.study import QUANTITIES, Study
from dml_bench.evaluation.statistics import Interval
from dml_bench.protocols.metric import value_at
from dml_bench.report.format import cost_points, hundred, interval_cell, percent, points
from dml_bench.runs.metrics import measure, metric_of, metrics_of
from dml_bench.runs.run import Run
from dml_bench.system.files import read_csv, read_json
from dml_bench.system.markdown import sentence

__all__ = ["main", "pages", "rewritten"]

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/*.md")
NUMBER = re.compile(r"(<!-- number of (\S+): (\S+) (\S+) (\w+) -->)(.*?)(<!-- end -->)")
TABLE = re.compile(r"(<!-- numbers of (\S+)\n(.*?)-->\n)(.*?)(<!-- end -->)", re.DOTALL)


@cache
def study_in(folder: Path) -> Study:
    """The experiments that are recorded in a folder. Raises ValueError where they can't all be
    compared."""
    studies = studies_of(collect([folder]))
    if len(studies) > 1:
        titles = "; ".join(study.title for study in studies)
        raise ValueError(f"{folder} holds several studies, {titles}: name the folder of one")
    return studies[0]


def measured(study: Study, experiment: str, metric: str) -> tuple[Interval | int | str, bool]:
    """A metric of an experiment as the report has it, or why it has none, and whether it is shown
    with its sign. Raises ValueError where the study does not have the experiment."""
    if experiment == "pooled":
        return pooled(study, metric), True
    lines = [line for line in study.finished if line.name == experiment]
    if not lines:
        names = ", ".join(line.name for line in study.finished)
        raise ValueError(f"there is no record of {experiment}; there are {names}")
    runs = lines[0].runs
    if metric == "seeds":
        return len(runs), False
    if "." in metric:
        return mean_in_summaries(lines[0].runs, metric), False
    absent = lines[0].no_drop_because
    if absent and metric not in metrics_of(runs[0].experiment):
        return absent, False
    declared = metric_of(runs[0].experiment, metric)
    return measure(runs, metric, study.group.priors.of(metric)), declared.signed


def mean_in_summaries(runs: Sequence[Run], place: str) -> Interval:
    """Of the number at `phases.all.labels.memorised`, say. Raises ValueError where a run has
    none."""
    values = []
    for run in runs:
        value = value_at(run.summary, place)
        if value is None:
            raise ValueError(f"{run.experiment.name} seed {run.seed} has no number at {place}")
        values.append(value)
    return without_bounds(sum(values) / len(values))


def without_bounds(value: float) -> Interval:
    """A number that has no interval."""
    return Interval(value, nan, nan, nan, nan, nan)


def pooled(study: Study, metric: str) -> Interval:
    """The mean over all metric-learning rows. Raises ValueError for a metric that has none."""
    quantities = {name: quantity for quantity, name in QUANTITIES.items()}
    mean = study.pooled(quantities[metric]) if metric in quantities else None
    if mean is None:
        names = ", ".join(quantities)
        raise ValueError(f"no mean over rows is made of {metric}; there are those of {names}")
    return mean


FORMS: dict[str, Callable[[Interval], str]] = {
    "percent": lambda value: percent(value.estimate),
    "round_percent": lambda value: f"{value.estimate:.0%}",
    "round": lambda value: f"{value.estimate:.0f}",
    "count": lambda value: f"{value.estimate:,.0f}",
    "points": lambda value: f"{hundred(value.estimate)} points",
    "percent_interval": percent,
    "points_interval": points,
    "more": lambda value: interval_cell(value, is_signed=False),
    "less": lambda value: interval_cell(value.negative(), is_signed=False),
    "more_points": cost_points,
    "less_points": lambda value: cost_points(value.negative()),
}


def compared(path: Path, experiment: str, metric: str) -> Interval | int:
    """A difference, with its interval where there is one, or a sum or ratio over seeds and phases.
    Raises ValueError where the CSV does not have it, or has several."""
    rows = [row for row in read_csv(path) if row["experiment"] == experiment]
    if not rows or "metric" not in rows[0]:
        return over_seeds(path, rows, experiment, metric)
    metric, _, column = metric.partition(".")
    of_metric = [row for row in rows if row["metric"] == metric]
    if len(of_metric) != 1:
        raise ValueError(f"{path} must have one row of {experiment} {metric}, has {len(of_metric)}")
    [row] = of_metric
    if column:
        return without_bounds(float(row[column]))
    bounds = float(row.get("low", nan)), float(row.get("high", nan))
    return Interval(float(row["difference"]), *bounds, nan, nan, nan)


def over_seeds(
    path: Path, rows: Sequence[dict[str, str]], experiment: str, columns: str
) -> Interval | int:
    """The sum of a column, or the ratio of the sums of two."""
    if not rows:
        raise ValueError(f"{path} has no row of {experiment}")

    def total(column: str) -> int:
        return sum(int(row[column]) for row in rows)

    sums = [total(column) for column in columns.split("/")]
    if len(sums) == 1:
        return sums[0]
    return without_bounds(sums[0] / sums[1])


def decided(path: Path, name: str, place: str) -> Interval:
    """What the benchmark of decisions measured on a set of photos. Raises ValueError where it has
    no such number."""
    sets = {one["set"].replace(" ", "_"): one for one in read_json(path)["sets"]}
    value = value_at(sets.get(name, {}), place)
    if value is None:
        raise ValueError(f"{path} has no number of {name} at {place}")
    return without_bounds(value)


def number(match: re.Match[str], root: Path) -> str:
    """The text of one number."""
    _, folder, experiment, metric, form, *_ = match.groups()
    value: Interval | int | str
    if folder.endswith(".json"):
        value = decided(root / folder, experiment, metric)
    elif folder.endswith(".csv"):
        value = compared(root / folder, experiment, metric)
    else:
        value, _ = measured(study_in(root / folder), experiment, metric)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    if form not in FORMS:
        raise ValueError(f"the form of a number must be one of {', '.join(FORMS)}, got {form}")
    return FORMS[form](value)


def table(match: re.Match[str], root: Path) -> str:
    """The lines of one table, in percent and points."""
    _, folder, text, *_ = match.groups()
    options = tomllib.loads(text)
    heads = list(options["columns"])
    lines = [["experiment", *map(sentence, heads)], ["---", *(["--:"] * len(heads))]]
    for label, experiment in options["rows"].items():
        cells = []
        for column in options["columns"].values():
            metric, _, elsewhere = column.partition(" of ")
            study = study_in(root / (elsewhere or folder))
            cells.append(cell_of(*measured(study, experiment, metric)))
        lines.append([sentence(label), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell_of(value: Interval | int | str, is_signed: bool) -> str:
    """`61.2 [56.0, 66.1]`"""
    return str(value) if isinstance(value, int | str) else interval_cell(value, is_signed=is_signed)


def rewritten(text: str, root: Path = ROOT) -> str:
    """A page with its marked numbers as the records have them."""

    def of_number(match: re.Match[str]) -> str:
        return f"{match[1]}{number(match, root)}{match[7]}"

    def of_table(match: re.Match[str]) -> str:
        return f"{match[1]}{table(match, root)}{match[5]}"

    return TABLE.sub(of_table, NUMBER.sub(of_number, text))


def pages() -> list[Path]:
    """Those that may have marked numbers."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def main() -> int:
    """0; 1 where --check finds a page whose numbers differ."""
    parser = argparse.ArgumentParser(description="Writes the numbers of pages from results/.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    changed = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        anew = rewritten(text)
        if anew == text:
            continue
        changed.append(page)
        if not check:
            page.write_text(anew, encoding="utf-8")
    for page in changed:
        print(f"{page.relative_to(ROOT)}: {'differs from' if check else 'written from'} results/")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
