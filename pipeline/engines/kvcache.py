"""Keys and values of many sequences, each at its own length, in preallocated buffers.

transformers' DynamicCache concatenates (copies) the whole cache at every token and needs all rows equally
long; here a token is written in place, a finished row is replaced by the next request, and no row waits for
another.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

Layers = list[tuple[torch.Tensor, torch.Tensor]]


class SlotCache(Cache):
    """`slots` rows of up to `length` positions a layer; rows 0..n-1 are in use during a decoding step.

    Buffers: (slots, heads, length, head_dim) per layer for keys and for values, allocated at the first write.
    """

    def __init__(self, slots: int, length: int) -> None:
        super().__init__(layers=[])
        self.slots, self.length = slots, length
        self.buffers: Layers = []
        self._rows: torch.Tensor | slice = slice(0)
        self._starts = torch.zeros(0, dtype=torch.long)
        self._end = 0

    def _buffer(self, like: torch.Tensor, heads: int, dim: int) -> torch.Tensor:
        """Zeros, because a masked position is multiplied by 0 and garbage may be NaN.

        One column more than `length` takes what padding writes beyond the end.
        """
        return like.new_zeros(self.slots, heads, self.length + 1, dim)

    def aim(self, rows: torch.Tensor | slice, starts: torch.Tensor, end: int) -> None:
        """Say where the next forward writes: row i of the batch from position starts[i].

        It may read up to `end`.
        """
        self._rows, self._starts, self._end = rows, starts, end

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (B, H, Q, D) keys and values at the place aimed at.

        Return what the rows may read, (B, H, end, D).
        """
        if layer_idx == len(self.buffers):
            heads = key_states.shape[1]
            self.buffers.append(
                (
                    self._buffer(key_states, heads, key_states.shape[3]),
                    self._buffer(value_states, heads, value_states.shape[3]),
                )
            )
        width = key_states.shape[2]
        rows = torch.arange(self.slots, device=key_states.device)[self._rows]
        places = self._starts[:, None] + torch.arange(width, device=key_states.device)  # (B, Q)
        places = places.clamp(max=self.length)
        read = []
        for buffer, new in zip(self.buffers[layer_idx], (key_states, value_states), strict=True):
            buffer[rows[:, None], :, places] = new.transpose(1, 2)
            read.append(buffer[self._rows, :, : self._end])
        return read[0], read[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given explicitly; this is only asked for a default."""
        return 0

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a row over another.

        A freed slot is closed with the last one.
        """
        for keys, values in self.buffers:
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]

    def write(self, row: int, prefix: Layers) -> None:
        """Put a computed prefix, (H, P, D) a layer, at the start of a row."""
        for layer, (keys, values) in enumerate(prefix):
            if layer == len(self.buffers):
                self.buffers.append(
                    (
                        self._buffer(keys, keys.shape[0], keys.shape[2]),
                        self._buffer(values, values.shape[0], values.shape[2]),
                    )
                )
            self.buffers[layer][0][row, :, : keys.shape[1]] = keys
            self.buffers[layer][1][row, :, : values.shape[1]] = values

    def read(self, row: int, length: int) -> Layers:
        """A copy of the first `length` positions of a row."""
        return [(k[row, :, :length].clone(), v[row, :, :length].clone()) for k, v in self.buffers]


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend with (B, H, Q, D) queries to (B, H_kv, T, D) keys, not copying the keys for every query head.

    The query heads that share a key head are stacked along the query axis; with a mask that broadcasts over
    them this is the same sum. transformers' own path repeats keys and values H / H_kv times at every token.
    """
    batch, heads, width, dim = query.shape
    groups = heads // key.shape[1]
    stacked = query.reshape(batch, key.shape[1], groups * width, dim)
    mask = (
        attention_mask.repeat(1, 1, groups, 1) if attention_mask is not None and width > 1 else attention_mask
    )
    out = torch.nn.functional.scaled_dot_product_attention(stacked, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(batch, heads, width, dim).transpose(1, 2), None
