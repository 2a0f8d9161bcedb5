"""What single terms of a reward measure: checks, repetition, length, language, a reward model, any function.

A scorer takes rows, answers with their prompts, and gives one number for each, None where it cannot say.
Lengths count English words and Chinese characters, as everywhere in this house.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.dedup.tokens import tokenize
from pipeline.errors import PipelineError
from pipeline.judging.scores import Scorer as RewardModel
from pipeline.records import to_json
from pipeline.stages.language import names_language, requested_language
from pipeline.stages.text import CJK, length, units
from pipeline.stages.validate import wrong_output_language
from pipeline.train.reward_spec import Term
from pipeline.verify.verifier import Verified, parse, verify

NGRAM = 3  # tokens
_WORKERS = 2  # answers that are checked at a time; code runs in processes of its own


@dataclass(frozen=True)
class Row:
    """An answer to score: `prompt` is what was asked, as messages, `id` the prompt's name.

    `verifier` is the JSON of what can be checked, `cut` says that the answer was truncated; `columns` holds
    what else the dataset says of the prompt, for functions.
    """

    id: str
    prompt: Sequence[Mapping[str, str]]
    answer: str
    verifier: Mapping[str, Any] | None = None
    language: str = "en"
    cut: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> str:
        """What the user says last."""
        return self.prompt[-1]["content"]


Scorer = Callable[[Sequence[Row]], Sequence[Any]]


# ---- measures of one answer ----


def repetition(answer: str) -> float:
    """Minus the share of three-word runs that were there before; 0 where none was, towards -1 for a loop.

    Tokens are words, in Chinese jieba's.
    """
    found = tokenize(answer) if CJK.search(answer) else units(answer)
    grams = list(zip(*(found[i:] for i in range(NGRAM)), strict=False))
    return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0


def too_long(answer: str, most: int) -> float:
    """0 for up to `most` words (Chinese: characters), falling evenly to -1 at twice as many."""
    return min(0.0, max(-1.0, 1 - length(answer) / most))


def too_short(answer: str, least: int) -> float:
    """0 from `least` words (Chinese: characters) on, falling evenly to -1 for none."""
    return min(0.0, length(answer) / least - 1)


def fits(answer: str, pattern: re.Pattern[str]) -> float:
    """1 where the whole answer, white space around it apart, matches; else 0."""
    return float(pattern.fullmatch(answer.strip()) is not None)


def right_language(row: Row) -> float:
    """0 for an answer in the language of its prompt, or in the one it asks for; else -1."""
    return -1.0 if wrong_output_language(row.request, row.answer, row.language) else 0.0


def measure(term: Term) -> Scorer:
    """The scorer of a term that looks at one answer at a time."""
    number = int(term.argument) if term.name in ("length", "min_length") else 0
    pattern = re.compile(term.argument if term.name == "format" else "", re.DOTALL)
    measures: dict[str, Callable[[Row], float]] = {
        "format": lambda row: fits(row.answer, pattern),
        "repetition": lambda row: repetition(row.answer),
        "length": lambda row: too_long(row.answer, number),
        "min_length": lambda row: too_short(row.answer, number),
        "language": right_language,
    }
    one = measures[term.name]
    return lambda rows: [one(row) for row in rows]


@functools.lru_cache(maxsize=4096)  # asked once for every answer of a group
def language_is_clear(request: str) -> bool:
    """Whether a request says clearly in which language to answer; "Conjugate a French verb" does not."""
    return requested_language(request) is not None or not names_language(request)


# ---- scorers of many ----


class Checks:
    """The verdicts of the rows' verifiers; each pair of verifier and answer is checked once until `clear`."""

    def __init__(self) -> None:
        self._known: dict[str, Verified] = {}

    def clear(self) -> None:
        """Forget all verdicts."""
        self._known.clear()

    def shares(self, rows: Sequence[Row]) -> list[float]:
        """The share of its checks that each answer passes, in [0, 1]."""
        return [verified.score for verified in self._verified(rows)]

    def all_passed(self, rows: Sequence[Row]) -> list[float]:
        """1 for each answer that passes every check, else 0."""
        return [float(verified.all_passed) for verified in self._verified(rows)]

    def _verified(self, rows: Sequence[Row]) -> list[Verified]:
        keys = [to_json([row.verifier, row.answer]) for row in rows]
        todo = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        with ThreadPoolExecutor(_WORKERS) as workers:
            self._known.update(zip(todo, workers.map(_check, todo.values()), strict=True))
        return [self._known[key] for key in keys]


def _check(row: Row) -> Verified:
    return verify(parse(row.verifier or {}, row.id), row.answer)


def model_scores(model: RewardModel, rows: Sequence[Row]) -> list[float | None]:
    """A reward model's numbers as they are; None for the rows that it refuses (empty, special tokens)."""
    talks = [[*row.prompt, {"role": "assistant", "content": row.answer}] for row in rows]
    try:
        return list(model.score(talks))
    except PipelineError:  # it refuses before it computes: halving finds the few rows at little cost
        if len(rows) == 1:
            return [None]
    half = len(rows) // 2
    return model_scores(model, rows[:half]) + model_scores(model, rows[half:])


def function(name: str) -> Scorer:
    """The function `module:function` as a scorer. Raises PipelineError if it cannot be imported.

    It is called as f(prompts, answers, id=[...], verifier=[...], language=[...], cut=[...], ...), prompts
    being lists of messages; a function without **columns is given those that it names.
    """
    module, _, path = name.partition(":")
    where = f"--reward {name}"
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever a module raises when it is imported
        problem = f"module '{module}' cannot be imported ({type(error).__name__}: {error})"
        fix = "Run from the directory that it is in, or install it."
        raise PipelineError(where, problem, fix) from error
    try:
        found = operator.attrgetter(path)(imported)
    except AttributeError:
        have = sorted(n for n, value in vars(imported).items() if callable(value) and n[0] != "_")
        problem = f"module '{module}' has no '{path}' (has: {', '.join(have[:8]) or 'no function'})"
        raise PipelineError(where, problem, "Correct the name.") from None
    if not callable(found):
        problem = f"it is {type(found).__name__}, expected a function"
        raise PipelineError(where, problem, "Name one that takes prompts and answers.")
    return functools.partial(_call, found, _named(found))


def _named(found: Callable[..., Any]) -> frozenset[str] | None:
    """The names of the parameters; None where all are taken."""
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):  # of a class or a builtin: it is called as it is documented
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    return frozenset(list(parameters)[2:])


def _call(found: Callable[..., Any], named: frozenset[str] | None, rows: Sequence[Row]) -> Any:
    own = ("id", "verifier", "language", "cut")
    names = dict.fromkeys([*own, *(name for row in rows for name in row.columns)])
    columns = {
        name: [getattr(row, name) if name in own else row.columns.get(name) for row in rows]
        for name in names
        if named is None or name in named
    }
    return found([list(row.prompt) for row in rows], [row.answer for row in rows], **columns)
