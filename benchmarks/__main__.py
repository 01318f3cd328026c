"""Times this program against named baselines on this machine, and holds the goals against the
results.

python benchmarks                      all of them, about two hours on two cores
python benchmarks epoch evaluation     some; the goals are always judged anew
python benchmarks --list               what there is
"""

import argparse
import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dml_bench.registry import UnknownName, near_miss

__all__ = ["BENCHMARKS", "Benchmark", "available", "chosen", "main", "run"]

BENCHMARKS = Path(__file__).parent
BY_PATH = ("decide", "demo_rates", "gpu", "gpu_page", "page_numbers", "screens")
"""Scripts that have options of their own, or need a GPU: they are run by their path."""
GOALS = "goals"
"""The one that reads what the others wrote, and so comes last."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script of the folder, which takes --out and --quick, and writes NAME.json and NAME.md."""

    name: str
    path: Path
    summary: str


def available(folder: Path = BENCHMARKS) -> list[Benchmark]:
    """The scripts that can be run by themselves, by name, the goals last."""
    runnable = [
        path
        for path in sorted(folder.glob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        and path.stem not in ("__main__", *BY_PATH)
    ]
    every = [Benchmark(path.stem, path, summary_of(path)) for path in runnable]
    return sorted(every, key=lambda benchmark: benchmark.name == GOALS)


def summary_of(path: Path) -> str:
    """The first paragraph of its docstring, in one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def chosen(names: Sequence[str], folder: Path = BENCHMARKS) -> list[Benchmark]:
    """Those called `names`, all of them where none is named; the goals are always judged anew.
    Raises UnknownName."""
    every = {benchmark.name: benchmark for benchmark in available(folder)}
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 1 if a benchmark failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; by default all")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that they work, not how fast it is"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/speed"), help="folder for tables")
    options = parser.parse_args(arguments)
    try:
        benchmarks = chosen(options.names)
    except UnknownName as problem:
        parser.error(str(problem))
    if options.list:
        width = max(len(benchmark.name) for benchmark in benchmarks)
        for benchmark in benchmarks:
            print(f"{benchmark.name:<{width}}  {benchmark.summary}")
        return
    try:
        failed = run(benchmarks, options.out, options.quick, print)
    except KeyboardInterrupt:
        print("stopped; the benchmarks that ended have written their tables", file=sys.stderr)
        sys.exit(130)
    if failed:
        sys.exit(f"error: these benchmarks failed (see above): {', '.join(failed)}")


if __name__ == "__main__":
    main()
