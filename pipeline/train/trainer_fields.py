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
from pipeline.train.options import Options

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
}  # fmt: skip


def config(
    options: Options, hardware: Hardware, folder: Path, learning_rate: float, *, validates: bool
) -> Any:
    """TRL's SFTConfig, or TrainingArguments for a classifier.

    Raises PipelineError for a --trainer field that is not known there.
    """
    kind = _kind(options)
    every = "steps" if options.eval_every else "epoch"
    fields: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "learning_rate": learning_rate,
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
        "max_length": options.max_length if hardware.packing else None,
        "dataset_kwargs": {"skip_prepare_dataset": not hardware.packing},
        "dataloader_pin_memory": hardware.device != "cpu",
        # a fused update leaves no gradients to clip
        "max_grad_norm": 0.0 if optimizers.OPTIMIZERS[options.optimizer].needs_hook else 1.0,
        **hardware.fields,
    }
    known = _fields(kind)
    return kind(**{**{k: v for k, v in fields.items() if k in known}, **passed_through(options)})


def passed_through(options: Options) -> Mapping[str, Any]:
    """The fields that `name=value` words set, cast as YAML reads them. Raises PipelineError."""
    import yaml

    kind, out = _kind(options), dict[str, Any]()
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


def _kind(options: Options) -> Any:
    from transformers import TrainingArguments
    from trl import SFTConfig

    return TrainingArguments if options.task == "classify" else SFTConfig


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
