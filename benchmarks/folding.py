"""Embedding with BatchNorm folded into the convolutions, and as layers of its own, each in what
`train.precision=auto` is: bfloat16 for ResNet-18; for EfficientNet-Lite0 and MobileNetV2
`bfloat16_dense`, which is float32 once it is folded.

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
from dml_bench.models.precision import autocast, network_precision
from dml_bench.system.memory import keep_freed_memory

CPU = torch.device("cpu")
ROWS = (
    ("resnet18", 48),
    ("resnet18", 64),
    ("resnet18", 224),
    ("efficientnet_lite0", 96),
    ("efficientnet_lite0", 224),
    ("mobilenet_v2", 96),
    ("mobilenet_v2", 224),
)


def trained(backbone: str, size: int) -> Embedder:
    """An embedder with the weights of a package, or whose BatchNorm layers have seen images."""
    if backbone != "resnet18":
        return build_embedder(resolve(f"frozen_{backbone}")).eval()
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
    with autocast(CPU, network_precision("auto", CPU, embedder)):
        for batch in batches:
            embedder.embed(batch)
    return sum(map(len, batches)) / (time.process_time() - start)


def distance(embedder: Embedder, batch: Tensor) -> float:
    """The largest 1 - cosine between embeddings as they are and in float32."""
    exact = embedder.embed(batch).double()
    with autocast(CPU, network_precision("auto", CPU, embedder)):
        return 1 - float((embedder.embed(batch) * exact).sum(dim=1).min())


def main() -> None:
    keep_freed_memory()
    options = options_of(__doc__, rounds=7, batch_size=64)
    measured, rows = {}, []
    for backbone, size in ROWS:
        if options.quick and size > 100:
            continue
        embedder, folded = trained(backbone, size), trained(backbone, size)
        precision = network_precision("auto", CPU, folded)
        assert folded.fold_batch_norm(precision), "this processor has no fast bfloat16"
        batches = [drawn(options.batch_size, size, 9)] * (1 if size > 64 else 6)
        ways = {
            "layers": lambda: embedded(embedder, batches),  # noqa: B023
            "folded": lambda: embedded(folded, batches),  # noqa: B023
        }
        each_in_turn(ways, 1)  # weights are folded, and memory is asked for
        rates = each_in_turn(ways, options.rounds)
        distances = [distance(network, batches[0]) for network in (embedder, folded)]
        faster = [fast / slow for fast, slow in zip(rates["folded"], rates["layers"], strict=True)]
        measured[f"{backbone}, {size} px"] = {"images_per_second": rates, "distances": distances}
        rows.append(
            [
                f"{backbone}, {size} px",
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
    write("folding", "Folded BatchNorm", {**facts(), "rows": measured}, lines, options.out)


if __name__ == "__main__":
    main()
