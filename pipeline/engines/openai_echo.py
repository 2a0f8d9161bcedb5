"""Log-likelihoods of given continuations from a completions endpoint that can echo its prompt (vLLM's can).

Texts are sent whole and split into tokens by the server, so a token may lie across the border between context
and continuation. Such a token counts as the continuation's. The embedded engine splits the two texts apart
instead: where a tokenizer merges across the border (a context that ends in a space), the two engines score
different tokens and their numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engines.openai_errors import Refused, Transient


@dataclass(frozen=True)
class Echo:
    """The tokens of one text with their log-probabilities; the first token may have none (0)."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]

    def after(self, text: str, continuation: str) -> float | None:
        """The log-likelihood of `continuation`, with which `text` ends.

        None where the tokens do not spell the text: pieces of characters, marks for spaces.
        """
        spelt = "".join(self.tokens)
        if not spelt.endswith(text):  # it may begin with a start token
            return None
        border, end, total = len(spelt) - len(continuation), 0, 0.0
        for token, logprob in zip(self.tokens, self.logprobs, strict=True):
            end += len(token)
            total += logprob if end > border else 0.0
        return total

    def beyond(self, head: Echo) -> float:
        """The log-likelihood of the tokens from the first on that differs from those of `head`."""
        pairs = enumerate(zip(self.tokens, head.tokens, strict=False))
        same = min(len(self.tokens), len(head.tokens))
        return sum(self.logprobs[next((i for i, (mine, other) in pairs if mine != other), same) :])


def echo_body(texts: Sequence[str], model: str) -> dict[str, Any]:
    """The body that asks for the tokens of `texts`; servers want to draw one token at least."""
    return {
        "model": model,
        "prompt": list(texts),
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,
        "temperature": 0.0,
    }


def parse_echo(body: Any, num_texts: int) -> list[Echo]:
    """Read the answer to `echo_body`, in the order of its texts.

    Raises Refused if the server does not echo, Transient if the answer is malformed.
    """
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
        raise Transient("the answer has no choices")
    if len(choices) != num_texts or any(choice.get("logprobs") is None for choice in choices):
        raise Refused("the server does not score prompts")
    try:
        echoes = [_echo(choice["logprobs"]) for choice in sorted(choices, key=lambda c: int(c["index"]))]
    except (KeyError, TypeError, ValueError) as error:
        raise Transient(f"malformed log-probabilities ({type(error).__name__}: {error})") from None
    if not all(echo.tokens for echo in echoes):
        raise Refused("the server does not echo prompts")
    return echoes


def _echo(logprobs: dict[str, Any]) -> Echo:
    """One text's tokens without the last, which was drawn."""
    tokens, values = logprobs["tokens"], logprobs["token_logprobs"]
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        raise ValueError("tokens and values differ in number")
    return Echo(tuple(str(token) for token in tokens[:-1]), tuple(float(value or 0) for value in values[:-1]))
