"""Encoders of transformers, OpenCLIP and sentence-transformers give what their library gives."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import finish
from PIL import Image
from tiny import dml_bench

import dml_bench as db
from dml_bench.config import Experiment, experiments
from dml_bench.config.component import Component
from dml_bench.data.cache import view_of
from dml_bench.models.embedder import build_embedder
from dml_bench.models.encoders import PACKAGES
from dml_bench.registry import UnknownName, backbones

SIDE = 32
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SEES = {"image_size": SIDE, "patch_size": 16, "intermediate_size": 48}
READS = {**TOWER, "vocab_size": 50, "intermediate_size": 32, "bos_token_id": 1, "eos_token_id": 2}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def library(prefix: str) -> Any:
    """The library of a prefix. The test is skipped where it is not installed."""
    module, package = PACKAGES[prefix]
    return pytest.importorskip(module, reason=f"{package} is not installed: pip install {package}")


def experiment(backbone: str, *settings: str) -> Experiment:
    overrides = [f"model.backbone={backbone}", f"images.size={SIDE}", *settings]
    return experiments.resolve(
        "EPSHN_cosine_resnet18_sgd", overrides=["model.weights=imagenet", *overrides]
    )


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def ours(backbone: str, *settings: str) -> torch.Tensor:
    embedder = build_embedder(experiment(backbone, *settings)).eval()
    with torch.no_grad():
        return embedder.features(torch.from_numpy(pictures()))


def tiny_transformer(kind: str) -> Any:
    transformers = library("hf")
    torch.manual_seed(0)
    if kind in ("CLIP", "Siglip"):
        config = getattr(transformers, f"{kind}Config")(
            text_config=READS, vision_config={**TOWER, **SEES}
        )
        return getattr(transformers, f"{kind}Model")(config)
    options = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    if kind != "ResNet":
        options = {**TOWER, **SEES}
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**options))


def saved(folder: Path, kind: str) -> str:
    """A tiny model with random weights in a folder, as transformers saves it, and how it prepares
    photos."""
    transformers = library("hf")
    tiny_transformer(kind).save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=MEAN,
        image_std=STD,
    ).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "Dinov2", "ViT", "ResNet"])
def test_an_encoder_of_transformers_makes_the_features_of_its_library(tmp_path, kind):
    transformers = library("hf")
    name = saved(tmp_path, kind)
    network = transformers.AutoModel.from_pretrained(tmp_path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    photos = [Image.fromarray(picture) for picture in pictures()]
    inputs = processor(images=photos, return_tensors="pt")
    with torch.no_grad():
        if hasattr(network, "get_image_features"):
            expected = network.get_image_features(**inputs).pooler_output
        elif kind == "ViT":  # whose pooler most weights lack
            expected = network(**inputs).last_hidden_state[:, 0]
        else:
            expected = network(**inputs).pooler_output.flatten(1)
    assert (ours(name) - expected).abs().max() < 1e-5


def large_photo() -> Image.Image:
    """Neither square nor of the size that an encoder sees."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((300, 200))


def resized_features(name: str, interpolation: str, fit: str = "crop") -> torch.Tensor:
    """(1, features) of the large photo, resized in that way and without a remark on it."""
    resized = (f"images.interpolation={interpolation}", f"images.fit={fit}")
    settings = experiment(name, *resized)
    embedder = build_embedder(settings).eval()
    assert not any(embedder.remarks)
    seen = view_of(settings.images).apply(large_photo())
    with torch.no_grad():
        return embedder.features(torch.from_numpy(seen[None].copy()))


def test_a_photo_that_is_resized_as_the_library_does_gets_the_features_of_the_library(tmp_path):
    transformers = library("hf")
    name = saved(tmp_path, "CLIP")
    network = transformers.AutoModel.from_pretrained(tmp_path).eval()
    processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)
    inputs = processor(images=large_photo(), return_tensors="pt")
    with torch.no_grad():
        expected = network.get_image_features(**inputs).pooler_output
    errors = {
        interpolation: float((resized_features(name, interpolation) - expected).abs().max())
        for interpolation in ("bilinear", "bicubic")
    }
    assert errors["bicubic"] < 1e-5 < errors["bilinear"]


