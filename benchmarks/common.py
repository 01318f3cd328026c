"""What the benchmarks share: options, the machine, tables, where results go, and measuring in a
process of its own."""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dml_bench.runs.record_format import rounded
from dml_bench.system import provenance
from dml_bench.system.files import write_json

__all__ = [
    "REPORTS",
    "alone",
    "each_in_turn",
    "facts",
    "find_chromium",
    "heading",
    "in_processes",
    "median_spread",
    "memory_of_this",
    "options_of",
    "save",
    "table",
    "write",
]

REPORTS = Path(__file__).parent.parent / "reports" / "speed"
LOAD = os.getloadavg()[0]
PACKAGES = ("torch", "torchvision", "pytorch-metric-learning", "faiss-cpu", "numpy", "pillow")


def options_of(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """--rounds, --out, --quick (one round), and an option for each default, of its type; a tuple
    takes several, an empty one texts."""
    if LOAD > 0.5:
        print(
            f"warning: the load average is {LOAD:.2f}: something else runs here, so trust the"
            " ratios more than the times"
        )
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that it works, not how fast it is"
    )
    for name, default in {"rounds": 3, **defaults}.items():
        several = isinstance(default, tuple)
        kind = type((*default, "")[0] if several else default)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            nargs="+" if several else None,
        )
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    return options


def find_chromium() -> str | None:
    """The browser on the PATH."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def facts() -> dict[str, Any]:
    """Command, machine, load when it began: what every result begins with."""
    import torch

    return {
        "made_by": {
            "command": shlex.join(["python", *sys.argv]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "machine": provenance.describe(),
        "threads": torch.get_num_threads(),
        "load_average_start": LOAD,
    }


def heading(title: str, result: dict[str, Any]) -> list[str]:
    made, machine = result["made_by"], result["machine"]
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in PACKAGES)
    commit = f"dml-bench {machine['dml_bench']} (commit {machine['commit'] or 'unknown'})"
    return [
        f"# {title}",
        "",
        (
            f"Made by `{made['command']}` on {made['date']}; never edited by hand. How to read it:"
            " benchmarks/README.md."
        ),
        "",
        (
            f"- {machine['processor']}, {machine['cores']} cores, {result['threads']} threads;"
            f" Python {machine['python']}, {versions}, {commit}"
        ),
        f"- load average of the last minute {result['load_average_start']:.2f} at the start",
    ]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown; all columns but the first are numbers."""
    rows = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return ["| " + " | ".join(row) + " |" for row in rows]


def median_spread(values: Sequence[float], digits: int = 3) -> str:
    """`median (least-most)`; of a single round its value."""
    median = f"{statistics.median(values):.{digits}g}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}g}-{max(values):.{digits}g})"


def of_rounds(rounds: int) -> str:
    """What stands in the tables of a page, as the start of a sentence."""
    return "One round" if rounds == 1 else f"Medians (least-most) of {rounds} rounds in turns"


def write(name: str, title: str, result: dict[str, Any], lines: Sequence[str], out: Path) -> None:
    """A page with a heading: NAME.json and NAME.md, and the same on the terminal."""
    text = "\n".join([*heading(title, result), *lines, ""])
    print(text)
    save(name, result, text, out)


def save(name: str, result: dict[str, Any], text: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", rounded(result))
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"written: {out / name}.json and .md")


def memory_of_this() -> dict[str, int]:
    """Bytes of this process by Linux's names: RssAnon is its own, RssFile pages of files, VmRSS all
    that is resident, VmHWM its peak."""
    lines = (
        line.partition(":")
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return {
        name: int(value.split()[0]) * 1024
        for name, _, value in lines
        if name.startswith(("Rss", "VmRSS", "VmHWM"))
    }


def each_in_turn(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """What each way returns, by name; who begins changes from round to round."""
    results: dict[str, list[Any]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(ways[name]())
            print(
                f"round {number + 1}/{rounds}  {name:<24} {brief(results[name][-1])[:100]}",
                flush=True,
            )
    return results


def brief(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {brief(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def in_processes(script: str, ways: dict[str, Sequence[str]], rounds: int) -> dict[str, list[Any]]:
    """As `each_in_turn`, each time in a fresh process: `script --alone ARGUMENTS`, which prints its
    result as JSON in its last line."""

    def way(arguments: Sequence[str]) -> Callable[[], Any]:
        def work() -> Any:
            command = [sys.executable, script, "--alone", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
            return json.loads(done.stdout.splitlines()[-1])

        return work

    return each_in_turn({name: way(arguments) for name, arguments in ways.items()}, rounds)


def alone() -> list[str] | None:
    """The arguments after --alone, if this is such a process."""
    return sys.argv[2:] if sys.argv[1:2] == ["--alone"] else None
