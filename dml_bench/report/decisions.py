"""What is decided about a table: the claims of its experiments and the family of its file, for
reports and suites alike. Numbers are in points: hundredths of P@1."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dml_bench.analysis.claims import ClaimResult
from dml_bench.analysis.decisions import Contrast, Decisions, Survival
from dml_bench.analysis.verdicts import Verdict
from dml_bench.evaluation.statistics import Interval, smallest_detectable
from dml_bench.report.document import (
    Block,
    Cell,
    Column,
    Data,
    Details,
    Items,
    Row,
    Table,
    Text,
    Tone,
)
from dml_bench.report.format import hundred, interval_cell
from dml_bench.system.counted import counted

__all__ = [
    "count_verdicts",
    "data_of",
    "decided_blocks",
    "describe_verdict",
    "summary",
]

RULE = (
    "Each claim has a size and a tolerance: where its file has none, 2 points, or half of the size"
    " of a change where that is less. The first case that applies is its verdict.",
    "Not testable: P@1 is near chance or near 1, so there is no room to show it.",
    "No effect: the inner interval, which errs twice as often, lies within the tolerance of zero."
    " This reproduces a claim of no change.",
    "Contradicted: the interval lies wholly on the other side of zero; for a claim of no change,"
    " wholly outside the tolerance.",
    "Reproduced: the interval lies on the claim's side of zero, and the inner interval within the"
    " tolerance of the claimed size.",
    "Same direction, smaller or larger: the interval lies on the claim's side of zero, wholly below"
    " or above the claimed size.",
    "Same direction, size undecided: the interval lies on the claim's side of zero. Undecided: it"
    " holds zero; it may exclude the claimed size all the same.",
    "Smallest detectable: the true difference that such runs would find in 80% of repetitions.",
)
TONES: dict[Verdict, Tone] = {
    Verdict.reproduced: "good",
    Verdict.smaller: "good",
    Verdict.larger: "good",
    Verdict.size_undecided: "good",
    Verdict.no_effect: "bad",
    Verdict.contradicted: "bad",
    Verdict.undecided: "unsure",
    Verdict.not_testable: "soft",
    Verdict.not_tested: "soft",
}


def decided_blocks(decisions: Decisions) -> list[Block]:
    """The standard, the verdicts, and folded away how they are read and what was not tested."""
    blocks: list[Block] = [Text(decisions.standard)]
    if decisions.claims:
        blocks.append(Text(f"{count_verdicts(decisions.claims)}."))
    untested = [claim for claim in decisions.claims if claim.verdict is Verdict.not_tested]
    tested = [claim for claim in decisions.claims if claim.verdict is not Verdict.not_tested]
    if tested:
        blocks.append(claims_table(tested))
    if decisions.contrasts:
        blocks.append(contrasts_table(decisions.contrasts))
    if decisions.survivals:
        blocks.append(survivals_table(decisions.survivals))
    if tested:
        blocks.append(Details("How verdicts are read", (Items(RULE, "soft"),)))
    if untested:
        summary = f"{counted(len(untested), 'claim')} not tested"
        blocks.append(Details(summary, (untested_table(untested),)))
    return blocks


def summary(decisions: Decisions) -> str:
    """What it is, in one line."""
    parts = []
    if decisions.claims:
        parts.append(count_verdicts(decisions.claims).partition(" (")[0])
    if decisions.contrasts:
        parts.append(f"{counted(len(decisions.contrasts), 'row')} beside another one")
    return f"What was decided: {'; '.join(parts)}"


def count_verdicts(claims: Sequence[ClaimResult]) -> str:
    """`46 claims: 3 reproduced; 1 contradicted; 42 not tested (40 other data, ...)`"""
    counts = Counter(claim.verdict for claim in claims)
    parts = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    reasons: Counter[str] = Counter()
    for claim in claims:
        if claim.verdict is Verdict.not_tested:
            reasons[claim.reason.partition(":")[0]] += 1
    because = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    listed = "; ".join(parts) + (f" ({because})" if because else "")
    return f"{counted(len(claims), 'claim')}: {listed}"


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """A row for each claim that was tested."""
    columns = (
        Column("experiment", numeric=False),
        Column("verdict", numeric=False),
        Column("quantity", numeric=False),
        Column("claimed"),
        Column("measured"),
        Column("cost of being unseen"),
        Column("source", numeric=False),
    )
    return Table("Claims that were tested", columns, tuple(map(claim_row, claims)))


def claim_row(claim: ClaimResult) -> Row:
    verdict = describe_verdict(claim)
    return Row(
        (
            Cell(claim.experiment, claim.experiment),
            Cell(verdict, verdict, TONES[claim.verdict]),
            Cell(claim.quantity, claim.quantity),
            Cell(claimed_size(claim), claim.claimed),
            points_cell(claim.measured, is_signed=claim.signed),
            points_cell(claim.cost, is_signed=True),
            Cell(claim.expectation.source, claim.expectation.source, "soft"),
        )
    )


def describe_verdict(claim: ClaimResult) -> str:
    """The verdict, with what would have been detectable, or with the reason why there is none."""
    if claim.verdict is Verdict.undecided and not math.isnan(claim.smallest_detectable):
        but = ", but the claimed size is excluded" if claim.excludes_claimed_change else ""
        smallest = hundred(claim.smallest_detectable)
        return f"undecided{but} (smallest detectable: {smallest} points)"
    return f"{claim.verdict}: {claim.reason}" if claim.reason else claim.verdict.value


def claimed_size(claim: ClaimResult) -> str:
    """`+9.5 (tolerance 1.5)`, `below 20.0`, or `highest of 7`"""
    expectation = claim.expectation
    if expectation.above:
        compared = len(claim.differences) + 1
        others = len(expectation.above) + 1
        return f"highest of {others}" + (f" ({compared} tested)" if compared < others else "")
    size = hundred(claim.claimed, "+" if claim.signed else "")
    if expectation.below is not None:
        return f"below {size}"
    return f"{size} (tolerance {hundred(expectation.margin)})"


def points_cell(measured: Interval | None, *, is_signed: bool) -> Cell:
    """`+7.1 [+1.2, +13.0]`"""
    text = interval_cell(measured, is_signed=is_signed)
    if measured is None or math.isnan(measured.estimate):
        return Cell(text)
    return Cell(text, measured.estimate)


def untested_table(claims: Sequence[ClaimResult]) -> Table:
    """A short row for each claim without a verdict."""
    columns = (
        Column("experiment", numeric=False),
        Column("claim", numeric=False),
        Column("measured here"),
        Column("why not tested", numeric=False),
    )
    rows = []
    for claim in claims:
        cells = (
            Cell(claim.experiment, claim.experiment),
            Cell(claim.statement, claim.statement),
            points_cell(claim.measured, is_signed=claim.signed),
            Cell(claim.reason, claim.reason, "soft"),
        )
        rows.append(Row(cells))
    return Table("Claims that were not tested", columns, tuple(rows))


def contrasts_table(contrasts: Sequence[Contrast]) -> Table:
    """A row for each member of the family."""
    columns = (
        Column("experiment", numeric=False),
        Column("verdict", numeric=False),
        Column("beside", numeric=False),
        Column("difference"),
    )
    rows = []
    for contrast in contrasts:
        cells = (
            Cell(contrast.experiment, contrast.experiment),
            Cell(contrast.verdict, contrast.verdict, tone_of(contrast)),
            Cell(contrast.versus, contrast.versus),
            points_cell(contrast.difference, is_signed=True),
        )
        rows.append(Row(cells))
    title = f"{contrasts[0].head.capitalize()} of each row beside another one"
    return Table(title, columns, tuple(rows))


def survivals_table(survivals: Sequence[Survival]) -> Table:
    """Which differences are still there when both sides have the settings of their searches."""
    columns = (
        Column("experiment", numeric=False),
        Column("does it survive tuning?", numeric=False),
        Column("beside", numeric=False),
        Column("settings of the file"),
        Column("settings of a search"),
    )
    rows = []
    for survival in survivals:
        written = survival.written
        cells = (
            Cell(written.experiment, written.experiment),
            Cell(survival.verdict, survival.verdict),
            Cell(written.versus, written.versus),
            points_cell(written.difference, is_signed=True),
            points_cell(survival.tuned.difference, is_signed=True),
        )
        rows.append(Row(cells))
    head = survivals[0].written.head
    return Table(f"Which differences in {head} survive tuning", columns, tuple(rows))


def tone_of(contrast: Contrast) -> Tone:
    if not contrast.direction:
        return "soft"
    is_better = (contrast.direction == "lower") == contrast.lower_is_better
    return "good" if is_better else "bad"


def data_of(decisions: Decisions) -> Iterator[Data]:
    """The claims, the family's comparisons, and those that survive tuning; none without rows."""
    if decisions.claims:
        yield claims_data(decisions.claims)
    if decisions.contrasts:
        yield contrasts_data(decisions.contrasts)
    if decisions.survivals:
        yield survivals_data(decisions.survivals)


