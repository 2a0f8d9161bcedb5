"""PiSSA (Meng et al. 2024, arXiv:2404.02948): LoRA on a matrix's principal part, taken out of the base.

W = (W - s B0 A0) + s B0 A0, where the singular vectors of the largest singular values make B0 and A0. Stored
as a LoRA of the unchanged base, [A; A0] and [B, -B0], which anyone reads; `load` takes it apart again, so
that a rounded base comes back as it was in training. PEFT keeps no exact A0 and B0 (a bfloat16 SmolLM2 comes
back off by 0.2 on average, about its own rounding), and its conversion drops a classifier's head.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import PipelineError


def begin(model: Any) -> None:
    """Set the LoRA layers to the principal parts of their weights, and take these out of the base."""
    import torch

    model.pissa_start = {}
    for name, layer in _layers(model).items():
        rank = layer.r["default"]
        if rank > min(layer.in_features, layer.out_features):
            problem = f"it is {rank}, and {name} has {layer.in_features} x {layer.out_features} weights"
            raise PipelineError("rank", problem, "Choose a smaller one.")
        weight = _weight(layer).float()
        left, singular, right = torch.linalg.svd(weight, full_matrices=False)
        root = (singular[:rank] / layer.scaling["default"]).sqrt()
        a, b = (root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous()
        layer.lora_A["default"].weight.data = a.clone()
        layer.lora_B["default"].weight.data = b.clone()
        _take_out(model, name, layer, a, b)


def to_lora(model: Any, config: Any, state: dict[str, Any]) -> None:
    """Turn the trained state into that of a LoRA of the unchanged base, in place: of twice the rank."""
    import torch

    for name, (a, b) in model.pissa_start.items():
        key_a, key_b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        state[key_a] = torch.cat((state[key_a], a.to(state[key_a])), dim=0)
        state[key_b] = torch.cat((state[key_b], -b.to(state[key_b])), dim=1)
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha


def from_lora(base: Any, config: Any, state: dict[str, Any]) -> Any:
    """The model that `to_lora` was given, from the base and the stored state."""
    from peft import get_peft_model, set_peft_model_state_dict

    config.r, config.lora_alpha = config.r // 2, type(config.lora_alpha)(config.lora_alpha / 2)
    model: Any = get_peft_model(base, config)
    model.pissa_start = {}
    for name, layer in _layers(model).items():
        key_a, key_b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        state[key_a], a = (half.contiguous() for half in state[key_a].chunk(2, dim=0))
        state[key_b], b = (half.contiguous() for half in state[key_b].chunk(2, dim=1))
        _take_out(model, name, layer, a.to(_weight(layer).device), -b.to(_weight(layer).device))
    set_peft_model_state_dict(model, state)
    return model


def _layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _weight(layer: Any) -> Any:
    """(out, in), which GPT-2's layers store the other way round."""
    weight = layer.get_base_layer().weight.data
    return weight.T if layer.fan_in_fan_out else weight


def _take_out(model: Any, name: str, layer: Any, a: Any, b: Any) -> None:
    rest = _weight(layer).float() - layer.scaling["default"] * (b @ a)
    base = layer.get_base_layer()
    base.weight.data = (rest.T if layer.fan_in_fan_out else rest).to(base.weight.dtype).contiguous()
    model.pissa_start[name] = (a, b)
