"""The `openai` engine: any server that speaks OpenAI's protocol, through the official client.

Requests that fail for a reason that may pass are asked again, those that cannot be answered are recorded, and
only what no request can get past (the key, the model, an unreachable server) ends the run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.engines import openai_wire as wire
from pipeline.engines.base import Request, Response, Sampling
from pipeline.engines.openai_connection import Connection
from pipeline.engines.openai_echo import Echo, echo_body, parse_echo
from pipeline.engines.openai_errors import Missing, Refused, Transient
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from tenacity import AsyncRetrying

_PROBES = (  # can it chat, continue text, score?
    Request("Hello", chat=True, sampling=Sampling(max_tokens=1)),
    Request("Hello", sampling=Sampling(max_tokens=1)),
    Request("", choices=(("One, two,", " three"), ("One, two,", " four"))),
)


class OpenAIEngine:
    """Has `window` requests at hand and at most `concurrency` of them in flight; serves one event loop.

    Await `open` before the first request is built: from then on it is known what the server can do.
    `timeout` (of each attempt) and the waits before a retry (`backoff`, doubling up to `longest_backoff`) are
    in seconds. Raises PipelineError for an address, a key or a package that will not do.
    """

    batch_size = 1

    def __init__(
        self,
        model: str,
        base_url: str = "",
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 64,
        window: int = 256,
        timeout: float = 120.0,
        max_retries: int = 8,
        backoff: float = 0.5,
        longest_backoff: float = 60.0,
        license: str = "unknown",
    ) -> None:
        self.server = Connection(
            base_url,
            api_key_env,
            concurrency=concurrency,
            timeout=timeout,
            max_retries=max_retries,
            backoff=backoff,
            longest_backoff=longest_backoff,
        )
        self.model, self.license, self.groups_in_flight = model, license, window
        self.precision, self.tokens_drawn = f"served by {self.server.host}", 0
        self.has_chat = self.has_completions = self.can_score = False
        self._models: tuple[str, ...] = ()  # those that the server lists, if it does
        self._opening = asyncio.Lock()

    @property
    def can_structure(self) -> bool:
        """Whether `schema` is followed; not once the server has refused one."""
        return not self.server.dropped & {"response_format", "structured_outputs"}

    async def open(self) -> None:
        """Find out what the server can do, by three requests of one token each.

        Raises PipelineError if the server cannot be reached, refuses the key or does not have the model.
        """
        async with self._opening:
            if self.server.established:
                return
            try:
                self._models = await self.server.models()
                self.has_chat, self.has_completions, self.can_score = [
                    await self._offers(probe) for probe in _PROBES
                ]
            except Transient as failure:
                raise self._unreachable(failure) from None
            if not (self.has_chat or self.has_completions):
                raise self._unknown_model("it answers neither chats nor completions")
            self.server.established = True

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests one after the other; a group holds one."""
        await self.open()
        return [await self._answer(request) for request in requests]

    def stop(self) -> None:
        """Send nothing more, retries included."""
        self.server.limiter.stop()

    async def close(self) -> None:
        """Close the connections, for good."""
        await self.server.close()

    async def _offers(self, probe: Request) -> bool:
        """Whether the server answers requests like this one."""
        try:
            await self._ask(probe, self.server.retrying())
        except Missing:
            return False
        except Refused:  # the way is there, only this text would not do
            return not probe.choices
        except Transient as failure:
            if failure.status != 500:
                raise
            return False  # it breaks down on such requests, however often they are sent
        return True

    async def _answer(self, request: Request) -> Response:
        if not (self.has_chat if request.chat else self.has_completions):
            what, other = ("chats", "completion") if request.chat else ("completions", "chat")
            problem = f"server {self.server.host} answers no {what} for it"
            raise PipelineError(f"model {self.model}", problem, f"Use --style {other}.")
        retrying = self.server.retrying()
        try:
            response = await self._ask(request, retrying)
        except Missing as missing:
            raise self._unknown_model(str(missing)) from None
        except Refused as refusal:
            response = Response("", refusal.finish_reason, 0, 0, error=str(refusal))
        except Transient as failure:
            if failure.unreachable:
                raise self._unreachable(failure) from None
            response = Response("", "error", 0, 0, error=f"no answer: {failure}")
        self.tokens_drawn += response.completion_tokens
        return replace(response, retries=retrying.statistics["attempt_number"] - 1)

    async def _ask(self, request: Request, retrying: AsyncRetrying) -> Response:
        """Ask until there is an answer. Raises Refused, Transient after the last retry, PipelineError."""
        attempt_once = self._score if request.choices else self._draw
        async for attempt in retrying:
            with attempt:
                response = await attempt_once(request, again=attempt.retry_state.attempt_number > 1)
        return response

    async def _draw(self, request: Request, *, again: bool) -> Response:
        path, body = wire.body(request, self.model)
        if request.schema and not request.chat:
            body["structured_outputs"] = {"json": json.loads(request.schema)}  # vLLM's; OpenAI has none here
        answer = await self.server.post(body, again=again)
        try:
            response = (wire.parse_chat if path == wire.CHAT_URL else wire.parse_completion)(answer)
        except ValueError as error:
            raise Transient(self.server.clean(f"malformed answer: {error}")) from None
        return wire.cut_at_stop(response, request.sampling.stop)

    async def _score(self, request: Request, *, again: bool) -> Response:
        """Score the choices; where tokens do not spell their text, the contexts are asked for as well."""
        if request.chat:
            raise Refused("choices cannot be compared in a chat, which only the server can render")
        heads = [request.prompt + context for context, _ in request.choices]
        texts = [head + more for head, (_, more) in zip(heads, request.choices, strict=True)]
        if not all(heads):
            raise Refused("the prompt is empty")
        echoes, cost = await self._echo(texts, again=again)
        found = [e.after(t, more) for e, t, (_, more) in zip(echoes, texts, request.choices, strict=True)]
        values = [value for value in found if value is not None]
        if len(values) < len(found):
            before, more_cost = await self._echo(heads, again=again)
            values = [echo.beyond(head) for echo, head in zip(echoes, before, strict=True)]
            cost = cost[0] + more_cost[0], cost[1] + more_cost[1]
        return Response("", "score", *cost, tuple(round(value, 4) for value in values))

    async def _echo(self, texts: list[str], *, again: bool) -> tuple[list[Echo], tuple[int, int]]:
        """The tokens of the texts and what they cost: (prompt tokens, completion tokens)."""
        answer = await self.server.post(echo_body(texts, self.model), again=again)
        try:
            usage = wire.parse_completion(answer)
        except ValueError as error:
            raise Transient(self.server.clean(f"malformed answer: {error}")) from None
        return parse_echo(answer, len(texts)), (usage.prompt_tokens, usage.completion_tokens)

    def _unreachable(self, failure: Transient) -> PipelineError:
        problem = "not reachable" if failure.unreachable else "it does not answer"
        fix = "Start it, then go on with --resume."
        if not self.server.established:
            fix = "Start it, or mend --base-url."
        return PipelineError(f"server {self.server.host}", f"{problem} ({failure})", fix)

    def _unknown_model(self, said: str) -> PipelineError:
        where, problem = f"model {self.model}", f"server {self.server.host} does not have it ({said})"
        if not self._models:
            return PipelineError(where, problem, "Check --model, and --base-url: it usually ends in /v1.")
        has = ", ".join(self._models[:20]) + (", ..." if len(self._models) > 20 else "")
        return PipelineError(where, f"{problem}; it has: {has}", "Give one of these with --model.")
