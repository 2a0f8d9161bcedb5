"""Proves before training that a reward model scores the end of the answer, whatever it is padded with.

transformers finds the last token by its id, as the last one that is not the padding token: where padding and
end token are the same, as in many tokenizers, the token *before* the end is scored, and nothing says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.templates import Encoded
from pipeline.train import targets

TOLERANCE = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.05}  # of scores whose size is about 1
_FIX = "This is a defect: please report model and tokenizer."


def padding_token(tokenizer: Any, ends: Sequence[int]) -> int:
    """The id to pad with: no token that ends an answer. Sets the tokenizer's. Raises PipelineError."""
    begin = tokenizer.bos_token_id
    known = [tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids]
    extra = sorted(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    free = [one for one in (*known, *extra) if one is not None and one not in ends]
    chosen = next((one for one in free if one != begin), next(iter(free), None))
    if chosen is None:
        problem = "it has no special token but the one that ends an answer, so none to pad with"
        raise PipelineError("tokenizer", problem, "Add a pad_token to its tokenizer_config.json.")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(chosen)
    return int(chosen)


def check(trainer: Any, sides: Sequence[Encoded], precision: str) -> float:
    """The largest difference between the scores of rows in one padded batch and alone.

    Raises PipelineError if it is too large, or if a token other than the answer's last one is scored.
    """
    import torch

    model, pad = trainer.model, trainer.processing_class.pad_token_id
    longest = max(len(side.ids) for side in sides)
    rows = [side.ids + [pad] * (longest - len(side.ids)) for side in sides]
    mask = [[1] * len(side.ids) + [0] * (longest - len(side.ids)) for side in sides]
    device, training = model.device, model.training
    model.eval()
    with torch.inference_mode(), trainer.accelerator.autocast():
        scores, places = _scored(model, torch.tensor(rows, device=device), torch.tensor(mask, device=device))
        alone = [
            _scored(model, ids, torch.ones_like(ids))[0][0]
            for ids in (torch.tensor([side.ids], device=device) for side in sides)
        ]
    model.train(training)
    for side, place in zip(sides, places, strict=True):
        if place != len(side.ids) - 1:
            problem = f"token {place} is scored, expected the answer's end, {len(side.ids) - 1}"
            raise PipelineError(f"score check {side.where}", problem, _FIX)
    spread = max(1.0, max(abs(score) for score in alone))
    worst = max(abs(one - other) for one, other in zip(scores, alone, strict=True))
    if worst > TOLERANCE[precision] * spread:
        problem = f"a score changes by {worst:.3g} with the batch it is computed in, expected none"
        raise PipelineError("score check", problem, _FIX)
    return worst


def _scored(model: Any, ids: Any, mask: Any) -> tuple[list[float], list[int]]:
    """The scores of rows (B, T) and the places of the tokens whose scores they are.

    The head scores every position; which of them was taken is seen by its number.
    """
    seen = list[Any]()
    base = targets.plain(model)
    hook = targets.head(base).register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        scores = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()[:, 0]
    finally:
        hook.remove()
    # (B, T) or, behind soft prompts, (prompts * B, V + T) with all rows ending in the last column
    every = seen[0].float()[..., 0]
    every = every.view(-1, len(ids), every.shape[1]).mean(0)
    places = []
    for row, score, length in zip(every, scores, mask.sum(1).tolist(), strict=True):
        end = length - 1 if len(row) == ids.shape[1] else len(row) - 1
        apart = (row - score).abs()
        places.append(length - 1 if apart[end] <= 1e-3 * score.abs() else int(apart.argmin()))
    return scores.tolist(), places
