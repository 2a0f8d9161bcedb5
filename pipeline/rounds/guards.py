"""When a round is rejected: the data collapsed, the policy got worse, or the held-out tasks leaked.

Each guard returns why, with its figures, or nothing. Alarms are said and recorded, and reject nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.evaluation.comparison import METRICS, difference
from pipeline.intervals import Interval
from pipeline.rounds.facts import Made
from pipeline.rounds.options import GuardOptions
from pipeline.rounds.scores import Scored

_WATCHED = ("loss, nats a character", "ended by itself", "repeats itself", "wrong language")
_RESAMPLES = 10000


def data(options: GuardOptions, found: Made, before: Interval, against: str) -> list[str]:
    """Why a round's data are not trained on; `before` is the diversity of `against`."""
    out = []
    if found.kept < options.min_yield * found.wanted or not found.kept:
        out.append(
            f"yield: {found.kept} of {found.wanted} wanted examples were kept of {found.proposed} proposals, "
            f"at least {options.min_yield:.0%} are asked for"
        )
    low = (1 - options.max_fall) * before.low
    if found.diversity.count > 1 and before.count > 1 and found.diversity.high < low:
        out.append(
            f"diversity: {_short(found.diversity)} after {_short(before)} of {against}, a fall of more than "
            f"{options.max_fall:.0%}"
        )
    return out


def policy(options: GuardOptions, now: Scored, good: Scored) -> list[str]:
    """Why a round's policy is not taken; `good` is the last good one's evaluation."""
    out = []
    change = difference(METRICS[0], good.answers, now.answers, resamples=_RESAMPLES, seed=0)
    if change and change["verdict"] == "worse":
        values = f"{change['before']:.3f} -> {change['after']:.3f}"
        out.append(f"success: {values}, {_short(Interval(**change['difference']))}, against {good.name}")
    leaked = now.sheet["contamination"].get("share")
    if leaked and leaked["value"] > options.max_contaminated:
        out.append(
            f"contamination: {leaked['value']:.1%} of the held-out requests are in the training data, "
            f"allowed are {options.max_contaminated:.1%}"
        )
    return out


def alarms(now: Scored, good: Scored) -> Iterator[str]:
    """What got worse beyond its interval, and does not reject a round."""
    for metric in METRICS:
        if metric.name not in _WATCHED:
            continue
        change = difference(metric, good.answers, now.answers, resamples=_RESAMPLES, seed=0)
        if change and change["verdict"] == "worse":
            interval = _short(Interval(**change["difference"]))
            yield f"{metric.name}: {change['before']:.3f} -> {change['after']:.3f}, {interval}"


def _short(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
