"""Record the bits of the runs in runs.toml, or compare them with those recorded before.

    python tests/golden/record.py                    # record all runs for this processor
    python tests/golden/record.py --check            # make them again and compare
    python tests/golden/record.py --check mixup demo # only these

The bits of a run depend on the processor, on torch and on the number of threads. Each combination
therefore has a file of its own beside this one, named by `machine()`.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parent.parent

Digests = dict[str, str]
"""SHA-256 by what of a run folder it covers, such as `all/weights.safetensors`."""

PACKAGES = (
    "faiss-cpu",
    "numpy",
    "pillow",
    "pytorch-metric-learning",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)
"""The packages whose version can change a run's bits."""

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "amx_tile")
"""The instruction sets that oneDNN and MKL use where the processor has them."""

FACTS = ("chosen.json", "labels.json", "start.json")
"""The files of a phase with numbers that are in no table: best epoch, label correction, start."""

TIMINGS = ("_seconds", "_per_second", "_bytes")
"""How the keys of JSON values end that tell what a run cost."""

LEFT_OUT = (
    *("cost", "root", "root_from_run"),
    *("digest", "files", "weights_sha256"),  # checksums of files that hold timings
    *("schema_version", "experiment", "profile", "protocol", "seed", "kind"),  # settings
    *("scatter", "hubness"),  # of embeddings and neighbours, which have digests themselves
    *("memorised", "seen_through"),  # counted since, from answers of weights that have digests
)
"""The other keys of JSON values that are no result."""


def run_arguments() -> dict[str, list[str]]:
    """What follows `dml-bench run` for each run of runs.toml, the demo last."""
    table = tomllib.loads((FOLDER / "runs.toml").read_text(encoding="utf-8"))
    arguments = {}
    for name, small in table["small"]["runs"].items():
        arguments[name] = [small["experiment"]]
        for setting in (*table["small"]["set"], *small["set"]):
            arguments[name] += ["--set", setting]
    arguments["demo"] = table["demo"]["arguments"]
    return arguments


def make(arguments: list[str], cache_dir: Path, out: Path) -> Path:
    """Train one run in this process, through the command line; return its run folder."""
    from dml_bench.__main__ import main

    options = ["--cache-dir", str(cache_dir), "--out", str(out)]
    options += ["--device", "cpu", "--wandb", "disabled", "--force"]
    typed, handler = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = ["dml-bench", "run", *arguments, *options]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{' '.join(sys.argv)} failed:\n{printed.getvalue()}") from None
    finally:
        sys.argv = typed
        signal.signal(signal.SIGINT, handler)
    (folder,) = out.glob("*/*/seed-*")
    return folder


def digests(folder: Path) -> Digests:
    """The digests of a run folder: tensors, tables, epoch records and the summary by its keys."""
    covered = {}
    for path in sorted(folder.rglob("*.safetensors")):
        covered[path.relative_to(folder).as_posix()] = digest_of_tensors(path)
    for path in sorted(folder.rglob("*.csv")):
        covered[path.relative_to(folder).as_posix()] = digest_of_table(path)
    for path in sorted(path for name in FACTS for path in folder.rglob(name)):
        values = json.loads(path.read_text(encoding="utf-8"))
        covered[path.relative_to(folder).as_posix()] = digest_of_values(values)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    covered["metrics.jsonl"] = digest_of_values([json.loads(line) for line in lines])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for key, value in sorted(results_in(summary).items()):
        covered[f"summary.json {key}"] = digest_of_values(value)
    return covered


def digest_of_tensors(path: Path) -> str:
    """SHA-256 of the names, types, shapes and values, in the order of the names.

    The container's metadata and the order in which it holds the tensors don't count.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    sha = hashlib.sha256()
    for name in sorted(header):
        entry = header[name]
        sha.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        first, end = entry["data_offsets"]
        sha.update(content[start + first : start + end])
    return sha.hexdigest()


def digest_of_table(path: Path) -> str:
    """SHA-256 of a CSV file without its last column `split`, which is a setting."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines[0].endswith(",split\n"):
        lines = [line.rpartition(",")[0] + "\n" for line in lines]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of_values(value: Any) -> str:
    return hashlib.sha256(json.dumps(results_in(value), sort_keys=True).encode()).hexdigest()


