"""Against a real HTTP server: what is asked, what every failure becomes, and that no key gets out."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

import httpcore2
import pytest
from aiohttp import web
from fault_server import ANSWER_FAULTS, CHAT, FAULTS, TEXT, Body, FaultServer, error, tokens

from pipeline.engines.base import NotSent, Request, Response, Sampling
from pipeline.engines.openai import OpenAIEngine
from pipeline.engines.openai_echo import Echo, parse_echo
from pipeline.engines.openai_errors import Cleaner, Refused, Transient, retry_after
from pipeline.errors import PipelineError

KEY = "sk-proj-Abc123.very-secret_key"
SCHEMA = '{"type": "object", "properties": {"答": {"type": "string"}}}'


TLS = functools.cache(httpcore2.default_ssl_context)  # a new one for each client would take half the time


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(httpcore2, "default_ssl_context", TLS)


def engine_of(server: FaultServer, model: str = "smol", **how: Any) -> OpenAIEngine:
    how = {"backoff": 0.01, "longest_backoff": 0.02, "timeout": 5.0, **how}
    return OpenAIEngine(model, server.url, **how)


def use(engine: OpenAIEngine, talk: Callable[[OpenAIEngine], Coroutine[Any, Any, Any]]) -> Any:
    """What `talk` returns; the engine is opened before and closed afterwards."""

    async def main() -> Any:
        try:
            await engine.open()
            return await talk(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


def ask(engine: OpenAIEngine, *requests: Request) -> list[Response]:
    """The answers to requests that are asked all at once."""

    async def talk(engine: OpenAIEngine) -> list[Response]:
        answers = await asyncio.gather(*(engine.generate([request]) for request in requests))
        return [response for (response,) in answers]

    found: list[Response] = use(engine, talk)
    return found


def refusing(*args: Any, path: str = "", field: str = "", **more: Any) -> Callable[[str, Body], Any]:
    """Refuse what goes to `path` or has `field`, except the engine's own probes."""

    def refuse(at: str, body: Body) -> web.Response | None:
        own = body.get("max_tokens") == 1 and not (path or field)
        return None if own or not at.endswith(path) or (field and field not in body) else error(*args, **more)

    return refuse


# ---- what is asked ----


def test_a_chat_carries_its_messages_and_its_sampling():
    sampling = Sampling(0.7, 0.9, 0.5, 33, ("\n\n",), seed=123456789)
    with FaultServer() as server:
        ask(engine_of(server), Request("列举三条河流。", True, "Be brief.", sampling))
    last = server.asked[-1]
    assert last.path == CHAT
    assert last.headers["Authorization"] == f"Bearer {KEY}"
    assert last.body == {
        "model": "smol",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "列举三条河流。"},
        ],
        "temperature": 0.7,
        "top_p": 0.9,
        "frequency_penalty": 0.5,
        "max_tokens": 33,
        "stop": ["\n\n"],
        "seed": 123456789,
    }


def test_other_requests_go_to_completions():
    with FaultServer() as server:
        ask(engine_of(server), Request("Rivers:"))
    assert (server.asked[-1].path, server.asked[-1].body["prompt"]) == (TEXT, "Rivers:")


def test_chinese_text_comes_back_as_it_was_sent():
    with FaultServer(lambda body: (body["prompt"][::-1], "stop")) as server:
        (response,) = ask(engine_of(server), Request("学习：长江 😀\u2028“引号”"))
    assert response.text == "”号引“\u2028😀 江长：习学"


def test_tokens_are_counted_and_summed():
    with FaultServer(lambda body: ("one two three", "stop")) as server:
        engine = engine_of(server)
        responses = ask(engine, Request("a b"), Request("c d e"))
    assert [(r.prompt_tokens, r.completion_tokens, r.retries) for r in responses] == [(2, 3, 0), (3, 3, 0)]
    assert engine.tokens_drawn == 6


def test_a_stop_sequence_beyond_the_fourth_and_one_that_is_ignored_are_cut_here():
    stops = ("Q1", "Q2", "Q3", "Q4", "Q5")
    with FaultServer(lambda body: ("An answer.Q5 and Q1", "length")) as server:
        (response,) = ask(engine_of(server), Request("x", sampling=Sampling(stop=stops)))
    assert server.asked[-1].body["stop"] == list(stops[:4])
    assert (response.text, response.finish_reason) == ("An answer.", "stop")


