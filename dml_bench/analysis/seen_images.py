"""Where a backbone's pretraining is known to have seen a data set's images, or to have been able
to: a number on them is then too good by an unknown amount."""

import re
from pathlib import PurePosixPath

from dml_bench.config import Experiment
from dml_bench.data.publications import PUBLICATIONS

__all__ = ["seen_in_pretraining"]

IMAGENET, RETRIEVED, WEB = "ImageNet", "LVD-142M", "pictures from the web"
"""What backbones are pretrained on. Pictures from the web are those of CLIP, SigLIP and others that
were trained on pairs of pictures and texts."""

DINO_CARS = "DINOv2's images were collected by their likeness to the training photos of Cars196"
NOTES = {
    (IMAGENET, "cub"): (
        "ImageNet holds photos that are in CUB too, of its test part as well (as CUB's own page"
        " warns)"
    ),
    (RETRIEVED, "cub"): (
        "DINOv2's images were collected by their likeness to CUB's training photos, and those of"
        " ImageNet, which overlap with CUB"
    ),
    (RETRIEVED, "cars196"): DINO_CARS,
    (RETRIEVED, "cars196_train"): DINO_CARS,
    (RETRIEVED, "flowers102_part"): (
        "DINOv2's images were collected by their likeness to training photos of Oxford 102 Flowers"
    ),
}
OF_THE_WEB = re.compile(
    r"clip|siglip|align-base|laion|openai|webli|datacomp|dfn|dinov3|lvd1689m|aimv2|blip"
)
OF_IMAGENET = re.compile(
    r"imagenet|in1k|in21k|in22k|resnet|vit-|deit|beit|swin|convnext|mobilenet|efficientnet|regnet"
)
"""In the names of other libraries' encoders, whose pretraining is else unknown."""


def seen_in_pretraining(experiment: Experiment) -> str:
    """A sentence about the images of the experiment's data set that its backbone may know from its
    pretraining; '' where nothing is known of any."""
    if experiment.model.weights != "imagenet":
        return ""
    kind = pretrained_on(experiment.model.backbone.name)
    dataset = experiment.data.dataset.name
    if kind == WEB and dataset in PUBLICATIONS:
        return f"the backbone's {WEB} may hold {dataset}'s, test images too"
    return NOTES.get((kind, dataset), "")


def pretrained_on(backbone: str) -> str:
    """What its name says; '' where that says nothing. OpenCLIP's are all of pictures and texts."""
    prefix, _, rest = backbone.lower().rpartition(":")
    name = "/".join(PurePosixPath(rest).parts[-2:])
    if "dinov2" in name:
        return RETRIEVED
    if prefix.startswith("openclip") or OF_THE_WEB.search(name):
        return WEB
    if prefix in ("hf", "st"):
        return IMAGENET if OF_IMAGENET.search(name) else ""
    return IMAGENET
