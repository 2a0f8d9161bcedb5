"""From requests to token ids, the same for every engine that runs a model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.engines.base import Request
from pipeline.errors import PipelineError

Row = tuple[list[int], list[int]]  # what the model reads, and the continuation that is scored after it


class Encoder:
    """Encodes the requests of one model with its own tokenizer and chat template."""

    def __init__(self, tokenizer: Any, model: str) -> None:
        self.tokenizer, self.model = tokenizer, model

    @property
    def has_chat(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def special_ids(self) -> set[int]:
        """The tokens that are no text: each of them ends an answer."""
        return {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def prompt(self, request: Request) -> list[int]:
        """Encode the prompt: through the chat template, or raw with nothing added. Raises PipelineError."""
        if not request.chat:
            return self.ids(request.prompt)
        if not self.has_chat:
            raise PipelineError(f"model {self.model}", "it has no chat template", "Use --style completion.")
        system = [{"role": "system", "content": request.system}] if request.system else []
        messages = [*system, {"role": "user", "content": request.prompt}]
        return list(
            self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        )

    def choices(self, request: Request, prompt: list[int]) -> list[Row]:
        """Encode the request's choices, each a context after the `prompt` and the continuation to score."""
        return [(prompt + self.ids(context), self.ids(text)) for context, text in request.choices]

    def ids(self, text: str) -> list[int]:
        """Encode text with nothing added."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def misfit(rows: Sequence[Row], drawing: int, window: int) -> str:
    """Say why the rows and `drawing` new tokens do not fit a model of `window` positions; "" if they do."""
    if not all(prompt for prompt, _ in rows):
        return "the prompt is empty"
    needed = max(len(prompt) + len(continuation) for prompt, continuation in rows) + drawing
    return f"context overflow: {needed} tokens needed, the model has {window}" if needed > window else ""
