"""Two evaluations of the same tasks side by side: differences task by task, wins, and a verdict in words."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.bootstrap import paired
from pipeline.intervals import Interval

NO_DIFFERENCE = "no difference shown"
DECIDING = ("success", "judged", "reference_logprob")  # fields of an answer, the first counts most
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """What is compared: the value of an answer, and whether more is better (1), worse (-1) or neither (0)."""

    name: str
    value: Callable[[Row], float | None]
    better: int = 1
    weight: Callable[[Row], float] | None = None


def _loss(row: Row) -> float | None:
    logprob, size = row["reference_logprob"], len(row["reference"])
    return None if logprob is None or not size else -logprob / size


METRICS = (
    Metric("success", lambda row: row["success"]),
    Metric("judge: better than the reference", lambda row: row["judged"]),
    Metric("judge: rating", lambda row: row["rating"]),
    # by the character, so that models with other tokens can be compared
    Metric("loss, nats a character", _loss, -1, lambda row: float(len(row["reference"]))),
    Metric("ROUGE-L", lambda row: row["rouge_l"]),
    Metric("ended by itself", lambda row: float(row["finish_reason"] == "stop")),
    Metric("repeats itself", lambda row: float(bool(row["repetition"])), -1),
    Metric("wrong language", lambda row: float(row["wrong_language"]), -1),
    Metric("length", lambda row: float(row["length"]), 0),
)


def difference(
    metric: Metric, before: Sequence[Row], after: Sequence[Row], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """The means of both over the tasks that both know, and the difference; None where there is none."""
    pairs = defaultdict[str, list[tuple[float, float, float]]](list)
    for one, other in zip(before, after, strict=True):
        old, new = metric.value(one), metric.value(other)
        if old is not None and new is not None:
            pairs[one["task"]].append((old, new, metric.weight(one) if metric.weight else 1.0))
    if not pairs:
        return None
    weights = [sum(w for *_, w in found) for found in pairs.values()]
    olds, news = (
        [sum(row[side] * row[2] for row in found) / sum(row[2] for row in found) for found in pairs.values()]
        for side in (0, 1)
    )
    given = weights if metric.weight else None
    changes = [new - old for old, new in zip(olds, news, strict=True)]
    change = paired(changes, given, resamples=resamples, seed=seed)
    scale = given or [1.0] * len(olds)
    means = [sum(v * w for v, w in zip(side, scale, strict=True)) / sum(scale) for side in (olds, news)]
    return {
        "metric": metric.name,
        "before": round(means[0], 4),
        "after": round(means[1], 4),
        "difference": change.as_json(),
        "verdict": verdict(change, metric.better),
    }


def verdict(change: Interval, better: int) -> str:
    """In words; an interval that holds 0 shows no difference."""
    if not change.count or change.low <= 0 <= change.high:
        return NO_DIFFERENCE
    if not better:
        return "higher" if change.value > 0 else "lower"
    return "better" if (change.value > 0) == (better > 0) else "worse"


def wins(before: Sequence[Row], after: Sequence[Row], *, resamples: int, seed: int) -> dict[str, Any]:
    """How often the second wins a task; a tie counts a half.

    What can be checked is decided by success, the rest by the judge, if there is one; only where nothing is
    known of either does the likelihood of the references decide. `by` holds each of the three by itself.
    """
    both = list(zip(before, after, strict=True))
    known = [
        [name for name in DECIDING if one[name] is not None and other[name] is not None]
        for one, other in both
    ]
    usable = [name for name in DECIDING[:2] if any(name in names for names in known)] or DECIDING[2:]
    first = [next((name for name in names if name in usable), "") for names in known]
    by = {
        name: _rate(both, [name if name in names else "" for names in known], resamples, seed)
        for name in DECIDING
        if any(name in names for names in known)
    }
    decided = Counter(name for name in first if name)
    return {**_rate(both, first, resamples, seed), "decided_by": dict(decided), "by": by}


def _rate(
    both: Sequence[tuple[Row, Row]], deciding: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """The win rate over tasks, each request decided by the field named for it ("": not at all)."""
    found = defaultdict[str, list[float]](list)
    for (one, other), name in zip(both, deciding, strict=True):
        if name:
            won = 0.5 if one[name] == other[name] else float(other[name] > one[name])
            found[one["task"]].append(won)
    rate = paired([statistics.fmean(row) - 0.5 for row in found.values()], resamples=resamples, seed=seed)
    shown = Interval(rate.value + 0.5, rate.low + 0.5, rate.high + 0.5, rate.count)
    return {"win_rate": shown.as_json(), "verdict": verdict(rate, 1)}
