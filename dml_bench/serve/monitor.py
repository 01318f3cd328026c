"""What a server logged, held against the calibration images of its gallery."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dml_bench.gallery.calibration import CalibrationSet, calibration_set
from dml_bench.gallery.format import count
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.store import GalleryFile
from dml_bench.serve.answer_log import LoggedAnswer, answers_gone, log_file, read_answers
from dml_bench.serve.drift import SIZE, Drift, Window, find_drift

__all__ = ["Monitored", "monitor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitored:
    """The answers of a server, and whether its promise still applies."""

    drift: Drift
    last: LoggedAnswer
    """The last answer, with what the server was asked to keep."""
    images: CalibrationSet
    """The images of the gallery as it is now."""
    other_galleries: int
    """The answers that were given when the gallery had another number of images."""
    other_models: int
    """The answers of the log up to the last one of another model, which are left out."""

    @property
    def promised(self) -> bool:
        """Whether the server had a threshold for the precision that it was asked to keep; without
        one, every photo is unknown."""
        return self.last.precision is not None and self.last.threshold is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "photos": self.drift.photos,
            "drifted": self.drift.drifted,
            "precision": self.last.precision,
            "promised": self.promised,
            "unknown_share": self.last.unknown_share,
            "expected_unknown": self.drift.expected_unknown,
            "expected_similarity": self.drift.expected_similarity,
            "answered_by_other_galleries": self.other_galleries,
            "answered_before_this_model": self.other_models,
            "windows": [
                {**asdict(window), "differs": window.differs} for window in self.drift.windows
            ],
        }

    def describe(self) -> Iterator[str]:
        """Sentences for people, the verdict last."""
        drift = self.drift
        kind = "validation" if self.images.source == "validation" else "enrolled"
        yield (
            f"{count(drift.photos, 'photo')} answered, held against"
            f" {len(self.images.known.correct):,} {kind} images, of which"
            f" {drift.expected_unknown:.0%} are unknown and whose median similarity is"
            f" {drift.expected_similarity:.3f}"
        )
        if self.other_models:
            yield (
                f"left out: {count(self.other_models, 'earlier answer')} of the log, up to the last"
                " one of another model"
            )
        if self.other_galleries:
            yield (
                f"{self.other_galleries:,} of these photos were answered before the gallery"
                " changed: more images make every photo a little more similar"
            )
        if not drift.windows:
            yield f"nothing can be said yet: that takes {SIZE} photos, got {drift.photos}"
            return
        differing = [window for window in drift.windows if window.differs]
        if differing:
            yield (
                f"{len(differing):,} of {len(drift.windows):,} windows of {SIZE} photos differ"
                " from the calibration images"
            )
        yield describe_window(drift.windows[-1])
        yield self.verdict()

    def verdict(self) -> str:
        """Whether the promise still applies, and what to do."""
        threshold = "the calibration"
        if self.last.precision is not None and not self.promised:
            kind = "are of another kind than" if self.drift.drifted else "are as similar as"
            return (
                f"a precision of {self.last.precision:.0%} can't be promised any more, so every"
                f" photo is unknown; these photos {kind} the calibration images: `dml-bench predict"
                f" RUN PHOTO --precision {self.last.precision:g}` says what is lacking"
            )
        if self.last.precision is not None:
            threshold = f"the promise of a precision of {self.last.precision:.0%}"
        if not self.drift.drifted:
            return f"nothing speaks against {threshold}: these photos are as similar as its images"
        return (
            f"{threshold} no longer applies, because the photos are of another kind: look at some,"
            " enrol classes that are missing, and train with photos like these as validation images"
        )


def describe_window(window: Window) -> str:
    """The photos of a window."""
    chance = "less than 1 in a million" if window.p_value < 1e-6 else f"{window.p_value:.2g}"
    return (
        f"of the last whole window of {SIZE} photos, {window.unknown_share:.0%} are unknown, and"
        f" their median similarity is {window.similarity:.3f} ({window.first} to {window.last};"
        f" largest gap {window.gap:.2f}, p {chance}, level {window.level:.2g})"
    )


def monitor(gallery_file: GalleryFile) -> Monitored:
    """Read the log of a gallery's server. Raises ValueError where there is none, or where there are
    no images to hold it against."""
    everything = list(read_answers(gallery_file))
    answers = of_this_model(gallery_file, everything)
    if not answers:
        of_model = " of this model" if everything else ""
        raise ValueError(
            f"{log_file(gallery_file)} holds no answers{of_model}: dml-bench serve"
            f" {gallery_file.run.folder} writes them"
        )
    other_models = len(everything) - len(answers)
    last = answers[-1]
    gallery = gallery_file.read(new=True)
    images = calibration_set(gallery_file.run, gallery_file.phase, gallery)
    curve = images.curve(last.unknown_share)
    if not curve.total and len(images.known.correct):
        raise ValueError(
            f"{gallery_file.run.folder} has no images of classes that are not enrolled, which stand"
            f" for {last.unknown_share:.0%} of the photos: serve it without --unknown-share, or"
            " enrol classes that the run does not have"
        )
    if not curve.total:
        step = "train with --set data.valid_fraction=0.2"
        if images.validates_by_class:
            step = "enrol photos"
        raise ValueError(f"{gallery_file.run.folder} has no images to hold answers against: {step}")
    threshold = last.threshold
    if threshold is None:
        # A server that can't keep a precision answers nothing; one that needn't, everything.
        threshold = -math.inf if last.precision is None else math.inf
    sizes = Counter(answer.images for answer in answers)
    independent = curve.total * images.known.num_groups / max(len(images.known.correct), 1)
    return Monitored(
        drift=find_drift(
            answers, curve, threshold, independent, answers_gone(gallery_file) + other_models
        ),
        last=last,
        images=images,
        other_galleries=len(answers) - sizes[len(gallery.entries)],
        other_models=other_models,
    )


def of_this_model(gallery_file: GalleryFile, answers: list[LoggedAnswer]) -> list[LoggedAnswer]:
    """Those after the last one of another model, whose similarities can't be compared."""
    models = ("", embedder_digest(gallery_file.run, gallery_file.phase))
    first = 0
    for place, answer in enumerate(answers):
        if answer.embedder not in models:
            first = place + 1
    return answers[first:]
