"""Budgets: requests, tokens and money that a run may spend, never exceeded by what is still in flight.

Every group reserves its worst case before it is sent; one that might go over the limit waits until answers in
flight have settled for what they really used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.base import Engine, Layer, NotSent, Request, Response
from pipeline.errors import PipelineError
from pipeline.records import read_text

BYTES_PER_TOKEN = 3  # of UTF-8: a Chinese character, and fewer than English has


@dataclass(frozen=True)
class Usage:
    """What was, or may be, used. A request counts once, however often it was tried."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(-other.requests, -other.prompt_tokens, -other.completion_tokens)


@dataclass(frozen=True)
class Budget:
    """Limits, 0 for none; `prices` of a million prompt and completion tokens, in the currency of `max_cost`.

    Raises PipelineError if there is a limit on cost without a price.
    """

    max_requests: int = 0
    max_tokens_total: int = 0
    max_cost: float = 0.0
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.max_cost and not self.prices:
            raise PipelineError(
                f"--max-cost {self.max_cost:g}",
                "the model's price is not known",
                "Give a table with --prices.",
            )

    def cost(self, usage: Usage) -> float:
        """Return the price of `usage`, 0 where prices are not known."""
        prompt, completion = self.prices or (0.0, 0.0)
        return (prompt * usage.prompt_tokens + completion * usage.completion_tokens) / 1e6

    def exceeded(self, usage: Usage) -> str:
        """Return the option whose limit `usage` is over, "" if it is within all."""
        if self.max_requests and usage.requests > self.max_requests:
            return "--max-requests"
        if self.max_tokens_total and usage.tokens > self.max_tokens_total:
            return "--max-tokens-total"
        if self.max_cost and self.cost(usage) > self.max_cost * (1 + 1e-9):  # but for rounding
            return "--max-cost"
        return ""

    def describe(self, usage: Usage) -> str:
        """Return `usage` in words: "12 requests, 3,456 tokens, 0.0123 spent"."""
        words = f"{usage.requests:,} request{'s' * (usage.requests != 1)}, {usage.tokens:,} tokens"
        return f"{words}, {self.cost(usage):,.4f} spent" if self.prices else words


class BudgetedEngine(Layer):
    """Sends a group only if the budget holds whatever it may use; groups are sent in the order they came."""

    def __init__(self, inner: Engine, budget: Budget, spent: Usage | None = None) -> None:
        super().__init__(inner)
        self.budget, self.spent = budget, spent or Usage()
        self._in_flight, self._stopped = Usage(), ""  # why nothing is sent any more
        self._turn, self._settled = asyncio.Lock(), asyncio.Event()

    @property
    def summary(self) -> str:
        """What was spent, in words."""
        return self.budget.describe(self.spent)

    def charge(self, response: Response) -> None:
        """Count an answer, one that an earlier process paid for and journalled too; cached ones are free."""
        if not response.cached:
            self.spent += Usage(1, response.prompt_tokens, response.completion_tokens)

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a group. Raises NotSent if it might exceed the budget, and then for all that come later.

        An answer without usage is given the estimate, so that a resumed run counts the same.
        """
        worst = sum(map(worst_case, requests), Usage())
        async with self._turn:
            await self._reserve(worst)
        try:
            answers = await self.inner.generate(requests)
            answers = [_with_usage(q, a) for q, a in zip(requests, answers, strict=True)]
            for answer in answers:
                self.charge(answer)
            return answers
        except NotSent:
            raise
        except Exception:  # it may have been sent
            self.spent += Usage(len(requests))
            raise
        finally:
            self._in_flight -= worst
            self._settled.set()

    def stop(self) -> None:
        """Send nothing more: groups that wait for others to settle raise NotSent too."""
        self._stopped = self._stopped or "the engine was told to stop"
        self._settled.set()
        self.inner.stop()

    async def _reserve(self, worst: Usage) -> None:
        """Wait until the budget holds what is spent, what is in flight and `worst`."""
        while not self._stopped:
            option = self.budget.exceeded(self.spent + self._in_flight + worst)
            if not option:
                self._in_flight += worst
                return
            if self._in_flight == Usage():
                more = "the next request" if worst.requests == 1 else f"the next {worst.requests:,} requests"
                reached = f"budget reached: {self.summary}, and {more} may go over {option}"
                self._stopped = f"{reached}. Raise {option} and go on with --resume."
                self.inner.stop()
                break
            self._settled.clear()
            await self._settled.wait()
        raise NotSent(self._stopped)


def worst_case(request: Request) -> Usage:
    """Estimate the most that a request uses: its bytes by BYTES_PER_TOKEN and all of `max_tokens`."""
    asked = request.system + request.prompt + request.schema
    if request.choices:
        texts = [asked + context + continuation for context, continuation in request.choices]
        return Usage(1, sum(map(_tokens, texts)))
    return Usage(1, _tokens(asked), request.sampling.max_tokens)


def _with_usage(request: Request, response: Response) -> Response:
    if response.error or request.choices or response.prompt_tokens or response.completion_tokens:
        return response
    prompt = worst_case(request).prompt_tokens
    return dataclasses.replace(response, prompt_tokens=prompt, completion_tokens=_tokens(response.text))


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def load_prices(path: Path, model: str) -> tuple[float, float]:
    """Read what a million prompt and completion tokens of `model` cost. Raises PipelineError.

    The table is YAML: `gpt-4o-mini: {prompt: 0.15, completion: 0.60}`.
    """
    import yaml

    try:
        table = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise PipelineError(where, f"not YAML ({getattr(error, 'problem', error)})", _TABLE) from None
    if not isinstance(table, dict):
        raise PipelineError(path, "expected a table of models", _TABLE)
    rows = {str(name): row for name, row in table.items()}
    if model not in rows:
        close = difflib.get_close_matches(model, list(rows), 1, 0.5)
        fix = f"Did you mean '{close[0]}'? Else add its prices" if close else "Add its prices"
        raise PipelineError(path, f"no prices for model '{model}'", f"{fix} (`MODEL: {_ROW}`).")
    row = rows[model]
    if not isinstance(row, dict) or set(row) != {"prompt", "completion"}:
        raise PipelineError(f"{path}: {model}", f"got {row!r}, expected {_ROW}", "Correct the row.")
    return _price(row["prompt"], f"{path}: {model}: prompt"), _price(
        row["completion"], f"{path}: {model}: completion"
    )


_ROW = "{prompt: 0.15, completion: 0.60}"
_TABLE = f"Write one line a model, prices of a million tokens: `MODEL: {_ROW}`."


def _price(value: Any, where: str) -> float:
    try:
        price = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        price = -1.0
    if not 0 <= price < math.inf:
        raise PipelineError(where, f"got {value!r}, expected a price of 0 or more", "Correct the row.")
    return price
