"""A folder of photos in, a decision out, in the time that was allowed."""

import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.decision.catalogue import CatalogueGallery, catalogue_gallery
from dml_bench.decision.choice import By, Candidate, Row, Selection, choose
from dml_bench.decision.final import FinalPhotos
from dml_bench.decision.outlook import Enrolment, Outlook, enrolment_of, outlook_of
from dml_bench.decision.parts import PHOTOS, Parts, divide
from dml_bench.decision.rows import Clock, Interrupting, Pace, PlannedRow, TimeUp, plan, run_seed
from dml_bench.decision.threshold import UnknownThreshold, unknown_threshold
from dml_bench.evaluation.statistics import (
    PROPORTION,
    Interval,
    Scores,
    interval,
    query_share,
)
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_json, write_json
from dml_bench.system.terminal import duration

__all__ = ["Decision", "by_reason", "decide"]

PAGE_SECONDS, PAGE_SECONDS_PER_PHOTO = 6.0, 0.0015
"""What thresholds, estimates and the page take, on a machine that has nothing else to do."""
USEFUL_WIDTH = 0.1
"""An interval that reaches farther to a side is no answer."""
MORE_PHOTOS = 100
MOST_TIMES = 3
"""Photos of the same classes are asked for where they are at most so many times those that it would
take with more classes."""
CHOICE, DECISION = "choice.json", "decision.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What is printed: all precisions are proportions on the final part, but for the choice, the
    enrolment and what more photos would bring, which are of the development part."""

    parts: Parts
    choice: Selection
    folder: Path
    """The chosen run, of the first seed."""
    num_seeds: int
    known: Interval
    gallery_known: Interval
    """The same by the gallery of its network."""
    new: Interval
    """On classes that the model was not trained on, with their photos in the gallery."""
    no_answer: str
    """Why the numbers decide nothing; empty where they do."""
    best: str
    """The row and way that are best on the final part."""
    regret: float
    """P@1 of that minus P@1 of the chosen one, on the final part."""
    final: Mapping[str, Interval]
    """By row and way, P@1 on the final part."""
    enrolment: Enrolment
    threshold: UnknownThreshold
    outlook: Outlook
    catalogue: CatalogueGallery | None
    """Studio photos as the gallery; None where there are none."""
    photos_per_second: float
    """By the clock, while `decide` was busy."""
    photo_cpu_seconds: float
    """CPU time that one photo takes; NaN on a GPU."""
    gallery_bytes: int
    train_seconds: float
    """Of the chosen run, one seed with its models of hold-outs."""
    skipped: tuple[str, ...]
    """Rows for which the time did not suffice."""
    unavailable: Mapping[str, str]
    """By row, why it can't be run here."""
    unreadable: tuple[str, ...]
    """Photos that can't be decoded, which no row used."""
    seconds: float
    minutes: float
    """What was allowed."""

    def as_table(self) -> dict[str, Any]:
        """For JSON: proportions from 0 to 1."""
        return {
            "answer": "no answer" if self.no_answer else self.answer,
            "no_answer": self.no_answer,
            "run": str(self.folder),
            "commands": list(self.commands),
            "split": {"kind": self.parts.kind, "reason": self.parts.reason},
            "seeds": self.num_seeds,
            "choice": self.choice.as_table(),
            "final": {
                "known": self.known.as_table(),
                "known_by_gallery": self.gallery_known.as_table(),
                "new": self.new.as_table(),
                "best": self.best,
                "regret": self.regret,
                "rows": {row: value.as_table() for row, value in self.final.items()},
            },
            "enrolment": asdict(self.enrolment),
            "unknown": {
                "threshold": self.threshold.promise.value,
                "goal": self.threshold.promise.goal,
                "answered": self.threshold.answered,
                "precision": self.threshold.precision,
                "strangers_answered": self.threshold.strangers_answered,
                "lack": self.threshold.lack,
            },
            "more_photos": {
                "photos_per_class": list(self.outlook.photos_per_class),
                "precision": list(self.outlook.precision),
                "gain_of_100": self.outlook.gain,
            },
            "catalogue": None if self.catalogue is None else self.catalogue.as_table(),
            "cost": {
                "photos_per_second": self.photos_per_second,
                "photo_cpu_seconds": self.photo_cpu_seconds,
                "gallery_bytes": self.gallery_bytes,
                "train_seconds": self.train_seconds,
            },
            "photos": self.num_photos,
            "photos_unreadable": list(self.unreadable),
            "photos_left_out_as_copies": self.parts.copies,
            "pictures_in_two_classes": self.parts.in_two_classes,
            "classes": len(self.parts.class_names),
            "classes_left_out": list(self.parts.left_out),
            "skipped_rows": list(self.skipped),
            "unavailable_rows": dict(self.unavailable),
            "seconds": self.seconds,
            "minutes": self.minutes,
        }

    @property
    def num_photos(self) -> int:
        """Those of the final part and those for rows that can be read."""
        return self.parts.num_photos - len(self.unreadable)

    @property
    def answer(self) -> str:
        """`gallery` or `classifier`."""
        return "gallery" if self.choice.chosen.is_gallery else "classifier"

    @property
    def commands(self) -> tuple[str, str]:
        """The two that go on from here, without the name of the program."""
        promise = self.threshold.promise
        folder = shlex.quote(str(self.folder))
        options = f" --precision {promise.goal:g}" if promise.promised else ""
        if not self.choice.chosen.is_gallery:
            options = " --by classifier"
        elif self.choice.chosen.by == "mean":
            options = f" --by mean{options}"
        return (
            f"enrol {folder} --images new_classes",
            f"predict {folder} photo.jpg{options}",
        )


