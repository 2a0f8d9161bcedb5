"""Optimizers and learning-rate schedules by name, for the `optimizers=` of any transformers or TRL trainer.

    settings = OptimizerSettings(name="galore", learning_rate=1e-3, layer_decay=0.9)
    optimizer = build(model, settings)
    trainer = SFTTrainer(model, args, ..., optimizers=(optimizer, None))

- Weight decay leaves biases and norms alone: it falls on tensors of two and more dimensions.
- Layer-wise learning-rate decay (Howard & Ruder 2018, arXiv:1801.06146; Clark et al. 2020, arXiv:2003.10555):
  with L layers the head (all that follows them) learns at the full rate, layer i of 0 .. L-1 at
  layer_decay ** (L - i) of it, the embeddings (all that precedes them, and a tied head) at
  layer_decay ** (L + 1).
- A PEFT model is wrapped first and then given to `build`: what is frozen at that moment is left out.

Deviations: GaLore and APOLLO in `lowrank.py`, LOMO and AdaLOMO in `lomo.py`; the rest is the libraries' own.
This module imports torch only where it needs it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import unknown
from pipeline.errors import PipelineError
from pipeline.train.schedules import SCHEDULES, schedule

if TYPE_CHECKING:
    import torch

    from pipeline.train.options import BaseOptions

Groups = list[dict[str, Any]]  # as torch's optimizers take them
_HIGH = 1e-3  # a learning rate

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Optimizer",
    "OptimizerSettings",
    "build",
    "parameter_groups",
    "schedule",
]


@dataclass(frozen=True)
class Optimizer:
    """One row of the table: what it is, what it costs, and whether it updates inside the backward pass."""

    name: str
    summary: str
    memory: str  # bytes of state per trained parameter
    needs_hook: bool = False  # then: one batch per update, one process, no gradient left to clip


_LOW_RANK = ("galore", "apollo")
_PROJECTED = "8 r/n{} bytes in the layers (their matrices are m x n, n <= m), 8 elsewhere"

OPTIMIZERS: dict[str, Optimizer] = {
    row.name: row
    for row in (
        Optimizer("adamw", "Adam with decoupled weight decay (arXiv:1711.05101)", "8 bytes (bf16: 4)"),
        Optimizer("adamw8bit", "AdamW with 8-bit moments, bitsandbytes (arXiv:2110.02861)", "2 bytes"),
        Optimizer("adafactor", "second moments as a row and a column (arXiv:1804.04235)", "about 0 bytes"),
        Optimizer("lomo", "SGD within the backward pass (arXiv:2306.09782)", "0 bytes, no gradients", True),
        Optimizer(
            "adalomo",
            "Adafactor scaled by the weights, within the backward pass (arXiv:2310.10195)",
            "about 0 bytes, no gradients",
            True,
        ),
        Optimizer(
            "galore",
            "AdamW on gradients projected to rank r by SVD (arXiv:2403.03507)",
            _PROJECTED.format(" + 4 r/m"),
        ),
        Optimizer(
            "apollo",
            "gradients scaled as AdamW would, judged in a random rank-r projection (arXiv:2412.05270)",
            _PROJECTED.format(""),
        ),
        Optimizer("sgd", "gradient descent without momentum", "0 bytes"),
    )
}


@dataclass(frozen=True)
class OptimizerSettings:
    """What `build` needs to know: the betas for Adam's kin, the last two for GaLore and APOLLO."""

    name: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    layer_decay: float = 1.0  # in (0, 1]; 1: the same rate everywhere
    rank: int = 128
    update_every: int = 200  # steps between two projections


def chosen(options: BaseOptions, own: float, scale: float) -> OptimizerSettings:
    """What the options say; without a learning rate the tuning method's `own`, times `scale`.

    Methods whose own rate is high do not bear a higher one.
    """
    return OptimizerSettings(
        options.optimizer,
        learning_rate=options.learning_rate or min(scale * own, max(own, _HIGH)),
        weight_decay=options.weight_decay,
        layer_decay=options.layer_decay,
        rank=options.optimizer_rank,
    )


