"""Time a training step of networks with depthwise convolutions, in each precision, and of their
last stages alone.

    python benchmarks/finetuning.py

One thread's seconds of processor time, in turns, so that the ratios hold on a busy machine. Writes
reports/speed/finetuning.json and finetuning.md.
"""

import statistics
import time
from collections.abc import Callable

import torch
from common import facts, median_spread, options_of, table, write
from torch import Tensor, nn

from dml_bench.config import experiments
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.models.precision import autocast
from dml_bench.registry import optimizers
from dml_bench.system.memory import keep_freed_memory

CPU = torch.device("cpu")
BACKBONES = ("efficientnet_lite0", "mobilenet_v2")
BASELINE = "bfloat16"
"""What `train.precision = auto` took before it looked at the layers."""


def embedder_of(backbone: str, size: int, trainable: str) -> Embedder:
    settings = [
        f"model.backbone={backbone}",
        f"model.trainable={trainable}",
        f"images.size={size}",
        "model.weights=none",
        "augment={}",
    ]
    return build_embedder(experiments.resolve("EPSHN_cosine_resnet18_sgd", overrides=settings))


def step(network: nn.Module, inputs: Tensor, precision: str) -> Callable[[], None]:
    """A forward and a backward pass and an update by the trainer's SGD. The loss costs nothing
    beside them."""
    learns = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = optimizers["sgd"].build(learns, lr=1e-4)

    def work() -> None:
        with autocast(CPU, precision):
            outputs = network(inputs)
        optimizer.zero_grad(set_to_none=True)
        outputs.float().square().mean().backward()
        optimizer.step()

    return work


def ways_of(backbone: str, size: int, batch: int) -> dict[str, Callable[[], None]]:
    """By what is trained and in which precision, a step of it."""
    numbers = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, size, size, 3), generator=numbers, dtype=torch.uint8)
    ways = {}
    for precision in ("bfloat16", "float32", "bfloat16_dense"):
        network = embedder_of(backbone, size, "all").train()
        ways[f"all, {precision}"] = step(network, pixels, precision)
    for count in (1, 2):
        network = embedder_of(backbone, size, f"last:{count}").train()
        with torch.no_grad(), autocast(CPU, "bfloat16_dense"):
            features = network.first_stages(pixels)
        last = network.last_stages
        assert last is not None
        ways[f"last:{count}, bfloat16_dense"] = step(last, features, "bfloat16_dense")
    return ways


def in_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of each, after a first round that doesn't count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            start = time.process_time()
            work()
            if number:
                taken[name].append(time.process_time() - start)
    return taken


def faster(taken: dict[str, list[float]], baseline: str, name: str) -> str:
    ratios = [a / b for a, b in zip(taken[baseline], taken[name], strict=True)]
    return f"{statistics.median(ratios):.2f}"


def main() -> None:
    options = options_of(__doc__, rounds=7, batch_size=32, size=96)
    torch.set_num_threads(1)
    keep_freed_memory()
    size, batch = (32, 4) if options.quick else (options.size, options.batch_size)
    seconds, rows = {}, []
    for backbone in BACKBONES:
        taken = in_turns(ways_of(backbone, size, batch), options.rounds)
        seconds[backbone] = taken
        for name, times in taken.items():
            rates = [batch / value for value in times]
            of_all = faster(taken, "all, bfloat16_dense", name)
            row = [f"{backbone}, {name}", median_spread(rates)]
            rows.append([*row, faster(taken, f"all, {BASELINE}", name), of_all])
    lines = [
        "",
        (
            f"Training at {size} px, batches of {batch}, medians (least-most) of {options.rounds}"
            " rounds in turns; ratios are medians of those of each round. Before it looked at the"
            " layers, `auto` took bfloat16; now it takes bfloat16_dense."
        ),
        "",
        *table(
            ["", "images/s of one thread", "times as fast as all, bfloat16", "as all, auto"], rows
        ),
    ]
    result = {**facts(), "seconds": seconds, "batch_size": batch, "size": size}
    write("finetuning", "Fine-tuning on a CPU", result, lines, options.out)


if __name__ == "__main__":
    main()
