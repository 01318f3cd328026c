"""Threads that wait for nothing else, for computations whose bits don't depend on how many do them.

Most bits do: where numbers are summed over a batch, PyTorch and oneDNN cut the sum by the number of
threads. A convolution's maps in bfloat16, its gradient of the images where it has no stride, and
what is computed element by element are the same on any number; only these use the threads that are
lent here. And gradients of weights, each by itself on as many threads as ever, are computed beside
the rest of a backward pass.

Other programs may need the cores, and two threads that share one are far slower than one thread. So
some training steps in a hundred are timed with and without, and the others go the faster way.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import Parameter

from dml_bench.system.devices import torch_threads

__all__ = [
    "SPARE",
    "Beside",
    "SpareThreads",
    "on_spare_threads",
    "own_threads_only",
    "spare_threads",
    "weight_gradients_beside",
]

PERIOD = 100
"""Steps after which is tried anew."""
TRIED = 2
"""Steps that are timed of either way; the shortest counts, as something else may happen in one."""


class SpareThreads:
    """How many threads there are in all, and whether they make training steps shorter."""

    def __init__(self) -> None:
        self.are_paused = False
        """Whether torch keeps to its own threads meanwhile, whatever is lent."""
        self.beside: Beside | None = None
        """What takes gradients of weights now."""
        self._lent = 0
        self._help = True
        self._step, self._start = 0, 0.0
        self._seconds: list[float] = []

    def lend(self, threads: int) -> None:
        """From now on so many threads are there for what gives the same bits on them; 0 takes them
        back."""
        self._lent, self._help, self._step = threads, True, 0

    @property
    def lent(self) -> int:
        """What was lent last."""
        return self._lent

    @property
    def are_used(self) -> bool:
        """Whether there are more threads than torch has, and they help."""
        return not self.are_paused and self._help and self._lent > torch.get_num_threads()

    def next_step(self) -> None:
        """A training step begins."""
        now, place = time.perf_counter(), self._step % PERIOD
        if place == 0:
            self._seconds = []
        elif place <= 2 * TRIED:
            self._seconds.append(now - self._start)
        if place < 2 * TRIED:
            self._help = place >= TRIED
        elif place == 2 * TRIED:
            self._help = min(self._seconds[TRIED:]) < min(self._seconds[:TRIED])
        self._step, self._start = self._step + 1, now


SPARE = SpareThreads()
"""Of this process."""


@contextmanager
def spare_threads(threads: int) -> Iterator[None]:
    """Within, so many threads are lent."""
    before = SPARE.lent
    SPARE.lend(threads)
    try:
        yield
    finally:
        SPARE.lend(before)


@contextmanager
def own_threads_only() -> Iterator[None]:
    """Within, no spare thread helps, for what is measured is the cost of torch's own. Threads may
    be lent meanwhile, for what comes after."""
    SPARE.are_paused = True
    try:
        yield
    finally:
        SPARE.are_paused = False


@contextmanager
def on_spare_threads() -> Iterator[None]:
    """Within, torch computes on all threads that are there, where they help."""
    if not SPARE.are_used:
        yield
        return
    with torch_threads(SPARE.lent):
        yield


class Beside:
    """Gradients of weights that one thread computes while others go on."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._gradients: list[tuple[Parameter, Future[Tensor]]] = []

    @property
    def is_idle(self) -> bool:
        """Whether all that it was given is there."""
        return all(gradient.done() for _, gradient in self._gradients)

    def add(self, weight: Parameter, gradient: Callable[[], Tensor]) -> None:
        """`gradient` is called there."""
        self._gradients.append((weight, self._thread.submit(torch.no_grad()(gradient))))

    def add_to_weights(self) -> None:
        """Each weight has its gradient, as after `backward`. Raises what one of them raised."""
        sums: dict[Parameter, Tensor] = {}
        for weight, future in self._gradients:
            gradient = future.result()
            sums[weight] = sums[weight] + gradient if weight in sums else gradient
        for weight, gradient in sums.items():
            weight.grad = gradient if weight.grad is None else weight.grad + gradient


@contextmanager
def weight_gradients_beside() -> Iterator[None]:
    """Within, where threads are spare and help, `SPARE.beside` takes gradients of weights; a
    backward pass needs none of them to go on. Afterwards the weights have them."""
    if not SPARE.are_used:
        yield
        return
    own = partial(torch.set_num_threads, torch.get_num_threads())
    with ThreadPoolExecutor(1, initializer=own) as thread:
        SPARE.beside = Beside(thread)
        try:
            yield
            SPARE.beside.add_to_weights()
        finally:
            SPARE.beside = None
