"""What `python -m pipeline.preferences` does, once its options are parsed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.base import Engine
from pipeline.engines.budget import BudgetedEngine
from pipeline.engines.job import Tally
from pipeline.engines.journal import Journal
from pipeline.engines.open import open_engine
from pipeline.engines.scheduler import Scheduler
from pipeline.errors import EXIT_INTERRUPTED, EXIT_NOTHING_KEPT, EXIT_PAUSED, Stopped, disk_errors
from pipeline.format.sources import Source
from pipeline.judging import export, findings, setup
from pipeline.judging.flow import Judging
from pipeline.judging.options import Options
from pipeline.judging.pairs import Pair, pairs
from pipeline.judging.prompt_rows import PromptRows, read_prompts
from pipeline.judging.scores import score
from pipeline.ledger import Ledger
from pipeline.lines import LineFile
from pipeline.progress import Display, stopping
from pipeline.records import Drop
from pipeline.rundir import RunDir, next_name

_METRICS_EVERY = 64  # requests


def run(options: Options, root: Path) -> int:
    """Make preference data in a run directory and print its path; returns the exit code.

    Raises PipelineError, Stopped.
    """
    sources = setup.sources(options, root)
    config, inputs = setup.config(options, sources), setup.inputs(options, sources)
    target = RunDir(Path(options.run) if options.run else next_name(root, "preferences"))
    if options.resume and target.done:
        target.check_same(config, inputs)
        return _end(target.path)
    read = read_prompts(options, sources, options.seed)
    judges = setup.judges(options, read.asked)
    setup.check(options, judges)
    target.claim(
        config, inputs, resume=options.resume, overwrite=options.overwrite, manner=setup.manner(options)
    )
    try:
        with Display(target.path / "log.txt") as display:
            _Run(options, target, display, judges, read).run(sources)
        target.finish(config, inputs)
    except Stopped as stop:
        code = EXIT_PAUSED if str(stop) else EXIT_INTERRUPTED
        raise Stopped(setup.how_to_go_on(target.path, str(stop) or "Stopped"), code) from None
    except KeyboardInterrupt:
        raise Stopped(setup.how_to_go_on(target.path)) from None
    finally:
        target.release()
    return _end(target.path)


def _end(path: Path) -> int:
    """Print where the pairs of a finished run are; the exit code says whether there are any."""
    found = path / "preferences.jsonl"
    print(found)
    with disk_errors(found):
        return 0 if found.stat().st_size else EXIT_NOTHING_KEPT


@dataclass
class _Run:
    """One run in its directory."""

    options: Options
    target: RunDir
    display: Display
    judges: tuple[str, ...]
    read: PromptRows

    def run(self, sources: Sequence[Source]) -> None:
        """Everything from the prompts to the files."""
        began, say = time.monotonic(), self.display.say
        say(f"run directory: {self.target.path}")
        drawn = f"{self.options.num_answers} answers each; judges: {', '.join(self.judges)}"
        say(f"{len(self.read.asked)} prompts of {', '.join(source.name for source in sources)}; {drawn}")
        with closing(LineFile(self.target.path / "dropped.jsonl", anew=True)) as dropped:
            dropped.append(self.read.dropped)
            job, tally, facts = self._ask(lambda row: dropped.append([row]))
            score(job.cases, self.judges, setup.reward_model(self.options, self.judges))
            found, prompts = self._pair(job, lambda row: dropped.append([row]))
        self._write(job, found)
        ledgers = [job.ledger.summary(), prompts.summary()]
        counts = {"requests": tally.requests, "cached": tally.cached, "failed": tally.failed}
        tokens = {"prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens}
        seconds = round(time.monotonic() - began, 1)
        self.target.update({**facts, "ledger": ledgers, **counts, **tokens, "seconds": seconds})

    def _ask(self, on_drop: Callable[[dict[str, Any]], None]) -> tuple[Judging, Tally, dict[str, Any]]:
        """Draw and judge through the engine; nothing is loaded where nothing is to be asked."""
        options, path = self.options, self.target.path
        if not options.num_answers and not set(self.judges) & setup.ASKED:
            plan, said = setup.plan(options, self.judges, None), setup.languages(options, True)
            job = Judging(plan, self.read.asked, said, on_drop)
            job.ledger.check()
            return job, Tally(), {}
        journal = Journal(path / "journal.jsonl")
        if journal.cut:
            self.display.say(journal.cut)
        self.display.say(f"loading {options.model or 'the embedded model'} ...")

        async def work() -> tuple[Judging, Tally, dict[str, Any]]:
            """All that happens in the event loop."""
            async with open_engine(options, path, setup.roles(options, self.judges)) as engine:
                setup.check_chat(options, engine)
                plan = setup.plan(options, self.judges, engine)
                job = Judging(plan, self.read.asked, setup.languages(options, engine.has_chat), on_drop)
                with closing(LineFile(path / "metrics.jsonl", anew=True)) as metrics:
                    watch = _Watch(self.display, job, engine, metrics)
                    scheduler = Scheduler(
                        job,
                        engine,
                        journal,
                        max_failed=options.max_failed_frac,
                        on_admit=watch.admitted,
                        on_replay=engine.charge,
                        on_stop=lambda times: stopping(self.display, times, setup.how_to_go_on(path)),
                    )
                    tally = await scheduler.run()
                    watch.end(tally)
                job.ledger.check()
                return job, tally, {"generator": _generator(engine), "spent": engine.summary}

        return asyncio.run(work())

    def _pair(self, job: Judging, on_drop: Callable[[dict[str, Any]], None]) -> tuple[list[Pair], Ledger]:
        """The pairs of all prompts; a prompt without one is dropped with the reason."""
        found, ledger = list[Pair](), Ledger("prompt")
        for case in job.cases:
            name = case.prompt.id
            ledger.open(name)
            made = pairs(case, self.judges, self.options)
            if isinstance(made, Drop):
                ledger.drop(name, "pairs", made.reason)
                row = {"unit": "prompt", "id": name, "stage": "pairs", "reason": made.reason}
                on_drop({**row, "evidence": made.evidence})
            else:
                ledger.keep(name)
                found += made
        ledger.check()
        return found, ledger

    def _write(self, job: Judging, found: list[Pair]) -> None:
        export.write(self.target, job.cases, found, self.judges, self.options.min_best)
        export.export(self.target, found, self.options.export)
        told = findings.findings(job.cases, found, self.judges)
        self.target.write("findings.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        self.display.table(findings.table(told))
        for line in (*findings.examples(found), *(f"note: {text}" for text in findings.warnings(told))):
            self.display.say(line)
        if job.unread:
            self.display.say(f"note: {job.unread} of {job.judged} verdicts of the judge could not be read")


def _generator(engine: Engine) -> dict[str, str]:
    return {"model": engine.model, "license": engine.license, "precision": engine.precision}


class _Watch:
    """Shows and records how a run gets on."""

    def __init__(self, display: Display, job: Judging, engine: BudgetedEngine, metrics: LineFile) -> None:
        self._display, self._job, self._engine, self._metrics = display, job, engine, metrics
        self._began, self._written = time.monotonic(), 0
        self._total = len(job.cases) * job.plan.num_answers
        display.below = lambda: f"{engine.tokens_drawn} tokens drawn; {engine.summary}"

    def admitted(self, tally: Tally) -> None:
        """Called after each group."""
        self._display.bar("answers", self._job.drawn, self._total)
        self._display.bar("judged", self._job.judged, None)
        if tally.requests - self._written >= _METRICS_EVERY:
            self.end(tally)

    def end(self, tally: Tally) -> None:
        """Write one line of metrics and one of progress."""
        self._written, job, seconds = tally.requests, self._job, max(time.monotonic() - self._began, 1e-6)
        counts = {"requests": tally.requests, "answers": job.drawn, "judged": job.judged}
        tokens = {"prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens}
        self._metrics.append([{**counts, **tokens}])
        speed = self._engine.tokens_drawn / seconds
        self._display.step(
            f"{job.drawn}/{self._total} answers, {job.judged} verdicts; {tally.requests} requests; "
            f"{speed:.0f} tokens/s; {seconds:.0f} s"
        )
