"""The benchmarks of the source tree, found and run one after another."""

import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dml_bench.registry import UnknownName, near_miss

__all__ = ["BENCHMARKS", "Benchmark", "chosen", "found", "run"]

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
GOALS = "goals"
"""The one that reads what the others wrote, and so comes last."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script of the folder, which takes --out and --quick, and writes NAME.json and NAME.md."""

    name: str
    path: Path
    summary: str


def found(folder: Path = BENCHMARKS) -> list[Benchmark]:
    """The scripts that can be run by themselves, by name, the goals last. Raises ValueError where
    there is no such folder."""
    if not folder.is_dir():
        raise ValueError(
            "the benchmarks are in the source tree only: clone the repository and run `dml-bench"
            " bench` in it"
        )
    runnable = [
        path
        for path in sorted(folder.glob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]
    every = [Benchmark(path.stem, path, first_line(path)) for path in runnable]
    return sorted(every, key=lambda benchmark: benchmark.name == GOALS)


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def chosen(names: Sequence[str], folder: Path = BENCHMARKS) -> list[Benchmark]:
    """Those called `names`, all of them where none is named; the goals are always judged anew.
    Raises UnknownName."""
    every = {benchmark.name: benchmark for benchmark in found(folder)}
    for name in names:
        if name not in every:
            raise UnknownName(
                f"unknown benchmark {name!r}{near_miss(name, list(every))}; there are:"
                f" {', '.join(every)}"
            )
    return [
        benchmark
        for name, benchmark in every.items()
        if not names or name in names or name == GOALS
    ]


def run(
    benchmarks: Sequence[Benchmark], out: Path, quick: bool, say: Callable[[str], None]
) -> list[str]:
    """Run them in processes of their own and return the names of those that failed; one that fails
    stops no other."""
    failed = []
    for number, benchmark in enumerate(benchmarks, 1):
        say(f"[{number}/{len(benchmarks)}] {benchmark.name}: {benchmark.summary}")
        command = [
            sys.executable,
            str(benchmark.path),
            "--out",
            str(out),
            *(["--quick"] if quick else []),
        ]
        if subprocess.run(command, check=False).returncode:
            failed.append(benchmark.name)
    return failed
