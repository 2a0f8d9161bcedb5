"""Prompts on their way through the decoder, and which of them share the computing of a common beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.engines.base import Sampling

MIN_SHARED = 32  # a shared prefix shorter than this is not worth a forward of its own


@dataclass
class Sequence_:
    """One prompt on its way: token ids in, sampled ids out; `prefix` tokens are shared with other prompts."""

    prompt: list[int]
    sampling: Sampling
    prefix: int = 0
    sampled: list[int] = field(default_factory=list)
    finish_reason: str = ""
    ended_with: int = -1  # the stop token, which is not among those sampled

    def __post_init__(self) -> None:
        self.uniform = np.random.default_rng(self.sampling.seed)

    @property
    def length(self) -> int:
        """Positions that hold keys and values once the newest token has been fed."""
        return len(self.prompt) + len(self.sampled)


def share_prefixes(sequences: Sequence[Sequence_], limits: Sequence[int] | None = None) -> None:
    """Set `prefix` on sequences whose prompts begin with the same >= MIN_SHARED tokens.

    At most limits[i] of them.

    Sorted neighbours are joined while their common prefix keeps at least half its length.
    """
    limit = {id(s): n for s, n in zip(sequences, limits or [s.length - 1 for s in sequences], strict=True)}
    cluster: list[Sequence_] = []
    shared = 0

    def close() -> None:
        """Give the sequences of the cluster their prefix."""
        prefix = min([shared, *(limit[id(s)] for s in cluster)])
        for sequence in cluster:
            sequence.prefix = prefix if len(cluster) > 1 and prefix >= MIN_SHARED else 0

    for sequence in sorted(sequences, key=lambda s: s.prompt):
        common = _common(cluster[-1].prompt, sequence.prompt) if cluster else 0
        first = len(cluster) == 1
        if cluster and common >= MIN_SHARED and (first or common * 2 >= shared):
            shared = common if first else min(shared, common)
            cluster.append(sequence)
        else:
            close()
            cluster, shared = [sequence], 0
    close()


def _common(a: list[int], b: list[int]) -> int:
    """How many leading tokens two prompts share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
