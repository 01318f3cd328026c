"""Embedding with ResNet-18 in bfloat16, with BatchNorm folded into the convolutions, and as layers
of its own.

    python benchmarks/folding.py

Times are those of the processor, which other programs lengthen less. Writes
reports/speed/folding.json and folding.md.
"""

import time

import torch
from common import each_in_turn, facts, median_spread, of_rounds, options_of, table, write
from torch import Tensor

from dml_bench.config.experiments import resolve
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.models.precision import autocast
from dml_bench.system.memory import keep_freed_memory

CPU = torch.device("cpu")


def trained_a_little(size: int) -> Embedder:
    """An embedder whose BatchNorm layers have seen images."""
    experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=["model.weights=none"])
    embedder = build_embedder(experiment)
    for number in range(3):
        embedder(drawn(16, size, number))
    return embedder.eval()


def drawn(count: int, size: int, seed: int) -> Tensor:
    """(count, size, size, 3) uint8."""
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, size, size, 3), generator=numbers, dtype=torch.uint8)


def embedded(embedder: Embedder, batches: list[Tensor]) -> float:
    """Images a second of the processor."""
    start = time.process_time()
    with autocast(CPU, "bfloat16"):
        for batch in batches:
            embedder.embed(batch)
    return sum(map(len, batches)) / (time.process_time() - start)


def distance(embedder: Embedder, batch: Tensor) -> float:
    """The largest 1 - cosine between embeddings in bfloat16 and in float32."""
    exact = embedder.embed(batch).double()
    with autocast(CPU, "bfloat16"):
        return 1 - float((embedder.embed(batch) * exact).sum(dim=1).min())


def main() -> None:
    keep_freed_memory()
    options = options_of(__doc__, rounds=7, sizes=(48, 64, 224), batch_size=64)
    sizes = (48,) if options.quick else options.sizes
    measured, rows = {}, []
    for size in sizes:
        embedder, folded = trained_a_little(size), trained_a_little(size)
        assert folded.fold_batch_norm(), "this processor has no fast bfloat16"
        batches = [drawn(options.batch_size, size, 9)] * (1 if size > 100 else 6)
        ways = {
            "layers": lambda: embedded(embedder, batches),  # noqa: B023
            "folded": lambda: embedded(folded, batches),  # noqa: B023
        }
        each_in_turn(ways, 1)  # weights are folded, and memory is asked for
        rates = each_in_turn(ways, options.rounds)
        distances = [distance(network, batches[0]) for network in (embedder, folded)]
        faster = [fast / slow for fast, slow in zip(rates["folded"], rates["layers"], strict=True)]
        measured[str(size)] = {"images_per_second": rates, "distances": distances}
        rows.append(
            [
                f"{size} px",
                *(median_spread(rates[name]) for name in ways),
                median_spread(faster),
                *(f"{value:.1e}" for value in distances),
            ]
        )
    lines = [
        "",
        (
            f"Images a second of the processor, in batches of {options.batch_size}."
            f" {of_rounds(options.rounds)}. The last columns hold the largest 1 - cosine to the"
            " embedding in float32."
        ),
        "",
    ]
    head = ["", "layers", "folded", "folded : layers", "distance, layers", "distance, folded"]
    lines += table(head, rows)
    write("folding", "Folded BatchNorm", {**facts(), "by_size": measured}, lines, options.out)


if __name__ == "__main__":
    main()
