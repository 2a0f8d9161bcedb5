"""Places are given in order, never more than the limit, none is lost, and the limit follows the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from pipeline.engines.base import NotSent
from pipeline.engines.limiter import Limiter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


# ---- places ----


def test_no_more_than_the_limit_are_in_and_all_get_in():
    async def main() -> None:
        limiter, most, done = Limiter(3), 0, 0

        async def visit() -> None:
            nonlocal most, done
            async with limiter.place():
                most = max(most, limiter.in_flight)
                await asyncio.sleep(0)
            done += 1

        await asyncio.gather(*(visit() for _ in range(20)))
        assert (most, done, limiter.in_flight) == (3, 20, 0)

    run(main())


def test_places_are_given_in_the_order_of_asking_and_those_who_come_again_go_first():
    async def main() -> list[str]:
        limiter, order = Limiter(1), list[str]()

        async def visit(name: str, again: bool = False) -> None:
            async with limiter.place(again=again):
                order.append(name)

        await limiter.acquire()
        names = [("a", False), ("b", False), ("c", True), ("d", True), ("e", False)]
        tasks = [asyncio.create_task(visit(*name)) for name in names]
        await settle()
        limiter.release()
        await asyncio.gather(*tasks)
        return order

    assert run(main()) == ["c", "d", "a", "b", "e"]


def test_a_place_is_given_back_when_its_holder_fails():
    async def main() -> None:
        limiter = Limiter(1)
        with pytest.raises(ZeroDivisionError):
            async with limiter.place():
                1 / 0  # noqa: B018
        assert limiter.in_flight == 0

    run(main())


# ---- cancellation ----


def test_one_who_is_cancelled_while_waiting_takes_no_place():
    async def main() -> None:
        limiter = Limiter(1)
        await limiter.acquire()
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        limiter.release()
        await second
        assert (first.cancelled(), limiter.in_flight) == (True, 1)

    run(main())


def test_a_place_given_in_the_moment_of_cancellation_goes_to_the_next():
    async def main() -> None:
        limiter = Limiter(1)
        await limiter.acquire()
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await settle()
        limiter.release()  # the first is given the place, but has not run yet
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done() and limiter.in_flight == 1

    run(main())


@pytest.mark.parametrize("seed", range(20))
def test_random_cancellations_never_leak_a_place(seed):
    async def main() -> None:
        draw, limiter = random.Random(seed), Limiter(4)

        async def visit() -> None:
            async with limiter.place(again=draw.random() < 0.3) as began:
                await asyncio.sleep(0)
                (limiter.succeeded if draw.random() < 0.7 else lambda: limiter.overloaded(began))()
            assert 0 <= limiter.in_flight <= 4

        tasks = [asyncio.create_task(visit()) for _ in range(60)]
        for task in draw.sample(tasks, 30):
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        await asyncio.gather(*(visit() for _ in range(limiter.limit)))

    run(main())


# ---- the limit ----


def test_an_overload_halves_once_for_all_that_were_sent_before_the_cut():
    clock = Clock()
    limiter = Limiter(64, clock=clock)
    for _ in range(40):
        limiter.overloaded(began=99.0)
    assert limiter.limit == 32
    clock.now += 5
    limiter.overloaded(began=100.0)  # sent before the cut, refused late
    assert limiter.limit == 32
    limiter.overloaded(began=104.0)
    assert limiter.limit == 16


def test_fast_refusals_halve_no_more_than_once_a_second():
    clock = Clock()
    limiter = Limiter(64, clock=clock)
    for _ in range(21):  # one every 0.25 s for 5 s: cuts at 0, 1, 2, 3, 4 and 5 s
        limiter.overloaded(began=clock.now)
        clock.now += 0.25
    assert limiter.limit == 1


def test_the_limit_never_falls_below_low():
    clock = Clock()
    limiter = Limiter(8, low=3, clock=clock)
    for _ in range(5):
        limiter.overloaded(began=clock.now)
        clock.now += 2
    assert limiter.limit == 3


def test_as_many_successes_as_places_add_one_place_up_to_the_option():
    limiter = Limiter(4)
    limiter.overloaded(began=float("inf"))
    assert limiter.limit == 2
    limits = []
    for _ in range(9):  # 2 successes for the third place, 3 for the fourth, then no more
        limiter.succeeded()
        limits.append(limiter.limit)
    assert limits == [2, 3, 3, 3, 4, 4, 4, 4, 4]


def test_a_cut_limit_lets_nobody_in_until_enough_have_left():
    async def main() -> None:
        limiter = Limiter(4)
        for _ in range(4):
            await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        limiter.overloaded(began=float("inf"))  # 2 places, 4 of them taken
        await settle()
        for still_waiting in (True, True, False):
            limiter.release()
            await settle()
            assert waiting.done() != still_waiting

    run(main())


def test_a_place_that_growth_adds_goes_to_one_who_waits():
    async def main() -> None:
        limiter = Limiter(2)
        limiter.overloaded(began=float("inf"))
        await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await settle()
        limiter.succeeded()
        await settle()
        assert waiting.done() and limiter.in_flight == 2

    run(main())


# ---- stop ----


def test_stop_sends_away_all_who_wait_and_come_later_but_not_those_who_are_in():
    async def main() -> None:
        limiter = Limiter(1)
        await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire(again=again)) for again in (True, False)]
        pausing = asyncio.create_task(limiter.pause(60))
        await settle()
        limiter.stop()
        for task in (*waiting, pausing):
            with pytest.raises(NotSent):
                await task
        assert limiter.in_flight == 1
        limiter.release()
        for late in (limiter.acquire(), limiter.pause(60)):
            with pytest.raises(NotSent):
                await late
        assert limiter.in_flight == 0

    run(main())


def test_a_pause_ends_by_itself_and_holds_no_place():
    async def main():
        limiter = Limiter(1)
        await limiter.pause(0.001)
        async with limiter.place():
            return limiter.in_flight

    assert run(main()) == 1