def decide(  # noqa: PLR0913 - what a person can choose
    photos: Path,
    *,
    minutes: float,
    out: Path,
    group: str,
    cache_dir: Path,
    device: str,
    overrides: Sequence[str],
    callback: Callback,
    catalogue: Path | None = None,
) -> Decision:
    """Divide, plan, run the rows that fit, choose, and only then open the final part. Raises
    ValueError where there are too few photos or minutes."""
    if not photos.exists():
        raise ValueError(f"{photos} does not exist: give a folder with one folder per class")
    clock = Clock(60 * minutes, time.monotonic())
    out.mkdir(parents=True, exist_ok=True)
    parts = divide(
        photos,
        out,
        cache_dir,
        callback,
        group=group,
        overrides=overrides,
        catalogue=catalogue,
        seconds=clock.left,
        device=device,
    )
    callback.note(f"split: {parts.kind}, as {parts.reason}")
    file = out / CHOICE
    if file.exists():
        callback.note("the final part was opened before: no row is added, and the choice stays")
        finished = read_rows(file)
        choice = made_before(choose(finished.rows), file)
    else:
        planned, unavailable = plan(parts, overrides, device)
        callback.note(say_plan(planned, unavailable, clock.left - page_seconds(parts)))
        rows, skipped = run_rows(planned, parts, clock, cache_dir, device, callback)
        finished = FinishedRows(rows, skipped, unavailable)
        choice = choose(finished.rows)
        write_json(file, {**choice.as_table(), **finished.as_table(out), "seconds": clock.spent})
    decision = open_final(parts, finished, choice, device, clock, callback)
    write_json(out / DECISION, decision.as_table())
    return decision


def page_seconds(parts: Parts) -> float:
    return PAGE_SECONDS + PAGE_SECONDS_PER_PHOTO * parts.num_photos


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """What there is to choose from, and what there isn't."""

    rows: Mapping[str, Row]
    """By label."""
    skipped: tuple[str, ...]
    """Rows for which the time did not suffice."""
    unavailable: Mapping[str, str]
    """By row, why it can't be run here."""
    earlier_seconds: float = 0.0
    """What an earlier session took until it had chosen."""

    def as_table(self, out: Path) -> dict[str, Any]:
        """For JSON: the folders of runs, relative to that of the decision."""
        folders = {}
        for label, runs in self.rows.items():
            folders[label] = [str(run.folder.relative_to(out)) for run in runs]
        return {
            "folders": folders,
            "skipped": list(self.skipped),
            "unavailable": dict(self.unavailable),
        }


def read_rows(file: Path) -> FinishedRows:
    """Those of a choice that was made before."""
    made = read_json(file)
    rows = {}
    for label, folders in made["folders"].items():
        rows[label] = tuple(read_folder(file.parent / folder) for folder in folders)
    skipped, seconds = tuple(made["skipped"]), made.get("seconds", 0.0)
    return FinishedRows(rows, skipped, made["unavailable"], earlier_seconds=seconds)


def made_before(choice: Selection, file: Path) -> Selection:
    """With what was chosen then, which another version may have chosen by another rule."""
    made = read_json(file)
    [chosen] = (
        candidate
        for candidate in choice.candidates
        if (candidate.label, candidate.way) == (made["row"], made["way"])
    )
    return replace(choice, chosen=chosen)


