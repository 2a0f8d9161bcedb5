"""The arithmetic of PPO: advantages, whitening over all processes, KL in the reward, clipped value loss.

Tensors are (B, T), one column a token of an answer, right-padded; `mask` is 1 where a token counts, and
whatever stands elsewhere never reaches a result. `reduce` adds a tensor up over all processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]


def alone(tensor: Tensor) -> Tensor:
    """The sum over one process."""
    return tensor


def masked_mean(values: Tensor, mask: Tensor, reduce: Reduce = alone) -> Tensor:
    """Mean over what the mask keeps, on all processes; 0 where it keeps nothing. Returns a scalar."""
    total, count = reduce(torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)]))
    return total / count.clamp(min=1.0)


def whiten(values: Tensor, mask: Tensor, reduce: Reduce = alone, *, keep_mean: bool = False) -> Tensor:
    """Values with variance 1 over what the mask keeps on all processes, and with mean 0 or their own.

    The variance is the unbiased one, as in TRL 1.12's masked_whiten.
    """
    mean = masked_mean(values, mask, reduce)
    squares, count = reduce(torch.stack([((values - mean) ** 2 * mask).sum(), mask.sum().to(values.dtype)]))
    white = (values - mean) * torch.rsqrt(squares / (count - 1).clamp(min=1.0) + 1e-8)
    return (white + mean if keep_mean else white) * mask


def advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438): advantages and returns.

    delta[t] = r[t] + gamma V[t+1] - V[t];  A[t] = delta[t] + gamma lam A[t+1];  returns are A + V. Behind the
    last token of an answer nothing follows: its next value is 0.
    """
    rewards, values = rewards * mask, values * mask
    found, following = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        after = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(following)
        following = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * following
        found[:, t] = following
    found = found * mask
    return found, (found + values) * mask


def kl(policy: Tensor, reference: Tensor, mask: Tensor, estimator: str) -> Tensor:
    """An estimate for each token, in nats, of the policy's divergence from the reference (B, T).

    From log-probabilities of tokens that the policy drew (Schulman, "Approximating KL divergence"): k1 is
    log(p/r), without bias; k3 is r/p - 1 - log(r/p), without bias, never negative and of less variance.
    """
    log_ratio = (reference - policy) * mask
    return (-log_ratio if estimator == "k1" else log_ratio.exp() - 1 - log_ratio) * mask


def token_rewards(scores: Tensor, divergence: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Rewards of tokens (B, T): each pays for its divergence, the last one gets the answer's score (B,)."""
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = (places * mask.long()).amax(1)  # of a row that counts nowhere 0, and the mask takes it out
    rewards = -coefficient * divergence
    rewards[torch.arange(len(last), device=mask.device), last] += scores.to(rewards.dtype)
    return rewards * mask


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Half the squared error of every token (B, T), the larger one of the value and of the value moved by at
    most `clip` from the old one; and where that was the moved one.
    """
    moved = old_values + (values - old_values).clamp(-clip, clip)
    own, held = (values - returns) ** 2, (moved - returns) ** 2
    return 0.5 * torch.maximum(own, held) * mask, ((held > own) * mask).float()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, reduce: Reduce = alone) -> float:
    """1 - Var(returns - values) / Var(returns) over what the mask keeps; 0 where the returns are all one."""
    error = returns - values
    left, whole = (
        masked_mean((part - masked_mean(part, mask, reduce)) ** 2, mask, reduce) for part in (error, returns)
    )
    return float(1 - left / whole) if whole > 1e-12 else 0.0


@dataclass
class FixedKL:
    """A coefficient that stays."""

    value: float

    def update(self, divergence: float, answers: int) -> None:
        """Stay."""


@dataclass
class AdaptiveKL:
    """A coefficient that follows the divergence of an answer, in nats, towards `target`.

    Ziegler et al. 2019, arXiv:1909.08593, section 2.2: it moves by at most 20% in `horizon` answers.
    """

    value: float
    target: float
    horizon: float

    def update(self, divergence: float, answers: int) -> None:
        """Take in the mean divergence of so many answers."""
        error = min(max(divergence / self.target - 1, -0.2), 0.2)
        self.value *= 1 + error * answers / self.horizon
