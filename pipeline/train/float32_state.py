"""Optimizer state that stays float32 when it is loaded: a resumed run equals one that never stopped.

torch casts loaded state to the parameter's type, so statistics kept in float32 beside bfloat16 weights would
lose 16 of their 24 bits at each resume.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch


class Float32State(torch.optim.Optimizer):
    """A mixin to put before an optimizer whose tensors of state are float32 whatever the parameter is."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load as torch does, then put the values back that it rounded."""
        super().load_state_dict(state_dict)
        ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(ids, parameters, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor):
                    self.state[parameter][key] = value.to(parameter.device)
