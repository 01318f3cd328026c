"""How well new classes are discovered, on held-out classes of finished runs.

    python benchmarks/discovery.py --runs RUN ... [--answered 0.7] [--kept discovery.json]

Runs of one experiment and data set make one row: the mean over their seeds and hold-outs. Alone,
the held-out test images are clustered, as if a threshold rejected these and no other. Mixed, all
test images are, that a threshold rejects which answers the share --answered of images of known
classes that were not trained on. Intervals are over classes. Hold-outs of a seed have different
classes, and seeds count as one. Rows of an earlier result, --kept, that are not measured again
stay. Writes discovery.json and discovery.md below --out.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Collection
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from common import facts, options_of, table, write

from dml_bench.evaluation.discovery import Agreement
from dml_bench.evaluation.statistics import Interval
from dml_bench.gallery.discover import never_trained_on
from dml_bench.gallery.discovery_measure import (
    LINKED,
    WAYS,
    DiscoveryMeasure,
    measure_discovery,
    without,
)
from dml_bench.gallery.index_store import exact_search
from dml_bench.gallery.store import GalleryFile, run_gallery
from dml_bench.runs.run import open_run
from dml_bench.system.files import defined

__all__ = ["measure", "row_of"]

NAMED = ("dataset", "split", "experiment")
HEADS = ("clusters by", "ARI", "AMI", "clusters", "classes", "pure", "classes with a pure one")


def measure(folder: Path, phase: str, answered: float) -> DiscoveryMeasure:
    """Of a phase; the threshold is a quantile of images of known classes, not trained on."""
    run = open_run(folder)
    file = GalleryFile(run, phase)
    gallery = without(run_gallery(run, phase), run.protocol.held_out(run.summary)[phase])
    images = never_trained_on(run, phase, gallery, half=True).images
    if not len(images.labels):
        return measure_discovery(file)
    nearest = exact_search(gallery, images.embeddings, images.labels, 1).similarities[:, 0]
    return measure_discovery(file, threshold=float(np.quantile(nearest, 1 - answered)))


def mean_interval(seeds: list[list[Interval]]) -> Interval:
    """The mean over the hold-outs of each seed, and over seeds, which are not taken for
    independent."""
    estimates, variances, degrees = [], [], []
    for seed in seeds:
        estimates += [holdout.estimate for holdout in seed]
        errors = np.array([holdout.standard_error for holdout in seed])
        variances.append((errors**2).sum() / len(seed) ** 2)
        degrees.append(sum(holdout.degrees_of_freedom for holdout in seed))
    error = float(np.sqrt(np.mean(variances)))
    return Interval.around(float(np.mean(estimates)), error, min(degrees), within=(-1.0, 1.0))


def row_of(way: str, seeds: list[list[Agreement]]) -> dict[str, Any]:
    """The means of a way."""
    flat: list[Agreement] = []
    ari, ami = [], []
    for seed in seeds:
        flat += seed
        ari.append([agreement.ari for agreement in seed])
        ami.append([agreement.ami for agreement in seed])
    row: dict[str, Any] = {"way": way, "ari": rounded(ari), "ami": rounded(ami)}
    for name in ("clusters", "classes", "clustered", "pure", "covered"):
        row[name] = round(float(np.mean([getattr(agreement, name) for agreement in flat])), 3)
    return row


def rounded(seeds: list[list[Interval]]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in mean_interval(seeds).as_table().items()}


def rows_of(measures: list[list[DiscoveryMeasure]], *, mixed: bool) -> list[dict[str, Any]]:
    """A row for each way that all measures have."""
    rows = []
    for way in WAYS:
        seeds: list[list[Agreement]] = []
        for seed in measures:
            of_seed = []
            for one in seed:
                ways = one.rejected if mixed else one.alone
                if ways is not None and way in ways.agreements:
                    of_seed.append(ways.agreements[way])
            seeds.append(of_seed)
        if all(seeds):
            rows.append(row_of(way, seeds))
    return rows


def without_link(measures: list[DiscoveryMeasure]) -> list[str]:
    """Why ways are in no table, as sentences."""
    sentences = []
    for way in LINKED:
        reasons = Counter(one.without_link[way] for one in measures if way in one.without_link)
        for reason, count in reasons.items():
            sentences.append(f"Without {WAYS[way]}, in {count} of {len(measures)}: {reason}.")
    return sentences


def cells(row: dict[str, Any]) -> list[str]:
    text = [WAYS[row["way"]]]
    for name in ("ari", "ami"):
        value = row[name]
        text.append(f"{value['estimate']:.2f}")
        if value["low"] is not None:
            text[-1] += f" [{value['low']:.2f}, {value['high']:.2f}]"
    return [
        *text,
        f"{row['clusters']:.0f}",
        f"{row['classes']:.0f}",
        "-" if row["pure"] is None else f"{row['pure']:.0%}",
        f"{row['covered']:.1f}",
    ]


def measured(named: tuple[str, str, str], measures: list[list[DiscoveryMeasure]]) -> dict[str, Any]:
    """The row of a data set, split and experiment."""
    flat = list(itertools.chain.from_iterable(measures))
    row: dict[str, Any] = dict(zip(NAMED, named, strict=True))
    row |= {"seeds": len(measures), "holdouts": len(measures[0])}
    row |= {"held_out": len(flat[0].held_out), "alone": rows_of(measures, mixed=False)}
    row["without_link"] = without_link(flat)
    labelled = [one.labelled for one in flat if one.labelled is not None]
    if len(labelled) == len(flat):
        row["mixed"] = rows_of(measures, mixed=True)
        row["rejected"] = float(np.mean([one.rejected for one in labelled]))
        row["new_share"] = float(np.mean([one.new_share for one in labelled]))
    return row


def kept_rows(file: str, named: Collection[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The rows of an earlier result that are not measured again, with its commit."""
    if not file:
        return []
    result = json.loads(Path(file).read_text(encoding="utf-8"))
    commit = {"commit": result["machine"]["commit"]}
    return [commit | row for row in result["rows"] if itemgetter(*NAMED)(row) not in named]


