"""What the functions of plug-ins return, held against what their kind has to be, where it comes in.

What nothing refuses further in would give numbers like any other's: a network that goes on from
what another phase learned, pairs of the wrong classes, batches that no second call draws again.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from dml_bench.system.failures import WrongKind

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

__all__ = ["Border", "backbone", "loss", "miner", "module", "optimizer", "sampler", "schedule"]

Build = Callable[..., Any]
Border = Callable[[str, Build], Build]
"""Of the name of a plug-in and its function, the function whose results are checked."""

_learning: dict[int, ReferenceType[Any]] = {}
"""The parameters that networks and losses of plug-ins have brought, by their place in memory."""


def module(name: str, build: Build) -> Build:
    """A backbone or a head. Raises ValueError for one whose parameters an earlier one has: the
    second phase would go on from what the first learned of classes that it must not see."""

    @wraps(build)
    def checked(*values: Any, **options: Any) -> Any:
        made = build(*values, **options)
        for parameter in made.parameters() if is_module(made) else ():
            require_new(parameter, name)
        return made

    return checked


def backbone(name: str, build: Build) -> Build:
    """A new module at each call, whose forward gives one tensor. Where that is not one vector of
    features for each image, it is refused when it gets its first image."""
    make = module(name, build)

    @wraps(build)
    def checked(*values: Any, **options: Any) -> Any:
        made = make(*values, **options)
        if is_module(made):
            made.register_forward_hook(lambda _, inputs, result: require_tensor(name, result))
        return made

    return checked


def require_tensor(name: str, result: Any) -> None:
    """Raises WrongKind, as a ValueError of a network says that images don't fit it."""
    from torch import Tensor

    if not isinstance(result, Tensor):
        raise WrongKind(
            f"backbone {name} must give a tensor of features, (batch, num_features), got"
            f" {type(result).__name__}: return that tensor alone from forward"
        )


def is_module(made: Any) -> bool:
    from torch import nn

    return isinstance(made, nn.Module)


def require_new(parameter: "nn.Parameter", name: str) -> None:
    """Raises ValueError for a parameter that learns and that an earlier call brought."""
    place = id(parameter)
    earlier = _learning.get(place)
    if earlier is not None and earlier() is parameter and parameter.requires_grad:
        raise ValueError(
            f"{name} must build a new module at each call, got parameters of an earlier one: a"
            " phase would go on from what another learned; build the module in the function"
        )
    _learning[place] = ref(parameter, lambda _: _learning.pop(place, None))


def loss(name: str, build: Build) -> Build:
    """A new module at each call. It must leave its inputs as they are, and give what the
    network can learn from."""
    make = module(name, build)

    @wraps(build)
    def checked(*values: Any, **options: Any) -> Any:
        made = make(*values, **options)
        if is_module(made):
            observe(made, f"loss {name}", LearnsFrom(f"loss {name}", made))
        return made

    return checked


def miner(name: str, build: Build) -> Build:
    """It must be a module that gives places in the batch, and leaves its inputs as they are."""

    @wraps(build)
    def checked(*values: Any, **options: Any) -> Any:
        made = build(*values, **options)
        if not is_module(made):
            got = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
            raise ValueError(
                f"miner {name} must return a torch Module, got {got}: return one from the function"
                " that is registered"
            )

        def check(embeddings: "Tensor", labels: "Tensor", mined: Any) -> None:
            require_places(name, labels, mined)

        observe(made, f"miner {name}", check)
        return made

    return checked


def observe(made: "nn.Module", what: str, check: "Callable[[Tensor, Tensor, Any], None]") -> None:
    """Look at each batch of a miner or loss: its inputs must stay as they are, and `check` is
    called with embeddings, labels and what it gives."""
    versions: list[int] = []

    def before(_: "nn.Module", inputs: tuple[Any, ...]) -> None:
        versions[:] = [inputs[0]._version, inputs[1]._version]

    def after(_: "nn.Module", inputs: tuple[Any, ...], result: Any) -> None:
        now = [inputs[0]._version, inputs[1]._version]
        if now != versions:
            changed = "embeddings" if now[0] != versions[0] else "labels"
            raise ValueError(
                f"{what} changes the {changed} that it gets, which are used after it: work on"
                f" {changed}.clone()"
            )
        check(inputs[0], inputs[1], result)

    made.register_forward_pre_hook(before)
    made.register_forward_hook(after)


