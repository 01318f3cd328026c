"""The "bag of tricks" residual network (He et al. 2019, there ResNet-D), and three changes that
people combine it with."""

from typing import Literal

import torch
from timm.layers import BlurPool2d
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SelfAttention", "xresnet"]

BLOCKS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}


class SelfAttention(nn.Module):
    """Each position of a map (batch, channels, height, width) adds, times `gamma`, an average of
    all positions, weighted by likeness.

    Zhang et al. 2019, SAGAN, eq. 1-3, with an eighth of the channels inside, and without spectral
    normalisation, which belongs to their adversarial training. `gamma` starts at 0: at first the
    layer changes nothing.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 8
        self.query, self.key, self.value = (
            nn.Conv2d(channels, inner, 1, bias=False) for _ in range(3)
        )
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same, each place with a part of all others."""
        query, key, value = (
            layer(maps).flatten(2).mT for layer in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return maps + self.gamma * self.out(attended.mT.unflatten(2, maps.shape[2:]))


def xresnet(
    layers: int,
    *,
    activation: Literal["relu", "mish"],
    pool: Literal["max", "maxblur"],
    self_attention: bool,
) -> nn.Module:
    """Three 3x3 convolutions begin it, shortcuts shrink by averaging, blocks shrink in their 3x3
    convolution, and the last BatchNorm of each block starts at 0. With everything else off it is
    timm's resnet18d or resnet50d, tensor names included.

    `maxblur` blurs what the maximum leaves before it takes every second position (Zhang 2019), in
    the stem only; the border is repeated, not mirrored as there, because CUDA has a deterministic
    gradient for that alone.
    """
    block, blocks = BLOCKS[layers]
    network = ResNet(
        block,
        blocks,
        num_classes=0,
        stem_type="deep",
        stem_width=32,
        avg_down=True,
        act_layer=activation,
    )
    if pool == "maxblur":
        blur = BlurPool2d(64, filt_size=3, stride=2, pad_mode="replicate")
        network.maxpool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), blur)
    if self_attention:
        network.layer1.append(SelfAttention(64 * block.expansion))
    return network
