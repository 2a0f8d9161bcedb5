"""Log-probabilities of answers on a CPU, where TRL's fused head computes those of the prompts, too.

TRL 1.16's head skips the prompts on GPUs alone, and folds the vocabulary in single-precision passes: of a
step of DPO with SmolLM2 on two cores it took as long as all the layers. This one does the same to the last
digits.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

_CHUNK = 1024  # tokens whose logits are held at a time
_SCALED = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
    "output_router_logits",
)  # fmt: skip


def score_answers_only(model: Any, *, squares: bool = False) -> bool:
    """Replace the head that TRL has put on a causal language model, where that is possible and helps.

    `squares`: `log_sum_sq_probs` is wanted, too.
    """
    config = model.config.get_text_config()
    if model.device.type != "cpu" or any(getattr(config, name, None) is not None for name in _SCALED):
        return False
    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        """TRL's output; each field (B, T - 1) is zero where the label is -100."""
        if not fused_lm_head:
            return fused(*args, **kwargs)
        labels = kwargs.pop("labels")[:, 1:]
        kwargs["use_cache"] = False
        hidden, mask = self.base_model(*args, **kwargs).last_hidden_state[:, :-1], labels != -100
        head = functools.partial(_per_token, head=self.get_output_embeddings(), squares=squares)
        found = _in_chunks(hidden[mask], labels[mask], head)
        spread = [value.new_zeros(mask.shape).masked_scatter(mask, value) for value in found]
        loss = -spread[0].sum() / mask.sum().clamp(min=1)
        names = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
        return FusedCausalLMOutput(loss=loss, label_mask=mask, **dict(zip(names, spread, strict=False)))

    model.forward = types.MethodType(forward, model)
    return True


def _in_chunks(hidden: torch.Tensor, labels: torch.Tensor, head: Any) -> list[torch.Tensor]:
    """`head` of (N, D) hidden states and (N,) labels; of more than a chunk the logits are computed twice."""
    if len(labels) <= _CHUNK:
        return list(head(hidden, labels))
    parts = zip(hidden.split(_CHUNK), labels.split(_CHUNK), strict=True)
    found = [checkpoint(head, states, ids, use_reentrant=False) for states, ids in parts]
    return [torch.cat(values) for values in zip(*found, strict=True)]


def _per_token(
    hidden: torch.Tensor, labels: torch.Tensor, *, head: Any, squares: bool
) -> tuple[torch.Tensor, ...]:
    """(N,) log-probabilities of the labels, and without gradient what TRL logs of the distributions."""
    logits = head(hidden).float()  # (N, V)
    every = logits.log_softmax(-1)
    log_probs = every.gather(-1, labels[:, None])[:, 0]
    with torch.no_grad():
        probs = every.exp()
        entropy = -torch.einsum("nv,nv->n", probs, every)
        found = [log_probs, entropy, logits.mean(-1), log_probs >= every.amax(-1)]
        if squares:
            found.append(torch.einsum("nv,nv->n", probs, probs).log())
    return tuple(found)
