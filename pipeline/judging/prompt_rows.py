"""From rows of any dataset to prompts: what is asked, what came with it, and what can be checked.

A row may be a prompt alone, or anything that trains a model: then its last answer is the reference. `answers`
(or UltraFeedback's `completions`) are candidates that were written elsewhere, with the score or rank that
somebody gave them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import PipelineError
from pipeline.format.conversations import Message, conversations, turns
from pipeline.format.sources import Source
from pipeline.records import Prompt
from pipeline.rows import Row
from pipeline.stages.language import row_language
from pipeline.verify.compose import constrain
from pipeline.verify.verifier import from_row

_GIVEN = ("answers", "completions")
_TEXTS = ("text", "response", "content")  # of a given answer
_FIX = "Fix the row, or leave such rows out with --bad-rows drop."


class Reading(Protocol):
    """The options that say what becomes of the rows."""

    @property
    def bad_rows(self) -> str:
        """What becomes of rows that cannot be used: "refuse" or "drop"."""
        ...

    @property
    def num_prompts(self) -> int:
        """Prompts to draw; 0: all."""
        ...

    @property
    def constraints(self) -> int:
        """Constraints to add, at most; 0: none."""
        ...

    @property
    def copies(self) -> int:
        """Times that a prompt is taken, with other constraints."""
        ...


@dataclass(frozen=True)
class GivenAnswer:
    """An answer that came with its prompt; `score` is somebody's, more is better."""

    text: str
    model: str = "given"
    score: float | None = None


@dataclass(frozen=True)
class Asked:
    """A prompt with the answers that came with it."""

    prompt: Prompt
    given: tuple[GivenAnswer, ...] = ()


@dataclass
class PromptRows:
    """What was read, and what was left out, and why."""

    asked: list[Asked] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, where: str, reason: str, evidence: str) -> None:
        """Leave a row out."""
        row = {"unit": "prompt", "id": where, "stage": "read", "reason": reason, "evidence": evidence}
        self.dropped.append(row)


def read_prompts(options: Reading, sources: Sequence[Source], seed: int) -> PromptRows:
    """Read all prompts, draw as many as wanted and add constraints.

    Raises PipelineError for the first bad row, unless `options.bad_rows` is "drop".
    """
    out, names, seen = PromptRows(), Counter[str](), set[tuple[str, ...]]()
    for row in (row for source in sources for row in source.rows()):
        try:
            found = list(_asked(row))
        except PipelineError as error:
            if options.bad_rows == "refuse":
                raise
            out.drop(row.where, "unreadable_row", error.problem)
            continue
        for one in found:
            said = tuple(message["content"] for message in one.prompt.messages)
            if said in seen:
                out.drop(one.prompt.id, "duplicate_prompt", said[-1][:80])
                continue
            seen.add(said)
            names[one.prompt.id] += 1
            number = names[one.prompt.id]
            name = one.prompt.id if number == 1 else f"{one.prompt.id}-{number}"
            out.asked.append(replace(one, prompt=replace(one.prompt, id=name)))
    if options.num_prompts and options.num_prompts < len(out.asked):
        chosen = random.Random(f"{seed} prompts").sample(range(len(out.asked)), options.num_prompts)
        out.asked = [out.asked[i] for i in sorted(chosen)]
    if options.constraints:
        every = [one for one in out.asked for _ in range(1 if one.prompt.verifier else options.copies)]
        out.asked = list(_constrained(every, options.constraints, seed))
    return out


def _constrained(every: Sequence[Asked], most: int, seed: int) -> Iterator[Asked]:
    """The prompts with constraints of their own; answers that came with one do not know of them."""
    copies = Counter[str]()
    for asked in every:
        prompt = asked.prompt
        if prompt.verifier:
            yield asked
            continue
        copies[prompt.id] += 1
        number = copies[prompt.id]
        rng = random.Random(f"{seed}/{prompt.id}/{number}/constraints")
        request, verifier = constrain(prompt.request, prompt.language, rng, most)
        messages = (*prompt.messages[:-1], {"role": "user", "content": request})
        name = prompt.id if number == 1 else f"{prompt.id}#{number}"
        changed = replace(prompt, id=name, messages=messages, verifier=verifier)
        yield Asked(replace(changed, reference="", score_std=None))


def _asked(row: Row) -> Iterator[Asked]:
    fields, verifier = row.fields, from_row(row.fields, row.where)
    checks = verifier.as_json() if verifier else None
    for messages, reference in _spoken(row):
        where, roles = row.where, [message["role"] for message in messages]
        if roles not in (["user"], ["system", "user"]):
            problem = f"the prompt has turns of {', '.join(roles)}, expected one of the user"
            raise PipelineError(where, problem, _FIX)
        if not messages[-1]["content"]:
            raise PipelineError(where, "the prompt is empty, expected text", _FIX)
        language = row_language(fields, messages[-1]["content"])
        name = str(fields.get("id") or Path(where).name)
        prompt = Prompt(name, tuple(messages), language, checks, reference, _score_std(fields, where))
        yield Asked(prompt, tuple(_given(fields, where)))


def _spoken(row: Row) -> Iterator[tuple[Sequence[Message], str]]:
    """The messages of each prompt in a row, and the answer that came with it ("" for none)."""
    fields, where = row.fields, row.where
    asked = next((fields[name] for name in ("prompt", "question") if name in fields), None)
    alone = "completion" not in fields and "messages" not in fields
    if asked is not None and alone:
        if isinstance(asked, str):
            yield [{"role": "user", "content": asked.strip()}], ""
        else:
            yield turns(asked, "prompt", where), ""
    elif isinstance(fields.get("instruction"), str) and not {"output", "instances"} & set(fields):
        given = fields.get("input") or ""
        yield [{"role": "user", "content": f"{fields['instruction'].strip()}\n\n{given}".strip()}], ""
    else:
        for one in conversations(row):
            yield one.messages[:-1], one.messages[-1]["content"]


def _score_std(fields: Mapping[str, Any], where: str) -> float | None:
    value = fields.get("score_std")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise PipelineError(where, f"'score_std' is {value!r}, expected a number of at least 0", _FIX)
    return float(value)


def _given(fields: Mapping[str, Any], where: str) -> Iterator[GivenAnswer]:
    answers: list[Any] = next((fields[name] for name in _GIVEN if isinstance(fields.get(name), list)), [])
    for number, answer in enumerate(answers):
        place = f"{where} answers[{number}]"
        if isinstance(answer, str):
            yield GivenAnswer(answer.strip())
            continue
        text = next(filter(None, map(answer.get, _TEXTS)), "") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise PipelineError(place, "no text, expected text or an object with 'text'", _FIX)
        yield GivenAnswer(text.strip(), str(answer.get("model", "given")), _score(answer, place))


def _score(answer: Mapping[str, Any], where: str) -> float | None:
    """Somebody's score, or a rank (1 is best) turned round; none where there is neither."""
    for name, sign in (("rank", -1.0), ("score", 1.0), ("overall_score", 1.0)):
        value = answer.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PipelineError(where, f"'{name}' is {value!r}, expected a number", _FIX)
        return sign * value
    return None
