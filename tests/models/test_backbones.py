"""Backbones: every name makes features of images, from the weights that its facts name, at the
sizes that fit it."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from http.client import BadStatusLine, IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision.models
from processor_time import with_slow
from safetensors.torch import save_file
from torch.nn import functional

from dml_bench.config import Experiment, experiments
from dml_bench.models.backbones import stage_names
from dml_bench.models.embedder import build_embedder
from dml_bench.models.hub import require_answer
from dml_bench.models.weights import load_backbone, torchvision_file
from dml_bench.registry import UnknownName, backbones

NUM_FEATURES = {
    "convnext_tiny": 768,
    "dinov2_s14": 384,
    "efficientnet_b0": 1280,
    "efficientnet_lite0": 1280,
    "efficientnet_lite1": 1280,
    "efficientnet_lite2": 1280,
    "mobilenet_v2": 1280,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "vit_s16": 384,
    "xresnet18": 512,
    "xresnet50": 2048,
    "timm:test_resnet": 96,
    "timm:test_vit": 64,
    # a layer behind the pooling: more than the 288 channels of its map
    "timm:mobilenetv3_small_050": 1024,
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def experiment(*overrides: str) -> Experiment:
    settings = ["model.weights=none", "images.size=32", "augment.random_crop_from=0", *overrides]
    return experiments.resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=settings)


def images(size: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    )


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


# Conformance


def test_the_expected_numbers_of_features_cover_every_registered_name():
    assert {name for name in NUM_FEATURES if not name.startswith("timm:")} == set(
        backbones.names()
    ) - {"timm:*", "hf:*", "openclip:*", "st:*"}


@pytest.mark.parametrize("name", with_slow(NUM_FEATURES, "resnet101"))
def test_every_backbone_repeats_its_features_in_both_precisions_and_its_first_layer_learns(
    name,
):
    torch.manual_seed(0)
    backbone = backbones[name].build(name).to(memory_format=torch.channels_last)
    batch = images(28 if name == "dinov2_s14" else 32)
    features = backbone(batch)
    assert features.shape == (3, NUM_FEATURES[name]) == (3, backbone.num_features)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    (features * torch.randn(features.shape)).sum().backward()
    first = next(parameter for parameter in backbone.parameters() if parameter.dim() == 4)
    assert torch.isfinite(first.grad).all() and first.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(backbone(batch), features), "dropout or stochastic depth"
        wide = backbone.eval()(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = backbone(batch)
    # In double precision: an EfficientNet-B0 with random weights makes features of 1e-14.
    assert functional.cosine_similarity(narrow.double(), wide.double(), eps=1e-30).min() > 0.999


@pytest.mark.parametrize("name", [name for name in NUM_FEATURES if not name.startswith("timm:")])
def test_the_statistics_of_a_name_are_those_that_its_weights_were_made_with(name):
    facts = backbones[name].facts
    halves = {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "vit_s16"}
    assert (facts["mean"], facts["std"]) == (HALVES if name in halves else IMAGENET)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("timm:test_vit", 127.5),
        ("timm:test_efficientnet", 0.485 * 255),
        ("efficientnet_lite1", 127.5),
    ],
)
def test_the_embedder_normalises_as_the_weights_of_that_model_want_it(name, mean):
    embedder = build_embedder(experiment(f"model.backbone={name}"))
    assert embedder.mean[0].item() == pytest.approx(mean)


# Image sizes


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_s16", 40, "choose a multiple of 16, e.g. --set images.size=32"),
        ("dinov2_s14", 96, "choose a multiple of 14, e.g. --set images.size=98"),
        ("timm:test_vit", 8, "choose a multiple of 16, e.g. --set images.size=16"),
        ("convnext_tiny", 16, "it was made for --set images.size=224"),
        ("timm:mixer_s16_224", 64, "it was made for --set images.size=224"),
        ("timm:botnet26t_256", 224, "it was made for --set images.size=256"),
    ],
)
def test_an_image_size_that_does_not_fit_is_one_line_that_says_what_does(name, size, message):
    with pytest.raises(ValueError) as problem:
        build_embedder(experiment(f"model.backbone={name}", f"images.size={size}"))
    assert str(problem.value).startswith(f"images.size is {size}, and {name} can't take it (")
    assert str(problem.value).endswith(message)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("name", "size"), [("vit_s16", 48), ("dinov2_s14", 42), ("timm:test_vit", 80)]
)
def test_a_transformer_takes_every_size_that_its_patches_tile(name, size):
    embedder = build_embedder(experiment(f"model.backbone={name}", f"images.size={size}")).eval()
    assert torch.isfinite(
        embedder.embed(torch.full((2, size, size, 3), 99, dtype=torch.uint8))
    ).all()


def test_looking_whether_an_image_fits_changes_nothing_in_the_network():
    embedder = build_embedder(experiment("model.backbone=timm:test_resnet"))
    assert embedder.backbone.training
    assert all(
        module.num_batches_tracked == 0
        for module in embedder.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet10", r"timm has no model 'resnet10' \(did you mean resnet10t\?\)"),
        (
            "timm:test_vit.r161_in1k",
            (
                r"timm has no weights 'test_vit.r161_in1k' \(did you mean test_vit.r160_in1k\?\);"
                r" there are: test_vit.r160_in1k"
            ),
        ),
    ],
)
def test_a_model_or_weights_that_timm_does_not_have_are_answered_with_the_near_miss(name, message):
    with pytest.raises(UnknownName, match=message):
        backbones[name].build(name)


# Weights from a file


@pytest.mark.parametrize(
    "name", ["resnet34", "resnet101", "efficientnet_b0", "convnext_tiny", "mobilenet_v2"]
)
def test_a_file_of_torchvision_makes_the_features_that_its_own_classifier_is_given(tmp_path, name):
    torch.manual_seed(1)
    network = getattr(torchvision.models, name)(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "own.pth")
    *_, classifier = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    received: list[torch.Tensor] = []
    classifier.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    backbone = backbones[name].build(name)
    load_backbone(backbone, name, backbones[name], str(tmp_path / "own.pth"))
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in backbone.state_dict().items())
    with torch.no_grad():
        network(images(32))
        assert torch.equal(backbone.eval()(images(32)), received[0])


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_a_file_of_timm_with_its_classifier_is_loaded_by_name(tmp_path, name):
    torch.manual_seed(1)
    network = timm.create_model(name)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    backbone = backbones[f"timm:{name}"].build(f"timm:{name}")
    load_backbone(
        backbone, f"timm:{name}", backbones[f"timm:{name}"], str(tmp_path / "model.safetensors")
    )
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in backbone.state_dict().items())


def test_weights_of_one_depth_are_refused_by_a_network_of_another(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        ValueError,
        match=(
            r"resnet18\.pth for resnet34 do not fit the network: \d+ tensors missing, e\.g\."
            r" layer1\.2\."
        ),
    ):
        load_backbone(
            backbones["resnet34"].build("resnet34"),
            "resnet34",
            backbones["resnet34"],
            str(tmp_path / "resnet18.pth"),
        )


# ImageNet weights


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18-f37072fd.pth"),
        ("resnet34", "resnet34-b627a593.pth"),
        ("resnet50", "resnet50-0676ba61.pth"),
        ("resnet101", "resnet101-63fe2227.pth"),
        ("efficientnet_b0", "efficientnet_b0_rwightman-7f5810bc.pth"),
        ("convnext_tiny", "convnext_tiny-983f1562.pth"),
    ],
)
def test_the_imagenet_weights_of_a_name_are_one_file_of_torchvision(name, file):
    url, _ = torchvision_file(backbones[name].facts["weights"].partition(":")[2])
    assert url == f"https://download.pytorch.org/models/{file}"


@pytest.mark.parametrize("name", ["vit_s16", "dinov2_s14"])
def test_the_network_of_a_transformer_is_that_of_its_weights(name):
    weights = backbones[name].facts["weights"].removeprefix("timm:")
    assert weights in timm.list_pretrained()
    configuration = backbones[name].build(name).pretrained_cfg
    assert f"{configuration['architecture']}.{configuration['tag']}" == weights
    assert (configuration["mean"], configuration["std"]) == (
        backbones[name].facts["mean"],
        backbones[name].facts["std"],
    )


@pytest.mark.parametrize(
    "failure",
    [
        IncompleteRead(b""),
        BadStatusLine("garbage"),
        URLError("no route"),
        TimeoutError("timed out"),
    ],
)
def test_a_download_that_breaks_off_is_an_error_with_the_ways_out(monkeypatch, tmp_path, failure):
    def broken(*_, **__):
        raise failure

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", broken)
    with pytest.raises(
        ValueError,
        match=(
            r"ImageNet weights resnet34-b627a593\.pth of resnet34 can't be had .* --set"
            r" model.weights=none"
        ),
    ):
        load_backbone(torch.nn.Identity(), "resnet34", backbones["resnet34"], "imagenet")


class ServesWeights(http.server.BaseHTTPRequestHandler):
    """Sends `content` and then closes, having announced `announced` bytes."""

    content = b""
    announced = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.announced))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("problem", ["", "truncated", "other bytes"])
def test_downloaded_weights_are_used_only_where_they_have_the_digest_of_their_name(
    monkeypatch, tmp_path, problem
):
    network = torch.nn.Linear(3, 2)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    content = (tmp_path / "own.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    sent = {"": content, "truncated": content[:-9], "other bytes": content[:-1] + b"x"}[problem]
    handler = type("Handler", (ServesWeights,), {"content": sent, "announced": len(content)})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/tiny-{digest}.pth"
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = tmp_path / "hub" / "checkpoints" / f"tiny-{digest}.pth"
        monkeypatch.setattr("dml_bench.models.weights.torchvision_file", lambda _: (url, path))
        fresh = torch.nn.Linear(3, 2)
        try:
            if problem:
                with pytest.raises(
                    ValueError, match=f"ImageNet weights tiny-{digest}.pth .* can't be"
                ):
                    load_backbone(fresh, "resnet34", backbones["resnet34"], "imagenet")
                assert not path.exists()
            else:
                load_backbone(fresh, "resnet34", backbones["resnet34"], "imagenet")
                assert same(fresh.state_dict(), network.state_dict())
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hub_cache(monkeypatch, tmp_path) -> Path:
    """A cache of Hugging Face's own layout; any attempt to reach a host fails."""

    def fail(*_, **__):
        raise URLError("no network in tests")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", fail)
    return tmp_path / "hub"


