"""The report on embeddings that any program computed."""

import math
from collections.abc import Iterator, Sequence

from dml_bench.analysis.embeddings import TEST_FRACTION, EmbeddingsResult, Queries
from dml_bench.evaluation.few_shot import FewShotCurve
from dml_bench.evaluation.scatter import GROUPS
from dml_bench.evaluation.statistics import Interval
from dml_bench.protocols.holdout_metrics import COST, TO_SEEN, TO_UNSEEN, drop_name
from dml_bench.report.document import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Heading,
    Row,
    Table,
    Text,
)
from dml_bench.report.format import draws_cell, interval_cell, number
from dml_bench.report.scatter import distance_cell
from dml_bench.system.counted import counted

__all__ = ["compose_embeddings"]

DROPS = {
    COST: "cost of being unseen (other classes)",
    drop_name("unseen"): "drop of the new classes",
    drop_name("seen"): "drop of the old classes",
    TO_UNSEEN: "  lost to images of new classes",
    TO_SEEN: "  lost to images of old classes",
}


def compose_embeddings(
    queries: Queries,
    results: dict[str, EmbeddingsResult],
    end: Sequence[Block] = (),
) -> Document:
    """A document on the results by the name of their file: one, or that of a model of all classes
    and then that of one without the new classes."""
    blocks: list[Block] = [Facts(tuple(facts(queries))), *warnings(queries, len(results))]
    last = list(results)[-1]
    if len(results) > 1:
        blocks += drop_blocks(results, last)
    for name, result in results.items():
        blocks += accuracy_blocks(name, queries, result)
        blocks += scatter_blocks(name, result)
    blocks += enrolment_blocks(last, results[last])
    blocks += unknown_blocks(last, results[last])
    return Document(f"Embeddings: {', '.join(results)}", (*blocks, *end))


def facts(queries: Queries) -> Iterator[tuple[str, str]]:
    dataset = queries.dataset
    yield (
        "Images",
        f"{counted(len(dataset), 'image')} of {counted(dataset.num_classes, 'class')}, in"
        f" {dataset.name}",
    )
    yield (
        "Split",
        (
            "given by the table"
            if queries.kind == "given"
            else f"random by class, {TEST_FRACTION:.0%} are queries"
        )
        + f": {len(queries.query):,} queries in a gallery of {len(queries.gallery):,}",
    )
    names = [dataset.class_names[label] for label in queries.unseen]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    how = "" if queries.chosen_unseen else " (drawn; `--unseen` names others)"
    yield f"{counted(len(names), 'new class')}{how}", shown


def warnings(queries: Queries, models: int) -> Iterator[Text]:
    if queries.kind == "random":
        yield Text(
            "Photos of one session may be both in the gallery and among the queries: then these"
            " numbers are too high. A column `split` (gallery or query) divides them otherwise.",
            "notice",
        )
    if models == 1:
        yield Text(
            "New classes are new to the gallery. Whether the model was trained on them, the"
            " embeddings don't say.",
            "soft",
        )


def accuracy_blocks(name: str, queries: Queries, result: EmbeddingsResult) -> Iterator[Block]:
    old = queries.dataset.num_classes - len(queries.unseen)
    yield Heading(f"{name}: right answers, percent")
    columns = ["all classes", f"{old} old", f"{len(queries.unseen)} new"]
    rows = [
        row(line.name, (line.everything, line.seen, line.unseen), is_signed=False)
        for line in result.lines
    ]
    yield Table("", heads("", columns), tuple(rows))
    yield Text(
        "Means over classes, with 95% intervals: where they would lie with other classes and"
        " photos. The gallery has all classes.",
        "soft",
    )


SCATTER = {
    "train_dispersion": "two gallery images of a class",
    "test_dispersion": "two queries of a class",
    "test_to_train": "a query and a gallery image of its class",
    "mean_shift": "mean of the queries and mean of the gallery images",
    "test_margin": "margin of a query to the nearest other class",
}
"""Measures of `evaluation.scatter`, in words for a gallery and queries."""


