"""The images behind predictions: the most frequent confusions of the best experiment, and queries
by what became of them."""

from collections.abc import Iterator, Sequence

from dml_bench.analysis.diagnostics import Example, ExampleImages, Mistake
from dml_bench.analysis.study import Study
from dml_bench.report.document import Block, Card, Heading, Images, Picture, Text, Vote
from dml_bench.report.thumbnails import Thumbnails, file_name
from dml_bench.runs.run import Run

__all__ = ["example_blocks"]

MISTAKES = 8
EXAMPLES = 4
"""Of each kind."""


def example_blocks(study: Study) -> Iterator[Block]:
    """Of the first seed of the best experiment; what can't be shown is added to `study.missing`."""
    line = study.best or study.finished[0]
    run = line.runs[0]
    shown = f"`{line.short}`, seed {run.seed}"
    trained = ", trained on all classes" if study.has_drop else ""
    try:
        mistakes = ExampleImages(run).mistakes(MISTAKES)
        examples = ExampleImages(run, limited_phase(run)).by_outcome(EXAMPLES)
        root = run.images.known_root
    except (OSError, KeyError, ValueError) as error:
        study.missing.append(f"example images: {' '.join(str(error).split())}")
        return
    digests = {image.path: image.sha256 for image in run.split}
    thumbnails = Thumbnails(root, digests)
    yield from confusion_blocks(mistakes, thumbnails, shown + trained)
    yield Heading("Examples")
    without = ", trained without the unseen classes" if study.has_drop else ""
    yield Text(
        f"Queries of {shown}{without}. Each stands beside its nearest gallery image, above the"
        " classes of its ten nearest images.",
        "soft",
    )
    for kind, cases in examples.items():
        yield Heading(kind, 4)
        yield from cards_of(cases, thumbnails)
    if thumbnails.gone:
        count = len(thumbnails.gone) + len(thumbnails.copies)
        study.missing.append(
            f"{len(thumbnails.gone)} of {count} example images: they are no longer in {root}, or"
            " cannot be read"
        )


def limited_phase(run: Run) -> str:
    """The first that held classes out; empty without one."""
    return next((phase for phase in run.neighbours if run.protocol.is_limited(phase)), "")


def confusion_blocks(
    mistakes: Sequence[Mistake], thumbnails: Thumbnails, shown: str
) -> Iterator[Block]:
    yield Heading("Confusions")
    if not mistakes:
        yield Text(f"No query of {shown} is taken for another class.")
        return
    yield Text(
        f"The most frequent confusions of {shown}. Each card shows one such"
        " query and its nearest gallery image.",
        "soft",
    )
    cards = []
    for mistake in mistakes:
        text = (
            f"{mistake.count} of {mistake.queries} queries of this class are taken for the other."
        )
        cards.append(Card(pair(mistake.example, thumbnails), text=text))
    yield Images(("query", "nearest image"), tuple(cards))


def cards_of(examples: Sequence[Example], thumbnails: Thumbnails) -> Iterator[Block]:
    if not examples:
        yield Text("No such query.", "soft")
        return
    cards = []
    for example in examples:
        votes = []
        for label, count in example.votes:
            votes.append(Vote(count, label, label == example.query_class, label == example.elected))
        cards.append(Card(pair(example, thumbnails), votes=tuple(votes)))
    yield Images(("query", "nearest image"), tuple(cards))


def pair(example: Example, thumbnails: Thumbnails) -> tuple[Picture, Picture]:
    """The query and its nearest image."""
    return (
        Picture(
            file_name(example.query),
            example.query,
            thumbnails.get(example.query),
            example.query_class,
            "unseen class" if example.unseen else "",
        ),
        Picture(
            file_name(example.nearest),
            example.nearest,
            thumbnails.get(example.nearest),
            example.nearest_class,
            f"similarity {example.similarity:.3f}",
        ),
    )
