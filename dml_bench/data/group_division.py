"""Groups of images divided into parts that never share a group, with each class's share in each
part as near to the wanted one as a local search gets it.

The search works on integers and breaks ties by SHA-256 of (seed, group). So the division depends on
the seed, the groups and their classes, and not on the platform, on library versions or on the order
of files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["NotDivisible", "divide_groups"]

UNIT = 2**16
"""All images of a class, as an integer. Products of such numbers are exact in floating point as
long as there are under 2**20 classes."""
MOST_PAIRS = 3_000**2
"""Of more pairs of groups, none are swapped."""
MOST_SWAPS = 10_000
"""So many of the best swaps are tried before all are computed anew."""
MOST_DECISIONS = 20_000
"""After so many the search for a division with each class in two parts gives up."""


class NotDivisible(ValueError):
    """No division was found that has images of each class in two parts."""

    def __init__(self, classes: Sequence[int]):
        super().__init__(f"classes {list(classes)} are in one part only")
        self.classes = tuple(classes)
        """The ids of classes that stayed in one part."""


def divide_groups(
    groups: Sequence[str] | np.ndarray, labels: np.ndarray, shares: Sequence[float], seed: object
) -> np.ndarray:
    """(images) the part of each image, 0 .. len(shares) - 1. All images of a group are in one part.

    `groups` (images) are names, `labels` (images) class ids, `shares` what each part is to have of
    each class. A class with two groups or more has images in two parts or more. The squared
    differences between the classes' shares and the wanted ones are small, not always the least.
    Raises NotDivisible where some class can't be in two parts.
    """
    from scipy.sparse import csr_array

    names, group_of = np.unique(np.asarray(groups, object), return_inverse=True)
    ranks = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=lambda group: ranks[group])
    place = np.empty(len(names), int)
    place[order] = np.arange(len(names))
    rank_of = place[group_of]
    _, classes = np.unique(labels, return_inverse=True)
    counts = csr_array((np.ones(len(rank_of)), (rank_of, classes)))
    counts.sum_duplicates()
    division = Division.begin(counts, shares)
    division.improve()
    if division.num_one_sided:
        parts = two_sided(division.present)
        if parts is None:
            raise NotDivisible(np.unique(labels)[division.one_sided].tolist())
        division.start_from(parts)
        division.improve()
    part: np.ndarray = division.part[rank_of]
    return part


@dataclass(slots=True)
class Division:
    """Groups in parts, and what moving them would change. Groups are counted in the order of their
    ranks."""

    weights: "csr_array"
    """(group, class) the share of the class's images, in UNIT."""
    present: "csr_array"
    """(group, class) 1 where the group has images of the class."""
    wanted: np.ndarray
    """(part) shares in UNIT."""
    part: np.ndarray
    """(group)"""
    excess: np.ndarray = field(init=False)
    """(part, class) the share that the part has, less the wanted one, in UNIT."""
    groups_in: np.ndarray = field(init=False)
    """(part, class) how many groups with images of the class."""

    @classmethod
    def begin(cls, counts: "csr_array", shares: Sequence[float]) -> "Division":
        """Each group, in the order of ranks, in the part where it helps most."""
        from scipy.sparse import csr_array

        sizes = counts.sum(axis=0)
        present = csr_array((np.ones_like(counts.data), counts.indices, counts.indptr))
        weights = csr_array(
            (np.rint(counts.data * UNIT / sizes[counts.indices]), counts.indices, counts.indptr)
        )
        wanted = np.rint(np.array(shares) * UNIT)
        excess = np.repeat(-wanted[:, None], counts.shape[1], axis=1)
        part = np.zeros(counts.shape[0], int)
        for group in range(counts.shape[0]):
            at = slice(counts.indptr[group], counts.indptr[group + 1])
            classes, share = counts.indices[at], weights.data[at]
            part[group] = np.argmin(excess[:, classes] @ share)
            excess[part[group], classes] += share
        division = cls(weights, present, wanted, part)
        division.start_from(part)
        return division

    def start_from(self, part: np.ndarray) -> None:
        """Put the groups into these parts."""
        self.part = part
        inside = (part[None, :] == np.arange(len(self.wanted))[:, None]).astype(float)
        self.excess = inside @ self.weights - self.wanted[:, None]
        self.groups_in = inside @ self.present

    @property
    def one_sided(self) -> np.ndarray:
        """(class) whether it has groups enough for two parts, and is in one only."""
        total = self.groups_in.sum(axis=0)
        lonely: np.ndarray = (self.groups_in.max(axis=0) == total) & (total > 1)
        return lonely

    @property
    def num_one_sided(self) -> int:
        return int(self.one_sided.sum())

    def improve(self) -> None:
        """Move or swap groups as long as that lowers the number of classes in one part only or, at
        the same number, the differences from the wanted shares."""
        squares = self.weights.multiply(self.weights).sum(axis=1)
        few = len(self.part) ** 2 <= MOST_PAIRS
        products = (self.weights @ self.weights.T).toarray() if few else None
        moved = True
        while moved:
            changes = self.changes(squares)
            moved = self.move(changes) or (
                products is not None and self.swap(changes - self.penalty(), products)
            )

    def changes(self, squares: np.ndarray) -> np.ndarray:
        """(group, part) what each move would add to the cost: twice the squared difference, and
        the penalty of classes that come to be in one part only."""
        at = np.arange(len(self.part))
        gain = self.weights @ self.excess.T
        change: np.ndarray = 2 * (squares[:, None] + gain - gain[at, self.part][:, None])
        change += self.penalty()
        change[at, self.part] = 0
        return change

    def penalty(self) -> np.ndarray:
        """(group, part) the part of `changes` that is about classes in one part only."""
        at, total = np.arange(len(self.part)), self.groups_in.sum(axis=0)
        joins = self.present @ (self.groups_in + 1 == total).T.astype(float)
        leaves = (self.present @ (self.groups_in == total).T.astype(float))[at, self.part]
        # More than all differences together: they are at most 1 for each class and part.
        weight = 4.0 * UNIT**2 * self.excess.size
        penalty: np.ndarray = weight * (joins - leaves[:, None])
        penalty[at, self.part] = 0
        return penalty

    def move(self, changes: np.ndarray) -> bool:
        """Make the moves that lower the cost, best first, at most one for each class."""
        to = changes.argmin(axis=1)
        change = changes[np.arange(len(to)), to]
        touched = np.zeros(self.excess.shape[1], bool)
        better = np.flatnonzero(change < 0)
        for group in better[np.argsort(change[better], kind="stable")]:
            classes = self.classes_of(group)
            if not touched[classes].any():
                touched[classes] = True
                self.put(int(group), int(to[group]))
        return bool(len(better))

    def swap(self, changes: np.ndarray, products: np.ndarray) -> bool:
        """Make the swaps of two groups that lower the cost, best first, at most one for each class.
        A swap that leaves another class in one part only is not made."""
        to = changes[:, self.part]  # (group, other) what it costs to move to the other's part
        both = to + to.T - 4 * products
        both[self.part[:, None] == self.part] = 0
        flat = np.triu(both).ravel()
        better = np.flatnonzero(flat < 0)
        touched, swapped = np.zeros(self.excess.shape[1], bool), False
        for pair in better[np.argsort(flat[better], kind="stable")][:MOST_SWAPS]:
            one, other = divmod(int(pair), len(self.part))
            classes = np.concatenate([self.classes_of(one), self.classes_of(other)])
            if touched[classes].any():
                continue
            before, part_of_one, part_of_other = (
                self.num_one_sided,
                self.part[one],
                self.part[other],
            )
            self.put(one, part_of_other)
            self.put(other, part_of_one)
            if self.num_one_sided > before:
                self.put(one, part_of_one)
                self.put(other, part_of_other)
            else:
                touched[classes] = swapped = True
        return swapped

    def classes_of(self, group: int) -> np.ndarray:
        start, end = self.weights.indptr[group], self.weights.indptr[group + 1]
        classes: np.ndarray = self.weights.indices[start:end]
        return classes

    def put(self, group: int, part: int) -> None:
        classes = self.classes_of(group)
        share = self.weights.data[self.weights.indptr[group] : self.weights.indptr[group + 1]]
        before = self.part[group]
        self.excess[before, classes] -= share
        self.groups_in[before, classes] -= 1
        self.excess[part, classes] += share
        self.groups_in[part, classes] += 1
        self.part[group] = part


