"""The page of a decision."""

import math
import shlex
from collections.abc import Iterator, Sequence

from dml_bench.decision.decide import Decision
from dml_bench.report.document import Block, Cell, Code, Column, Document, Facts, Row, Table, Text
from dml_bench.report.format import interval_cell, number, percent

__all__ = ["compose_decision"]


def compose_decision(decision: Decision, end: Sequence[Block] = ()) -> Document:
    """One screen: the answer, its numbers, and how to go on."""
    blocks: list[Block] = [Text(headline(decision), "strong"), Facts(tuple(facts(decision)))]
    blocks.append(rows_table(decision))
    blocks += remarks(decision)
    run = shlex.quote(str(decision.folder))
    commands = f"dml-bench enrol {run} --images new_classes\ndml-bench predict {run} photo.jpg"
    blocks.append(Code(commands, "sh"))
    return Document(f"Decision: {decision.parts.photos.name}", (*blocks, *end))


def headline(decision: Decision) -> str:
    if decision.no_answer:
        return f"No answer: {decision.no_answer}."
    chosen = decision.choice.chosen
    if chosen.is_gallery:
        return f"Use a gallery: {chosen.label}, by {chosen.way}."
    return (
        f"Use a classifier while the classes stay the same: {chosen.label}. A new class means new"
        " training, or the gallery of the same network."
    )


def facts(decision: Decision) -> Iterator[tuple[str, str]]:
    parts, enrolment = decision.parts, decision.enrolment
    yield "Known classes, P@1", percent(decision.known)
    yield "New classes, P@1 by nearest photo", percent(decision.new)
    regret = "the chosen one"
    if decision.regret > 0:
        less = number(decision.regret, is_signed=False)
        regret = f"{decision.best}; the chosen one has {less} points less"
    yield "Best row on the final part", regret
    curve = [
        f"{photos}: {number(value, is_signed=False)}%"
        for photos, value in zip(enrolment.photos, enrolment.precision, strict=True)
    ]
    more = " or more" * (enrolment.needed == max(enrolment.photos, default=0))
    needed = (
        f"{enrolment.needed}{more} (P@1 {', '.join(curve)})" if curve else "unknown: too few photos"
    )
    yield "Photos that a new class needs", needed
    yield "Say `unknown`", unknown(decision)
    yield "100 more labelled photos", more_photos(decision)
    yield "Cost", cost(decision)
    yield "Photos", f"{parts.num_photos:,} of {len(parts.class_names):,} classes"


def unknown(decision: Decision) -> str:
    threshold = decision.threshold
    if not threshold.promised:
        return "no threshold can promise 90% right answers with these photos"
    return (
        f"below a similarity of {threshold.value:.3f}; it answers"
        f" {number(decision.answered, is_signed=False)}% of the final photos, of which"
        f" {number(decision.answered_precision, is_signed=False)}% right"
    )


def more_photos(decision: Decision) -> str:
    if math.isnan(decision.gain):
        return "can't be estimated from so few photos"
    curve = [
        f"{count}: {number(value, is_signed=False)}%"
        for count, value in zip(
            decision.photos_per_class, decision.precision_by_photos, strict=True
        )
    ]
    return (
        f"about {number(decision.gain, is_signed=True)} points (P@1 by photos of a class:"
        f" {', '.join(curve)})"
    )


def cost(decision: Decision) -> str:
    rate = decision.photos_per_second
    photos = "" if math.isnan(rate) else f"{rate:.0f} photos a second here; "
    return f"{photos}{decision.gallery_bytes / 2**20:.1f} MiB of gallery, no training for new ones"


def rows_table(decision: Decision) -> Table:
    rows = []
    for candidate in decision.choice.candidates:
        value = candidate.precision
        cells = (
            Cell(candidate.label),
            Cell(candidate.way),
            Cell(interval_cell(value, is_signed=False), value.estimate),
        )
        rows.append(Row(cells))
    columns = (Column("row", numeric=False), Column("answer by", numeric=False), Column("P@1"))
    return Table("By these numbers it was chosen: test photos of the rest", columns, tuple(rows))


def remarks(decision: Decision) -> Iterator[Text]:
    parts = decision.parts
    yield Text(
        "P@1 of the facts is of the final fifth of the photos, which was opened after the choice."
        " Intervals are 95%, over classes and photos, of one training.",
        "soft",
    )
    yield Text(
        "The split is random by class. If photos of one session are on both sides, these numbers"
        " are too high.",
        "notice",
    )
    if decision.skipped:
        rows = ", ".join(decision.skipped)
        yield Text(f"Not run, for want of time: {rows}.", "notice")
    if parts.left_out:
        names = ", ".join(parts.left_out[:8])
        yield Text(f"Left out, with under 5 photos: {len(parts.left_out)} classes ({names}).")