def test_without_a_key_a_local_server_is_asked_with_none(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with FaultServer() as server:
        ask(engine_of(server), Request("x"))
    assert server.asked[-1].headers["Authorization"] == "Bearer none"


def test_what_the_engine_says_of_itself():
    with FaultServer() as server:
        engine = engine_of(server, window=7, license="mit")
        assert (engine.has_chat, engine.can_score) == (False, False)  # not known before it is opened
        ask(engine, Request("x"))
    told = (engine.batch_size, engine.groups_in_flight, engine.license, engine.precision)
    assert told == (1, 7, "mit", f"served by 127.0.0.1:{server.port}")
    assert (engine.has_chat, engine.has_completions, engine.can_score, engine.can_structure) == (True,) * 4


# ---- failures that pass ----


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_is_asked_again_until_it_is_answered(fault):
    with FaultServer(faults=[fault], max_faults=2) as server:

        async def talk(engine: OpenAIEngine) -> list[Response]:
            server.share = 1.0
            return await engine.generate([Request("长江", sampling=Sampling(max_tokens=9))])

        (response,) = use(engine_of(server, timeout=1.0 if fault == "hang" else 10.0), talk)
    assert (response.error, response.finish_reason, response.retries) == ("", "stop", 2)
    assert response.text == server.answer(server.asked[-1].body)[0]
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(("chat", "faults"), [(True, FAULTS), (False, [f for f in FAULTS if f != "hang"])])
def test_thirty_percent_of_faults_change_no_answer(chat, faults):
    requests = [Request(f"question {i}", chat) for i in range(100)]
    with FaultServer() as good:
        expected = ask(engine_of(good), *requests)
    with FaultServer(share=0.3, faults=faults) as bad:
        found = ask(engine_of(bad, timeout=1.0 if "hang" in faults else 10.0), *requests)
    assert set(bad.injected) == set(faults)
    assert [dataclasses.replace(r, retries=0) for r in found] == expected
    assert sum(r.retries for r in found) > 20
    assert set(bad.answered) == set(good.answered)
    if "hang" not in faults:  # else a slow machine may miss an answer
        assert set(bad.answered.values()) == {1}


def test_what_keeps_failing_is_a_recorded_failure():
    with FaultServer(refuse=refusing(502, "Bad gateway")) as server:
        (response,) = ask(engine_of(server, max_retries=3), Request("x"))
    assert (response.finish_reason, response.error, response.retries) == (
        "error",
        "no answer: 502: Bad gateway",
        3,
    )
    assert server.prompts().count("x") == 4


@pytest.mark.parametrize(
    "headers",
    [
        lambda: {"Retry-After": "0.3"},
        lambda: {"retry-after-ms": "300", "Retry-After": "60"},
        lambda: {"Retry-After": formatdate(time.time() + 1.3, usegmt=True)},  # dates have whole seconds
    ],
)
def test_the_wait_that_the_server_asks_for_is_kept(headers):
    def refuse(path: str, body: Body) -> web.Response | None:
        return error(429, "wait", headers=headers()) if server.prompts() == ["x"] else None

    with FaultServer() as server:
        engine = engine_of(server)

        async def talk(engine: OpenAIEngine) -> list[Response]:
            server.asked.clear()
            server.refuse = refuse
            return await engine.generate([Request("x")])

        (response,) = use(engine, talk)
    first, second = (asked.at for asked in server.asked)
    assert response.retries == 1
    assert 0.25 <= second - first < 20  # of the 60 in one of them


def test_a_server_that_asks_for_hours_ends_the_run():
    refuse = refusing(429, "daily limit", headers={"Retry-After": "7200"})
    asks = pytest.raises(PipelineError, match=r"asks to wait 7200 seconds \(429: daily limit\)")
    with FaultServer(refuse=refuse) as server, asks:
        ask(engine_of(server), Request("x"))


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert 58 < (retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) or 0) <= 60
    assert retry_after({"retry-after": "-3"}) == 0
    for value in ("", "soon", "nan", "inf"):
        assert retry_after({"retry-after": value}) is None


# ---- concurrency ----