def keep(cache: Path, repository: str, state: dict[str, torch.Tensor]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    (folder / "snapshots" / "c0ffee").mkdir(parents=True)
    save_file(state, folder / "snapshots" / "c0ffee" / "model.safetensors")


def test_weights_of_timm_that_lie_in_the_cache_need_no_network(hub_cache):
    torch.manual_seed(1)
    network = timm.create_model("test_vit")
    keep(hub_cache, "timm/test_vit.r160_in1k", network.state_dict())
    loaded = build_embedder(
        experiment("model.backbone=timm:test_vit", "model.weights=imagenet")
    ).backbone.state_dict()
    expected = {
        key: tensor for key, tensor in network.state_dict().items() if not key.startswith("head.")
    }
    assert same(loaded, expected)


def test_cached_weights_are_read_as_the_hub_writes_them_even_where_timm_knows_a_numpy_file(
    hub_cache,
):
    torch.manual_seed(1)
    network = timm.create_model("vit_tiny_patch16_224")
    assert network.pretrained_cfg["custom_load"] and network.pretrained_cfg["url"].endswith(".npz")
    keep(hub_cache, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", network.state_dict())
    backbone = backbones["timm:vit_tiny_patch16_224"].build("timm:vit_tiny_patch16_224")
    load_backbone(
        backbone, "timm:vit_tiny_patch16_224", backbones["timm:vit_tiny_patch16_224"], "imagenet"
    )
    assert same(
        backbone.state_dict(),
        {
            key: tensor
            for key, tensor in network.state_dict().items()
            if not key.startswith("head.")
        },
    )


@pytest.mark.parametrize("name", ["timm:test_resnet", "dinov2_s14"])
def test_a_hub_that_does_not_answer_is_an_error_before_any_download_is_tried(
    hub_cache, monkeypatch, name
):
    monkeypatch.setattr(
        "timm.models._hub.hf_hub_download", lambda *_, **__: pytest.fail("a download was tried")
    )
    with pytest.raises(ValueError) as problem:
        load_backbone(torch.nn.Identity(), name, backbones[name], "imagenet")
    reason = "huggingface.co can't be reached: no network in tests"
    assert str(problem.value).startswith(
        f"pretrained weights of {name} can't be had ({reason}): set model.weights to a local file"
    )
    assert not hub_cache.exists()


def test_where_the_hub_is_switched_off_only_the_cache_is_looked_into(hub_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError,
        match=rf"HF_HUB_OFFLINE is set, and timm/test_vit\.r160_in1k is not in {hub_cache}",
    ):
        load_backbone(torch.nn.Identity(), "timm:test_vit", backbones["timm:test_vit"], "imagenet")


class Refuses(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_host() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def stammering_host() -> Iterator[str]:
    """Accepts one connection and answers something that is not HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"what?\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_host_that_refuses_does_answer(refusing_host):
    require_answer(f"http://{refusing_host}/weights.safetensors")


def test_a_host_that_does_not_speak_http_does_not_answer(stammering_host):
    with pytest.raises(OSError, match=f"{stammering_host} can't be reached: what"):
        require_answer(f"http://{stammering_host}/weights.safetensors")


def test_a_host_with_nothing_behind_the_port_does_not_answer():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # so that nobody else can listen there
        port = deaf.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} can't be reached: .*refused"):
            require_answer(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("name", ["mvitv2_tiny", "tresnet_m"])
def test_a_stage_that_timm_names_and_the_network_has_not_is_none(name):
    with torch.device("meta"):
        network = timm.create_model(name)
    missing = [info["module"] for info in network.feature_info]
    stages = stage_names(network)
    assert len(stages) < len(missing)
    for stage in stages:
        assert network.get_submodule(stage) is not network