def scatter_blocks(name: str, result: EmbeddingsResult) -> Iterator[Block]:
    """How far queries scatter against the gallery, and hubness."""
    yield Heading(f"{name}: how far do queries scatter against the gallery?")
    rows = []
    for measure, text in SCATTER.items():
        means = [result.scatter[group].get(measure) for group in GROUPS]
        rows.append(Row((Cell(text), *(distance_cell(mean, is_signed=False) for mean in means))))
    yield Table("", heads("distance", ["old classes", "new classes"]), tuple(rows))
    uneven = result.hubness
    yield Text(
        "One minus the cosine similarity: 0 is the same, 1 is unrelated. A margin above 0 answers"
        " rightly. Means over classes; ± reaches to the ends of the 95% interval.",
        "soft",
    )
    if math.isfinite(uneven.skewness):
        yield Text(
            f"Hubness {uneven.skewness:.1f}: the skewness of how often gallery images are among the"
            f" ten nearest of a query. The most frequent one is {uneven.largest:.1f} times as often"
            f" there as the mean; {uneven.never:.0%} never are.",
            "soft",
        )


def drop_blocks(results: dict[str, EmbeddingsResult], last: str) -> Iterator[Block]:
    first = next(iter(results))
    yield Heading("What not training on the new classes costs, points of P@1")
    drops = results[last].drops
    rows = [row(text, (drops[name],), is_signed=True) for name, text in DROPS.items()]
    yield Table("", heads("", ["points"]), tuple(rows))
    yield Text(
        f"With 95% intervals. Drop: P@1 of {first} (trained on all classes) minus that of {last}"
        " (never on the new ones), on the same queries. Cost: the drop of the new classes minus"
        " that of the old ones. Other trainings may differ more than the intervals say.",
        "soft",
    )


def enrolment_blocks(name: str, result: EmbeddingsResult) -> Iterator[Block]:
    yield Heading(f"{name}: how many photos does a new class need?")
    curves = (result.by_images, result.by_means)
    columns = [
        f"{group}, by {by}" for by in ("nearest image", "class mean") for group in ("new", "old")
    ]
    rows = []
    for place, k in enumerate(result.by_images.ks):
        cells = [band(few_shot, place) for few_shot in curves]
        texts = [text for pair in cells for text in pair]
        photos = "none" if k == 0 else f"{k:,}" if place + 1 < len(result.by_images.ks) else "all"
        rows.append(Row((Cell(photos), *(Cell(text) for text in texts))))
    yield Table("", heads("photos of a new class in the gallery", columns), tuple(rows))
    yield Text(
        "P@1 in percent; in parentheses, from where to where 95% of the draws of these photos lie.",
        "soft",
    )


def band(few_shot: FewShotCurve, place: int) -> tuple[str, str]:
    texts = []
    for mean, low, high in (few_shot.band("unseen"), few_shot.band("seen")):
        texts.append(draws_cell(float(mean[place]), float(low[place]), float(high[place])))
    return texts[0], texts[1]


def unknown_blocks(name: str, result: EmbeddingsResult) -> Iterator[Block]:
    unknown = result.unknown
    yield Heading(f"{name}: does it notice photos of classes that are not in the gallery?")
    values = {
        "AUROC (50 is chance)": unknown.auroc,
        "AUPR": unknown.aupr,
        "unknown photos accepted where 95% of the known are": unknown.fpr_at_95_tpr,
        "OSCR": unknown.oscr,
    }
    rows = [
        Row((Cell(text), Cell(number(value, is_signed=False), value)))
        for text, value in values.items()
    ]
    yield Table("", heads("", ["percent"]), tuple(rows))
    yield Text(
        f"By the similarity of the nearest image: {unknown.known:,} queries of old classes against"
        f" {unknown.unknown:,} of new ones, which the gallery then lacks.",
        "soft",
    )


def heads(first: str, others: Sequence[str]) -> tuple[Column, ...]:
    return (Column(first, numeric=False), *(Column(head) for head in others))


def row(name: str, values: Sequence[Interval], *, is_signed: bool) -> Row:
    cells = [Cell(interval_cell(value, is_signed=is_signed), value.estimate) for value in values]
    return Row((Cell(name), *cells))
