"""Which two answers to a prompt become chosen and rejected."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.judging.answers import Answer
from pipeline.judging.flow import Case
from pipeline.judging.options import PAIRWISE, Options
from pipeline.judging.scores import deciding
from pipeline.records import Drop
from pipeline.stages.text import length


@dataclass(frozen=True)
class Pair:
    """Two answers, and the judge who says that the first is better."""

    case: Case
    chosen: Answer
    rejected: Answer
    judge: str

    @property
    def margin(self) -> float:
        """The difference of their scores."""
        return self.chosen.scores[self.judge] - self.rejected.scores[self.judge]

    @property
    def lengths(self) -> tuple[int, int]:
        """Words (characters of Chinese) of chosen and rejected."""
        return length(self.chosen.text), length(self.rejected.text)


def pairs(case: Case, judges: Sequence[str], options: Options) -> list[Pair] | Drop:
    """A prompt's pairs, at most `options.max_pairs`; or why it has none."""
    if len(case.answers) < 2:
        return Drop("too_few_answers", f"{len(case.answers)} usable")
    judge = deciding(case, judges)
    if not judge:
        return Drop("no_difference", ", ".join(_scores(case, name) for name in judges))
    refused = {"tied": 0, "margin": 0, "length": 0, "refusal": 0}
    found = list[Pair]()
    for chosen, rejected in _candidates(case, judge, options):
        pair = Pair(case, chosen, rejected, judge)
        reason = _unfit(pair, options)
        if reason:
            refused[reason] += 1
        else:
            found.append(pair)
            if len(found) == options.max_pairs:
                break
    if found:
        return found
    said = ", ".join(f"{count} {reason}" for reason, count in refused.items() if count)
    return Drop("no_fitting_pair", said or "no candidate")


def _scores(case: Case, judge: str) -> str:
    found = sorted({answer.scores[judge] for answer in case.answers if judge in answer.scores})
    return f"{judge}: {' '.join(map(str, found)) or 'none'}"


def _candidates(case: Case, judge: str, options: Options) -> Iterator[tuple[Answer, Answer]]:
    """Pairs in the order of the strategy, the better answer first; of equals the one drawn first."""
    ranked = sorted((a for a in case.answers if judge in a.scores), key=lambda a: -a.scores[judge])
    best = [answer for answer in ranked if not answer.refused]
    if options.pairs == "best-random":
        rng = random.Random(f"{options.seed}/{case.prompt.id}/pairs")
        for chosen in best[:1]:
            others = [answer for answer in ranked if answer.scores[judge] < chosen.scores[judge]]
            yield from ((chosen, other) for other in rng.sample(others, len(others)))
        return
    two = itertools.combinations(ranked, 2)
    every = [(one, other) for one, other in two if one.scores[judge] > other.scores[judge]]
    if options.pairs == "margin":
        yield from sorted(every, key=lambda pair: pair[1].scores[judge] - pair[0].scores[judge])
        return
    place = {answer.id: i for i, answer in enumerate(ranked)}
    last, used = len(ranked) - 1, set[str]()
    # the best with the worst comes first, then what is nearest to it; no answer is paired twice
    for chosen, rejected in sorted(every, key=lambda p: place[p[0].id] + last - place[p[1].id]):
        if chosen.refused or {chosen.id, rejected.id} & used:
            continue
        if not _unfit(Pair(case, chosen, rejected, judge), options):
            used |= {chosen.id, rejected.id}
        yield chosen, rejected


def _unfit(pair: Pair, options: Options) -> str:
    """Why two answers make no pair; "" if they do."""
    if pair.chosen.refused:
        return "refusal"
    if pair.judge == PAIRWISE and not options.keep_ties:
        places = [pair.case.answers.index(answer) for answer in (pair.chosen, pair.rejected)]
        comparison = pair.case.comparisons.get((min(places), max(places)))
        if not comparison or comparison.winner is None or (places[0] < places[1]) != (comparison.winner == 0):
            return "tied"
    if pair.margin < options.min_margin:
        return "margin"
    longest, shortest = max(pair.lengths), max(min(pair.lengths), 1)
    return "length" if 0 < options.max_length_ratio < longest / shortest else ""