def parameter_groups(model: Any, settings: OptimizerSettings) -> Groups:
    """Group the trainable parameters by learning rate and weight decay, the highest rate first.

    For GaLore and APOLLO the groups of layer weights also carry the `rank`. Raises PipelineError.
    """
    if not 0 < settings.layer_decay <= 1:
        problem = f"got {settings.layer_decay}, expected more than 0 and at most 1"
        raise PipelineError("layer_decay", problem, "1 turns it off; 0.9 is common.")
    low_rank = settings.name in _LOW_RANK
    by_depth = low_rank or settings.layer_decay < 1
    depths, head = _depths(model) if by_depth else ({}, 0)
    groups: dict[tuple[float, float, int], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depths.get(name, head)
        rate = settings.learning_rate * settings.layer_decay ** (head - depth)
        decay = settings.weight_decay if parameter.ndim > 1 and not name.endswith("bias") else 0.0
        rank = settings.rank if low_rank and parameter.ndim == 2 and 0 < depth < head else 0
        group = {"params": [], "lr": rate, "weight_decay": decay} | ({"rank": rank} if rank else {})
        groups.setdefault((rate, decay, rank), group)["params"].append(parameter)
    if not groups:
        fix = "Unfreeze something, or wrap the model with its adapter first."
        raise PipelineError("optimizer", "the model has no trainable parameter", fix)
    return [groups[key] for key in sorted(groups, reverse=True)]


def _depths(model: Any) -> tuple[dict[str, int], int]:
    """The depth of each parameter (0: embeddings, i + 1: layer i, L + 1: head), and L + 1.

    The layers are the one list of `num_hidden_layers` modules; other lists (experts) lie inside it.
    """
    from torch import nn

    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
        if not any(part.isdigit() for part in name.split("."))
    ]
    if count is None or len(stacks) != 1:
        problem = f"found {len(stacks)} lists of {count} layers in {type(model).__name__}, expected 1"
        raise PipelineError("optimizer", problem, "Take layer_decay 1 and neither galore nor apollo.")
    prefix, depths, outside = stacks[0] + ".", {}, 0
    for name, _ in model.named_parameters():
        if name.startswith(prefix):
            depths[name] = 1 + int(name.removeprefix(prefix).split(".")[0])
            outside = count + 1
        else:
            depths[name] = outside
    return depths, count + 1


def build(
    model: Any, settings: OptimizerSettings, *, gradient_accumulation: int = 1, max_grad_norm: float = 0.0
) -> torch.optim.Optimizer:
    """Make the optimizer `settings.name` for the trainable parameters of `model`. Raises PipelineError.

    `gradient_accumulation` and `max_grad_norm` (0: no clipping) are what the trainer will run with: an
    optimizer that updates inside the backward pass refuses anything but 1 and 0.
    """
    if settings.name not in OPTIMIZERS:
        raise unknown("optimizer", f"optimizer '{settings.name}'", settings.name, OPTIMIZERS)
    if OPTIMIZERS[settings.name].needs_hook:
        _check_hooked(settings.name, gradient_accumulation, max_grad_norm)
    groups = parameter_groups(model, settings)
    return _eight_bit(model, groups, settings) if settings.name == "adamw8bit" else _make(groups, settings)


def _check_hooked(name: str, accumulation: int, max_grad_norm: float) -> None:
    """Refuse what needs whole gradients, which an update inside the backward pass never has."""
    where, processes = f"optimizer {name}", int(os.environ.get("WORLD_SIZE", "1"))
    if accumulation != 1:
        problem = f"got gradient accumulation {accumulation}, expected 1: each backward pass updates"
        raise PipelineError(where, problem, "Enlarge the batch instead, or take adafactor.")
    if max_grad_norm:
        problem = f"got max_grad_norm {max_grad_norm:g}, expected 0: no gradients are kept to clip"
        raise PipelineError(where, problem, "Set it to 0 and lower the learning rate, or take adafactor.")
    if processes > 1:
        problem = f"got {processes} processes, expected 1: it updates before gradients are averaged"
        raise PipelineError(where, problem, "Run one process, or take adafactor.")


def _make(groups: Groups, settings: OptimizerSettings) -> torch.optim.Optimizer:
    rate, betas = settings.learning_rate, (settings.beta1, settings.beta2)
    if settings.name in _LOW_RANK:
        from pipeline.train import lowrank

        low_rank = lowrank.GaLore if settings.name == "galore" else lowrank.Apollo
        return low_rank(groups, lr=rate, betas=betas, update_every=settings.update_every)
    if settings.name in ("adamw", "sgd"):
        from torch import optim

        if settings.name == "sgd":
            return optim.SGD(groups, lr=rate)
        return optim.AdamW(groups, rate, betas, fused=True)
    from pipeline.train import lomo

    if settings.name == "lomo":
        return lomo.Lomo(groups, lr=rate)
    factored = lomo.AdaLomo if settings.name == "adalomo" else lomo.Adafactor
    return factored(groups, lr=rate)


def _eight_bit(model: Any, groups: Groups, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW of bitsandbytes; the embeddings' moments stay in 32 bits, as in transformers."""
    import torch
    from packaging.version import Version

    where, fix = "optimizer adamw8bit", 'pip install "bitsandbytes>=0.50", or take adafactor, galore or lomo.'
    try:
        import bitsandbytes
        from bitsandbytes.optim import AdamW8bit, GlobalOptimManager
    except ImportError as error:
        raise PipelineError(where, f"it needs the package bitsandbytes ({error})", fix) from error
    version = bitsandbytes.__version__
    if Version(version) < Version("0.50") and not torch.accelerator.is_available():
        raise PipelineError(where, f"bitsandbytes {version} needs a GPU, expected 0.50 for a CPU", fix)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            GlobalOptimManager.get_instance().register_module_override(module, "weight", {"optim_bits": 32})
    return AdamW8bit(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))
