"""A Tuning as PEFT's own configuration, for every method that PEFT (or a tuner of ours in it) carries out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.train import targets
from pipeline.train.methods import Tuning

if TYPE_CHECKING:
    from peft import PeftConfig


def config_for(model: Any, tuning: Tuning) -> PeftConfig:
    """The configuration of `tuning` on this model. PipelineError where the model has no such modules."""
    task = "SEQ_CLS" if tuning.task == "classify" else "CAUSAL_LM"
    return _BUILDERS[tuning.method](model, tuning, task)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Build a PEFT model without its words on biases that it cannot merge and norms that it does not know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected that the base layer has no bias")
        warnings.filterwarnings("ignore", message="Unsupported layer type .*Norm")
        yield


def _linear(model: Any, tuning: Tuning) -> list[str]:
    return targets.chosen(model, tuning.target_modules, targets.linear_names(model))


def _alpha(tuning: Tuning, default: int) -> Any:
    """A whole number where it is one, as other readers of the adapter expect."""
    return (
        int(tuning.alpha) if tuning.alpha and tuning.alpha == int(tuning.alpha) else tuning.alpha or default
    )


def _lora(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    """LoRA and its relatives; without alpha each has the scale 2 at rank 16, PiSSA 1 as in its paper."""
    from peft import LoraConfig

    alpha = {"rslora": 8, "pissa": tuning.rank}.get(tuning.method, 2 * tuning.rank)
    return LoraConfig(
        task_type=task,
        r=tuning.rank,
        lora_alpha=_alpha(tuning, alpha),
        lora_dropout=tuning.dropout,
        target_modules=_linear(model, tuning),
        use_dora=tuning.method == "dora",
        use_rslora=tuning.method == "rslora",
    )


def rank_schedule(total_steps: int) -> dict[str, int]:
    """AdaLoRA's schedule: ranks are cut between a tenth and seven tenths of the run."""
    if total_steps < 4:
        problem = f"the run has {total_steps} optimizer steps, expected 4 or more"
        raise PipelineError("adalora", problem, "Train longer: the ranks follow a schedule over the run.")
    return {
        "total_step": total_steps,
        "tinit": total_steps // 10,
        "tfinal": max(1, 3 * total_steps // 10),
        "deltaT": max(1, total_steps // 100),
    }


def freeze_rank_counts(model: Any) -> None:
    """Stop AdaLoRA's divisors from training: PEFT frees them on a bfloat16 base, and does not save them."""
    for name, parameter in model.named_parameters():
        if "ranknum" in name:
            parameter.requires_grad_(False)


def _adalora(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    """From 1.5 times the rank down to it."""
    from peft import AdaLoraConfig

    initial = max(tuning.rank + 1, 3 * tuning.rank // 2)
    schedule: dict[str, Any] = rank_schedule(tuning.total_steps)
    return AdaLoraConfig(
        task_type=task,
        target_r=tuning.rank,
        init_r=initial,
        lora_alpha=_alpha(tuning, 2 * initial),
        lora_dropout=tuning.dropout,
        target_modules=_linear(model, tuning),
        **schedule,
        orth_reg_weight=0.0,  # `extra_loss` adds the penalty: TRL computes losses itself and would lose it
    )


def _ia3(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    from peft import IA3Config

    names = targets.chosen(model, tuning.target_modules, (*targets.KEYS_VALUES, *targets.MLP_OUT))
    feedforward = [name for name in names if name in targets.MLP_OUT]  # these are rescaled at their input
    return IA3Config(task_type=task, target_modules=names, feedforward_modules=feedforward)


def _vera(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    from peft import VeraConfig

    return VeraConfig(
        task_type=task, r=tuning.rank, vera_dropout=tuning.dropout, target_modules=_linear(model, tuning)
    )


def _oft(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    """Blocks of twice the rank: the authors set 32 beside LoRA's 16."""
    from peft import OFTConfig

    return OFTConfig(
        task_type=task,
        oft_block_size=2 * tuning.rank,
        module_dropout=tuning.dropout,
        target_modules=_linear(model, tuning),
    )


def _prefix(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    """With a projection its last layer starts at zero, so that the prefix disturbs nothing at first."""
    from peft import PrefixTuningConfig

    projects = tuning.method == "prefix"
    return PrefixTuningConfig(
        task_type=task,
        num_virtual_tokens=tuning.num_virtual_tokens,
        prefix_projection=projects,
        init_weights="zero" if projects else None,
    )


def _p_tuning(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(task_type=task, num_virtual_tokens=tuning.num_virtual_tokens)


def _prompt(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    """Prompts start as the embeddings of random tokens; an ensemble's prompts lie one behind the other."""
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type=task,
        num_virtual_tokens=tuning.num_virtual_tokens * tuning.num_ensemble,
        prompt_tuning_init="SAMPLE_VOCAB",
    )


def _bottleneck(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    from pipeline.train.bottleneck_tuner import BottleneckConfig

    attention = targets.ATTENTION_OUT if tuning.method == "houlsby" else ()
    return BottleneckConfig(
        task_type=task,
        width=tuning.bottleneck,
        dropout=tuning.dropout,
        target_modules=set(targets.chosen(model, tuning.target_modules, (*attention, *targets.MLP_OUT))),
    )


def _bitfit(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    """New biases that start at zero, for a model that has none of its own."""
    from peft import BeftConfig

    return BeftConfig(task_type=task, target_modules=_linear(model, tuning))


def _ln(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    from peft import LNTuningConfig

    return LNTuningConfig(task_type=task, target_modules=list(targets.norm_names(model)))


def _sparse(model: Any, tuning: Tuning, task: str) -> PeftConfig:
    from torch import nn

    from pipeline.train.sparse_delta import SparseDeltaConfig

    names = _linear(model, tuning)
    for path, module in targets.named(model, names).items():
        if not isinstance(module, nn.Linear):
            problem = f"{path} is a {type(module).__name__}, expected a Linear"
            raise PipelineError(tuning.method, problem, "Choose another method for this model.")
    return SparseDeltaConfig(task_type=task, gated=tuning.method == "diff-pruning", target_modules=set(names))


_BUILDERS: dict[str, Callable[[Any, Tuning, str], PeftConfig]] = {
    "lora": _lora,
    "dora": _lora,
    "rslora": _lora,
    "pissa": _lora,
    "adalora": _adalora,
    "ia3": _ia3,
    "vera": _vera,
    "oft": _oft,
    "prefix": _prefix,
    "p-tuning": _p_tuning,
    "p-tuning-v2": _prefix,
    "prompt": _prompt,
    "houlsby": _bottleneck,
    "pfeiffer": _bottleneck,
    "bitfit": _bitfit,
    "ln": _ln,
    "fish-mask": _sparse,
    "diff-pruning": _sparse,
}
