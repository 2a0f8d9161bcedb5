"""The options of the commands that train on preferences: `python -m pipeline.reward` and `pipeline.dpo`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.train.losses import LOSSES
from pipeline.train.options import DATA, FORMAT, TRAINING, TUNING, AnswerOptions, TrainingOptions

_LOSS = "loss"
_SHAPES = (
    "JSONL, JSON, Parquet, directories, runs of ours or hub datasets (owner/name:config:split) with chosen "
    "and rejected answers (TRL's, ShareGPT's, Alpaca's, UltraFeedback's shape)"
)


@dataclass(frozen=True)
class PreferenceOptions(TrainingOptions):
    """What both read; other defaults than for single answers."""

    data: tuple[str, ...] = option(
        (),
        f"{_SHAPES}; none: the newest finished run of pipeline.preferences",
        metavar="DATA",
        positional=True,
        group=DATA,
    )
    validation_frac: float = option(
        0.1,
        "share of the prompts held out; rows with the same first request stay together",
        low=0,
        high=0.9,
        group=DATA,
    )
    num_epochs: float = option(2.0, "passes over the data", low=0, group=TRAINING)
    batch_size: int = option(2, "pairs of a batch on each device", low=1, group=TRAINING)
    gradient_accumulation: int = option(4, "batches of an optimizer step", low=1, group=TRAINING)


@dataclass(frozen=True)
class RewardOptions(PreferenceOptions):
    """Every option of `python -m pipeline.reward`, as a flag and as a YAML key."""

    max_length: int = option(
        2048,
        "tokens of a row, prompt and answer; of what is longer the beginning is cut",
        low=8,
        group=FORMAT,
    )
    margin_scale: float = option(
        0.0,
        "the better score has to lead by this times the row's `margin`, else the difference of its two "
        "scores (Llama 2's margin); 0: by nothing",
        low=0,
        group=_LOSS,
    )
    num_bins: int = option(10, "of the reliability diagram", low=2, high=100, group=_LOSS)

    @property
    def task(self) -> str:
        """A classifier with one output."""
        return "classify"


@dataclass(frozen=True)
class DPOOptions(PreferenceOptions, AnswerOptions):
    """Every option of `python -m pipeline.dpo`, as a flag and as a YAML key."""

    model: str = option(
        "",
        "the policy: run of ours, directory or hub id of a causal language model; none: the newest finished "
        "run of pipeline.sft, else the embedded SmolLM2-135M-Instruct",
        metavar="MODEL",
        group=TUNING,
    )
    max_length: int = option(
        2048,
        "tokens of a row, prompt and answer; of what is longer the prompt loses its beginning, then the "
        "answer its end",
        low=8,
        group=FORMAT,
    )
    loss: tuple[str, ...] = option(
        ("sigmoid",),
        "one, or several whose sum is taken (--trainer.loss_weights weighs them)",
        choices=tuple(LOSSES),
        metavar="NAME",
        group=_LOSS,
    )
    beta: float = option(
        0.1, "how strongly the policy is held to the reference (orpo: the odds ratio's weight)",
        low=0, group=_LOSS,
    )  # fmt: skip
    label_smoothing: float = option(
        0.0, "share of labels taken for wrong; 0: the loss's own", low=0, high=1, group=_LOSS
    )
    reference_free: bool = option(False, "compare the answers without a reference policy", group=_LOSS)
    precompute_reference: bool = option(
        True,
        "compute the reference's log-probabilities once, before training, not at every step",
        group=_LOSS,
    )
