"""A connection to an OpenAI-compatible server: the key, the limit, retries, and what it does not take."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.engines.limiter import Limiter
from pipeline.engines.openai_errors import Cleaner, Forbidden, Refused, Transient, Unsupported, classify
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, RetryCallState

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT = 10.0  # s
_log = logging.getLogger(__name__)


class Connection:
    """Posts bodies, with at most `concurrency` calls in flight; serves one event loop.

    `timeout` (of each attempt) and the waits before a retry (`backoff`, doubling up to `longest_backoff`) are
    in seconds.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str,
        *,
        concurrency: int,
        timeout: float,
        max_retries: int,
        backoff: float,
        longest_backoff: float,
    ) -> None:
        base_url = base_url or os.environ.get("OPENAI_BASE_URL", "") or OPENAI_URL
        self.host, self.limiter = host_of(base_url), Limiter(concurrency)
        self.timeout, self.max_retries = timeout, max_retries
        self.backoff, self.longest_backoff = backoff, longest_backoff
        self.established = False  # an unreachable server is waited for only where it has answered before
        self.dropped: set[str] = set()  # parameters that the server has refused
        self._key_name = api_key_env
        key = key_in(api_key_env, needed=base_url == OPENAI_URL)
        self.clean = Cleaner(key)
        self._client = _client(base_url, key or "none", timeout)

    def retrying(self) -> AsyncRetrying:
        """Return the attempts of one request: `async for attempt in retrying: with attempt: ...`.

        The last attempt's Transient gets through.
        """
        from tenacity import AsyncRetrying, retry_if_exception_type

        return AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=self._wait,
            stop=self._last,
            sleep=self.limiter.pause,
            reraise=True,
        )

    async def models(self) -> tuple[str, ...]:
        """List the server's models, or none where it does not tell: they only make an error clearer.

        Raises Transient if the server is not reachable, PipelineError.
        """
        try:
            body = await self._send(self._client.models.with_raw_response.list, again=False)
        except (Refused, Forbidden):  # the key may be good for other things
            return ()
        except Transient as failure:
            if failure.unreachable:
                raise
            return ()
        rows = body.get("data") if isinstance(body, dict) else None
        names = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return tuple(str(name) for name in names)

    async def post(self, body: dict[str, Any], *, again: bool) -> Any:
        """Post a chat (a body with messages) or a completion once; return the JSON of the answer.

        Parameters that the server turns out not to take are left out from then on. Raises Refused, Transient,
        PipelineError, NotSent.
        """
        while True:
            sent = self._known(body)
            part = "messages" if "messages" in sent else "prompt"
            api = self._client.chat.completions if part == "messages" else self._client.completions
            needed = {"model": sent["model"], part: sent[part]}
            create = api.with_raw_response.create
            try:
                return await self._send(lambda: create(**needed, extra_body=sent), again=again)  # noqa: B023
            except Unsupported as refusal:
                names = refusal.names & sent.keys()
                if not names:
                    raise Refused(str(refusal)) from None
                if new := names - self.dropped:
                    _log.warning("%s does not take %s: going on without", self.host, ", ".join(sorted(new)))
                self.dropped |= names

    async def close(self) -> None:
        """Close the connections, for good."""
        await self._client.close()

    def _known(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without what the server refused; newer models have another name for `max_tokens`."""
        known = {name: value for name, value in body.items() if name not in self.dropped}
        if "max_tokens" in self.dropped and "messages" in body:
            known["max_completion_tokens"] = body["max_tokens"]
        return known

    async def _send(self, call: Callable[[], Awaitable[Any]], *, again: bool) -> Any:
        """Make one call in a free place; return the JSON. Raises what a failure means (`classify`)."""
        import openai

        async with self.limiter.place(again=again) as began:
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await call()
                body = json.loads(answer.content)
            except TimeoutError:
                raise Transient(f"no answer within {self.timeout:g} seconds") from None
            except ValueError as error:
                raise Transient(self.clean(f"the answer is not JSON: {error}")) from None
            except openai.APIError as error:
                failure = classify(error, f"server {self.host}", self._key_name, self.clean)
                if isinstance(failure, Transient) and failure.overload:
                    self.limiter.overloaded(began)
                raise failure from None
            self.limiter.succeeded()
            return body

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: doubling, jittered, and never less than the server asks for."""
        after = _failure(state).after
        longest = min(self.longest_backoff, self.backoff * 2 ** (state.attempt_number - 1))
        asked = 0.0 if after is None else after + random.uniform(0, self.backoff)
        return max(asked, random.uniform(longest / 2, longest))

    def _last(self, state: RetryCallState) -> bool:
        failure = _failure(state)
        return state.attempt_number > self.max_retries or (not self.established and failure.unreachable)


def _failure(state: RetryCallState) -> Transient:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, Transient)
    return failure


def host_of(base_url: str, option: str = "--base-url") -> str:
    """The host and port of an address. Raises PipelineError if it is none, or could hold a secret."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PipelineError(option, "not an address", "Give one like http://127.0.0.1:8000/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise PipelineError(
            option,
            "user names, passwords and queries do not belong in it",
            "Put the key into its environment variable.",
        )
    return parts.netloc


def key_in(name: str, *, needed: bool, option: str = "--api-key-env") -> str:
    """The key in environment variable `name`, "" if there is none. Raises PipelineError."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):  # it may be the key itself: not to be shown
        fix = "Give the name of the variable, never the key."
        raise PipelineError(option, "not the name of an environment variable", fix)
    key, place = os.environ.get(name, "").strip(), f"environment variable {name}"
    if not key and needed:
        raise PipelineError(place, "it is not set, and OpenAI wants a key", "Put the key there.")
    if not re.fullmatch(r"[!-~]*", key):
        raise PipelineError(place, "it holds characters that no key has", "Put the key there, and only it.")
    return key


def _client(base_url: str, key: str, timeout: float) -> Any:
    """The official client; it neither retries nor limits the time of an attempt, as `Connection` does."""
    try:
        import openai
        import tenacity  # noqa: F401
    except ModuleNotFoundError as error:
        problem, fix = f"package {error.name} is not installed", "Run: pip install openai tenacity"
        raise PipelineError("--engine openai", problem, fix) from None
    patience = openai.Timeout(None, connect=min(timeout, CONNECT_TIMEOUT))
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, timeout=patience, max_retries=0)
