"""GRPO: TRL's loss on our rollouts."""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOConfig

from pipeline.train import ppo_math
from pipeline.train.rl_trainer import RolloutTrainer


class GRPO(RolloutTrainer):
    """Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300) and its relatives."""

    config_class = GRPOConfig

    def __init__(self: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kl: list[torch.Tensor] = []  # of each batch: nats, answers

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        if self.beta:
            mask = inputs["completion_mask"]
            divergence = ppo_math.kl(self.log_probabilities, inputs["ref_per_token_logps"], mask, "k3").sum()
            found = torch.stack([divergence, mask.any(1).sum()])
            self._kl.append(self.accelerator.reduce(found, reduction="sum"))
        return loss

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, with the divergence in nats an answer."""
        if self._kl and self.mode == "train":
            divergence, answers = torch.stack(self._kl).sum(0).tolist()
            self._metrics["train"]["kl/answer"].append(divergence / max(answers, 1))
            self._kl.clear()
        super().log(logs, start_time)