def test_no_more_than_the_limit_are_in_flight_and_it_is_used_in_full():
    with FaultServer(latency=0.02) as server:
        ask(engine_of(server, concurrency=5), *(Request(str(i)) for i in range(40)))
    assert server.most_in_flight == 5


def test_the_limit_shrinks_when_the_server_has_too_much_to_do():
    def refuse(path: str, body: Body) -> web.Response | None:
        return error(429, "too many") if server.in_flight > 4 else None

    with FaultServer(latency=0.02, refuse=refuse) as server:
        engine = engine_of(server, concurrency=16, max_retries=10**6)  # a cut limit is not cut again for HOLD
        responses = ask(engine, *(Request(str(i)) for i in range(60)))
    assert not any(r.error for r in responses)
    assert engine.server.limiter.limit <= 8 + 60 // 8
    assert engine.server.limiter.in_flight == 0


# ---- failures that do not pass ----


def test_a_bad_key_is_refused_by_the_name_of_its_variable():
    with FaultServer(key="another") as server, pytest.raises(PipelineError) as refused:
        ask(engine_of(server), Request("x"))
    assert "environment variable OPENAI_API_KEY: " in str(refused.value)
    assert "refuses the key (401)" in str(refused.value)


def test_an_unknown_model_is_refused_with_those_that_there_are():
    with FaultServer(models=["smol", "qwen-长"]) as server, pytest.raises(PipelineError) as refused:
        ask(engine_of(server, "gpt"), Request("x"))
    assert "model gpt" in str(refused.value)
    assert "it has: smol, qwen-长" in str(refused.value)


def test_a_server_of_something_else_is_refused_with_the_usual_address():
    with FaultServer() as server, pytest.raises(PipelineError, match="usually ends in /v1"):
        ask(OpenAIEngine("smol", server.url.removesuffix("/v1")), Request("x"))


def test_a_server_that_is_not_there_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PipelineError, match=rf"server 127.0.0.1:{port}: not reachable .*Start it"):
        ask(OpenAIEngine("smol", f"http://127.0.0.1:{port}/v1"), Request("x"))


def test_a_server_that_goes_away_ends_the_run_after_the_retries():
    server = FaultServer()
    server.__enter__()

    async def talk(engine: OpenAIEngine) -> None:
        await asyncio.to_thread(server.__exit__, None, None, None)
        await engine.generate([Request("x")])

    with pytest.raises(PipelineError, match="not reachable .*Start it, then go on with --resume"):
        use(engine_of(server, max_retries=2), talk)


OVERFLOWS = [
    ("This model's maximum context length is 2048 tokens. However, you requested 5000.", None),
    ("Too many.", "context_length_exceeded"),
    ("The decoder prompt (length 9) is longer than the maximum model length of 8.", None),
]


@pytest.mark.parametrize(("said", "code"), OVERFLOWS)
def test_a_context_overflow_is_a_recorded_failure(said, code):
    with FaultServer(refuse=refusing(400, said, code)) as server:
        (response,) = ask(engine_of(server), Request("x"))
    assert response.error == f"context overflow: {said.rstrip('.')}"
    assert (response.finish_reason, server.prompts().count("x")) == ("error", 1)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_another_refusal_is_recorded_with_what_the_server_says(status):
    with FaultServer(refuse=refusing(status, "the prompt is odd")) as server:
        (response,) = ask(engine_of(server), Request("x"))
    assert response == Response("", "error", 0, 0, error=f"{status}: the prompt is odd")


def test_a_filtered_prompt_and_a_filtered_answer_are_recorded_alike():
    with FaultServer(refuse=refusing(400, "It was flagged", "content_policy_violation")) as server:
        (prompt,) = ask(engine_of(server), Request("x"))
    with FaultServer(share=1.0, faults=["content_filter"], max_faults=1) as server:
        (answer,) = ask(engine_of(server), Request("x"))
    for response in (prompt, answer):
        assert (response.text, response.finish_reason) == ("", "content_filter")
        assert response.error == "content filter"


def test_an_answer_that_is_cut_off_says_so():
    with FaultServer(share=1.0, faults=["length"], max_faults=1) as server:
        (response,) = ask(engine_of(server), Request("x"))
    assert (response.finish_reason, response.error, "length" in ANSWER_FAULTS) == ("length", "", True)


