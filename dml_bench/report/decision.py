"""The page of a decision."""

import math
from collections.abc import Iterator, Sequence

from dml_bench.decision.catalogue import CatalogueGallery
from dml_bench.decision.decide import Decision, by_reason
from dml_bench.decision.session_rule import ALIKE
from dml_bench.report.document import Block, Cell, Code, Column, Document, Facts, Row, Table, Text
from dml_bench.report.format import interval_cell, number, percent
from dml_bench.system.counted import counted
from dml_bench.system.terminal import duration

__all__ = ["compose_decision"]

SHOWN = 8
"""Names of classes that were left out."""
WAYS = {"photo": "nearest photo", "mean": "class means"}


def compose_decision(decision: Decision, end: Sequence[Block] = ()) -> Document:
    """One screen: the answer, its numbers, and how to go on."""
    blocks: list[Block] = [Text(headline(decision), "strong"), Facts(tuple(facts(decision)))]
    blocks.append(Code("\n".join(f"dml-bench {text}" for text in decision.commands), "sh"))
    blocks.append(rows_table(decision))
    blocks += remarks(decision)
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
    parts, chosen = decision.parts, decision.choice.chosen
    yield "Known classes", f"P@1 {percent(decision.known)}, by {chosen.way}"
    way: str = chosen.way
    if not chosen.is_gallery:
        way = f"{WAYS[chosen.by]} of the same network (`predict --by {chosen.by}`)"
        yield "Known classes, by a gallery", f"P@1 {percent(decision.gallery_known)}, by {way}"
    yield "New classes", f"P@1 {percent(decision.new)}, by {way}"
    if parts.rule in ("", ALIKE):
        shown = "only near-identical photos show" if parts.rule else "nothing here shows"
        yield (
            "Photos of another day",
            f"less than this, if photos were taken in sessions: {shown} them, so name them with"
            " `--group`",
        )
    yield "Best row on the final part", regret(decision)
    yield "Photos that a new class needs", enrolment(decision)
    if decision.catalogue is not None:
        yield "Catalogue as gallery", by_catalogue(decision.catalogue)
        yield "Catalogue, new classes", new_by_catalogue(decision.catalogue)
    yield "Answer unknown", unknown(decision)
    yield "100 more labelled photos", more_photos(decision)
    yield "Cost", cost(decision)
    yield "Photos", f"{decision.num_photos:,} of {counted(len(parts.class_names), 'class')}"
    yield "Split", f"{parts.kind}, as {parts.reason}"


def regret(decision: Decision) -> str:
    if not decision.regret > 0:
        return "the chosen one"
    less = number(decision.regret, is_signed=False)
    return f"{decision.best}; the chosen one has {less} points less"


def enrolment(decision: Decision) -> str:
    curve = decision.enrolment
    if not curve.photos:
        return "unknown: too few photos"
    shown = [
        f"{photos}: {number(value, is_signed=False)}%"
        for photos, value in zip(curve.photos, curve.precision, strict=True)
    ]
    more = " or more" * (curve.needed == max(curve.photos))
    return f"{curve.needed}{more} (P@1 by photos: {', '.join(shown)})"


def by_catalogue(catalogue: CatalogueGallery) -> str:
    photos = counted(catalogue.num_photos, "studio photo")
    return (
        f"P@1 {percent(catalogue.known)} by {photos} of {counted(catalogue.num_classes, 'class')},"
        f" {percent(catalogue.known_centred)} with the domains centred"
    )


def new_by_catalogue(catalogue: CatalogueGallery) -> str:
    curve = [
        f"{photos}: {number(value, is_signed=False)}%"
        for photos, value in zip(catalogue.photos[1:], catalogue.precision[1:], strict=True)
    ]
    return (
        f"P@1 {percent(catalogue.new)}, {percent(catalogue.new_centred)} centred (with field photos"
        f" of each class beside it: {', '.join(curve)})"
    )


