import csv
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import ForkedCommand
from safetensors.torch import load_file
from steps import Heard
from tiny import start, tiny, train
from wandb_records import read_back

from dml_bench.data.cache import UnreadableImages
from dml_bench.data.inputs import ImageInputs
from dml_bench.runs.arrays import read_neighbours
from dml_bench.runs.folder import read_json
from dml_bench.runs.request import Outcome
from dml_bench.tracking.wandb_mirror import mirror_in_wandb
from dml_bench.training import frozen_features, loop
from dml_bench.training.loop import NonFiniteLoss
from dml_bench.training.training_state import TrainingState

RESULT_FILES = [
    f"{phase}/{name}.safetensors"
    for phase in ("all", "limited")
    for name in ("weights", "objective", "embeddings", "neighbours")
]


@pytest.fixture(scope="module")
def outcome(birds: Path, cache_dir: Path, copy_of_trained) -> Outcome:
    return train(birds, cache_dir, copy_of_trained().parents[2])


def bits(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes()
        for name in [*RESULT_FILES, "predictions.csv", "split.csv"]
    }


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_summary_has_every_promised_number(outcome: Outcome):
    summary = json.loads((outcome.folder / "summary.json").read_text())
    assert (summary["schema_version"], summary["experiment"], summary["seed"]) == (
        1,
        "EPSHN_cosine_resnet18_sgd_aug",
        42,
    )
    assert summary["dataset"].keys() >= {"name", "fingerprint", "num_images", "num_classes"}
    assert (
        summary["dataset"]["name"],
        summary["dataset"]["num_images"],
        summary["dataset"]["num_classes"],
    ) == ("cub", 64, 8)
    assert len(summary["split"]["fingerprint"]) == 64
    for phase in ("all", "limited"):
        numbers = summary["phases"][phase]
        for key in (
            "precision_at_1_macro",
            "precision_at_1_micro",
            "precision_at_1_macro_seen",
            "precision_at_1_macro_unseen",
        ):
            assert 0 <= numbers[key] <= 1
        assert numbers["knn_vote_accuracy"].keys() == {"1", "3", "5", "10"}
        assert numbers["knn_vote_accuracy"]["1"] == numbers["precision_at_1_micro"]
        cost = summary["cost"][phase]
        assert cost["train_images_per_second"] > 0
        assert cost["train_cpu_seconds"] > 0
        assert cost["photos_per_second"] > 0
        assert 0 < cost["photo_cpu_seconds"] < 10
        assert 0 < cost["embed_ms_median"] <= cost["embed_ms_p95"]
        assert 0 < cost["look_up_ms_median"] <= cost["look_up_ms_p95"]
        assert cost["gallery_bytes"] == summary["split"]["train_images"] * 128 * 4
    for group in ("unseen", "seen", "all"):
        difference = "" if group == "all" else f"_{group}"
        macro = [
            summary["phases"][phase][f"precision_at_1_macro{difference}"]
            for phase in ("all", "limited")
        ]
        assert summary[f"precision_drop_{group}_classes"] == pytest.approx(macro[0] - macro[1])


def test_the_run_folder_holds_the_study_s_tables_by_name(outcome: Outcome):
    names = {path.name for path in outcome.folder.iterdir()}
    assert names >= {
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        "predictions.csv",
        "all_classes_metrics.csv",
        "limited_classes_metrics.csv",
        "all_classes_classification_report.csv",
        "limited_classes_classification_report.csv",
        "comparison_unseen_classes_metrics.csv",
        "comparison_seen_classes_metrics.csv",
    }
    assert not (outcome.folder / "all" / "state.pt").exists(), (
        "a finished phase needs no state to resume from"
    )


