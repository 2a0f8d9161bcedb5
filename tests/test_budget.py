"""A budget is never exceeded, whatever is in flight; prices come from a table that is checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.base import NotSent, Request, Response, Sampling
from pipeline.engines.budget import Budget, BudgetedEngine, Usage, load_prices, worst_case
from pipeline.engines.cache import CachedEngine, RequestCache
from pipeline.errors import PipelineError

PRICES = (1.0, 2.0)  # a million tokens
ASK = Request("列举三条河流。", sampling=Sampling(max_tokens=10))  # 21 bytes: 7 tokens
ANSWER = Response("长江", "stop", 5, 2)


class Inner:
    """Answers when `finish` is called, the oldest first; counts what was sent and the most at once."""

    model = "m"

    def __init__(self, answer: Callable[[Request], Response] = lambda request: ANSWER) -> None:
        self.answer, self.stopped, self.sent = answer, 0, 0
        self.waiting: list[asyncio.Future[None]] = []

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        self.sent += len(requests)
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]
        return [self.answer(request) for request in requests]

    async def finish(self) -> None:
        self.waiting.pop(0).set_result(None)
        await settle()

    def stop(self) -> None:
        self.stopped += 1


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def engine(budget: Budget, inner: Any, spent: Usage | None = None) -> BudgetedEngine:
    return BudgetedEngine(inner, budget, spent)


def start(engine: Any, *groups: Sequence[Request]) -> list[asyncio.Task[list[Response]]]:
    return [asyncio.create_task(engine.generate(group)) for group in groups]


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 10))


# ---- the estimate ----


def test_the_worst_case_is_the_bytes_by_three_and_all_of_max_tokens():
    assert worst_case(ASK) == Usage(1, 7, 10)
    assert worst_case(replace(ASK, system="ab")) == Usage(1, 8, 10)  # 23 bytes


def test_a_request_to_score_reads_its_prompt_with_every_choice():
    # "ab" + "c" + "def" and "ab" + "" + "g": 6 and 3 bytes
    assert worst_case(Request("ab", choices=(("c", "def"), ("", "g")))) == Usage(1, 3, 0)


# ---- limits ----


def test_no_more_requests_are_sent_than_allowed_and_the_rest_are_told_why():
    async def scene() -> None:
        inner = Inner()
        budgeted = engine(Budget(max_requests=2), inner)
        tasks = start(budgeted, *[[ASK]] * 4)
        await settle()
        assert (inner.sent, inner.stopped) == (2, 0)  # the others wait for these to settle
        await inner.finish()
        await inner.finish()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[:2] == [[ANSWER]] * 2 and (inner.sent, inner.stopped) == (2, 1)
        said = "budget reached: 2 requests, 14 tokens, and the next request may go over --max-requests."
        for outcome in outcomes[2:]:
            assert isinstance(outcome, NotSent)
            assert str(outcome) == f"{said} Raise --max-requests and go on with --resume."
        with pytest.raises(NotSent):
            await budgeted.generate([ASK])

    played(scene)


def test_what_was_reserved_and_not_used_is_free_again():
    async def scene() -> None:
        inner = Inner()
        # Worst case 17, used 7: 30 tokens hold one in flight (17), then 7 + 17, then 14 + 17 is too much.
        tasks = start(engine(Budget(max_tokens_total=30), inner), *[[ASK]] * 3)
        for sent in (1, 2, 2):
            await settle()
            assert inner.sent == sent
            if inner.waiting:
                await inner.finish()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [list, list, NotSent]
        assert "--max-tokens-total" in str(outcomes[2])

    played(scene)


def test_cost_is_limited_by_the_price_of_the_worst_case():
    async def scene() -> None:
        inner = Inner()
        # Worst case 7 * 1 + 10 * 2 = 27 millionths, used 5 + 2 * 2 = 9: 18 + 27 still holds, 27 + 27 not.
        budgeted = engine(Budget(max_cost=45e-6, prices=PRICES), inner)
        tasks = start(budgeted, *[[ASK]] * 4)
        for _ in range(3):
            await settle()
            assert len(inner.waiting) == 1
            await inner.finish()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [list] * 3 + [NotSent]
        assert budgeted.budget.cost(budgeted.spent) == pytest.approx(27e-6)

    played(scene)


def test_a_large_group_waits_for_its_place_and_is_not_overtaken():
    async def scene() -> None:
        inner = Inner()
        tasks = start(engine(Budget(max_requests=4), inner), [ASK] * 3, [ASK] * 2, [ASK])
        await settle()
        assert inner.sent == 3
        await inner.finish()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [list, NotSent, NotSent] and inner.sent == 3
        assert "3 requests, 21 tokens, and the next 2 requests may go over --max-requests" in str(outcomes[1])

    played(scene)


def test_without_limits_nothing_waits():
    async def scene() -> None:
        inner = Inner()
        tasks = start(engine(Budget(), inner), *[[ASK]] * 50)
        await settle()
        assert inner.sent == 50
        for _ in range(50):
            await inner.finish()
        assert all(task.done() for task in tasks)

    played(scene)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    requests=st.integers(0, 12),
    tokens=st.integers(0, 400),
    cost=st.integers(0, 700),
)
def test_no_limit_is_ever_exceeded_in_any_order(seed, requests, tokens, cost):
    """Usage never goes over the worst case here, so neither tokens nor cost may go over theirs."""
    rng = random.Random(seed)
    budget = Budget(requests, tokens, cost * 1e-6, PRICES)

    def answer(request: Request) -> Response:
        worst = worst_case(request)
        return Response(
            "x", "stop", rng.randint(1, worst.prompt_tokens), rng.randint(0, worst.completion_tokens)
        )

    async def scene() -> None:
        inner = Inner(answer)
        budgeted = engine(budget, inner)
        groups = [[ASK] * rng.randint(1, 3) for _ in range(15)]
        tasks = start(budgeted, *groups)
        await settle()
        while inner.waiting:
            inner.waiting.insert(0, inner.waiting.pop(rng.randrange(len(inner.waiting))))
            await inner.finish()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == sorted(kinds, key=[list, NotSent].index)  # none was overtaken
        assert not budget.exceeded(budgeted.spent) and budgeted._in_flight == Usage()
        assert budgeted.spent.requests == inner.sent

    played(scene)


# ---- what counts ----


def test_answers_of_an_earlier_process_count_and_cached_ones_do_not():
    async def scene() -> None:
        inner = Inner()
        budgeted = engine(Budget(max_requests=3), inner, spent=Usage(1, 100, 20))
        budgeted.charge(ANSWER)
        budgeted.charge(replace(ANSWER, cached=True))
        budgeted.charge(Response("", "error", 0, 0, error="timeout"))
        assert budgeted.spent == Usage(3, 105, 22)
        with pytest.raises(NotSent):
            await budgeted.generate([ASK])
        assert inner.sent == 0

    played(scene)


def test_cached_answers_cost_nothing(tmp_path):
    async def scene() -> None:
        inner = Inner()
        budgeted = engine(Budget(max_requests=1), inner)
        cache = RequestCache(tmp_path / "c")
        stack = CachedEngine(budgeted, cache)
        first = start(stack, [ASK])[0]
        while not inner.waiting:
            await asyncio.sleep(0.001)
        await inner.finish()
        assert await first == [ANSWER]
        for _ in range(3):
            assert await stack.generate([ASK, ASK]) == [replace(ANSWER, cached=True)] * 2
        with pytest.raises(NotSent, match="budget reached"):
            await stack.generate([ASK, replace(ASK, prompt="another")])
        cache.close()

    played(scene)


def test_a_server_that_says_no_usage_is_charged_the_estimate():
    async def scene() -> None:
        inner = Inner(lambda request: Response("长江。", "stop", 0, 0))  # 9 bytes: 3 tokens
        budgeted = engine(Budget(max_requests=9), inner)
        task = start(budgeted, [ASK])[0]
        await settle()
        await inner.finish()
        assert await task == [Response("长江。", "stop", 7, 3)] and budgeted.spent == Usage(1, 7, 3)

    played(scene)


@pytest.mark.parametrize(("error", "counted"), [(NotSent("stopped"), 0), (RuntimeError("bug"), 1)])
def test_a_group_that_was_not_sent_is_not_charged_one_that_broke_is(error, counted):
    def fail(request: Request) -> Response:
        raise error

    async def scene() -> None:
        inner = Inner(fail)
        budgeted = engine(Budget(max_requests=9), inner)
        task = start(budgeted, [ASK])[0]
        await settle()
        await inner.finish()
        with pytest.raises(type(error)):
            await task
        assert budgeted.spent == Usage(counted) and budgeted._in_flight == Usage()

    played(scene)


def test_a_cancelled_group_frees_its_place():
    async def scene() -> None:
        inner = Inner()
        sent, waiting = start(engine(Budget(max_requests=1), inner), [ASK], [ASK])
        await settle()
        sent.cancel()
        await settle()
        assert inner.sent == 2
        inner.waiting[1].set_result(None)
        assert await waiting == [ANSWER]

    played(scene)


def test_a_stop_lets_go_of_those_that_wait():
    async def scene() -> None:
        inner = Inner()
        budgeted = engine(Budget(max_requests=1), inner)
        sent, *waiting = start(budgeted, [ASK], [ASK], [ASK])
        await settle()
        budgeted.stop()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(o) for o in outcomes] == ["the engine was told to stop"] * 2
        await inner.finish()
        assert await sent == [ANSWER] and inner.stopped == 1

    played(scene)


# ---- words and prices ----


def test_the_summary_says_what_was_spent():
    usage = Usage(12, 3_000, 456)  # 3,000 * 1 + 456 * 2 = 3,912 millionths
    assert Budget(prices=PRICES).describe(usage) == "12 requests, 3,456 tokens, 0.0039 spent"
    assert Budget().describe(Usage(1, 9, 1)) == "1 request, 10 tokens"


def test_a_limit_on_cost_needs_a_price():
    with pytest.raises(PipelineError, match=r"^--max-cost 5: the model's price is not known. .*--prices"):
        Budget(max_cost=5.0)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_prices_are_read_for_the_model(tmp_path):
    path = table(
        tmp_path, "gpt-4o-mini: {prompt: 0.15, completion: 0.60}\n通义: {prompt: 5e-1, completion: 0}\n"
    )
    assert load_prices(path, "gpt-4o-mini") == (0.15, 0.6)
    assert load_prices(path, "通义") == (0.5, 0.0)  # YAML 1.1 reads 5e-1 as text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("m: {prompt: 1, completion: 2}", "no prices for model 'gpt-4o'. Add its prices (`MODEL: {"),
        ("gpt-4o-mini: {prompt: 1, completion: 2}", "Did you mean 'gpt-4o-mini'?"),
        ("gpt-4o: {prompt: 1}", "prices.yaml: gpt-4o: got {'prompt': 1}, expected {prompt: 0.15"),
        ("gpt-4o: 3", "gpt-4o: got 3, expected"),
        ("gpt-4o: {prompt: 1, completion: 2, cached: 3}", "gpt-4o: got {"),
        ("gpt-4o: {prompt: -1, completion: 2}", "gpt-4o: prompt: got -1, expected a price of 0 or more"),
        ("gpt-4o: {prompt: 1, completion: .nan}", "gpt-4o: completion: got nan"),
        ("gpt-4o: {prompt: 1, completion: .inf}", "gpt-4o: completion: got inf"),
        ("gpt-4o: {prompt: true, completion: 1}", "gpt-4o: prompt: got True"),
        ("gpt-4o: {prompt: [1], completion: 1}", "gpt-4o: prompt: got [1]"),
        ("- 1", "prices.yaml: expected a table of models. Write one line a model"),
        ("", "expected a table of models"),
        ("a: 1\nb: [", "prices.yaml:2: not YAML ("),
    ],
)
def test_a_wrong_table_is_an_error_that_says_where(tmp_path, text, said):
    with pytest.raises(PipelineError) as caught:
        load_prices(table(tmp_path, text), "gpt-4o")
    assert said in str(caught.value)
