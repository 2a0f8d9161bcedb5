"""What `python -m pipeline.ppo` does, once its options are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import PipelineError
from pipeline.train import adapters
from pipeline.train.rewards import parse_rewards
from pipeline.train.rl_job import RLJob
from pipeline.train.rl_options import PPOOptions

_JOINED = ("adamw", "adamw8bit", "adafactor", "sgd")  # optimizers that take the value model's weights too


class PPOJob(RLJob):
    """Proximal policy optimisation with a learned value model."""

    command: ClassVar[str] = "ppo"
    options: PPOOptions

    @classmethod
    def config_class(cls, options: Any) -> Any:
        """Ours of TRL's."""
        from pipeline.train.ppo_trainer import PPOConfig

        return PPOConfig

    @classmethod
    def check(cls, options: Any) -> None:
        """Refuse what does not fit together. Raises PipelineError."""
        super().check(options)
        if options.optimizer not in _JOINED:
            problem = "it cannot train policy and value model together"
            raise PipelineError(
                f"--optimizer {options.optimizer}", problem, f"Use one of {', '.join(_JOINED)}."
            )
        if options.kl_control == "adaptive" and not options.beta:
            raise PipelineError("--kl-control adaptive", "--beta is 0: nothing to follow", "Set --beta.")

    def trainer(self, tuned: Any, rows: Sequence[dict[str, Any]]) -> Any:
        """Ours, on TRL's GRPOTrainer."""
        from datasets import Dataset

        from pipeline.train.ppo_math import AdaptiveKL, FixedKL
        from pipeline.train.ppo_trainer import PPO, KLState, PPOSettings

        options = self.options
        control = (
            AdaptiveKL(options.beta, options.kl_target, options.kl_horizon)
            if options.kl_control == "adaptive"
            else FixedKL(options.beta)
        )
        rollouts = self.rollouts(tuned[0], options.beta, drop_flat=False)
        rollouts.keepers["kl"] = KLState(control)
        ppo = PPOSettings(
            gamma=options.gamma,
            lam=options.lam,
            value_clip=options.value_clip,
            value_warmup_steps=options.value_warmup_steps,
            kl_estimator=options.kl_estimator,
            whiten_rewards=options.whiten_rewards,
            missing_eos_penalty=options.missing_eos_penalty,
        )
        fields = self.fields() | {"entropy_coef": options.entropy_coef, "scale_rewards": "none"}
        return self.build(
            PPO, tuned, Dataset.from_list(list(rows)), None, self.template.tokenizer, fields,
            rollouts=rollouts, ppo=ppo, critic=self._critic(tuned[0]), kl=rollouts.keepers["kl"],
        )  # fmt: skip

    def _critic(self, policy: Any) -> Any:
        """What says how much tokens are worth."""
        from pipeline.train.critic import Critic, HeadCritic
        from pipeline.train.value_model import head, learning_rate, value_model

        options, rate = self.options, learning_rate(self.options)
        if options.value_tuning == "head":
            said = f", begun as that of {options.value_model}" if options.value_model else ""
            self.display.say(f"value model: a head on the policy's states{said}, rate {rate:g}")
            return HeadCritic(head(policy, options.value_model), rate)
        begin = options.value_model or self._reward_model() or self.base
        self.display.say(f"value model: begun as {begin}, {options.value_tuning}, rate {rate:g}")
        return Critic(value_model(options, self.machine, begin, len(self.template.tokenizer)), rate)

    def _reward_model(self) -> str:
        """The reward model that drives the run, "" without one."""
        terms = parse_rewards(self.options.reward)
        return next((term.argument for term in terms if term.name == "reward_model"), "")

    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """The policy, and beside it the value model, which another run may begin with."""
        super().save(trainer, model, folder)
        beside = self.folder / "value_model"
        if self.options.value_tuning == "head":
            beside.mkdir(exist_ok=True)
            trainer.critic.save(beside)
        else:
            adapters.save(trainer.critic.model, beside)