class LearnsFrom:
    """Whether what a loss gives depends on the embeddings, and on a parameter of its own if it has
    some. Once it was so nothing is looked at any more; a loss of 0 says nothing."""

    def __init__(self, what: str, made: "nn.Module"):
        self.what = what
        self.own = {id(one) for one in made.parameters() if one.requires_grad}
        self.is_known = False

    def __call__(self, embeddings: "Tensor", labels: "Tensor", result: Any) -> None:
        if (
            self.is_known
            or getattr(result, "grad_fn", None) is None
            or not embeddings.requires_grad
        ):
            return
        if not bool(result.detach().any()):
            return
        reached, parameters = behind(result, embeddings)
        if not reached:
            raise ValueError(
                f"{self.what} does not depend on the embeddings, from which the network learns:"
                " compute it from them, without detach() and without NumPy"
            )
        if self.own and not self.own & parameters:
            raise ValueError(
                f"{self.what} has parameters, and depends on none of them: they would stay as they"
                " are; use them without detach()"
            )
        self.is_known = True


def behind(result: "Tensor", embeddings: "Tensor") -> tuple[bool, set[int]]:
    """Whether a result was computed from the embeddings, and the leaves that it was computed from,
    by their place in memory; what lies behind the embeddings is left out."""
    seen: set[Any] = set()
    leaves: set[int] = set()
    waiting = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(id(leaf))
        if node is not embeddings.grad_fn:
            waiting += [following for following, _ in node.next_functions]
    reached = embeddings.grad_fn in seen if embeddings.grad_fn else id(embeddings) in leaves
    return reached, leaves


def require_places(name: str, labels: "Tensor", mined: Any) -> None:
    """Raises ValueError where triplets or pairs are not places in the batch, or of other classes
    than they are handed over as. What is neither is refused where it is used."""
    import torch

    parts = list(mined) if isinstance(mined, tuple | list) else []
    if len(parts) not in (3, 4) or not all(isinstance(part, torch.Tensor) for part in parts):
        return
    for part in parts:
        if part.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"miner {name} must give places in the batch as int64, got {part.dtype}: of a mask,"
                " give torch.where(mask)"
            )
    pairs = of_pairs(parts)
    lengths = [(len(anchors), len(others)) for (anchors, others), _ in pairs]
    if any(first != second for first, second in lengths):
        raise ValueError(
            f"miner {name} must give as many anchors as images beside them, got"
            f" {' and '.join(map(str, lengths))}: give one place for each"
        )
    places = torch.cat(parts)
    if len(places) and not bool(((places >= 0) & (places < len(labels))).all()):
        raise ValueError(
            f"miner {name} must give places from 0 to {len(labels) - 1}, of the batch, got"
            f" {int(places.min())} to {int(places.max())}"
        )
    for sides, same in pairs:
        if labels.dim() == 1 and not bool(((labels[sides[0]] == labels[sides[1]]) == same).all()):
            of_class = "another class as positives" if same else "the same class as negatives"
            raise ValueError(
                f"miner {name} gives images of {of_class}: give (anchors, positives, negatives), or"
                " (anchors, positives, anchors, negatives)"
            )


def of_pairs(parts: "Sequence[Tensor]") -> "list[tuple[tuple[Tensor, Tensor], bool]]":
    """Of triplets or pairs: anchors and images beside them, and whether these are positives."""
    anchors_of_negatives = parts[0] if len(parts) == 3 else parts[2]
    return [((parts[0], parts[1]), True), ((anchors_of_negatives, parts[-1]), False)]


