"""Examples token by token: trained tokens coloured, for a terminal and as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import Template
from rich.text import Text

from pipeline.format.templates import Encoded

_TRAINED, _PROMPT = "black on green", "dim"
_PAGE = Template(
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>What is trained</title>
<style>
body { font: 15px/1.7 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; border: 1px solid #ccc; padding: .8rem; font: 13px/1.9 monospace; }
span { border-bottom: 1px dotted #bbb; color: #666; }
.t { background: #b9e8b9; color: #000; border-color: #2a7a2a; }
</style>
<h1>What is trained</h1>
<p>Each span is a token; point at it for its number. Green: trained. Grey: read, not trained.</p>
{% for where, tokens in examples %}<h2>{{ where }}</h2><pre>
{%- for number, text, trained in tokens -%}
<span{% if trained %} class="t"{% endif %} title="{{ number }}">{{ text }}</span>{{ "\n" if "⏎" in text }}
{%- endfor -%}
</pre>{% endfor %}</html>
""",
    autoescape=True,
)


def tokens(tokenizer: Any, one: Encoded) -> Iterator[tuple[int, str, bool]]:
    """Each token's number, its text (a character of several tokens stands with the last of them), and whether
    it is trained.
    """
    said = 0
    for at, number in enumerate(one.ids):
        text = tokenizer.decode(one.ids[said : at + 1])
        if text.endswith("�") and at + 1 < len(one.ids):
            text = ""  # the beginning of a character
        else:
            said = at + 1
        yield number, text.replace("\n", "⏎"), any(begin <= at < end for begin, end in one.spans)


def in_terminal(tokenizer: Any, one: Encoded) -> Text:
    """The example with its trained tokens on green, a line break where the text has one."""
    shown = Text(f"{one.where}\n", style="bold")
    for _, text, trained in tokens(tokenizer, one):
        shown.append(text.replace("⏎", "⏎\n"), style=_TRAINED if trained else _PROMPT)
    return shown


def as_page(tokenizer: Any, examples: Sequence[Encoded]) -> str:
    """The same as an HTML page."""
    return _PAGE.render(examples=[(one.where, list(tokens(tokenizer, one))) for one in examples])
