"""Bottleneck adapters as a tuner in PEFT, which has none: y + up(gelu(down(y))) after a linear layer.

Houlsby et al. 2019 (arXiv:1902.00751) and Pfeiffer et al. 2020 (arXiv:2005.00247). Deviations: (1) `up`
starts at zero where the papers draw it near zero, so that training starts at exactly the base model; (2)
the norms of the base stay frozen (method "ln" trains them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import nn

from pipeline.train.layer_tuner import LayerTuner, TunedLayer, register

PEFT_TYPE = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):
    """The width of the bottlenecks and the layers whose outputs they follow."""

    width: int = 64
    dropout: float = 0.0
    target_modules: set[str] = field(default_factory=set)
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        self.target_modules = set(self.target_modules)  # JSON gives a list


class BottleneckLayer(TunedLayer):
    """A linear layer with one bottleneck per adapter name behind it."""

    adapter_layer_names = ("bottleneck",)
    bottleneck: nn.ModuleDict

    def make(self, config: BottleneckConfig, key: str) -> nn.Module:
        """A bottleneck as wide as the configuration says."""
        base: Any = self.get_base_layer()
        size = base.nf if hasattr(base, "nf") else base.out_features  # GPT-2's Conv1D calls it nf
        up = nn.Linear(config.width, size)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        return nn.Sequential(nn.Dropout(config.dropout), nn.Linear(size, config.width), nn.GELU(), up)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base layer's output (..., size) plus each active bottleneck's."""
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        for name in self.active_adapters:
            if name in self.bottleneck:
                bottleneck: Any = self.bottleneck[name]
                y = y + bottleneck(y.to(bottleneck[1].weight.dtype)).to(y.dtype)
        return y


class BottleneckModel(LayerTuner):
    """Puts a BottleneckLayer in the place of each target module."""

    prefix = "bottleneck"
    tuner_layer_cls = BottleneckLayer


register(PEFT_TYPE, BottleneckConfig, BottleneckModel)