def test_an_encoder_that_was_made_with_another_resizing_says_so_unless_one_is_chosen(tmp_path):
    remarks = build_embedder(experiment(saved(tmp_path, "CLIP"))).remarks
    assert "was made with bicubic resizing" in remarks[-1]
    assert "--set images.interpolation=bicubic" in remarks[-1]
    assert not any(build_embedder(experiment("efficientnet_lite0", "model.weights=none")).remarks)


def test_a_model_of_pictures_and_texts_keeps_what_reads_texts_neither_here_nor_from_a_file(
    tmp_path,
):
    name = saved(tmp_path, "CLIP")
    embedder = build_embedder(experiment(name))
    names = tuple(embedder.backbone.state_dict())
    assert all(key.startswith(("vision_model.", "visual_projection.")) for key in names)
    with_texts = tiny_transformer("CLIP").state_dict()
    torch.save(with_texts, tmp_path / "clip.pth")
    of_file = build_embedder(experiment(name, f"model.weights={tmp_path / 'clip.pth'}"))
    for key, tensor in of_file.backbone.state_dict().items():
        assert torch.equal(tensor, with_texts[key])


def test_without_weights_an_encoder_starts_from_those_of_its_seed(tmp_path):
    name = saved(tmp_path, "Dinov2")
    starts = [ours(name, "model.weights=none", f"seed={seed}") for seed in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.allclose(starts[0], starts[2])
    assert not torch.allclose(starts[0], ours(name))


def test_an_encoder_learns_and_its_statistics_are_those_of_its_preprocessing(tmp_path):
    embedder = build_embedder(experiment(saved(tmp_path, "CLIP")))
    assert (embedder.mean / 255).tolist() == pytest.approx(MEAN)
    assert (embedder.std / 255).tolist() == pytest.approx(STD)
    embedder.train()(torch.from_numpy(pictures())).square().sum().backward()
    assert all(parameter.grad is not None for parameter in embedder.parameters())


def test_an_encoder_takes_another_size_where_its_library_does(tmp_path):
    name = saved(tmp_path, "CLIP")
    assert ours(name, "images.size=48").shape == (3, 512)


def test_a_model_that_is_not_here_is_one_line_where_the_hub_is_switched_off(monkeypatch):
    library("hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError) as problem:
        build_embedder(experiment("hf:nobody/nothing"))
    assert str(problem.value).startswith(
        "configuration of hf:nobody/nothing can't be had (HF_HUB_OFFLINE is set"
    )
    assert "\n" not in str(problem.value)


# OpenCLIP


@pytest.fixture
def open_clip_folder(tmp_path) -> Path:
    """A tiny model with random weights, as OpenCLIP keeps it."""
    open_clip = library("openclip")
    tower = {"layers": 2, "width": 32}
    model = {
        "embed_dim": 24,
        "vision_cfg": {**tower, "image_size": SIDE, "patch_size": 16, "head_width": 16},
        "text_cfg": {**tower, "context_length": 8, "vocab_size": 50, "heads": 2},
    }
    preprocess = {"mean": MEAN, "std": STD}
    text = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
    (tmp_path / "open_clip_config.json").write_text(text)
    torch.manual_seed(0)
    network = open_clip.CLIP(**model)
    torch.save(network.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    return tmp_path


def test_an_encoder_of_open_clip_makes_the_features_of_its_library(open_clip_folder):
    open_clip = library("openclip")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    batch = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures()])
    with torch.no_grad():
        expected = model.eval().encode_image(batch)
    name = f"openclip:local-dir:{open_clip_folder}"
    assert (ours(name) - expected).abs().max() < 1e-5
    of_file = f"model.weights={open_clip_folder / 'open_clip_pytorch_model.bin'}"
    assert (ours(name, of_file) - expected).abs().max() < 1e-5
    assert not torch.allclose(ours(name, "model.weights=none"), expected, atol=1e-2)
    with torch.no_grad():
        of_photo = model.encode_image(preprocess(large_photo())[None])
    assert (resized_features(name, "bicubic") - of_photo).abs().max() < 1e-5
    assert (resized_features(name, "bilinear") - of_photo).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-33", r"OpenCLIP has no model 'ViT-B-33' \(did you mean ViT-B-32\?\)"),
        ("ViT-B-32/laion", r"must be one of openai, .*, got 'laion': write openclip:ViT-B-32/TAG"),
    ],
)
def test_a_model_or_weights_that_open_clip_does_not_have_are_answered_with_those_it_has(
    name, message
):
    library("openclip")
    with pytest.raises(UnknownName, match=message):
        backbones[f"openclip:{name}"].build(f"openclip:{name}")


