"""Several processes that train one model together, as `torchrun` starts them. With one process all
of this is nothing.

The first process (number 0) decides, writes and speaks; the others do their part of what is
computed. Every process has the whole model and the joint batch's labels; images are shared out,
embeddings gathered.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dml_bench.system.failures import describe_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "all_gather_with_grad",
    "as_single_process",
    "broadcast_object",
    "broadcast_tensors_",
    "init",
    "is_main_process",
    "local_slice",
    "main_process_first",
    "main_process_only",
    "main_process_output",
    "per_rank_rng",
    "torchrun_rank",
    "world_size",
    "wrap_ddp",
]

T = TypeVar("T")
P = ParamSpec("P")

LONGEST_WAIT = timedelta(days=7)
"""For what the first process does alone. A process that is no more is noticed by torchrun at once,
not by this."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
SECONDS_TO_BE_ENDED = 3
"""In which torchrun ends a process whose failure only follows from another's."""


@dataclass(frozen=True, slots=True)
class Rank:
    """This process among `size`, and among those on its machine."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1


ALONE = Rank()
_here = ContextVar("here", default=ALONE)


def torchrun_rank() -> Rank:
    """As torchrun's environment has it; one process where any of its variables is missing."""
    values = [
        os.environ.get(name)
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    ]
    return Rank(*(int(value) for value in values[:3] if value)) if all(values) else ALONE


def init(device: "torch.device") -> None:
    """Meet the other processes, if there are any; once, however often it is called. Decisions
    travel by gloo, embeddings and gradients by what suits the device."""
    from torch import distributed

    place = torchrun_rank()
    if place.size == 1:
        return
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT
        )
    _here.set(place)


def destroy() -> None:
    """Part, when all have come so far."""
    if world_size() > 1:
        import torch
        from torch import distributed

        distributed.all_reduce(torch.zeros(1))
        distributed.destroy_process_group()
        _here.set(ALONE)


def world_size() -> int:
    """How many processes work together here and now."""
    return _here.get().size


def is_main_process() -> bool:
    """Whether this process is the one that writes, or the only one."""
    return _here.get().rank == 0


@contextlib.contextmanager
def as_single_process() -> Iterator[None]:
    """Here this process works as if there were no others."""
    token = _here.set(ALONE)
    try:
        yield
    finally:
        _here.reset(token)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """The first process does this alone, and then each other one does, which finds in its place
    what the first has made."""
    if not is_main_process():
        broadcast_object(lambda: None)
    with as_single_process():
        yield
    if is_main_process():
        broadcast_object(lambda: None)


def broadcast_object(find: Callable[[], T]) -> T:
    """What the first process finds, in all of them; the others wait for it."""
    if world_size() == 1:
        return find()
    import torch
    from torch import distributed

    box = [find() if is_main_process() else None]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]  # type: ignore[return-value]


def main_process_only(method: Callable[P, None]) -> Callable[P, None]:
    """What only the first process does."""

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_main_process():
            method(*args, **kwargs)

    return called


def broadcast_tensors_(tensors: "Iterable[Tensor | None]") -> None:
    """Give all processes the first one's values, in place."""
    if world_size() == 1:
        return
    from torch import distributed

    for tensor in tensors:
        if tensor is not None:
            contiguous = tensor.contiguous()
            distributed.broadcast(contiguous, src=0)
            tensor.copy_(contiguous)


