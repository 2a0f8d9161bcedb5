"""Every way to tune a model, by name: one table (`METHODS`), one way to attach, save, load and merge.

PEFT carries out most methods; bottleneck adapters and sparse differences are tuners of ours inside PEFT
(`bottleneck_tuner`, `sparse_delta`), prompt ensembles a model class of ours (`soft_prompts`); full, last-k
and the biases of a model that has some leave the model as it is and choose what trains.

A trainer adds `extra_loss(model)` to its loss, takes `callbacks(model, tuning)`, and on resuming calls
`restore(model, checkpoint)` before the Trainer's own loading.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.train import targets
from pipeline.train.methods import METHODS, Method, Tuning
from pipeline.train.storage import REPARAMETRISED, last_written, load, model_class, restore, save

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

__all__ = [
    "METHODS",
    "Method",
    "Tuning",
    "attach",
    "callbacks",
    "extra_loss",
    "last_written",
    "load",
    "merge",
    "model_class",
    "restore",
    "save",
    "trainable",
]
ORTHOGONALITY = 0.5  # weight of AdaLoRA's penalty, PEFT's default
L0 = 1.0  # weight of diff pruning's open share of gates
POSITIVE = ("rank", "num_virtual_tokens", "bottleneck", "last_layers", "num_ensemble", "sparsity")


def attach(model: Any, tuning: Tuning, *, batches: Iterable[dict[str, torch.Tensor]] | None = None) -> Any:
    """The model to train: a PeftModel, or the same model with other parameters frozen.

    `batches` (input_ids, attention_mask, labels) are what fish-mask scores the weights on.
    """
    _check(model, tuning, batches)
    name = tuning.method
    if name == "full":
        model.requires_grad_(True)
    elif name == "last-k":
        _train_only(model, _last_layers(model, tuning), tuning)
    elif name == "bitfit" and (biases := _biases(model)):
        _train_only(model, biases, tuning)
    else:
        model = _attach_peft(model, tuning, batches)
    model.tuning = tuning
    return model


def callbacks(model: Any, tuning: Tuning) -> list[TrainerCallback]:
    """What the method needs called while a Trainer runs."""
    from pipeline.train.tuning_callbacks import Projection, RankSchedule, TrainingState

    if tuning.method == "adalora":
        return [RankSchedule(), TrainingState()]
    if tuning.method in REPARAMETRISED:
        return [TrainingState()]
    return [Projection(tuning)] if tuning.method == "diff-pruning" else []


def extra_loss(model: Any) -> torch.Tensor | None:
    """What a trainer must add to its loss, a scalar, or None."""
    method = model.tuning.method
    if method == "adalora":
        return ORTHOGONALITY * _distance_from_orthogonal(model)
    if method == "diff-pruning":
        from pipeline.train.sparse_delta import Gated, deltas, open_share

        return L0 * open_share(model) if deltas(model, Gated) else None
    return None


def merge(model: Any) -> Any:
    """A plain transformers model with the same logits, made of this one. PipelineError if there is none."""
    method = METHODS[model.tuning.method]
    if not method.merges:
        fix = "Keep the base and what was saved, and load them together."
        raise PipelineError(f"merging {method.name}", method.unmergeable, fix)
    model.eval()
    if not hasattr(model, "merge_and_unload"):
        return model
    if method.name == "bitfit":
        from pipeline.train.added_biases import merge_biases

        return merge_biases(model)
    return _unwrapped(model.merge_and_unload())


def trainable(model: Any) -> tuple[int, int]:
    """How many parameters train, and how many there are."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def _unwrapped(model: Any) -> Any:
    """The model with its trained head itself in place: after LN tuning PEFT leaves its wrapper around it."""
    for name, child in model.named_children():
        if hasattr(child, "modules_to_save"):
            setattr(model, name, child.modules_to_save["default"])
    return model


