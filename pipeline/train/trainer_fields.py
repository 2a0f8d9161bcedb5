"""The fields of a Trainer's configuration: those that our options decide, and those passed through."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import unknown
from pipeline.errors import PipelineError
from pipeline.train import optimizers
from pipeline.train.hardware import Hardware
from pipeline.train.options import BaseOptions

_OURS = {
    "learning_rate": "--learning-rate", "num_train_epochs": "--num-epochs", "max_steps": "--max-steps",
    "per_device_train_batch_size": "--batch-size", "gradient_accumulation_steps": "--gradient-accumulation",
    "optim": "--optimizer", "lr_scheduler_type": "--schedule", "warmup_steps": "--warmup-frac",
    "weight_decay": "--weight-decay", "neftune_noise_alpha": "--neftune", "bf16": "--precision",
    "fp16": "--precision", "packing": "--packing", "gradient_checkpointing": "--gradient-checkpointing",
    "seed": "--seed", "output_dir": "--run", "max_length": "--max-length", "eval_steps": "--eval-every",
    "resume_from_checkpoint": "--resume", "completion_only_loss": "", "assistant_only_loss": "",
    "dataset_kwargs": "", "chat_template_path": "--format-file", "eos_token": "", "padding_free": "--packing",
    "packing_strategy": "--packing", "eval_packing": "--packing", "use_cpu": "", "max_grad_norm": None,
    "loss_type": "--loss", "beta": "--beta", "label_smoothing": "--label-smoothing", "truncation_mode": "",
    "precompute_ref_log_probs": "--precompute-reference", "precompute_ref_batch_size": "",
    "per_device_eval_batch_size": "", "train_sampling_strategy": "", "pad_token": "",
    "num_generations": "--num-generations", "max_completion_length": "--max-completion-length",
    "temperature": "--temperature", "top_p": "--top-p", "top_k": "", "epsilon": "--epsilon",
    "num_iterations": "--num-iterations", "steps_per_generation": "--num-minibatches",
    "generation_batch_size": "", "scale_rewards": "--scale-rewards", "use_vllm": "--rollouts",
    "mask_truncated_completions": "--mask-truncated", "reward_weights": "--reward",
    "save_steps": "--eval-every", "save_strategy": "", "remove_unused_columns": "",
}  # fmt: skip


def trainer_config(
    kind: Any,
    options: BaseOptions,
    hardware: Hardware,
    folder: Path,
    own: Mapping[str, Any],
    *,
    validates: bool,
) -> Any:
    """A trainer's configuration of class `kind`; `own` are fields that its command decides.

    Raises PipelineError for a --trainer field that is not known there.
    """
    every = "steps" if options.eval_every else "epoch"
    fields: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": options.num_epochs,
        "max_steps": options.max_steps or -1,
        "per_device_train_batch_size": options.batch_size,
        "per_device_eval_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation,
        "weight_decay": options.weight_decay,
        "neftune_noise_alpha": options.neftune or None,
        "eval_strategy": every if validates else "no",
        "save_strategy": every,
        "eval_steps": options.eval_every or None,
        "save_steps": options.eval_every or 500,
        "save_total_limit": 2,
        "load_best_model_at_end": validates,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "seed": options.seed,
        "data_seed": options.seed,
        "dataloader_pin_memory": hardware.device != "cpu",
        # a fused update leaves no gradients to clip
        "max_grad_norm": 0.0 if optimizers.OPTIMIZERS[options.optimizer].needs_hook else 1.0,
        **hardware.fields,
        **own,
    }
    known = _fields(kind)
    return kind(**{**{k: v for k, v in fields.items() if k in known}, **passed_through(options, kind)})


def passed_through(options: BaseOptions, kind: Any) -> Mapping[str, Any]:
    """The fields of `kind` that `name=value` words set, cast as YAML reads them. Raises PipelineError."""
    import yaml

    out = dict[str, Any]()
    known = _fields(kind)
    for word in options.trainer:
        name, sign, value = word.partition("=")
        where = f"--trainer.{name}"
        if not sign or not name:
            raise PipelineError("--trainer", f"got '{word}', expected name=value", "Correct it.")
        if name not in known:
            raise unknown(where, f"field '{name}' of {kind.__name__}", name, known)
        if _OURS.get(name) is not None:
            way = _OURS[name]
            raise PipelineError(
                where, "the pipeline sets this field itself", f"Use {way}." if way else "Leave it."
            )
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            raise PipelineError(where, f"got '{value}', which is no value", "Correct it.") from None
        out[name] = _number(read)
    return out


def _fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind) if field.init}


def _number(value: Any) -> Any:
    """YAML 1.1 reads 5e-5 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