def sampler(name: str, draw: Build) -> Build:
    """It must be a pure function of its arguments: a run that goes on
    draws the same batches. As many have to come in each epoch, as schedules count them before."""

    @wraps(draw)
    def checked(
        images: "np.ndarray",
        labels: "np.ndarray",
        batch_size: int,
        key: tuple[Any, ...],
        **options: Any,
    ) -> "list[np.ndarray]":
        def drawn(epoch: int) -> "list[np.ndarray]":
            of_epoch = (*key[:-1], epoch)
            return as_batches(
                name, draw(images.copy(), labels.copy(), batch_size, of_epoch, **options)
            )

        batches = drawn(key[-1])
        if not all_equal(batches, drawn(key[-1])):
            raise ValueError(
                f"sampler {name} must draw the same batches of the same images and key, got others:"
                " draw from a generator that `key` seeds"
            )
        first, now = list(map(len, drawn(1))), list(map(len, batches))
        if first != now:
            raise ValueError(
                f"sampler {name} must draw batches of the same sizes in each epoch, got"
                f" {len(first)} of {sum(first)} images in epoch 1 and {len(now)} of {sum(now)} in"
                f" epoch {key[-1]}: the schedule counts on them"
            )
        return batches

    return checked


def as_batches(name: str, made: Any) -> "list[np.ndarray]":
    """Raises ValueError for what is not a list of one-dimensional arrays of whole numbers."""
    import numpy as np

    if not isinstance(made, list | tuple | np.ndarray):
        raise ValueError(
            f"sampler {name} must return a list of arrays of image numbers, got"
            f" {type(made).__name__}"
        )
    batches = [np.asarray(batch) for batch in made]
    for batch in batches:
        if batch.ndim != 1 or (len(batch) and batch.dtype.kind not in "iu"):
            raise ValueError(
                f"sampler {name} must return batches that are one row of image numbers, got"
                f" {batch.dtype} of shape {batch.shape}"
            )
    return batches


def all_equal(batches: "Sequence[np.ndarray]", others: "Sequence[np.ndarray]") -> bool:
    same_count = len(batches) == len(others)
    return same_count and all(
        first.tolist() == second.tolist() for first, second in zip(batches, others, strict=True)
    )


def optimizer(name: str, build: Build) -> Build:
    """It must make a step without any argument."""

    @wraps(build)
    def checked(*values: Any, **options: Any) -> Any:
        made = build(*values, **options)
        if step := needed_by_step(made):
            raise ValueError(
                f"optimizer {name} must make a step without arguments, and its step() needs {step}:"
                " take an optimizer that needs the gradients only"
            )
        return made

    return checked


def schedule(name: str, build: Build) -> Build:
    """It must make a scheduler of torch of an optimizer and the number of steps."""

    @wraps(build)
    def checked(**options: Any) -> Any:
        made = build(**options)
        if not callable(made):
            raise ValueError(
                f"schedule {name} must return a function of an optimizer and the number of steps,"
                f" got {type(made).__name__}"
            )

        def scheduler(*values: Any) -> Any:
            from torch.optim.lr_scheduler import LRScheduler

            follows = made(*values)
            if not isinstance(follows, LRScheduler):
                raise ValueError(
                    f"schedule {name} must make a scheduler of torch.optim.lr_scheduler, got"
                    f" {type(follows).__name__}"
                )
            if step := needed_by_step(follows):
                raise ValueError(
                    f"schedule {name} must go on without arguments after each step, and its step()"
                    f" needs {step}: take a scheduler that counts steps"
                )
            return follows

        return scheduler

    return checked


def needed_by_step(made: Any) -> str:
    """The first argument without which `step` can't be called; empty where it can."""
    step = getattr(made, "step", None)
    parameters = inspect.signature(step).parameters.values() if callable(step) else ()
    for parameter in parameters:
        named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if named and parameter.default is parameter.empty:
            return parameter.name
    return ""
