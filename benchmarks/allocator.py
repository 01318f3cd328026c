"""A training step and an embedding at 224 px with freed memory kept by the process, in small and in
large pages, and given back to the system as glibc does by itself.

    python benchmarks/allocator.py

Each time in a fresh process. Writes reports/speed/allocator.json and allocator.md.
"""

import json
import resource
import statistics
import time
from collections.abc import Callable

from common import (
    alone,
    facts,
    in_processes,
    median_spread,
    memory_of_this,
    of_rounds,
    options_of,
    table,
    write,
)

from dml_bench.system.memory import keep_freed_memory, set_thresholds

TIMES = 5
WAYS = {
    "given back": lambda: True,
    "kept, in small pages": lambda: set_thresholds(mmap=2**31 - 1, trim=-1),
    "kept, in large pages": keep_freed_memory,
}


def measured(way: str, size: str, batch: str) -> dict[str, float]:
    """Medians of seconds, page faults of the last step, and the peak in megabytes."""
    import torch
    from torchvision.models import resnet18

    if not WAYS[way]():
        raise SystemExit("freed memory can be kept with glibc only")
    network = resnet18().to(memory_format=torch.channels_last)
    images = torch.randn(int(batch), 3, int(size), int(size)).to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(images).float().square().mean()
        loss.backward()

    def embed() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            network(images)

    step_seconds, faults = timed(step)
    embed_seconds, _ = timed(embed)
    return {
        "step": step_seconds,
        "embed": embed_seconds,
        "faults": faults,
        "megabytes": memory_of_this()["VmHWM"] / 1e6,
    }


def timed(work: Callable[[], None]) -> tuple[float, int]:
    work()
    taken = []
    for _ in range(TIMES):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main() -> None:
    options = options_of(__doc__, size=224, batch_size=64)
    size, batch = (64, 8) if options.quick else (options.size, options.batch_size)
    by_way = in_processes(
        __file__,
        {way: [way, str(size), str(batch)] for way in WAYS},
        options.rounds,
    )
    rows = []
    for way, runs in by_way.items():
        step = median_spread([run["step"] for run in runs])
        embed = median_spread([run["embed"] for run in runs])
        faults = statistics.median(run["faults"] for run in runs)
        megabytes = statistics.median(run["megabytes"] for run in runs)
        rows.append([way, step, embed, f"{faults:,.0f}", f"{megabytes:,.0f}"])
    lines = [
        *(
            "",
            (f"ResNet-18 in bfloat16, {batch} images of {size} px. {of_rounds(options.rounds)}."),
            "",
        ),
        *table(
            [
                "freed memory is",
                "training step, s",
                "embedding, s",
                "page faults a step",
                "peak, MB",
            ],
            rows,
        ),
    ]
    write(
        "allocator",
        "Memory that is kept",
        {**facts(), "rounds": options.rounds, "found": by_way},
        lines,
        options.out,
    )


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(measured(*arguments)))
    else:
        main()
