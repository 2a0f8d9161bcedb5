"""The options of the commands that learn from rewards: `python -m pipeline.grpo` and `pipeline.ppo`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.train.options import DATA, FORMAT, RUN, TRAINING, TUNING, BaseOptions

_ROLLOUTS, _REWARDS, _LOSS, _VALUE = "rollouts", "rewards", "loss", "value model"
LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")
ROLLOUTS = ("auto", "embedded", "transformers", "vllm")


@dataclass(frozen=True)
class RLOptions(BaseOptions):
    """What both read; other defaults than for given answers."""

    data: tuple[str, ...] = option(
        (),
        "prompts: JSONL, JSON, Parquet, directories, runs of ours or hub datasets (owner/name:config:split), "
        "with verifiers where answers can be checked; none: the newest finished run of pipeline.preferences",
        metavar="DATA",
        positional=True,
        group=DATA,
    )
    num_prompts: int = option(0, "prompts drawn from all; 0: every one", low=0, group=DATA)
    constraints: int = option(
        0,
        "at most so many verifiable constraints are added to a prompt without a verifier",
        low=0,
        group=DATA,
    )
    copies: int = option(
        1, "times that such a prompt comes, with other constraints each time", low=1, group=DATA
    )
    validation_frac: float = option(
        0.1, "share of the prompts held out; copies of one prompt stay together", low=0, high=0.9, group=DATA
    )
    min_score_std: float = option(
        0.0,
        "prompts whose answers, drawn before by pipeline.preferences, have scores with a smaller standard "
        "deviation are not trained on: answers that are all alike teach little; 0: all are",
        low=0,
        group=DATA,
    )
    max_prompt_length: int = option(
        1024, "tokens of a prompt; rows with a longer one are left out", low=8, group=FORMAT
    )
    model: str = option(
        "",
        "the policy: run of ours, directory or hub id of a causal language model; none: the newest finished "
        "run of pipeline.sft, else the embedded SmolLM2-135M-Instruct",
        metavar="MODEL",
        group=TUNING,
    )
    num_epochs: float = option(1.0, "passes over the prompts", low=0, group=TRAINING)
    batch_size: int = option(8, "answers in the model at a time, on each device", low=1, group=TRAINING)
    gradient_accumulation: int = option(4, "batches of an optimizer step", low=1, group=TRAINING)
    schedule: str = option(
        "constant", "of the learning rate: cosine, linear, constant, step, exponential",
        choices=("cosine", "linear", "constant", "step", "exponential"), metavar="NAME", group=TRAINING,
    )  # fmt: skip
    eval_every: int = option(
        20, "steps between two looks at the held-out prompts, and between checkpoints", low=1, group=TRAINING
    )
    reward: tuple[str, ...] = option(
        ("checks",),
        "what is rewarded, each with its weight: constraints, math, code, checks (any verifier), all_checks, "
        "format=REGEX, repetition, length=N, min_length=N, language, reward_model=RUN, judge[=MODEL], or a "
        "Python function module:function",
        metavar="NAME[=ARG][:WEIGHT]",
        group=_REWARDS,
    )
    reward_errors: str = option(
        "stop",
        "what becomes of an answer on which a reward fails; exclude: it is trained on by nobody",
        choices=("stop", "exclude"),
        group=_REWARDS,
    )
    judge: tuple[str, ...] = option(
        (),
        "options of the engine that the reward `judge` asks, as the commands that ask a model have them "
        "(engine=openai base_url=http://localhost:8000/v1 max_cost=5)",
        metavar="NAME=VALUE",
        group=_REWARDS,
    )
    num_generations: int = option(8, "answers drawn to a prompt: the group", low=1, group=_ROLLOUTS)
    max_completion_length: int = option(256, "tokens of an answer", low=1, group=_ROLLOUTS)
    temperature: float = option(1.0, "of the answers", low=0.01, group=_ROLLOUTS)
    top_p: float = option(
        1.0, "likeliest tokens that may be drawn, by their share", low=0.01, high=1, group=_ROLLOUTS
    )
    rollouts: str = option(
        "auto",
        "what draws the answers; embedded: our decoder on a merged copy of the policy (auto, on a CPU); "
        "transformers: the policy itself (auto, on a GPU); vllm: TRL's colocate or server mode",
        choices=ROLLOUTS,
        group=_ROLLOUTS,
    )
    num_minibatches: int = option(
        1, "optimizer steps of a pass over the answers drawn together", low=1, group=_ROLLOUTS
    )
    mask_truncated: bool = option(
        True, "answers that were cut off at the end are not trained on", group=_ROLLOUTS
    )
    max_truncated_frac: float = option(
        0.5, "share of answers cut off, over ten draws, above which to stop", low=0, high=1, group=_ROLLOUTS
    )
    epsilon: float = option(0.2, "how far the probability ratio may move, clipped", low=0.001, group=_LOSS)
    num_held_out: int = option(64, "held-out prompts answered at a look", low=0, group=RUN)

    @property
    def draws_every(self) -> int:
        """Optimizer steps from one draw of answers to the next."""
        return self.num_minibatches * self.num_iterations

    @property
    def num_iterations(self) -> int:
        """Passes over the answers drawn together."""
        return 1


@dataclass(frozen=True)
class GRPOOptions(RLOptions):
    """Every option of `python -m pipeline.grpo`, as a flag and as a YAML key."""

    loss: str = option("dapo", "TRL's variants", choices=LOSSES, metavar="NAME", group=_LOSS)
    beta: float = option(0.02, "KL coefficient of the loss; 0: no reference", low=0, group=_LOSS)
    num_iterations: int = option(1, "passes over the answers drawn together", low=1, group=_ROLLOUTS)
    scale_rewards: str = option(
        "group",
        "what a reward's distance from its group's mean is divided by: its standard deviation in the group, "
        "that in the batch, or nothing",
        choices=("group", "batch", "none"),
        group=_LOSS,
    )
    drop_flat: bool = option(
        True, "groups whose answers were all rewarded alike take no part, not even by their KL", group=_LOSS
    )


@dataclass(frozen=True)
class PPOOptions(RLOptions):
    """Every option of `python -m pipeline.ppo`, as a flag and as a YAML key."""

    num_generations: int = option(1, "answers drawn to a prompt", low=1, group=_ROLLOUTS)
    num_iterations: int = option(2, "passes over the answers drawn together", low=1, group=_ROLLOUTS)
    beta: float = option(0.05, "KL coefficient in the reward, a token; 0: no reference", low=0, group=_LOSS)
    kl_estimator: str = option("k1", "of the divergence in the reward", choices=("k1", "k3"), group=_LOSS)
    kl_control: str = option(
        "fixed", "adaptive: --beta follows --kl-target", choices=("fixed", "adaptive"), group=_LOSS
    )
    kl_target: float = option(6.0, "nats an answer that adaptive control aims at", low=0.001, group=_LOSS)
    kl_horizon: float = option(10000.0, "answers in which it moves by at most 20%", low=1, group=_LOSS)
    gamma: float = option(1.0, "discount of a token", low=0, high=1, group=_LOSS)
    lam: float = option(0.95, "GAE's lambda", low=0, high=1, group=_LOSS)
    entropy_coef: float = option(0.0, "weight of the entropy bonus", group=_LOSS)
    missing_eos_penalty: float = option(
        0.0, "taken off the score of an answer without its end token", low=0, group=_LOSS
    )
    mask_truncated: bool = option(
        False, "answers that were cut off at the end are not trained on", group=_ROLLOUTS
    )
    whiten_rewards: bool = option(False, "divide rewards by their standard deviation", group=_LOSS)
    value_model: str = option(
        "",
        "what the value model begins as: run or hub id; none: the model of --reward reward_model=, else the "
        "policy; a head: the run whose head it goes on with",
        metavar="MODEL",
        group=_VALUE,
    )
    value_tuning: str = option(
        "lora",
        "lora; full: every weight; head: no model, but one layer on the policy's own states, which costs "
        "next to nothing",
        choices=("lora", "full", "head"),
        group=_VALUE,
    )
    value_learning_rate: float = option(
        0.0, "0: five times the tuning method's own, a head's 1e-4", low=0, group=_VALUE
    )
    value_clip: float = option(0.2, "how far a value may move in one draw, clipped", low=0.001, group=_VALUE)
    value_warmup_steps: int = option(
        0, "steps at the beginning in which the value model learns alone", low=0, group=_VALUE
    )

    @property
    def loss(self) -> str:
        """Every token counts the same, over all processes."""
        return "dapo"
