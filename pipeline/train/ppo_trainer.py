"""PPO with a learned value model, on TRL's GRPOTrainer, which no longer has one of its own.

Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) as it is done on language models
(Ouyang et al. 2022, arXiv:2203.02155): every token of an answer is an action, the divergence from the
reference is paid for token by token, the answer's score comes with its last token, advantages are GAE's,
whitened over all processes. From GRPOTrainer come drawing, scoring, log-probabilities and the clipped loss,
which takes advantages (B, T) of tokens; here are the value model, the advantages and the value loss.

The policy loss and the value loss are means over all tokens of an optimizer step on all processes, so that
two processes with half the batch do what one does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig

from pipeline.train import ppo_math
from pipeline.train.critic import Critic
from pipeline.train.ppo_math import AdaptiveKL, FixedKL, masked_mean
from pipeline.train.rl_trainer import RolloutTrainer


class PPOConfig(GRPOConfig):
    """TRL's, which refuses groups of one answer: PPO needs no group."""

    def __post_init__(self) -> None:
        number = self.num_generations
        if number == 1:  # any group that divides the batch passes its check
            self.num_generations = self.per_device_train_batch_size * (self.steps_per_generation or 1)
        super().__post_init__()
        self.num_generations = number


@dataclass(frozen=True)
class PPOSettings:
    """What PPO has and GRPO has not; see the options of `python -m pipeline.ppo`."""

    gamma: float = 1.0
    lam: float = 0.95
    value_clip: float = 0.2
    value_warmup_steps: int = 0
    kl_estimator: str = "k1"
    whiten_rewards: bool = False
    missing_eos_penalty: float = 0.0


class KLState:
    """The KL coefficient as a run keeps it."""

    def __init__(self, control: FixedKL | AdaptiveKL) -> None:
        self.control = control

    def state(self) -> dict[str, Any]:
        """The coefficient as it is now."""
        return asdict(self.control)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.control.value = state["value"]


