"""Random numbers that are the same on every machine."""

import hashlib
from collections.abc import Sequence
from math import ceil
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dice"]

Item = TypeVar("Item")


class Dice:
    """Random numbers that are the same everywhere: NumPy promises a bit generator's raw stream, not
    what is made of it."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._raw = np.random.PCG64(int.from_bytes(digest)).random_raw

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` to below `high`."""
        return low + (high - low) * ((int(self._raw()) >> 11) * 2.0**-53)

    def around(self, spread: float) -> float:
        """A number at most `spread` from 0."""
        return self.uniform(-spread, spread)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """An integer of low .. high, both included."""
        return low + int(self.uniform(0, 1) * (high - low + 1))

    def pick(self, options: Sequence[Item]) -> Item:
        """One of the options, each as likely."""
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in a random order."""
        keys = [self.uniform(0, 1) for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """(count) random bytes."""
        return np.asarray(self._raw(ceil(count / 8)), dtype="<u8").view(np.uint8)[:count]
