"""The model card of an export (Mitchell et al. 2019, "Model cards for model reporting"), all of it
from the run's own record."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dml_bench.data.publications import PUBLICATIONS
from dml_bench.evaluation.thresholds import GuaranteedThreshold
from dml_bench.gallery.calibration import CalibrationSet
from dml_bench.gallery.index_store import OpenIndex
from dml_bench.gallery.network_formats import NetworkFormat
from dml_bench.gallery.predict import USUAL_SHARES, cuts_to_boxes
from dml_bench.gallery.store import Gallery
from dml_bench.registry import datasets
from dml_bench.runs.metrics import measure, metrics_of
from dml_bench.runs.run import Run
from dml_bench.system.markdown import fenced, markdown, markdown_row
from dml_bench.version import __version__

__all__ = ["PRECISIONS", "Agreement", "card"]

PRECISIONS = (0.8, 0.9, 0.95, 0.99)
THRESHOLDS = (
    "precision to keep",
    "photos of other classes",
    "threshold",
    "lower bound",
    "answered",
    "test images answered",
    "of these right",
)
KNOWN = {"validation": "validation images of the run", "enrolled": "enrolled images"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far the exported network's embeddings are from others of the same images."""

    file: str
    """The name of the network's file."""
    images: int
    """The number of images."""
    network_max_difference: float
    """The largest difference of a component from the run's network in float32."""
    gallery_max_difference: float
    """The largest difference of a component from the gallery."""
    gallery_min_cosine: float
    """The smallest cosine with the gallery."""
    gallery_precision: str
    """The precision in which the gallery was embedded."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """All of it in a sentence."""
        return (
            f"on {self.images} images of the gallery, {self.file} differs from the run's network"
            f" by at most {self.network_max_difference:.1e} in any component (both float32), and"
            f" from the gallery, which was embedded in {self.gallery_precision}, by at most"
            f" {self.gallery_max_difference:.1e}; the smallest cosine is"
            f" {self.gallery_min_cosine:.5f}"
        )


def card(
    run: Run,
    phase: str,
    gallery: Gallery,
    checks: Sequence[str],
    calibration_set: CalibrationSet,
    open_index: OpenIndex,
    network_format: NetworkFormat,
) -> str:
    """Markdown. The Python in it runs in the exported folder. `checks` say what was measured of the
    exported network."""
    experiment = run.experiment
    results = table(("what", "value", "95% interval"), result_rows(run))
    thresholds = describe_thresholds(calibration_set)
    sections = {
        "Model": table(("", ""), model_rows(run, phase)),
        "Data": describe_data(run, phase),
        "Results": f"{results}\n\n{describe_results(run, gallery)}",
        "Gallery index": describe_index(open_index, gallery),
        "Unknown or not": f"{thresholds}\n\n{threshold_table(calibration_set)}",
        "Intended use": describe_use(run, gallery),
        "Limits": describe_limits(run, calibration_set),
        "Licence": describe_licence(run),
        "How to use it": fenced(snippet(network_format), "python"),
        "Checked": "\n".join(f"- {check[0].upper()}{check[1:]}." for check in checks),
    }
    parts = [f"# {markdown(experiment.name)}, phase {phase}"]
    if experiment.summary:
        parts.append(markdown(experiment.summary))
    parts += [f"## {name}\n\n{text}" for name, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return "\n".join(map(markdown_row, [header, ("---",) * len(header), *rows]))


def model_rows(run: Run, phase: str) -> Iterator[tuple[str, str]]:
    """What the network is, and how it was trained."""
    experiment = run.experiment
    model, train = experiment.model, experiment.train
    start = {"none": "random", "source": "pretrained on drawn species"}.get(
        model.weights, model.weights
    )
    session = run.last_session("dml_bench", "packages", "device", "precision", "started_at")
    yield "backbone", f"{model.backbone.name}, first weights: {start}, trained: {model.trainable}"
    yield "head", f"{model.head.name}{options(model.head.options)}"
    images = experiment.images
    crop_from = f" from {images.crop_from}" if images.crop_from else ""
    yield "input", f"{images.size} x {images.size} pixels, {images.fit}{crop_from}"
    yield "loss", f"{experiment.loss.name}{options(experiment.loss.options)}"
    yield "miner", f"{experiment.miner.name}{options(experiment.miner.options)}"
    yield (
        "training",
        (
            f"{train.epochs} epochs, batches of {train.batch_size}, {experiment.optimizer.name},"
            f" seed {experiment.seed}"
            if train.epochs
            else f"{experiment.no_drop_because}: {experiment.optimizer.name}"
        ),
    )
    yield "phase", f"{phase}: {describe_phase(run, phase)}"
    yield (
        "made with",
        (
            f"dml-bench {session['dml_bench']}, torch {session['packages']['torch']},"
            f" {session['device']}, {session['precision']}"
        ),
    )
    yield "made on", f"{session['started_at'][:10]}; exported with dml-bench {__version__}"


def options(values: dict[str, Any]) -> str:
    """The options of a component in brackets, with a space before them; empty where it has none."""
    if not values:
        return ""
    texts = [f"{key}={value}" for key, value in values.items()]
    return f" ({', '.join(texts)})"


def describe_phase(run: Run, phase: str) -> str:
    """Which classes the network was trained on."""
    left_out = len(never_trained_on(run, phase))
    if not left_out:
        return "trained on images of all classes"
    return f"trained without {left_out} of the classes, which only the gallery holds"


def never_trained_on(run: Run, phase: str) -> list[str]:
    """The classes that the model of a phase did not see."""
    return run.protocol.held_out(run.summary).get(phase, [])


def describe_data(run: Run, phase: str) -> str:
    """The data set, its split, and the classes on which the network was not trained."""
    data, split = run.summary["dataset"], run.summary["split"]
    drawn = " It is drawn by a program: no photo was seen in training." if is_drawn(run) else ""
    text = (
        f"{markdown(data['name'])}: {data['num_images']:,} images of {data['num_classes']} classes"
        f" (fingerprint `{data['fingerprint'][:16]}`).{drawn} {split['train_images']:,} train,"
        f" {split['valid_images']:,} validate, {split['test_images']:,} are queries (split"
        f" {run.experiment.data.described_split})."
    )
    left_out = never_trained_on(run, phase)
    if left_out:
        names = ", ".join(map(markdown, left_out))
        text += f" The {len(left_out)} classes that it was not trained on: {names}."
    return text


def is_drawn(run: Run) -> bool:
    """Whether the run's images are drawn by a program."""
    return not datasets.of(run.experiment.data.dataset).facts["needs_data_dir"]


