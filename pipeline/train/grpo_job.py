"""What `python -m pipeline.grpo` does, once its options are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pipeline.errors import PipelineError
from pipeline.train.rl_job import RLJob
from pipeline.train.rl_options import GRPOOptions


class GRPOJob(RLJob):
    """Group relative policy optimisation."""

    command: ClassVar[str] = "grpo"
    options: GRPOOptions

    @classmethod
    def config_class(cls, options: Any) -> Any:
        """TRL's."""
        import trl

        return trl.GRPOConfig

    @classmethod
    def check(cls, options: Any) -> None:
        """A group of one has no mean to be held against. Raises PipelineError."""
        super().check(options)
        if options.num_generations < 2:
            fix = "Draw two or more, or use pipeline.ppo."
            raise PipelineError("--num-generations 1", "an answer is held against its group's mean", fix)

    def trainer(self, tuned: Any, rows: Sequence[dict[str, Any]]) -> Any:
        """TRL's GRPOTrainer, ours in parts."""
        from datasets import Dataset

        from pipeline.train.grpo_trainer import GRPO

        rollouts = self.rollouts(tuned[0], self.options.beta, drop_flat=self.options.drop_flat)
        fields = self.fields() | {"scale_rewards": self.options.scale_rewards}
        data = Dataset.from_list(list(rows))
        return self.build(GRPO, tuned, data, None, self.template.tokenizer, fields, rollouts=rollouts)
