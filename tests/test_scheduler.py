"""Answers are admitted in request order whatever the timing, and a journal replays to the same run."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from stub import StubEngine

from pipeline.engines.base import Request, Response
from pipeline.engines.job import Tally
from pipeline.engines.journal import Journal
from pipeline.engines.scheduler import Scheduler
from pipeline.errors import PipelineError, Stopped


class Scripted(StubEngine):
    """An engine like a server: it answers with its own words after a random while."""

    def __init__(
        self,
        timing: int = 0,
        batch_size: int = 1,
        groups_in_flight: int = 8,
        trouble: Callable[[int], None] = lambda call: None,
    ) -> None:
        self.batch_size, self.groups_in_flight, self.trouble = batch_size, groups_in_flight, trouble
        self.asked: list[Request] = []
        self.done: list[Request] = []
        self._timing = random.Random(timing)

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        call = len(self.asked)
        self.asked += requests
        await asyncio.sleep(self._timing.random() / 500)
        self.trouble(call)
        self.done += requests
        return [Response(f"{self.model}: {r.prompt}", "stop", len(r.prompt), 2) for r in requests]


class Count:
    """A job of `total` requests, each of which tells how many answers were in when it was built."""

    def __init__(self, total: int = 40, name: str = "ask") -> None:
        self.total, self.name = total, name
        self.built: list[tuple[int, int]] = []  # (number, answers in)
        self.admitted: list[tuple[int, Response]] = []
        self.prepared: list[tuple[int, int, int]] = []  # (first number, answers, answers in)

    def next_request(self, number: int) -> Request | None:
        if number >= self.total:
            return None
        self.built.append((number, len(self.admitted)))
        return Request(f"{self.name} {number} after {len(self.admitted)}")

    def prepare(self, first: int, responses: Sequence[Response]) -> None:
        self.prepared.append((first, len(responses), len(self.admitted)))

    def admit(self, number: int, response: Response) -> None:
        self.admitted.append((number, response))

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.admitted]


def drive(job: Count, engine: Scripted, path: Path | None = None, **how: Any) -> Tally:
    return asyncio.run(Scheduler(job, engine, Journal(path), **how).run())


@pytest.mark.parametrize("timing", range(3))
def test_answers_are_admitted_in_request_order_whatever_the_timing(timing):
    job, engine = Count(), Scripted(timing)
    tally = drive(job, engine)
    assert job.numbers == list(range(40))
    assert all(f"ask {number} " in response.text for number, response in job.admitted)
    assert [r.prompt for r in engine.done] != [r.prompt for r in engine.asked]  # they came back in disorder
    assert (tally.requests, tally.replayed, tally.failed, tally.completion_tokens) == (40, 0, 0, 80)


@pytest.mark.parametrize(("batch", "flight"), [(1, 8), (1, 1), (3, 2), (64, 1)])
def test_a_request_is_built_from_the_state_that_its_number_fixes(batch, flight):
    # group g is built once group g - flight is in, and before any later one
    job = Count()
    drive(job, Scripted(5, batch, flight))
    assert job.built == [(n, max(0, n // batch - flight + 1) * batch) for n in range(40)]


def test_timing_does_not_change_the_journal(tmp_path):
    for timing in (1, 2):
        drive(Count(), Scripted(timing), tmp_path / f"{timing}.jsonl")
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes() != b""


@pytest.mark.parametrize(("batch", "flight"), [(1, 8), (3, 2)])
def test_a_journal_replays_to_the_same_run_with_no_question_asked_again(tmp_path, batch, flight):
    path = tmp_path / "journal.jsonl"
    first, again, engine = Count(), Count(), Scripted(0, batch, flight)
    drive(first, Scripted(1, batch, flight), path)
    written = path.read_bytes()
    tally = drive(again, engine, path)
    assert (again.built, again.admitted) == (first.built, first.admitted)
    assert (tally.replayed, engine.asked, path.read_bytes()) == (40, [], written)


@pytest.mark.parametrize("lines", [1, 7, 8, 9, 39])
def test_a_run_that_was_cut_off_anywhere_ends_as_the_uninterrupted_one(tmp_path, lines):
    path = tmp_path / "journal.jsonl"
    first, again, engine = Count(), Count(), Scripted(2)
    drive(first, Scripted(1), path)
    written = path.read_bytes()
    path.write_bytes(b"".join(written.splitlines(keepends=True)[:lines]))
    drive(again, engine, path)
    assert again.admitted == first.admitted and path.read_bytes() == written
    assert len(engine.asked) == 40 - lines


def test_a_journal_of_another_program_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    drive(Count(), Scripted(), path)
    with pytest.raises(PipelineError) as caught:
        drive(Count(name="beg"), Scripted(), path)
    assert str(caught.value) == (
        "journal.jsonl: request 0 is not the one that was asked before. "
        "The program or its prompts changed: start again with --overwrite."
    )
    with pytest.raises(PipelineError, match="request 0 is not the one"):
        drive(Count(), Scripted(batch_size=2), path)  # other groups


def test_an_exception_of_the_engine_becomes_error_responses_of_its_group(tmp_path):
    def trouble(call: int) -> None:
        if call == 3:
            raise TimeoutError("no answer")

    job, path = Count(9), tmp_path / "journal.jsonl"
    tally = drive(job, Scripted(0, 3, 2, trouble), path)
    errors = [(n, r.finish_reason, r.error) for n, r in job.admitted if r.error]
    assert errors == [(n, "error", "TimeoutError: no answer") for n in (3, 4, 5)]
    assert (tally.requests, tally.failed) == (9, 3)
    assert [r.error for _, r in Journal(path).groups[1]] == ["TimeoutError: no answer"] * 3


def refuse(call: int) -> None:
    raise ConnectionError("no route")


def test_too_many_failures_stop_the_run_and_what_came_in_is_kept(tmp_path):
    # more than 20 and more than half: with every request failing that is the 21st
    job, path = Count(100), tmp_path / "journal.jsonl"
    with pytest.raises(PipelineError) as caught:
        drive(job, Scripted(trouble=refuse), path)
    assert str(caught.value) == (
        "engine scripted: 21 of 21 requests failed, the last with: ConnectionError: no route. "
        "Mend the cause, then run again with --resume."
    )
    assert job.numbers == list(range(21)) and 21 <= len(Journal(path).groups) <= 28  # 8 in flight


def test_a_run_that_stopped_for_failures_can_be_resumed_once_the_cause_is_mended(tmp_path):
    job, path = Count(100), tmp_path / "journal.jsonl"
    with pytest.raises(PipelineError):
        drive(Count(100), Scripted(trouble=refuse), path)
    tally = drive(job, Scripted(), path)
    assert tally.requests == 100 and 21 <= tally.replayed == tally.failed <= 28


@pytest.mark.parametrize(("share", "stops"), [(0.2, True), (0.4, False)])
def test_the_share_of_failures_that_stops_a_run_is_an_option(share, stops):
    def every_third(call: int) -> None:
        if call % 3 == 0:
            raise ValueError("odd")

    if not stops:
        assert drive(Count(300), Scripted(trouble=every_third), max_failed=share).failed == 100
        return
    # the 21st failure is request 60: 21 of 61 is over 0.2
    with pytest.raises(PipelineError, match="21 of 61 requests failed"):
        drive(Count(300), Scripted(trouble=every_third), max_failed=share)


def test_an_error_for_the_user_ends_the_run_as_it_is():
    def trouble(call: int) -> None:
        if call >= 2:
            raise PipelineError("model m", "it has no chat template", "Use --style completion.")

    job = Count()
    with pytest.raises(PipelineError, match="model m: it has no chat template. Use --style completion."):
        drive(job, Scripted(trouble=trouble))
    assert job.numbers == [0, 1]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_after_the_answers_in_flight(tmp_path, name):
    def trouble(call: int) -> None:
        if call == 12:
            os.kill(os.getpid(), name)

    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    job, engine, path = Count(), Scripted(trouble=trouble), tmp_path / "journal.jsonl"
    with pytest.raises(Stopped):
        drive(job, engine, path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert 12 < len(job.admitted) < 40
    # everything that was asked was answered, admitted and written
    assert len(engine.asked) == len(engine.done) == len(job.admitted) == len(Journal(path).groups)
    drive(rest := Count(), Scripted(3), path)
    drive(whole := Count(), Scripted(4))
    assert rest.admitted == whole.admitted


def test_no_signal_handler_is_left_while_the_loop_goes_on():
    async def run() -> object:
        await Scheduler(Count(), Scripted(), Journal(None)).run()
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM)
    assert asyncio.run(run()) == (before, signal.default_int_handler)


def test_a_second_request_to_stop_does_not_wait():
    told: list[int] = []
    scheduler = Scheduler(Count(), Scripted(), Journal(None), on_stop=told.append)
    scheduler._stop()
    assert scheduler.engine.stopped
    with pytest.raises(KeyboardInterrupt):
        scheduler._stop()
    assert told == [1, 2]


def test_the_tally_is_told_after_every_group():
    told: list[int] = []
    drive(Count(7), Scripted(batch_size=3), on_admit=lambda tally: told.append(tally.requests))
    assert told == [3, 6, 7]


def test_a_job_that_waits_for_answers_is_asked_again():
    class Chain(Count):
        """Every request needs the answer before it."""

        def next_request(self, number: int) -> Request | None:
            return super().next_request(number) if number == len(self.admitted) else None

    job = Chain(6)
    drive(job, Scripted(batch_size=4))
    assert job.built == [(n, n) for n in range(6)]


def test_each_group_is_prepared_just_before_it_is_admitted_replayed_ones_too(tmp_path):
    job, again, path = Count(7), Count(7), tmp_path / "journal.jsonl"
    drive(job, Scripted(batch_size=3), path)
    assert job.prepared == [(0, 3, 0), (3, 3, 3), (6, 1, 6)]
    drive(again, Scripted(batch_size=3), path)
    assert again.prepared == job.prepared


def test_a_job_with_nothing_to_ask_ends_at_once():
    assert drive(Count(0), Scripted()) == Tally()