@pytest.mark.parametrize(("status", "code"), [(429, "insufficient_quota"), (402, None)])
def test_an_empty_account_ends_the_run(status, code):
    refuse = refusing(status, "You exceeded your current quota", code)
    ends = pytest.raises(PipelineError, match="no credit left .* --resume")
    with FaultServer(refuse=refuse) as server, ends:
        ask(engine_of(server), Request("x"))
    assert server.prompts().count("x") == 1


# ---- what a server cannot do ----


def test_a_model_without_chat_is_found_out_and_a_chat_refused():
    without = refusing(400, "default chat template is no longer allowed", path=CHAT)
    with FaultServer(refuse=without) as server:
        engine = engine_of(server)
        with pytest.raises(PipelineError, match="answers no chats for it. Use --style completion"):
            ask(engine, Request("x", chat=True))
    assert (engine.has_chat, engine.has_completions, engine.can_score) == (False, True, True)


def test_a_model_that_only_chats_is_found_out_and_a_completion_refused():
    with FaultServer(refuse=refusing(404, "This is a chat model", path=TEXT)) as server:
        engine = engine_of(server)
        with pytest.raises(PipelineError, match="answers no completions for it. Use --style chat"):
            ask(engine, Request("x"))
    assert (engine.has_chat, engine.has_completions, engine.can_score) == (True, False, False)


NEEDS_ANOTHER_NAME = (
    "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
)


@pytest.mark.parametrize("param", ["max_tokens", None])
def test_a_model_that_wants_max_completion_tokens_gets_them(param, caplog):
    refuse = refusing(400, NEEDS_ANOTHER_NAME, "unsupported_parameter", param, path=CHAT, field="max_tokens")
    with FaultServer(refuse=refuse) as server, caplog.at_level(logging.WARNING):
        responses = ask(engine_of(server), *(Request(str(i), True) for i in range(9)))
    assert not any(r.error or r.retries for r in responses)
    assert server.asked[-1].body["max_completion_tokens"] == 256
    refused = [asked for asked in server.asked if asked.path == CHAT and "max_tokens" in asked.body]
    said = [record for record in caplog.records if record.name.startswith("pipeline")]
    assert (len(refused), len(said)) == (1, 1)  # found out by the first probe


PICKY = [
    ("temperature", "Unsupported value: 'temperature' does not support 0. Only the default (1) is.", 400),
    ("seed", "Unrecognized request argument supplied: seed", 400),
    ("top_p", "Unexpected fields in the request: {'top_p'}", 422),
]


@pytest.mark.parametrize(("field", "said", "status"), PICKY)
def test_a_parameter_that_is_refused_is_left_out_from_then_on(field, said, status):
    with FaultServer(refuse=refusing(status, said, field=field)) as server:
        (response,) = ask(engine_of(server), Request("x", True))
    assert not response.error
    assert field not in server.asked[-1].body and "max_tokens" in server.asked[-1].body


def test_a_parameter_that_was_not_even_sent_is_no_reason_to_try_for_ever():
    with FaultServer(refuse=refusing(400, "Unsupported parameter: 'stop'")) as server:
        (response,) = ask(engine_of(server), Request("x"))
    assert response.error == "400: Unsupported parameter: 'stop'"


# ---- structured output ----


def test_a_schema_is_sent_and_left_out_once_it_was_refused():
    request = Request("x", True, schema=SCHEMA)
    with FaultServer() as server:
        ask(engine_of(server), request)
    assert server.asked[-1].body["response_format"]["json_schema"]["schema"]["properties"] == {
        "答": {"type": "string"}
    }
    refuse = refusing(
        400, "'response_format' of type 'json_schema' is not supported", field="response_format"
    )
    with FaultServer(refuse=refuse) as server:
        engine = engine_of(server)
        responses = ask(engine, request, request)
    assert not any(r.error for r in responses) and not engine.can_structure
    assert "response_format" not in server.asked[-1].body


def test_a_schema_of_a_text_request_goes_as_vllm_takes_it():
    with FaultServer() as server:
        ask(engine_of(server), Request("x", schema=SCHEMA))
    assert server.asked[-1].body["structured_outputs"]["json"]["type"] == "object"


# ---- scoring ----


