"""Time a training epoch with each mixing technique against the same epoch without, in turns.

    python benchmarks/mixing.py

Writes reports/speed/mixing-SIZE.json and mixing-SIZE.md.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import each_in_turn, median_spread, save, table
from contestants import Ours, Setting
from epoch import about, arguments, prepare, timed, warm_up

from dml_bench.config.experiments import resolve
from dml_bench.system.devices import choose_precision

TECHNIQUES = ("none", "samplepairing", "mixup", "cutmix", "manifoldmixup")


def contestant(setting: Setting, technique: str) -> Ours:
    """Our loop on the same images, mixed in every epoch."""
    mixing = resolve(
        "EPSHN_cosine_resnet18_sgd_aug", overrides=[f"mixing.technique={technique}"]
    ).mixing
    mixed = replace(setting, experiment=replace(setting.experiment, mixing=mixing))
    return Ours(mixed, choose_precision("auto", setting.device), technique)


def markdown(result: dict[str, Any]) -> str:
    plain = result["seconds"]["none"]
    lines = [
        f"# A training epoch with mixing, {result['size']} px, batches of {result['batch_size']}",
        "",
        (
            f"{result['train_images']} images, {result['rounds']} rounds in turns,"
            f" {result['threads']} threads, {result['machine']['processor']},"
            f" {result['made_by']['date']}, `{result['made_by']['command']}`. Time over that of the"
            " same round without mixing."
        ),
        "",
    ]
    rows = []
    for name, seconds in result["seconds"].items():
        over = [mixed / without for mixed, without in zip(seconds, plain, strict=True)]
        rows.append([name, f"{statistics.median(seconds):.2f} s", median_spread(over, 4)])
    return "\n".join(
        [*lines, *table(["technique", "epoch, median", "over none, median (least-most)"], rows), ""]
    )


def main() -> None:
    options = arguments()
    options.cache_dir.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        options.size = size
        with tempfile.TemporaryDirectory(prefix="pixels-", dir=options.cache_dir) as pixels_dir:
            setting, _ = prepare(options, Path(pixels_dir))
            contestants = [contestant(setting, technique) for technique in TECHNIQUES]
            warm_up(contestants)
            seconds = each_in_turn(
                {
                    contestant.name: lambda contestant=contestant: timed(contestant.train)[0]
                    for contestant in contestants
                },
                options.rounds,
            )
            result = {**about(options, setting), "seconds": seconds}
        print(markdown(result))
        save(f"mixing-{options.size}", result, markdown(result), options.out)


if __name__ == "__main__":
    main()
