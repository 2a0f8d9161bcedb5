"""Which prompts share the computing of their common beginning, on crafted lists."""

from __future__ import annotations

from pipeline.engines.base import Sampling
from pipeline.engines.sequences import MIN_SHARED, Sequence_, share_prefixes


def prefixes(*prompts: list[int], limits: list[int] | None = None) -> list[int]:
    sequences = [Sequence_(prompt, Sampling()) for prompt in prompts]
    share_prefixes(sequences, limits)
    return [s.prefix for s in sequences]


def test_prefixes_are_shared_from_a_minimum_on():
    common = [1] * MIN_SHARED
    assert prefixes([*common, 2], [*common, 3]) == [MIN_SHARED] * 2
    assert prefixes([*common[1:], 2], [*common[1:], 3]) == [0, 0]
    assert prefixes([*common, 2]) == [0] and prefixes() == []


def test_at_least_one_token_of_a_prompt_stays_its_own():
    # two equal prompts of 50, and one of 40 that another goes on from: the last token must give the logits
    assert prefixes([5] * 50, [5] * 50) == [49, 49]
    assert prefixes([6] * 60, [6] * 40) == [39, 39]


def test_a_limit_on_one_prompt_holds_for_all_that_share_with_it():
    assert prefixes([5] * 50, [5] * 50, limits=[49, 35]) == [35, 35]
    assert prefixes([5] * 50, [5] * 50, limits=[49, 20]) == [0, 0]


def test_prompts_that_share_much_do_not_give_it_up_for_one_that_shares_little():
    # 100 shared tokens; the third prompt shares 40 of them, less than half
    first, second, third = [1] * 100 + [2], [1] * 100 + [3], [1] * 40 + [9] * 61
    assert prefixes(first, second, third) == [100, 100, 0]
    # 60 of 100 is more than half: all three share those
    assert prefixes(first, second, [1] * 60 + [9] * 41) == [60, 60, 60]


def test_two_groups_of_prompts_share_two_prefixes_in_any_order():
    prompts = [[n] * 40 + [10 + i] for i in range(3) for n in (1, 2)]
    assert prefixes(*prompts, [3, 4]) == [40] * 6 + [0]
