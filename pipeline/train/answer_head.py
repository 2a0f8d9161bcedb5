"""Log-probabilities of answers on a CPU, where TRL's fused head computes those of the prompts, too.

TRL 1.16's head skips the prompts on GPUs alone, and folds the vocabulary in single-precision passes: of a
step of DPO with SmolLM2 on two cores it took as long as all the layers. This one does the same to the last
digits.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

_CHUNK = 1024  # tokens whose logits are held at a time
_SCALED = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
    "output_router_logits",
)  # fmt: skip


def score_answers_only(
    model: Any, outputs: Sequence[str], *, temperature: float = 1.0, learn_entropy: bool = False
) -> bool:
    """Replace the head that TRL has put on a causal language model, where that is possible and helps.

    `outputs` names the fields of TRL's output that are wanted besides the log-probabilities, `temperature` is
    what logits are divided by; with `learn_entropy` the entropy has a gradient.
    """
    config = model.config.get_text_config()
    if model.device.type != "cpu" or any(getattr(config, name, None) is not None for name in _SCALED):
        return False
    fused = model.forward
    others = tuple(name for name in outputs if name != "log_probs")

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        """TRL's output; each field (B, T - 1) is zero where the label is -100."""
        if not fused_lm_head:
            return fused(*args, **kwargs)
        labels, items = kwargs.pop("labels")[:, 1:], kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden, mask = self.base_model(*args, **kwargs).last_hidden_state[:, :-1], labels != -100
        head = _Head(self.get_output_embeddings(), temperature, others, learn_entropy)
        found = _in_chunks(hidden[mask], labels[mask], head)
        spread = [value.new_zeros(mask.shape).masked_scatter(mask, value) for value in found]
        loss = -spread[0].sum() / (mask.sum().clamp(min=1) if items is None else items)
        fields = dict(zip(("log_probs", *others), spread, strict=True))
        return FusedCausalLMOutput(loss=loss, label_mask=mask, **fields)

    model.forward = types.MethodType(forward, model)
    return True


@dataclass(frozen=True)
class _Head:
    """What becomes of hidden states (N, D) and labels (N,)."""

    layer: Any
    temperature: float
    others: tuple[str, ...]
    learn_entropy: bool

    def __call__(self, hidden: Tensor, labels: Tensor) -> list[Tensor]:
        """Log-probabilities of the labels (N,), and the other fields that are wanted, each (N,)."""
        logits = self.layer(hidden)  # (N, V)
        if self.temperature != 1.0:
            logits = logits.float() / self.temperature
        every = logits.log_softmax(-1, dtype=torch.float32)
        log_probs = every.gather(-1, labels[:, None])[:, 0]
        learns = torch.is_grad_enabled()
        found = []
        for name in self.others:
            with torch.set_grad_enabled(learns and self.learn_entropy and name == "entropy"):
                found.append(_FIELDS[name](logits, every, log_probs))
        return [log_probs, *found]


_FIELDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "entropy": lambda logits, every, log_probs: -(every.exp() * every).sum(-1),
    "mean_logits": lambda logits, every, log_probs: logits.float().mean(-1),
    "is_top1": lambda logits, every, log_probs: log_probs >= every.amax(-1),
    "log_sum_sq_probs": lambda logits, every, log_probs: (2 * every).logsumexp(-1),
}


def _in_chunks(hidden: Tensor, labels: Tensor, head: _Head) -> list[Tensor]:
    """`head` of (N, D) hidden states and (N,) labels; of more than a chunk the logits are computed twice."""
    if len(labels) <= _CHUNK:
        return head(hidden, labels)
    parts = zip(hidden.split(_CHUNK), labels.split(_CHUNK), strict=True)
    found = [checkpoint(head, states, ids, use_reentrant=False) for states, ids in parts]
    return [torch.cat(values) for values in zip(*found, strict=True)]
