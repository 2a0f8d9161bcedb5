"""What an answer is worth to the policy: the weighted sum of named terms, each of them logged apart.

    terms = parse_rewards(["constraints", "reward_model=runs/reward-001:0.5", "length=80:0.1"])
    with Rewards(terms) as rewards:
        scored = rewards.score(rows)

A term that does not apply to a prompt (no such verifier) adds nothing to any of its answers. One that cannot
score an answer (the judge said nothing readable) excludes it: its total is None and never zero, which would
be a reward. KINDS lists the terms; any other is a Python function, `module:function`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from pipeline.errors import PipelineError
from pipeline.judging.scores import Scorer as RewardModel
from pipeline.train import reward_terms as terms_of
from pipeline.train.reward_calls import Part, ask, read
from pipeline.train.reward_spec import CHECKED, FUNCTION, KINDS, Term, parse_rewards
from pipeline.train.reward_terms import Row, Scorer

__all__ = [
    "KINDS",
    "Judge",
    "Rewards",
    "Row",
    "Scored",
    "Term",
    "check_rewards",
    "exclusions",
    "parse_rewards",
]
STOP, EXCLUDE = "stop", "exclude"
NO_REWARD = "no_reward"  # no term applies
_JUDGE = "judge"


class Judge(Protocol):
    """A model that rates answers."""

    def score(self, rows: Sequence[Row]) -> list[float | None]:
        """A number in [0, 1] for each row, None where nothing could be read."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


@dataclass(frozen=True)
class Scored:
    """An answer's reward: `parts`, unweighted, by the labels of the terms that apply, and their `total`.

    `excluded` says why there is no total, "no_reward" (no term applies), "LABEL: no_score" or "LABEL: error"
    (with `evidence`); then a part is None where the term could not say.
    """

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    excluded: str = ""
    evidence: str = ""


class Rewards:
    """Scores answers by the terms; models are loaded here and let go of by `close`.

    `reward_model` and `judge` open a model by its name, "" for the judge that the options name. `on_error`:
    an exception in a term stops the run with the sample that raised it, or excludes the answer. Raises
    PipelineError for a model or function that is not there.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        reward_model: Callable[[str], RewardModel] | None = None,
        judge: Callable[[str], Judge] | None = None,
        on_error: str = STOP,
    ) -> None:
        self.terms, self.on_error = tuple(terms), on_error
        self._open_model, self._open_judge = reward_model or _reward_model, judge or _judge
        self._checks, self._judges = terms_of.Checks(), list[Judge]()
        try:
            self._scorers = [self._scorer(term) for term in self.terms]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Rewards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the judges."""
        while self._judges:
            self._judges.pop().close()

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """The reward of each row, in order. Raises PipelineError, Stopped if a judge's budget is used up."""
        parts: list[dict[str, Part]] = [{} for _ in rows]
        self._checks.clear()
        for term, scorer in zip(self.terms, self._scorers, strict=True):
            mine = [number for number, row in enumerate(rows) if applies(term, row)]
            found = self._parts(term, scorer, [rows[number] for number in mine]) if mine else []
            for number, part in zip(mine, found, strict=True):
                parts[number][term.label] = part
        return [self._sum(part) for part in parts]

    def stats(self, scored: Sequence[Scored]) -> dict[str, float]:
        """Mean and standard deviation of each term over the answers it scored; the share of excluded ones.

        TRL's names; a term that scored none has no entry.
        """
        found = {}
        for term in self.terms:
            values = [v for one in scored if (v := one.parts.get(term.label)) is not None]
            if values:
                found[f"rewards/{term.label}/mean"] = statistics.fmean(values)
                found[f"rewards/{term.label}/std"] = statistics.stdev(values) if len(values) > 1 else 0.0
        return {**found, "rewards/excluded": sum(one.total is None for one in scored) / max(1, len(scored))}

    def _scorer(self, term: Term) -> Scorer:
        if term.name in CHECKED:
            return self._checks.all_passed if term.name == "all_checks" else self._checks.shares
        if term.name == "reward_model":
            return partial(terms_of.model_scores, self._open_model(term.argument))
        if term.name == _JUDGE:
            self._judges.append(self._open_judge(term.argument))
            return self._judges[-1].score
        return terms_of.function(term.argument) if term.name == FUNCTION else terms_of.measure(term)

    def _parts(self, term: Term, scorer: Scorer, rows: Sequence[Row]) -> list[Part]:
        if term.name == _JUDGE:  # what its engine raises, no answer is the cause of
            return read(term.label, rows, scorer(rows))
        return ask(term.label, scorer, rows, stop=self.on_error == STOP)

    def _sum(self, parts: Mapping[str, Part]) -> Scored:
        values = {label: part.value for label, part in parts.items()}
        for label, part in parts.items():
            if part.value is None:
                return Scored(None, values, f"{label}: {part.reason}", part.evidence)
        if not parts:
            return Scored(None, values, NO_REWARD, "no term applies to the prompt")
        return Scored(sum(t.weight * (values.get(t.label) or 0.0) for t in self.terms), values)


def applies(term: Term, row: Row) -> bool:
    """Whether a term has a say on the answers to a row's prompt: the same for all of them."""
    if term.name in CHECKED:
        wanted = CHECKED[term.name]
        return row.verifier is not None and (not wanted or row.verifier.get("kind") == wanted)
    return term.name != "language" or terms_of.language_is_clear(row.request)


def check_rewards(terms: Sequence[Term], verifiers: Sequence[Mapping[str, Any] | None]) -> None:
    """Refuse, before anything is loaded, terms that apply to no prompt and functions that are not there.

    `verifiers` are the prompts'. Raises PipelineError.
    """
    for term in terms:
        rows = [Row("", [{"role": "user", "content": ""}], "", verifier) for verifier in verifiers]
        if term.name in CHECKED and not any(applies(term, row) for row in rows):
            kind = CHECKED[term.name]
            wanted = f"{kind} verifier" if kind else "verifier"
            problem = f"no prompt has a {wanted}, expected one at least"
            fix = "Name prompts that have one, or another reward."
            raise PipelineError(f"--reward {term.label}", problem, fix)
        if term.name == FUNCTION:
            terms_of.function(term.argument)


def exclusions(scored: Sequence[Scored]) -> Counter[str]:
    """How many answers were excluded, by reason."""
    return Counter(one.excluded for one in scored if one.excluded)


def _reward_model(name: str) -> RewardModel:
    from pipeline.train.reward_model import load

    found: RewardModel = load(name)
    return found


def _judge(name: str) -> Judge:
    from pipeline.train.judge_reward import ModelJudge

    return ModelJudge(name)
