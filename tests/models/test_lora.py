"""Low-rank adapters: what they add, and that nothing else of the backbone learns."""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny, train
from torch import nn

from dml_bench.losses.objective import build_objective
from dml_bench.models.embedder import build_embedder
from dml_bench.models.lora import load_without_adapters
from dml_bench.runs.run import read_folder
from dml_bench.training.parameter_groups import build_optimizer

ADAPTED = (
    *("model.backbone=timm:test_vit", "images.size=32", "model.lora_rank=2", "model.lora_alpha=6"),
    *("optimizer={name='adamw', lr=0.01}", "train.epochs=1"),
)
needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed: pip install peft"
)


@needs_peft
def test_adapters_change_nothing_at_first_and_then_add_their_scaled_product():
    plain = build_embedder(tiny(*ADAPTED, "model.lora_rank=0", "model.lora_alpha=16")).eval()
    adapted = build_embedder(tiny(*ADAPTED)).eval()
    pixels = torch.randint(0, 256, (2, 32, 32, 3)).float()
    with torch.no_grad():
        assert torch.allclose(plain(pixels), adapted(pixels), atol=1e-5)
    name, layer = next(
        (name, layer)
        for name, layer in adapted.backbone.named_modules()
        if hasattr(layer, "lora_A")
    )
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(up)
    assert down.shape[0] == up.shape[1] == 2
    values = torch.randn(3, layer.in_features)
    own = plain.backbone.get_submodule(name)
    with torch.no_grad():
        expected = own(values) + (6 / 2) * values @ down.T @ up.T
        assert torch.allclose(layer(values), expected, atol=1e-5)


@needs_peft
def test_only_adapters_and_the_head_learn():
    experiment = tiny(*ADAPTED)
    embedder = build_embedder(experiment)
    learning = {name for name, part in embedder.named_parameters() if part.requires_grad}
    assert learning and all("lora_" in name or name.startswith("head.") for name in learning)
    optimizer = build_optimizer(experiment, embedder, build_objective(experiment, 6, embedder.dim))
    counted = sum(part.numel() for group in optimizer.param_groups for part in group["params"])
    known = sum(part.numel() for part in embedder.parameters() if part.requires_grad)
    assert counted == known


@needs_peft
def test_a_run_with_adapters_is_trained_sealed_and_used(birds, cache_dir, tmp_path):
    from dml_bench.gallery.embedder import GalleryEmbedder

    folder = train(birds, cache_dir, tmp_path, *ADAPTED).folder
    run = read_folder(folder)
    assert any("lora_A" in name for name in run.weights("all"))
    image = next(row for row in run.split if row.part == "test")
    embedded = GalleryEmbedder(run, "all", device="cpu").embed([birds / image.path])
    assert embedded.embeddings.shape[0] == 1


@needs_peft
def test_adapters_stand_beside_weights_of_a_stage_before(birds, cache_dir, tmp_path):
    start = ["start={name='classifier', epochs=1, batch_size=8, lr=0.05}"]
    folder = train(birds, cache_dir, tmp_path, *ADAPTED, *start).folder
    stages = [*(cache_dir / "pretrained").glob("classifier-timm_test_vit-*.safetensors")]
    assert len(stages) == 2  # of the two phases
    for phase in ("all", "limited"):
        trained = read_folder(folder).weights(phase)
        frozen = {name: tensor for name, tensor in trained.items() if ".base_layer." in name}
        assert frozen
        assert any(holds(load_file(file), frozen) for file in stages)


def holds(before, frozen):
    """Whether a stage has these layers, without adapters."""
    for name, tensor in frozen.items():
        plain = name.removeprefix("backbone.").replace(".base_layer.", ".")
        if not torch.equal(tensor, before[plain]):
            return False
    return True


def test_weights_of_another_backbone_are_refused_beside_adapters():
    with pytest.raises(RuntimeError, match="of another backbone: 0.bias differs"):
        load_without_adapters(nn.Sequential(nn.Linear(2, 2)), {"0.weight": torch.zeros(2, 2)})


def test_adapters_are_refused_where_they_can_not_be():
    with pytest.raises(ValueError, match="model.lora_rank needs model.trainable = all"):
        tiny("model.lora_rank=2", "model.trainable=last:1", "augment={}")
    with pytest.raises(ValueError, match="model.lora_alpha has no effect without"):
        tiny("model.lora_alpha=2")
    reason = "has no linear layers" if importlib.util.find_spec("peft") else "needs peft"
    with pytest.raises(ValueError, match=reason):
        build_embedder(tiny("model.lora_rank=2"))
