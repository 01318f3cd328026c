"""Low-rank adapters beside the linear layers of a backbone (LoRA, Hu et al. 2022), by peft."""

import importlib.util
from typing import Any

from torch import Tensor, nn

__all__ = ["add_lora", "load_without_adapters"]


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


def load_without_adapters(backbone: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill a backbone from the state dict of the same one without adapters; those that it has stay
    as they are. Raises RuntimeError on another backbone's."""
    names = {}
    for name in backbone.state_dict():
        if ".lora_" not in name:
            names[name.replace(".base_layer.", ".")] = name
    result = backbone.load_state_dict(
        {names.get(name, name): tensor for name, tensor in weights.items()}, strict=False
    )
    missing = [name for name in result.missing_keys if name in names.values()]
    if missing or result.unexpected_keys:
        first = [*missing, *result.unexpected_keys][0]
        raise RuntimeError(f"these weights are of another backbone: {first} differs")