def expected(head: str, continuation: str) -> float:
    """By hand: the sum over the continuation's tokens where no token crosses the border."""
    spelt = tokens(head) + tokens(continuation)
    return round(sum(FaultServer.logprob(spelt, i) for i in range(len(tokens(head)), len(spelt))), 4)


CHOICES = (("", " yes indeed"), (" 河流：", "长江"), (" and more", " no"))


def test_choices_are_scored_after_the_prompt_and_their_contexts():
    with FaultServer() as server:
        engine = engine_of(server)
        (response,) = ask(engine, Request("Is it?", choices=CHOICES))
    assert response.finish_reason == "score"
    assert response.choice_logprobs == tuple(expected("Is it?" + c, more) for c, more in CHOICES)
    assert server.asked[-1].body["prompt"] == ["Is it?" + c + more for c, more in CHOICES]
    assert response.completion_tokens == engine.tokens_drawn == 3  # one drawn token for each, which is paid


def test_tokens_that_do_not_spell_their_text_are_told_from_those_of_the_context():
    """A tokenizer of bytes: three unreadable pieces for each Chinese character, after a start token."""

    def pieces(text: str) -> list[str]:
        return ["<s>"] + [p for t in tokens(text) for p in (["\ufffd"] * 3 if t > "\u4e00" else [t])]

    with FaultServer(split=pieces) as server:
        (response,) = ask(engine_of(server), Request("问：", choices=(("", "长江"), ("", " no"))))
    assert len(server.asked) - 3 == 2  # after the probes: the texts, then their heads
    whole = pieces("问：长江")
    by_hand = sum(FaultServer.logprob(whole, i) for i in range(len(pieces("问：")), len(whole)))
    assert response.choice_logprobs[0] == round(by_hand, 4)


def test_a_token_across_the_border_is_the_continuations():
    echo = Echo(("Is", " it:", " yes", "!"), (0.0, -1.0, -2.0, -4.0))
    assert echo.after("Is it: yes!", "yes!") == -6.0
    assert echo.after("Is it: yes!", " yes!") == -6.0
    assert echo.after("Is it; yes!", " yes!") is None
    assert echo.beyond(Echo(("Is", " it:", " "), (0.0, -1.0, -9.0))) == -6.0
    assert echo.beyond(Echo((), ())) == -7.0
    assert Echo(("<s>", "ab", "c"), (0.0, -1.0, -2.0)).after("abc", "c") == -2.0


@pytest.mark.parametrize("refuse", [None, refusing(400, "prompt must be a string.", field="echo")])
def test_a_server_that_does_not_echo_cannot_score(refuse):
    with FaultServer(echo=False, refuse=refuse or (lambda path, body: None)) as server:
        engine = engine_of(server)
        ask(engine, Request("x"))
    assert (engine.has_completions, engine.can_score) == (True, False)


def test_an_empty_prompt_and_a_chat_cannot_be_scored():
    with FaultServer() as server:
        empty, chat = ask(
            engine_of(server), Request("", choices=(("", "a"),)), Request("x", True, choices=(("", "a"),))
        )
    assert empty.error == "the prompt is empty"
    assert chat.error.startswith("choices cannot be compared in a chat")


def test_malformed_scores_are_asked_for_again():
    row = {"index": 0, "logprobs": {"tokens": ["a", "b"], "token_logprobs": [None]}}
    for body in ([], {}, {"choices": []}, {"choices": [row]}, {"choices": [{"index": 0, "logprobs": [1]}]}):
        with pytest.raises(Transient):
            parse_echo(body, 1)
    for choices in ([{"index": 0}], [row, row]):
        with pytest.raises(Refused):
            parse_echo({"choices": choices}, 1)


def test_a_server_that_breaks_down_on_one_way_of_asking_is_used_without_it():
    with FaultServer(refuse=refusing(500, "Internal error", path=CHAT)) as server:
        engine = engine_of(server, max_retries=2)
        (response,) = ask(engine, Request("x"))
    assert (engine.has_chat, engine.has_completions, response.error) == (False, True, "")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_does_not_list_its_models_is_used_all_the_same(status, monkeypatch):
    """A restricted key gets 403, an older server has no list, `transformers serve` without a cache breaks."""

    async def fail(self: FaultServer, request: web.Request) -> web.Response:
        return error(status, "no list")

    monkeypatch.setattr(FaultServer, "_models", fail)
    with FaultServer() as server:
        (response,) = ask(engine_of(server), Request("x"))
        assert not response.error
        with pytest.raises(PipelineError, match="model gpt: .* does not have it .*Check --model"):
            ask(engine_of(server, "gpt"), Request("x"))


