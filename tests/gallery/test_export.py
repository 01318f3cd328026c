"""An exported run: it works without this package, agrees with the run, and says what it is."""

import csv
import json
import math
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import faiss
import image_forms
import numpy as np
import pytest
import torch
from forked import ForkedProgram
from huggingface_hub import ModelCard
from PIL import Image
from tiny import tiny, train

import dml_bench
from dml_bench.cli.app import main
from dml_bench.config.loader import load
from dml_bench.data.publications import NO_LICENCE
from dml_bench.evaluation.thresholds import SearchOutcomes
from dml_bench.gallery.calibration import CalibrationSet
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.enrol import GalleryChanges, change_gallery, photos_by_class
from dml_bench.gallery.export import Int8Loss, export, int8_loss
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.model_card import describe_thresholds, threshold_table
from dml_bench.gallery.network_formats import open_onnx, save
from dml_bench.gallery.store import Gallery, GalleryFile, open_gallery_file
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.arrays import read_arrays, read_neighbours
from dml_bench.runs.metrics import measure, metrics_of
from dml_bench.training.training_state import unit

FILES = [
    "README.md",
    "embedder.pt2",
    "export.json",
    "gallery.csv",
    "gallery.faiss",
    "preprocess.py",
    "preprocessing.json",
]
ALONE = """
import sys
sys.modules["dml_bench"] = None  # from here on its import fails
sys.argv = ["card", *sys.argv[1:]]
card = open("README.md", encoding="utf-8").read()
exec(card.split("```python\\n")[1].split("```")[0])
"""


