"""The protocol of the papers: classes are divided, the second half is asked, each image among all
others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from sklearn.metrics import normalized_mutual_info_score
from tiny import tiny, train

from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import ImageInputs
from dml_bench.data.split import disjoint_phases, make_disjoint_split
from dml_bench.evaluation import clustering
from dml_bench.evaluation.clustering import normalized_mutual_information
from dml_bench.evaluation.metrics import map_at_r, precision_at_1, r_precision
from dml_bench.evaluation.search import search_leaving_one_out
from dml_bench.protocols.class_disjoint import ClassDisjoint
from dml_bench.runs.request import Outcome
from dml_bench.system.terminal import show_outcome

DISJOINT = ("protocol=class_disjoint", "data.split=half", "data.valid_fraction=0.25")


def dataset_of(counts: list[int], parts: tuple[str, ...] | None = None) -> Dataset:
    paths = tuple(f"c{label}/{i}.jpg" for label, count in enumerate(counts) for i in range(count))
    labels = np.repeat(np.arange(len(counts)), counts)
    return Dataset(
        name="made",
        root=Path(),
        paths=paths,
        labels=labels,
        class_names=tuple(f"c{i}" for i in range(len(counts))),
        parts=parts,
    )


# The split


def test_the_first_half_trains_its_last_classes_watch_and_the_second_half_is_asked():
    dataset = dataset_of([3] * 11)
    split = make_disjoint_split(dataset, method="half", valid_fraction=0.4)
    classes = {
        part: sorted(set(dataset.labels[getattr(split, part)].tolist()))
        for part in ("train", "valid", "test", "gallery")
    }
    assert classes == {
        "train": [0, 1, 2],
        "valid": [3, 4],
        "test": [5, 6, 7, 8, 9, 10],
        "gallery": [5, 6, 7, 8, 9, 10],
    }
    assert split.leaves_one_out
    (phase,) = disjoint_phases(dataset, split)
    assert phase.held_out_classes == tuple(range(3, 11))
    assert phase.trains_on(dataset, split).tolist() == list(range(9))
    monitored = phase.monitored_images(dataset, split)
    assert monitored.gallery.tolist() == list(range(9, 15))
    assert monitored.queries["valid"] is monitored.gallery
    assert monitored.num_images == 6


def test_a_data_set_s_own_query_and_gallery_parts_are_kept_apart():
    parts = ("train", "train") * 3 + ("query", "gallery", "gallery") * 2
    split = make_disjoint_split(
        dataset_of([2, 2, 2, 3, 3], parts), method="given", valid_fraction=0.0
    )
    assert (split.train.tolist(), split.test.tolist(), split.gallery.tolist()) == (
        [0, 1, 2, 3, 4, 5],
        [6, 9],
        [7, 8, 10, 11],
    )
    assert not split.leaves_one_out
    assert len(split.valid) == 0


def test_parts_that_share_classes_are_refused():
    with pytest.raises(
        ValueError,
        match=(
            r"2 classes of made have both training and test images \(c0, ...\); --set"
            r" data.split=half"
        ),
    ):
        make_disjoint_split(
            dataset_of([2, 2], ("train", "test") * 2), method="given", valid_fraction=0.0
        )


def experiment(split: str = "given"):
    return tiny("protocol=class_disjoint", f"data.split={split}")


@pytest.mark.parametrize("other", ["query", "gallery"])
def test_test_images_that_would_find_themselves_among_those_of_the_gallery_are_refused(other):
    """Each is query and gallery at once, and left out of its search only where all are."""
    parts = ("train",) * 6 + ("test", other, "gallery") * 2
    dataset = dataset_of([2, 2, 2, 3, 3], parts)
    with pytest.raises(
        ValueError, match=r"2 images of made are of the part test, .*c3/0.jpg\): name"
    ):
        ClassDisjoint().split(experiment(), dataset)
    apart = dataset_of([2, 2, 2, 3, 3], parts[:6] + ("query", "query", "gallery") * 2)
    assert ClassDisjoint().split(experiment(), apart).test.tolist() == [6, 7, 9, 10]


def test_queries_without_another_image_of_their_class_are_counted_and_named():
    dataset = dataset_of([3, 3, 3, 1, 1, 2])
    split = ClassDisjoint().split(experiment("half"), dataset)
    assert split.leaves_one_out
    sentence = (
        "2 of 4 queries have no other image of their class in the gallery: R@k and P@1 count them"
        " as wrong, and R-precision and MAP@R leave them out"
    )
    assert split.notes == (sentence,)
    numbers = {"precision_at_1_macro": 0.2, "map_at_r": 0.5, "r_precision": 0.5}
    numbers |= {"queries": 4, "queries_without_relevant_images": 2}
    of_run = {"experiment": "mine", "dataset": {"name": "made"}, "seed": 42}
    summary = {**of_run, "retrieval": numbers, "unseen_classes": ["c3", "c4", "c5"]}
    (table,) = ClassDisjoint().outcome(summary)
    assert table.caption.endswith(f"means over queries. {sentence}.")
    own = ("train",) * 9 + ("query", "gallery", "query", "gallery")
    split = ClassDisjoint().split(experiment(), dataset_of([3, 3, 3, 2, 1, 1], own))
    assert split.notes[0].startswith("1 of 2 queries have no other image")


def test_queries_none_of_which_could_be_answered_are_refused():
    with pytest.raises(
        ValueError, match=r"none of the 3 queries of made has another image .*: add"
    ):
        ClassDisjoint().split(experiment("half"), dataset_of([3, 3, 3, 1, 1, 1]))


def test_too_few_classes_to_train_on_are_refused():
    with pytest.raises(
        ValueError,
        match="must leave at least 2 classes to train on and 1 test class, got 3 training classes"
        " with 2 for validation: add classes, or lower data.valid_fraction",
    ):
        make_disjoint_split(dataset_of([2] * 6), method="half", valid_fraction=0.1)


def test_the_fingerprint_tells_parts_apart():
    dataset = dataset_of([3] * 12)
    fingerprints = {
        make_disjoint_split(dataset, method="half", valid_fraction=fraction).fingerprint
        for fraction in (0.0, 0.4, 0.6)
    }
    assert len(fingerprints) == 3


# The search


@pytest.fixture
def cloud() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(40, 6)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.arange(40) % 5


def test_no_image_finds_itself_and_the_others_come_in_the_order_of_a_slow_search(cloud):
    embeddings, labels = cloud
    neighbours = search_leaving_one_out(embeddings, labels, 7)
    for query in range(40):
        others = [i for i in range(40) if i != query]
        slow = sorted(others, key=lambda i: (-float(embeddings[query] @ embeddings[i]), i))[:7]
        assert neighbours.indices[query].tolist() == slow


def test_a_copy_is_found_although_the_image_itself_is_not(cloud):
    embeddings, labels = cloud
    embeddings[3] = embeddings[30]
    neighbours = search_leaving_one_out(embeddings, labels, 3)
    assert (neighbours.indices[3, 0], neighbours.indices[30, 0]) == (30, 3)


def test_more_copies_than_neighbours_leave_k_others(cloud):
    embeddings, labels = cloud
    embeddings[:20] = embeddings[0]
    neighbours = search_leaving_one_out(embeddings, labels, 4)
    assert neighbours.indices[0].tolist() == [1, 2, 3, 4]
    assert neighbours.indices[19].tolist() == [0, 1, 2, 3]
    assert all(query not in neighbours.indices[query] for query in range(40))


def test_metrics_at_r_count_the_other_images_of_the_class_as_pytorch_metric_learning_does(cloud):
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    embeddings, labels = cloud
    neighbours = search_leaving_one_out(embeddings, labels, 39)
    oracle = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    expected = oracle.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(labels))
    assert precision_at_1(neighbours).mean() == pytest.approx(expected["precision_at_1"])
    assert r_precision(neighbours).mean() == pytest.approx(expected["r_precision"])
    assert map_at_r(neighbours).mean() == pytest.approx(expected["mean_average_precision_at_r"])


def test_a_class_of_one_image_has_no_relevant_images_and_is_undefined(cloud):
    embeddings, labels = cloud
    labels = np.where(np.arange(40) == 0, 9, labels)
    assert np.flatnonzero(
        np.isnan(map_at_r(search_leaving_one_out(embeddings, labels, 20)))
    ).tolist() == [0]


# The run


@pytest.fixture(scope="module")
def outcome(birds, cache_dir, tmp_path_factory) -> Outcome:
    many = tmp_path_factory.mktemp("many") / "CUB_200_2011"
    from dml_bench.data.synthetic import write

    write(many, counts=[4] * 12, size=40, seed=5)
    return train(many, cache_dir, tmp_path_factory.mktemp("runs"), *DISJOINT, "evaluate.nmi=true")


def test_a_run_reports_retrieval_and_no_precision_drop(outcome):
    summary = outcome.summary
    assert summary["protocol"] == "class_disjoint"
    retrieval = summary["retrieval"]
    assert (
        retrieval["recall_at_1"]
        <= retrieval["recall_at_2"]
        <= retrieval["recall_at_4"]
        <= retrieval["recall_at_8"]
    )
    assert 0 < retrieval["map_at_r"] <= retrieval["r_precision"] <= 1
    assert (retrieval["queries"], retrieval["queries_without_relevant_images"]) == (24, 0)
    assert len(summary["unseen_classes"]) == 6
    assert not any("drop" in key for key in summary)
    assert {path.name for path in outcome.folder.iterdir()} >= {
        "disjoint",
        "test_classes_metrics.csv",
        "predictions.csv",
    }


def test_r_at_1_of_the_run_is_that_of_its_embeddings(outcome):
    query = load_file(outcome.folder / "disjoint" / "embeddings.safetensors")["query"]
    similarity = query @ query.T
    np.fill_diagonal(similarity, -2)
    labels = np.repeat(np.arange(6), 4)
    assert outcome.summary["retrieval"]["recall_at_1"] == pytest.approx(
        (labels[similarity.argmax(axis=1)] == labels).mean()
    )


def test_a_single_k_of_r_at_k_is_enough(outcome, cache_dir, tmp_path):
    environment = json.loads((outcome.folder / "environment.json").read_text())
    images = Path(environment["dataset"]["root"])
    single = train(images, cache_dir, tmp_path, *DISJOINT, "evaluate.recall_k=[4]")
    retrieval, several = single.summary["retrieval"], outcome.summary["retrieval"]
    assert retrieval["recall_at_4"] == several["recall_at_4"]
    assert "recall_at_1" not in retrieval


def test_nmi_where_it_is_asked_for_is_that_of_the_run_s_embeddings_and_is_shown(outcome, capsys):
    query = load_file(outcome.folder / "disjoint" / "embeddings.safetensors")["query"]
    labels = np.repeat(np.arange(6), 4)
    assert outcome.summary["retrieval"]["nmi"] == normalized_mutual_information(query, labels, 42)
    tables = ClassDisjoint().outcome(outcome.summary)
    show_outcome(Console(width=150), outcome.folder, outcome.summary, tables)
    assert "NMI" in capsys.readouterr().out


@pytest.mark.parametrize("seed", [-1, 2**31, 10**23])
def test_any_seed_of_an_experiment_clusters(seed):
    vectors = np.eye(4, dtype=np.float32).repeat(10, axis=0)
    assert normalized_mutual_information(vectors, np.arange(40) // 10, seed) > 0.5


def test_nmi_is_one_where_each_class_is_a_cluster_and_low_where_classes_are_drawn(monkeypatch):
    labels = np.repeat(np.arange(8), 5)
    far_apart = np.eye(8, dtype=np.float32)[labels]
    drawn = np.random.default_rng(0).permutation(labels)
    # a random start that finds all eight; another may take two images of one class and end above .9
    start = 1
    assert normalized_mutual_information(far_apart, labels, start) == pytest.approx(1)
    assert normalized_mutual_information(far_apart, drawn, start) == pytest.approx(
        normalized_mutual_info_score(labels, drawn)
    )
    assert 1 >= normalized_mutual_information(far_apart, labels, 3) > 0.9
    assert normalized_mutual_information(far_apart, drawn, 3) < 0.7
    monkeypatch.setattr(clustering, "MOST", 20)
    assert normalized_mutual_information(far_apart, labels, start) == pytest.approx(1)
    assert normalized_mutual_information(far_apart, labels, 3) > 0.9


def test_nmi_is_refused_where_nothing_is_clustered():
    with pytest.raises(
        ValueError, match="evaluate.nmi needs the protocol class_disjoint; leave it out"
    ):
        tiny("evaluate.nmi=true")


def test_training_is_watched_on_validation_classes_alone(outcome):
    records = [
        json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["phase"] for record in records] == ["disjoint"] * 3
    assert all("valid_accuracy" in record and record["evaluate_images"] == 8 for record in records)
    assert not any(key.startswith("test_") for record in records for key in record)


def test_only_training_classes_are_trained_on(birds, cache_dir, tmp_path, monkeypatch):
    fed: set[int] = set()
    original = ImageInputs.train

    def spy(self, images, **key):
        fed.update(images.tolist())
        return original(self, images, **key)

    monkeypatch.setattr(ImageInputs, "train", spy)
    train(birds, cache_dir, tmp_path, *DISJOINT, "train.epochs=1")
    assert fed == set(range(16)), "8 classes of 8 images: two train, two watch, four are asked"


def test_the_same_seed_gives_the_same_bits(outcome, cache_dir, tmp_path):
    environment = json.loads((outcome.folder / "environment.json").read_text())
    again = train(Path(environment["dataset"]["root"]), cache_dir, tmp_path, *DISJOINT)
    for name in ("disjoint/weights.safetensors", "predictions.csv"):
        assert (again.folder / name).read_bytes() == (outcome.folder / name).read_bytes()


def test_a_protocol_and_a_split_that_do_not_go_together_are_refused(birds, cache_dir, tmp_path):
    with pytest.raises(
        ValueError,
        match="data.split must be half or given with protocol class_disjoint, got stratified",
    ):
        train(birds, cache_dir, tmp_path, "protocol=class_disjoint")
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