def slices(count: int) -> list[slice]:
    """Rows 0 .. count - 1 shared out in order, as evenly as can be. Each has all of them where
    there are fewer than two for each."""
    if count < 2 * world_size():
        return [slice(0, count)] * world_size()
    ends = [count * rank // world_size() for rank in range(world_size() + 1)]
    return [slice(*rows) for rows in itertools.pairwise(ends)]


def local_slice(count: int) -> slice:
    """This process's rows of so many, at least two of them."""
    return slices(count)[_here.get().rank]


def all_gather_with_grad(own: "Tensor", count: int, views: int = 1) -> "Tensor":
    """(views * rows of this part, ...) -> (views * count, ...) of all parts, view after view, the
    same in all processes; float32 if shared.

    Gradients flow back into the own rows alone, times the number of processes: `wrap_ddp` takes
    the mean over these where the joint gradient is the sum.
    """
    rows = slices(count)
    if rows[0] == slice(0, count):
        return own
    import torch
    from torch import distributed
    from torch.nn import functional

    most = max(rows_of_rank.stop - rows_of_rank.start for rows_of_rank in rows)
    mine = own.float().unflatten(0, (views, -1))
    # NCCL gathers tensors of one shape, so the shorter parts are filled up at the end of their
    # rows. `pad` counts axes from the last one, two numbers each.
    padding = [0] * (2 * mine.dim() - 3) + [most - mine.shape[1]]
    padded = functional.pad(mine.detach(), padding).contiguous()
    gathered = [torch.empty_like(padded) for _ in rows]
    distributed.all_gather(gathered, padded)
    pieces = [
        piece[:, : rows_of_rank.stop - rows_of_rank.start]
        for piece, rows_of_rank in zip(gathered, rows, strict=True)
    ]
    if mine.requires_grad:
        times = world_size()
        mine.register_hook(lambda gradient: gradient * times)
    pieces[_here.get().rank] = mine
    return torch.cat(pieces, dim=1).flatten(0, 1)


def wrap_ddp(module: "nn.Module") -> "nn.Module":
    """The module, whose gradients are from now on the mean over the processes.

    Its buffers stay each process's own: `broadcast_tensors_` them before they are used. Parameters
    that get no gradient are no problem.
    """
    if world_size() == 1:
        return module
    import inspect

    from torch.nn.parallel import DistributedDataParallel

    newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    untouched: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
    return DistributedDataParallel(module, static_graph=True, **untouched)


@contextlib.contextmanager
def per_rank_rng(device: "torch.device", count: int, *what: object) -> Iterator[None]:
    """What torch draws here for this process's part of `count` images (dropout) is its own; the
    common generators go on as if nothing had been drawn, so that the processes draw the same
    afterwards."""
    if local_slice(count) == slice(0, count):
        yield
        return
    import torch

    from dml_bench.system.seeding import uniform  # brings NumPy

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(
            int(uniform(*what, "process", _here.get().rank, rows=1, columns=1)[0, 0] * 2**53)
        )
        yield


@contextlib.contextmanager
def main_process_output() -> Iterator[None]:
    """Around a whole program: the first process speaks for all.

    Others say nothing, unless one of them ends by a failure of its own: that ends the program, and
    it is told. It is known by surviving some seconds, as torchrun ends the rest when one has
    failed.
    """
    place = torchrun_rank()
    if place.size == 1:
        yield
        return
    said = io.StringIO()
    try:
        with contextlib.ExitStack() as silence:
            if place.rank:
                silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
                silence.enter_context(contextlib.redirect_stderr(said))
            yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):
            _fail(error, place, said.getvalue())
    destroy()


def _fail(error: BaseException, place: Rank, said: str) -> None:
    """End this process, with its say if it is to have one. Without the interpreter's own end, in
    which NCCL waits for the others."""
    ending = error.code if isinstance(error, SystemExit) else None
    code = ending if isinstance(ending, int) else 1
    if isinstance(error, KeyboardInterrupt) or code == INTERRUPTED:
        os._exit(INTERRUPTED)
    with contextlib.suppress(KeyboardInterrupt):
        # Torchrun ends the other processes when one has failed. The main process is to speak first,
        # at once where it ends with a message; the others wait, and are mostly ended before.
        if place.rank:
            time.sleep(2 * SECONDS_TO_BE_ENDED)
        elif not ending:
            time.sleep(SECONDS_TO_BE_ENDED)
        sys.stderr.write(f"process {place.rank} of {place.size}: {said}" if said else "")
        if not ending:
            traceback.print_exception(error)
        elif isinstance(ending, str):
            sys.stderr.write(f"{ending}\n")
        _tell_torchrun(
            describe_error(error.__context__ or error) or str(error.__context__ or error)
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tell_torchrun(text: str) -> None:
    """For the last lines that it prints, which otherwise say nothing."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {
            "message": " ".join(text.split()),
            "extraInfo": {"timestamp": str(int(time.time()))},
        }
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")
