"""The model that is trained: a base in the right precision with what the tuning method puts on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.engines.models import SENTENCE_MODEL, language_model, sentence_model
from pipeline.errors import PipelineError
from pipeline.records import read_text
from pipeline.train import adapters
from pipeline.train.hardware import Hardware
from pipeline.train.options import BaseOptions, TrainingOptions

OptionsT = TypeVar("OptionsT", bound=BaseOptions)
RowsT = TypeVar("RowsT", bound=TrainingOptions)
_WHOLE = ("full", "bitfit", "ln", "last-k", "diff-pruning", "fish-mask")  # train weights of the model itself
_SCORED = 64  # rows from which fish-mask takes its scores


def policy(
    options: BaseOptions,
    machine: Hardware,
    base: str,
    rows: Sequence[Mapping[str, Any]],
    num_tokens: int,
    head: Mapping[str, Any] | None = None,
) -> tuple[Any, adapters.Tuning]:
    """The model to train and how it is tuned. Raises PipelineError.

    `rows` are trained on (input_ids and labels as a model takes them), `num_tokens` the size of the
    tokenizer, `head` what a classifier's configuration says of its classes. What stays as it is may be held
    in bf16; weights that are trained are fp32.
    """
    import torch

    torch.manual_seed(options.seed)
    known = {field.name for field in fields(adapters.Tuning)}
    values = {name: value for name, value in asdict(options).items() if name in known}
    total = _steps(options, len(rows))
    own = {"method": options.tuning, "task": options.task, "total_steps": total}
    tuning = adapters.Tuning(**{**values, **own})
    light = machine.precision == "bf16" and options.tuning not in _WHOLE
    dtype = torch.bfloat16 if light else torch.float32
    if options.adapter:
        model = adapters.load(base, Path(options.adapter) / "model", dtype=dtype, trainable=True)
        return model, model.tuning
    model = _base(options, base, dtype, head or {})
    if model.get_input_embeddings().weight.shape[0] < num_tokens:
        problem = "the tokenizer has more tokens than the model"
        raise PipelineError(f"model {base}", problem, "Give the model with its own tokenizer.")
    return adapters.attach(model, tuning, batches=_batches(options, rows)), tuning


def base_model(options: BaseOptions) -> str:
    """The directory (or hub id) of the model to train; a classifier may be the embedded encoder.

    Raises PipelineError.
    """
    if options.task == "classify" and options.model == SENTENCE_MODEL:
        return sentence_model()
    return language_model(options.model)


def window(base: str) -> int | None:
    """Tokens that the model reads at most; None where it does not say."""
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(base), "max_position_embeddings", None)


def fitting(options: RowsT, base: str) -> RowsT:
    """The options with rows no longer than the model reads, and with the method of `--adapter`.

    Raises PipelineError if there is no such adapter.
    """
    options = replace(options, max_length=min(options.max_length, window(base) or options.max_length))
    return with_adapter(options)


def with_adapter(options: OptionsT) -> OptionsT:
    """The options with the method of `--adapter`, if there is one. Raises PipelineError."""
    if not options.adapter:
        return options
    path = Path(options.adapter) / "model" / "tuning.json"
    if not path.is_file():
        problem = "there is no adapter of a finished run"
        raise PipelineError(f"--adapter {options.adapter}", problem, "Name a run of pipeline.sft.")
    facts = json.loads(read_text(path))
    if (task := facts["settings"]["task"]) != options.task:
        problem = f"it was trained for --task {task}, got --task {options.task}"
        raise PipelineError(f"--adapter {options.adapter}", problem, "Name the task it was trained for.")
    return replace(options, tuning=facts["method"])


def _base(options: BaseOptions, base: str, dtype: Any, head: Mapping[str, Any]) -> Any:
    more = dict(head)
    if options.quantize == "4bit":
        from transformers import BitsAndBytesConfig

        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    kind = adapters.model_class(options.task)
    return kind.from_pretrained(base, dtype=dtype, use_safetensors=True, **more)


def _batches(options: BaseOptions, rows: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """Some rows one by one, for a method that looks at the data first."""
    import torch

    # one by one: a slice of a Dataset is a dictionary of columns
    chosen = [rows[i] for i in range(min(_SCORED, len(rows)))] if options.tuning == "fish-mask" else []
    return [
        {
            "input_ids": torch.tensor([row["input_ids"]]),
            "attention_mask": torch.ones(1, len(row["input_ids"]), dtype=torch.long),
            "labels": torch.tensor([row["labels"]]),
        }
        for row in chosen
    ]


def _steps(options: BaseOptions, rows: int) -> int:
    each = -(-rows // (options.batch_size * options.gradient_accumulation))
    return options.max_steps or max(1, round(each * options.num_epochs))
