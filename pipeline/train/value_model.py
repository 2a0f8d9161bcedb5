"""The value model of PPO: one number a token, begun as the policy, as a reward model or as any other."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.engines.models import language_model
from pipeline.errors import PipelineError
from pipeline.train import adapters
from pipeline.train.hardware import Hardware
from pipeline.train.rl_options import PPOOptions


def value_model(options: PPOOptions, machine: Hardware, begin: str, num_tokens: int) -> Any:
    """A model with one output a token (B, T, 1), tuned as the options say; it begins as the model `begin`.

    A model that has had no head of its own says 0 everywhere. Raises PipelineError.
    """
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(options.seed)
    folder = language_model(begin)
    light = machine.precision == "bf16" and options.value_tuning != "full"
    dtype = torch.bfloat16 if light else torch.float32
    try:
        model, found = AutoModelForTokenClassification.from_pretrained(
            folder, num_labels=1, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (ValueError, OSError) as error:
        said = str(error).splitlines()[0][:200].rstrip(".")
        fix = "Name a causal language model or a reward model of one."
        raise PipelineError(f"--value-model {begin}", f"cannot be loaded: {said}", fix) from error
    if model.get_input_embeddings().weight.shape[0] < num_tokens:
        fix = "Give a model with the policy's tokenizer."
        raise PipelineError(f"--value-model {begin}", "it has fewer tokens than the policy's tokenizer", fix)
    head = _head(model)
    missing = set(found["missing_keys"])
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if any(key.endswith(f".{name}") or key == name for key in missing):
                parameter.zero_()
    settings = adapters.Tuning(method=options.value_tuning, task="classify", rank=options.rank)
    return adapters.attach(model, settings)


def learning_rate(options: PPOOptions) -> float:
    """Five times what its method takes to learn answers: its task is new to it."""
    return options.value_learning_rate or 5 * adapters.METHODS[options.value_tuning].learning_rate


def _head(model: Any) -> Any:
    """The layer that says the value."""
    return model.score if hasattr(model, "score") else model.classifier
