"""LOMO and AdaLOMO: every parameter is updated, and its gradient freed, as soon as backward has computed it.

Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited Resources",
arXiv:2306.09782; Lv et al. 2023, "AdaLomo: Low-memory Optimization with Adaptive Learning Rate",
arXiv:2310.10195.

The arithmetic is the libraries': LOMO is torch's SGD, AdaLOMO is transformers' Adafactor with steps scaled by
the weights' root mean square (the formula of the authors' package, its decay of 1 - t ** -0.8 included). Only
the moment of the update is ours. The authors' package lomo-optim allocates on CUDA even for a CPU, keeps
AdaLOMO's statistics out of the state dict, so that no run can be resumed, and wants a backward call of its
own.

Deviations:

1. No clipping by the norm of all gradients, for which the paper runs backward twice. AdaLOMO limits each
   update to a root mean square of 1 instead.
2. No loss scaling: float32 or bfloat16, not float16 autocast.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from transformers.optimization import Adafactor as LibraryAdafactor

from pipeline.train.float32_state import Float32State


class InBackward(torch.optim.Optimizer):
    """A mixin to put before a torch optimizer: it steps for each parameter alone, from within backward.

    Hooks look their group up by its place, since loading a state dict replaces the groups. They hold the
    optimizer weakly: once it is gone, backward leaves gradients as usual.
    """

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        super().__init__(groups, **options)
        self._alone = threading.Lock()  # with layers on several devices, backward runs a thread for each
        for place, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(_hook(weakref.ref(self), place))

    def update(self, parameter: torch.Tensor, place: int) -> None:
        """Step for this parameter of the group at `place` as if it were alone, and free its gradient."""
        with self._alone:
            groups = self.param_groups
            self.param_groups = [{**groups[place], "params": [parameter]}]
            try:
                super().step()
            finally:
                self.param_groups = groups
        parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        """Do nothing: backward has already updated every parameter."""
        return None if closure is None else closure()


def _hook(optimizer: weakref.ref[InBackward], place: int) -> Callable[[torch.Tensor], None]:
    def update(parameter: torch.Tensor) -> None:
        """Run when backward has completed the parameter's gradient."""
        alive = optimizer()
        if alive is not None:
            alive.update(parameter, place)

    return update


class Adafactor(Float32State, LibraryAdafactor):
    """Adafactor that follows the given learning rate, as transformers' Trainer sets it up."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, scale_parameter: bool = False) -> None:
        super().__init__(groups, lr=lr, scale_parameter=scale_parameter, relative_step=False)


class Lomo(InBackward, torch.optim.SGD):
    """Gradient descent within backward; it keeps no state."""


class AdaLomo(InBackward, Adafactor):
    """Adafactor within backward, each step in proportion to the root mean square of its weights.

    So it is for full fine-tuning: weights that start at zero, as a LoRA's B does, hardly move.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, scale_parameter=True)
