"""Sets that the package draws itself, in the layout of CUB-200-2011."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from dml_bench.data.datasets.cub import read_cub_layout
from dml_bench.data.datasets.dataset import Dataset, Where
from dml_bench.data.label_sets import combined, label_sets_of
from dml_bench.registry import datasets
from dml_bench.registry.option_checks import at_least
from dml_bench.system.drafts import remove
from dml_bench.system.seeding import uniform

if TYPE_CHECKING:
    from dml_bench.config.component import Component
    from dml_bench.data.synthetic import Species

SeveralOf = Annotated[int, at_least(2)]
Pixels = Annotated[int, at_least(16)]


@datasets.register(
    "demo",
    summary="drawn birds, a small set that needs no download",
    source="drawn by this package",
    needs_data_dir=False,
)
def demo(
    where: Where,
    *,
    classes: SeveralOf = 40,
    per_class: SeveralOf = 30,
    size: Pixels = 96,
    seed: int = 7,
) -> Dataset:
    """Drawn once into `cache_dir`, in the layout of CUB-200-2011."""
    return drawn(
        where,
        f"demo-{classes}x{per_class}-{size}px-seed{seed}",
        "demo",
        [per_class] * classes,
        size,
        seed,
    )


@datasets.register(
    "demo_unbalanced",
    summary="drawn birds whose largest class has `imbalance` times the images of the smallest",
    source="drawn by this package",
    needs_data_dir=False,
)
def demo_unbalanced(
    where: Where,
    *,
    classes: SeveralOf = 40,
    per_class: SeveralOf = 96,
    imbalance: Annotated[int, at_least(1)] = 8,
    size: Pixels = 54,
    seed: int = 7,
) -> Dataset:
    """Drawn once into `cache_dir`. From class to class the number of images falls by one factor,
    from `per_class` on, in an order of the classes that is drawn from the seed."""
    return drawn(
        where,
        f"demo-unbalanced-{classes}x{per_class}by{imbalance}-{size}px-seed{seed}",
        "demo_unbalanced",
        falling_counts(classes, per_class, imbalance, seed),
        size,
        seed,
    )


def falling_counts(classes: int, most: int, imbalance: int, seed: int) -> list[int]:
    """(classes) the numbers of images; two at least."""
    counts = most * float(imbalance) ** -np.linspace(0, 1, classes)
    order = np.argsort(uniform(seed, "unbalanced", rows=classes, columns=1)[:, 0], kind="stable")
    shuffled = np.maximum(counts.round().astype(int), 2)[order]
    return list(map(int, shuffled))


@datasets.register(
    "demo_attributes",
    summary="drawn birds whose labels are their marks and the colour of their breast, several each",
    source="drawn by this package",
    needs_data_dir=False,
)
def demo_attributes(
    where: Where,
    *,
    classes: SeveralOf = 40,
    per_class: SeveralOf = 48,
    size: Pixels = 54,
    seed: int = 7,
) -> Dataset:
    """The images of `demo`. Birds of one species have the same labels; others may have them too."""
    from dml_bench.data.synthetic import species

    birds = demo(where, classes=classes, per_class=per_class, size=size, seed=seed)
    of_species = [combined(attributes(bird)) for bird in species(classes, seed=seed)]
    names, labels = np.unique(np.array(of_species)[birds.labels], return_inverse=True)
    return replace(
        birds,
        name="demo_attributes",
        labels=labels,
        class_names=tuple(map(str, names)),
        label_sets=label_sets_of(names.tolist()),
    )


def attributes(bird: "Species") -> list[str]:
    """What can be seen of a bird; at least the shape of its tail and the colour of its breast."""
    seen = {
        f"{bird.breast} breast": True,
        f"{bird.tail_shape} tail": True,
        "crest": bird.crest != "none",
        f"eye {bird.eye_marking}": bird.eye_marking != "none",
        f"breast {bird.breast_marking}": bird.breast_marking != "none",
        "wing bars": bird.wing_bars > 0,
        "wing patch": bird.wing_patch,
        "pale tail edge": bird.tail_edge,
    }
    return [label for label, is_there in seen.items() if is_there]


@datasets.register(
    "cub_shape",
    summary="drawn birds in the exact shape of CUB-200-2011: 200 classes, 11,788 images",
    source="drawn by this package",
    needs_data_dir=False,
)
def cub_shape(where: Where, *, size: Pixels = 256, seed: int = 7) -> Dataset:
    """Drawn once into `cache_dir`, with CUB's number of images in each class."""
    from dml_bench.data.synthetic import cub_counts

    return drawn(
        where,
        f"cub-shape-{size}px-seed{seed}",
        "cub_shape",
        list(cub_counts().values()),
        size,
        seed,
    )


@datasets.register(
    "source_species",
    summary="drawn birds of other families than demo's, to pretrain backbones on",
    source="drawn by this package",
    needs_data_dir=False,
)
def source_species(
    where: Where,
    *,
    classes: SeveralOf = 48,
    per_class: SeveralOf = 24,
    size: Pixels = 72,
    seed: int = 1,
) -> Dataset:
    """Drawn once into `cache_dir`; no species is also in `demo` or `cub_shape`."""
    return drawn(
        where,
        f"source-{classes}x{per_class}-{size}px-seed{seed}",
        "source_species",
        [per_class] * classes,
        size,
        seed,
        "source",
    )


def num_drawn(component: "Component") -> int | None:
    """How many images the options of a drawn set make; None where it is not drawn here."""
    if component.stand_in is not None:
        return None
    options = component.options
    if component.name in ("demo", "demo_attributes", "source_species"):
        return int(options["classes"] * options["per_class"])
    if component.name == "demo_unbalanced":
        names = "classes", "per_class", "imbalance", "seed"
        return sum(falling_counts(*(options[name] for name in names)))
    if component.name == "cub_shape":
        from dml_bench.data.synthetic import cub_counts

        return sum(cub_counts().values())
    return None


def drawn(
    where: Where,
    folder: str,
    name: str,
    counts: list[int],
    size: int,
    seed: int,
    domain: Literal["benchmark", "source"] = "benchmark",
) -> Dataset:
    """The birds in `folder` of the cache, drawn if they are not there yet, and drawn anew if one
    bit of them was changed."""
    from filelock import FileLock

    from dml_bench.data.synthetic import EDITION, is_as_drawn, write

    root = where.cache_dir / f"{folder}-edition{EDITION}"
    done = 0

    def tell(images: int) -> None:
        nonlocal done
        done += images
        where.progress(f"drawing {sum(counts):,} birds", done, sum(counts))

    if not is_as_drawn(root):
        where.cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(
            where.cache_dir / f".{root.name}.lock"
        ):  # of two processes one draws and the other waits
            if not is_as_drawn(root):
                remove(root)
                write(root, counts=counts, size=size, seed=seed, domain=domain, progress=tell)
    return read_cub_layout(root, name).sound()