def unknown(decision: Decision) -> str:
    """A classifier has no threshold: then it is that of the gallery."""
    threshold = decision.threshold
    promise = threshold.promise
    by_gallery = "by the gallery: " * (not decision.choice.chosen.is_gallery)
    if threshold.lack:
        return f"{by_gallery}{threshold.lack}"
    text = (
        f"{by_gallery}below a similarity of {promise.value:.3f}, for {promise.goal:.0%} right"
        f" answers; it answers {number(threshold.answered, is_signed=False)}% of the final photos"
    )
    if not math.isnan(threshold.precision):
        text += f", {number(threshold.precision, is_signed=False)}% of these right"
    if not math.isnan(threshold.strangers_answered):
        share = number(threshold.strangers_answered, is_signed=False)
        text += f", and {share}% of photos of classes that are not enrolled"
    return text


def more_photos(decision: Decision) -> str:
    outlook = decision.outlook
    if math.isnan(outlook.gain):
        return "can't be estimated from so few photos"
    curve = [
        f"{count}: {number(value, is_signed=False)}%"
        for count, value in zip(outlook.photos_per_class, outlook.precision, strict=True)
    ]
    gain = number(outlook.gain, is_signed=True)
    return f"about {gain} points (P@1 by photos of a class: {', '.join(curve)})"


def cost(decision: Decision) -> str:
    texts = []
    if not math.isnan(decision.photo_cpu_seconds):
        texts.append(f"{1000 * decision.photo_cpu_seconds:.0f} ms of CPU time a photo")
    elif not math.isnan(decision.photos_per_second):
        texts.append(f"{decision.photos_per_second:.0f} photos a second here")
    texts.append(f"{decision.gallery_bytes / 2**20:.1f} MiB of gallery")
    if decision.train_seconds >= 0.5:
        texts.append(f"{duration(decision.train_seconds)} of training")
    if decision.choice.chosen.is_gallery:
        return f"{', '.join(texts)}, no training for new classes"
    return f"{', '.join(texts)}, training for new classes, or none by the gallery"


def rows_table(decision: Decision) -> Table:
    """The chosen one first, then what is expected to answer best."""
    rows = []
    expected, chosen = decision.choice.expected, decision.choice.chosen.name
    for candidate in sorted(
        decision.choice.candidates, key=lambda one: (one.name != chosen, -expected[one.name])
    ):
        value = candidate.precision
        final = decision.final[candidate.name]
        mark = " (chosen)" * (candidate.name == chosen)
        cells = (
            Cell(f"{candidate.label}{mark}"),
            Cell(candidate.way),
            Cell(interval_cell(final, is_signed=False), final.estimate),
            Cell(interval_cell(value, is_signed=False), value.estimate),
            Cell(number(expected[candidate.name], is_signed=False), expected[candidate.name]),
        )
        rows.append(Row(cells))
    columns = (
        Column("row", numeric=False),
        Column("answer by", numeric=False),
        Column("P@1, final"),
        Column("P@1, choice"),
        Column("expected"),
    )
    return Table("All rows", columns, tuple(rows))


def remarks(decision: Decision) -> Iterator[Text]:
    parts = decision.parts
    trainings = counted(decision.num_seeds, "seed")
    yield Text(
        "The final part was opened after the choice. No row was trained on it or chosen by it."
        f" Intervals are 95%, over classes, photos and {trainings}.",
        "soft",
    )
    yield Text(
        "Expected: what the choice went by. Luck is a part of the best of many values, so each is"
        " moved towards what its backbone, its training and its way to answer reach on average.",
        "soft",
    )
    if parts.split == "given":
        yield Text(
            "Some classes have only two sessions: rows train on one. Photos of the other are the"
            " final part, and those that rows were chosen by.",
            "notice",
        )
    if decision.skipped:
        rows = "; ".join(decision.skipped)
        yield Text(f"Not run, for want of time: {rows}.", "notice")
    for labels, reason in by_reason(decision.unavailable):
        yield Text(f"Not run: {'; '.join(labels)}. {reason}.", "notice")
    if parts.copies:
        yield Text(
            "Left out, as another of their class shows the same picture:"
            f" {counted(parts.copies, 'photo')}.",
            "notice",
        )
    if parts.in_two_classes:
        yield Text(
            f"{counted(parts.in_two_classes, 'picture')} in two classes, of which at most one is"
            " right: `dml-bench data check` lists them.",
            "notice",
        )
    for names, noun, why in (
        (parts.left_out, "class", "with too few photos or sessions"),
        (decision.unreadable, "photo", "which can't be read"),
    ):
        if names:
            shown = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
            yield Text(f"Left out, {why}: {counted(len(names), noun)} ({shown}).", "notice")