# ---- stopping ----


def test_stop_finishes_what_is_in_flight_and_sends_nothing_more():
    with FaultServer() as server:

        async def talk(engine: OpenAIEngine) -> list[Any]:
            server.latency = 0.7
            tasks = [asyncio.create_task(engine.generate([Request(str(i))])) for i in range(6)]
            await asyncio.sleep(0.05)
            engine.stop()
            return await asyncio.gather(*tasks, engine.generate([Request("late")]), return_exceptions=True)

        found = use(engine_of(server, concurrency=2), talk)
    assert [type(f) for f in found] == [list, list, *[NotSent] * 5]
    assert server.prompts()[3:] == ["0", "1"]


def test_stop_ends_the_wait_before_a_retry():
    with FaultServer(refuse=refusing(429, "wait", headers={"Retry-After": "60"})) as server:

        async def talk(engine: OpenAIEngine) -> None:
            task = asyncio.create_task(engine.generate([Request("x")]))
            await asyncio.sleep(0.1)
            engine.stop()
            await asyncio.wait_for(task, 5)

        with pytest.raises(NotSent):
            use(engine_of(server), talk)


def test_a_cancelled_request_gives_its_place_back():
    with FaultServer() as server:

        async def talk(engine: OpenAIEngine) -> int:
            server.latency = 1.0
            task = asyncio.create_task(engine.generate([Request("x")]))
            await asyncio.sleep(0.05)
            busy = engine.server.limiter.in_flight
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return busy

        engine = engine_of(server, concurrency=1)
        assert (use(engine, talk), engine.server.limiter.in_flight) == (1, 0)


# ---- the key ----


ECHOED = f'{{"Authorization": "Bearer {KEY}"}} and {KEY}, sk-****cdef'


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500])
def test_the_key_is_in_no_error_whatever_the_server_says(status, caplog):
    with FaultServer(refuse=refusing(status, ECHOED)) as server, caplog.at_level(logging.DEBUG):
        engine = engine_of(server, max_retries=1)
        try:
            said = ask(engine, Request("x"))[0].error
        except PipelineError as refused:
            said = str(refused)
            assert refused.__suppress_context__ and refused.__cause__ is None
    assert said and "sk-" not in said
    assert KEY not in caplog.text
    assert KEY not in repr(engine) + repr(engine.server) + repr(engine.server.clean) + engine.precision


def test_keys_are_taken_out_of_texts():
    clean = Cleaner("hunter2!")
    assert clean("my hunter2! is\n out") == "my *** is out"
    assert clean("Incorrect key: sk-ab*****yz.") == "Incorrect key: ***"
    assert clean("'authorization': 'Bearer abc'}") == "'***}"
    assert Cleaner("")("a bearer of bad news, task-1") == "a *** bad news, task-1"
    assert len(clean("x" * 999)) == 300


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://host/v1", "http:///v1", "nonsense"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(PipelineError, match="--base-url: not an address"):
        OpenAIEngine("m", url)


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@host/v1", "http://host/v1?key=hunter2", "http://h/#hunter2"]
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(url):
    with pytest.raises(PipelineError) as refused:
        OpenAIEngine("m", url)
    assert "do not belong" in str(refused.value) and "hunter2" not in str(refused.value)


def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown():
    with pytest.raises(PipelineError) as refused:
        OpenAIEngine("m", api_key_env=KEY)
    assert "--api-key-env" in str(refused.value) and "sk-" not in str(refused.value)


def test_openai_itself_wants_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(PipelineError, match="environment variable OPENAI_API_KEY: it is not set"):
        OpenAIEngine("m")


def test_a_key_with_other_characters_is_refused(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-学习")
    with pytest.raises(PipelineError, match="environment variable MY_KEY: it holds characters") as refused:
        OpenAIEngine("m", api_key_env="MY_KEY")
    assert "sk-" not in str(refused.value)


def test_a_missing_package_is_said_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(PipelineError, match="package openai is not installed. Run: pip install openai"):
        OpenAIEngine("m", "http://127.0.0.1:1/v1")
