"""Drawing tokens: nucleus sampling for many rows, each with its own temperature, top-p and uniform number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.engines.base import Sampling


def draw(
    logits: torch.Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float], reach: float = 8.0
) -> list[int]:
    """One token per row of `logits` (B, V): nucleus sampling by inverse CDF at the row's uniform number.

    Only tokens within e^-reach of the likeliest one are sorted; where these do not reach top_p the row is
    sorted whole, so the result is that of the full sort. Where every token may come none is sorted.
    """
    temperature = torch.tensor([max(s.temperature, 1e-6) for s in samplings], device=logits.device)
    scaled = logits / temperature[:, None]
    scaled -= scaled.amax(-1, keepdim=True)
    totals = scaled.exp().sum(-1).cpu().double().numpy()
    tokens = []
    for row, total, sampling, uniform in zip(scaled.cpu().numpy(), totals, samplings, uniforms, strict=True):
        if sampling.top_p >= 1 and sampling.temperature:
            reached = np.exp(row, dtype=np.float64).cumsum()
            tokens.append(
                min(int(np.searchsorted(reached, uniform * reached[-1], side="right")), len(row) - 1)
            )
            continue
        ids, cumulative = _ranked(row, np.flatnonzero(row > -reach), total)
        if cumulative[-1] < sampling.top_p:
            ids, cumulative = _ranked(row, np.arange(len(row)), total)
        nucleus = min(int(np.searchsorted(cumulative, sampling.top_p)) + 1, len(ids))
        pick = int(np.searchsorted(cumulative[:nucleus], uniform * cumulative[nucleus - 1], side="right"))
        tokens.append(int(ids[0 if sampling.temperature == 0 else min(pick, nucleus - 1)]))
    return tokens


def _ranked(row: np.ndarray, ids: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    """`ids` from likely to unlikely (ties by id) and their cumulative probabilities."""
    ids = ids[np.argsort(-row[ids], kind="stable")]
    return ids, np.exp(row[ids].astype(np.float64)).cumsum() / total
