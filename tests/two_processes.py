"""What each of two processes does for test_distributed.py: `torchrun two_processes.py TASK BIRDS
CACHE OUT`."""

import json
import sys
from pathlib import Path

import torch

from dml_bench.system import distributed

EXACT = (
    "train.precision=float32",
    "model.batch_norm=frozen",
    "train.batch_size=15",
    "train.epochs=2",
)
"""Nothing in such a training depends on how a batch is shared out; 15 images are shared out
unevenly, and the last batch is of 6."""
SPREAD = (
    "model.weights=source",
    "pretrain.classes=8",
    "pretrain.per_class=12",
    "pretrain.epochs=2",
    "pretrain.batch_size=16",
    "pretrain.lr=0.1",
)
"""Weights whose embeddings lie so far apart that rounding, other on every processor, decides
nothing of what a miner chooses."""
PLC = ("labelling=plc", "labelling.warm_up=0", "labelling.theta=0", "labelling.theta_end=0")
RUNS: dict[str, tuple[str, ...]] = {
    "pairs": (*EXACT, "miner=none", "train.epochs=4"),
    "mined": (*EXACT, *SPREAD),
    "proxies": (
        *EXACT,
        "loss=ProxyNCA",
        "miner=none",
        "train.proxy_lr_factor=10",
        "mixing.technique=mixup",
    ),
    "views": (
        *EXACT,
        "miner=none",
        "train.epochs=1",
        "train.views=2",
        "train.labels=image",
        "evaluate.tta=mirror",
    ),
    "labels": (
        *EXACT,
        "loss=crossentropy",
        "miner=none",
        "data.label_noise=0.3",
        *PLC,
        "data.valid_fraction=0.2",
        "train.checkpoint=valid_loss",
    ),
    "head": (
        "train.precision=float32",
        "train.epochs=2",
        "model.trainable=head",
        "augment.random_crop_from=0",
        "augment.horizontal_flip=0",
    ),
    "start": (
        *EXACT,
        "miner=none",
        "start=classifier",
        "start.epochs=1",
        "start.batch_size=16",
        "mixing.technique=cutmix",
    ),
}
OWN_STATISTICS = (
    "train.precision=float32",
    "train.epochs=1",
    "train.batch_size=15",
    "model.head=skip",
)
REFUSED = {"inside": ("mixing.technique=manifoldmixup",), "sync_bn": ("train.sync_bn=true",)}


def compute(birds: Path, cache: Path, out: Path) -> None:
    """All runs, one more that a single process has begun, and what can't be done."""
    from tiny import train

    for name, settings in RUNS.items():
        train(birds, cache, out / name, *settings)
    train(birds, cache, out / "begun", *RUNS["pairs"])
    train(birds, cache, out / "own statistics", *OWN_STATISTICS)
    refused = {}
    for name, settings in REFUSED.items():
        try:
            train(birds, cache, out / name, *settings)
        except ValueError as error:
            refused[name] = str(error)
    report = {
        "refused": refused,
        "gathered": gathered(),
        "drawn": drawn(),
        "parts": [str(distributed.slices(n)) for n in (3, 4, 7)],
    }
    (out / f"told by {distributed.torchrun_rank().rank}.json").write_text(json.dumps(report))


def gathered() -> dict[str, list[float]]:
    """Two views of five numbers, shared out; and the gradient of the sum of place times squared
    number, at the own ones."""
    numbers = torch.arange(10.0, requires_grad=True)
    own = numbers.view(2, 5)[:, distributed.local_slice(5)].flatten()[:, None]
    joint = distributed.all_gather_with_grad(own, 5, views=2)
    (joint[:, 0] ** 2 * torch.arange(10)).sum().backward()
    assert numbers.grad is not None
    return {"joint": joint[:, 0].tolist(), "gradient": numbers.grad.tolist()}


def drawn() -> dict[str, float]:
    torch.manual_seed(1)
    with distributed.per_rank_rng(torch.device("cpu"), 15, "a purpose"):
        own = float(torch.rand(()))
    return {"own": own, "common": float(torch.rand(()))}


def fail(birds: Path, cache: Path, out: Path) -> None:
    """The second process fails while the first waits for it."""
    distributed.init(torch.device("cpu"))
    distributed.broadcast_object(lambda: None)
    if distributed.torchrun_rank().rank == 1:
        raise MemoryError("no room in the second process")
    torch.distributed.barrier()


def carry_out(task: str, birds: Path, cache: Path, out: Path) -> None:
    with distributed.main_process_output():
        globals()[task](birds, cache, out)


if __name__ == "__main__":
    carry_out(sys.argv[1], *map(Path, sys.argv[2:]))
