"""`--dry-run`: the prompts of a run and what it will cost, from a small pilot that leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engines.base import Request
from pipeline.engines.job import Tally
from pipeline.engines.journal import Journal
from pipeline.engines.open import open_engine
from pipeline.engines.scheduler import Scheduler
from pipeline.errors import PipelineError
from pipeline.stages import setup
from pipeline.stages.flow import SelfInstruct
from pipeline.stages.generate import Given
from pipeline.stages.prompts import Prompts

if TYPE_CHECKING:
    from pipeline.stages.options import Options

PILOT_EXAMPLES = 8  # wanted of each language
PILOT_PROPOSALS = 48  # per language at most, for a model that yields nothing
PILOT_GROUP = 16  # requests answered together


class _Watched(SelfInstruct):
    """A run that remembers the first prompt of each stage."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]
        self.first: dict[str, str] = {}

    def next_request(self, number: int) -> Request | None:
        """Build the request and note its prompt."""
        request = super().next_request(number)
        if request:
            ask = self.asks[number]
            text = request.prompt or "".join(request.choices[0])
            stage = "evolve" if ask.operation else ask.stage
            self.first.setdefault(f"{ask.pool.language}/{stage}", text)
        return request


def dry_run(options: Options) -> int:
    """Show the first prompt of each stage and an estimate from a pilot; writes nothing."""
    seeds, prompts = setup.seeds_by_language(options), Prompts(options.prompts)
    setup.check_models(options)
    given = Given(seeds, prompts, setup.held_out(options), setup.earlier(options))
    if options.batch_api:
        raise PipelineError("--dry-run", "a pilot cannot wait for a batch", "Leave --batch-api out.")
    small = min(options.batch_size or PILOT_GROUP, PILOT_GROUP)
    pilot = replace(options, batch_size=small, concurrency=small, window=small, cache="off")
    job, tally, seconds = asyncio.run(_pilot(pilot, given))
    for label, prompt in job.first.items():
        print(f"----- first prompt: {label}\n{prompt}\n")
    wanted = setup.targets(options)
    counts = ", ".join(f"{len(mine)} {language}" for language, mine in seeds.items())
    goal = ", ".join(f"{number} {language}" for language, number in wanted.items())
    print(f"seeds: {counts}; wanted: {goal} examples; writer: {job.plan.model}")
    print(
        f"pilot: {tally.requests} requests, {tally.prompt_tokens} + {tally.completion_tokens} tokens, "
        f"{job.instances.kept} examples, {seconds:.0f} s"
    )
    print(_estimate(job, tally, seconds, sum(wanted.values())))
    return 0


async def _pilot(options: Options, given: Given) -> tuple[_Watched, Tally, float]:
    """A small run; the finished job, its counts and its seconds."""
    async with open_engine(options, Path(), setup.other_models(options)) as engine:
        settings = setup.plan_for(options, engine)
        pools = given.pools(settings, dict.fromkeys(given.seeds, PILOT_EXAMPLES))
        for pool in pools:
            pool.max_proposals = min(pool.max_proposals, PILOT_PROPOSALS)
        job, began = (
            _Watched(settings, pools, lambda example: None, lambda row: None, given.held_out),
            time.monotonic(),
        )
        tally = await Scheduler(job, engine, Journal(None)).run()
    job.finish()
    return job, tally, time.monotonic() - began


def _estimate(job: SelfInstruct, tally: Tally, seconds: float, wanted: int) -> str:
    """Scale the pilot to `wanted` examples, counting what it left unfinished at the share that was kept."""
    if not job.instances.kept:
        return "estimate: none, the pilot kept no example"
    valid = job.instances.kept + job.instances.dropped["export", "not_needed"]
    unfinished = sum(
        count
        for ledger in (job.candidates, job.instances)
        for (stage, reason), count in ledger.dropped.items()
        if reason == "not_needed" and stage != "export"
    )
    share = valid / max(job.candidates.opened - unfinished, valid)
    factor = wanted / (valid + share * unfinished)
    requests, prompt, completion = (
        round(count * factor) for count in (tally.requests, tally.prompt_tokens, tally.completion_tokens)
    )
    return (
        f"estimate: about {requests} requests, {prompt} prompt + {completion} completion tokens, "
        f"{max(1, seconds * factor / 60):.0f} minutes on this machine (a small pilot: half to twice that)"
    )
