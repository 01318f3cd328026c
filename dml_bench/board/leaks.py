"""Whether queries were looked up among images that hold themselves, which has happened to
published leaderboards; and whether phases are of the training that they say."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from dml_bench.board.mates import are_copied
from dml_bench.board.submission import Finding, Submission, refused
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.runs.record import IMAGE_SETS
from dml_bench.runs.run import RecordedRun

__all__ = ["answers_are_no_accident", "gallery_has_no_query", "phases_are_of_their_training"]

TOLERATED_COPIES = 0.01
"""Published data sets hold some photos twice. From this share of the queries on it is a leak."""
ITSELF = 0.99999
"""The similarity from which an image is taken for the query itself."""
SOME, MOST = 0.05, 2 / 3
"""Shares of the queries that find something as near as themselves, from which a person has to look
and from which it is a leak. Similarities are stored in steps: where one photo is there twice, all
of the top step counts, up to .42 of the queries of an honest run where steps are coarse."""
NEVER = 1e-9
"""What has a smaller probability did not happen by chance."""


def gallery_has_no_query(submission: Submission) -> Iterator[Finding]:
    """No query is looked up among images that hold itself."""
    record, run = submission.record, submission.run
    num_queries = len(run.content.arrays["query_labels"])
    num_gallery = int(run.content.arrays["gallery_counts"].astype(np.int64).sum())
    split, one_out = record.split, bool(submission.facts["leaves_one_out"])
    allowed = split.gallery_images or (split.test_images if one_out else split.train_images)
    if num_gallery != allowed:
        yield refused(
            "query in the gallery",
            f"the gallery of this split has {allowed:,} images, {num_gallery:,} were searched:"
            " search no image but those",
        )
    if one_out and (run.protocol.has_drop or split.gallery_images):
        yield refused(
            "query in the gallery",
            f"protocol {record.protocol} never looks a query up among the queries",
        )
    if not one_out and num_queries + num_gallery > record.dataset.num_images:
        yield refused(
            "query in the gallery",
            f"{num_queries:,} queries and {num_gallery:,} gallery images are more than the"
            f" {record.dataset.num_images:,} images of the data set",
        )
    yield from copies(submission, num_queries)


def copies(submission: Submission, num_queries: int) -> Iterator[Finding]:
    """Queries that are also in the gallery, by their content."""
    arrays, counted = submission.run.content.arrays, submission.record.copies_in_gallery
    sets = [arrays.get(name) for name in IMAGE_SETS]
    shared = 0 if counted is None else counted
    queries, gallery = sets
    if queries is not None and gallery is not None:
        num_gallery = int(arrays["gallery_counts"].astype(np.int64).sum())
        if (len(queries), len(gallery)) != (num_queries, num_gallery):
            yield refused(
                "query set",
                f"digests of {len(queries):,} queries and {len(gallery):,} gallery images are"
                f" there, {num_queries:,} and {num_gallery:,} were used",
            )
        shared = max(shared, int(np.isin(queries, gallery).sum()))
    elif submission.record.submitted_by and not submission.facts["leaves_one_out"]:
        yield refused(
            "query in the gallery",
            "digests of the queries and of the gallery are missing, which `dml-bench submit RUN`"
            " writes: submit the run's folder again",
        )
    elif counted is None:
        yield Finding("unchecked", "query in the gallery", "by content: it takes --data DIR")
    if shared > TOLERATED_COPIES * num_queries:
        yield refused(
            "query in the gallery",
            f"{shared:,} of {num_queries:,} queries are the same image as one of the gallery",
        )
    elif shared:
        yield Finding(
            "review",
            "copies",
            f"{shared:,} of {num_queries:,} queries are the same image as one of the gallery",
        )


def answers_are_no_accident(submission: Submission) -> Iterator[Finding]:
    """Scores that come of the query lying in its own gallery: nearly all right, as it finds itself,
    or nearly all wrong, as itself doesn't count as right."""
    run = submission.run
    chance = chance_of(run)
    known = submission.record.copies_in_gallery or 0
    for phase, neighbours in run.neighbours.items():
        labels = neighbours.query_labels
        right = int(precision_at_1(neighbours).sum())
        itself = int((neighbours.similarities[:, 0] >= ITSELF).sum()) - known
        if itself > SOME * len(labels) and right > 3 * chance * len(labels):
            yield Finding(
                "refused" if itself > MOST * len(labels) else "review",
                "query in the gallery",
                f"in phase {phase} the nearest image of {itself:,} of {len(labels):,} queries is as"
                f" good as the query itself (similarity {ITSELF} or more)",
            )
        if probability_of_at_most(right, len(labels), chance) < NEVER:
            yield refused(
                "below chance",
                f"phase {phase} has {right} of {len(labels):,} right, fewer than a random gallery"
                " image has: was the query itself the nearest, and counted as wrong?",
            )


def probability_of_at_most(right: int, queries: int, chance: float) -> float:
    """By the binomial distribution."""
    from scipy.special import bdtr

    return float(bdtr(right, queries, chance))


def phases_are_of_their_training(submission: Submission) -> Iterator[Finding]:
    """Without training all phases have the same features. Those that trained on other classes
    answer otherwise: the answers of one phase, given twice, would cost nothing to be unseen."""
    run, arrays = submission.run, submission.run.content.arrays
    for first, second in combinations(run.neighbours, 2):
        codes, others = (arrays[f"{phase}.nearest"] for phase in (first, second))
        if submission.record.trained and have_one_training(run, first, second):
            share = float((codes == others).mean())
            yield Finding(
                "review",
                "same answers",
                f"phases {first} and {second}, which trained on other classes, have {share:.2%} of"
                " the answers in common, errors too",
            )
        elif not submission.record.trained and not np.array_equal(codes, others):
            yield refused(
                "trained",
                f"nothing was trained, and phases {first} and {second} answer otherwise, as only"
                " other features do",
            )
            return


def have_one_training(run: RecordedRun, first: str, second: str) -> bool:
    """Whether two phases make the same errors, of which there are some, and not by guessing. A
    classifier on features that stay as they are has other logits."""
    arrays, neighbours = run.content.arrays, run.neighbours[first]
    ours, theirs = (arrays.get(f"{phase}.logits") for phase in (first, second))
    if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
        return False
    right = float(precision_at_1(neighbours).mean())
    is_guess = right < 3 * chance_of(run)
    is_perfect = right > 1 - SOME
    codes, others = (arrays[f"{phase}.nearest"] for phase in (first, second))
    return not is_guess and not is_perfect and are_copied(codes, others)


def chance_of(run: RecordedRun) -> float:
    """How many queries find their class in a gallery of the same images in any order."""
    counts = run.content.arrays["gallery_counts"].astype(np.int64)
    labels = run.content.arrays["query_labels"]
    return float((counts[labels] / counts.sum()).mean())
