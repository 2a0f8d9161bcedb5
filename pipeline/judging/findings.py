"""What a run says about its judges: agreement, flips, ties, margins, and whether the longer answer wins."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from pipeline.intervals import Interval, mean, share
from pipeline.judging.answers import Answer
from pipeline.judging.flow import Case
from pipeline.judging.model_judge import FIRST, TIE
from pipeline.judging.options import PAIRWISE
from pipeline.judging.pairs import Pair
from pipeline.stages.text import length

_EXAMPLES = 3


def findings(cases: Sequence[Case], found: Sequence[Pair], judges: Sequence[str]) -> dict[str, Any]:
    """Everything for findings.json; shares with 95% intervals."""
    answers = [answer for case in cases for answer in case.answers]
    return {
        "prompts": len(cases),
        "answers": len(answers),
        "refusals": sum(answer.refused for answer in answers),
        "pairs": len(found),
        "judges": {judge: _judge(cases, found, judge) for judge in judges},
        "agreement": [_agreement(cases, *two) for two in itertools.combinations(judges, 2)],
        "comparisons": _comparisons(cases) if PAIRWISE in judges else None,
        "checks": _checks(cases),
        "pairs_by": _paired(found),
    }


def _preferences(cases: Sequence[Case], judge: str) -> Iterator[tuple[Answer, Answer]]:
    """Of every two answers that a judge scores apart, the better one first."""
    for case in cases:
        scored = [answer for answer in case.answers if judge in answer.scores]
        for one, other in itertools.combinations(scored, 2):
            if one.scores[judge] != other.scores[judge]:
                yield (one, other) if one.scores[judge] > other.scores[judge] else (other, one)


def _judge(cases: Sequence[Case], found: Sequence[Pair], judge: str) -> dict[str, Any]:
    values = [a.scores[judge] for case in cases for a in case.answers if judge in a.scores]
    scored = [sum(judge in answer.scores for answer in case.answers) for case in cases]
    two = sum(count * (count - 1) // 2 for count in scored)
    apart = list(_preferences(cases, judge))
    lengths = [(length(better.text), length(worse.text)) for better, worse in apart]
    unequal = [(a, b) for a, b in lengths if a != b]
    return {
        "scored": len(values),
        "mean": round(statistics.fmean(values), 4) if values else None,
        "decided": sum(pair.judge == judge for pair in found),
        "ties": share(two - len(apart), two).as_json(),
        "longer_preferred": share(sum(a > b for a, b in unequal), len(unequal)).as_json(),
    }


def _agreement(cases: Sequence[Case], one: str, other: str) -> dict[str, Any]:
    """How often two judges prefer the same of two answers that both tell apart."""
    mine = {(a.id, b.id) for a, b in _preferences(cases, one)}
    theirs = {(a.id, b.id) for a, b in _preferences(cases, other)}
    same = len(mine & theirs)
    against = len(mine & {(b, a) for a, b in theirs})
    return {"judges": [one, other], "same": share(same, same + against).as_json()}


def _comparisons(cases: Sequence[Case]) -> dict[str, Any]:
    """How a comparing model behaves: how often the place decides, and how often nothing does."""
    every = [comparison for case in cases for comparison in case.comparisons.values()]
    whole = [comparison for comparison in every if len(comparison.read) == 2]
    said = [verdict for comparison in every for verdict in comparison.read if verdict != TIE]
    tied = [c for c in whole if c.winner is None and not c.flipped]
    return {
        "asked": 2 * len(every),
        "unread": 2 * len(every) - sum(len(c.read) for c in every),
        "flipped": share(sum(c.flipped for c in whole), len(whole)).as_json(),
        "tied": share(len(tied), len(whole)).as_json(),
        "first_preferred": share(sum(verdict == FIRST for verdict in said), len(said)).as_json(),
    }


def _checks(cases: Sequence[Case]) -> dict[str, Any]:
    """By model, means over prompts: the share of checks passed, and of answers that pass all."""
    by_model = defaultdict[str, list[tuple[float, float]]](list)
    for case in cases:
        mine = defaultdict[str, list[list[bool]]](list)
        for answer in case.answers:
            if answer.checks:
                mine[answer.model].append([bool(check["passed"]) for check in answer.checks])
        for model, rows in mine.items():
            passed = statistics.fmean(statistics.fmean(row) for row in rows)
            by_model[model].append((passed, statistics.fmean(all(row) for row in rows)))
    return {
        model: {
            "passed": mean([passed for passed, _ in rows]).as_json(),
            "all_passed": mean([whole for _, whole in rows]).as_json(),
        }
        for model, rows in by_model.items()
    }


def _paired(found: Sequence[Pair]) -> dict[str, Any]:
    """Margins and lengths of the pairs that were made."""
    lengths = [pair.lengths for pair in found]
    unequal = [(chosen, rejected) for chosen, rejected in lengths if chosen != rejected]
    margins = sorted(pair.margin for pair in found)
    quartiles = statistics.quantiles(margins, n=4) if len(margins) > 1 else margins
    return {
        "margin": [round(value, 4) for value in quartiles],
        "chosen_longer": share(sum(a > b for a, b in unequal), len(unequal)).as_json(),
        "chosen_length": round(statistics.fmean(a for a, _ in lengths), 1) if lengths else None,
        "rejected_length": round(statistics.fmean(b for _, b in lengths), 1) if lengths else None,
    }


def warnings(found: dict[str, Any]) -> list[str]:
    """What a careful person would want to be told."""
    out = []
    for judge, facts in found["judges"].items():
        bias = Interval(**facts["longer_preferred"])
        if bias.count and not bias.low <= 0.5 <= bias.high:
            which = "longer" if bias.value > 0.5 else "shorter"
            out.append(f"{judge} prefers the {which} of two answers: the longer one in {bias}")
    chosen = Interval(**found["pairs_by"]["chosen_longer"])
    if chosen.count and not chosen.low <= 0.5 <= chosen.high:
        out.append(f"the longer answer is chosen in {chosen} pairs; --max-length-ratio matches lengths")
    if told := found["comparisons"]:
        first, flips = Interval(**told["first_preferred"]), Interval(**told["flipped"])
        if first.count and not first.low <= 0.5 <= first.high:
            out.append(f"pairwise prefers a place: what is shown first in {first}; flips, left out: {flips}")
    return out


def table(found: dict[str, Any]) -> Table:
    """A line for each judge, each two of them, and the checks."""
    title = f"{found['prompts']:,} prompts, {found['answers']:,} answers, {found['pairs']:,} pairs"
    out = Table(title=title, title_justify="left")
    out.add_column("what")
    out.add_column("share, 95% interval", justify="right")
    for judge, facts in found["judges"].items():
        out.add_row(f"{judge}: of two answers, tied", str(Interval(**facts["ties"])))
        out.add_row(f"{judge}: the longer one preferred", str(Interval(**facts["longer_preferred"])))
    if told := found["comparisons"]:
        out.add_row("pairwise: flipped with the order", str(Interval(**told["flipped"])))
        out.add_row("pairwise: first place preferred", str(Interval(**told["first_preferred"])))
    for two in found["agreement"]:
        out.add_row(f"{' and '.join(two['judges'])} agree", str(Interval(**two["same"])))
    for model, facts in found["checks"].items():
        out.add_row(f"checks passed by {model}", str(Interval(**facts["passed"])))
        out.add_row(f"answers with all passed, {model}", str(Interval(**facts["all_passed"])))
    made = found["pairs_by"]
    out.add_row("pairs: margin, quartiles", " ".join(f"{value:g}" for value in made["margin"]) or "none")
    out.add_row("pairs: chosen longer", str(Interval(**made["chosen_longer"])))
    return out


def examples(found: Sequence[Pair]) -> Iterator[str]:
    """The first few pairs, for people."""
    for pair in found[:_EXAMPLES]:
        yield f"\nprompt: {pair.case.prompt.request[:300]}"
        score = pair.chosen.scores[pair.judge], pair.rejected.scores[pair.judge]
        yield f"  chosen ({pair.judge} {score[0]:g}): {pair.chosen.text[:300]}"
        yield f"  rejected ({score[1]:g}): {pair.rejected.text[:300]}"
