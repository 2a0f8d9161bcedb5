"""Biases that bitfit gave to a model without any, in a plain model - where its architecture has room."""

from __future__ import annotations

import copy
from typing import Any

from pipeline.errors import PipelineError

SWITCHES = ("attention_bias", "mlp_bias")  # of a configuration: Llama has both, Qwen the first


def merge_biases(model: Any) -> Any:
    """The same architecture with biases switched on, holding the trained ones and zeros elsewhere."""
    import torch
    from peft.tuners.beft.layer import BeftLayer

    biases = {
        f"{name.removeprefix('base_model.model.')}.bias": layer.beft_bias["default"].detach().flatten()
        for name, layer in model.named_modules()
        if isinstance(layer, BeftLayer)
    }
    config = copy.deepcopy(model.config)
    for switch in SWITCHES:
        if hasattr(config, switch):
            setattr(config, switch, True)
    with torch.device(model.device):
        merged = type(model.get_base_model())(config)
    places = merged.state_dict()
    if homeless := sorted(set(biases) - set(places)):
        problem = f"{type(merged).__name__} has no place for {len(homeless)} new biases, as {homeless[0]}"
        fix = "Keep the base and what was saved, and load them together."
        raise PipelineError("merging bitfit", problem, fix)
    plain = model.unload()
    zeros = {name: torch.zeros_like(value) for name, value in places.items() if name.endswith(".bias")}
    merged.load_state_dict({**zeros, **plain.state_dict(), **biases})
    if hasattr(plain, "generation_config"):
        merged.generation_config = plain.generation_config
    return merged.to(plain.dtype).eval()
