"""PPO's arithmetic against examples worked by hand, TRL 1.12's published formulas, and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.ppo_math import (
    AdaptiveKL,
    advantages,
    explained_variance,
    kl,
    masked_mean,
    token_rewards,
    value_loss,
    whiten,
)


def ragged(seed: int, rows: int = 5, width: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random rewards and values (B, T) with garbage behind the answers' ends, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    mask = (torch.arange(width)[None] < lengths[:, None]).float()
    rewards, values = (torch.randn(rows, width, generator=generator) for _ in range(2))
    return rewards, values, mask


def test_gae_of_an_example_worked_by_hand() -> None:
    # delta = r + 0.5 V' - V: 1 + 0.5*2 - 1 = 1; 0 + 0.5*4 - 2 = 0; 2 + 0 - 4 = -2
    # A[2] = -2; A[1] = 0 + 0.5*0.5*-2 = -0.5; A[0] = 1 + 0.25*-0.5 = 0.875
    found, returns = advantages(
        torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3), 0.5, 0.5
    )
    assert found.tolist() == [[0.875, -0.5, -2.0]]
    assert returns.tolist() == [[1.875, 1.5, 2.0]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
def test_gae_is_that_of_trl_1_12(seed: int, gamma: float, lam: float) -> None:
    """Its PPOTrainer: deltas backwards over masked rewards and values, returns before whitening."""
    rewards, values, mask = ragged(seed)
    rewards, values = rewards * mask, values * mask
    last, reversed_found = 0, []
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] if t < rewards.shape[1] - 1 else 0.0
        last = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * last
        reversed_found.append(last)
    theirs = torch.stack(reversed_found[::-1], axis=1)
    found, returns = advantages(rewards, values, mask, gamma, lam)
    assert torch.equal(found * mask, theirs * mask)
    assert torch.equal(returns * mask, (theirs + values) * mask)


@pytest.mark.parametrize("keep_mean", [False, True])
def test_whitening_is_that_of_trl_1_12(keep_mean: bool) -> None:
    values, _, mask = ragged(3)
    kept = values[mask.bool()]
    theirs = (values - kept.mean()) * torch.rsqrt(kept.var() + 1e-8) + (kept.mean() if keep_mean else 0.0)
    assert torch.allclose(whiten(values, mask, keep_mean=keep_mean), theirs * mask, atol=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_padding_never_changes_a_result(seed: int, more: int) -> None:
    rewards, values, mask = ragged(seed)
    junk = 1e6 * torch.ones(len(mask), more)
    wide = [torch.cat([part, junk], 1) for part in (rewards, values)]
    wide_mask = torch.cat([mask, torch.zeros_like(junk)], 1)
    width = mask.shape[1]
    for small, large in zip(
        advantages(rewards, values, mask, 1.0, 0.95), advantages(*wide, wide_mask, 1.0, 0.95), strict=True
    ):
        assert torch.equal(small, large[:, :width]) and not large[:, width:].any()
    assert torch.allclose(whiten(rewards, mask), whiten(wide[0], wide_mask)[:, :width], atol=1e-5)
    loss, _ = value_loss(values, values + 1, rewards, mask, 0.2)
    wide_loss, _ = value_loss(wide[1], wide[1] + 1, wide[0], wide_mask, 0.2)
    assert torch.equal(loss, wide_loss[:, :width]) and not wide_loss[:, width:].any()


def test_the_score_comes_with_the_last_token_and_every_token_pays_for_its_divergence() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    found = token_rewards(torch.tensor([5.0, 7.0, 9.0]), torch.full((3, 3), 2.0), mask, 0.5)
    assert found.tolist() == [[-1.0, 4.0, 0.0], [-1.0, -1.0, 6.0], [0.0, 0.0, 0.0]]


def test_both_estimators_of_the_divergence_mean_the_same() -> None:
    """Over draws from p the means of k1 and k3 go to KL(p || r); k3 is never negative."""
    p, r = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
    exact = float((p * (p / r).log()).sum())
    draws = torch.multinomial(p, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    policy, reference, mask = p.log()[draws][None], r.log()[draws][None], torch.ones(1, 200_000)
    k1, k3 = (kl(policy, reference, mask, name) for name in ("k1", "k3"))
    assert float(k1.mean()) == pytest.approx(exact, abs=0.01)
    assert float(k3.mean()) == pytest.approx(exact, abs=0.01)
    assert k1.min() < 0 <= k3.min() and k3.var() < k1.var()


def test_the_value_loss_takes_the_worse_of_the_value_and_the_clipped_one() -> None:
    # old 0, clip 0.2, return 1: at 0.5 the clipped value 0.2 is farther away; at -1 the value itself
    values, old = torch.tensor([[0.5, -1.0]]), torch.zeros(1, 2)
    loss, clipped = value_loss(values, old, torch.ones(1, 2), torch.ones(1, 2), 0.2)
    assert loss.tolist() == [[pytest.approx(0.5 * 0.8**2), pytest.approx(0.5 * 4.0)]]
    assert clipped.tolist() == [[1.0, 0.0]]


def test_explained_variance() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.full((1, 4), 7.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(1, 4), mask) == 0.0


def test_statistics_over_two_processes_are_those_of_one() -> None:
    """What a process lacks is added by `reduce`; here both halves are added up beforehand."""
    values, _, mask = ragged(7, rows=6)
    halves = [(values[:3], mask[:3]), (values[3:], mask[3:])]
    whole = whiten(values, mask)

    def reduce_with(other: tuple[torch.Tensor, torch.Tensor]):  # type: ignore[no-untyped-def]
        steps = []

        def reduce(mine: torch.Tensor) -> torch.Tensor:
            theirs, their_mask = other
            if not steps:
                found = torch.stack([(theirs * their_mask).sum(), their_mask.sum()])
            else:
                mean = masked_mean(values, mask)
                found = torch.stack([((theirs - mean) ** 2 * their_mask).sum(), their_mask.sum()])
            steps.append(1)
            return mine + found

        return reduce

    for here, (mine, other) in enumerate([(halves[0], halves[1]), (halves[1], halves[0])]):
        found = whiten(*mine, reduce_with(other))
        assert torch.allclose(found, whole[3 * here : 3 * here + 3], atol=1e-5)


def test_adaptive_control_follows_its_target_and_is_bounded() -> None:
    control = AdaptiveKL(0.1, target=6.0, horizon=100.0)
    control.update(600.0, 10)  # far too much: at most 20% in a horizon
    assert control.value == pytest.approx(0.1 * (1 + 0.2 * 10 / 100))
    high = control.value
    control.update(0.0, 100)
    assert control.value == pytest.approx(high * 0.8)
    control.update(6.0, 100)
    assert control.value == pytest.approx(high * 0.8) and math.isfinite(control.value)
