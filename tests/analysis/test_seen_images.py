"""A number on images that a pretraining may have seen says so beside it."""

import pytest

from dml_bench.analysis.seen_images import seen_in_pretraining
from dml_bench.config.experiments import resolve


def note(backbone: str, dataset: str, weights: str = "imagenet") -> str:
    settings = [
        f"model.backbone={backbone}",
        f"data.dataset={dataset}",
        f"model.weights={weights}",
        "unseen=last:5",
    ]
    return seen_in_pretraining(resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=settings))


@pytest.mark.parametrize(
    ("backbone", "dataset", "part"),
    [
        ("resnet50", "cub", "ImageNet holds photos that are in CUB too"),
        ("mobilenet_v2", "cub", "ImageNet holds photos"),
        ("dinov2_s14", "cub", "DINOv2's images were collected by their likeness to CUB's"),
        ("dinov2_s14", "cars196", "likeness to the training photos of Cars196"),
        ("timm:vit_base_patch16_clip_224.openai", "sop", "may hold sop's, test images too"),
        ("openclip:hf-hub:somebody/model", "sop", "may hold sop's, test images too"),
        ("st:clip-ViT-B-32", "sop", "may hold sop's, test images too"),
        ("hf:google/siglip-base-patch16-224", "sop", "may hold sop's, test images too"),
        ("hf:facebook/dinov2-base", "cars196", "likeness to the training photos of Cars196"),
        ("hf:microsoft/resnet-50", "cub", "ImageNet holds photos that are in CUB too"),
    ],
)
def test_a_backbone_that_may_know_the_images_is_remarked_upon(backbone, dataset, part):
    assert part in note(backbone, dataset)


@pytest.mark.parametrize(
    ("backbone", "dataset", "weights"),
    [
        ("resnet50", "cub", "none"),
        ("resnet50", "cub", "source"),
        ("resnet50", "demo", "imagenet"),
        ("timm:vit_base_patch16_clip_224.openai", "folder", "imagenet"),
        ("hf:google/vit-base-patch16-224", "sop", "imagenet"),
        ("hf:/models/clip/2024/of-our-own", "sop", "imagenet"),
    ],
)
def test_other_weights_and_other_images_are_not(backbone, dataset, weights):
    assert note(backbone, dataset, weights) == ""
