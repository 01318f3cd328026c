"""A run in bfloat16 on a CPU embeds with folded BatchNorm, and so does all that looks into its
gallery later."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dml_bench.evaluation.search import search
from dml_bench.gallery.embedder import GalleryEmbedder, trained_embedder
from dml_bench.runs.run import read_folder
from dml_bench.system.devices import choose_precision
from dml_bench.system.files import write_json

pytestmark = pytest.mark.skipif(
    choose_precision("auto", torch.device("cpu")) != "bfloat16",
    reason="this processor has no fast bfloat16",
)


@pytest.fixture
def run(trained):
    return read_folder(trained("train.precision=bfloat16").folder)


@pytest.fixture
def older(copy_of_trained):
    """The same run, of a version that folded nothing."""
    folder = copy_of_trained("train.precision=bfloat16")
    environment = json.loads((folder / "environment.json").read_text())
    del environment["digest"]
    for session in environment["sessions"]:
        del session["folded_batch_norm"]
    write_json(folder / "environment.json", environment)
    return read_folder(folder)


def photos_and_vectors(run):
    """Files of the queries, and what the run says of them."""
    embeddings = run.embeddings("all")
    root, split = Path(run.summary["dataset"]["root"]), run.split
    return [root / split[image].path for image in embeddings.query_images], embeddings


def test_a_photo_embedded_again_has_the_bits_and_the_answer_of_the_run(run, older):
    assert run.last_session("folded_batch_norm")["folded_batch_norm"] is True
    files, stored = photos_and_vectors(run)
    again = GalleryEmbedder(run, "all", "cpu").embed(files).embeddings
    np.testing.assert_array_equal(again, stored.query)
    # That is no chance: the plain layers round otherwise, and a run of an older version has theirs.
    plain = GalleryEmbedder(older, "all", "cpu").embed(files).embeddings
    assert not np.array_equal(plain, again)
    assert (plain * again).sum(axis=1).min() > 0.999


def test_accuracy_is_that_of_the_plain_layers_up_to_ties(run, older):
    files, stored = photos_and_vectors(run)
    network = GalleryEmbedder(older, "all", "cpu")
    root = Path(run.summary["dataset"]["root"])
    gallery_files = [root / run.split[image].path for image in stored.gallery_images]
    neighbours = run.neighbours["all"]
    plain = search(
        network.embed(gallery_files).embeddings,
        network.embed(files).embeddings,
        neighbours.gallery_labels,
        neighbours.query_labels,
        1,
    )
    other = plain.labels[:, 0] != neighbours.labels[:, 0]
    assert other.mean() <= 0.1
    # Another answer is one between images that are equally close.
    assert np.abs(plain.similarities[:, 0] - neighbours.similarities[:, 0]).max() < 0.01


def test_float32_keeps_its_plain_layers(trained):
    run = read_folder(trained("train.precision=float32").folder)
    assert run.last_session("folded_batch_norm")["folded_batch_norm"] is False
    assert trained_embedder(run, "all")._folded == ()