# sentence-transformers


def test_an_encoder_of_sentence_transformers_makes_the_embeddings_of_its_library(tmp_path):
    sentence_transformers = library("st")
    saved(tmp_path / "vit", "Dinov2")
    modules = sentence_transformers.sentence_transformer.modules
    transformer = modules.Transformer(str(tmp_path / "vit"))
    pooling = modules.Pooling(TOWER["hidden_size"], pooling_mode="mean")
    dense = modules.Dense(TOWER["hidden_size"], 20)
    model = sentence_transformers.SentenceTransformer(modules=[transformer, pooling, dense])
    model.save(str(tmp_path / "st"), create_model_card=False)
    photos = [Image.fromarray(picture) for picture in pictures()]
    expected = model.encode(photos, convert_to_tensor=True, show_progress_bar=False).cpu()
    name = f"st:{tmp_path / 'st'}"
    assert (ours(name) - expected).abs().max() < 1e-5
    assert not torch.allclose(ours(name, "model.weights=none"), expected, atol=1e-2)
    of_photo = model.encode([large_photo()], convert_to_tensor=True, show_progress_bar=False).cpu()
    # Its processor resizes tensors, whose pixels differ from Pillow's by a level here and there.
    assert (resized_features(name, "bicubic") - of_photo).abs().max() < 5e-3
    assert (resized_features(name, "bilinear") - of_photo).abs().max() > 5e-3


# Where the package is missing


@pytest.mark.parametrize("prefix", PACKAGES)
def test_a_missing_package_is_one_line_with_its_name(monkeypatch, prefix):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError) as problem:
        build_embedder(experiment(f"{prefix}:some/model"))
    assert str(problem.value) == (
        f"backbone {prefix}:some/model needs a package that is not installed: pip install"
        f" {PACKAGES[prefix][1]}"
    )


def test_a_run_of_a_missing_package_is_reported_on_without_it(
    monkeypatch, tmp_path, capsys, blank_figures
):
    monkeypatch.setattr("dml_bench.models.encoders.package_installed", lambda prefix: False)
    before = set(sys.modules)
    folders = []
    for name in ("hf:nobody/nothing", "resnet18"):
        run = experiment(name, f"name={name[:2]}", "unseen=last:2")
        right = {"all": [[1, 1], [1, 0], [1, 1]], "limited": [[1, 1], [1, 0], [0, 1]]}
        folders.append(finish(tmp_path, run, right).folder)
    assert dml_bench(monkeypatch, "compare", *folders) == 0
    assert "hf" in capsys.readouterr().out
    loaded = db.load_runs(tmp_path)
    assert sorted(loaded["model.backbone"]) == ["hf:nobody/nothing", "resnet18"]
    page = tmp_path / "page"
    assert dml_bench(monkeypatch, "report", tmp_path, "--out", page) == 0
    assert "hf" in (page / "report.md").read_text()
    assert not {module for module, _ in PACKAGES.values()} & (set(sys.modules) - before)


def test_predict_and_export_of_such_a_run_name_the_package_and_leave_nothing_behind(
    monkeypatch, trained, tmp_path
):
    monkeypatch.setattr("dml_bench.models.encoders.package_installed", lambda prefix: False)
    run = db.load_run(trained().folder)
    model = replace(run.experiment.model, backbone=Component("hf:nobody/nothing"))
    gallery = db.Gallery(replace(run, experiment=replace(run.experiment, model=model)))
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40), "red").save(photo)
    for use in (lambda: gallery.predict(photo), lambda: gallery.export(tmp_path / "model")):
        with pytest.raises(ValueError) as problem:
            use()
        assert str(problem.value) == (
            "backbone hf:nobody/nothing needs a package that is not installed: pip install"
            " transformers"
        )
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
