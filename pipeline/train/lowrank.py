"""GaLore and APOLLO: AdamW whose moments live in a projection of the gradient to a few dimensions.

Zhao et al. 2024, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", arXiv:2403.03507;
Zhu et al. 2024, "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270.

The authors' packages cannot be imported without bitsandbytes, and keep Python objects in the state dict that
transformers' Trainer refuses to load (`weights_only=True`): no run could be resumed. Hence these, which
make the same steps. Deviations from the packages:

1. A matrix whose smaller side is not above the rank is left to plain AdamW: projecting it would save nothing,
   and Adam's step in a rotated basis is another one. Vectors, embeddings and the head are AdamW's as well.
2. Weight decay comes before the step and epsilon after the bias correction, as in torch's AdamW.
3. APOLLO draws its projection again at each step instead of storing it, from other seeds than the package.
4. APOLLO's limit on growth does not hold after a step of zeros, which would freeze the matrix.
5. Moments are float32 whatever the weights are.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from pipeline.train.float32_state import Float32State

GALORE_SCALE = 0.25  # the paper's alpha: projected matrices learn at this fraction of the given rate
APOLLO_GROWTH = 1.01  # a scaled gradient's norm may grow by 1% from step to step (Fira, arXiv:2410.01623)


class LowRankAdamW(Float32State):
    """AdamW; subclasses give the direction for the matrices of those groups that have a `rank`."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], update_every: int
    ) -> None:
        fixed = {"eps": 1e-8, "weight_decay": 0.0, "rank": 0}
        super().__init__(groups, {"lr": lr, "betas": betas, "update_every": update_every, **fixed})

    def direction(self, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
        """The step, before bias correction, for a `gradient` (m, n), m >= n > rank."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state, gradient = self.state[parameter], parameter.grad.float()
        if not state:
            state.update(step=0, number=len(self.state))
        if gradient.ndim != 2 or not 0 < group["rank"] < min(gradient.shape):
            direction = adam(gradient, state, group)
        elif gradient.shape[0] >= gradient.shape[1]:
            direction = self.direction(gradient, state, group)
        else:
            direction = self.direction(gradient.T, state, group).T
        first, second = bias_corrections(state["step"], group)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction.to(parameter.dtype), alpha=-group["lr"] * second / first)


def bias_corrections(step: int, group: dict[str, Any]) -> tuple[float, float]:
    """What Adam's first moment and the root of its second are divided by at `step`, counted from 1."""
    beta1, beta2 = group["betas"]
    return 1 - beta1**step, math.sqrt(1 - beta2**step)


def adam(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
    """Count the step, move both moments and return their quotient, before bias correction."""
    state["step"] += 1
    if "exp_avg" not in state:
        state.update(exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(gradient))
    beta1, beta2 = group["betas"]
    mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    return mean / square.sqrt().add_(group["eps"] * bias_corrections(state["step"], group)[1])


class GaLore(LowRankAdamW):
    """Adam in the space of the gradient's leading singular vectors, found anew every `update_every` steps."""

    def direction(self, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
        """Project, take Adam's step there, and come back."""
        if state["step"] % group["update_every"] == 0:
            rows = torch.linalg.svd(gradient, full_matrices=False).Vh[: group["rank"]]
            state["projection"] = rows.clone()  # (rank, n), not a view that keeps all n rows alive
        projection = state["projection"]
        return GALORE_SCALE * adam(gradient @ projection.T, state, group) @ projection


class Apollo(LowRankAdamW):
    """The gradient itself, each row scaled by what Adam does to that row in a random projection."""

    def direction(self, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
        """Project at random, see how Adam scales each row there, and scale the whole rows so."""
        small = gradient @ random_projection(gradient, state, group)  # (m, rank)
        scale = adam(small, state, group).norm(dim=1) / (small.norm(dim=1) + 1e-8)
        scaled = gradient * scale.unsqueeze(1)
        norm = scaled.norm()
        before = state.get("norm", torch.zeros_like(norm))
        state["norm"] = torch.where(before > 0, norm.minimum(APOLLO_GROWTH * before), norm)
        return scaled * (state["norm"] / norm.clamp_min(torch.finfo(norm.dtype).tiny))


def random_projection(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
    """Draw (n, rank) normal numbers of variance 1 / rank, the same for `update_every` steps."""
    seed = 1_000_003 * state["number"] + state["step"] // group["update_every"]
    generator = torch.Generator(gradient.device).manual_seed(seed)
    shape = gradient.shape[1], group["rank"]
    return torch.randn(shape, generator=generator, device=gradient.device) / math.sqrt(group["rank"])
