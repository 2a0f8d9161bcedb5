"""Sparse differences to a model's linear layers, as a PEFT tuner: `fish-mask` and `diff-pruning`.

A layer computes base(x) + delta x. The delta is either *sparse* - the positions are known (from Fisher
scores, or from a finished diff pruning) and their values train - or *gated*: diff pruning (Guo et al. 2020,
arXiv:2012.07463) learns a difference for every weight together with a hard-concrete gate on it, an L0
penalty closes gates, and at last only the largest differences stay. Stored, a delta is always indices and
values.

Deviations from Guo et al.: (1) a gate per weight, none per matrix; (2) one learning rate for all, the
gates' slope makes up for it; (3) the penalty is the open *share*, so that its strength does not depend on
the model's size. FISH Mask chooses among the linear layers' weights where the paper takes all parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import nn

from pipeline.train.layer_tuner import LayerTuner, TunedLayer, register

PEFT_TYPE = "SPARSE_DELTA"
LOW, HIGH = -1.5, 1.5  # what the concrete distribution is stretched to before it is clipped to [0, 1]
OPEN = 5.0  # the gates' first log-odds (the authors' code): nearly all are open
SLOPE = 2000.0  # log-odds per unit of the parameter: 0.1 a step at a learning rate of 5e-5, as in their code
LOCK = 5.0  # a parameter so far out that the gate is decided: log-odds of 1e4


@dataclass
class SparseDeltaConfig(PeftConfig):
    """How many weights of each module differ, or `gated` while that is being learned."""

    gated: bool = False
    num_values: dict[str, int] = field(default_factory=dict)
    target_modules: set[str] = field(default_factory=set)
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        self.target_modules = set(self.target_modules)  # JSON gives a list


class Sparse(nn.Module):
    """`count` trained values at fixed positions of a matrix of zeros."""

    indices: torch.Tensor

    def __init__(self, shape: torch.Size, count: int) -> None:
        super().__init__()
        self.shape = shape
        self.values = nn.Parameter(torch.zeros(count))
        self.register_buffer("indices", torch.zeros(count, dtype=torch.int64))  # into the flattened matrix

    def forward(self) -> torch.Tensor:
        """The whole matrix, (out, in)."""
        zeros = self.values.new_zeros(self.shape.numel())
        return zeros.scatter(0, self.indices, self.values).view(self.shape)


class Gated(nn.Module):
    """A difference for every weight, times a gate in [0, 1]: a draw in training, else its likely value."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.difference = nn.Parameter(torch.zeros(shape))
        self.gate = nn.Parameter(torch.zeros(shape))

    def log_odds(self) -> torch.Tensor:
        """Of each gate, (out, in)."""
        return OPEN + SLOPE * self.gate

    def forward(self) -> torch.Tensor:
        """The whole matrix, (out, in)."""
        log_odds = self.log_odds()
        if self.training:
            uniform = torch.empty_like(log_odds).uniform_(1e-6, 1 - 1e-6)
            log_odds = log_odds + torch.logit(uniform)
        return (torch.sigmoid(log_odds) * (HIGH - LOW) + LOW).clamp(0, 1) * self.difference

    def lock(self, keep: torch.Tensor) -> None:
        """Decide every gate for good: open at the flat positions `keep`, shut elsewhere."""
        with torch.no_grad():
            self.gate.fill_(-LOCK).view(-1)[keep] = LOCK

    def locked(self) -> bool:
        """Whether the gates have been decided."""
        return bool(self.gate.abs().min() > LOCK / 2)


class SparseDeltaLayer(TunedLayer):
    """A linear layer plus one delta per adapter name."""

    adapter_layer_names = ("sparse_delta",)
    sparse_delta: nn.ModuleDict

    def make(self, config: SparseDeltaConfig, key: str) -> nn.Module:
        """A delta of the base weight's shape, with room for as many values as the module called `key` has."""
        base: Any = self.get_base_layer()
        shape = base.weight.shape
        return Gated(shape) if config.gated else Sparse(shape, config.num_values.get(key, 0))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base layer's output plus each active delta's.

        Two products instead of one with the sum, which in bfloat16 would round small differences away.
        """
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.sparse_delta:
                y = y + nn.functional.linear(x, self.sparse_delta[name]().to(x.dtype))
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the active deltas to the base weight."""
        for name in adapter_names or self.active_adapters:
            weight = self.get_base_layer().weight
            weight.data += self.sparse_delta[name]().to(weight.dtype)
            self.merged_adapters.append(name)


class SparseDeltaModel(LayerTuner):
    """Puts a SparseDeltaLayer in the place of each target module."""

    prefix = "sparse_delta"
    tuner_layer_cls = SparseDeltaLayer


def deltas(model: nn.Module, kind: type[Sparse] | type[Gated]) -> dict[str, Any]:
    """The model's deltas of one kind, by the name of their module in the base model."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, SparseDeltaLayer) and isinstance(module.sparse_delta["default"], kind):
            found[name.removeprefix("base_model.model.")] = module.sparse_delta["default"]
    return found


def keep_largest(scores: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """The flat positions, in order, of the largest scores: `share` of all, over all matrices together."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = flat.topk(max(1, round(share * flat.numel()))).indices.sort().values
    kept, start = {}, 0
    for name, score in scores.items():
        end = start + score.numel()
        kept[name] = chosen[(chosen >= start) & (chosen < end)] - start
        start = end
    return kept


def project(model: nn.Module, share: float) -> None:
    """Lock the gates so that only the `share` of the largest differences stays (Guo et al., section 3.3)."""
    gated = deltas(model, Gated)
    training = model.training
    model.eval()  # the gates' likely values, not a draw
    with torch.no_grad():
        kept = keep_largest({name: delta().abs() for name, delta in gated.items()}, share)
    model.train(training)
    for name, delta in gated.items():
        delta.lock(kept[name])


def open_share(model: nn.Module) -> torch.Tensor:
    """The share of gates that is expected to be open: the L0 norm over its largest value."""
    gated = deltas(model, Gated).values()
    shift = torch.log(torch.tensor(-LOW / HIGH)).item()
    expected = [torch.sigmoid(delta.log_odds() - shift).sum() for delta in gated]
    return torch.stack(expected).sum() / sum(delta.gate.numel() for delta in gated)


register(PEFT_TYPE, SparseDeltaConfig, SparseDeltaModel)
