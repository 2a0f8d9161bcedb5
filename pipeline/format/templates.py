"""Formats by name, and conversations turned into tokens of which exactly the answers are trained, with proof.

A format is a chat template: what training saw as the prompt is what the saved tokenizer's own
`apply_chat_template(..., add_generation_prompt=True)` gives, and so what transformers and vLLM's chat
endpoint send. The spans of the answers are not taken on trust from a template's marks but derived and proved:
for every answer the tokens of the served prompt must be a prefix of the conversation's tokens, and behind it
must stand the answer's text, white space at most, and an end token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.format.conversations import Conversation, Message
from pipeline.format.formats import FORMATS
from pipeline.format.phrasing_files import FOLDER
from pipeline.records import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# What keeps a conversation from being trained on; the audit counts them.
SPECIAL, UNPROVED, SEAM, NO_END = "special_token", "unproved_template", "seam_merge", "no_end_token"


class Unproved(Exception):
    """A conversation whose answers cannot be told from the rest; `reason` is one of the names above."""

    def __init__(self, reason: str, evidence: str) -> None:
        super().__init__(evidence)
        self.reason = reason


@dataclass(frozen=True)
class Encoded:
    """Token ids (T,) and the spans [begin, end) of them that are trained: answers with their end tokens."""

    where: str
    ids: list[int]
    spans: tuple[tuple[int, int], ...]

    @property
    def labels(self) -> list[int]:
        """The ids of trained tokens, -100 for the rest (T,)."""
        labels = [-100] * len(self.ids)
        for begin, end in self.spans:
            labels[begin:end] = self.ids[begin:end]
        return labels

    def cut(self, length: int) -> Encoded:
        """The first `length` tokens."""
        spans = tuple((begin, min(end, length)) for begin, end in self.spans if begin < length)
        return Encoded(self.where, self.ids[:length], spans)


class Template:
    """A tokenizer with the chat template that it is trained and saved with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        tokenizer.chat_template = source
        self._special = _special_pattern(tokenizer)
        known = [tokenizer.eos_token_id, *tokenizer.all_special_ids]
        self.ends = {i for i in known if i is not None} - {tokenizer.bos_token_id}
        if tokenizer.eos_token_id is not None:
            self.ends.add(tokenizer.eos_token_id)

    def render(self, messages: Sequence[Message], *, answer: bool = False) -> str:
        """The text of messages; with `answer` the prompt that asks for the next one. Raises Unproved."""
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                [dict(m) for m in messages], tokenize=False, add_generation_prompt=answer
            )
        except (TemplateError, TypeError) as error:
            said = str(error).splitlines()[0][:200].rstrip(".")
            raise Unproved(UNPROVED, f"the template refuses the conversation: {said}") from None
        return str(text)

    def ids(self, text: str) -> list[int]:
        """Tokens as a chat endpoint makes them: special ones only where the template writes them."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What an engine is sent for these messages."""
        return self.ids(self.render(messages, answer=True))

    def encode(self, conversation: Conversation) -> Encoded:
        """Tokens and proved spans. Raises Unproved."""
        messages = conversation.messages
        self.refuse_special(messages)
        text = self.render(messages)
        ids = self.ids(text)
        spans = tuple(self._spans(messages, text, ids))
        return Encoded(conversation.where, ids, spans)

    def refuse_special(self, messages: Sequence[Message]) -> None:
        """Look for texts that the tokenizer would read as special tokens. Raises Unproved."""
        for message in messages:
            if found := self._special.search(message["content"]):
                raise Unproved(SPECIAL, f"the {message['role']}'s text holds {found[0]!r}, a special token")

    def _spans(self, messages: Sequence[Message], text: str, ids: list[int]) -> Iterator[tuple[int, int]]:
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self.render(messages[:number], answer=True)
            if not text.startswith(prompt):
                common = len(_common(prompt, text))
                raise Unproved(
                    UNPROVED,
                    f"before answer {number} the conversation reads {text[common : common + 40]!r} where the "
                    f"served prompt reads {prompt[common : common + 40]!r}",
                )
            rest = text[len(prompt) :]
            if not rest.startswith(message["content"]):
                raise Unproved(
                    UNPROVED, f"behind the prompt of answer {number} stands {rest[:40]!r}, not the answer"
                )
            served = self.ids(prompt)
            begin = len(served)
            if ids[:begin] != served:
                raise Unproved(SEAM, self._merged(served, ids))
            end = next((i for i in range(begin, len(ids)) if ids[i] in self.ends), None)
            behind = rest[len(message["content"]) :].lstrip()
            if end is None or not behind.startswith(str(self.tokenizer.convert_ids_to_tokens(ids[end]))):
                raise Unproved(NO_END, f"behind answer {number} stands {behind[:40]!r}, no end token")
            yield begin, end + 1

    def _merged(self, served: list[int], ids: list[int]) -> str:
        at = next(i for i, (one, other) in enumerate(zip(served, [*ids, -1], strict=False)) if one != other)
        got = self.tokenizer.decode(ids[at : at + 1])
        wanted = self.tokenizer.decode(served[at : at + 1])
        return f"the end of the prompt, {wanted!r}, becomes one token with the answer's beginning: {got!r}"


def template_for(tokenizer: PreTrainedTokenizerBase, name: str, file: str = "") -> tuple[Template, str]:
    """The template of format `name`, or of a Jinja `file`, and the phrasing to use with it.

    Raises PipelineError if the tokenizer has none of its own or no token that ends an answer.
    """
    if tokenizer.eos_token_id is None:
        raise PipelineError("tokenizer", "it has no end token", "Set eos_token in tokenizer_config.json.")
    if file:
        return Template(tokenizer, read_text(Path(file)), file), "plain"
    form = FORMATS[name]
    if form.template:
        source = read_text(FOLDER / f"{form.template}.jinja")
        begins = list(tokenizer("x")["input_ids"])[:1] == [tokenizer.bos_token_id]
        return Template(tokenizer, "{{- bos_token -}}" + source if begins else source, name), form.phrasing
    own = tokenizer.chat_template
    if not isinstance(own, str):  # several by name, or none
        own = own.get("default") if isinstance(own, Mapping) else None
    if not own:
        problem = "the tokenizer has no chat template of its own"
        raise PipelineError(f"--format {name}", problem, "Use --format alpaca, or give --format-file.")
    return Template(tokenizer, own, name), form.phrasing


def apart(conversation: Conversation) -> Conversation:
    """The same with the input of a single exchange as a message of its own, as Alpaca's forms want it."""
    parts = conversation.exchange
    if not parts or not parts.input:
        return conversation
    asked = [{"role": "user", "content": text} for text in (parts.instruction, parts.input)]
    system = [m for m in conversation.messages if m["role"] == "system"]
    answer = {"role": "assistant", "content": parts.output}
    return Conversation(conversation.where, (*system, *asked, answer), parts)


def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """The texts that the tokenizer would read as special tokens."""
    added = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    names = sorted({*added, *map(str, tokenizer.all_special_tokens)}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) if names else r"(?!)")


def _common(one: str, other: str) -> str:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return one[:number]
    return min(one, other, key=len)
