"""Which modules of a model a tuning method touches, found by looking at the model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from torch import nn

HEADS = ("score", "classifier")  # of sequence classification, as transformers names it
# Where a block's result leaves it, in the architectures of transformers.
ATTENTION_OUT = ("o_proj", "out_proj", "attn.c_proj", "attention.dense", "self_attention.dense")
MLP_OUT = ("down_proj", "fc2", "mlp.c_proj", "dense_4h_to_h", "w2")
KEYS_VALUES = ("k_proj", "v_proj", "key", "value")


def plain(model: Any) -> Any:
    """The transformers model itself, of a PeftModel, too."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def linear_names(model: Any) -> tuple[str, ...]:
    """The last parts of the names of all linear layers but the language model's or classifier's head."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not _in_head(name)
    }
    return tuple(sorted(found))


def chosen(model: Any, names: tuple[str, ...], defaults: tuple[str, ...]) -> list[str]:
    """The target modules: `names`, each of which has to be there, or else those of `defaults` that are."""
    modules = {name for name, module in model.named_modules() if name and not _in_head(name)}
    if not names:
        present = [name for name in defaults if _matches(modules, name)]
        if not present:
            problem = f"{type(model).__name__} has none of the layers {', '.join(defaults)}"
            raise PipelineError("target_modules", problem, "Name the layers to adapt.")
        return present
    for name in names:
        if _is_tied_head(model, name):
            problem = f"{name} shares its weights with the input embeddings, so adapting it would change both"
            raise PipelineError("target_modules", problem, "Leave it out, or tune fully.")
        if not _matches(modules, name):
            linear = linear_names(model)
            close = difflib.get_close_matches(name, linear, 1, 0.5)
            hint = f"Did you mean {close[0]}?" if close else f"It has {', '.join(linear)}."
            raise PipelineError("target_modules", f"{type(model).__name__} has no layer {name}", hint)
    return list(names)


def named(model: Any, names: Iterable[str]) -> dict[str, nn.Module]:
    """The modules outside the head that have one of these names, by their whole path."""
    ends = tuple(f".{name}" for name in names)
    return {path: m for path, m in model.named_modules() if path.endswith(ends) and not _in_head(path)}


def norm_names(model: Any) -> tuple[str, ...]:
    """The last parts of the names of all layer norms, of whichever kind."""
    found = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_norm(module)}
    return tuple(sorted(found))


def layers(model: Any) -> nn.ModuleList:
    """The model's transformer layers."""
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        problem = f"{type(model).__name__} has no list of layers"
        raise PipelineError("last-k", problem, "Choose another method.")
    return max(lists, key=len)


def norms_outside(model: Any, inside: nn.ModuleList) -> Iterator[nn.Module]:
    """The norms that belong to none of the layers: the one before the head."""
    within = set(inside.modules())
    return (module for module in model.modules() if _is_norm(module) and module not in within)


def head(model: Any) -> nn.Module:
    """The head of a sequence classifier."""
    for name, module in model.named_children():
        if name in HEADS:
            return module
    problem = f"{type(model).__name__} has no head named {' or '.join(HEADS)}"
    raise PipelineError("task classify", problem, "Load the model for sequence classification.")


def _matches(modules: set[str], name: str) -> bool:
    return any(module == name or module.endswith(f".{name}") for module in modules)


def _in_head(name: str) -> bool:
    return name.partition(".")[0] in HEADS


def _is_norm(module: Any) -> bool:
    return type(module).__name__.endswith("Norm") and getattr(module, "weight", None) is not None


def _is_tied_head(model: Any, name: str) -> bool:
    out, given = model.get_output_embeddings(), model.get_input_embeddings()
    named = [module for path, module in model.named_modules() if path == name or path.endswith(f".{name}")]
    return out is not None and out.weight is given.weight and any(m is out or m is given for m in named)
