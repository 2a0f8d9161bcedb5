"""TRL's SFTTrainer with what it lacks: our optimizers and schedules, and losses that a tuning method adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer

from pipeline.config import unknown
from pipeline.errors import PipelineError
from pipeline.train import adapters, optimizers
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


class GroupedByLength(Sampler[int]):
    """Rows of near-equal length together, in an order that seed and epoch alone decide."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(1_000_003 * self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class Trainer(SFTTrainer):
    """Trains rows that are tokenised and labelled; `settings` say optimizer and schedule."""

    def __init__(self, *, settings: optimizers.OptimizerSettings, options: Options, **kwargs: Any) -> None:
        self._settings, self._options = settings, options
        super().__init__(**kwargs)

    def create_optimizer(self, model: Any = None) -> Any:
        """Build the optimizer by name."""
        if self.optimizer is None:
            self.optimizer = optimizers.build(
                self.model if model is None else model,
                self._settings,
                gradient_accumulation=self.args.gradient_accumulation_steps,
                max_grad_norm=self.args.max_grad_norm,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Build the schedule by name, with a linear warm-up."""
        if self.lr_scheduler is None:
            self.lr_scheduler = optimizers.schedule(
                optimizer or self.create_optimizer(),
                self._options.schedule,
                total_steps=num_training_steps,
                warmup_steps=round(self._options.warmup_frac * num_training_steps),
            )
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The Trainer's own grouping draws from the global random state, which no resume restores."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return GroupedByLength(lengths, size, self.args.seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The Trainer's own way, except for methods whose saved form is not what trains."""
        if not adapters.restore(self.model if model is None else model, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """The same at the end of training."""
        best = self.state.best_model_checkpoint
        if not (best and adapters.restore(self.model, Path(best))):
            super()._load_best_model()

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, and in training what the tuning method adds to it."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if model.training and not isinstance(loss, tuple):
            more = adapters.extra_loss(self.accelerator.unwrap_model(model))
            if more is not None:
                loss = loss + more / self.args.gradient_accumulation_steps
        return loss


def config(
    options: Options, hardware: Hardware, folder: Path, learning_rate: float, *, validates: bool
) -> SFTConfig:
    """TRL's configuration. Raises PipelineError for a --trainer field that it does not know."""
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
    return SFTConfig(**{**fields, **passed_through(options.trainer)})


def passed_through(words: Sequence[str]) -> Mapping[str, Any]:
    """The fields that `name=value` words set, cast as YAML reads them. Raises PipelineError."""
    import yaml

    known, out = {f.name for f in dataclasses.fields(SFTConfig) if f.init}, dict[str, Any]()
    for word in words:
        name, sign, value = word.partition("=")
        where = f"--trainer.{name}"
        if not sign or not name:
            raise PipelineError("--trainer", f"got '{word}', expected name=value", "Correct it.")
        if name not in known:
            raise unknown(where, f"field '{name}' of TRL's SFTConfig", name, known)
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


def _number(value: Any) -> Any:
    """YAML 1.1 reads 5e-5 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