def result_rows(run: Run) -> Iterator[tuple[str, str, str]]:
    """Each metric with its value and its interval."""
    for name, metric in metrics_of(run.experiment).items():
        value = measure([run], name)
        interval = "unknown"
        if not math.isnan(value.low):
            interval = f"{value.low:.3f} to {value.high:.3f}"
        yield (
            metric.description,
            f"{value.estimate:.3f}",
            interval,
        )


def describe_results(run: Run, gallery: Gallery) -> str:
    """What the results hold for, and whether the gallery has been changed since."""
    text = (
        f"Measured once, with seed {run.seed}, on queries that were not trained on; the intervals"
        " are over classes and queries and say nothing about other seeds."
    )
    enrolled = sum(entry.origin == "enrolled" for entry in gallery.entries)
    own = len(gallery.entries) - enrolled
    changed = enrolled or own != len(run.neighbours[next(iter(run.neighbours))].gallery_labels)
    if not changed:
        return text
    return (
        f"{text} They hold for the run's own gallery. It has been changed since: {enrolled:,}"
        f" images were enrolled, and {own:,} are the run's."
    )


def describe_index(open_index: OpenIndex, gallery: Gallery) -> str:
    """What gallery.faiss is, and what it misses."""
    text = (
        f"`gallery.faiss` holds {len(gallery.entries):,} images of {gallery.embeddings.shape[1]}"
        f" dimensions, opened memory-mapped. {open_index.describe()}."
    )
    if open_index.measured is None:
        return text
    return (
        f"{text} Recall@k is the share of the k images it finds that are as near as the k exactly"
        " nearest, with a 95% interval (Wilson). Times are of one thread. The thresholds below"
        " were chosen on searches in it."
    )


def describe_thresholds(calibration_set: CalibrationSet) -> str:
    """How the thresholds were chosen."""
    known, unknown = calibration_set.known, calibration_set.unknown
    groups = "" if known.groups is None else f" of {known.num_groups:,} groups"
    text = (
        "A photo whose closest gallery image is less similar than the threshold is best called"
        f" unknown. The thresholds below were chosen on {len(known.correct):,}"
        f" {KNOWN[calibration_set.source]}{groups}, none trained on. Each keeps its precision on"
        " new images of the same kind with 95% confidence (learn then test, Angelopoulos et al."
        " 2021)."
    )
    if len(unknown.correct):
        text += (
            f" Photos of other classes are stood for by {len(unknown.correct):,} images of"
            f" {unknown.num_groups:,} classes that were never trained on, each searched without its"
            " class."
        )
    queries = len(calibration_set.queries.correct)
    return f"{text} The last columns show {queries:,} test images, on which nothing was chosen."


