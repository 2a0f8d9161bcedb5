"""The value model of PPO: one number a token, begun as the policy, as a reward model or as any other.

Or a head: one layer on the policy's own states, as in TRL's first PPO; here its gradients stop at the states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline.engines.models import language_model
from pipeline.errors import PipelineError
from pipeline.train import adapters
from pipeline.train.critic import VALUE_FILE
from pipeline.train.hardware import Hardware
from pipeline.train.rl_options import PPOOptions

HEAD_FILE = f"value_model/{VALUE_FILE}"  # in a run's directory
HEAD_LEARNING_RATE = 1e-4  # an Adam step moves a value by up to that times its hundreds of states


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


def head(policy: Any, begin: str) -> torch.nn.Module:
    """A layer (B, T, H) -> (B, T, 1) for the policy's states: 0 everywhere, or that of the PPO run `begin`.

    Raises PipelineError.
    """
    width = policy.config.get_text_config().hidden_size
    found = torch.nn.Linear(width, 1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
    if begin:
        file = Path(begin) / HEAD_FILE
        if not file.is_file():
            fix = "Name a run of pipeline.ppo --value-tuning head, or leave it out."
            raise PipelineError(f"--value-model {begin}", f"no {HEAD_FILE}", fix)
        weights = load_file(file)
        if weights["weight"].shape != found.weight.shape:
            problem = f"its policy has states of {weights['weight'].shape[1]} numbers, this one of {width}"
            raise PipelineError(f"--value-model {begin}", problem, "Begin with a run of this policy.")
        found.load_state_dict(weights)
    return found


def learning_rate(options: PPOOptions) -> float:
    """Of models five times what their method takes to learn answers: the task is new to them."""
    if options.value_learning_rate:
        return options.value_learning_rate
    if options.value_tuning == "head":
        return HEAD_LEARNING_RATE
    return 5 * adapters.METHODS[options.value_tuning].learning_rate


def _head(model: Any) -> Any:
    """The layer that says the value."""
    return model.score if hasattr(model, "score") else model.classifier
