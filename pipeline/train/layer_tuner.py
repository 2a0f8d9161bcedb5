"""What our own tuners inside PEFT have in common: a layer with a module per adapter name beside it."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn


class TunedLayer(nn.Module, BaseTunerLayer):
    """A base layer; subclasses name the dictionary of modules (`adapter_layer_names`) and `make` one."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: Any, key: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        setattr(self, self.adapter_layer_names[0], nn.ModuleDict())
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config, key)

    def make(self, config: Any, key: str) -> nn.Module:
        """What is trained beside the base layer, which the model calls `key`."""
        raise NotImplementedError

    def update_layer(self, adapter_name: str, config: Any, key: str) -> None:
        """Add the module of `adapter_name`."""
        getattr(self, self.adapter_layer_names[0])[adapter_name] = self.make(config, key)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)


class LayerTuner(BaseTuner):
    """Puts a layer of `tuner_layer_cls`, a TunedLayer, in the place of each target module."""

    target_module_mapping: dict[str, list[str]] = {}

    def _create_and_replace(  # type: ignore[override] # only ever called with its own configuration
        self, config: Any, adapter_name: str, target: Any, target_name: str, parent: Any, current_key: str
    ) -> None:
        kind: Any = self.tuner_layer_cls
        if isinstance(target, kind):
            target.update_layer(adapter_name, config, current_key)
            return
        layer = kind(target, adapter_name, config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def register(name: str, config: type[PeftConfig], tuner: type[LayerTuner]) -> None:
    """Enter a tuner where PEFT looks it up; `register_peft_method` admits only PEFT's own names."""
    PEFT_TYPE_TO_CONFIG_MAPPING[name] = config  # type: ignore[index]
    PEFT_TYPE_TO_TUNER_MAPPING[name] = tuner  # type: ignore[index]
    PEFT_TYPE_TO_PREFIX_MAPPING[name] = tuner.prefix  # type: ignore[index]
