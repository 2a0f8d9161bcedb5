"""Adds constraints to a request in words, together with the verifier that checks them.

The wordings, ranges and word lists are data: prompts/constraints/LANGUAGE.yaml, whose head says how it reads.
Two constraints are compatible if they claim nothing in common (`claims`: the beginning, the end, the length,
...), so no request ever asks for two endings, or for bullets in one quoted sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import LANGUAGES, read_text
from pipeline.verify.checks import unknown
from pipeline.verify.verifier import parse

FOLDER = Path(__file__).resolve().parents[2] / "prompts" / "constraints"
_FIELDS = ("check", "claims", "arguments", "draw", "say")
_ENDS = tuple('.?!。？！”"')


@dataclass(frozen=True)
class Wording:
    """One constraint that can be added: the check, what it claims, its arguments and how it may be said.

    `draw` has for a name the values it may take; `arguments` and `say` are filled in with what was drawn.
    """

    name: str
    check: str
    claims: frozenset[str]
    arguments: Mapping[str, Any]
    draw: Mapping[str, tuple[Any, ...]]
    say: tuple[str, ...]

    def drawn(self, rng: random.Random) -> tuple[str, dict[str, Any]]:
        """Draw the arguments and a phrasing: (the sentence, the check with its arguments)."""
        values = {name: rng.choice(choices) for name, choices in self.draw.items()}
        arguments = {name: _filled(value, values) for name, value in self.arguments.items()}
        return rng.choice(self.say).format(**values), {"id": self.check, **arguments}


def constrain(request: str, language: str, rng: random.Random, num: int) -> tuple[str, dict[str, Any]]:
    """Add 1 to `num` compatible constraints: (the request with them, the verifier as JSON has it).

    `language` is the request's, one of LANGUAGES. The same state of `rng` gives the same result.
    """
    chosen: list[Wording] = []
    wanted = rng.randint(1, max(num, 1))
    for wording in rng.sample(wordings(language), len(wordings(language))):
        if len(chosen) < wanted and all(compatible(wording, other) for other in chosen):
            chosen.append(wording)
    drawn = [wording.drawn(rng) for wording in chosen]
    gap = "" if language == "zh" else " "
    asked = request.strip()
    between = gap if asked.endswith(_ENDS) and rng.random() < 0.7 else "\n"
    sentences = gap.join(sentence for sentence, _ in drawn)
    checks = [_filled(check, {"request": asked}) for _, check in drawn]
    verifier = parse({"kind": "constraints", "checks": checks}, "constraints")
    return f"{asked}{between}{sentences}", verifier.as_json()


def compatible(one: Wording, other: Wording) -> bool:
    """Say whether both can be asked of one answer."""
    return one.name != other.name and not one.claims & other.claims


@functools.cache
def wordings(language: str) -> tuple[Wording, ...]:
    """Every constraint that can be added in a language. Raises PipelineError if its file is not sound."""
    import yaml

    if language not in LANGUAGES:
        raise unknown("constraints", "language", language, LANGUAGES)
    path = FOLDER / f"{language}.yaml"
    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise PipelineError(path, f"not YAML ({error})", "Mend the file.") from None
    return tuple(_wording(name, fields, f"{path}: {name}") for name, fields in data.items())


def _wording(name: str, fields: Mapping[str, Any], where: str) -> Wording:
    for field in fields:
        if field not in _FIELDS:
            raise unknown(where, "field", field, _FIELDS)
    draw = {key: _choices(value) for key, value in (fields.get("draw") or {}).items()}
    rng = random.Random(0)
    wording = Wording(
        name,
        fields["check"],
        frozenset(fields["claims"]),
        fields.get("arguments") or {},
        draw,
        tuple(fields["say"]),
    )
    for values in itertools.product(*draw.values()):  # every value is tried, so that none fails later
        _, check = dataclasses.replace(
            wording, draw=dict(zip(draw, ((v,) for v in values), strict=True))
        ).drawn(rng)
        parse({"kind": "constraints", "checks": [check]}, where)
    return wording


def _choices(value: Any) -> tuple[Any, ...]:
    """A list's items; {from: 20, to: 60, step: 5} is a range with both ends in it."""
    if isinstance(value, dict):
        return tuple(range(value["from"], value["to"] + 1, value.get("step", 1)))
    return tuple(value)  # a bare yes or no is true or false to YAML, and then refused as an argument


def _filled(value: Any, drawn: Mapping[str, Any]) -> Any:
    """A value with the names in braces filled in; one that is a single name becomes what was drawn itself."""
    if isinstance(value, dict):
        return {key: _filled(item, drawn) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, drawn) for item in value]
    if not isinstance(value, str):
        return value
    for name, drawn_value in drawn.items():
        if value == f"{{{name}}}":
            return drawn_value
        value = value.replace(f"{{{name}}}", str(drawn_value))
    return value
