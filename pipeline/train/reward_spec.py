"""The words behind --reward: NAME[=ARGUMENT][:WEIGHT] or module:function[:WEIGHT].

The weight is what stands behind the last colon if it reads as a number, so paths and expressions may hold
colons; one that ends in a colon and a number needs its weight spelled out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import unknown
from pipeline.errors import PipelineError

FUNCTION = "function"  # the name of terms that are written as module:function
NUMBER, REGEX, MODEL, ANY_MODEL = "N", "REGEX", "MODEL", "[MODEL]"  # what an argument may be
CHECKED = {"constraints": "constraints", "math": "math", "code": "code", "checks": "", "all_checks": ""}
"""Terms that ask a row's verifier, and the kind of it that they need ("" for any)."""
KINDS = {
    "constraints": ("", "share of a prompt's constraints that the answer keeps"),
    "math": ("", "1 for the right result, else 0"),
    "code": ("", "1 if the code passes the tests, else 0"),
    "checks": ("", "share of the checks passed, whatever kind they are"),
    "all_checks": ("", "1 if every check is passed, else 0"),
    "format": (REGEX, "1 if the whole answer matches, else 0 (. matches line ends too)"),
    "repetition": ("", "minus the share of three-word runs that were said before"),
    "length": (NUMBER, "0 up to N words (Chinese: characters), down to -1 at 2 N"),
    "min_length": (NUMBER, "0 from N words (Chinese: characters) on, down to -1 at none"),
    "language": ("", "-1 for an answer in another language than the prompt's, else 0"),
    "reward_model": (MODEL, "the number that a run of pipeline.reward, or another reward model, gives"),
    "judge": (ANY_MODEL, "a model's rating against the rubric, from 0 to 1"),
}
"""Terms by name: what argument they take, and what they are."""
_WEIGHT = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
_PATH = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION = re.compile(rf"{_PATH}:{_PATH}")


@dataclass(frozen=True)
class Term:
    """One part of a reward; `label` is what it is logged as."""

    name: str
    argument: str = ""
    weight: float = 1.0
    label: str = ""


def parse_rewards(words: Sequence[str]) -> tuple[Term, ...]:
    """The terms that --reward asks for. Raises PipelineError, with the nearest known name."""
    if not words:
        fix = "Say what is rewarded, e.g. --reward constraints."
        raise PipelineError("--reward", "got none, expected one at least", fix)
    terms = [_term(word) for word in words]
    for (name, argument), times in Counter((term.name, term.argument) for term in terms).items():
        if times > 1:
            said = argument if name == FUNCTION else f"{name}={argument}" if argument else name
            raise PipelineError(f"--reward {said}", "it is there twice", "Add up the weights.")
    names = Counter(term.name for term in terms)
    return tuple(replace(term, label=_label(term, names[term.name] > 1)) for term in terms)


def _label(term: Term, several: bool) -> str:
    if term.name == FUNCTION:
        return term.argument
    return f"{term.name}={term.argument}" if several and term.argument else term.name


def _term(word: str) -> Term:
    where, body, weight = f"--reward {word}", word, 1.0
    head, colon, tail = word.rpartition(":")
    if colon and _WEIGHT.fullmatch(tail):
        body, weight = head, float(tail)
        if not math.isfinite(weight) or weight == 0:
            problem = f"the weight is {tail}, expected a number other than 0"
            raise PipelineError(where, problem, "Correct it, or leave the reward out.")
    name, equals, argument = body.partition("=")
    if name in KINDS:
        return Term(name, _argument(where, name, equals, argument), weight)
    first = re.split("[:=]", body)[0]
    if first in KINDS:
        problem = f"got '{body.removeprefix(first)}' behind the name, expected a weight, which is a number"
        raise PipelineError(where, problem, f"Write {_spelled(first)}:WEIGHT.")
    if _FUNCTION.fullmatch(body):
        return Term(FUNCTION, body, weight)
    raise unknown(where, f"reward '{first}'", first, KINDS)


def _argument(where: str, name: str, equals: str, argument: str) -> str:
    wanted = KINDS[name][0]
    if not wanted:
        if equals:
            raise PipelineError(where, f"got '={argument}', expected no argument", f"Write {name}:WEIGHT.")
        return ""
    if not argument:
        if wanted == ANY_MODEL and not equals:
            return ""
        raise PipelineError(where, f"no {wanted.strip('[]')}, expected one", f"Write {_spelled(name)}.")
    if wanted == NUMBER:
        if not re.fullmatch("[0-9]+", argument) or not int(argument):
            problem = f"got '{argument}', expected a whole number of words, 1 or more"
            raise PipelineError(where, problem, f"Write {_spelled(name)}.")
        return str(int(argument))
    if wanted == REGEX:
        try:
            re.compile(argument)
        except re.error as error:
            raise PipelineError(
                where, f"'{argument}' is no regular expression ({error})", "Mend it."
            ) from None
    return argument


def _spelled(name: str) -> str:
    wanted = KINDS[name][0]
    return f"{name}={wanted.strip('[]')}" if wanted else name
