"""Public functions over data sets: get, check, measure and draw them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.api.arguments import (
    Overrides,
    PathLike,
    callback_or_log,
    experiment_of,
    optional_path,
    override_texts,
    path_of,
    paths_of,
    run_of,
    seed_of,
)
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from dml_bench.config import Experiment
    from dml_bench.data.card import DataCard
    from dml_bench.data.check import DataReport
    from dml_bench.runs.run import Run

__all__ = ["channel_statistics", "check_data", "data_card", "draw_birds", "fetch_data"]


def fetch_data(
    dataset: str,
    data_dir: PathLike,
    *,
    archive: PathLike | Sequence[PathLike] = (),
    callback: Callback | None = None,
) -> Path:
    """Download, check and unpack a published data set into `data_dir`, and return its folder.

    `dataset` is cub, cars196_train, flowers102_part, grocery or omniglot; for cars196, sop and
    inshop, `archive` names the files that were downloaded by hand. A download that was interrupted
    goes on where it stopped. Images and classes must be those that were published.

    Raises ValueError where the data set can't be fetched, or an archive is not the published one.
    Source: `data_card(dataset)` says where it comes from, its licence and what to cite.

    >>> db.fetch_data("cars196", "data")
    Traceback (most recent call last):
    ValueError: cars196 has no direct download: get car_ims.tgz and cars_annos.mat
    """
    from dml_bench.data.fetch import fetch

    progress = callback_or_log(callback).progress
    return fetch(dataset, path_of(data_dir), archives=paths_of(archive), progress=progress)


def data_card(dataset: str, data_dir: PathLike | None = None) -> "DataCard":
    """What a data set is: size, classes, parts, licence, citation, where it comes from, by which
    digests it is recognised, and whether it is in `data_dir`.

    `dataset` is a name of `dml-bench list datasets`. Printed, it is what `dml-bench data card`
    shows; `as_dict()` has plain values.

    Raises UnknownName where there is no such data set.
    Source: the pages of the publishers, which the card names.

    >>> db.data_card("grocery").publication.licence
    'MIT, the images included'
    """
    from dml_bench.data.card import card_of

    return card_of(dataset, optional_path(data_dir))


def check_data(
    dataset: str,
    data_dir: PathLike | None = None,
    *,
    overrides: Overrides = (),
    seed: int = 42,
    embeddings: "Run | str | Path | None" = None,
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> "DataReport":
    """Count images and classes, decode every image, and look for copies between train and test.

    `dataset` is a name of `dml-bench list datasets`; `seed` is that of the split in which copies
    are looked for. Sessions of photos, which a random split would divide, are estimated from file
    names and EXIF data, or from `embeddings`: of a run on these images, best one of `frozen_*`, or
    of a backbone, e.g. efficientnet_lite0.
    The report's `problems` says whether anything must be mended before training.

    Raises ValueError where the data set can't be opened, or `overrides` name it or the seed too.
    Source: docs/your_photos.md.

    >>> report = db.check_data("cub", "CUB_200_2011")
    >>> report.problems
    False
    """
    from dml_bench.config.variants import refuse_twice
    from dml_bench.data.check import check, sides
    from dml_bench.data.datasets import open_dataset
    from dml_bench.data.sessions import estimate_sessions

    texts = override_texts(overrides)
    refuse_twice(texts, "data.dataset", f"the name {dataset}")
    refuse_twice(texts, "seed", "--seed")
    texts.insert(0, f"data.dataset={dataset}")
    config = experiment_of("EPSHN_cosine_resnet18_sgd_aug", texts).data
    progress = callback_or_log(callback).progress
    images = open_dataset(
        config.dataset, optional_path(data_dir), cache_folder(cache_dir), progress, tolerant=True
    )
    split, refused = sides(images, config, seed_of(seed))
    random_split = config.split == "stratified"
    sessions = None
    if embeddings is not None:
        from dml_bench.analysis.sessions import (
            embeddings_in_order,
            embeddings_of_backbone,
            sessions_of_embeddings,
        )

        labels = images.labels
        if isinstance(embeddings, str | Path) and not Path(embeddings).exists():
            vectors, readable = embeddings_of_backbone(str(embeddings), images, progress)
            labels = labels[readable]
        else:
            vectors = embeddings_in_order(run_of(embeddings), images)
        sessions = sessions_of_embeddings(vectors, labels, config.test_fraction)
    elif random_split:
        sessions = estimate_sessions(images, config.test_fraction)
    return check(images, split=split, refused=refused, sessions=sessions, progress=progress)


def channel_statistics(
    experiment: "Experiment | str | Path",
    *,
    demo: bool = False,
    data_dir: PathLike | None = None,
    overrides: Overrides = (),
    out: PathLike | None = None,
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> dict[str, Any]:
    """Means and deviations of the colour channels (red, green, blue; 0 to 1) of the images that
    each phase trains on, for `images.mean` and `images.std`.

    The result is of plain values, by phase under `phases`; `out` writes it as .json. Images of
    classes that a phase holds out have no part in its numbers.

    Raises ValueError where `out` is no .json, or the data can't be opened.
    Source: every pixel of the training images, as an evaluation sees them.

    >>> statistics = db.channel_statistics(
    ...     "EPSHN_cosine_resnet18_sgd_aug", data_dir="CUB_200_2011", overrides=trained_with
    ... )
    >>> len(statistics["phases"]["limited"]["mean"])
    3
    """
    if out is not None and path_of(out).suffix.lower() != ".json":
        raise ValueError(f"--out {out}: the name must end in .json")
    resolved = experiment_of(experiment, overrides, demo=demo)
    from dml_bench.system.files import write_json
    from dml_bench.training.channel_statistics import channel_statistics as measure

    statistics = measure(
        resolved,
        data_dir=optional_path(data_dir),
        cache_dir=cache_folder(cache_dir),
        callback=callback_or_log(callback),
    )
    if out is not None:
        path_of(out).parent.mkdir(parents=True, exist_ok=True)
        write_json(path_of(out), statistics)
    return statistics


def draw_birds(
    out: PathLike,
    *,
    classes: int = 40,
    per_class: int = 24,
    size: int = 256,
    seed: int = 7,
    cub_shape: bool = False,
    callback: Callback | None = None,
) -> Path:
    """Draw birds into a new folder in the layout of CUB-200-2011, with boxes of birds and parts.

    `classes` species have `per_class` images each, of `size` by `size` pixels; `cub_shape` draws
    the 200 classes and 11,788 images of CUB-200-2011 instead. The same seed draws the same images.

    Raises ValueError where `out` exists already.
    Source: our own drawings, free to use.

    >>> db.draw_birds("few_birds", classes=2, per_class=2, size=32)
    PosixPath('few_birds')
    """
    folder = path_of(out)
    if folder.exists():
        raise ValueError(f"{folder} exists already; name a folder that does not")
    from dml_bench.data.synthetic import cub_counts, write

    seed = seed_of(seed)
    counts = list(cub_counts().values()) if cub_shape else [per_class] * classes
    names = list(cub_counts()) if cub_shape else None
    progress = callback_or_log(callback).progress
    drawn = 0

    def count(images: int) -> None:
        nonlocal drawn
        drawn += images
        progress(f"drawing {sum(counts):,} birds", drawn, sum(counts))

    return write(folder, counts=counts, size=size, seed=seed, class_names=names, progress=count)