def _check(model: Any, tuning: Tuning, batches: object) -> None:
    if tuning.method not in METHODS:
        close = difflib.get_close_matches(tuning.method, METHODS, 1, 0.5)
        fix = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(METHODS)}."
        raise PipelineError("tuning", f"unknown method {tuning.method!r}", fix)
    for name in METHODS[tuning.method].settings:
        value = getattr(tuning, name)
        if name in POSITIVE and value <= 0:
            raise PipelineError(name, f"it is {value}, expected more than 0", "Choose a larger one.")
    if tuning.sparsity > 1:
        problem = f"it is {tuning.sparsity}, expected a share up to 1"
        raise PipelineError("sparsity", problem, "Choose a smaller one.")
    if tuning.task not in ("causal", "classify"):
        raise PipelineError("task", f"it is {tuning.task!r}", "Choose causal or classify.")
    if tuning.task == "classify":
        targets.head(model)
    if tuning.method == "fish-mask" and batches is None:
        fix = "Give attach some batches of the training data."
        raise PipelineError("fish-mask", "the weights are chosen on data, and there is none", fix)
    if not METHODS[tuning.method].quantizes and getattr(model, "is_quantized", False):
        fix = "Choose lora, or load the model unquantised."
        raise PipelineError(tuning.method, "it changes the weights themselves, and these are quantised", fix)
    if not METHODS[tuning.method].checkpoints and getattr(model, "is_gradient_checkpointing", False):
        fix = "Turn gradient checkpointing off."
        raise PipelineError(tuning.method, "a prefix is a cache, which gradient checkpointing disables", fix)


def _train_only(model: Any, parameters: Iterable[torch.nn.Parameter], tuning: Tuning) -> None:
    """Freeze all but these and a classifier's head, and note their names."""
    chosen = {id(parameter) for parameter in parameters}
    if tuning.task == "classify":
        chosen |= {id(parameter) for parameter in targets.head(model).parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    model.trained_names = tuple(name for name, p in model.named_parameters() if id(p) in chosen)


def _last_layers(model: Any, tuning: Tuning) -> list[torch.nn.Parameter]:
    layers = targets.layers(model)
    if tuning.last_layers > len(layers):
        problem = f"it is {tuning.last_layers}, and the model has {len(layers)} layers"
        raise PipelineError("last_layers", problem, "Choose fewer, or tune fully.")
    modules = [*layers[-tuning.last_layers :], *targets.norms_outside(model, layers)]
    return [parameter for module in modules for parameter in module.parameters()]


def _biases(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if name.endswith(".bias")]


def _attach_peft(model: Any, tuning: Tuning, batches: Iterable[dict[str, torch.Tensor]] | None) -> Any:
    from peft import get_peft_model

    from pipeline.train.peft_configs import config_for, freeze_rank_counts, without_warnings

    config = config_for(model, tuning)
    if config.is_prompt_learning:
        from pipeline.train.soft_prompts import prompt_model

        return prompt_model(model, config, tuning)
    if tuning.method == "fish-mask":
        assert batches is not None
        return _with_fisher_mask(model, config, tuning, batches)
    tuned: Any
    with without_warnings():
        tuned = get_peft_model(model, config)
    if tuning.method == "adalora":
        freeze_rank_counts(tuned)
    if tuning.method == "pissa":
        from pipeline.train import pissa

        pissa.begin(tuned)
    return tuned


def _with_fisher_mask(
    model: Any, config: Any, tuning: Tuning, batches: Iterable[dict[str, torch.Tensor]]
) -> Any:
    """Sparse deltas at the positions of the largest scores."""
    from peft import get_peft_model

    from pipeline.train.fisher import fisher_scores
    from pipeline.train.sparse_delta import Sparse, deltas, keep_largest

    modules = targets.named(model, config.target_modules)
    kept = keep_largest(fisher_scores(model, modules, batches), tuning.sparsity)
    config.num_values = {name: len(indices) for name, indices in kept.items() if len(indices)}
    config.target_modules = set(config.num_values)
    tuned = get_peft_model(model, config)
    for name, delta in deltas(tuned, Sparse).items():
        delta.indices.copy_(kept[name])
    return tuned


def _distance_from_orthogonal(model: Any) -> torch.Tensor:
    """The mean Frobenius norm of P P' - 1 over AdaLoRA's A and B matrices (Zhang et al. 2023, equation 4)."""
    import torch

    distances = []
    for name, p in model.named_parameters():
        if ("lora_A" in name or "lora_B" in name) and p.requires_grad:
            gram = p @ p.T if "lora_A" in name else p.T @ p
            distances.append(torch.linalg.norm(gram - torch.eye(len(gram), device=p.device, dtype=p.dtype)))
    return torch.stack(distances).mean()