def section(row: dict[str, Any]) -> list[str]:
    """A row as tables."""
    lines = [
        "",
        f"## {row['experiment']} on {row['dataset']}, split {row['split']}",
        "",
        f"Seeds: {row['seeds']}. Hold-outs: {row['holdouts']} of {row['held_out']} classes.",
    ]
    if "commit" in row:
        lines[-1] += f" Measured at commit {row['commit'][:12]}."
    lines += ["", "Held-out images alone:", ""]
    lines += table(list(HEADS), [cells(line) for line in row["alone"]])
    if row.get("without_link"):
        lines += ["", " ".join(row["without_link"])]
    if "mixed" in row:
        lines += [
            "",
            f"Mixed: the threshold rejects {row['rejected']:.0%} of the held-out images. Of all"
            f" that it rejects, {row['new_share']:.0%} are held-out images.",
            "",
            *table(list(HEADS), [cells(line) for line in row["mixed"]]),
        ]
    return lines


def main() -> None:
    options = options_of(__doc__, runs=("",), answered=0.7, kept="")
    if options.out.name == "speed" and not options.quick:
        options.out = Path(__file__).parent.parent / "reports" / "discover"
    groups: dict[tuple[str, str, str], list[list[DiscoveryMeasure]]] = defaultdict(list)
    for folder in options.runs:
        run = open_run(Path(folder))
        named = (run.dataset_name, run.experiment.data.split, run.experiment.name)
        held_out = run.protocol.held_out(run.summary)
        groups[named].append([measure(Path(folder), name, options.answered) for name in held_out])
    rows = kept_rows(options.kept, groups)
    rows += [defined(measured(named, measures)) for named, measures in groups.items()]
    result: dict[str, Any] = {**facts(), "answered": options.answered, "rows": rows}
    lines = ["", " ".join((__doc__ or "").split("\n\n")[2].split())]
    for row in rows:
        lines += section(row)
    lines += [
        "",
        "The last way is given the number of classes, which nobody knows of new photos. `pure`:"
        " share of the clusters of which at least 80% are of one class. A class with a pure cluster"
        " can be enrolled from it.",
    ]
    write("discovery", "Discovery of new classes", result, lines, options.out)


if __name__ == "__main__":
    main()
