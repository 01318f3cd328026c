"""The hold-outs of a run beside its queries, of which all numbers on seen and unseen classes are
made."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.search import Neighbours

__all__ = ["Holdouts"]


@dataclass(frozen=True)
class Holdouts:
    """A hold-out is a phase whose model, the limited one, never trained on some classes. Each array
    is made once, for all metrics of the run."""

    neighbours: Mapping[str, Neighbours]
    """By phase; all phases answer the same queries."""
    held_out: Mapping[str, np.ndarray]
    """By phase, the ids of the classes that it never trained on."""

    @property
    def labels(self) -> np.ndarray:
        """(query) class ids."""
        return next(iter(self.neighbours.values())).query_labels

    @cached_property
    def right(self) -> np.ndarray:
        """(hold-outs, query) bool: whether the limited model is right. Raises ValueError where the
        phases answered different queries."""
        for answers in self.neighbours.values():
            if not np.array_equal(answers.query_labels, self.labels):
                raise ValueError(
                    "the phases were evaluated on different queries: they can't be compared in"
                    " pairs"
                )
        return np.stack([precision_at_1(self.neighbours[phase]) == 1 for phase in self.held_out])

    @cached_property
    def never_trained_on(self) -> np.ndarray:
        """(hold-outs, query) bool: whether the limited model never trained on the query's class."""
        rows = [np.isin(self.labels, classes) for classes in self.held_out.values()]
        return np.array(rows, bool).reshape(len(rows), len(self.labels))

    def unseen(self, phase: str) -> np.ndarray:
        """(query) bool: whether the query's class counts as unseen in the numbers of a phase: it
        never trained on it; or, of a phase that trained on all, another did not."""
        rows = self.never_trained_on
        if phase in self.held_out:
            rows = rows[[list(self.held_out).index(phase)]]
        unseen: np.ndarray = np.any(rows, axis=0)
        return unseen

    def groups(self, phase: str) -> dict[str, np.ndarray]:
        """(query) bool by what the names of numbers end with in the summary of a phase: all
        queries, those of seen classes and those of unseen ones."""
        unseen = self.unseen(phase)
        return {"": np.ones_like(unseen), "_seen": ~unseen, "_unseen": unseen}
