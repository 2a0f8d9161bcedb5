"""How runs end; the same seed gives the same lists, and so does a journal that was cut anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rule_engine import TARGETS, Scripted, assert_books_balance, drive, mixed

from pipeline.engines.base import Request, Response
from pipeline.stages.pool import Pool


def test_chat_prompts_and_an_engine_that_cannot_score_reach_the_target_too() -> None:
    made = drive(Scripted(can_score=False), style="chat", answer_style="chat")
    assert Counter(e.language for e in made.kept) == TARGETS
    assert {e.is_classification for e in made.kept} == {True, False}
    assert all("/classify.jinja@" in e.provenance["prompts"]["classify"] for e in made.kept)
    assert_books_balance(made)


def test_failed_requests_are_dropped_as_engine_errors_and_counted() -> None:
    made = mixed()[0]
    errors = [d for d in made.dropped if d["reason"] == "engine_error"]
    assert errors and {d["evidence"] for d in errors} == {"the server fell over"}
    assert {d["unit"] for d in errors} == {"request", "candidate", "instance"}
    steps = {"classify", "labels", "input", "labelled_input", "answer"}
    assert {d["stage"] for d in errors} <= {"propose", *steps}
    # a failed proposal has no candidate yet: 3 proposals a request never came to be
    requests = [d for d in errors if d["unit"] == "request"]
    assert made.tally.failed == len(requests) == made.job.requests.dropped.total()
    failed_proposals = [d for d in requests if d["stage"] == "propose"]
    proposals = sum(p.proposals for p in made.job.pools)
    came = {d["id"].split("-")[1] for d in made.dropped if d["unit"] == "candidate"}
    came |= {e.id.split("-")[1] for e in made.kept}
    assert len(failed_proposals) == proposals - len(came)
    assert len(errors) == 2 * len(requests) - len(failed_proposals)  # the rest had a candidate or an instance


def test_an_engine_that_raises_fails_its_group_and_the_run_goes_on() -> None:
    class Raising(Scripted):
        calls = 0

        async def generate(self, requests: Sequence[Request]) -> list[Response]:
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("no route to host")
            return await super().generate(requests)

    made = drive(Raising())
    assert Counter(e.language for e in made.kept) == TARGETS
    assert 0 < made.tally.failed <= Raising.batch_size
    evidence = {d["evidence"] for d in made.dropped if d["reason"] == "engine_error"}
    assert evidence <= {"RuntimeError: no route to host"}
    assert_books_balance(made)


def test_the_limit_on_proposals_ends_the_run_with_fewer_examples() -> None:
    made = drive(max_proposals=3, wanted={"en": 50, "zh": 50})
    assert [p.proposals for p in made.job.pools] == [3, 3]
    assert all(0 < p.kept < 50 for p in made.job.pools)
    assert not made.reasons["not_needed"]
    assert_books_balance(made)


def test_an_engine_that_writes_nothing_ends_the_run_without_examples() -> None:
    class Silent(Scripted):
        def answer(self, request: Request) -> Response:
            return Response("", "stop", 1, 0)

    made = drive(Silent(), max_proposals=5)
    assert made.kept == made.dropped == [] and made.tally.requests == 10
    assert_books_balance(made)


def test_what_comes_after_the_goal_is_closed_as_not_needed() -> None:
    made = drive(Scripted(batch_size=32), wanted={"en": 2, "zh": 2}, num_proposals=8)
    assert len(made.kept) == 4
    late = [d for d in made.dropped if d["reason"] == "not_needed"]
    assert late and {d["evidence"] for d in late} == {"2 of 2 examples were kept before its turn came"}
    assert_books_balance(made)


def test_the_same_seed_makes_the_same_lists_however_slow_the_answers_are() -> None:
    again = drive(Scripted(bad=0.3, failing=0.1, slow=True))
    assert again.lines == mixed()[0].lines


def test_another_seed_makes_other_lists() -> None:
    other = drive(Scripted(bad=0.3, failing=0.1), seed=1)
    mine, theirs = ({e.instruction for e in made.kept} for made in (mixed()[0], other))
    assert len(mine & theirs) < len(mine) / 2
    assert Counter(e.language for e in other.kept) == TARGETS


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.77, 0.99, 1.0])
def test_a_run_cut_anywhere_and_resumed_makes_the_same_lists(tmp_path: Path, share: float) -> None:
    whole, journal = mixed()
    data, copy = journal.read_bytes(), tmp_path / "journal.jsonl"
    copy.write_bytes(data[: int(share * len(data))])  # most cuts fall inside a line and inside a group
    resumed = drive(Scripted(bad=0.3, failing=0.1), copy)
    assert resumed.lines == whole.lines
    assert resumed.job.candidates == whole.job.candidates and resumed.job.instances == whole.job.instances
    # what the journal held was not asked again, and the journal is the whole one again
    assert len(resumed.engine.asked) == resumed.tally.requests - resumed.tally.replayed
    assert resumed.tally.requests == whole.tally.requests
    assert resumed.tally.replayed >= share * whole.tally.requests * 0.8 - Scripted.batch_size
    assert copy.read_bytes() == data


def test_a_pool_works_on_the_language_that_is_furthest_from_its_goal() -> None:
    made = drive(Scripted(batch_size=1, groups_in_flight=1), wanted={"en": 20, "zh": 5})
    halfway = [e.language for e in made.kept][:12]
    # 4 to 1, give or take what one task brings
    assert 1 <= halfway.count("zh") <= 5
    assert all(isinstance(p, Pool) and p.full for p in made.job.pools)


@pytest.mark.parametrize("stage", ["labels", "labelled_input", "input", "answer"])
def test_a_template_token_in_an_answer_reaches_neither_a_prompt_nor_the_dataset(stage: str) -> None:
    class Leaking(Scripted):
        def answer(self, request: Request) -> Response:
            found = super().answer(request)
            leak = self.asked[-1][0] == stage
            return replace(found, text=f"{found.text} <|im_start|>system") if leak else found

    made = drive(Leaking(), max_proposals=30)
    dropped = {d["stage"] for d in made.dropped if d["reason"] == "special_token"}
    assert dropped == {stage}
    assert not any("im_start" in value for asked in made.engine.asked for value in asked)
    assert not any("im_start" in line for line in made.lines[0])
    assert_books_balance(made)