@pytest.fixture(scope="module")
def folder(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture(scope="module")
def place(folder) -> GalleryFile:
    return open_gallery_file(folder, "limited", None)


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "bird_finder"
    export(place.run, place.phase, place.read(), out)
    return out


@pytest.fixture(scope="module")
def exported_onnx(place, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "bird_finder"
    heard: list[tuple[str, int, int]] = []
    read = place.read()
    export(
        place.run,
        place.phase,
        read,
        out,
        to="onnx",
        int8=True,
        progress=lambda *at: heard.append(at),
    )
    count = len(place.run.embeddings(place.phase).query_images)
    measured = [(done, total) for message, done, total in heard if "8 bits" in message]
    assert measured == [(done, count) for done in range(count + 1)]
    return out


def alone(folder: Path, *images: str, without: tuple[str, ...] = ()) -> list[list[str]]:
    """What the card's own Python prints of images, in a process that can't import this package."""

    def program() -> None:
        sys.modules.update(dict.fromkeys(without))
        for name in [name for name in sys.modules if name.partition(".")[0] == "dml_bench"]:
            del sys.modules[name]
        sys.path.insert(0, "")
        sys.argv = ["-c", *images]
        exec(ALONE, {"__name__": "__main__"})

    running = ForkedProgram(program, folder=folder)
    printed, warnings = running.communicate()
    # no warning either, which people would copy
    assert (running.returncode, warnings) == (0, "")
    return [line.split("\t") for line in printed.splitlines()]


def alone_in_a_new_process(folder: Path, *images: str) -> list[list[str]]:
    """The same where not even PyTorch is imported yet."""
    command = [sys.executable, "-c", ALONE, *images]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    warnings = finished.stderr.splitlines()
    if find_spec("triton") is None:  # after `make install-cpu` PyTorch itself says so
        warnings = [line for line in warnings if "triton not found" not in line]
    assert (finished.returncode, warnings) == (0, [])
    return [line.split("\t") for line in finished.stdout.splitlines()]


def test_the_network_gives_the_embeddings_of_the_run_from_pixels(place, exported):
    gallery = place.read()
    network = GalleryEmbedder(place.run, place.phase, "cpu")
    embedder = torch.export.load(str(exported / "embedder.pt2")).module()
    for entry, stored in zip(gallery.entries[:5], gallery.embeddings, strict=False):
        pixels = torch.from_numpy(np.array(network.view.apply(Image.open(entry.path)))[None])
        np.testing.assert_allclose(embedder(pixels).detach().numpy()[0], stored, atol=1e-5)


def test_how_far_they_are_apart_is_written_down(exported):
    agreement = json.loads((exported / "export.json").read_text())["agreement"]
    assert agreement["images"] == 32
    assert agreement["gallery_precision"] == "float32"
    assert 0 <= agreement["network_max_difference"] < 1e-5
    assert 0 <= agreement["gallery_max_difference"] < 1e-5
    assert agreement["gallery_min_cosine"] == pytest.approx(1, abs=1e-5)


def test_the_index_finds_what_the_run_found_and_the_table_names_it(place, exported):
    gallery = place.read()
    stored = read_neighbours(place.run.folder / "limited" / "neighbours.safetensors")
    index = faiss.read_index(str(exported / "gallery.faiss"))
    rows = list(csv.DictReader((exported / "gallery.csv").read_text(encoding="utf-8").splitlines()))
    root = Path(place.run.summary["dataset"]["root"])
    assert [str(root / row["path"]) for row in rows] == [entry.path for entry in gallery.entries]
    assert [row["class"] for row in rows] == [entry.class_name for entry in gallery.entries]
    _, nearest = index.search(
        read_arrays(place.run.folder / "limited" / "embeddings.safetensors")["query"], 1
    )
    assert nearest[:, 0].tolist() == stored.indices[:, 0].tolist()


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_the_python_in_the_card_finds_photos_without_this_package(
    folder, birds, cache_dir, tmp_path, fit
):
    squash = ("train.precision=float32", "images.fit=squash", "augment.random_crop_from=0")
    run = folder if fit == "crop" else train(birds, cache_dir, tmp_path, *squash).folder
    place = open_gallery_file(run, "all", tmp_path / "gallery")
    (tmp_path / "new" / "Long").mkdir(parents=True)
    bird = Image.open(next(birds.rglob("*.jpg")))
    for name, size in (("wide", (97, 50)), ("tall", (41, 90))):
        bird.resize(size).save(tmp_path / "new" / "Long" / f"{name}.jpg", exif=orientation(6))
    photos = photos_by_class(tmp_path / "new")
    gallery = change_gallery(
        place, GalleryChanges(photos=photos), lambda: GalleryEmbedder(place.run, "all", "cpu")
    ).gallery
    export(place.run, "all", gallery, tmp_path / "exported")
    paths = [str(path) for path, _ in photos]
    answers = alone(tmp_path / "exported", *paths)
    assert [(path, name, nearest) for path, name, _, nearest in answers] == [
        (paths[0], "Long", "Long/tall.jpg"),
        (paths[1], "Long", "Long/wide.jpg"),
    ]
    assert [float(similarity) for _, _, similarity, _ in answers] == pytest.approx([1, 1], abs=2e-4)


@pytest.mark.parametrize(
    "python", [alone, pytest.param(alone_in_a_new_process, marks=pytest.mark.slow)]
)
def test_the_card_s_python_answers_as_predict_does_in_all_43_forms_of_an_image(
    place, exported, birds, tmp_path, python
):
    picture = Image.open(sorted(birds.rglob("*.jpg"))[9]).resize((57, 41))
    paths = image_forms.written(tmp_path, picture)
    assert len(paths) == 43
    gallery, network = place.read(), GalleryEmbedder(place.run, place.phase, "cpu")
    embedded = network.embed(paths)
    assert embedded.unreadable == ()
    similarities = embedded.embeddings @ gallery.embeddings.T
    answers = python(exported, *map(str, paths))
    for (path, name, similarity, _), row in zip(answers, similarities, strict=True):
        assert name == gallery.entries[int(row.argmax())].class_name, path
        assert float(similarity) == pytest.approx(row.max(), abs=1e-3), path
    assert len({similarity for _, _, similarity, _ in answers}) > 15  # the forms do differ


def test_an_export_names_no_folder_of_the_machine_that_made_it(exported, birds, folder):
    graph = zipfile.ZipFile(exported / "embedder.pt2")
    contents = {name: graph.read(name) for name in graph.namelist()} | {
        name: (exported / name).read_bytes() for name in FILES
    }
    for name, content in contents.items():
        for place in (birds, folder, Path(dml_bench.__file__).parent, Path(torch.__file__).parent):
            assert str(place).encode() not in content, name


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.batch_norm=frozen",),
        ("model.pooling=GeM",),
        ("model.head=identity",),
        ("model.backbone=resnet18",),
        ("model.backbone=timm:test_vit", "images.size=160", "augment.random_crop_from=160"),
    ],
)
def test_networks_of_all_kinds_are_saved_for_batches_of_any_size(overrides, tmp_path):
    experiment = tiny(*overrides)
    embedder = build_embedder(experiment).eval()
    size = experiment.images.size
    pixels = torch.randint(
        0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    save(embedder, size, tmp_path / "embedder.pt2")
    network = torch.export.load(str(tmp_path / "embedder.pt2")).module()
    with torch.no_grad():
        for batch in (pixels, pixels[:1]):
            torch.testing.assert_close(network(batch), embedder.embed(batch), atol=1e-5, rtol=0)


def test_the_card_has_the_numbers_of_the_run_with_intervals(place, exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    summary = place.run.summary
    row = next(
        line
        for line in card.splitlines()
        if line.startswith("| precision drop of the unseen classes")
    )
    assert f"| {summary['precision_drop_unseen_classes']:.3f} |" in row
    assert f"| {summary['phases']['all']['precision_at_1_macro']:.3f} | " in card
    for word in (
        "## Data",
        "## Intended use",
        "## Limits",
        "phase limited",
        "trained without 2 of the classes",
        *summary["unseen_classes"],
    ):
        assert word in card
    assert "has been changed since" not in card


def test_a_card_s_thresholds_keep_a_precision_or_say_what_is_missing():
    calibration = CalibrationSet(
        source="validation",
        known=SearchOutcomes(np.linspace(1, 0.5, 30), np.ones(30, bool)),
        unknown=SearchOutcomes(
            np.linspace(0.4, 0.1, 40), np.zeros(40, bool), np.repeat(np.arange(20), 2)
        ),
        queries=SearchOutcomes(
            np.array([0.85, 0.82, 0.75, 0.1]), np.array([True, False, False, True])
        ),
        num_carved=300,
        held_out_phase="limited",
    )
    text = describe_thresholds(calibration)
    assert "were chosen on 30 validation images of the run, none trained on" in text
    assert "stood for by 40 images of 20 classes that were never trained on" in text
    assert "The last columns show 4 test images, on which nothing was chosen." in text
    rows = threshold_table(calibration).splitlines()
    assert rows[2] == "| 80% | 0% | 0.5000 | 90.5% | 100% | 75% | 33% |"
    assert rows[4] == "| 95% | 0% | can't be promised: about 59 images are needed |  |  |  |  |"
    assert rows[6] == "| 80% | 20% | 0.4000 | 89.1% | 80% | 75% | 33% |"


def test_a_card_says_that_the_gallery_was_changed(place, tmp_path):
    gallery = place.read()
    export(place.run, place.phase, gallery.removed(gallery.class_names[0]), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "It has been changed since: 0 images were enrolled, and 45 are the run's." in card


def test_the_command_makes_the_folder_and_tells_how_far_the_networks_are_apart(
    folder, tmp_path, monkeypatch, capsys
):
    # PyTorch has deprecated TorchScript: what is written is what replaced it.
    out = str(tmp_path / "out")
    typed = ["dml-bench", "export", str(folder), "--to", "torchscript", "--out", out]
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (
        "on 32 images of the gallery, embedder.pt2 differs from the run's network by at most"
        in capsys.readouterr().out
    )
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.slow
def test_a_folder_for_the_hub_embeds_as_the_run_does_in_a_new_process(place, birds, tmp_path):
    """By the Python of its own card, without this package."""
    out = tmp_path / "model"
    gallery = place.read()
    export(place.run, place.phase, gallery, out, to="hf")
    files = {path.name for path in out.iterdir()}
    assert files == {*FILES, "model.safetensors", "graph.pt2", "config.json"} - {"embedder.pt2"}
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code += '\nnp.save("embeddings.npy", embeddings)\n'
    (out / "README.md").write_text(f"```python\n{code}```")
    entries = gallery.entries[::20]
    [*answers] = alone_in_a_new_process(out, *(entry.path for entry in entries))
    assert [answer[1] for answer in answers] == [entry.class_name for entry in entries]
    embeddings = np.load(out / "embeddings.npy")
    np.testing.assert_allclose(embeddings, gallery.embeddings[::20], atol=1e-5)
    assert (out / "graph.pt2").stat().st_size < 0.5 * (out / "model.safetensors").stat().st_size
    for name in files:
        assert str(birds).encode() not in (out / name).read_bytes(), name


def test_the_head_of_a_hub_card_has_the_results_of_the_run(place, tmp_path):
    out = tmp_path / "model"
    exported = dml_bench.Gallery(place.run.folder, phase="limited").export(out, to="hf")
    assert "model.safetensors differs from the run's network by at most" in exported.describe()
    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.pipeline_tag) == ("other", "image-feature-extraction")
    assert "metric-learning" in card.data.tags
    assert "## Limits" in card.text
    assert f"Images: {NO_LICENCE}. First weights" in card.text
    measured = {result.metric_type: result for result in card.data.eval_results}
    assert measured.keys() == metrics_of(place.run.experiment).keys()
    for name, result in measured.items():
        value = measure([place.run], name)
        assert result.metric_value == pytest.approx(value.estimate, abs=1e-4)
        assert ("interval_95" in result.metric_args) == (not math.isnan(value.low))
        if "interval_95" in result.metric_args:
            bounds = result.metric_args["interval_95"]
            assert bounds == pytest.approx([value.low, value.high], abs=1e-4)
    config = json.loads((out / "config.json").read_text())
    assert list(config["id2label"].values()) == list(place.read().class_names)
    assert load(config["experiment"]) == place.run.experiment


def test_a_format_that_there_is_not_is_refused_with_those_there_are(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no export to 'onxx' \(did you mean onnx\?\): choose"):
        dml_bench.Gallery(folder).export(tmp_path / "out", to="onxx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(place, tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        export(place.run, place.phase, place.read(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_images_to_check_the_network_with_nothing_is_made(place, tmp_path):
    gallery = place.read()
    gone = Gallery(
        tuple(replace(entry, path=f"/gone/{entry.path}") for entry in gallery.entries),
        gallery.embeddings,
    )
    with pytest.raises(ValueError, match="none of the gallery's images can be read"):
        export(place.run, place.phase, gone, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_not_those_of_the_gallery_are_noticed_and_nothing_is_made(place, tmp_path):
    gallery = place.read()
    rows = np.roll(np.arange(len(gallery.entries)), 9)
    with pytest.raises(ValueError, match="does not agree with the gallery"):
        export(
            place.run,
            place.phase,
            Gallery(gallery.entries, gallery.embeddings[rows]),
            tmp_path / "out",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_in_onnx_it_embeds_all_43_forms_of_an_image_as_the_run_does(
    place, exported_onnx, birds, tmp_path
):
    picture = Image.open(sorted(birds.rglob("*.jpg"))[9]).resize((57, 41))
    paths = image_forms.written(tmp_path, picture)
    assert len(paths) == 43
    embedded = GalleryEmbedder(place.run, place.phase, "cpu").embed(paths)
    preprocess = runpy.run_path(str(exported_onnx / "preprocess.py"))
    pixels = np.stack([preprocess["pixels"](str(path)) for path in paths])
    vectors = open_onnx(exported_onnx / "embedder.onnx")(pixels)
    np.testing.assert_allclose(vectors, embedded.embeddings, atol=1e-3)
    assert len(np.unique(vectors.round(4), axis=0)) > 15  # the forms do differ


@pytest.mark.slow
def test_the_card_of_an_onnx_export_needs_neither_this_package_nor_pytorch(
    place, exported_onnx, birds
):
    gallery = place.read()
    entry = gallery.entries[7]
    [answer] = alone(exported_onnx, entry.path, without=("torch", "torchvision"))
    assert answer[1] == entry.class_name
    assert float(answer[2]) == pytest.approx(1, abs=1e-3)
    assert str(birds).encode() not in (exported_onnx / "embedder.onnx").read_bytes()
    assert (
        str(Path(dml_bench.__file__).parent).encode()
        not in (exported_onnx / "embedder.onnx").read_bytes()
    )


def test_the_onnx_file_names_the_model_that_it_is(place, exported_onnx):
    import onnx

    model = onnx.load(exported_onnx / "embedder.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["embedder"] == embedder_digest(place.run, place.phase)
    assert facts["phase"] == "limited"


def test_the_network_of_8_bits_is_smaller_and_its_loss_in_points_is_written_down(
    place, exported_onnx
):
    small, large = exported_onnx / "embedder.int8.onnx", exported_onnx / "embedder.onnx"
    assert small.stat().st_size < 0.4 * large.stat().st_size
    loss = json.loads((exported_onnx / "export.json").read_text())["int8"]
    assert loss["images"] == len(place.run.embeddings("limited").query_images)
    neighbours = place.run.neighbours["limited"]
    right = (neighbours.labels[:, 0] == neighbours.query_labels).mean()
    assert loss["precision_at_1"] == pytest.approx(right)
    difference = loss["precision_at_1"] - loss["precision_at_1_int8"]
    assert loss["points"] == pytest.approx(100 * difference)
    assert 0.9 < loss["min_cosine"] < 1
    assert "with 8 bits, P@1 is" in (exported_onnx / "README.md").read_text().replace(
        "With", "with"
    )


def test_a_loss_of_8_bits_is_measured_by_the_names_that_classes_have_now(place):
    read, network = place.read(), GalleryEmbedder(place.run, place.phase, "cpu")

    def exported(pixels: np.ndarray) -> np.ndarray:
        return unit(torch.from_numpy(network.outputs_of(pixels.copy())))

    before = int8_loss(place.run, place.phase, read, exported, exported)
    renamed = read
    for name in read.class_names:
        renamed = renamed.renamed(name, f"now {name}")
    assert int8_loss(place.run, place.phase, renamed, exported, exported) == before
    assert before.precision_at_1 > 0


def test_a_loss_of_8_bits_is_measured_on_images_of_classes_in_the_gallery(place):
    gallery, network = place.read(), GalleryEmbedder(place.run, place.phase, "cpu")

    def exported(pixels: np.ndarray) -> np.ndarray:
        return unit(torch.from_numpy(network.outputs_of(pixels.copy())))

    *others, last = gallery.class_names
    for name in others:
        gallery = gallery.removed(name)
    loss = int8_loss(place.run, place.phase, gallery, exported, exported)
    queries = place.run.embeddings(place.phase).query_images
    of_last = [image for image in queries if place.run.split[image].class_name == last]
    assert (loss.images, loss.precision_at_1) == (len(of_last), 1)
    nothing = gallery.renamed(last, "another")
    newcomer = replace(nothing.entries[0], class_name="newcomer", origin="enrolled")
    with pytest.raises(ValueError, match="no test image of the run is of a class in the gallery"):
        only = Gallery((newcomer,), nothing.embeddings[:1])
        int8_loss(place.run, place.phase, only, exported, exported)


def test_a_loss_of_8_bits_is_not_measured_on_images_that_find_themselves(trained):
    """Where classes are disjoint the test images are the gallery."""
    run = trained("protocol=class_disjoint", "data.split=half").folder
    place = open_gallery_file(run, "disjoint", None)
    network = GalleryEmbedder(place.run, place.phase, "cpu")

    def exported(pixels: np.ndarray) -> np.ndarray:
        return unit(torch.from_numpy(network.outputs_of(pixels.copy())))

    loss = int8_loss(place.run, place.phase, place.read(), exported, exported)
    neighbours = place.run.neighbours["disjoint"]
    right = (neighbours.labels[:, 0] == neighbours.query_labels).mean()
    assert loss.precision_at_1 == loss.precision_at_1_int8 == pytest.approx(right)
    assert right < 1


def test_a_loss_of_8_bits_is_that_of_answers():
    loss = Int8Loss(
        images=200,
        precision_at_1=0.9,
        precision_at_1_int8=0.87,
        other_answers=0.05,
        min_cosine=0.98,
    )
    assert loss.points == pytest.approx(3)
    assert "(a loss of 3.0 points)" in loss.describe()


def test_8_bits_without_onnx_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="int8 needs the format onnx, got torch: give --to onnx"):
        dml_bench.Gallery(folder).export(tmp_path / "out", int8=True)


def test_without_its_packages_an_export_to_onnx_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"pip install 'dml-bench\[onnx\]'"):
        dml_bench.Gallery(folder).export(tmp_path / "out", to="onnx")
    assert list(tmp_path.iterdir()) == []
