"""What every trainer here adds to a Trainer: our optimizers, schedules, tuning methods, row order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft.tuners.lora import LoraLayer

from pipeline.train import adapters, optimizers
from pipeline.train.options import BaseOptions
from pipeline.train.row_order import GroupedByLength

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object  # whichever comes behind this class


@contextmanager
def casting(model: Any, on: bool) -> Iterator[None]:
    """Whether LoRAs cast their input to fp32.

    Autocast makes of it what it was: the same numbers for more work. Without autocast they have to, and
    variants as DoRA, which compute more with it, always do.
    """
    layers = [one for one in model.modules() if isinstance(one, LoraLayer) and not one.lora_variant]
    before = [layer.cast_input_dtype_enabled for layer in layers]
    try:
        for layer in layers:
            layer.cast_input_dtype_enabled = on
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = value


class TunedTrainer(_Trainer):
    """Mixed in before a Trainer; `settings` say the optimizer, `options` the schedule."""

    def __init__(
        self: Any, *, settings: optimizers.OptimizerSettings, options: BaseOptions, **kwargs: Any
    ) -> None:
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
        lengths = self.lengths(rows)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return GroupedByLength(lengths, size, self.args.seed)

    def lengths(self, rows: Any) -> list[int]:
        """The tokens of each row."""
        return [len(ids) for ids in rows["input_ids"]]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The Trainer's. On a CPU several processes each say cpu:0, which torch loads nothing to."""
        if self.args.device.type == "cpu":
            vars(self.args)["_setup_devices"] = self.args.device.__class__("cpu")
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The Trainer's own way, except for methods whose saved form is not what trains."""
        if not adapters.restore(self.model if model is None else model, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """The same at the end of training."""
        best = self.state.best_model_checkpoint
        if not (best and adapters.restore(self.model, Path(best))):
            super()._load_best_model()

    def trained_models(self) -> Iterable[Any]:
        """All that a step trains."""
        return (self.model,)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, under autocast."""
        with ExitStack() as opened:
            for model in self.trained_models() if self.args.bf16 or self.args.fp16 else ():
                opened.enter_context(casting(model, on=False))
            return super().training_step(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, and in training what the tuning method adds to it."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if model.training and not isinstance(loss, tuple):
            more = adapters.extra_loss(self.accelerator.unwrap_model(model))
            if more is not None:
                loss = loss + more / self.args.gradient_accumulation_steps
        return loss
