"""Batches of texts for a sentence-transformers model, by tokens rather than by texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_BUDGET = {"cpu": 2048, "cuda": 32768}  # tokens of a batch, padding included: more does not help a CPU


def cut(lengths: Sequence[int], budget: int) -> Iterator[tuple[int, int]]:
    """Cut ascending `lengths` (N,) into batches [begin, end) whose padded size is at most `budget` tokens.

    The padded size is the number of texts times the longest; a text longer than the budget goes alone.
    """
    begin = 0
    for end, length in enumerate(lengths):
        if end > begin and (end + 1 - begin) * length > budget:
            yield begin, end
            begin = end
    if begin < len(lengths):
        yield begin, len(lengths)


def token_batches(model: Any, texts: list[str]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Tokenise the texts once and yield (their numbers (B,), the model's input) batch by batch.

    A model that has no mask (it embeds words without looking at their neighbours) gets all of them at once.
    """
    import torch

    prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
    features = model.preprocess(texts, prompt=prompt)
    mask = features.get("attention_mask")
    if mask is None or mask.shape[0] != len(texts):
        yield np.arange(len(texts)), _on(features, model.device)
        return
    lengths = mask.sum(1)
    order = torch.argsort(lengths, stable=True)
    for begin, end in cut(lengths[order].tolist(), _BUDGET.get(model.device.type, _BUDGET["cuda"])):
        rows = order[begin:end]
        used = mask[rows].any(0).nonzero().flatten().tolist() or [0]  # of a text without tokens: its padding
        columns = slice(used[0], used[-1] + 1)
        batch = {
            name: value[rows][:, columns] if _per_token(value, mask) else value
            for name, value in features.items()
        }
        yield rows.numpy(), _on(batch, model.device)


def _per_token(value: Any, mask: Any) -> bool:
    return hasattr(value, "shape") and tuple(value.shape[:2]) == tuple(mask.shape)


def _on(features: dict[str, Any], device: Any) -> dict[str, Any]:
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}
