"""What a row of any dataset says, as a conversation: Alpaca, seeds, messages, ShareGPT, prompt-completion.

A conversation is a list of messages with roles; the assistant's are answers, and the last message is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.phrasing import Asked, phrase
from pipeline.records import LANGUAGES
from pipeline.rows import Row
from pipeline.stages.text import cjk_share

Message = Mapping[str, str]
_CHINESE = 0.3  # share of Chinese characters from which an instruction counts as Chinese
ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bard": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
_SHAPES = (
    "instruction and output (Alpaca), instances, messages, conversations (ShareGPT), prompt and completion"
)


@dataclass(frozen=True)
class Conversation:
    """Messages with `role` and `content`; `exchange` holds the parts of a single one.

    `where` says which row it is (`file:line`). White space around a content is cut off.
    """

    where: str
    messages: tuple[Message, ...]
    exchange: Asked | None = None

    @property
    def key(self) -> str:
        """What tells one task from another: the instruction, else what the user says first."""
        if self.exchange:
            return self.exchange.instruction
        return next((m["content"] for m in self.messages if m["role"] == "user"), "")


def conversations(row: Row) -> Iterator[Conversation]:
    """What a row says; a seed task with several instances says several things. Raises PipelineError."""
    fields = row.fields
    if "instruction" in fields and isinstance(fields.get("instances"), list):
        for number, instance in enumerate(fields["instances"]):
            place = f"{row.where} instances[{number}]"
            if not isinstance(instance, dict):
                raise _refusal(place, f"got {type(instance).__name__}, expected input and output")
            yield _exchange({**fields, **instance}, place)
    elif "instruction" in fields and "output" in fields:
        yield _exchange(fields, row.where)
    elif "messages" in fields:
        yield _checked(row.where, turns(fields["messages"], "messages", row.where))
    elif "conversations" in fields:
        said = turns(fields["conversations"], "conversations", row.where)
        system = _text(fields, "system", row.where)
        yield _checked(row.where, [*([{"role": "system", "content": system}] if system else []), *said])
    elif "prompt" in fields and "completion" in fields:
        yield _checked(row.where, _prompt_completion(fields, row.where))
    else:
        raise _refusal(row.where, f"has {', '.join(list(fields)[:20]) or 'no fields'}, expected {_SHAPES}")


def _exchange(fields: Mapping[str, Any], where: str) -> Conversation:
    instruction, given, output = (_text(fields, name, where) for name in ("instruction", "input", "output"))
    tags = fields.get("tags")
    kind = str(tags[0]) if isinstance(tags, list) and tags else ""
    if fields.get("is_classification") is True:
        kind = "classification"
    language = fields.get("language")
    if language not in LANGUAGES:
        language = "zh" if cjk_share(instruction) >= _CHINESE else "en"
    choices = fields.get("options")
    options = tuple(map(str, choices)) if isinstance(choices, list) else ()
    rationale = _text(fields, "rationale", where)
    exchange = Asked(instruction, given, output, language, kind, rationale, options)
    messages = phrase(exchange, "plain", 0, where).messages
    system = _text(fields, "system", where)
    found = _checked(where, [*([{"role": "system", "content": system}] if system else []), *messages])
    return Conversation(where, found.messages, exchange)


def _prompt_completion(fields: Mapping[str, Any], where: str) -> list[Message]:
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return [
            {"role": "user", "content": prompt.strip()}, {"role": "assistant", "content": completion.strip()}
        ]  # fmt: skip
    return [*turns(prompt, "prompt", where), *turns(completion, "completion", where)]


def turns(value: Any, name: str, where: str) -> list[Message]:
    """The messages in a list of turns, {role, content} or ShareGPT's {from, value}. Raises PipelineError."""
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else type(value).__name__
        raise _refusal(where, f"'{name}' is {kind}, expected a list of turns")
    return [_turn(turn, f"{where} {name}[{number}]") for number, turn in enumerate(value)]


def _turn(turn: Any, where: str) -> Message:
    """{role, content}, content as text or as parts, or ShareGPT's {from, value}."""
    if not isinstance(turn, dict):
        raise _refusal(where, f"got {type(turn).__name__}, expected role and content")
    said = turn.get("role", turn.get("from"))
    role = said if said in ROLES else _SHAREGPT.get(str(said).lower(), "")
    if not role:
        raise _refusal(where, f"the role is {said!r}, expected one of {', '.join(ROLES)}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "\n".join(texts) if len(texts) == len(parts) else None
    if not isinstance(content, str):
        raise _refusal(where, f"the content is {type(content).__name__}, expected text")
    return {"role": role, "content": content.strip()}


def _checked(where: str, messages: Sequence[Message]) -> Conversation:
    """Refuse a conversation that teaches nothing: no answer at its end, an empty one, nobody asking."""
    roles = [message["role"] for message in messages]
    if roles[-1] != "assistant":
        raise _refusal(where, f"the last turn is of the {roles[-1]}, expected the assistant's answer")
    if "user" not in roles:
        raise _refusal(where, "no turn of a user, expected one that asks")
    for number, message in enumerate(messages):
        if not message["content"] and message["role"] != "system":
            raise _refusal(where, f"what the {message['role']} says in turn {number} is empty, expected text")
    return Conversation(where, tuple(messages))


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _refusal(where, f"'{name}' is {type(value).__name__}, expected text")
    return value.strip()


def _refusal(where: str, problem: str) -> PipelineError:
    return PipelineError(where, problem, "Fix the row, or leave such rows out with --bad-rows drop.")
