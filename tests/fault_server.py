"""A real HTTP server that speaks OpenAI's protocol and fails as often, and as badly, as it is told to.

  python tests/fault_server.py --port 8123 --share 0.3

Whether and how it fails is decided by the hash of a request's body and the number of the attempt, so the same
run meets the same faults. A request fails `max_faults` times at most: then it is answered. `GET /count` tells
how often each body was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from aiohttp import web

FAULTS = ("429-retry-after", "429", "500", "503", "hang", "cut", "truncated", "empty-choices", "wrong-types")
ANSWER_FAULTS = ("content_filter", "length")  # these change the answer: never among the faults unless named
CHAT, TEXT, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_WORDS = (
    "river stone seven amber lantern walks quietly toward morning 长江 学习 because nobody counts it".split()
)

Body = dict[str, Any]
Answer = Callable[[Body], tuple[str, str]]


class Asked(NamedTuple):
    """One request that came in."""

    path: str
    body: Body
    headers: dict[str, str]
    at: float  # s, on the server's clock


def digest(body: Body) -> str:
    """What requests are counted by."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:13], 16) / 16**13


def words(body: Body) -> tuple[str, str]:
    """Twelve words that depend on the request."""
    key = digest(body)
    return " ".join(_WORDS[int(chance(key, i) * len(_WORDS))] for i in range(12)) + ".", "stop"


def vector(text: str) -> list[float]:
    """How often characters of each of eight kinds occur in a text, none of them never."""
    return [1.0 + sum(ord(character) % 8 == kind for character in text) for kind in range(8)]


def tokens(text: str) -> list[str]:
    """Words with the space before them, single characters of anything else."""
    return re.findall(r" ?[A-Za-z]+|.", text, re.DOTALL)


