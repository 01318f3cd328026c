"""Which row and which way to answer: chosen by the test photos of the development part alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.statistics import (
    DIFFERENCE,
    PROPORTION,
    Interval,
    Scores,
    interval,
)
from dml_bench.protocols.holdout_metrics import ALL, logits_scores
from dml_bench.protocols.metric import scores_of_phase
from dml_bench.runs.run import Run

__all__ = ["Candidate", "Selection", "candidates_of", "choose"]

Way = Literal["nearest photo", "class means", "classifier"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run and a way to answer with it."""

    label: str
    way: Way
    scores: Scores
    """Of the test photos of the development part: whether each is answered right."""

    @property
    def is_gallery(self) -> bool:
        """Whether a new class needs photos and no training."""
        return self.way != "classifier"

    @property
    def precision(self) -> Interval:
        """P@1, the mean over classes."""
        return interval([self.scores], within=PROPORTION)


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen before the final part was opened."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    classifier: Candidate | None
    """The best one, perhaps not the chosen one."""
    ahead: Interval | None
    """P@1 of the best classifier minus that of the best gallery."""

    def as_table(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "row": self.chosen.label,
            "way": self.chosen.way,
            "rows": {
                f"{candidate.label}: {candidate.way}": candidate.precision.estimate
                for candidate in self.candidates
            },
        }


def candidates_of(runs: Mapping[str, Run]) -> Iterator[Candidate]:
    """Each run's ways to answer, in the order of the rows."""
    for label, run in runs.items():
        yield Candidate(label, "nearest photo", scores_of_phase(precision_at_1, ALL, run))
        if run.logits(ALL).path.is_file():
            yield Candidate(label, way_of_logits(run), logits_scores(run))


def way_of_logits(run: Run) -> Way:
    """Class means are a gallery: a new class has a mean as soon as it has photos."""
    return "class means" if run.experiment.optimizer.name == "class_means" else "classifier"


def choose(runs: Mapping[str, Run]) -> Selection:
    """The best gallery; a classifier only where its lead can't be chance, as a new class would cost
    it a training. Of equal ones the first."""
    candidates = tuple(candidates_of(runs))
    galleries = [candidate for candidate in candidates if candidate.is_gallery]
    classifiers = [candidate for candidate in candidates if not candidate.is_gallery]
    best = max(galleries, key=lambda candidate: candidate.precision.estimate)
    if not classifiers:
        return Selection(candidates, best, None, None)
    rival = max(classifiers, key=lambda candidate: candidate.precision.estimate)
    ahead = interval([rival.scores.minus(best.scores)], within=DIFFERENCE)
    return Selection(candidates, rival if ahead.low > 0 else best, rival, ahead)