def test_each_epoch_leaves_one_record_under_the_study_s_names(outcome: Outcome):
    records = [
        json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [(record["phase"], record["epoch"]) for record in records] == [
        (phase, epoch) for phase in ("all", "limited") for epoch in (1, 2, 3)
    ]
    assert all({"train_loss", "test_accuracy"} <= record.keys() for record in records[:3])
    assert all({"train_loss2", "test_accuracy2"} <= record.keys() for record in records[3:])


def test_a_result_says_where_it_came_from(outcome: Outcome):
    environment = json.loads((outcome.folder / "environment.json").read_text())
    session = environment["sessions"][0]
    assert (
        session["packages"]["torch"] == torch.__version__.partition("+")[0]
        or session["packages"]["torch"] == torch.__version__
    )
    assert session["device"] == "cpu"
    assert {"commit", "command", "precision", "threads", "python", "processor"} <= session.keys()


def test_both_phases_answer_the_same_queries_and_only_known_classes_were_trained_on(
    outcome: Outcome,
):
    first, second = (
        read_neighbours(outcome.folder / phase / "neighbours.safetensors")
        for phase in ("all", "limited")
    )
    assert np.array_equal(first.query_labels, second.query_labels)
    trained = {
        row["class name"]: int(row["training samples"])
        for row in rows(outcome.folder / "limited_classes_metrics.csv")
    }
    unseen = {
        row["class name"] for row in rows(outcome.folder / "comparison_unseen_classes_metrics.csv")
    }
    assert len(unseen) == 2
    assert {name for name, images in trained.items() if images == 0} == unseen


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Indices of the images that were fed to training, by phase."""
    fed: dict[str, set[int]] = {}
    original = ImageInputs.train

    def spy(
        self: ImageInputs, images: np.ndarray, *, phase: str, epoch: int, view: int
    ) -> torch.Tensor:
        fed.setdefault(phase, set()).update(images.tolist())
        return original(self, images, phase=phase, epoch=epoch, view=view)

    monkeypatch.setattr(ImageInputs, "train", spy)
    return fed


def test_a_held_out_class_and_a_test_image_never_enter_training(
    birds: Path, cache_dir: Path, tmp_path: Path, spied: dict[str, set[int]]
):
    outcome = train(birds, cache_dir, tmp_path, "train.epochs=1")
    part = [row["part"] for row in rows(outcome.folder / "split.csv")]
    classes = [row["class"] for row in rows(outcome.folder / "split.csv")]
    unseen = set(sorted(set(classes))[-2:])
    training = {image for image, name in enumerate(part) if name == "train"}
    assert spied["all"] == training
    assert spied["limited"] == {image for image in training if classes[image] not in unseen}


def test_what_is_watched_during_phase_limited_never_touches_a_held_out_class(
    birds: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embedded: dict[str, set[int]] = {"all": set(), "limited": set()}
    original, validate = TrainingState.embed, loop.validate

    def spy(self: TrainingState, images: np.ndarray) -> np.ndarray:
        embedded[self.phase.name].update(self.dataset.labels[images].tolist())
        return original(self, images)

    def spied_validate(run: TrainingState) -> dict[str, object]:
        with monkeypatch.context() as patched:
            patched.setattr(TrainingState, "embed", spy)
            return validate(run)

    monkeypatch.setattr(loop, "validate", spied_validate)
    train(birds, cache_dir, tmp_path, "train.epochs=1")
    assert embedded == {"all": set(range(8)), "limited": set(range(6))}


def test_normalisation_by_training_statistics_differs_by_phase_and_ignores_the_rest(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    def means(root: Path, out: str) -> list[torch.Tensor]:
        folder = train(
            root, cache_dir, tmp_path / out, "train.epochs=1", "images.normalization=train"
        ).folder
        return [
            load_file(folder / phase / "weights.safetensors")["mean"]
            for phase in ("all", "limited")
        ]

    original = means(birds, "original")
    assert not torch.equal(*original)
    painted = tmp_path / "painted"
    shutil.copytree(birds, painted)
    from PIL import Image

    for path in sorted((painted / "images").glob("00[78]*/*.jpg")):
        Image.new("RGB", (40, 40), "white").save(path)
    repainted = means(painted, "painted")
    assert not torch.equal(original[0], repainted[0]), "phase all trains on these classes"
    assert torch.equal(original[1], repainted[1]), "phase limited must not see them"


def test_embedding_does_not_change_the_model_and_is_done_in_evaluation_mode(
    birds: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = TrainingState.embed

    def checked(self: TrainingState, images: np.ndarray) -> np.ndarray:
        before = {name: tensor.clone() for name, tensor in self.embedder.state_dict().items()}
        first, second = original(self, images), original(self, images)
        assert np.array_equal(first, second)
        assert not any(module.training for module in self.embedder.modules())
        assert all(
            torch.equal(before[name], tensor) for name, tensor in self.embedder.state_dict().items()
        )
        return first

    monkeypatch.setattr(TrainingState, "embed", checked)
    train(birds, cache_dir, tmp_path, "train.epochs=1")


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    outcome: Outcome,
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    trained: Callable[..., Outcome],
):
    assert bits(train(birds, cache_dir, tmp_path).folder) == bits(outcome.folder)
    assert (
        bits(trained("seed=43").folder)["all/weights.safetensors"]
        != bits(outcome.folder)["all/weights.safetensors"]
    )


def test_a_finished_run_is_read_and_not_repeated_until_forced(
    outcome: Outcome, birds: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    out = outcome.folder.parents[2]
    with monkeypatch.context() as patched:
        patched.setattr(loop, "fit", lambda *_: pytest.fail("trained again"))
        again = train(birds, cache_dir, out)
    assert again.already_finished
    assert again.summary == read_json(outcome.folder / "summary.json")
    before = bits(outcome.folder)
    forced = train(birds, cache_dir, out, force=True)
    assert not forced.already_finished
    assert bits(forced.folder) == before


def test_a_run_folder_of_another_configuration_is_refused(
    outcome: Outcome, birds: Path, cache_dir: Path
):
    with pytest.raises(
        ValueError,
        match=(
            r"another configuration \(differs in optimizer\.lr\); --force replaces it, --out DIR"
            r" keeps both"
        ),
    ):
        train(birds, cache_dir, outcome.folder.parents[2], "optimizer.lr=0.07")


def test_a_new_expectation_does_not_make_a_finished_run_another(
    outcome: Outcome, birds: Path, cache_dir: Path
):
    again = train(
        birds, cache_dir, outcome.folder.parents[2], "summary=said otherwise", "expects=[]"
    )
    assert again.already_finished


def test_a_run_is_not_continued_on_other_images(
    birds: Path, cache_dir: Path, tmp_path: Path, copy_of_trained: Callable[..., Path]
):
    folder = copy_of_trained()
    (folder / "summary.json").unlink()
    fewer = tmp_path / "CUB_200_2011"
    shutil.copytree(birds, fewer)
    first = min((fewer / "images").glob("*/*.jpg"))
    first.write_bytes(max((fewer / "images").glob("*/*.jpg")).read_bytes())
    with pytest.raises(ValueError, match="holds a run on other images or labels"):
        train(fewer, cache_dir, folder.parents[2])


@pytest.mark.parametrize("damaged", ["all/weights.safetensors", "predictions.csv"])
def test_a_result_whose_files_were_changed_is_not_taken_for_one(
    birds: Path, cache_dir: Path, damaged: str, copy_of_trained: Callable[..., Path]
):
    folder = copy_of_trained("train.epochs=1")
    path = folder / damaged
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match="missing or was changed after the run; --force redoes the run"
    ):
        train(birds, cache_dir, folder.parents[2], "train.epochs=1")


def test_a_second_process_on_the_same_run_folder_is_refused(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    process = start(birds, cache_dir, tmp_path, "--set", "train.epochs=500")
    try:
        wait_for(tmp_path, epochs=1, process=process)
        with pytest.raises(ValueError, match="another process is working in"):
            train(birds, cache_dir, tmp_path, "train.epochs=500")
    finally:
        process.kill()
        process.communicate()


def recorded(out: Path) -> int:
    """Epochs in the record so far."""
    return sum(len(path.read_text().splitlines()) for path in out.glob("*/*/seed-*/metrics.jsonl"))


def wait_for(out: Path, *, epochs: int, process: ForkedCommand) -> None:
    """Until that many epochs are recorded."""
    deadline = time.monotonic() + 120
    while recorded(out) < epochs:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no epoch {epochs}; the process said: {process.communicate()[1]}")
        time.sleep(0.005)


def test_killed_and_resumed_equals_never_stopped(birds: Path, cache_dir: Path, tmp_path: Path):
    chance, out, more = random.Random(0), tmp_path / "interrupted", ("--set", "train.epochs=12")
    for kill in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = start(birds, cache_dir, out, *more)
        wait_for(out, epochs=recorded(out) + chance.randint(1, 4), process=process)
        time.sleep(chance.random() * 0.05)
        process.send_signal(kill)
        _, said = process.communicate()
        if kill is signal.SIGINT:
            assert process.returncode == 130
            assert (
                said.strip()
                == "stopped; finished epochs are kept: the same command goes on from there"
            )
        assert 0 < recorded(out) < 24
    finished, _ = start(birds, cache_dir, out, *more).communicate()
    uninterrupted = train(birds, cache_dir, tmp_path / "uninterrupted", "train.epochs=12").folder
    folder = next(out.rglob("summary.json")).parent
    assert bits(folder) == bits(uninterrupted)
    assert len(json.loads((folder / "environment.json").read_text())["sessions"]) == 4
    assert "EPSHN_cosine_resnet18_sgd_aug on cub, seed 42" in finished


def test_a_crash_between_the_state_and_its_record_loses_no_record(
    birds: Path, cache_dir: Path, tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
):
    from dml_bench.runs.folder import RunFolder

    original = RunFolder.write_records
    calls = 0

    def failing(self: RunFolder, records: list[dict[str, object]]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        original(self, records)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_records", failing)
        with pytest.raises(KeyboardInterrupt):
            train(birds, cache_dir, tmp_path)
    folder = train(birds, cache_dir, tmp_path).folder
    epochs = [
        json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert epochs == [1, 2, 3, 1, 2, 3]
    assert bits(folder) == bits(outcome.folder)


def test_training_stops_at_the_first_loss_that_is_not_finite_and_names_it(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    with pytest.raises(
        NonFiniteLoss,
        match=r"the loss is nan in phase all, epoch 1, step \d: try a smaller optimizer.lr",
    ):
        train(birds, cache_dir, tmp_path, "optimizer.lr=1e38")
    assert not list(tmp_path.rglob("state.pt")), "a diverged state must not be kept"


def test_batches_without_a_valid_triplet_are_counted_and_not_fatal(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    folder = train(birds, cache_dir, tmp_path, "train.epochs=1", "train.batch_size=2").folder
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(
        record["batches_without_tuples"] == record["train_images"] // 2 for record in records
    ), "two images make no triplet"


def test_an_unreadable_image_stops_the_run_before_training_unless_it_may_be_skipped(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    broken = tmp_path / "CUB_200_2011"
    shutil.copytree(birds, broken)
    victim = sorted((broken / "images").glob("*/*.jpg"))[3]
    victim.write_bytes(victim.read_bytes()[:400])
    with pytest.raises(UnreadableImages, match=f"{victim.name}.*--skip-unreadable"):
        train(broken, cache_dir, tmp_path / "runs", "train.epochs=1")
    callback = Heard()
    folder = train(
        broken,
        cache_dir,
        tmp_path / "runs2",
        "train.epochs=1",
        "data.skip_unreadable=true",
        callback=callback,
    ).folder
    dataset = json.loads((folder / "summary.json").read_text())["dataset"]
    assert dataset["num_images"] == 63
    assert [Path(path).name for path in dataset["left_out"]] == [victim.name]
    assert any(victim.name in warning for warning in callback.warnings)


FROZEN = (
    "model.backbone=efficientnet_lite0",
    "model.weights=imagenet",
    "model.trainable=head",
    "augment.random_crop_from=0",
    "augment.horizontal_flip=0",
)


def test_p_at_1_is_the_same_by_the_library_s_calculator_and_by_a_plain_loop(outcome: Outcome):
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from sklearn.neighbors import KNeighborsClassifier

    for phase in ("all", "limited"):
        embedded = load_file(outcome.folder / phase / "embeddings.safetensors")
        neighbours = read_neighbours(outcome.folder / phase / "neighbours.safetensors")
        gallery, query = embedded["gallery"], embedded["query"]
        gallery_labels, query_labels = (
            torch.tensor(neighbours.gallery_labels),
            torch.tensor(neighbours.query_labels),
        )
        votes = outcome.summary["phases"][phase]["knn_vote_accuracy_distance_weighted"]
        calculator = AccuracyCalculator(
            include=("precision_at_1",), k=1, device=torch.device("cpu")
        )
        theirs = calculator.get_accuracy(
            query, query_labels, gallery, gallery_labels, ref_includes_query=False
        )["precision_at_1"]
        loops = np.mean(
            [
                gallery_labels[int(np.argmax(gallery.numpy() @ q))] == label
                for q, label in zip(query.numpy(), query_labels, strict=True)
            ]
        )
        ours = outcome.summary["phases"][phase]["precision_at_1_micro"]
        assert ours == pytest.approx(theirs)
        assert ours == pytest.approx(loops)
        for k in (1, 3, 5):
            classifier = KNeighborsClassifier(k, weights="distance", algorithm="brute").fit(
                gallery, gallery_labels
            )
            assert votes[str(k)] == pytest.approx(classifier.score(query, query_labels))


def test_a_frozen_pretrained_backbone_trains_its_head_on_features_computed_once(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    spied: dict[str, set[int]],
    monkeypatch: pytest.MonkeyPatch,
):
    computed = []
    original = frozen_features.compute_features
    monkeypatch.setattr(
        frozen_features, "compute_features", lambda *args: computed.append(args) or original(*args)
    )
    outcome = train(birds, cache_dir, tmp_path, *FROZEN, "images.size=64")
    assert len(computed) == 1, "both phases share the frozen features"
    assert spied == {}, "no image goes through the backbone during training"
    first, second = (
        load_file(outcome.folder / phase / "weights.safetensors") for phase in ("all", "limited")
    )
    backbone = [name for name in first if name.startswith("backbone.")]
    assert all(torch.equal(first[name], second[name]) for name in backbone)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    from dml_bench.models.embedder import build_embedder

    start = build_embedder(tiny(*FROZEN)).state_dict()
    assert all(torch.equal(start[name], first[name]) for name in backbone), (
        "statistics and weights are those of the package"
    )
    assert not torch.equal(start["head.weight"], first["head.weight"])
    state, pixels = computed[0]
    assert state.embedder.is_folded == (state.precision == "bfloat16_dense")
    frozen_features.frozen_features(state, pixels)
    assert len(computed) == 1
    if state.embedder.is_folded:
        state.embedder._folded = ()
        frozen_features.frozen_features(state, pixels)
        assert len(computed) == 2, "features of the plain layers have other bits"


def test_the_last_stage_is_trained_on_maps_of_the_rest_computed_once_and_used_with_it(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.store import open_gallery_file
    from dml_bench.models.embedder import build_embedder

    computed = []
    original = frozen_features.compute_features
    monkeypatch.setattr(
        frozen_features, "compute_features", lambda *args: computed.append(args) or original(*args)
    )
    settings = (
        "model.trainable=last:1",
        "augment.random_crop_from=0",
        "augment.horizontal_flip=0",
        "train.precision=float32",
    )
    outcome = train(birds, cache_dir, tmp_path, *settings)
    assert len(computed) == 1, "both phases share the maps"
    first, second = (
        load_file(outcome.folder / phase / "weights.safetensors") for phase in ("all", "limited")
    )
    start = build_embedder(tiny(*settings)).state_dict()
    learnt = {name for name in first if not torch.equal(first[name], start[name])}
    assert {".".join(name.split(".")[:2]) for name in learnt} >= {"backbone.layer4", "head.weight"}
    assert all(name.startswith(("backbone.layer4.", "head.")) for name in learnt)
    assert not torch.equal(
        first["backbone.layer4.0.conv1.weight"], second["backbone.layer4.0.conv1.weight"]
    )
    place = open_gallery_file(outcome.folder, "all", None)
    gallery = place.read()
    again = GalleryEmbedder(place.run, "all", "cpu").embed(
        [Path(entry.path) for entry in gallery.entries]
    )
    np.testing.assert_allclose(again.embeddings, gallery.embeddings, atol=1e-5)


def test_source_weights_are_trained_once_shared_and_transferred(birds: Path, tmp_path: Path):
    cache_dir = tmp_path / "cache"  # without the source weights of other tests
    pretrain = [
        f"pretrain.{key}={value}"
        for key, value in (("classes", 4), ("per_class", 6), ("epochs", 2), ("batch_size", 8))
    ]
    overrides = ("model.weights=source", *pretrain, "train.epochs=1", "optimizer.lr=0.0")
    outcome = train(birds, cache_dir, tmp_path / "first", *overrides)
    (path,) = (cache_dir / "pretrained").glob("source-*.safetensors")
    source, trained = load_file(path), load_file(outcome.folder / "all" / "weights.safetensors")
    parameters = [name for name in source if name.endswith("weight")]
    assert len(parameters) > 5
    assert all(torch.equal(source[name], trained[f"backbone.{name}"]) for name in parameters)
    before = path.stat().st_mtime_ns
    train(birds, cache_dir, tmp_path / "second", *overrides, "seed=43")
    assert path.stat().st_mtime_ns == before


def test_what_w_and_b_logged_offline_is_what_the_run_folder_holds(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    folder = train(birds, cache_dir, tmp_path, mirror=mirror_in_wandb("offline")).folder
    (mirrored,) = (folder / "wandb").glob("offline-run-*")
    assert mirrored.name.endswith(json.loads((folder / "environment.json").read_text())["wandb_id"])
    said = json.dumps(read_back(mirrored, tmp_path))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "test_accuracy", "train_loss2", "test_accuracy2"):
        assert name in said
        for record in records:
            assert name not in record or str(record[name])[:8] in said
    tables = {
        path.name.partition(".")[0].rpartition("_")[0].rpartition("_")[0]
        for path in (mirrored / "files" / "media" / "table").iterdir()
    }
    for name in (
        "all_classes_metrics",
        "limited_classes_classification_report",
        "comparison_unseen_classes_metrics",
    ):
        assert any(name in table for table in tables), tables
    assert "precision_drop_unseen_classes" in said
    for name in (
        "cost_of_being_unseen",
        "cost_of_being_unseen_low",
        "cost_of_being_unseen_compares",
    ):
        assert name in said
    unseen = json.loads((folder / "summary.json").read_text())["phases"]["limited"][
        "precision_at_1_macro_unseen"
    ]
    assert "limited_precision_at_1_macro_unseen" in said
    assert str(unseen)[:8] in said
    assert (
        "test_accuracy2: P@1 of phase limited on the test images of the classes that it trained on"
        in said
    )
    assert len(list((mirrored / "files" / "media" / "images").glob("training_batch*.png"))) == 1


def test_only_classes_that_lose_are_listed_as_those_that_lose_most(outcome: Outcome):
    worst = outcome.summary["largest_drops"]
    assert len(worst) <= 5
    assert all(row["drop"] > 0 for row in worst)
    assert [row["drop"] for row in worst] == sorted((row["drop"] for row in worst), reverse=True)
