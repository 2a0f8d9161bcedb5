"""Drawing is nucleus sampling as the textbook has it, whatever the logits and settings."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.engines.base import Sampling
from pipeline.engines.draw import draw

ROWS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=60)
UNIFORM = st.floats(0, 1, exclude_max=True)
TEMPERATURE = st.floats(0.05, 2)
TOP_P = st.floats(0.01, 1)


def textbook(logits: list[float], temperature: float, top_p: float, uniform: float) -> int:
    """Sort everything, cut where top_p is reached, renormalise, invert the cumulative distribution.

    Where nothing is cut nothing is sorted.
    """
    scaled = torch.tensor([logits]) / torch.tensor([[temperature]])
    scaled -= scaled.max()
    row, total = scaled[0].numpy(), float(scaled.exp().sum())
    if top_p >= 1:
        reached = list(accumulate(float(np.exp(np.float64(one))) for one in row))
        return next((n for n, c in enumerate(reached) if c > uniform * reached[-1]), len(row) - 1)
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    cumulative = [c / total for c in accumulate(float(np.exp(np.float64(row[i]))) for i in order)]
    size = next((n for n, c in enumerate(cumulative, 1) if c >= top_p), len(order))
    wanted = uniform * cumulative[size - 1]
    return order[next((n for n, c in enumerate(cumulative[:size]) if c > wanted), size - 1)]


@settings(deadline=None, max_examples=400, derandomize=True)
@given(ROWS, TEMPERATURE, TOP_P, UNIFORM)
@example([0.0, 0.0], 1.0, 1.0, 0.5)  # exactly on the border of two tokens: the second
@example([0.0, 0.0], 1.0, 0.9999999, 0.5)
def test_a_draw_equals_the_textbook_with_a_full_sort(logits, temperature, top_p, uniform):
    found = draw(torch.tensor([logits]), [Sampling(temperature, top_p)], [uniform])
    assert found == [textbook(logits, temperature, top_p, uniform)]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.tuples(TEMPERATURE, TOP_P, UNIFORM), min_size=2, max_size=6), st.integers(0, 9))
def test_rows_with_settings_of_their_own_do_not_touch_each_other(rows, seed):
    logits = torch.randn(len(rows), 50, generator=torch.Generator().manual_seed(seed)) * 4
    found = draw(logits, [Sampling(t, p) for t, p, _ in rows], [u for _, _, u in rows])
    assert found == [textbook(row.tolist(), *s) for row, s in zip(logits, rows, strict=True)]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.5, 0.3)])
def test_even_uniform_numbers_give_the_shares_of_the_nucleus(temperature, top_p):
    logits = np.array([2.0, -1.0, 1.5, 0.0, -12.0, 1.0])
    p = np.exp(logits / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    nucleus = order[: int(np.searchsorted(p[order].cumsum(), top_p)) + 1]
    share = np.zeros(6)
    share[nucleus] = p[nucleus] / p[nucleus].sum()
    # n evenly spread uniform numbers put n * share of them, give or take one, on each token
    n = 2000
    rows = torch.tensor(logits, dtype=torch.float32).repeat(n, 1)
    found = draw(rows, [Sampling(temperature, top_p)] * n, [(i + 0.5) / n for i in range(n)])
    assert np.abs(np.bincount(found, minlength=6) / n - share).max() <= 1.01 / n


def test_a_flat_row_is_drawn_from_as_a_whole():
    # 200 equal logits and one far below: the last token of the full sort has e^-9 / 200 = 6e-7 of the whole
    logits = torch.zeros(1, 201)
    logits[0, 50] = -9.0
    nearly = Sampling(1.0, 1 - 1e-9)
    assert draw(logits, [nearly], [1 - 5e-7]) == [50]
    assert draw(logits, [nearly], [1 - 7e-7]) == [200]
    assert draw(logits, [nearly], [0.0]) == [0]


def test_without_a_nucleus_the_tokens_keep_their_order():
    logits = torch.tensor([[0.0, 3.0, -torch.inf, 1.0]])
    p = np.exp([0.0, 3.0, -np.inf, 1.0])
    p /= p.sum()
    for token, below, above in ((0, 0.0, p[0]), (1, p[0], p[0] + p[1]), (3, p[0] + p[1], 1.0)):
        for uniform in (below + 1e-6, above - 1e-6):
            assert draw(logits, [Sampling(1.0, 1.0)], [uniform]) == [token]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.integers(-2000, 2000), min_size=1, max_size=60), TOP_P, UNIFORM)
def test_temperature_0_takes_the_likeliest_token_the_first_of_equals(hundredths, top_p, uniform):
    logits = torch.tensor([hundredths]) / 100
    assert draw(logits, [Sampling(0.0, top_p)], [uniform]) == [hundredths.index(max(hundredths))]


def test_a_narrow_nucleus_is_greedy():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert {draw(logits, [Sampling(1.0, 0.01)], [u])[0] for u in (0.0, 0.5, 0.999)} == {1}


def test_the_logits_given_are_left_as_they_were():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    draw(logits, [Sampling(0.5, 0.9)], [0.5])
    assert logits.tolist() == [[0.0, 3.0, 1.0]]
