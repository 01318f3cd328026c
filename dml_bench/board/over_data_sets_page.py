"""What methods over data sets come to: differences that survive, ranks, and the study's questions,
as a page and as a part of the board."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dml_bench.analysis.decisions import simultaneous
from dml_bench.analysis.study import Study, certain_sign
from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.board.over_data_sets import (
    FEWEST_DATA_SETS,
    FEWEST_METHODS,
    THRESHOLDS,
    Aggregate,
    MethodOverall,
    Pair,
    aggregates_of_table,
)
from dml_bench.config.tables import read_table
from dml_bench.evaluation.statistics import Interval
from dml_bench.plots.profiles import performance_profiles
from dml_bench.report.answers import (
    STUDY_QUESTIONS,
    classification,
    rarity,
    training,
    unseen_classes,
)
from dml_bench.report.compose import made_by, problems_of, write
from dml_bench.report.document import (
    Block,
    Cell,
    Column,
    Details,
    Document,
    Heading,
    Items,
    Row,
    Table,
    Text,
)
from dml_bench.report.format import interval_cell, number
from dml_bench.system.counted import counted

__all__ = ["compose_over_data_sets", "report_over_data_sets"]

RULES = (
    "A difference survives where the same method is surely better on all data sets. In each data"
    " set, all pairs of methods are decided together (Holm, 5% error).",
    "Mean rank: over the data sets that rank at least half of the methods, among the methods that"
    f" all of these rank, {FEWEST_METHODS} or more. Brackets hold the means of the best and the"
    " worst rank that a method may have.",
    "Better than the classifier: how likely a run of the method scores better than a run of the"
    " classifier, on a data set at random (Agarwal et al. 2021); 50 is a draw. Brackets: 95% of"
    " draws of other classes and seeds of the same data sets.",
    f"Interquartile means and performance profiles need {FEWEST_DATA_SETS} data sets.",
)


SURELY = (
    "Surely: an interval leaves out zero. A best method has one that holds for all methods of its"
    " data set together (Bonferroni), a mean its plain 95% interval. Brackets hold plain 95%"
    " intervals."
)


def compose_over_data_sets(
    title: str,
    aggregates: Sequence[Aggregate],
    studies: Mapping[str, Study],
    end: Sequence[Block] = (),
) -> Document:
    """The whole page: what survives, the study's questions, and the numbers."""
    blocks: list[Block] = []
    if not aggregates:
        present = " and ".join(studies) or "none"
        text = f"Too few data sets have records to compare methods over them: {present}."
        blocks.append(Text(text, "notice"))
    names = {line.short: line.name for study in studies.values() for line in study.group.lines}
    questions = tuple(question_blocks(studies)) if studies else ()
    numbers = tuple(aggregate_blocks(aggregates))
    return Document(title, (*blocks, *numbers, *questions, *end), names)


def report_over_data_sets(
    name: str,
    folders: Sequence[Path],
    out: Path,
    command: Sequence[str],
    say: Callable[[str], None] = lambda text: None,
    *,
    figures: Sequence[str] = ("*",),
) -> Document:
    """The page of a table over data sets from one folder of records, with the figures whose names
    match one of the patterns. `say` gets a line on each record that can't be used; the page names
    them too. Raises ValueError where there are several folders, or no record of the table in it."""
    if len(folders) != 1:
        raise ValueError(f"--table {name} takes one folder of records, got {len(folders)}")
    problems: dict[str, None] = {}
    aggregates, studies = aggregates_of_table(name, folders[0], say=problems.setdefault)
    for line in problems:
        say(line)
    if not studies:
        raise ValueError(
            f"{folders[0]} holds no record of the table {name}: `dml-bench suite --table {name}`"
            " makes them"
        )
    end = [*problems_of(tuple(problems)), *made_by(command)]
    document = compose_over_data_sets(read_table(name).title, aggregates, studies, end)
    document = document.with_figures(figures)
    write(out, document)
    return document


# Numbers


