"""Randomness as a pure function of what it is for, never of how many numbers were drawn before."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["callers_draws_kept", "deterministic", "permutation", "seed_everything", "uniform"]


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


@contextmanager
def callers_draws_kept() -> Iterator[None]:
    """Afterwards the global generators, and whether torch is deterministic, are as they were. A
    notebook that draws a photo at random before each call would else draw the same one again."""
    import torch

    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed, is_on_gpu = torch.initial_seed(), torch.cuda.is_initialized()
    of_gpus = torch.cuda.get_rng_state_all() if is_on_gpu else []
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    memory = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if is_on_gpu:
            torch.cuda.set_rng_state_all(of_gpus)
        elif torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)  # as torch.manual_seed had; it starts no GPU
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = memory  # type: ignore[attr-defined]
