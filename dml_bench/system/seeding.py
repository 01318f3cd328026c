"""Randomness as a pure function of what it is for, never of how many numbers were drawn before."""

import hashlib
import random

import numpy as np

__all__ = ["deterministic", "permutation", "seed_everything", "uniform"]


def _key(*what: object) -> int:
    return int.from_bytes(hashlib.sha256("|".join(map(str, what)).encode()).digest()[:16], "little")


def uniform(*what: object, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) uniform numbers in [0, 1), a pure function of `what` (e.g. seed, phase,
    epoch, purpose).

    Row i belongs to image i and does not depend on `rows`: a counter-based generator (Philox,
    Salmon et al. 2011) keyed by `what` gives each image its own counters, so workers, batches and
    resumes never change what was drawn.
    """
    return np.random.Generator(np.random.Philox(key=_key(*what))).random((rows, columns))


def permutation(*what: object, items: np.ndarray) -> np.ndarray:
    """The items in an order that is a pure function of `what` and of the order in which they are
    given."""
    return items[np.argsort(uniform(*what, rows=len(items), columns=1)[:, 0], kind="stable")]


def seed_everything(*what: object) -> None:
    """Seed torch, NumPy's and Python's global generators from `what`; called at the start of each
    epoch, so that no generator state has to survive an interruption."""
    import torch

    key = _key(*what)
    # As torch.manual_seed, which formats the stack for each kind of device that is not there.
    torch.default_generator.manual_seed(key % 2**63)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(key % 2**63)
    np.random.seed(key % 2**32)
    random.seed(key)


def deterministic() -> None:
    """Ask torch for the same bits every time. On CUDA what has no deterministic form warns instead
    of failing."""
    import os

    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # As use_deterministic_algorithms, without the second in which that imports torch's compiler.
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    # A debugging aid that costs 2% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
