"""A folder of photos in, a decision out, in the time that was allowed."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.decision.choice import Candidate, Selection, choose
from dml_bench.decision.final import FinalPhotos
from dml_bench.decision.parts import Parts, divide
from dml_bench.decision.rows import Clock, Interrupting, PlannedRow, TimeUp, plan, run_row
from dml_bench.evaluation.few_shot import few_shot_curve
from dml_bench.evaluation.metrics import macro, precision_at_1
from dml_bench.evaluation.open_set import search_without_classes
from dml_bench.evaluation.search import search
from dml_bench.evaluation.statistics import PROPORTION, Interval, Scores, interval
from dml_bench.evaluation.thresholds import (
    GuaranteedThreshold,
    SearchOutcomes,
    guaranteed_threshold,
    precision_curve,
)
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_json, write_json

__all__ = ["Decision", "Enrolment", "decide"]

PAGE_SECONDS = 20.0
GOAL, UNKNOWN_SHARE = 0.9, 0.2
USEFUL_WIDTH = 0.1
"""An interval that reaches farther to a side is no answer."""
NEAR_ENOUGH = 0.02
DRAWS = 10
CHOICE, DECISION = "choice.json", "decision.json"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """P@1 on classes that the model was not trained on, by their photos in the gallery."""

    photos: tuple[int, ...]
    precision: tuple[float, ...]
    needed: int
    """The fewest that are within 2 points of the most; 0 where there is no curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What is printed: all precisions are proportions on the final part, but for the choice, the
    enrolment and what more photos would bring, which are of the development part."""

    parts: Parts
    choice: Selection
    folder: Path
    """The chosen run."""
    known: Interval
    new: Interval
    """On classes that the model was not trained on, with their photos in the gallery."""
    no_answer: str
    """Why the numbers decide nothing; empty where they do."""
    best: str
    """The row and way that are best on the final part."""
    regret: float
    """P@1 of that minus P@1 of the chosen one, on the final part."""
    enrolment: Enrolment
    threshold: GuaranteedThreshold
    answered: float
    """The share of final photos of known classes that the threshold answers."""
    answered_precision: float
    photos_per_class: tuple[int, ...]
    precision_by_photos: tuple[float, ...]
    gain: float
    """About how much P@1 100 more labelled photos would bring."""
    photos_per_second: float
    gallery_bytes: int
    skipped: tuple[str, ...]
    """Rows for which the time did not suffice."""
    seconds: float

    def as_table(self) -> dict[str, Any]:
        """For JSON: proportions from 0 to 1."""
        return {
            "answer": "no answer" if self.no_answer else self.answer,
            "no_answer": self.no_answer,
            "run": str(self.folder),
            "choice": self.choice.as_table(),
            "final": {
                "known": self.known.as_table(),
                "new": self.new.as_table(),
                "best": self.best,
                "regret": self.regret,
            },
            "enrolment": asdict(self.enrolment),
            "unknown": {
                "threshold": self.threshold.value,
                "goal": self.threshold.goal,
                "answered": self.answered,
                "precision": self.answered_precision,
            },
            "more_photos": {
                "photos_per_class": list(self.photos_per_class),
                "precision": list(self.precision_by_photos),
                "gain_of_100": self.gain,
            },
            "cost": {
                "photos_per_second": self.photos_per_second,
                "gallery_bytes": self.gallery_bytes,
            },
            "classes_left_out": list(self.parts.left_out),
            "skipped_rows": list(self.skipped),
            "seconds": self.seconds,
        }

    @property
    def answer(self) -> str:
        """`gallery` or `classifier`."""
        return "gallery" if self.choice.chosen.is_gallery else "classifier"


def decide(
    photos: Path,
    *,
    minutes: float,
    out: Path,
    cache_dir: Path,
    device: str,
    overrides: Sequence[str],
    callback: Callback,
) -> Decision:
    """Divide, plan, run the rows that fit, choose, and only then open the final part. Raises
    ValueError where there are too few photos or minutes."""
    clock = Clock(60 * minutes, time.monotonic())
    out.mkdir(parents=True, exist_ok=True)
    parts = divide(photos, out, cache_dir, callback)
    file = out / CHOICE
    if file.exists():
        # The final part was opened, so that no row may be added any more.
        folders = read_json(file)["folders"]
        skipped = tuple(read_json(file)["skipped"])
        runs = {label: read_folder(out / folder) for label, folder in folders.items()}
    else:
        rows = plan(parts, overrides)
        callback.note(say_plan(rows, clock.left))
        runs, skipped = run_rows(rows, parts, clock, cache_dir, device, callback)
    choice = choose(runs)
    if not file.exists():
        folders = {label: str(run.folder.relative_to(out)) for label, run in runs.items()}
        write_json(file, {**choice.as_table(), "folders": folders, "skipped": list(skipped)})
    decision = open_final(parts, runs, choice, skipped, device, clock, callback)
    write_json(out / DECISION, decision.as_table())
    return decision


def say_plan(rows: Sequence[PlannedRow], left: float) -> str:
    """Which rows fit into the time, with their seconds."""
    lines, spent = [], PAGE_SECONDS
    for row in rows:
        spent += row.seconds + row.final_seconds
        fits = "fits" if spent <= left else "does not fit"
        lines.append(f"  {row.spec.label}: about {row.seconds:.0f} s, {fits}")
    return "\n".join([f"rows in their order, for {left / 60:.0f} minutes:", *lines])


def run_rows(
    rows: Sequence[PlannedRow],
    parts: Parts,
    clock: Clock,
    cache_dir: Path,
    device: str,
    callback: Callback,
) -> tuple[dict[str, Run], tuple[str, ...]]:
    """The runs of the rows that fit, by label, and the labels of the others. A run keeps what it
    did, so the same command goes on. Raises ValueError where not even the first row fits."""
    runs: dict[str, Run] = {}
    slower, reserve = 1.0, PAGE_SECONDS
    for row in rows:
        after = reserve + slower * row.final_seconds
        if slower * row.seconds + after > clock.left:
            break
        begun = time.monotonic()
        callback.note(f"{row.spec.label}: about {slower * row.seconds:.0f} s")
        heard = Interrupting(callback, clock, after)
        try:
            runs[row.spec.label] = run_row(row, parts, cache_dir, device, heard)
        except TimeUp:
            break
        reserve = after
        slower = max(slower, (time.monotonic() - begun) / row.seconds)
    if not runs:
        needed = rows[0].seconds + rows[0].final_seconds + PAGE_SECONDS
        raise ValueError(
            f"no answer: --minutes must be at least about {needed / 60 + 1:.0f} for"
            f" {parts.num_photos:,} photos on this machine, got {clock.seconds / 60:g}: allow more;"
            " what is computed is kept"
        )
    return runs, tuple(row.spec.label for row in rows if row.spec.label not in runs)


def open_final(
    parts: Parts,
    runs: dict[str, Run],
    choice: Selection,
    skipped: tuple[str, ...],
    device: str,
    clock: Clock,
    callback: Callback,
) -> Decision:
    """The numbers of the chosen run on the final part, and of all others for the regret."""
    files, classes = parts.final()
    final = FinalPhotos(
        files, classes, device, lambda done, total: callback.progress("final part", done, total)
    )
    run = runs[choice.chosen.label]
    scores = {}
    for candidate in choice.candidates:
        scores[candidate.label, candidate.way] = final_scores(final, runs, candidate)
    known = interval([scores[choice.chosen.label, choice.chosen.way]], within=PROPORTION)
    estimates = {key: interval([value]).estimate for key, value in scores.items()}
    best = max(estimates, key=lambda key: estimates[key])
    threshold = threshold_of(run)
    nearest = final.nearest(run)
    outcomes = SearchOutcomes(nearest.similarity, nearest.correct.astype(bool))
    precision, answered = precision_curve(outcomes).at(threshold.value)
    photos_per_class, by_photos = photos_curve(run)
    cost = run.costs[ALL]
    return Decision(
        parts=parts,
        choice=choice,
        folder=run.folder,
        known=known,
        new=new_classes(final, run),
        no_answer=why_none(known, parts),
        best=": ".join(best),
        regret=estimates[best] - known.estimate,
        enrolment=enrolment_of(run),
        threshold=threshold,
        answered=answered,
        answered_precision=precision,
        photos_per_class=photos_per_class,
        precision_by_photos=by_photos,
        gain=gain_of(photos_per_class, by_photos, 100 / len(parts.class_names)),
        photos_per_second=float(cost.get("photos_per_second", np.nan)),
        gallery_bytes=int(cost["gallery_bytes"]),
        skipped=skipped,
        seconds=clock.seconds - clock.left,
    )


def final_scores(final: FinalPhotos, runs: dict[str, Run], candidate: Candidate) -> Scores:
    run = runs[candidate.label]
    if candidate.way == "nearest photo":
        return final.nearest(run).scores
    return final.by_logits(run)


def new_classes(final: FinalPhotos, run: Run) -> Interval:
    """P@1 of the nearest photo, of each class by the model that was not trained on it."""
    values, labels = [], []
    for phase, held_out in run.held_out.items():
        nearest = final.nearest(run, phase)
        is_new = np.isin(nearest.labels, held_out)
        values.append(nearest.correct[is_new])
        labels.append(nearest.labels[is_new])
    return interval([Scores(np.concatenate(values), np.concatenate(labels))], within=PROPORTION)


def why_none(known: Interval, parts: Parts) -> str:
    """Why there is no answer, and about how many photos would give one."""
    reach = (known.high - known.low) / 2
    chance = 1 / len(parts.class_names)
    if not known.low > chance and not known.estimate > 2 * chance:
        return (
            f"P@1 is {100 * known.estimate:.0f}% where guessing reaches {100 * chance:.0f}%: these"
            " backbones can't tell the classes apart, and more photos alone may not help"
        )
    if np.isnan(reach) and known.estimate == 1 and parts.num_photos >= 100:
        return ""
    if not reach <= USEFUL_WIDTH:
        times = 4.0 if np.isnan(reach) else (reach / USEFUL_WIDTH) ** 2
        needed = int(np.ceil(parts.num_photos * times / 100)) * 100
        return (
            f"the interval must reach at most {100 * USEFUL_WIDTH:.0f} points to a side: you need"
            f" about {needed:,} photos, you have {parts.num_photos:,}"
        )
    return ""


def threshold_of(run: Run) -> GuaranteedThreshold:
    """The similarity below which a photo is `unknown`, chosen on validation photos: right in 90% of
    the answers where a fifth of the photos are of unknown classes."""
    embeddings = run.embeddings(ALL)
    ids = {name: label for label, name in run.class_names.items()}
    valid = embeddings.images("valid")
    labels = np.array([ids[run.split[image].class_name] for image in valid], np.int64)
    gallery_labels = run.neighbours[ALL].gallery_labels
    neighbours = search(embeddings.gallery, embeddings.vectors("valid"), gallery_labels, labels, 1)
    known = SearchOutcomes(neighbours.similarities[:, 0], precision_at_1(neighbours).astype(bool))
    similarity, groups = [], []
    for phase, held_out in run.held_out.items():
        of_phase = run.embeddings(phase)
        is_new = np.isin(labels, held_out)
        without = search_without_classes(
            of_phase.gallery,
            of_phase.vectors("valid")[is_new],
            run.neighbours[phase].gallery_labels,
            labels[is_new],
            held_out,
        )
        similarity.append(without.similarities[:, 0])
        groups.append(labels[is_new])
    values = np.concatenate(similarity)
    unknown = SearchOutcomes(values, np.zeros(len(values), bool), np.concatenate(groups))
    return guaranteed_threshold(known, GOAL, unknown=unknown, unknown_share=UNKNOWN_SHARE)


def enrolment_of(run: Run) -> Enrolment:
    """Of the test photos of the development part, mean of the hold-outs."""
    ks, curves = (1, 2, 5, 10, 20), []
    for phase, held_out in run.held_out.items():
        embeddings, neighbours = run.embeddings(phase), run.neighbours[phase]
        curve = few_shot_curve(
            embeddings.gallery,
            embeddings.query,
            neighbours.gallery_labels,
            neighbours.query_labels,
            held_out,
            ks=ks,
            draws=DRAWS,
        )
        curves.append(dict(zip(curve.ks, curve.unseen.mean(1), strict=True)))
    shared = set(curves[0])
    for curve_of_phase in curves:
        shared &= set(curve_of_phase)
    common = sorted(shared - {0})
    if not common:
        return Enrolment((), (), 0)
    table = np.empty((len(curves), len(common)))
    for row, curve_of_phase in enumerate(curves):
        table[row] = [curve_of_phase[k] for k in common]
    means = table.mean(axis=0).tolist()
    enough = [k for k, mean in zip(common, means, strict=True) if mean >= means[-1] - NEAR_ENOUGH]
    return Enrolment(tuple(common), tuple(means), enough[0])


def photos_curve(run: Run) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """P@1 of the test photos of the development part, by the photos of each class in the
    gallery."""
    embeddings, neighbours = run.embeddings(ALL), run.neighbours[ALL]
    labels = neighbours.gallery_labels
    typical = int(np.median(np.bincount(labels)))
    counts = sorted({count for count in (1, 2, 5, 10, 20, 50) if count < typical} | {typical})
    precision = np.zeros(len(counts))
    for draw in range(DRAWS):
        places = places_in_class(labels, draw)
        for column, count in enumerate(counts):
            kept = places < count
            answers = search(
                embeddings.gallery[kept], embeddings.query, labels[kept], neighbours.query_labels, 1
            )
            precision[column] += macro(precision_at_1(answers), neighbours.query_labels) / DRAWS
    return tuple(counts), tuple(precision.tolist())


def places_in_class(labels: np.ndarray, draw: int) -> np.ndarray:
    """(photos) the place of each photo in a random order of its class, from 0."""
    order = np.random.default_rng(draw).permutation(len(labels))
    places = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        places[rows] = np.arange(len(rows))
    return places


def gain_of(counts: Sequence[int], precision: Sequence[float], more: float) -> float:
    """What `more` photos of each class would bring: P@1 goes on as between the last two counts,
    against the logarithm of the photos; nan where there is one count."""
    if len(counts) < 2:
        return float("nan")
    slope = (precision[-1] - precision[-2]) / np.log(counts[-1] / counts[-2])
    gain = slope * np.log((counts[-1] + more) / counts[-1])
    return float(np.clip(gain, 0, 1 - precision[-1]))