def aggregate_blocks(aggregates: Sequence[Aggregate]) -> Iterator[Block]:
    """By title, a table for each metric with what survives, and once how to read them."""
    for place, aggregate in enumerate(aggregates):
        if place == 0 or aggregates[place - 1].title != aggregate.title:
            data_sets = [one.name for one in aggregate.data_sets]
            yield Heading(f"{aggregate.title} ({', '.join(data_sets)})", 3)
        metric = aggregate.metric
        better = "lower" if metric.lower_is_better else "higher"
        yield Heading(f"{metric.column or metric.head}, {better} is better", 4)
        yield methods_table(aggregate)
        yield Items((*rank_lines(aggregate), *survival_lines(aggregate)))
        profiles = {one.name: one.profile for one in aggregate.methods if one.profile is not None}
        if profiles:
            yield performance_profiles(
                f"profiles-{metric.name}",
                THRESHOLDS,
                profiles,
                f"{metric.column or metric.head}, {'points' if metric.signed else 'percent'}",
                lower_is_better=metric.lower_is_better,
            )
    if aggregates:
        yield Details("How to read it", (Items(RULES, "soft"),))


def methods_table(aggregate: Aggregate) -> Table:
    """One row for each method, the lowest mean rank first."""
    middle = any(method.interquartile_mean is not None for method in aggregate.methods)
    columns = [Column("method", numeric=False)]
    columns += [Column(one.name) for one in aggregate.data_sets]
    columns += [Column("mean rank")] * bool(aggregate.ranked_on)
    columns += [Column("interquartile mean")] * middle
    columns.append(Column("better than the classifier"))
    rows = [method_row(method, aggregate, middle) for method in aggregate.methods]
    return Table(aggregate.metric.head, tuple(columns), tuple(rows))


def method_row(method: MethodOverall, aggregate: Aggregate, middle: bool) -> Row:
    signed = aggregate.metric.signed
    cells = [Cell(method.name)]
    for one, interval in zip(aggregate.data_sets, method.values, strict=True):
        if interval is None:
            cells.append(Cell(one.why_not(method.name, aggregate.metric.name) or "-", tone="soft"))
        else:
            cells.append(Cell(interval_cell(interval, is_signed=signed), interval.estimate))
    cells += [rank_cell(method, aggregate)] * bool(aggregate.ranked_on)
    if middle:
        value = method.interquartile_mean
        cells.append(Cell("-" if value is None else number(value, is_signed=signed), value))
    if method.improvement is None:
        cells.append(Cell("-"))
    else:
        share, low, high = (f"{100 * value:.0f}%" for value in method.improvement)
        cells.append(Cell(f"{share} [{low}, {high}]", method.improvement[0]))
    return Row(tuple(cells))


def rank_cell(method: MethodOverall, aggregate: Aggregate) -> Cell:
    """The mean rank, or on which data sets the method has none."""
    if method.mean_rank is None:
        metric = aggregate.metric.name
        missing = [o.name for o in aggregate.ranked_on if not o.is_ranked(method.name, metric)]
        return Cell(f"not on {', '.join(missing)}", tone="soft")
    text = f"{method.mean_rank:.1f} [{method.best:.1f}, {method.worst:.1f}]"
    return Cell(text, method.mean_rank)


def rank_lines(aggregate: Aggregate) -> Iterator[str]:
    """Which data sets enter no mean rank, and why."""
    names = [method.name for method in aggregate.methods]
    if not aggregate.ranked_on:
        yield (
            "There are no mean ranks: they need two data sets that rank the same"
            f" {FEWEST_METHODS} methods, or half of all where that is more."
        )
        return
    for one in aggregate.data_sets:
        if one not in aggregate.ranked_on:
            count = len(one.ranked(names, aggregate.metric.name))
            yield f"{one.name} ranks {count} of {len(names)} methods and enters no mean rank."


def survival_lines(aggregate: Aggregate) -> Iterator[str]:
    """Which differences survive, which turn round, and how many are seen on some data sets."""
    pairs = aggregate.pairs
    survivors = [pair for pair in pairs if pair.survives]
    yield (
        f"Of {counted(len(pairs), 'pair')} that several data sets compare, {len(survivors)} surely"
        f" differ in the same direction on all{listed(map(better_than, survivors))}."
    )
    turned = [pair for pair in pairs if pair.is_reversed]
    yield (
        f"{len(turned)} are reversed, surely better here and surely worse"
        f" there{listed(f'{pair.first} and {pair.second}' for pair in turned)}."
    )
    some = [pair for pair in pairs if any(pair.known)]
    only = len(some) - len(survivors) - len(turned)
    yield f"{only} surely differ on some data sets only; {len(pairs) - len(some)} on none."


