"""Padded batches of prompts and answers, computed without most of their padding.

The rows that are drawn together are padded to the longest prompt and the longest answer among them, and are
trained on a few at a time. Here rows alike in length come together, columns that hold nothing are left out,
and so are rows whose answers take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer

Compute = Callable[[Tensor, Tensor, int], Sequence[Tensor]]


def pieces(mask: Tensor, length: int, size: int = 0) -> Iterator[tuple[Tensor, slice, int]]:
    """Parts of a batch, to be computed one by one: rows (N,), the columns they fill, their answers' tokens.

    `mask` (B, P + length) is that of prompts padded on the left and answers of at most `length` tokens padded
    on the right. A part has at most `size` rows (0: all), alike in length; rows without an answer are left
    out. Where no row has one, one comes all the same: other processes wait for its gradients, which are 0.
    """
    answers = mask[:, -length:].bool()
    some = answers.any(1).nonzero()[:, 0]
    if not len(some):
        some = torch.zeros(1, dtype=torch.long, device=mask.device)
    some = some[mask[some].sum(1).argsort(stable=True)]
    for rows in some.split(size or len(some)):
        first = int(mask[rows].any(0).int().argmax())
        filled = answers[rows].any(0).nonzero()
        width = int(filled.max()) + 1 if len(filled) else 1
        yield rows, slice(first, mask.shape[1] - length + width), width


def compute(what: Compute, ids: Tensor, mask: Tensor, length: int, size: int = 0) -> list[Tensor]:
    """What `what(ids, mask, length)` gives for each answer token, 0 where there is none.

    `ids` and `mask` (B, P + length) and `size` are those of `pieces`, with each of which `what` is called; it
    gives tensors (rows, length), each of which is put together here (B, length).
    """
    parts, order = [], []
    for rows, columns, width in pieces(mask, length, size):
        found = what(ids[rows, columns], mask[rows, columns], width)
        parts.append([pad(one, (0, length - width)) for one in found])
        order.append(rows)
    some = torch.cat(order)
    place = torch.full((len(ids),), len(some), device=ids.device)
    place[some] = torch.arange(len(some), device=ids.device)
    return [torch.cat([*whole, whole[0].new_zeros(1, length)])[place] for whole in zip(*parts, strict=True)]


def by_length(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in as many batches of the same size, rows alike in length together.

    Batches are TRL's: tensors and lists have a row each, numbers and None belong to all.
    """
    lengths = torch.cat([one["prompt_mask"].sum(1) + one["completion_mask"].sum(1) for one in batches])
    unused = torch.cat([~one["completion_mask"].any(1) for one in batches])
    order = lengths.masked_fill(unused, 0).argsort(stable=True)
    size = len(order) // len(batches)
    found: list[dict[str, Any]] = [{} for _ in batches]
    for name, first in batches[0].items():
        if isinstance(first, Tensor) and first.dim():
            whole: Any = torch.cat([one[name] for one in batches])[order]
        elif isinstance(first, list):
            rows = [row for one in batches for row in one[name]]
            whole = [rows[place] for place in order.tolist()]
        else:
            whole = None
        for number, one in enumerate(found):
            one[name] = first if whole is None else whole[number * size : (number + 1) * size]
    return found


class UnpaddedTrainer(GRPOTrainer):
    """TRL's GRPOTrainer for texts, without its padding."""

    log_probabilities: Tensor  # (B, T), of the batch computed last
    beside: list[Tensor]  # each (B, T), what read_beside gave for it

    def read_beside(self, length: int) -> list[Tensor]:
        """What else is taken from the forward pass just done, of the last `length` tokens (rows, length)."""
        return []

    def _prepare_inputs(self: Any, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before or self.loss_type == "bnpo" or self._entropy_bonus_enabled:
            return inputs  # these take means over a batch: which rows share one matters to them
        batches, number = self._buffered_inputs, self.args.gradient_accumulation_steps
        steps = [batches[begin : begin + number] for begin in range(0, len(batches), number)]
        self._buffered_inputs = [one for step in steps for one in by_length(step)]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int = 0,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """TRL's: log-probabilities and entropies (B, T), and an auxiliary loss."""
        ask = super()._get_per_token_logps_and_entropies
        losses = []

        def what(ids: Tensor, mask: Tensor, length: int) -> list[Tensor]:
            """Log-probabilities, and entropies if they are wanted."""
            logps, entropies, loss = ask(
                model, ids, mask, length, compute_entropy=compute_entropy, compute_aux_loss=compute_aux_loss
            )
            losses.append(loss)
            return [logps, *([entropies] if compute_entropy else []), *self.read_beside(length)]

        found = compute(what, input_ids, attention_mask, logits_to_keep, batch_size)
        self.log_probabilities = found[0].detach()
        self.beside = found[2 if compute_entropy else 1 :]
        loss = torch.stack(losses).mean() if compute_aux_loss else None
        return found[0], found[1] if compute_entropy else None, loss
