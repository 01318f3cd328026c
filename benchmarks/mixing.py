"""Time a training epoch with each mixing technique against the same epoch without, in turns.

    python benchmarks/mixing.py

Writes reports/speed/mixing-SIZE.json and mixing-SIZE.md.
"""

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from contestants import Ours, Setting
from epoch import about, arguments, prepare, timed
from rich.console import Console

from dml_bench.experiments import resolve
from dml_bench.files import write_json
from dml_bench.training.run import choose_precision

TECHNIQUES = ("none", "samplepairing", "mixup", "cutmix", "manifoldmixup")


def contestant(setting: Setting, technique: str) -> Ours:
    """Our loop on the same images, mixed in every epoch."""
    mixing = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=[f"mixing.technique={technique}"]).mixing
    mixed = replace(setting, experiment=replace(setting.experiment, mixing=mixing))
    return Ours(mixed, choose_precision("auto", setting.device), technique)


def race(contestants: list[Ours], rounds: int, console: Console) -> dict[str, list[float]]:
    """Seconds of a training epoch; who begins changes from round to round."""
    seconds: dict[str, list[float]] = {each.name: [] for each in contestants}
    for each in contestants:
        restore = each.shorten(2)
        each.train()
        restore()
    for number in range(rounds):
        for each in contestants[number % len(contestants) :] + contestants[: number % len(contestants)]:
            seconds[each.name].append(timed(each.train)[0])
            console.print(f"round {number + 1}/{rounds}  {each.name:<14} {seconds[each.name][-1]:7.2f} s")
    return seconds


def markdown(result: dict[str, Any]) -> str:
    plain = result["seconds"]["none"]
    lines = [
        f"# A training epoch with mixing, {result['size']} px, batches of {result['batch_size']}",
        "",
        f"{result['train_images']} images, {result['rounds']} rounds in turns, {result['threads']} threads, {result['machine']['processor']}, "
        f"{result['made_by']['date']}, `{result['made_by']['command']}`. Time over that of the same round without mixing.",
        "",
        "| technique | epoch, median | over none, median | least-most |",
        "|---|--:|--:|--:|",
    ]
    for name, seconds in result["seconds"].items():
        over = [mixed / without for mixed, without in zip(seconds, plain, strict=True)]
        lines.append(f"| {name} | {statistics.median(seconds):.2f} s | {statistics.median(over):.3f} | {min(over):.3f}-{max(over):.3f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    options.cache_dir.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        options.size = size
        with tempfile.TemporaryDirectory(prefix="pixels-", dir=options.cache_dir) as pixels_dir:
            setting, _ = prepare(options, Path(pixels_dir))
            seconds = race([contestant(setting, technique) for technique in TECHNIQUES], options.rounds, console)
            result = {**about(options, setting), "seconds": seconds}
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / f"mixing-{options.size}.json", result)
        (options.out / f"mixing-{options.size}.md").write_text(markdown(result), encoding="utf-8")
        console.print(markdown(result))


if __name__ == "__main__":
    main()
