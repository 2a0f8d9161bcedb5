"""What PEFT's soft prompts lack: ensembles, padding that changes nothing, a gentle start for deep prompts.

Prompt ensembling follows Lester et al. 2021 (arXiv:2104.08691, section 6): N prompts train on the same
rows, each by its own loss, in one batch that repeats the rows N times. Deviation: at inference their logits
are averaged (a geometric mean of the distributions) where the paper takes a majority vote, which free text
does not allow.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from peft import PeftConfig, PeftModelForCausalLM, PeftModelForSequenceClassification, get_peft_model
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.modeling_layers import GenericForSequenceClassification

from pipeline.errors import PipelineError
from pipeline.train.methods import Tuning


class _Ensemble:
    """N prompts before every row; a mixin of PEFT's prompt models, whose one embedding holds all N."""

    num_ensemble = 1

    def forward(
        self: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model's output for rows (B, T), averaged over the prompts; the loss is the mean of the N."""
        n = self.num_ensemble
        kwargs.pop("position_ids", None)  # of the rows alone
        if kwargs.get("num_items_in_batch") is not None:
            kwargs["num_items_in_batch"] = kwargs["num_items_in_batch"] * n
        if labels is not None and self.task == "causal":
            masked = labels.new_full((len(labels), self.num_virtual_tokens), -100)
            labels = torch.cat((masked, labels), dim=1)
        output = self.base_model(
            **self._prompted(input_ids, attention_mask),
            labels=None if labels is None else labels.repeat(n, *[1] * (labels.dim() - 1)),
            **kwargs,
        )
        for name, value in output.items():
            if isinstance(value, torch.Tensor) and value.dim() and len(value) == n * len(input_ids):
                each = value.view(n, -1, *value.shape[1:])
                output[name] = each.float().mean(0).to(value.dtype) if value.is_floating_point() else each[0]
        return output

    def generate(
        self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Prompt and greedy answer of rows (B, T), each token the one of the highest average logit."""
        settings = kwargs.get("generation_config") or self.generation_config
        if kwargs.get("do_sample", settings.do_sample):
            problem = "an ensemble's prompts have to agree on each token, so it cannot sample"
            fix = "Generate with do_sample=False, or train one prompt (num_ensemble 1)."
            raise PipelineError("prompt ensemble", problem, fix)
        average = LogitsProcessorList([_Average(self.num_ensemble)])
        new = self.base_model.generate(
            **self._prompted(input_ids, attention_mask), logits_processor=average, **kwargs
        )
        return torch.cat((input_ids, new[: len(input_ids)]), dim=1)

    @property
    def num_virtual_tokens(self: Any) -> int:
        """Of each prompt."""
        return self.active_peft_config.num_virtual_tokens // self.num_ensemble

    def _prompted(
        self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Embeddings and mask of (N * B, V + T): each row behind the first prompt, then the second, ..."""
        n, rows = self.num_ensemble, len(input_ids)
        tokens = self.word_embeddings(input_ids).repeat(n, 1, 1)
        prompts = self.prompt_encoder[self.active_adapter].embedding.weight
        prompts = prompts.view(n, -1, prompts.shape[-1]).repeat_interleave(rows, 0).to(tokens.dtype)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = torch.cat((mask.new_ones(rows, prompts.shape[1]), mask), dim=1).repeat(n, 1)
        return {"inputs_embeds": torch.cat((prompts, tokens), dim=1), "attention_mask": mask}


class CausalEnsemble(_Ensemble, PeftModelForCausalLM):  # type: ignore[misc] # a narrower forward
    """A language model behind N prompts."""

    task = "causal"


class ClassifierEnsemble(_Ensemble, PeftModelForSequenceClassification):  # type: ignore[misc]
    """A sequence classifier behind N prompts."""

    task = "classify"


class _Average(LogitsProcessor):
    """The same scores for a row behind each of its prompts: their mean."""

    def __init__(self, num_ensemble: int) -> None:
        self.num_ensemble = num_ensemble

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        mean = scores.view(self.num_ensemble, -1, scores.shape[-1]).mean(0)
        return mean.repeat(self.num_ensemble, 1)


def prompt_model(model: Any, config: PeftConfig, tuning: Tuning) -> Any:
    """The model behind soft prompts, as PEFT builds it or as an ensemble."""
    prompted: Any
    if tuning.method == "prompt" and tuning.num_ensemble > 1:
        kind = ClassifierEnsemble if tuning.task == "classify" else CausalEnsemble
        config.base_model_name_or_path = model.name_or_path or None
        prompted = kind(model, config)
        prompted.num_ensemble = tuning.num_ensemble
    else:
        prompted = get_peft_model(model, config)
    reads_last = issubclass(type(model), GenericForSequenceClassification)
    if tuning.method in ("prompt", "p-tuning") and (reads_last or tuning.task == "causal"):
        if reads_last:
            model.register_forward_pre_hook(_pad_left, with_kwargs=True)
        if "position_ids" in inspect.signature(type(model).forward).parameters:
            model.register_forward_pre_hook(_count_positions, with_kwargs=True)
    if tuning.method == "p-tuning-v2" and not config.inference_mode:
        # PEFT draws from N(0, 1), which drowns what the model attends to: SmolLM2's loss goes from 2.4 to 8.2
        prompted.prompt_encoder["default"].embedding.weight.data.mul_(0.02)
    return prompted


def _pad_left(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Move padding to the front of embedded rows.

    A classifier reads the last token that is not padding, and finds it by its id. Behind virtual tokens it
    sees embeddings only and would read the last column, which in a shorter row is padding.
    """
    embeds, mask = kwargs.get("inputs_embeds"), kwargs.get("attention_mask")
    if embeds is None or mask is None:
        return args, kwargs
    order = mask.argsort(dim=1, stable=True)
    embeds = embeds.gather(1, order.unsqueeze(-1).expand_as(embeds))
    return args, {**kwargs, "inputs_embeds": embeds, "attention_mask": mask.gather(1, order)}


def _count_positions(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Number the tokens without the padding, which on the left lies between the virtual tokens and the text.

    PEFT drops the positions, and a row's distance from its prompt would depend on the other rows' lengths.
    """
    mask, tokens = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
    if tokens is None:
        tokens = kwargs.get("input_ids")
    if tokens is None or mask is None or mask.dim() != 2 or kwargs.get("position_ids") is not None:
        return args, kwargs
    positions = (mask.cumsum(1) - 1).clamp(min=0).long()
    return args, {**kwargs, "position_ids": positions[:, -tokens.shape[1] :]}
