"""The way to a data set by its name."""

from dataclasses import replace
from pathlib import Path

from dml_bench.config import Component
from dml_bench.data.datasets.dataset import Dataset, NotThere, Progress, Where
from dml_bench.data.datasets.layouts import layout_of
from dml_bench.data.datasets.plugin_checks import well_formed
from dml_bench.registry import datasets
from dml_bench.system.drafts import sweep

__all__ = ["check_data_dir", "open_dataset"]


def check_data_dir(component: Component, data_dir: Path | None) -> None:
    """Raises ValueError where the data set that `component` names needs a folder of images and
    there is none at `data_dir`, or needs none and got one."""
    entry = datasets.of(component)
    if not entry.facts["needs_data_dir"]:
        if data_dir is not None:
            raise ValueError(
                f"dataset {entry.name} draws its own images, so --data-dir has no effect: leave"
                " it out"
            )
        return
    if data_dir is None:
        obtain = f"; {entry.facts['obtain']}" if entry.facts["obtain"] else ""
        raise ValueError(
            f"dataset {entry.name} needs a folder of images: give it with --data-dir DIR{obtain}"
        )
    if not data_dir.is_dir():
        raise ValueError(
            f"{data_dir} {'is not a folder' if data_dir.exists() else 'does not exist'}: give the"
            " folder of images with --data-dir DIR"
        )


def open_dataset(
    component: Component,
    data_dir: Path | None,
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    tolerant: bool = False,
) -> Dataset:
    """Read the data set that `component` names. Raises ValueError where a folder of images is
    needed and missing, or given in vain, and where something is wrong with the images and labels;
    if `tolerant`, faults that leave some images are only listed in the data set.

    Whatever uses `cache_dir` begins with this, so it is here that all that dead processes left in
    there is removed."""
    sweep(cache_dir, *cache_dir.glob("*/"))
    entry = datasets.of(component)
    check_data_dir(component, data_dir)
    tell = progress or (lambda stage, done, total: None)
    try:
        made = entry.build(Where(data_dir or cache_dir, cache_dir, tell), **component.options)
    except NotThere as problem:
        if data_dir is None:
            raise
        other = layout_of(data_dir)
        if not other or other[0] == entry.name:
            raise
        advice = f"{data_dir} holds {other[1]}, so give --dataset {other[0]}"
        raise NotThere(problem.missing, advice) from None
    dataset: Dataset = made if entry.origin is None else well_formed(made, entry.name)
    dataset = replace(dataset, cache_dir=cache_dir)
    return dataset if tolerant else dataset.sound()