@dataclass
class FaultServer:
    """The server; as a context manager it runs in a thread of its own."""

    answer: Answer = words
    share: float = 0.0  # of the attempts that fail
    faults: Sequence[str] = FAULTS
    max_faults: int = 3  # failures of one request before it is answered
    latency: float = 0.0  # s
    hang: float = 30.0  # s
    retry_after: str = "0.05"  # s, or an HTTP date
    models: Sequence[str] = ("smol",)
    key: str = ""  # the one that is wanted; "": any
    echo: bool = True  # whether prompts are scored
    split: Callable[[str], list[str]] = tokens
    refuse: Callable[[str, Body], web.Response | None] = lambda path, body: None
    seed: int = 0
    port: int = 0

    answered: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    asked: list[Asked] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def __enter__(self) -> FaultServer:
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10), "the server does not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    def prompts(self) -> list[str]:
        """The prompts of the requests that came in, in order."""
        return [_prompt(asked.body) for asked in self.asked]

    async def start(self) -> web.AppRunner:
        """Listen, in the running loop."""
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/count", self._count)
        app.router.add_post(CHAT, self._post)
        app.router.add_post(TEXT, self._post)
        app.router.add_post(EMBEDDINGS, self._post)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self.start())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        for task in (left := asyncio.all_tasks(self._loop)):  # else they complain when they are collected
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    # ---- requests ----

    async def _models(self, request: web.Request) -> web.Response:
        rows = [{"id": name, "object": "model"} for name in self.models]
        return self._locked(request) or web.json_response({"object": "list", "data": rows})

    async def _count(self, request: web.Request) -> web.Response:
        return web.json_response({"answered": self.answered, "injected": self.injected})

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(Asked(request.path, body, dict(request.headers), self._now()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._respond(request, body)
        finally:
            self.in_flight -= 1

    async def _respond(self, request: web.Request, body: Body) -> web.StreamResponse:
        await asyncio.sleep(self.latency)
        if refusal := self._locked(request) or self._unknown(body) or self.refuse(request.path, body):
            return refusal
        key = digest(body)
        attempt = self.attempts[key]
        self.attempts[key] += 1
        fault = self._fault(key, attempt)
        if fault:
            self.injected[fault] += 1
        if fault and fault not in ANSWER_FAULTS:
            return await self._fail(fault, request, body)
        self.answered[key] += 1
        return web.json_response(self._answer(body, fault), dumps=_dumps)

    def _locked(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if not self.key or sent == f"Bearer {self.key}":
            return None
        return error(401, f"Incorrect API key provided: {sent}", "invalid_api_key")

    def _unknown(self, body: Body) -> web.Response | None:
        if body.get("model") in self.models:
            return None
        return error(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")

    # ---- faults ----

    def _fault(self, key: str, attempt: int) -> str:
        if attempt >= self.max_faults or chance(self.seed, key, attempt) >= self.share:
            return ""
        return self.faults[int(chance(self.seed, key, attempt, "kind") * len(self.faults))]

    async def _fail(self, fault: str, request: web.Request, body: Body) -> web.StreamResponse:
        payload = _dumps(self._answer(body)).encode()
        match fault:
            case "429-retry-after":
                return error(429, "Rate limit reached", headers={"Retry-After": self.retry_after})
            case "429" | "500" | "503":
                return error(int(fault), "Try again")
            case "hang":
                await asyncio.sleep(self.hang)
                return error(504, "Gateway timeout")
            case "cut":
                return await self._cut(request, payload)
            case "truncated":
                return web.Response(body=payload[: len(payload) // 2], content_type="application/json")
            case "empty-choices":
                return web.json_response({**json.loads(payload), "choices": []})
            case "wrong-types":
                return web.json_response({**json.loads(payload), "choices": [{"index": 0, "text": 7}]})
        raise ValueError(f"no such fault: {fault}")

    async def _cut(self, request: web.Request, payload: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(payload))})
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
        await asyncio.sleep(0.005)
        if request.transport:
            request.transport.close()
        return response

    # ---- answers ----

    def _answer(self, body: Body, fault: str = "") -> Body:
        if "input" in body:
            return self._embedded(body)
        if body.get("echo"):
            return self._scored(body)
        text, reason = self.answer(body)
        if fault:
            text, reason = ("", fault) if fault == "content_filter" else (text[: len(text) // 2], fault)
        message = (
            {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        )
        return self._completion([{"index": 0, **message, "finish_reason": reason}], _prompt(body), text)

    @staticmethod
    def _embedded(body: Body) -> Body:
        """A vector for each text, not of unit length, the last text first."""
        rows = [
            {"object": "embedding", "index": number, "embedding": vector(text)}
            for number, text in enumerate(body["input"])
        ]
        return {"object": "list", "model": body["model"], "data": rows[::-1], "usage": {}}

    def _scored(self, body: Body) -> Body:
        """What vLLM gives for echo, logprobs and one new token."""
        if not self.echo:
            return self._completion([{"index": 0, "text": "x", "finish_reason": "length"}], "x", "x")
        choices = []
        prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        for i, prompt in enumerate(prompts):
            spelt = [*self.split(prompt), " next"]
            values = [None, *(self.logprob(spelt, at) for at in range(1, len(spelt)))]
            logprobs = {"tokens": spelt, "token_logprobs": values}
            row = {"index": i, "text": prompt + " next", "finish_reason": "length", "logprobs": logprobs}
            choices.append(row)
        return self._completion(choices[::-1], "".join(prompts), " next" * len(choices))

    @staticmethod
    def logprob(spelt: Sequence[str], at: int) -> float:
        """The log-probability of the token at `at` after those before it."""
        return -10 * chance("logprob", *spelt[: at + 1])

    def _completion(self, choices: list[Body], prompt: str, text: str) -> Body:
        used = {"prompt_tokens": len(tokens(prompt)), "completion_tokens": len(tokens(text))}
        return {"id": "x", "object": "text_completion", "choices": choices, "usage": used}

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def error(
    status: int, message: str, code: str | None = None, param: str | None = None, headers: Any = None
) -> web.Response:
    """OpenAI's form of an error."""
    detail = {"message": message, "type": "error", "param": param, "code": code}
    return web.json_response({"error": detail}, status=status, headers=headers)


def _dumps(value: Any) -> str:
    """JSON as vLLM writes it: Chinese as UTF-8."""
    return json.dumps(value, ensure_ascii=False)


def _prompt(body: Body) -> str:
    if "messages" in body:
        return "\n".join(message["content"] for message in body["messages"])
    return body["prompt"] if isinstance(body["prompt"], str) else "\n".join(body["prompt"])


async def _main(server: FaultServer) -> None:
    await server.start()
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default, text in (
        ("port", 0, "0: any free one"),
        ("share", 0.0, "share of the attempts that fail"),
        ("max_faults", 3, "failures of one request before it is answered"),
        ("latency", 0.0, "seconds before an answer"),
        ("hang", 30.0, "seconds that a hanging answer hangs"),
        ("seed", 0, "of the faults"),
        ("key", "", "the key that is wanted; none: any"),
        ("retry_after", "0.05", "seconds"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{text} (%(default)s)"
        )
    parser.add_argument("--models", nargs="+", default=["smol"], help="their names (%(default)s)")
    parser.add_argument("--faults", nargs="+", default=FAULTS, choices=(*FAULTS, *ANSWER_FAULTS))
    asyncio.run(_main(FaultServer(**vars(parser.parse_args()))))
