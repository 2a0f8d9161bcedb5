"""Reference answers as an engine scores them: the text behind the served prompt, end token and all, proved.

The template machinery that proves what training reads says which text that is; so the held-out loss here
falls on exactly the tokens that `pipeline.sft` trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.evaluation.tasks import Item
from pipeline.format.conversations import Conversation
from pipeline.format.templates import SEAM, Template, Unproved, template_for


@dataclass(frozen=True)
class Reference:
    """A reference answer with its end token as text, and how many tokens it has."""

    text: str
    tokens: int


@dataclass
class References:
    """The references that can be scored, by item, and why the others cannot."""

    proved: dict[str, Reference] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def references(items: Sequence[Item], folder: str) -> References:
    """Prove the references of all items with the tokenizer in `folder`. Raises PipelineError."""
    from transformers import AutoTokenizer

    template, _ = template_for(AutoTokenizer.from_pretrained(folder), "chat")
    found = References()
    for item in items:
        if not item.prompt.reference:
            found.left_out[item.id] = "no_reference"
            continue
        try:
            found.proved[item.id] = _proved(item, template)
        except Unproved as error:
            found.left_out[item.id] = error.reason
    return found


def _proved(item: Item, template: Template) -> Reference:
    """The reference as a continuation whose tokens are those of the conversation. Raises Unproved."""
    asked = list(item.prompt.messages)
    messages = (*asked, {"role": "assistant", "content": item.prompt.reference})
    one = template.encode(Conversation(item.where, messages))
    begin, end = one.spans[-1]
    mark = str(template.tokenizer.convert_ids_to_tokens(one.ids[end - 1]))
    rest = template.render(messages)[len(template.render(asked, answer=True)) :]
    text = rest[: rest.index(mark, len(item.prompt.reference)) + len(mark)]
    if template.ids(text) != one.ids[begin:end]:
        raise Unproved(SEAM, "the answer alone has other tokens than behind its prompt")
    return Reference(text, end - begin)