def two_sided(present: "csr_array") -> np.ndarray | None:
    """(group) 0 or 1 such that each class with two groups or more has both; None where there is no
    such division, or none was found."""
    decisions = Decisions.begin(present)
    for _ in range(MOST_DECISIONS):
        undecided = np.flatnonzero(decisions.part < 0)
        if not len(undecided):
            return decisions.part
        consistent = decisions.follow(int(undecided[0]), 0, free=True)
        while not consistent:
            group = decisions.take_back()
            if group is None:
                return None
            consistent = decisions.follow(group, 1, free=False)
    return None


@dataclass(slots=True)
class Decisions:
    """A search that decides the part of one group at a time, and all that follows from it."""

    members: list[np.ndarray]
    """By class that has several, the groups."""
    classes_of: list[list[int]]
    """By group, such classes."""
    part: np.ndarray
    """(group) 0, 1, or -1 where it isn't decided."""
    made: list[tuple[int, bool]] = field(default_factory=list)
    """Groups in the order in which they were decided, and whether the other part may be tried."""

    @classmethod
    def begin(cls, present: "csr_array") -> "Decisions":
        by_class = present.T.tocsr()
        members = [by_class.indices[start:end] for start, end in pairwise(by_class.indptr)]
        members = [groups for groups in members if len(groups) > 1]
        classes_of: list[list[int]] = [[] for _ in range(present.shape[0])]
        for number, groups in enumerate(members):
            for group in groups:
                classes_of[group].append(number)
        return cls(members, classes_of, np.full(present.shape[0], -1))

    def follow(self, group: int, value: int, *, free: bool) -> bool:
        """Decide a group and what follows from it; False where that contradicts itself."""
        waiting = [(group, value)]
        while waiting:
            group, value = waiting.pop()
            if self.part[group] < 0:
                self.part[group] = value
                self.made.append((group, free))
                free = False
                for number in self.classes_of[group]:
                    waiting += self.forced(number)
            elif self.part[group] != value:
                return False
        return True

    def forced(self, number: int) -> list[tuple[int, int]]:
        """What the parts of a class's other groups leave to its last one. A class that is in one
        part only wants its first group in the other, which is a contradiction."""
        groups = self.members[number]
        values = self.part[groups]
        undecided, decided = groups[values < 0], values[values >= 0]
        if len(undecided) > 1 or decided.min() != decided.max():
            return []
        last = undecided if len(undecided) else groups
        return [(int(last[0]), int(1 - decided[0]))]

    def take_back(self) -> int | None:
        """Undo all decisions back to the last whose other part may be tried, and return its group;
        None where there is none."""
        while self.made:
            group, free = self.made.pop()
            self.part[group] = -1
            if free:
                return group
        return None
