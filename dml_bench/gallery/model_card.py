"""The model card of an export (Mitchell et al. 2019, "Model cards for model reporting"), all of it
from the run's own record."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dml_bench import __version__
from dml_bench.gallery.index_store import OpenIndex
from dml_bench.gallery.predict import CalibrationSet, cuts_to_boxes
from dml_bench.gallery.store import Gallery
from dml_bench.registry import datasets
from dml_bench.runs.metrics import measure, metrics_of
from dml_bench.runs.run import Run
from dml_bench.system.markdown import fenced, markdown, markdown_row

__all__ = ["Agreement", "card"]

PRECISIONS = (0.8, 0.9, 0.95, 0.99)
THRESHOLDS = ("wanted precision", "threshold", "precision", "answered")
ON_QUERIES = ("precision on the queries", "queries answered")
OWN = {"valid": "validation images", "query": "queries"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far the exported network's embeddings are from others of the same images."""

    images: int
    network_max_difference: float
    """Of a component, from the run's network in float32."""
    gallery_max_difference: float
    """Of a component, from the gallery, which was embedded in `gallery_precision`."""
    gallery_min_cosine: float
    gallery_precision: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def words(self) -> str:
        return (
            f"on {self.images} images of the gallery, embedder.pt2 differs from the run's network"
            f" by at most {self.network_max_difference:.1e} in any component (both float32), and"
            f" from the gallery, which was embedded in {self.gallery_precision}, by at most"
            f" {self.gallery_max_difference:.1e}; the smallest cosine is"
            f" {self.gallery_min_cosine:.5f}"
        )


