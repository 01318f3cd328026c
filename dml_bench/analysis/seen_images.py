"""Where a backbone's pretraining is known to have seen a data set's images, or to have been able
to: a number on them is then too good by an unknown amount."""

import re

from dml_bench.config import Experiment

__all__ = ["seen_in_pretraining"]

IMAGENET, RETRIEVED, WEB = "ImageNet", "LVD-142M", "pictures from the web"
"""What backbones are pretrained on. Pictures from the web are those of CLIP, SigLIP and others that
were trained on pairs of pictures and texts."""

NOTES = {
    (IMAGENET, "cub"): (
        "ImageNet holds photos that are in CUB too, of its test part as well (as CUB's own page"
        " warns)"
    ),
    (RETRIEVED, "cub"): (
        "DINOv2's images were collected by their likeness to CUB's training photos, and those of"
        " ImageNet, which overlap with CUB"
    ),
    (RETRIEVED, "cars196"): (
        "DINOv2's images were collected by their likeness to the training photos of Cars196"
    ),
}
ANYTHING_PUBLIC = {"cub", "cars196", "sop", "inshop", "grocery", "omniglot"}
"""Published data sets, which a crawl of the web may hold."""
OF_THE_WEB = re.compile(r"clip|siglip|laion|openai|webli|datacomp|dfn|dinov3|lvd1689m")


def seen_in_pretraining(experiment: Experiment) -> str:
    """A sentence about the images of the experiment's data set that its backbone may know from its
    pretraining; '' where nothing is known of any."""
    if experiment.model.weights != "imagenet":
        return ""
    kind = pretrained_on(experiment.model.backbone.name)
    dataset = experiment.data.dataset.name
    if kind == WEB and dataset in ANYTHING_PUBLIC:
        return f"the backbone's {WEB} may hold {dataset}'s, test images too"
    return NOTES.get((kind, dataset), "")


def pretrained_on(backbone: str) -> str:
    name = backbone.lower()
    if "dinov2" in name:
        return RETRIEVED
    if name.startswith(("hf:", "openclip:", "st:")) or OF_THE_WEB.search(name):
        return WEB
    return IMAGENET