def claims_data(claims: Sequence[ClaimResult]) -> Data:
    """All claims as numbers; blanks for what a claim doesn't have."""
    heads = (
        "experiment",
        "metric",
        "claim",
        "source",
        "value",
        "change",
        "versus",
        "below",
        "above",
        "tolerance",
        "measured",
        "low",
        "high",
        "level",
        "smallest_detectable",
        "seeds",
        "cost_of_being_unseen",
        "cost_low",
        "cost_high",
        "verdict",
        "reason",
    )
    return Data("expectations", heads, [list(claim_numbers(claim)) for claim in claims])


def claim_numbers(claim: ClaimResult) -> Iterator[Any]:
    expectation, measured = claim.expectation, claim.measured
    yield from (claim.experiment, expectation.metric, claim.statement, expectation.source)
    yield from (blank(expectation.value), blank(expectation.change), expectation.versus)
    yield from (blank(expectation.below), " ".join(expectation.above))
    has_size = expectation.value is not None or expectation.change is not None
    yield expectation.margin if has_size else ""
    yield from bounds(measured)
    yield "" if measured is None else measured.level
    yield blank(claim.smallest_detectable)
    yield claim.seeds
    yield from bounds(claim.cost)
    yield from (claim.verdict.value, claim.reason)


def contrasts_data(contrasts: Sequence[Contrast]) -> Data:
    """The family as numbers."""
    heads = (
        "experiment",
        "versus",
        "metric",
        "seeds",
        "difference",
        "low",
        "high",
        "level",
        "smallest_detectable",
        "verdict",
    )
    rows = []
    for contrast in contrasts:
        row = [contrast.experiment, contrast.versus, contrast.metric, contrast.seeds]
        row += bounds(contrast.difference)
        row += [contrast.difference.level, blank(smallest_detectable(contrast.difference))]
        rows.append([*row, contrast.verdict])
    return Data("family", heads, rows)


def survivals_data(survivals: Sequence[Survival]) -> Data:
    """What became of each difference, as numbers."""
    heads = ("experiment", "versus", "metric", "difference", "tuned_difference", "verdict")
    rows = []
    for survival in survivals:
        written, tuned = survival.written, survival.tuned
        row: list[Any] = [written.experiment, written.versus, written.metric]
        row += [written.difference.estimate, tuned.difference.estimate, survival.verdict]
        rows.append(row)
    return Data("survival", heads, rows)


def bounds(measured: Interval | None) -> list[Any]:
    """The estimate and its interval."""
    if measured is None:
        return ["", "", ""]
    return [measured.estimate, blank(measured.low), blank(measured.high)]


def blank(value: float | None) -> Any:
    """An empty cell for what is not there."""
    return "" if value is None or math.isnan(value) else value