def better_than(pair: Pair) -> str:
    first, second = (pair.first, pair.second) if sum(pair.known) > 0 else (pair.second, pair.first)
    return f"{first} better than {second}"


def listed(texts: "Iterator[str] | map[str]") -> str:
    """`: a; b`, or nothing."""
    joined = "; ".join(texts)
    return f": {joined}" if joined else ""


# The study's questions


def question_blocks(studies: Mapping[str, Study]) -> Iterator[Block]:
    """Each question with what all data sets say together, and its answer on each."""
    classify, new, trade, rare = STUDY_QUESTIONS
    yield Heading("The study's questions over data sets", 3)
    yield Text(SURELY, "soft")
    for question, together, sentence in (
        (classify, beside_classifier(studies), classification),
        (new, cost_of_new(studies), of_new_classes),
        (trade, trade_off(studies), training),
        (rare, "", rarity),
    ):
        yield Heading(question, 4)
        if together:
            yield Text(together, "strong")
        yield Items(tuple(f"{name}: {sentence(study)}" for name, study in studies.items()))


def of_new_classes(study: Study) -> str:
    """What the best method does on them."""
    if study.best_unseen is None:
        return "no metric learning was trained."
    return unseen_classes(study, study.best_unseen)


def beside_classifier(studies: Mapping[str, Study]) -> str:
    """On how many data sets the best method is surely better than the classifier."""
    differences = {
        name: of_best(study, study.beside_rival(study.best, "known"))
        for name, study in studies.items()
        if study.best is not None and study.rival is not None
    }
    better = "The best method is surely better than the classifier's own output"
    return count_signs(differences, {1: better, -1: "surely worse"})


def cost_of_new(studies: Mapping[str, Study]) -> str:
    """On how many data sets it surely costs something not to train on a class, and the best method
    on such classes is better there than no training."""
    costs = {name: study.pooled("cost") for name, study in studies.items() if study.methods}
    cost = count_signs(
        costs, {1: "Over all methods, not training on a class surely costs something"}
    )
    differences = {}
    for name, study in studies.items():
        line, untrained = study.best_unseen, study.no_training
        if line is not None and untrained is not None and line is not untrained:
            difference = study.difference(line, "unseen_limited", untrained)
            differences[name] = of_best(study, difference)
    better = "On such classes the best method is surely better than no training"
    return f"{cost} {count_signs(differences, {1: better, -1: 'surely worse'})}".strip()


def trade_off(studies: Mapping[str, Study]) -> str:
    """On how many data sets the best method on new classes is better there than the classifier's
    features."""
    differences = {
        name: of_best(study, study.beside_rival(study.best_unseen, "unseen_limited"))
        for name, study in studies.items()
        if study.best_unseen is not None and study.rival is not None
    }
    better = (
        "On classes never trained on, the best method is surely better than the classifier's"
        " features"
    )
    return count_signs(differences, {1: better, -1: "surely worse"})


def of_best(study: Study, difference: Interval | None) -> Interval | None:
    """Of the method that was picked from all: its difference from another row, with an interval
    that holds for all of them together."""
    return None if difference is None else difference.at(simultaneous(len(study.methods)))


def count_signs(values: Mapping[str, Interval | None], parts: Mapping[int, str]) -> str:
    """`It surely costs something on 1 of 2 data sets. omniglot has 1 seed and says nothing yet.`

    Args:
        values: by data set.
        parts: of the sentence, one for each sign that is counted.
    """
    seeds = {name: num_seeds(value) for name, value in values.items()}
    known = [value for name, value in values.items() if seeds[name] >= FEWEST_SEEDS]
    sentences = []
    if known:
        counts = []
        for sign, part in parts.items():
            count = sum(certain_sign(value) == sign for value in known)
            counts.append(f"{part} on {count} of {counted(len(known), 'data set')}")
        sentences.append(f"{', '.join(counts)}.")
    for name, count in seeds.items():
        if count < FEWEST_SEEDS:
            sentences.append(f"{name} has {counted(count, 'seed')} and says nothing yet.")
    return " ".join(sentences)


def num_seeds(value: Interval | None) -> int:
    """Over how many seeds it is."""
    return 0 if value is None or value.components is None else value.components.num_seeds
