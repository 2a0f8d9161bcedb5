"""The score sheet: shares and means over tasks with 95% intervals, as a whole, by tag and by language.

A task with several requests counts once, with the mean over them: requests of one task are not independent.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.evaluation.labels import chance, macro_f1
from pipeline.evaluation.measures import Measured
from pipeline.evaluation.tasks import UNTAGGED
from pipeline.intervals import mean, ratio, share

Value = Callable[[Measured], float | None]


def scores(measured: Sequence[Measured]) -> dict[str, Any]:
    """Everything that can be said of the answers."""
    judged = [one for one in measured if one.judged is not None or one.record.rating is not None]
    return {
        "success": {
            **shares(measured, lambda one: one.success),
            "by": {
                how: shares([one for one in measured if one.by == how], lambda one: one.success)
                for how in dict.fromkeys(one.by for one in measured if one.by)
            },
        },
        "checks_passed": shares(measured, _checks),
        "classification": classification(measured),
        "judge": _judge(judged) if judged else None,
        "loss": loss(measured),
        "rouge_l": means(measured, lambda one: one.rouge),
        "stopped": shares(measured, lambda one: float(one.stopped)),
        "truncated": shares(measured, lambda one: float(one.truncated)),
        "empty": shares(measured, lambda one: float(not one.record.text)),
        "repetition": shares(measured, lambda one: float(bool(one.repetition))),
        "wrong_language": shares(measured, lambda one: float(bool(one.language))),
        "refused": shares(measured, lambda one: float(one.refused)),
        "length": means(measured, lambda one: float(one.length)),
        "tokens": means(measured, lambda one: float(one.record.tokens)),
        "by_tag": _groups(measured, lambda one: one.record.item.tags or (UNTAGGED,)),
        "by_language": _groups(measured, lambda one: (one.record.item.prompt.language,)),
    }


def by_task(measured: Iterable[Measured], value: Value) -> dict[str, float]:
    """The mean of what is known of each task's requests."""
    found = defaultdict[str, list[float]](list)
    for one in measured:
        if (number := value(one)) is not None:
            found[one.record.item.task].append(number)
    return {task: statistics.fmean(numbers) for task, numbers in found.items()}


def shares(measured: Iterable[Measured], value: Value) -> dict[str, float | int]:
    """A share over tasks."""
    found = by_task(measured, value)
    return share(sum(found.values()), len(found)).as_json()


def means(measured: Iterable[Measured], value: Value) -> dict[str, float | int]:
    """A mean over tasks."""
    return mean(list(by_task(measured, value).values())).as_json()


def loss(measured: Sequence[Measured]) -> dict[str, Any] | None:
    """Nats per token of the references, end tokens included, and perplexity; None where none was scored."""
    sums = defaultdict[str, list[float]](lambda: [0.0, 0.0])
    for one in measured:
        if one.reference_tokens and one.record.logprob is not None:
            sums[one.record.item.task][0] -= one.record.logprob
            sums[one.record.item.task][1] += one.reference_tokens
    if not sums:
        return None
    found = ratio([nats for nats, _ in sums.values()], [tokens for _, tokens in sums.values()])
    perplexity = {name: round(math.exp(getattr(found, name)), 4) for name in ("value", "low", "high")}
    tokens = int(sum(tokens for _, tokens in sums.values()))
    return {**found.as_json(), "tokens": tokens, "perplexity": {**perplexity, "count": found.count}}


def classification(measured: Sequence[Measured]) -> dict[str, Any] | None:
    """Accuracy, F1 macro-averaged within a task and then over tasks, answers without a label, and chance."""
    mine = [one for one in measured if one.by == "label"]
    if not mine:
        return None
    tasks = defaultdict[str, list[Measured]](list)
    for one in mine:
        tasks[one.record.item.task].append(one)
    f1 = [
        macro_f1(
            group[0].record.item.labels,
            [one.record.item.prompt.reference for one in group],
            [one.said for one in group],
        )
        for group in tasks.values()
    ]
    return {
        "tasks": len(tasks),
        "requests": len(mine),
        "accuracy": shares(mine, lambda one: one.success),
        "macro_f1": share(sum(f1), len(f1)).as_json(),
        "without_label": shares(mine, lambda one: float(not one.said)),
        "chance": round(chance({task: group[0].record.item.labels for task, group in tasks.items()}), 4),
    }


def _checks(one: Measured) -> float | None:
    return statistics.fmean(bool(c["passed"]) for c in one.checks) if one.checks else None


def _judge(measured: Sequence[Measured]) -> dict[str, Any]:
    """Against the reference: a win counts one, a tie and a flip a half."""
    compared = [one.record.comparison for one in measured if one.record.comparison]
    whole = [one for one in compared if len(one.read) == 2]
    return {
        "beats_reference": shares(measured, lambda one: one.judged),
        "flipped": share(sum(one.flipped for one in whole), len(whole)).as_json(),
        "unread": sum(2 - len(one.read) for one in compared),
        "rating": means(measured, lambda one: one.record.rating),
    }


def _groups(
    measured: Sequence[Measured], names: Callable[[Measured], Sequence[str]]
) -> dict[str, dict[str, Any]]:
    groups = defaultdict[str, list[Measured]](list)
    for one in measured:
        for name in names(one):
            groups[name].append(one)
    return {
        name: {
            "tasks": len({one.record.item.task for one in group}),
            "requests": len(group),
            "success": shares(group, lambda one: one.success),
            "rouge_l": means(group, lambda one: one.rouge),
            "loss": loss(group),
            "stopped": shares(group, lambda one: float(one.stopped)),
            "repetition": shares(group, lambda one: float(bool(one.repetition))),
            "length": means(group, lambda one: float(one.length)),
        }
        for name, group in sorted(groups.items())
    }
