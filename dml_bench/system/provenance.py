"""Where a result was made: versions, commit, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypedDict

__all__ = ["PACKAGES", "Provenance", "describe", "peak_memory_bytes", "says_generation"]

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-metric-learning",
    "faiss-cpu",
    "timm",
    "numpy",
    "pillow",
    "scikit-learn",
    "wandb",
    "fiftyone",
    "umap-learn",
)

ROOT = Path(__file__).parent.parent.parent
CODE = ("dml_bench", "experiments", "pyproject.toml", "requirements.txt")
"""What decides a result. Documents, reports and records of runs may change without being said."""


class Provenance(TypedDict):
    """The versions and the machine that made something."""

    dml_bench: str
    commit: str | None
    """Of the source tree; None outside a checkout."""
    python: str
    platform: str
    processor: str
    cores: int | None
    packages: dict[str, str | None]
    """Versions by name; None for a package that is not installed."""


def describe() -> Provenance:
    """The versions, the commit and the machine that a result came from."""
    from dml_bench.version import __version__

    return {
        "dml_bench": __version__,
        "commit": commit_here(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


@cache
def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def commit_here() -> str | None:
    """That of the source tree when this process first needed it: a process keeps the code that it
    has imported."""
    return commit()


def commit(root: Path = ROOT) -> str | None:
    """Commit of the source tree, with `+changes` where its code has uncommitted ones; None outside
    a checkout."""
    if not (root / ".git").exists():
        return None
    try:
        head, status = (
            subprocess.run(
                ["git", "--no-optional-locks", "-C", str(root), *command],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", *CODE])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if status else "")


def processor(listing: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, with family and model where they are told: virtual machines call generations that
    take twice as long as others by one name."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in listing.read_text().splitlines():
            fact, _, value = line.partition(":")
            facts.setdefault(fact.strip(), value.strip())
    name = facts.get("model name") or platform.processor()
    if "cpu family" in facts and "model" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name


def says_generation(processor_name: str) -> bool:
    """Whether it tells a processor from those of another generation, as `AMD EPYC` alone does
    not."""
    return any(map(str.isdigit, processor_name))


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    import psutil

    if platform.system() == "Windows":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if platform.system() == "Darwin" else 1024
    )