def card(
    run: Run,
    phase: str,
    gallery: Gallery,
    agreement: Agreement,
    evidence: CalibrationSet,
    look: OpenIndex,
) -> str:
    """Markdown. The Python in it runs in the exported folder."""
    experiment = run.experiment
    sections = {
        "Model": table(("", ""), model_rows(run, phase)),
        "Data": data_words(run, phase),
        "Results": (
            f"{table(('what', 'value', '95% interval'), result_rows(run))}\n\n{result_words(run, gallery)}"
        ),
        "Gallery index": index_words(look, gallery),
        "Unknown or not": f"{unknown_words(evidence)}\n\n{threshold_table(evidence)}",
        "Intended use": use_words(run, gallery),
        "Limits": limits(run, evidence),
        "How to use it": fenced(SNIPPET, "python"),
        "Checked": f"That {agreement.words()}.",
    }
    title = f"# {markdown(experiment.name)}, phase {phase}" + (
        f"\n\n{markdown(experiment.summary)}" if experiment.summary else ""
    )
    return "\n\n".join([title, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    return "\n".join(map(markdown_row, [header, ("---",) * len(header), *rows]))


def model_rows(run: Run, phase: str) -> Iterator[tuple[str, str]]:
    experiment = run.experiment
    model, train = experiment.model, experiment.train
    start = {"none": "random", "source": "pretrained on drawn species"}.get(
        model.weights, model.weights
    )
    session = run.last_session("dml_bench", "packages", "device", "precision", "started_at")
    yield "backbone", f"{model.backbone.name}, first weights: {start}, trained: {model.trainable}"
    yield "head", f"{model.head.name}{options(model.head.options)}"
    yield (
        "input",
        f"{experiment.images.size} x {experiment.images.size} pixels, {experiment.images.fit}",
    )
    yield "loss", f"{experiment.loss.name}{options(experiment.loss.options)}"
    yield "miner", f"{experiment.miner.name}{options(experiment.miner.options)}"
    yield (
        "training",
        (
            f"{train.epochs} epochs, batches of {train.batch_size}, {experiment.optimizer.name},"
            f" seed {experiment.seed}"
        ),
    )
    yield "phase", f"{phase}: {phase_words(run, phase)}"
    yield (
        "made with",
        (
            f"dml-bench {session['dml_bench']}, torch {session['packages']['torch']},"
            f" {session['device']}, {session['precision']}"
        ),
    )
    yield "made on", f"{session['started_at'][:10]}; exported with dml-bench {__version__}"


def options(given: dict[str, Any]) -> str:
    return f" ({', '.join(f'{key}={value}' for key, value in given.items())})" if given else ""


def phase_words(run: Run, phase: str) -> str:
    left_out = len(never_trained_on(run, phase))
    if not left_out:
        return "trained on images of all classes"
    return f"trained without {left_out} of the classes, which only the gallery holds"


def never_trained_on(run: Run, phase: str) -> list[str]:
    """The classes that the model of a phase did not see."""
    return run.protocol.held_out(run.summary).get(phase, [])


def data_words(run: Run, phase: str) -> str:
    data, split, left_out = (
        run.summary["dataset"],
        run.summary["split"],
        never_trained_on(run, phase),
    )
    drawn = " It is drawn by a program: no photo was seen in training." if is_drawn(run) else ""
    return (
        f"{markdown(data['name'])}: {data['num_images']:,} images of {data['num_classes']} classes"
        f" (fingerprint `{data['fingerprint'][:16]}`).{drawn} {split['train_images']:,} train,"
        f" {split['valid_images']:,} validate, {split['test_images']:,} are queries."
        + (
            f" The {len(left_out)} classes that it was not trained on:"
            f" {', '.join(map(markdown, left_out))}."
            if left_out
            else ""
        )
    )


def is_drawn(run: Run) -> bool:
    return not datasets.of(run.experiment.data.dataset).facts["needs_data_dir"]


def result_rows(run: Run) -> Iterator[tuple[str, str, str]]:
    for name, metric in metrics_of(run.experiment).items():
        found = measure([run], name)
        told = not math.isnan(found.low)
        yield (
            metric.description,
            f"{found.estimate:.3f}",
            f"{found.low:.3f} to {found.high:.3f}" if told else "can't be told",
        )


def result_words(run: Run, gallery: Gallery) -> str:
    words = (
        f"Measured once, with seed {run.seed}, on queries that were not trained on; the intervals"
        " are bootstrapped over classes and queries and say nothing about other seeds."
    )
    enrolled = sum(entry.origin == "enrolled" for entry in gallery.entries)
    own = len(gallery.entries) - enrolled
    changed = enrolled or own != len(run.neighbours[next(iter(run.neighbours))].gallery_labels)
    if not changed:
        return words
    return (
        f"{words} They hold for the run's own gallery. It has been changed since: {enrolled:,}"
        f" images were enrolled, and {own:,} are the run's."
    )


def index_words(look: OpenIndex, gallery: Gallery) -> str:
    """What gallery.faiss is, what it misses, and how much there is of it."""
    words = (
        f"`gallery.faiss` holds {len(gallery.entries):,} images of {gallery.embeddings.shape[1]}"
        f" dimensions, opened memory-mapped. {look.words()}."
    )
    if look.measured is None:
        return words
    return (
        f"{words} Recall@k is the share of the k images it finds that are as near as the k exactly"
        " nearest, with a 95% interval (Wilson); times are of one thread. The thresholds below"
        " were chosen on look-ups in it."
    )


def unknown_words(evidence: CalibrationSet) -> str:
    enrolled = len(evidence.look_ups.correct) - evidence.own
    held = (
        f" What they do on the {len(evidence.queries.correct):,} queries of the run, on which they"
        " were not chosen, stands beside it."
        if evidence.queries is not None
        else ""
    )
    return (
        "A photo whose closest gallery image is less similar than the threshold is best called"
        f" unknown. The thresholds below were chosen on {evidence.own:,} {OWN[evidence.part]} of"
        f" the run and {enrolled:,} enrolled images, all of classes in the gallery and none trained"
        f" on.{held} Photos of other classes lower the precision."
    )


def threshold_table(evidence: CalibrationSet) -> str:
    header = THRESHOLDS if evidence.queries is None else (*THRESHOLDS, *ON_QUERIES)
    return table(
        header, ((*row, *[""] * (len(header) - len(row))) for row in threshold_rows(evidence))
    )


def threshold_rows(evidence: CalibrationSet) -> Iterator[tuple[str, ...]]:
    for wanted in PRECISIONS:
        found = evidence.threshold(wanted)
        if math.isnan(found.value):
            yield f"{wanted:.0%}", "none reaches it"
            continue
        realised = evidence.realised(found) or ()
        told = (
            "-" if math.isnan(part) else f"{part:.0%}"
            for part in (found.precision, found.coverage, *realised)
        )
        yield f"{wanted:.0%}", f"{found.value:.4f}", *told


def use_words(run: Run, gallery: Gallery) -> str:
    domain = (
        "drawn birds, to try the benchmark out; it knows no real ones"
        if is_drawn(run)
        else f"images like those of {markdown(run.summary['dataset']['name'])}"
    )
    return (
        f"Looking up which of {len(gallery.class_names)} classes an image belongs to, by its"
        f" closest gallery images, on {domain}. A class is added by embedding a few images of it"
        " and adding them to the gallery; nothing is trained. It is not meant for telling people"
        " apart or for decisions about them."
    )


def limits(run: Run, evidence: CalibrationSet) -> str:
    correct = evidence.look_ups.correct
    wrong = f"{1 - correct.mean():.0%}" if len(correct) else "an unknown part"
    lines = [
        f"Of the images asked above, {wrong} have a closest image of another class.",
        (
            "A similarity is no probability, and similarities of two different models can't be"
            " compared."
        ),
        (
            "Images unlike the training data (other cameras, drawings, several objects in one"
            " image) have not been measured."
        ),
        (
            "Copies of a test image in the gallery would be found as what they are: look for them"
            " before measuring anything."
        ),
    ]
    if cuts_to_boxes(run):
        lines.append("The run saw each object cut out by its bounding box: cut yours out as well.")
    return "\n".join(f"- {line}" for line in lines)


SNIPPET = """import sys

import faiss
import numpy as np
import torch

from preprocess import pixels, read_csv

embedder = torch.export.load("embedder.pt2").module()
index = faiss.read_index("gallery.faiss", faiss.IO_FLAG_MMAP_IFC)
gallery = read_csv("gallery.csv")

batch = torch.from_numpy(np.stack([pixels(path) for path in sys.argv[1:]]))
with torch.no_grad():
    embeddings = embedder(batch)
similarities, rows = index.search(embeddings.numpy(), 1)
for path, similarity, row in zip(sys.argv[1:], similarities[:, 0], rows[:, 0]):
    print(path, gallery[row]["class"], round(float(similarity), 4), gallery[row]["path"], sep="\\t")"""
