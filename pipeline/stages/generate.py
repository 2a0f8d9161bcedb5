"""The part of `python -m pipeline.selfinstruct` in which a model is asked: from a journal to full pools."""

from __future__ import annotations

import asyncio
import shlex
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engines.budget import BudgetedEngine
from pipeline.engines.job import Tally
from pipeline.engines.open import open_engine
from pipeline.engines.scheduler import Scheduler
from pipeline.lines import LineFile
from pipeline.progress import Display, stopping
from pipeline.records import SeedTask
from pipeline.stages import setup
from pipeline.stages.checkpoint import Checkpoint
from pipeline.stages.earlier import Earlier
from pipeline.stages.flow import SelfInstruct
from pipeline.stages.heldout import HeldOutFilter
from pipeline.stages.plan import Plan
from pipeline.stages.pool import Pool
from pipeline.stages.prompts import Prompts
from pipeline.stages.summary import funnel, stage_counts

if TYPE_CHECKING:
    from pipeline.stages.options import Options

METRICS_EVERY = 64  # requests


@dataclass(frozen=True)
class Given:
    """What a run reads before it asks: seeds by language, prompts, what must not be made, earlier rounds."""

    seeds: dict[str, list[SeedTask]]
    prompts: Prompts
    held_out: HeldOutFilter | None
    earlier: Earlier

    def pools(self, plan: Plan, wanted: dict[str, int]) -> list[Pool]:
        """One pool per language."""
        return setup.pools(self.seeds, self.prompts, plan, wanted, self.earlier)


@dataclass(frozen=True)
class Generated:
    """What came of it: the finished job, the counts, the generator for the card, the money in words."""

    job: SelfInstruct
    tally: Tally
    generator: dict[str, str]
    spent: str


def generate(options: Options, path: Path, given: Given, display: Display) -> Generated:
    """Ask until every language has its examples, or its limit of proposals.

    Writes journal, kept, dropped and metrics into `path`. Raises PipelineError, Stopped.
    """
    display.say(f"run directory: {path}")
    with closing(Checkpoint(path, options.snapshot_every)) as checkpoint:
        kept, dropped, metrics = (checkpoint.records[name] for name in ("kept", "dropped", "metrics"))
        if checkpoint.journal.cut:
            display.say(checkpoint.journal.cut)
        if checkpoint.taken:
            display.say(f"going on from the snapshot of request {checkpoint.taken}")
        display.say(f"loading {options.model or 'the embedded model'} ...")

        async def work() -> Generated:
            """All that happens in the event loop."""
            async with open_engine(options, path, setup.other_models(options)) as engine:
                settings, wanted = setup.plan_for(options, engine), setup.targets(options)
                pools = given.pools(settings, wanted)
                display.say(
                    f"{settings.model} in {engine.precision}; {sum(map(len, given.seeds.values()))} seeds; "
                    f"{sum(map(len, given.earlier.values()))} instructions of earlier rounds; "
                    f"{', '.join(f'{n} {language}' for language, n in wanted.items())} examples wanted; "
                    f"prompts: {settings.style}, answers: {settings.answer_style}"
                )
                job = SelfInstruct(
                    settings,
                    pools,
                    lambda e: kept.append([e]),
                    lambda row: dropped.append([row]),
                    given.held_out,
                )
                watch = _Watch(display, job, engine, metrics)
                scheduler = Scheduler(
                    job,
                    engine,
                    checkpoint.journal,
                    max_failed=options.max_failed_frac,
                    on_admit=watch.admitted,
                    on_replay=engine.charge,
                    on_stop=lambda times: stopping(display, times, how_to_go_on(path)),
                    on_settled=lambda state: checkpoint.settled(job, engine, scheduler.tally.requests, state),
                )
                checkpoint.restore(job, scheduler, engine)
                watch.written = scheduler.tally.requests
                tally = await scheduler.run()
                watch.end(tally)
                job.finish()
                generator = {"model": settings.model, "license": engine.license}
                if options.engine != "openai":  # the server's address is nobody's business
                    generator["precision"] = engine.precision
                return Generated(job, tally, generator, engine.summary)

        return asyncio.run(work())


class _Watch:
    """Shows and records how a run gets on."""

    def __init__(
        self, display: Display, job: SelfInstruct, engine: BudgetedEngine, metrics: LineFile
    ) -> None:
        self._display, self._job, self._engine, self._metrics = display, job, engine, metrics
        self._began, self.written = time.monotonic(), 0
        display.below = self._counts
        for pool in job.pools:
            display.bar(pool.language, 0, pool.target)

    def admitted(self, tally: Tally) -> None:
        """Called after each group."""
        for pool in self._job.pools:
            self._display.bar(pool.language, pool.kept, pool.target)
        self._display.bar("requests", tally.requests, None)
        counts = funnel(self._job)
        for came, went in (("proposed", "screened"), ("screened", "unique"), ("instances", "kept")):
            self._display.share(went, counts[went], counts[came])
        if tally.requests - self.written >= METRICS_EVERY:
            self.end(tally)

    def end(self, tally: Tally) -> None:
        """Write one line of metrics and one of progress."""
        self.written = tally.requests
        counts = {
            "requests": tally.requests,
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
        }
        self._metrics.append([{**counts, **funnel(self._job)}])
        done = ", ".join(f"{p.language} {p.kept}/{p.target}" for p in self._job.pools)
        self._display.step(
            f"{done} kept; {tally.requests} requests; {stage_counts(self._job)}; "
            f"{self._speed:.0f} tokens/s; {self._seconds:.0f} s"
        )

    @property
    def _seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-6)

    @property
    def _speed(self) -> float:
        return self._engine.tokens_drawn / self._seconds

    def _counts(self) -> str:
        return f"{self._engine.tokens_drawn} tokens drawn, {self._speed:.0f} tokens/s; {self._engine.summary}"


def how_to_go_on(path: Path, why: str = "Stopped") -> str:
    """What to tell the user of a run that was stopped."""
    return (
        f"\n{why.rstrip('.')}; every answer received is kept. Go on with:\n"
        f"  python -m pipeline.selfinstruct --resume --run {shlex.quote(str(path))}"
    )
