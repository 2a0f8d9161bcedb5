"""Answers to held-out requests before and after training, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.format.conversations import Conversation
from pipeline.format.templates import Template

_BATCH = 16  # requests answered together


@dataclass(frozen=True)
class Answer:
    """What a model said, and whether it stopped by itself."""

    text: str
    stopped: bool


def answer(
    model: Any, template: Template, asked: Sequence[Conversation], ends: Sequence[int], max_new_tokens: int
) -> list[Answer]:
    """Greedy answers to the last request of each conversation, prompted as an engine would be.

    `ends` are the ids that end an answer.
    """
    import torch

    tokenizer, out = template.tokenizer, list[Answer]()
    was_training, cache = model.training, model.config.use_cache
    model.eval()
    for begin in range(0, len(asked), _BATCH):
        part = asked[begin : begin + _BATCH]
        prompts = [template.prompt_ids(one.messages[:-1]) for one in part]
        longest = max(map(len, prompts))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])  # (B, T), padded on the left
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                use_cache=True,
                eos_token_id=list(ends),
                pad_token_id=pad,
            )[:, longest:]
        out += [_read(tokenizer, row.tolist(), ends) for row in made]
    model.train(was_training)
    model.config.use_cache = cache
    return out


def _read(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> Answer:
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    return Answer(tokenizer.decode(ids[:stop]).strip(), stop is not None)


def side_by_side(
    asked: Sequence[Conversation], before: Sequence[Answer], after: Sequence[Answer]
) -> list[dict[str, Any]]:
    """One record a request, for answers.jsonl."""
    return [
        {
            "where": one.where,
            "messages": [dict(message) for message in one.messages[:-1]],
            "reference": one.messages[-1]["content"],
            "before": old.text,
            "before_stopped": old.stopped,
            "after": new.text,
            "after_stopped": new.stopped,
        }
        for one, old, new in zip(asked, before, after, strict=True)
    ]