def say_plan(rows: Sequence[PlannedRow], unavailable: Mapping[str, str], left: float) -> str:
    """Which rows fit into the time, as guessed before the first of them, with their seconds, and
    why others can't be run."""
    lines: list[str] = []
    done: set[str] = set()
    spent = 0.0
    for row in rows:
        of_photos, of_final = row.left_of(done)
        seconds = of_photos + len(row.experiments) * row.seed_seconds
        verdict = "if time is left"
        if spent + seconds + of_final + row.final_seconds <= left:
            verdict = "fits"
            spent += seconds + of_final + row.final_seconds
            done.update(work.name for work in row.shared)
        lines.append(f"  {row.spec.label}: about {duration(seconds)}, {verdict}")
    for labels, reason in by_reason(unavailable):
        lines.append(f"not run: {'; '.join(labels)}: {reason}")
    minutes = max(0.0, left / 60)
    first = f"rows in their order, for {minutes:.1f} minutes (each row corrects the next guess):"
    return "\n".join([first, *lines])


def by_reason(unavailable: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """The labels of the rows that can't be run for a reason, and the reason."""
    for reason in dict.fromkeys(unavailable.values()):
        yield [label for label, why in unavailable.items() if why == reason], reason


def run_rows(
    planned: Sequence[PlannedRow],
    parts: Parts,
    clock: Clock,
    cache_dir: Path,
    device: str,
    callback: Callback,
) -> tuple[dict[str, Row], tuple[str, ...]]:
    """The runs of the rows that fit, by label, and the labels of the others. A row that does not
    fit is left out, as a later one may need less; of the first, fewer seeds do. A run keeps what it
    did, so the same command goes on. Raises ValueError where no run fits."""
    rows: dict[str, Row] = {}
    done: set[str] = set()
    final_seconds, pace = 0.0, Pace()
    for row in planned:
        of_photos, of_final = row.left_of(done)
        of_final += row.final_seconds
        runs: list[Run] = []
        begun = time.monotonic()
        try:
            for number, experiment in enumerate(row.experiments):
                left = len(row.experiments) - number
                after = pace.slower * (page_seconds(parts) + final_seconds + of_final)
                guessed = pace.seconds(row.spec.training, row.seed_seconds)
                photos = of_photos * (number == 0)
                needed = left * guessed + photos
                if needed + after > clock.left:
                    raise TimeUp
                callback.progress(f"{row.spec.label}, seeds", number, len(row.experiments))
                heard = Interrupting(callback, clock, after, guessed + photos)
                start = time.monotonic()
                runs.append(run_seed(row, experiment, parts, cache_dir, device, heard))
                seconds = time.monotonic() - start
                # What was finished before an interruption takes no time, and measures nothing.
                if seconds > 1:
                    pace.measured(row.spec.training, row.seed_seconds, photos, seconds)
        except TimeUp:
            if rows or not runs:
                continue
            # An answer of fewer seeds is better than none.
        rows[row.spec.label] = tuple(runs)
        done.update(work.name for work in row.shared)
        final_seconds += of_final
        took, left_over = duration(time.monotonic() - begun), duration(max(clock.left, 0))
        callback.note(f"{row.spec.label}: took {took}, {left_over} left")
    if not rows:
        first = planned[0]  # which needs the least
        needed, of_final = first.left_of(done)
        needed += pace.slower * (of_final + first.final_seconds + page_seconds(parts))
        needed += len(first.experiments) * pace.seconds(first.spec.training, first.seed_seconds)
        if needed < clock.seconds:  # the guess was wrong: the first run did not end
            needed = 2 * clock.seconds
        raise ValueError(
            f"no answer: --minutes must be at least about {math.ceil(needed / 60 + 0.5)} for"
            f" {parts.num_photos:,} photos on this machine, got {clock.seconds / 60:g}: allow more;"
            " what is computed is kept"
        )
    return rows, tuple(row.spec.label for row in planned if row.spec.label not in rows)


def open_final(
    parts: Parts,
    finished: FinishedRows,
    choice: Selection,
    device: str,
    clock: Clock,
    callback: Callback,
) -> Decision:
    """The numbers of the chosen row on the final part, and of all others for the regret."""
    files, classes = parts.final()
    final = FinalPhotos(
        files, classes, device, lambda done, total: callback.progress("final part", done, total)
    )
    rows, chosen = finished.rows, choice.chosen
    runs = rows[chosen.label]
    scores: dict[str, list[Scores]] = {}
    precision: dict[str, Interval] = {}
    for candidate in choice.candidates:
        scores[candidate.name] = final_scores(final, rows[candidate.label], candidate)
        precision[candidate.name] = interval(scores[candidate.name], within=PROPORTION)
    known = precision[chosen.name]
    best = max(precision, key=lambda name: precision[name].estimate)
    skipped = runs[0].summary["dataset"].get("left_out", ())
    unreadable = [path.removeprefix(f"{PHOTOS}/") for path in skipped]
    unreadable += [path.relative_to(parts.photos).as_posix() for path in final.unreadable]
    cost = runs[0].costs[ALL]
    return Decision(
        parts=parts,
        choice=choice,
        folder=runs[0].folder,
        num_seeds=max(len(seeds) for seeds in rows.values()),
        known=known,
        gallery_known=interval(gallery_scores(final, runs, chosen.by), within=PROPORTION),
        new=new_classes(final, runs, chosen.by),
        no_answer=why_none(known, query_share(Scores.mean(scores[chosen.name])), parts),
        best=best,
        regret=precision[best].estimate - known.estimate,
        final=precision,
        enrolment=enrolment_of(runs[0], chosen.by),
        threshold=unknown_threshold(final, runs[0], chosen.by),
        outlook=outlook_of(runs[0], chosen.by, MORE_PHOTOS),
        catalogue=by_catalogue(final, parts, runs[0], device),
        photos_per_second=float(cost.get("photos_per_second", np.nan)),
        photo_cpu_seconds=float(cost.get("photo_cpu_seconds", np.nan)),
        gallery_bytes=int(cost["gallery_bytes"]),
        train_seconds=sum(part["train_seconds"] for part in runs[0].costs.values()),
        skipped=finished.skipped,
        unavailable=finished.unavailable,
        unreadable=tuple(sorted(unreadable)),
        seconds=finished.earlier_seconds + clock.spent,
        minutes=clock.seconds / 60,
    )


def by_catalogue(
    final: FinalPhotos, parts: Parts, run: Run, device: str
) -> CatalogueGallery | None:
    """Studio photos of the run's classes as the gallery of the final photos, but of those that are
    studio photos themselves: they would be right answers to themselves."""
    files, classes = [], []
    for file, name in zip(*parts.catalogue(), strict=True):
        if name in run.class_ids:
            files.append(file)
            classes.append(name)
    final = final.without_copies_of(files)
    if not files or not final.files:
        return None
    return catalogue_gallery(final, FinalPhotos(files, classes, device), run)


def final_scores(final: FinalPhotos, runs: Row, candidate: Candidate) -> list[Scores]:
    """By seed."""
    if candidate.is_gallery:
        return gallery_scores(final, runs, candidate.by)
    return [final.by_logits(run) for run in runs]


def gallery_scores(final: FinalPhotos, runs: Row, by: By) -> list[Scores]:
    """By seed."""
    return [final.nearest(run, by=by).scores for run in runs]


def new_classes(final: FinalPhotos, runs: Row, by: By) -> Interval:
    """P@1 of the gallery, of each class by the model that was not trained on it."""
    seeds = []
    for run in runs:
        values, labels = [], []
        for phase, held_out in run.held_out.items():
            nearest = final.nearest(run, phase, by)
            is_new = np.isin(nearest.labels, held_out)
            values.append(nearest.correct[is_new])
            labels.append(nearest.labels[is_new])
        seeds.append(Scores(np.concatenate(values), np.concatenate(labels)))
    return interval(seeds, within=PROPORTION)


def why_none(known: Interval, share: float, parts: Parts) -> str:
    """Why there is no answer, and about how many photos would give one. `share` is the part of the
    variance between classes that their photos alone explain."""
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
        return (
            f"the interval must reach at most {100 * USEFUL_WIDTH:.0f} points to a side:"
            f" {wanted(reach, share, parts)}"
        )
    return ""


def wanted(reach: float, share: float, parts: Parts) -> str:
    """How many photos would bring an interval down to a useful width: of the same classes, where
    these explain enough of it, else in proportion with classes."""
    if np.isnan(reach):  # nothing is known of it: taken as twice too wide, by the photos alone
        reach, share = 2 * USEFUL_WIDTH, 1.0
    left = (USEFUL_WIDTH / reach) ** 2
    with_classes = hundreds(parts.num_photos / left)
    if left > 1 - share:
        of_same = hundreds(parts.num_photos * share / (left - (1 - share)))
        if of_same <= MOST_TIMES * with_classes:
            return f"you need about {of_same:,} photos, you have {parts.num_photos:,}"
    num_classes = len(parts.class_names)
    more = f"about {math.ceil(num_classes / left)} classes"
    if parts.rule:
        more += " or of more sessions"
    return (
        "some classes are much easier than others, which more photos like these don't change: you"
        f" need about {with_classes:,} photos of {more}, you have {parts.num_photos:,} of"
        f" {num_classes} classes"
    )


def hundreds(number: float) -> int:
    return math.ceil(number / 100) * 100