class PPO(RolloutTrainer):
    """`critic` says what tokens are worth; `kl` holds the divergence's coefficient."""

    _tag_names = ["trl", "ppo"]
    _name = "PPO"

    def __init__(self: Any, *, ppo: PPOSettings, critic: Critic, kl: KLState, **kwargs: Any) -> None:
        self._ppo, self._kl, self.critic = ppo, kl, critic
        self._read: list[Tensor] = []  # values (B, T) of the calls of this draw, the policy's first
        super().__init__(**kwargs)
        critic.attach(self)
        one_step = self.args.steps_per_generation == self.args.gradient_accumulation_steps
        self._at_once = one_step and self.num_iterations == 1 and not critic.reads_policy

    def create_optimizer(self: Any, model: Any = None) -> Any:
        """The policy's, with the critic's parameters as one more group."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh:
            group = {"params": self.critic.trained, "lr": self.critic.learning_rate, "weight_decay": 0.0}
            optimizer.add_param_group(group)
        return optimizer

    def trained_models(self: Any) -> tuple[Any, ...]:
        """The value model, too."""
        return self.model, self.critic.model

    # ---- what an answer's tokens were worth ----

    def read_beside(self: Any, length: int) -> list[Tensor]:
        """A head's values."""
        return self.critic.read(length)

    def _get_per_token_logps_and_entropies(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.critic.forget()
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if not torch.is_grad_enabled():  # of a draw; those of the loss are used at once
            self._read += self.beside
        return found

    def _generate_and_score_completions(self: Any, inputs: Any) -> dict[str, Any]:
        self._read.clear()
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        with torch.no_grad():
            self._judge_tokens(out)
        return out

    def _log_probabilities(self: Any, out: dict[str, Any]) -> Tensor:
        """The policy's, of every token (B, T); a head's values of it become the first of those read."""
        if "old_per_token_logps" not in out:
            self._read.clear()  # the reference's
            ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
            mask = torch.cat([out["prompt_mask"], out["completion_mask"]], 1)
            length, size = out["completion_ids"].shape[1], self.args.per_device_train_batch_size
            found, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, length, batch_size=size
            )
            out["old_per_token_logps"] = found
        return out["old_per_token_logps"]

    def _judge_tokens(self: Any, out: dict[str, Any]) -> None:
        """Put advantages, returns and values (B, T) into the batch."""
        own, mask = self._ppo, out["completion_mask"].float()
        policy, divergence = self._log_probabilities(out), torch.zeros_like(mask)
        if "ref_per_token_logps" in out:
            divergence = ppo_math.kl(policy, out["ref_per_token_logps"], mask, own.kl_estimator)
        scores = self._own_scores(len(mask)) - own.missing_eos_penalty * self._endless(out, mask)
        coefficient = self._kl.control.value if self.beta else 0.0
        rewards = ppo_math.token_rewards(scores, divergence, mask, coefficient)
        if own.whiten_rewards:
            rewards = ppo_math.whiten(rewards, mask, self._sum, keep_mean=True)
        values = self._old_values(out, rewards, mask)
        found, returns = ppo_math.advantages(rewards, values, mask, own.gamma, own.lam)
        out["advantages"] = ppo_math.whiten(found, mask, self._sum)
        out["returns"], out["old_values"] = returns, values
        self._record(values, returns, divergence, scores, mask)

    def _old_values(self: Any, out: dict[str, Any], rewards: Tensor, mask: Tensor) -> Tensor:
        """The values before training on this draw (B, T); where it has one pass, the critic learns here."""
        own, size = self._ppo, self.args.per_device_train_batch_size
        if self.critic.reads_policy:
            values = self._read[0]
        elif self._at_once and self.mode == "train":

            def returns(rows: Tensor, values: Tensor) -> Tensor:
                """What these values should have been."""
                some = rewards[rows, : values.shape[1]], values, mask[rows, : values.shape[1]]
                return ppo_math.advantages(*some, own.gamma, own.lam)[1]

            tokens = out["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            values, loss = self.critic.learn(out, returns, tokens, size)
            self._record_loss(loss, torch.zeros_like(loss), mask)
        else:
            values = self.critic.values(out, size)
        return values * mask

    def _sum(self: Any, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, reduction="sum")

    def _own_scores(self: Any, here: int) -> Tensor:
        """The total rewards of this process's answers (B,); 0 for those that the mask takes out."""
        begin = self.accelerator.process_index * here
        return self._totals[begin : begin + here, 0].nan_to_num(0.0)

    def _endless(self: Any, out: dict[str, Any], mask: Tensor) -> Tensor:
        """1 for answers without an end token (B,)."""
        ends = torch.tensor(self.eos_token_ids, device=mask.device)
        return ((torch.isin(out["completion_ids"], ends) * mask).sum(1) == 0).float()

    def _record(
        self: Any, values: Tensor, returns: Tensor, divergence: Tensor, scores: Tensor, mask: Tensor
    ) -> None:
        metrics, counts = self._metrics[self.mode], mask.any(1).float()
        each, answers = self._sum(torch.stack([(divergence.sum(1) * counts).sum(), counts.sum()]))
        mean = float(each / answers.clamp(min=1))
        metrics["kl/answer"].append(mean)
        metrics["kl/coefficient"].append(self._kl.control.value)
        metrics["objective"].append(
            float(masked_mean(scores - self._kl.control.value * divergence.sum(1), counts, self._sum))
        )
        metrics["value/mean"].append(float(masked_mean(values, mask, self._sum)))
        metrics["value/explained_variance"].append(
            ppo_math.explained_variance(values, returns, mask, self._sum)
        )
        if self.mode == "train":
            self._kl.control.update(mean, int(answers))

    # ---- loss ----

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
        beta, self.beta = self.beta, 0.0  # the divergence is in the reward already
        try:
            policy_loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        if self.state.global_step < self._ppo.value_warmup_steps:
            policy_loss = policy_loss * 0.0
        if self._at_once and self.mode == "train":
            return policy_loss  # and the critic has learnt
        mask = inputs["completion_mask"].float()
        values = self.beside[0] if self.critic.reads_policy else self.critic.values(inputs)
        old, returns = inputs["old_values"], inputs["returns"]
        loss, clipped = ppo_math.value_loss(values, old, returns, mask, self._ppo.value_clip)
        self._record_loss(loss.detach(), clipped, mask)
        return policy_loss + loss.sum() / self._tokens(inputs)

    def _record_loss(self: Any, loss: Tensor, clipped: Tensor, mask: Tensor) -> None:
        metrics = self._metrics[self.mode]
        metrics["value/loss"].append(float(masked_mean(loss, mask, self._sum)))
        metrics["value/clip_frac"].append(float(masked_mean(clipped, mask, self._sum)))

    def _tokens(self: Any, inputs: dict[str, Any]) -> Tensor:
        """What TRL's loss "dapo" divides by: the tokens of an optimizer step, a process's share."""
        whole = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.mode != "train":
            return whole
        return whole * self.current_gradient_accumulation_steps / self.args.steps_per_generation

    # ---- checkpoints ----

    def save_beside(self: Any, folder: Path) -> None:
        """The critic's trained parameters."""
        self.critic.save(folder)

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.critic.load(Path(resume_from_checkpoint))
