"""One contract for every engine, held against the real ones: what a stage may rely on whatever answers it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from functools import cache

import contract
import pytest
from contract import ENGINES, Subject
from transformers import AutoTokenizer

from pipeline.engines.base import NotSent, Request, Response, Sampling
from pipeline.engines.embedded import EmbeddedEngine

pytestmark = pytest.mark.slow

RIVERS = "Three rivers of Europe are the Danube,"
PROMPTS = (RIVERS, "The capital of France is", "One, two, three, four,", "def add(a, b):\n    return")
CHINESE = "任务：用一句话介绍长江。\n答案：长江是"


@pytest.fixture(scope="module", params=ENGINES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with ENGINES[request.param](tmp_path_factory.mktemp(request.param)) as subject:
        yield subject
    assert contract.descendants() == []


@cache
def reference() -> EmbeddedEngine:
    """The embedded engine in fp32: what the others are compared with."""
    from test_embedded import load

    return load(contract.model_folder(), batch_size=8, slots=8)


@cache
def tokenizer():
    return AutoTokenizer.from_pretrained(contract.model_folder())


def count(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False).input_ids)


def expected(*requests: Request) -> list[Response]:
    return asyncio.run(reference().generate(requests))


def complete(prompt: str, **sampling: object) -> Request:
    return Request(prompt, sampling=Sampling(**{"max_tokens": 8, **sampling}))


def test_every_request_is_answered_and_in_order(subject):
    answers = subject.ask(*(complete(f"{RIVERS} {'x ' * i}and", max_tokens=3) for i in range(6)))
    assert [a.prompt_tokens for a in answers] == [count(f"{RIVERS} {'x ' * i}and") for i in range(6)]
    assert not any(a.error for a in answers)


def test_a_greedy_answer_is_the_same_again_and_among_others(subject):
    alone = [subject.ask(complete(prompt))[0] for prompt in PROMPTS]
    assert [subject.ask(complete(prompt))[0].text for prompt in PROMPTS[:2]] == [a.text for a in alone[:2]]
    together = subject.ask(*map(complete, PROMPTS))
    # bf16 rounds differently in a larger batch, where two tokens are about as likely
    same = sum(a.text[:12] == b.text[:12] for a, b in zip(alone, together, strict=True))
    assert same >= 3


def test_greedy_answers_begin_as_those_of_the_embedded_engine_in_fp32(subject):
    theirs = subject.ask(*map(complete, PROMPTS))
    ours = expected(*map(complete, PROMPTS))
    shared = [
        len(os.path.commonprefix([tokenizer()(a.text).input_ids, tokenizer()(b.text).input_ids]))
        for a, b in zip(ours, theirs, strict=True)
    ]
    print(f"{subject.name}: shared tokens {shared}")
    assert sorted(shared)[1] >= 4  # bf16 may turn one of four early


def test_a_chat_is_answered_as_the_embedded_engine_does(subject):
    request = Request(
        "What is the capital of France?", chat=True, system="Be brief.", sampling=Sampling(max_tokens=40)
    )
    (answer,) = subject.ask(request)
    assert "Paris" in answer.text and answer.finish_reason == "stop" and not answer.error
    assert "<|im_" not in answer.text
    # the template rendered once: its special tokens neither doubled nor spelt out
    assert answer.prompt_tokens == expected(request)[0].prompt_tokens


def test_the_same_seed_gives_the_same_text_and_another_seed_another(subject):
    wild = {"temperature": 1.0, "max_tokens": 20}
    first, again, other = (subject.ask(complete(RIVERS, **wild, seed=seed))[0].text for seed in (1, 1, 2))
    assert first == again != other


def test_max_tokens_cuts_and_says_so(subject):
    for limit in (1, 7):
        (answer,) = subject.ask(complete(PROMPTS[2], max_tokens=limit))
        assert (answer.finish_reason, answer.completion_tokens) == ("length", limit)
        assert 0 < count(answer.text) <= limit


def test_a_stop_string_is_cut_off(subject):
    stops = (" seven", "never there")
    (answer,) = subject.ask(complete("One, two, three, four,", max_tokens=24, stop=stops))
    assert (answer.text, answer.finish_reason) == (" five, six,", "stop")


def test_more_stops_than_openai_takes_all_count(subject):
    stops = ("@1", "@2", "@3", "@4", " seven")
    (answer,) = subject.ask(complete("One, two, three, four,", max_tokens=24, stop=stops))
    assert (answer.text, answer.finish_reason) == (" five, six,", "stop")


def test_chinese_goes_through_unbroken(subject):
    answers = subject.ask(*(complete(CHINESE, max_tokens=n, temperature=0.7, seed=5) for n in range(6, 14)))
    ends = [a.text.endswith("\N{REPLACEMENT CHARACTER}") for a in answers]
    print(
        f"{subject.name}: {sum(ends)} of {len(ends)} texts end in U+FFFD: {[a.text for a in answers][-1]!r}"
    )
    assert not any(a.error for a in answers)
    # SmolLM2 writes a Chinese character in one to three tokens: only the end may be cut inside one
    assert all("\N{REPLACEMENT CHARACTER}" not in a.text.rstrip("\N{REPLACEMENT CHARACTER}") for a in answers)
    assert {a.prompt_tokens for a in answers} == {count(CHINESE)}
    assert any("\u4e00" <= c <= "\u9fff" for a in answers for c in a.text)


def test_what_does_not_fit_the_context_is_an_error(subject):
    if subject.served_by_transformers:
        pytest.skip("transformers serve does not check: it runs past the model's positions")
    over, fits = subject.ask(complete("x " * 9000), complete(RIVERS))
    assert over.finish_reason == "error" and over.error.startswith("context overflow: ")
    assert not fits.error


def test_scores_are_those_of_the_embedded_engine(subject):
    if not subject.engine.can_score:
        pytest.skip("it does not score")
    choices = (("", " Paris"), ("", " banana"), (" the city of", " Paris, of course"))
    request = Request("The capital of France is", choices=choices)
    (answer,) = subject.ask(request)
    (ours,) = expected(request)
    print(f"{subject.name}: {answer.choice_logprobs}, embedded fp32 {ours.choice_logprobs}")
    assert answer.finish_reason == "score" and answer.text == ""
    paris, banana, _ = answer.choice_logprobs
    assert paris > banana
    # relative to the length: bf16 keeps 8 bits, and a token of log-likelihood -17 is known to 0.1
    assert answer.choice_logprobs == pytest.approx(ours.choice_logprobs, abs=0.3)


def test_sixty_four_requests_at_once_are_all_answered(subject):
    requests = [complete(f"The number {i} is", max_tokens=2, seed=i) for i in range(64)]
    began, before = time.monotonic(), subject.engine.tokens_drawn
    answers = subject.ask(*requests)
    seconds = time.monotonic() - began
    print(f"{subject.name}: {64 * 2 / seconds:.0f} tokens/s in short answers")
    assert all(a.text and not a.error and a.completion_tokens <= 2 for a in answers)
    assert subject.engine.tokens_drawn - before >= sum(a.completion_tokens for a in answers)


def test_a_cancelled_request_leaves_the_engine_working(subject):
    async def give_up() -> Response:
        task = asyncio.ensure_future(subject.engine.generate([complete(RIVERS, max_tokens=60)]))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await subject.engine.generate([complete(RIVERS)]))[0]

    assert subject.runner.run(give_up()).completion_tokens == 8


# The next one leaves the engine stopped, so it comes last of those with `subject`.
def test_after_stop_what_waits_is_not_sent_and_what_is_in_flight_is_finished(subject):
    engine, places = (subject.few, contract.FEW) if subject.few else (subject.engine, subject.places)

    async def stop_half_way() -> list[object]:
        tasks = [
            asyncio.ensure_future(engine.generate([complete(RIVERS, seed=i)])) for i in range(places + 8)
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        engine.stop()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = subject.runner.run(stop_half_way())
    answered = [end for end in ends if isinstance(end, list)]
    refused = [end for end in ends if isinstance(end, NotSent)]
    assert answered and refused and len(answered) + len(refused) == len(ends)
    assert not any(answer.error for (answer,) in answered)
    with pytest.raises(NotSent):
        subject.runner.run(engine.generate([complete(RIVERS)]))
