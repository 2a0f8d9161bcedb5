"""The order of rows and prompts: one that seed and epoch alone decide, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl.trainer.utils import RepeatSampler


class GroupedByLength(Sampler[int]):
    """Rows of near-equal length together, in an order that seed and epoch alone decide."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(1_000_003 * self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class PromptSampler(RepeatSampler):
    """TRL's, in an order that seed and epoch alone decide: its own goes on where the last epoch ended."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each pass."""
        self.generator.manual_seed(1_000_003 * (self.seed or 0) + epoch)
