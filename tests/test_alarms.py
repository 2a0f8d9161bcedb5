"""Alarms: each fires on its sign, once, clears, and goes on the same after a restart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.intervals import Interval, mean, share
from pipeline.train.alarms import METRICS, Alarms, Limits

FINE = {
    "reward": 0.5,
    "mean_length": 60.0,
    "repetition": 0.02,
    "kl": 1.0,
    "clipped_frac": 0.0,
    "excluded_frac": 0.0,
    "zero_variance_frac": 0.4,
}


def run(alarms: Alarms, count: int, start: int = 1, **figures: float) -> list[str]:
    """What is told in so many steps of the same figures."""
    return [
        said for step in range(start, start + count) for said in alarms.after_step(step, {**FINE, **figures})
    ]


def test_a_sound_run_is_told_nothing() -> None:
    alarms = Alarms()
    told = [
        said
        for step in range(100)
        for said in alarms.after_step(step, {**FINE, "reward": step / 100, "mean_length": 60 + step / 4})
    ]
    assert not told and alarms.metrics == {}


@pytest.mark.parametrize(("length", "how"), [(20.0, "shorter"), (150.0, "longer")])
def test_answers_that_halve_or_double_in_length_are_told_once(length: float, how: str) -> None:
    alarms = Alarms()
    assert not run(alarms, 5)
    (told,) = run(alarms, 20, mean_length=length)
    assert (
        told == f"alarm length: answers got {how}, {_crossing(length):.4g} on average, 60 in the first steps"
    )
    assert alarms.metrics == {"alarms/length": 1.0}
    assert not run(alarms, 5) and alarms.metrics == {}
    assert len(run(alarms, 20, mean_length=length)) == 1  # it had cleared: told again


def _crossing(length: float) -> float:
    """The first running mean of five beyond a factor of two, from 60 towards `length`."""
    means = [(60 * (5 - new) + length * new) / 5 for new in range(6)]
    return next(mean for mean in means if not 30 <= mean <= 120)


def test_one_odd_step_is_no_collapse() -> None:
    alarms = Alarms()
    assert not run(alarms, 5) + run(alarms, 1, mean_length=5.0) + run(alarms, 9)


def test_repetition_is_told_above_the_bound_and_only_if_it_rose() -> None:
    alarms = Alarms()
    assert not run(alarms, 5)
    (told,) = run(alarms, 9, repetition=0.4)
    assert told.startswith("alarm repetition: answers repeat") and told.endswith("2% in the first steps")
    looping = Alarms()
    assert not run(looping, 5, repetition=0.3) + run(looping, 9, repetition=0.38)  # it began like that
    assert len(run(looping, 9, repetition=0.5)) == 1


def test_a_reward_that_rises_far_from_the_reference_is_told() -> None:
    alarms = Alarms()
    assert not run(alarms, 5)
    assert not run(alarms, 9, kl=30.0, reward=0.4)  # far, but the reward did not rise
    (told,) = run(alarms, 9, kl=30.0, reward=0.9)
    assert told.startswith("alarm kl: the reward rose from 0.5 to ") and "30 nats an answer" in told


@pytest.mark.parametrize(
    ("name", "alarm", "limit", "what"),
    [
        ("clipped_frac", "clipped", 0.5, "of the answers are cut off"),
        ("excluded_frac", "excluded", 0.2, "of the answers have no reward"),
    ],
)
def test_shares_over_their_bounds_are_told(name: str, alarm: str, limit: float, what: str) -> None:
    alarms = Alarms()
    assert not run(alarms, 10, **{name: limit})
    (told,) = run(alarms, 10, **{name: 1.0})
    assert told.startswith(f"alarm {alarm}: ") and told.endswith(what)


def test_groups_that_are_all_flat_for_the_whole_window_are_told() -> None:
    alarms = Alarms()
    assert not run(alarms, 4, zero_variance_frac=1.0)
    (told,) = run(alarms, 4, zero_variance_frac=1.0)
    assert told == "alarm zero_variance: in the last 5 steps all answers to a prompt had the same reward"
    assert not run(Alarms(), 9, zero_variance_frac=0.99)


def test_a_held_out_share_that_falls_while_the_reward_rises_is_told_with_both_looks() -> None:
    alarms = Alarms()
    alarms.after_step(0, {}, {"checks": share(80, 100)})  # before the first step
    run(alarms, 10)
    assert not alarms.after_step(11, FINE, {"checks": share(75, 100)})  # within the interval
    run(alarms, 9, reward=0.9)
    (told,) = alarms.after_step(20, {**FINE, "reward": 0.9}, {"checks": share(40, 100)})
    assert told == (
        "alarm held_out/checks: it fell by 0.4, from 0.8 at step 0 to 0.4 at step 20, "
        "while the reward rose from 0.5 to 0.9"
    )
    assert alarms.metrics == {"alarms/held_out/checks": 1.0}
    assert not alarms.after_step(30, {**FINE, "reward": 0.9}, {"checks": share(42, 100)})  # it still holds
    assert not alarms.after_step(40, {**FINE, "reward": 0.9}, {"checks": share(85, 100)})
    assert alarms.metrics == {}


def test_a_fall_counts_only_beyond_the_interval_of_the_difference() -> None:
    # half widths 0.3 and 0.4 at right angles: a difference must be above 0.5
    then = Interval(0.9, 0.6, 1.0, 10)
    for now, told in ((Interval(0.41, 0.1, 0.81, 10), 0), (Interval(0.39, 0.1, 0.79, 10), 1)):
        alarms = Alarms()
        alarms.after_step(1, {"reward": 0.1}, {"x": then})
        assert len(alarms.after_step(2, {"reward": 0.5}, {"x": now})) == told


def test_a_fall_with_a_falling_reward_or_a_single_look_is_no_hacking() -> None:
    alarms = Alarms()
    assert not alarms.after_step(1, {"reward": 0.9}, {"x": 0.8})
    assert not alarms.after_step(2, {"reward": 0.1}, {"x": 0.2})
    other = Alarms()
    other.after_step(1, {"reward": 0.1}, {"x": 0.8})
    assert not other.after_step(2, {"reward": 0.9}, {"y": 0.2})  # another figure's first look
    assert other.after_step(3, {"reward": 0.9}, {"x": 0.7})  # without an interval any fall counts


def test_an_interval_of_nothing_says_nothing() -> None:
    alarms = Alarms()
    alarms.after_step(1, {"reward": 0.1}, {"x": share(9, 10)})
    assert not alarms.after_step(2, {"reward": 0.9}, {"x": mean([])})


def test_figures_that_are_missing_or_no_numbers_are_passed_over() -> None:
    alarms = Alarms()
    assert not [said for step in range(20) for said in alarms.after_step(step, {"kl": math.nan})]
    run(alarms, 5)
    assert not [said for step in range(20) for said in alarms.after_step(step, {"mean_length": math.nan})]
    assert len(run(alarms, 9, mean_length=5.0)) == 1


def test_limits_are_the_callers() -> None:
    alarms = Alarms(Limits(window=1, length_ratio=1.1, kl=0.5))
    assert not alarms.after_step(1, FINE)
    told = alarms.after_step(2, {**FINE, "mean_length": 70.0, "reward": 0.6})
    assert [said.split(":")[0] for said in told] == ["alarm length", "alarm kl"]


_FIGURES = st.dictionaries(st.sampled_from(METRICS), st.floats(0, 40) | st.just(math.nan))
_LOOKS = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 20).map(lambda hits: share(hits, 20)))


@given(st.lists(st.tuples(_FIGURES, _LOOKS), max_size=30), st.integers(0, 30))
def test_a_resumed_run_is_told_the_same(
    steps: list[tuple[Mapping[str, float], Mapping[str, Any]]], cut: int
) -> None:
    limits = Limits(window=2)
    whole, first, rest = Alarms(limits), Alarms(limits), Alarms(limits)
    told = [whole.after_step(step, *given) for step, given in enumerate(steps)]
    again = [first.after_step(step, *given) for step, given in enumerate(steps[:cut])]
    rest.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    again += [rest.after_step(step, *given) for step, given in enumerate(steps[cut:], len(steps[:cut]))]
    assert again == told
    assert rest.state() == whole.state() and rest.metrics == whole.metrics
