"""Low-rank adapters beside the linear layers of a backbone (LoRA, Hu et al. 2022), by peft."""

import importlib.util
from typing import Any

from torch import nn

__all__ = ["add_lora"]


def add_lora(backbone: nn.Module, name: str, *, rank: int, alpha: float) -> None:
    """Give each linear layer of the backbone of that name an adapter of a rank, whose output counts
    alpha / rank times. Only the adapters learn; at first they change nothing. Raises ValueError
    where peft is missing, or there is no linear layer."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError("model.lora_rank needs peft: pip install 'dml-bench[lora]'")
    linear = [
        place for place, layer in backbone.named_modules() if place and isinstance(layer, nn.Linear)
    ]
    if not linear:
        raise ValueError(
            f"model.lora_rank has no effect: {name} has no linear layers; --set model.lora_rank=0"
        )
    import peft

    settings: Any = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear)
    peft.inject_adapter_in_model(settings, backbone)
