"""What `python -m pipeline.evaluate` does, once its options are parsed."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.dedup.encoder import Encoder, encoder_for
from pipeline.engines.base import Engine
from pipeline.engines.budget import BudgetedEngine
from pipeline.engines.job import Job, Tally
from pipeline.engines.journal import Journal
from pipeline.engines.open import open_engine
from pipeline.engines.scheduler import Scheduler
from pipeline.errors import EXIT_INTERRUPTED, EXIT_PAUSED, Stopped
from pipeline.evaluation import contamination, diversity, failures, lm_eval, report, setup, suggest
from pipeline.evaluation.flow import Evaluating
from pipeline.evaluation.lineage import Lineage, lineage
from pipeline.evaluation.measures import Measured, measure
from pipeline.evaluation.options import OFF, Options
from pipeline.evaluation.references import References
from pipeline.evaluation.sheet import scores
from pipeline.evaluation.tasks import Item, digest_of, read_items
from pipeline.format.sources import Source, find_sources
from pipeline.lines import LineFile
from pipeline.progress import Display, stopping
from pipeline.records import SeedTask, to_json
from pipeline.rundir import RunDir, next_name

_METRICS_EVERY = 64  # requests
_JOURNALS = ("journal.jsonl", "journal-suggest.jsonl")


def run(options: Options, root: Path) -> int:
    """Evaluate in a run directory and print the score sheet's path; returns the exit code.

    Raises PipelineError, Stopped.
    """
    options = setup.completed(options, root)
    sources = find_sources(options.heldout)
    items = read_items(sources, options.num_tasks, options.seed)
    trained = Lineage() if options.contamination == OFF else lineage(options.model, options.lora)
    config, inputs = setup.config(options), setup.inputs(options, sources, trained)
    target = RunDir(Path(options.run) if options.run else next_name(root, "evaluate"))
    if options.resume and target.done:
        target.check_same(config, inputs)
        print(target.path / "scores.json")
        return 0
    setup.check(options, sources)
    seeds = setup.seeds_of(options)
    target.claim(
        config, inputs, resume=options.resume, overwrite=options.overwrite, manner=setup.manner(options)
    )
    try:
        with Display(target.path / "log.txt") as display:
            _Run(options, target, display, sources, items, trained, seeds).run()
        target.finish(config, inputs)
    except Stopped as stop:
        code = EXIT_PAUSED if str(stop) else EXIT_INTERRUPTED
        raise Stopped(setup.how_to_go_on(target.path, str(stop) or "Stopped"), code) from None
    except KeyboardInterrupt:
        raise Stopped(setup.how_to_go_on(target.path)) from None
    finally:
        target.release()
    print(target.path / "scores.json")
    return 0


@dataclass
class _Asked:
    """What came of the requests."""

    measured: list[Measured]
    generator: dict[str, str]
    tally: Tally
    loss_left_out: dict[str, int] | str
    candidates: list[dict[str, Any]] = field(default_factory=list)
    unread: int = 0


@dataclass
class _Run:
    """One evaluation in its directory."""

    options: Options
    target: RunDir
    display: Display
    sources: Sequence[Source]
    items: Sequence[Item]
    trained: Lineage
    seeds: Sequence[SeedTask]

    def run(self) -> None:
        """Everything from the tasks to the files."""
        began, say, options = time.monotonic(), self.display.say, self.options
        say(f"run directory: {self.target.path}; model: {options.model or 'the embedded model'}")
        encoder = encoder_for(options.encoder_settings())
        found = contamination.contaminated(options, self.items, self.trained, encoder)
        kept = contamination.clean(self.items, found)
        tasks = len({item.task for item in kept})
        say(f"{tasks} tasks, {len(kept)} requests of {', '.join(s.name for s in self.sources)}")
        say(found.sentence())
        asked = asyncio.run(self._ask(kept, encoder))
        heldout = {
            "files": [source.name for source in self.sources],
            "digest": digest_of(kept),
            "tasks": tasks,
            "requests": len(kept),
        }
        sheet = {
            "model": options.model,
            "generator": asked.generator,
            "settings": {
                name: getattr(options, name) for name in ("max_tokens", "temperature", "top_p", "seed")
            },
            "heldout": heldout,
            **scores(asked.measured),
            "loss_left_out": asked.loss_left_out,
            "diversity": diversity.answers(asked.measured, self.seeds, encoder, options.seed),
            "training_diversity": diversity.requests(self.trained, self.seeds, encoder, options.seed),
            "failures": failures.summary(asked.measured),
            "contamination": found.as_json(),
            "lm_eval": lm_eval.run(options) if options.lm_eval else None,
        }
        self._write(sheet, asked)
        tally = asked.tally
        counts = {"requests": tally.requests, "cached": tally.cached, "failed": tally.failed}
        tokens = {"prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens}
        seconds = round(time.monotonic() - began, 1)
        self.target.update({"generator": asked.generator, **counts, **tokens, "seconds": seconds})

    async def _ask(self, items: Sequence[Item], encoder: Encoder) -> _Asked:
        """Draw, score and judge through the engine, then ask for new seeds if they are wanted."""
        options, path = self.options, self.target.path
        self.display.say(f"loading {options.model or 'the embedded model'} ...")
        roles = {"judge": options.judge_model} if options.judge_model else {}
        async with open_engine(options, path, roles) as engine:
            setup.check_chat(engine)
            found, why = setup.scored(options, engine, items)
            said = setup.languages(options)
            job = Evaluating(setup.plan(options, engine, found), items, said)
            tally = await self._schedule(job, engine, _JOURNALS[0], _Watch(self.display, job, engine, path))
            measured = measure(job.records, found, said)
            generator = {"model": engine.model, "license": engine.license, "precision": engine.precision}
            out = _Asked(measured, generator, tally, why or _left_out(measured, found), unread=job.unread)
            if options.suggest_seeds:
                kinds = failures.summary(measured)["worst"]
                proposing = suggest.Proposing(options, kinds, self.seeds, chat=options.engine == "openai")
                more = await self._schedule(proposing, engine, _JOURNALS[1], None)
                for name in ("requests", "cached", "failed", "prompt_tokens", "completion_tokens"):
                    setattr(tally, name, getattr(tally, name) + getattr(more, name))
                # all held-out tasks, those that are not scored too
                out.candidates, left = suggest.candidates(proposing, self.items, self.seeds, said, encoder)
                self.display.say(f"candidates of seeds: {len(out.candidates)}; left out: {left or 'none'}")
            return out

    async def _schedule(self, job: Job, engine: BudgetedEngine, name: str, watch: _Watch | None) -> Tally:
        """Run one job over the engine with its journal."""
        path = self.target.path
        journal = Journal(path / name)
        if journal.cut:
            self.display.say(journal.cut)
        scheduler = Scheduler(
            job,
            engine,
            journal,
            max_failed=self.options.max_failed_frac,
            on_admit=watch.admitted if watch else lambda tally: None,
            on_replay=engine.charge,
            on_stop=lambda times: stopping(self.display, times, setup.how_to_go_on(path)),
        )
        tally = await scheduler.run()
        if watch:
            watch.end(tally)
        return tally

    def _write(self, sheet: dict[str, Any], asked: _Asked) -> None:
        rows = failures.rows(asked.measured)
        put = self.target.write
        put("answers.jsonl", "".join(to_json(one.as_json()) + "\n" for one in asked.measured))
        put("failures.jsonl", "".join(to_json(row) + "\n" for row in rows))
        put("scores.json", json.dumps(sheet, indent=1, ensure_ascii=False) + "\n")
        put("report.md", report.markdown(sheet, rows))
        if self.options.suggest_seeds:
            suggest.write(self.options, asked.candidates)
            said = f"{self.options.suggest_seeds}: {len(asked.candidates)} candidates, without outputs"
            who = self.options.judge_model or "the evaluated model itself; --judge-model names a better one"
            self.display.say(f"{said}; proposed by {who}")
        self.display.table(report.table(sheet))
        for line in report.notes(sheet):
            self.display.say(line)
        if asked.unread:
            self.display.say(f"note: {asked.unread} verdicts of the judge could not be read")


def _left_out(measured: Sequence[Measured], found: References) -> dict[str, int]:
    """How many references were not scored, by reason."""
    reasons = Counter(found.left_out.values())
    known = [one for one in measured if one.record.item.id in found.proved]
    if failed := sum(one.record.logprob is None for one in known):
        reasons["engine_error"] = failed
    return dict(sorted(reasons.items()))


class _Watch:
    """Shows and records how an evaluation gets on."""

    def __init__(self, display: Display, job: Evaluating, engine: Engine, path: Path) -> None:
        self._display, self._job, self._engine, self._path = display, job, engine, path
        self._began, self._written = time.monotonic(), 0
        self._metrics = LineFile(path / "metrics.jsonl", anew=True)
        display.below = lambda: f"{engine.tokens_drawn} tokens drawn"

    def admitted(self, tally: Tally) -> None:
        """Called after each group."""
        self._display.bar("answers", self._job.drawn, len(self._job.records))
        self._display.bar("references", self._job.scored, len(self._job.plan.references))
        if self._job.plan.judges:
            self._display.bar("judged", self._job.judged, None)
        if tally.requests - self._written >= _METRICS_EVERY:
            self._line(tally)

    def end(self, tally: Tally) -> None:
        """The last line."""
        self._line(tally)
        self._metrics.close()

    def _line(self, tally: Tally) -> None:
        """Write one line of metrics and one of progress."""
        self._written, job = tally.requests, self._job
        done = {"answers": job.drawn, "references": job.scored, "judged": job.judged}
        self._metrics.append([{"requests": tally.requests, **done}])
        seconds = max(time.monotonic() - self._began, 1e-6)
        speed = self._engine.tokens_drawn / seconds
        said = f"{job.drawn}/{len(job.records)} answers, {job.scored} references, {job.judged} verdicts"
        self._display.step(f"{said}; {speed:.0f} tokens/s; {seconds:.0f} s")