def results_in(value: Any) -> Any:
    """A JSON value without timings, places, checksums and settings."""
    if isinstance(value, list):
        return [results_in(item) for item in value]
    if not isinstance(value, dict):
        return value
    results = {}
    for key, item in value.items():
        if key not in LEFT_OUT and not key.endswith(TIMINGS):
            results[key] = results_in(item)
    return results


def differences(recorded: Digests, now: Digests) -> list[str]:
    """What of a run is not as it was recorded, one line for each."""
    lines = []
    for part in sorted(recorded.keys() | now.keys()):
        if part not in now:
            lines.append(f"{part} is missing")
        elif part not in recorded:
            lines.append(f"{part} is new")
        elif recorded[part] != now[part]:
            lines.append(f"{part} differs")
    return lines


def machine() -> str:
    """The name of what the bits depend on: processor, instruction sets, torch, threads."""
    import torch

    processor, instructions = platform.processor() or platform.machine(), []
    if Path("/proc/cpuinfo").exists():
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        pairs = [line.partition(":") for line in first.splitlines()]
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        if "model name" in facts:
            processor = f"{facts['model name']} {facts.get('cpu family')} {facts.get('model')}"
        flags = facts.get("flags", "").split()
        instructions = [name for name in BF16_INSTRUCTIONS if name in flags]
    parts = [processor, torch.backends.cpu.get_cpu_capability(), *instructions]
    parts += ["torch", torch.__version__, "threads", str(torch.get_num_threads())]
    return re.sub(r"[^a-z0-9._]+", "-", " ".join(parts).lower())


def packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def path_of_record() -> Path:
    return FOLDER / f"{machine()}.json"


def reason_not_comparable() -> str:
    """Why there is nothing here to compare with, and what to do; empty where there is."""
    path = path_of_record()
    advice = "check out the last trusted commit and run `python tests/golden/record.py` there"
    if not path.exists():
        return f"{path.name} doesn't exist: {advice}"
    recorded = json.loads(path.read_text(encoding="utf-8"))["packages"]
    for name, version in packages().items():
        if recorded.get(name) != version:
            return f"{path.name} is of {name} {recorded.get(name)}, not {version}: {advice}"
    return ""


def read_record() -> dict[str, Digests]:
    runs: dict[str, Digests] = json.loads(path_of_record().read_text(encoding="utf-8"))["runs"]
    return runs


def write_record(runs: dict[str, Digests]) -> Path:
    ordered = {name: runs[name] for name in run_arguments() if name in runs}
    record = {"packages": packages(), "runs": ordered}
    path_of_record().write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path_of_record()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="runs of runs.toml; all where none is named",
    )
    parser.add_argument("--check", action="store_true", help="compare instead of recording")
    parser.add_argument("--keep", type=Path, help="folder in which the run folders stay")
    options = parser.parse_args()
    unknown = set(options.names) - set(run_arguments())
    if unknown:
        parser.error(f"no run is called {sorted(unknown)[0]}: choose from {list(run_arguments())}")
    reason = reason_not_comparable()
    if reason and (options.check or (options.names and path_of_record().exists())):
        parser.error(reason)
    return options


def main() -> int:
    options = parse_arguments()
    recorded = {} if reason_not_comparable() else read_record()
    num_different = 0
    with tempfile.TemporaryDirectory() as scratch:
        parent = options.keep or Path(scratch)
        for name in options.names or run_arguments():
            began = time.monotonic()
            folder = make(run_arguments()[name], parent / "cache", parent / name)
            now = digests(folder)
            lines = differences(recorded.get(name, {}), now)
            verdict = "recorded"
            if options.check:
                verdict = "; ".join(lines) or "bit-equal"
                num_different += bool(lines)
            else:
                recorded[name] = now
                write_record(recorded)
            print(f"{name}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{num_different} runs differ" if options.check else f"wrote {path_of_record()}")
    return min(num_different, 1)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(REPOSITORY))  # this checkout, wherever an installed dml_bench points
    sys.exit(main())
