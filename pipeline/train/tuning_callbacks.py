"""What tuning methods do while a Trainer runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipeline.train.methods import Tuning
from pipeline.train.peft_configs import rank_schedule
from pipeline.train.storage import save_training_state


class RankSchedule(TrainerCallback):
    """AdaLoRA's budget, moved after each optimizer step while the gradients are there; no trainer does it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Fit the schedule to this run's steps, which a loaded adapter knows nothing of."""
        tuner = model.base_model
        config = tuner.peft_config["default"]
        for name, value in rank_schedule(state.max_steps).items():
            setattr(config, name, value)
        if state.global_step >= config.total_step - config.tfinal:
            # resumed after the budget was settled: what it had no room for is zero
            config.rank_pattern = {
                name: (parameter != 0).flatten().tolist()
                for name, parameter in tuner.model.named_parameters()
                if "lora_E.default" in name
            }

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Score the triplets and shut the ones that the schedule has no room for."""
        model.base_model.update_and_allocate(state.global_step + 1)


class Projection(TrainerCallback):
    """Diff pruning's two halves: learn which weights differ, keep the largest, train those to the end."""

    def __init__(self, tuning: Tuning, learn_frac: float = 0.7) -> None:
        self.sparsity, self.learn_frac = tuning.sparsity, learn_frac

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Lock the gates once the learning half is over."""
        from pipeline.train.sparse_delta import Gated, deltas, project

        if state.global_step < self.learn_frac * state.max_steps:
            return
        gated = deltas(model, Gated)
        if gated and not next(iter(gated.values())).locked():
            project(model, self.sparsity)
            # what was held-out best before is another, denser model, which nobody will get
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None


class TrainingState(TrainerCallback):
    """Puts into each checkpoint what PEFT's own saving leaves out, for `restore` to read."""

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Add the file to the checkpoint that the Trainer has just written."""
        if state.is_world_process_zero:
            save_training_state(model, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
