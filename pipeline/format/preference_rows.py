"""What a row of any preference data says: a prompt, a chosen and a rejected answer, or one rated answer.

Read are TRL's preference type with explicit and implicit prompt (texts or messages), ShareGPT's and Alpaca's
with `chosen` and `rejected`, the binarised UltraFeedback, Anthropic's "Human: ... Assistant: ..." texts, and
TRL's unpaired type (`completion` and `label`). A prompt that is a text is what a user says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.conversations import Message, turns
from pipeline.records import Preference, Rated
from pipeline.rows import Row

SAME = "same_answers"
ROW = "row"  # where a record's row stands, in its provenance
_FIX = "Fix the row, or leave such rows out with --bad-rows drop."
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_ASKED = ("prompt", "instruction", "question")
_SYSTEM = ("system", "system_prompt")
_CHOSEN = ("score_chosen", "chosen_score", "chosen_rating", "chosen-rating")
_REJECTED = ("score_rejected", "rejected_score", "rejected_rating", "rejected-rating")


class SameAnswers(PipelineError):
    """A row that prefers an answer to itself."""

    reason = SAME


def preferences(row: Row) -> Iterator[Preference]:
    """The preference of a row. Raises PipelineError naming the row and what to do."""
    fields, where = row.fields, row.where
    if missing := [name for name in ("chosen", "rejected") if fields.get(name) is None]:
        if "label" in fields:
            fix = "Train on single rated answers with python -m pipeline.dpo --loss kto."
            raise PipelineError(where, "a 'label' and no pair of answers", fix)
        raise _refusal(where, f"no '{missing[0]}' (has: {', '.join(list(fields)[:20])})")
    prompt = _prompt(fields, where)
    sides = [_said(fields[name], name, where) for name in ("chosen", "rejected")]
    prompt, (chosen, rejected) = _parted(prompt, sides, where)
    if chosen["content"] == rejected["content"]:
        raise SameAnswers(where, "'chosen' and 'rejected' are the same", _FIX)
    yield Preference(
        prompt,
        chosen,
        rejected,
        _number(fields, ("margin",), where),
        _number(fields, _CHOSEN, where),
        _number(fields, _REJECTED, where),
        _provenance(fields, where),
    )


def rated(row: Row) -> Iterator[Rated]:
    """The rated answers of a row; a pair is a wanted one and an unwanted one. Raises PipelineError."""
    fields, where = row.fields, row.where
    if "label" not in fields:
        for pair in preferences(row):
            yield Rated(pair.prompt, pair.chosen, True, pair.provenance)
            yield Rated(pair.prompt, pair.rejected, False, pair.provenance)
        return
    label = fields["label"]
    if label not in (True, False):  # 1 and 0 are, too
        raise _refusal(where, f"'label' is {label!r}, expected true or false")
    if "completion" in fields:
        prompt, said = _prompt(fields, where), _said(fields["completion"], "completion", where)
    elif "messages" in fields:
        prompt, said = (), turns(fields["messages"], "messages", where)
    else:
        raise _refusal(where, f"no 'completion' (has: {', '.join(list(fields)[:20])})")
    if said[0]["role"] != "assistant":  # a whole conversation
        prompt, said = (*prompt, *said[:-1]), said[-1:]
    answer = _answer(said, "completion", where)
    yield Rated(_asking(prompt, where), answer, bool(label), _provenance(fields, where))


def _prompt(fields: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """The messages before the answers, as far as the row has any beside the answers."""
    system = next((fields[name] for name in _SYSTEM if fields.get(name)), "")
    first = [{"role": "system", "content": _text(system, "system", where)}] if system else []
    if "conversations" in fields:
        return (*first, *turns(fields["conversations"], "conversations", where))
    name = next((name for name in _ASKED if fields.get(name) is not None), "")
    if not name:
        return tuple(first)
    if isinstance(fields[name], list):
        return (*first, *turns(fields[name], name, where))
    asked = _text(fields[name], name, where)
    if name == "prompt" and (spoken := _spoken(asked)):
        return (*first, *(spoken[:-1] if not spoken[-1]["content"] else spoken))  # "... Assistant:"
    given = _text(fields.get("input") or "", "input", where) if name == "instruction" else ""
    earlier = _history(fields.get("history"), where)
    return (*first, *earlier, {"role": "user", "content": f"{asked}\n\n{given}" if given else asked})


def _said(value: Any, name: str, where: str) -> Sequence[Message]:
    """An answer, or a whole conversation that ends in one."""
    if isinstance(value, str):
        return _spoken(value) or [{"role": "assistant", "content": value.strip()}]
    return turns([value] if isinstance(value, dict) else value, name, where)


def _parted(
    prompt: tuple[Message, ...], sides: Sequence[Sequence[Message]], where: str
) -> tuple[tuple[Message, ...], list[Message]]:
    """The prompt and the two answers; where the sides are whole conversations, it is what they share."""
    whole = [side[0]["role"] != "assistant" for side in sides]
    if whole[0] != whole[1]:
        raise _refusal(where, "one side begins with a question, the other with an answer")
    if whole[0]:
        least = min(map(len, sides)) - 1  # the last message of either is its answer
        same = (one == other for one, other in zip(*(side[:least] for side in sides), strict=True))
        count = next((number for number, equal in enumerate(same) if not equal), least)
        shared = tuple(sides[0][:count])
        texts = [message["content"] for message in (shared or sides[0])]
        if asked := [m for m in prompt if m["role"] != "system" and m["content"] not in texts]:
            problem = f"the prompt says {asked[0]['content'][:40]!r}, the answers' conversations do not"
            raise _refusal(where, problem)
        systems = [m for m in prompt if m["role"] == "system" and m["content"] not in texts]
        prompt, sides = (*systems, *shared), [side[count:] for side in sides]
    answers = [_answer(side, name, where) for side, name in zip(sides, ("chosen", "rejected"), strict=True)]
    return _asking(prompt, where), answers


def _answer(said: Sequence[Message], name: str, where: str) -> Message:
    if len(said) != 1 or said[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in said)
        problem = f"'{name}' has the turns {roles} behind the shared prompt, expected one answer"
        raise _refusal(where, f"{problem} of the assistant")
    if not said[0]["content"]:
        raise _refusal(where, f"'{name}' is empty, expected an answer")
    return said[0]


def _asking(prompt: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    if not any(message["role"] == "user" for message in prompt):
        raise _refusal(where, "there is no prompt: no turn of a user that the answers share")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise _refusal(where, f"the prompt ends with a turn of the {prompt[-1]['role']}, expected the user's")
    for number, message in enumerate(prompt):
        if not message["content"] and message["role"] != "system":
            raise _refusal(where, f"what the {message['role']} says in turn {number} is empty, expected text")
    return prompt


def _spoken(text: str) -> list[Message]:
    """The turns of a text as Anthropic's HH data writes them; none of any other text."""
    parts = _TURN.split(text.strip())
    if parts[0] or len(parts) < 3:
        return []
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": _SPEAKERS[speaker], "content": said.strip()} for speaker, said in pairs]


def _history(value: Any, where: str) -> Iterator[Message]:
    """Earlier exchanges in Alpaca's form: [[question, answer], ...]."""
    for pair in value or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _refusal(where, "'history' is no list of pairs, expected [[question, answer], ...]")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            yield {"role": role, "content": _text(text, "history", where)}


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise _refusal(where, f"'{name}' is {type(value).__name__}, expected text or a list of turns")
    return value.strip()


def _number(fields: Mapping[str, Any], names: Sequence[str], where: str) -> float | None:
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        return None
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refusal(where, f"'{name}' is {value!r}, expected a number")
    return float(value)


def _provenance(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = fields.get("provenance")
    return {**(known if isinstance(known, dict) else {}), ROW: where}


def _refusal(where: str, problem: str) -> PipelineError:
    return PipelineError(where, problem, _FIX)
