"""`dml-bench explain`: from a run folder to panels and scores, for the images that were asked
for."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import train

from dml_bench.cli.app import main
from dml_bench.explain import panels
from dml_bench.explain.annotations import Annotations
from dml_bench.explain.images import (
    RunImages,
    mistaken_queries,
    own_photos,
    queries_of_class,
    spread_over_classes,
)
from dml_bench.explain.models import model_of_phase, random_model
from dml_bench.explain.page import neighbours_of
from dml_bench.explain.panels import MapPanels
from dml_bench.explain.session import ExplainRequest, ExplainResult, explain
from dml_bench.explain.tiles import tile_sheet
from dml_bench.registry import UnknownName
from dml_bench.runs.arrays import read_arrays
from dml_bench.runs.run import read_folder
from dml_bench.system.files import read_csv


@pytest.fixture(scope="module")
def run(trained) -> Path:
    return trained().folder


@pytest.fixture(scope="module")
def run_images(run: Path) -> RunImages:
    return RunImages(read_folder(run))


def explained(run: Path, out: Path, **request: object) -> ExplainResult:
    return explain(
        ExplainRequest(**{"run": run, "out": out, "scored": 0, "device": "cpu"} | request)
    )


def pixels_of(picture: Path) -> np.ndarray:
    """(height, width, 3)"""
    with Image.open(picture) as opened:
        return np.asarray(opened, float)


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What is written


@pytest.fixture(scope="module")
def written(run, tmp_path_factory) -> tuple[ExplainResult, Path]:
    """All panels and scores of a run, and where they are written."""
    out = tmp_path_factory.mktemp("explained") / "out"
    return explained(run, out, scored=12, command=("dml-bench", "explain")), out


def test_a_panel_for_each_image_and_scores_of_each_method_model_and_group_are_written(run, written):
    done, out = written
    assert len(done.panels) == 6
    assert all(pixels_of(panel).shape == (50 + 2 * 232, 6 + 7 * 174, 3) for panel in done.panels)
    rows = table(out)
    assert {row["method"] for row in rows} == {
        "cam",
        "gradcam",
        "vanilla",
        "guided",
        "guided_gradcam",
        "chance",
    }
    assert {row["score"] for row in rows} == {
        "pointing",
        "energy",
        "empty",
        "insertion",
        "deletion",
        "sanity",
    }, "`cub` has no telling parts"
    assert {row["model"] for row in rows} == {
        "all",
        "limited",
        "random",
        "all - limited",
        "all - random",
        "limited - random",
    }
    assert {row["classes"] for row in rows} == {"all", "seen", "unseen"}
    scores = {
        (row["score"], row["method"], row["model"]): row for row in rows if row["classes"] == "all"
    }
    assert scores["energy", "vanilla", "all"]["queries"] == "12"
    assert 0 < float(scores["energy", "vanilla", "all"]["mean"]) < 1
    for method in ("cam", "gradcam", "vanilla"):
        some_empty = float(scores["empty", method, "all"]["mean"]) > 0
        pointing = int(scores.get(("pointing", method, "all"), {"queries": "0"})["queries"])
        assert (pointing < 12) == some_empty, "a map that is nowhere positive points nowhere"
    assert float(scores["energy", "chance", "all - random"]["mean"]) == 0, (
        "noise looks the same at every network"
    )
    assert ("sanity", "chance", "all") not in scores and ("sanity", "cam", "random") not in scores
    record = json.loads((out / "explain.json").read_text())
    assert (record["layer"], record["target"], record["scored"]) == ("layer2", "class", 12)
    assert record["weights"]["all"] == read_folder(run).summary["files"]["all/weights.safetensors"]
    text = (out / "scores.md").read_text()
    assert text.startswith("# Where EPSHN_cosine_resnet18_sgd_aug looks\n")
    assert (
        "12 queries of cub" in text
        and "Grad-CAM weighs the maps of layer2" in text
        and "`dml-bench explain`" in text
    )


def test_the_page_joins_the_answers_of_both_phases_ten_neighbours_maps_and_scores_of_an_image(
    run, run_images, tmp_path
):
    (query,) = mistaken_queries(run_images, 1)
    done = explained(
        run, tmp_path / "out", images=(query.file,), methods=("gradcam", "vanilla"), scored=4
    )
    page = done.page.read_text(encoding="utf-8")
    (row,) = [row for row in read_csv(run / "predictions.csv") if row["query"] == query.path]
    titles = re.findall(r"<h4>(.*?)</h4>", page)
    for phase, title in zip(("all", "limited"), titles, strict=False):
        right = row[f"{phase}_correct"] == "True"
        assert ("right, it answers" if right else "wrong, it answers") in title
        assert f"similarity {float(row[f'{phase}_similarity']):.3f}" in title
    pictures = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    ranks = [text for text in pictures if re.match(r"\d+\. nearest", text)]
    assert len(ranks) == 2 * 10, "ten neighbours in each phase"
    assert len(pictures) == 2 * (10 + 4), "the image, two maps and the closest image in each phase"
    for score in ("insertion, all", "deletion, limited", "insertion, random"):
        assert f">{score}</th>" in page
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []


def test_a_photo_that_was_no_query_has_its_nearest_images_and_is_not_its_own_neighbour(
    run, run_images, tmp_path
):
    trained_on = run_images.image(int(run_images.gallery("all")[3]))
    model = model_of_phase(run_images, "all", "cpu", "")
    nearest = neighbours_of(run_images, model, trained_on)
    assert len(nearest.neighbours) == 10
    assert trained_on.index not in {image.index for image in nearest.neighbours}
    shutil.copy(trained_on.file, tmp_path / "mine.jpg")
    (mine,) = own_photos(run_images, [tmp_path / "mine.jpg"])
    assert neighbours_of(run_images, model, mine).neighbours[0].index == trained_on.index


def test_the_same_request_writes_the_same_panels_and_numbers_and_the_run_stays_as_it_was_sealed(
    run, written, tmp_path
):
    first, out = written
    sealed = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    second = explained(run, tmp_path / "again", scored=12, command=("dml-bench", "explain"))
    assert [panel.read_bytes() for panel in first.panels] == [
        panel.read_bytes() for panel in second.panels
    ]
    assert (out / "scores.csv").read_bytes() == (tmp_path / "again" / "scores.csv").read_bytes()
    assert first.rows == second.rows or str(first.rows) == str(second.rows)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == sealed


def test_a_folder_is_written_again_but_never_over_something_else(run, tmp_path):
    explained(run, tmp_path / "out", methods=("vanilla",))
    explained(run, tmp_path / "out", methods=("vanilla",))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        ValueError, match=r"mine holds something else: name a new folder with --out$"
    ):
        explained(run, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_that_is_written_again_has_no_panel_of_the_images_before(
    run, run_images, tmp_path
):
    explained(run, tmp_path / "out", mistakes=3, methods=("vanilla",))
    (tmp_path / "out" / "panels" / "mine.png").write_bytes(b"")
    query = run_images.image(int(run_images.queries[0])).file
    (panel,) = explained(run, tmp_path / "out", images=(query,), methods=("vanilla",)).panels
    assert set((tmp_path / "out" / "panels").iterdir()) == {panel, panel.with_name("mine.png")}


@pytest.mark.parametrize(
    ("target", "title"),
    [
        ("class", "mine.jpg, class not known: evidence for the predicted class, against others"),
        ("nearest", "mine.jpg, class not known: similarity to the closest image"),
    ],
)
def test_a_panel_says_which_file_it_is_about_and_of_a_photo_that_its_class_is_not_known(
    run, run_images, tmp_path, monkeypatch, target, title
):
    """It said "A photo: evidence for its class", of any photo."""
    titles = []

    def noted(text, *arguments):
        titles.append(text)
        return tile_sheet(text, *arguments)

    monkeypatch.setattr(panels, "tile_sheet", noted)
    query = run_images.image(int(run_images.queries[0]))
    shutil.copy(query.file, tmp_path / "mine.jpg")
    chosen = (tmp_path / "mine.jpg", query.file)
    made = explained(run, tmp_path / "out", images=chosen, target=target, methods=("vanilla",))
    assert titles[0] == title
    name = run_images.class_names[query.label]
    assert titles[1].startswith(f"{query.file.name}, {name}: ")
    page = made.page.read_text(encoding="utf-8")
    assert title.partition(": ")[2] in page.split("image-1")[1].split("image-2")[0]


# Which images


def test_the_images_of_a_class_are_its_queries(run, run_images):
    name = run_images.run.class_names[3]
    images = queries_of_class(run_images, name)
    assert [image.label for image in images] == [3] * len(images)
    assert {image.index for image in images} == {
        image for image in run_images.queries if run_images.labels[image] == 3
    }
    assert queries_of_class(run_images, name.partition(".")[2]) == images
    with pytest.raises(
        UnknownName,
        match=rf"^the run has no class '{name}s' \(did you mean {name}\?\); it has 8 classes$",
    ):
        queries_of_class(run_images, f"{name}s")


def test_mistakes_are_wrong_and_those_that_only_the_phase_without_the_class_makes_come_first(
    run_images,
):
    by_phase = run_images.run.neighbours
    right = {
        phase: neighbours.labels[:, 0] == neighbours.query_labels
        for phase, neighbours in by_phase.items()
    }
    rows = {int(image): row for row, image in enumerate(run_images.queries)}
    chosen = [rows[image.index] for image in mistaken_queries(run_images, 99)]
    assert len(chosen) == int((~(right["all"] & right["limited"])).sum()) > 3
    lost = [bool(right["all"][row]) for row in chosen]
    assert lost == sorted(lost, reverse=True)
    wrong = [row for row in chosen if not right["all"][row]]

    def certainty(row: int) -> float:
        mistaken = [phase for phase in by_phase if not right[phase][row]]
        return max(float(by_phase[phase].similarities[row, 0]) for phase in mistaken)

    sure = [certainty(row) for row in wrong]
    assert sure == sorted(sure, reverse=True)
    assert [rows[image.index] for image in mistaken_queries(run_images, 2)] == chosen[:2]


def test_queries_are_spread_over_the_classes(run_images):
    assert [image.label for image in spread_over_classes(run_images, 8)] == list(range(8))
    assert [image.label for image in spread_over_classes(run_images, 10)] == [*range(8), 0, 1]
    assert [image.label for image in spread_over_classes(run_images, 3)] == [0, 4, 7]
    assert len({image.index for image in spread_over_classes(run_images, 10)}) == 10
    assert len(spread_over_classes(run_images, 10_000)) == len(run_images.queries)


def test_a_photo_of_the_run_is_known_by_its_path_and_another_is_explained_by_its_predicted_class(
    run, run_images, tmp_path
):
    inside = run_images.image(int(run_images.queries[0]))
    shutil.copy(inside.file, tmp_path / "mine.jpg")
    assert own_photos(run_images, [inside.file, Path(inside.path)]) == [inside, inside]
    (mine,) = own_photos(run_images, [tmp_path / "mine.jpg"])
    assert (mine.label, mine.index) == (-1, -1)
    done = explained(
        run, tmp_path / "out", images=(tmp_path / "mine.jpg", inside.file), methods=("gradcam",)
    )
    assert [panel.name for panel in done.panels] == ["001-mine.png", f"002-{inside.file.stem}.png"]
    with pytest.raises(ValueError, match=r"gone\.jpg is not a file: give the path of an image"):
        own_photos(run_images, [tmp_path / "gone.jpg"])


# What is asked


def test_an_image_is_asked_about_its_class_against_the_closest_of_others_and_never_about_itself(
    run_images,
):
    model = model_of_phase(run_images, "all", "cpu", "")
    image = int(model.gallery_images[5])
    image = run_images.image(image)
    embedding = model.gallery[5]
    target = model.target_of(image, embedding, "class")
    assert 5 not in target.toward and target.nearest != 5
    assert {int(model.labels[row]) for row in target.toward} == {image.label}
    assert image.label not in {int(model.labels[row]) for row in target.away}
    expected = model.gallery[target.toward].mean(axis=0) - model.gallery[target.away].mean(axis=0)
    assert np.allclose(target.direction.numpy(), expected, atol=1e-6)
    others = np.setdiff1d(np.flatnonzero(model.labels != image.label), target.away)
    similarity = model.gallery @ embedding
    assert similarity[target.away].min() >= similarity[others].max()
    nearest = model.target_of(image, embedding, "nearest")
    assert np.array_equal(nearest.direction.numpy(), model.gallery[nearest.nearest])
    predicted = model.target_of(image, embedding, "predicted")
    assert {int(model.labels[row]) for row in predicted.toward} == {
        int(model.labels[predicted.nearest])
    }
    other = model.target_of(image, embedding, "class", other=model.gallery[7])
    assert np.array_equal(other.direction.numpy(), model.gallery[7])


def test_the_embeddings_of_a_phase_are_those_that_the_run_keeps(run_images, run):
    model = model_of_phase(run_images, "limited", "cpu", "")
    kept = read_arrays(run / "limited" / "embeddings.safetensors")
    pixels = np.stack(
        [run_images.pixels(run_images.image(int(image))) for image in kept["query_images"]]
    )
    assert ((model.embed(pixels) * kept["query"]).sum(axis=1) > 0.99).all(), (
        "up to the precision that the run embedded in"
    )


@pytest.fixture(scope="module")
def in_bfloat16(trained) -> RunImages:
    return RunImages(read_folder(trained("train.precision=bfloat16").folder))


@pytest.mark.parametrize("phase", ["all", "limited"])
def test_a_run_in_bfloat16_is_explained_with_the_answers_that_it_gave(in_bfloat16, phase):
    model, run_images = model_of_phase(in_bfloat16, phase, "cpu", ""), in_bfloat16
    kept = read_arrays(run_images.run.folder / phase / "embeddings.safetensors")
    images = [run_images.image(int(image)) for image in run_images.queries]
    embeddings = model.embed(np.stack([run_images.pixels(image) for image in images]))
    pixels = torch.from_numpy(np.stack([run_images.pixels(image) for image in images]))
    with torch.no_grad():
        in_float32 = model.network.embedder(pixels)
    in_float32 = torch.nn.functional.normalize(in_float32, dim=1).numpy()
    assert np.abs(embeddings - kept["query"]).max() < np.abs(in_float32 - kept["query"]).max() / 2
    predictions = read_csv(run_images.run.folder / "predictions.csv")
    for image, embedding, row in zip(images, embeddings, predictions, strict=True):
        target = model.target_of(image, embedding, "class")
        assert (
            run_images.run.class_names[int(model.labels[target.nearest])]
            == row[f"{phase}_predicted"]
        )
        assert target.similarity == pytest.approx(float(row[f"{phase}_similarity"]), abs=1e-6)


def test_a_panel_that_would_say_something_else_than_the_run_wrote_down_is_refused(in_bfloat16):
    model = model_of_phase(in_bfloat16, "all", "cpu", "")
    model.labels = (model.labels + 1) % len(in_bfloat16.run.class_names)
    drawing = MapPanels(
        run_images=in_bfloat16,
        models=[model],
        names=["gradcam"],
        annotations=Annotations(),
        target="nearest",
        other=None,
    )
    with pytest.raises(
        ValueError, match=r"is .* here, and .* in .*predictions.csv: run it again with --force"
    ):
        drawing.panels([in_bfloat16.image(int(in_bfloat16.queries[0]))])


def test_the_network_with_random_weights_is_asked_alike_by_what_it_makes_of_the_same_images(
    run_images,
):
    model = model_of_phase(run_images, "all", "cpu", "")
    random = random_model(model)
    assert not torch.equal(random.network.embedder.head.weight, model.network.embedder.head.weight)
    image = run_images.image(int(run_images.queries[0]))
    target = model.target_of(image, model.embed(run_images.pixels(image)[None])[0], "class")
    (alike,) = random.same_targets([target], run_images)

    def mean_embedding(rows: np.ndarray) -> np.ndarray:
        images = [run_images.image(int(model.gallery_images[row])) for row in rows]
        return random.embed(np.stack([run_images.pixels(image) for image in images])).mean(axis=0)

    expected = mean_embedding(target.toward) - mean_embedding(target.away)
    assert np.allclose(alike.direction.numpy(), expected, atol=1e-5)


def test_another_image_gets_a_map_of_its_own(run, run_images, tmp_path):
    first, second = (run_images.image(int(image)) for image in run_images.queries[:2])
    plain = explained(run, tmp_path / "plain", images=(first.file,), methods=("gradcam",))
    pair = explained(
        run, tmp_path / "pair", images=(first.file,), other=second.file, methods=("gradcam",)
    )
    shown, unexplained = (
        pixels_of(done.panels[0])[66:234, 6 + 2 * 174 : 6 + 2 * 174 + 168] for done in (pair, plain)
    )
    assert not np.array_equal(shown, unexplained)
    assert np.abs(shown - shown.mean(axis=2, keepdims=True)).max() > 20, "coloured by heat"


def test_a_classifier_is_asked_about_its_logit_and_the_phase_that_does_not_know_the_class_has_none(
    birds, cache_dir, tmp_path
):
    overrides = ["loss=crossentropy", "miner=none", "model.head={name='cam', dim=32}"]
    overrides.append("train.epochs=1")
    overrides.append("train.precision=float32")  # else map and logit are rounded apart
    folder = train(birds, cache_dir, tmp_path / "runs", *overrides).folder
    run_images = RunImages(read_folder(folder))
    everything, limited = (
        model_of_phase(run_images, phase, "cpu", "") for phase in ("all", "limited")
    )
    unseen = int(run_images.run.unseen[0])
    assert everything.class_weight(unseen).abs().sum() > 0
    assert limited.class_weight(unseen).abs().sum() == 0
    image = next(image for image in spread_over_classes(run_images, 16) if image.label == 1)
    pixels = run_images.pixels(image)[None]
    target = everything.target_of(image, everything.embed(pixels)[0], "logit")
    with torch.no_grad():
        outputs = everything.network.embedder(torch.from_numpy(pixels))
    maps = everything.maps(["cam"], pixels, [target])["cam"]
    assert maps.mean() == pytest.approx(float(outputs[0] @ everything.class_weight(1)), rel=1e-3), (
        "one position: the map is the logit"
    )
    done = explained(folder, tmp_path / "out", target="logit", scored=4)
    assert {row.model for row in done.rows} >= {"all", "limited", "random"}


def test_a_transformer_is_explained_by_its_attention(birds, cache_dir, tmp_path):
    settings = ("model.backbone=timm:test_vit", "train.epochs=1")
    folder = train(birds, cache_dir, tmp_path / "runs", *settings).folder
    explained(folder, tmp_path / "out", scored=2)
    assert {row["method"] for row in table(tmp_path / "out")} == {
        "attention",
        "rollout",
        "vanilla",
        "chance",
    }
    with pytest.raises(
        ValueError,
        match=(
            r"^method gradcam needs stages that make maps, which timm:test_vit does not have; it"
            r" allows: attention, "
        ),
    ):
        explained(folder, tmp_path / "out", methods=("gradcam",))


def test_images_that_were_cut_to_their_boxes_are_explained_as_the_run_saw_them_without_a_box(
    trained, tmp_path
):
    folder = trained("train.epochs=1", "data.dataset.crop_to_box=true").folder
    run_images = RunImages(read_folder(folder))
    kept = read_arrays(folder / "all" / "embeddings.safetensors")
    pixels = np.stack(
        [run_images.pixels(run_images.image(int(image))) for image in kept["query_images"]]
    )
    assert (
        (model_of_phase(run_images, "all", "cpu", "").embed(pixels) * kept["query"]).sum(axis=1)
        > 0.99
    ).all()
    done = explained(folder, tmp_path / "out", scored=8, methods=("vanilla",))
    assert {line.score for line in done.rows} == {"empty", "insertion", "deletion", "sanity"}


def test_an_ensemble_of_folds_is_refused(trained, tmp_path):
    folder = trained("train.epochs=1", "train.folds=2").folder
    with pytest.raises(
        ValueError,
        match=(
            r"seed-42 has an ensemble of several networks in each phase, and a map explains one:"
            r" explain"
            r" a run without "
        ),
    ):
        explained(folder, tmp_path / "out")


def test_a_run_of_the_class_disjoint_protocol_is_explained_by_its_one_phase(
    birds, cache_dir, tmp_path
):
    folder = train(
        birds,
        cache_dir,
        tmp_path / "runs",
        "protocol=class_disjoint",
        "data.split=half",
        "unseen=last:20",
        "train.epochs=1",
    ).folder
    done = explained(folder, tmp_path / "out", scored=8, methods=("gradcam",))
    assert {line.model for line in done.rows} == {"disjoint", "random", "disjoint - random"}


def test_with_rotated_hold_outs_unseen_classes_are_those_of_the_model(birds, cache_dir, tmp_path):
    """Of each model they were the classes that any of the models held out."""
    folder = train(
        birds, cache_dir, tmp_path / "runs", "unseen=random:2:0 x 2", "train.epochs=1"
    ).folder
    done = explained(folder, tmp_path / "out", scored=16, methods=("gradcam",))
    held_out = read_folder(folder).held_out
    either = set(np.concatenate(list(held_out.values())).tolist())
    images = spread_over_classes(RunImages(read_folder(folder)), 16)
    labels = [image.label for image in images]
    queries = {}
    for row in done.rows:
        if (row.score, row.method) == ("empty", "gradcam"):
            queries[row.model, row.classes] = row.queries
    for phase, classes in [*held_out.items(), ("all", either), ("random", either)]:
        of_unseen = int(np.isin(labels, list(classes)).sum())
        assert 0 < of_unseen < len(labels)
        assert queries[phase, "unseen"] == of_unseen
        assert queries[phase, "seen"] == len(labels) - of_unseen
    for phase, classes in held_out.items():
        for pair in (f"all - {phase}", f"{phase} - random"):
            assert queries[pair, "unseen"] == np.isin(labels, classes).sum()
    assert queries["all - random", "unseen"] == queries["all", "unseen"]


# Refusals and the command line


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"class_name": "x", "mistakes": 3},
            "--class and --mistakes choose images in different ways: give one of them",
        ),
        (
            {"methods": ("gradcan",)},
            r"unknown method 'gradcan' \(did you mean gradcam\?\); there are: attention, cam, ",
        ),
        (
            {"methods": ("rollout",)},
            (
                "method rollout needs attention among patches, which timm:test_resnet does not"
                " have; it allows: cam, "
            ),
        ),
        (
            {"target": "logits"},
            "target must be one of class, predicted, nearest, logit, got 'logits': leave it out",
        ),
        (
            {"target": "logit"},
            ("the loss must be crossentropy for --target logit, got NTXent: leave --target out"),
        ),
        ({"layer": "layer9"}, r"timm:test_resnet has no layer 'layer9' \(did you mean layer"),
    ],
)
def test_a_request_that_can_not_be_met_is_one_line_and_nothing_is_written(
    run, tmp_path, request_, message
):
    with pytest.raises(ValueError, match=message):
        explained(run, tmp_path / "out", **request_)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(run, tmp_path, monkeypatch, capsys):
    command = [
        "dml-bench",
        "explain",
        str(run),
        "--mistakes",
        "2",
        "--method",
        "vanilla",
        "--scored",
        "4",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'index.html'}: 2 images" in text
    assert f"scores in {tmp_path / 'out' / 'scores.md'}" in text
    assert {row["method"] for row in table(tmp_path / "out")} == {"vanilla", "chance"}