def threshold_table(calibration_set: CalibrationSet) -> str:
    """A row for each precision to keep, and each share of photos of other classes."""
    rows = []
    for unknown_share in USUAL_SHARES:
        for precision in PRECISIONS:
            promise = calibration_set.promise(precision, unknown_share)
            cells = threshold_cells(promise)
            if promise.promised:
                cells += query_cells(calibration_set, promise.value)
            rows.append((*cells, *[""] * (len(THRESHOLDS) - len(cells))))
    return table(THRESHOLDS, iter(rows))


def threshold_cells(promise: GuaranteedThreshold) -> list[str]:
    """The threshold that keeps a precision and the share it answers, or what is missing for it."""
    cells = [f"{promise.goal:.0%}", f"{promise.unknown_share:.0%}"]
    if promise.promised:
        return [
            *cells,
            f"{promise.value:.4f}",
            f"{promise.bound:.1%}",
            f"{promise.coverage:.0%}",
        ]
    if promise.known_groups == 1:
        return [*cells, "can't be promised: one group says nothing about others"]
    if promise.known_needed is None:
        lack = "the most similar images are wrong too often"
        if math.isnan(promise.bound):
            lack = "there are too few classes or groups to try a threshold on"
        return [*cells, f"can't be promised: {lack}"]
    needed = f"{promise.known_needed:,} images"
    if promise.unknown_share:
        needed += f" and {promise.unknown_needed:,} of other classes"
    return [*cells, f"can't be promised: about {needed} are needed"]


def query_cells(calibration_set: CalibrationSet, threshold: float) -> list[str]:
    """What a threshold does on the test images."""
    right, answered = calibration_set.on_queries(threshold)
    return ["-" if math.isnan(share) else f"{share:.0%}" for share in (answered, right)]


def describe_use(run: Run, gallery: Gallery) -> str:
    """What the network and the gallery are for."""
    domain = f"images like those of {markdown(run.summary['dataset']['name'])}"
    if is_drawn(run):
        domain = "drawn birds, to try the benchmark out; it knows no real ones"
    return (
        f"Predicting to which of {len(gallery.class_names)} classes an image belongs, by its"
        f" closest gallery images, on {domain}. A class is added by embedding a few images of it"
        " and adding them to the gallery; nothing is trained. It is not meant for telling people"
        " apart or for decisions about them."
    )


def describe_limits(run: Run, calibration_set: CalibrationSet) -> str:
    """What one should know before relying on it."""
    correct = calibration_set.queries.correct
    wrong = f"{1 - correct.mean():.0%}" if len(correct) else "an unknown share"
    lines = [
        f"Of the test images, {wrong} have a closest image of another class.",
        "A similarity is no probability, and two models' similarities can't be compared.",
        (
            "Images unlike the training data (other cameras, drawings, several objects in one"
            " image) have not been measured."
        ),
        (
            "A copy of a test image in the gallery would always be the closest image: look for"
            " copies before measuring anything."
        ),
    ]
    if cuts_to_boxes(run):
        lines.append("The run saw each object cut out by its bounding box: cut yours out as well.")
    return "\n".join(f"- {line}" for line in lines)


def describe_licence(run: Run) -> str:
    """What is known of the rights in images and weights."""
    dataset = run.experiment.data.dataset.name
    images = "not known to the program that wrote this card"
    if is_drawn(run):
        images = "drawn by dml-bench, MIT"
    elif dataset in PUBLICATIONS:
        images = PUBLICATIONS[dataset].licence
    return (
        "Nobody has chosen a licence for these weights yet: whoever publishes them does. Images:"
        f" {images}. First weights of other packages keep their own licences."
    )


def snippet(network_format: NetworkFormat) -> str:
    """Python that looks photos up in the exported folder."""
    return SNIPPET.format(imports=network_format.imports, embed=network_format.snippet)


SNIPPET = """import sys

import faiss
import numpy as np
{imports}

from preprocess import pixels, read_csv

index = faiss.read_index("gallery.faiss", faiss.IO_FLAG_MMAP_IFC)
gallery = read_csv("gallery.csv")

batch = np.stack([pixels(path) for path in sys.argv[1:]])
{embed}
similarities, rows = index.search(embeddings, 1)
for path, similarity, row in zip(sys.argv[1:], similarities[:, 0], rows[:, 0]):
    image = gallery[row]
    print(path, image["class"], round(float(similarity), 4), image["path"], sep="\\t")"""
