"""What `python -m pipeline.selfinstruct` does, once its options are parsed."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engines.journal import Journal
from pipeline.engines.scheduler import Scheduler, Tally
from pipeline.errors import EXIT_INTERRUPTED, Stopped
from pipeline.progress import Display
from pipeline.records import Example, read_rows
from pipeline.report import write_report
from pipeline.rundir import LineFile, RunDir, next_name
from pipeline.stages import setup
from pipeline.stages.export import export
from pipeline.stages.flow import SelfInstruct
from pipeline.stages.pool import Pool
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import lint, load_seeds, summary_lines
from pipeline.stages.summary import drop_table, funnel, sample_lines, stage_counts

if TYPE_CHECKING:
    from pipeline.selfinstruct import Options


def check_seeds(options: Options) -> int:
    """Print what the seeds hold and what is wrong with them; exit code 2 if anything is."""
    seeds = load_seeds(options.seeds)
    problems = lint(seeds)
    print("\n".join([*summary_lines(seeds), *problems, f"{len(problems)} problems"]))
    return 2 if problems else 0


def run(options: Options, root: Path) -> Path:
    """Make a dataset in a run directory; returns the dataset's path. Raises PipelineError, Stopped."""
    seeds, prompts = setup.seeds_by_language(options), Prompts(options.prompts)
    config, inputs = setup.config(options), setup.inputs(options, prompts)
    target = RunDir(Path(options.run) if options.run else next_name(root, "selfinstruct"))
    if options.resume and target.done:
        target.check_same(config, inputs)
        return target.path / "dataset"
    setup.check_models(options)
    target.claim(config, inputs, resume=options.resume, overwrite=options.overwrite)
    try:
        _work(options, target, seeds, prompts)
        write_report(target.path)
        target.finish(config, inputs)
    except (Stopped, KeyboardInterrupt):
        raise Stopped(_how_to_go_on(target.path)) from None
    finally:
        target.release()
    return target.path / "dataset"


def _how_to_go_on(path: Path) -> str:
    return (
        "\nStopped; every answer received is kept. Go on with:\n"
        f"  python -m pipeline.selfinstruct --resume --run {shlex.quote(str(path))}"
    )


def _stopping(display: Display, path: Path, times: int) -> None:
    """Say what Ctrl-C does.

    The second time leave without waiting for the model: the journal is safe at any time.
    """
    if times == 1:
        display.say("stopping after the answers in flight; Ctrl-C again leaves at once")
        return
    display.close()
    print(_how_to_go_on(path), file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)  # a plain exit would wait for the thread in which the model runs


def _work(options: Options, target: RunDir, seeds: Any, prompts: Prompts) -> None:
    """Load, generate, export, report."""
    path, wanted, began = target.path, setup.targets(options), time.monotonic()
    journal = Journal(path / "journal.jsonl")
    with _lines(path) as (kept, dropped, metrics):
        display, state = Display(path / "log.txt", lambda: _counts(state)), _State()
        display.say(f"run directory: {path}")
        if journal.cut:
            display.say(journal.cut)
        display.say(f"loading {options.model or 'the embedded model'} ...")
        engine, settings = setup.engine_and_plan(options)
        writer = getattr(engine, "writer", engine)
        pools = setup.pools(seeds, prompts, settings, wanted)
        display.say(
            f"{settings.model} in {writer.precision}; {sum(map(len, seeds.values()))} seeds; "
            f"{', '.join(f'{n} {language}' for language, n in wanted.items())} examples wanted; "
            f"prompts: {settings.style}, answers: {settings.answer_style}"
        )
        job = SelfInstruct(settings, pools, lambda e: kept.append([e]), lambda row: dropped.append([row]))
        state.job, state.engine, state.began = job, writer, time.monotonic()
        scheduler = Scheduler(
            job,
            engine,
            journal,
            max_failed=options.max_failed_frac,
            on_admit=lambda tally: _admitted(display, state, tally, metrics),
            on_stop=lambda times: _stopping(display, path, times),
        )
        with display:
            for pool in pools:
                display.bar(pool.language, 0, pool.target)
            tally = asyncio.run(scheduler.run())
        job.finish()
    _export(target, settings, job, writer, tally, options)
    _report(display, target, job, tally, time.monotonic() - began, pools)


class _State:
    """What the live display reads while a run goes on."""

    job: SelfInstruct | None = None
    engine: Any = None
    began = 0.0


@contextmanager
def _lines(path: Path) -> Iterator[tuple[LineFile, LineFile, LineFile]]:
    """kept, dropped and metrics: begun anew, because replaying the journal writes them again."""
    files = [LineFile(path / f"{name}.jsonl", anew=True) for name in ("kept", "dropped", "metrics")]
    try:
        yield files[0], files[1], files[2]
    finally:
        for file in files:
            file.close()


def _counts(state: _State) -> str:
    if not state.job:
        return ""
    seconds = max(time.monotonic() - state.began, 1e-6)
    tokens = state.engine.tokens_drawn
    return f"{stage_counts(state.job)}\n{tokens} tokens drawn, {tokens / seconds:.0f} tokens/s"


def _admitted(display: Display, state: _State, tally: Tally, metrics: LineFile) -> None:
    job = state.job
    assert job is not None
    for pool in job.pools:
        display.bar(pool.language, pool.kept, pool.target)
    counts = funnel(job)
    metrics.append(
        [
            {
                "requests": tally.requests,
                "prompt_tokens": tally.prompt_tokens,
                "completion_tokens": tally.completion_tokens,
                **counts,
            }
        ]
    )
    done = ", ".join(f"{p.language} {p.kept}/{p.target}" for p in job.pools)
    seconds = max(time.monotonic() - state.began, 1e-6)
    display.step(
        f"{done} kept; {tally.requests} requests; {stage_counts(job)}; "
        f"{state.engine.tokens_drawn / seconds:.0f} tokens/s; {seconds:.0f} s"
    )


def _export(
    target: RunDir, settings: Any, job: SelfInstruct, writer: Any, tally: Tally, options: Options
) -> None:
    rows = [row for _, row in read_rows(target.path / "kept.jsonl")] if any(p.kept for p in job.pools) else []
    facts = {
        # Not the run's name: the same options give the same bytes.
        "name": f"self-instruct-{'-'.join(setup.targets(options))}",
        "generator": {
            "engine": options.engine,
            "model": settings.model,
            "license": writer.license,
            "precision": writer.precision,
        },
        "seeds": setup.seed_facts(options.seeds),
        "options": setup.config(options),
        "stages": [{"stage": s, **counts} for s, counts in drop_table(job).items()],
        "tokens": {
            "requests": tally.requests,
            "prompt": tally.prompt_tokens,
            "completion": tally.completion_tokens,
        },
    }
    export([Example(**row) for row in rows], target.path / "dataset", facts)


def _report(
    display: Display, target: RunDir, job: SelfInstruct, tally: Tally, seconds: float, pools: list[Pool]
) -> None:
    from pipeline.stages.summary import end_table

    display.table(end_table(job, tally, seconds))
    target.update(
        {
            "ledger": [job.candidates.summary(), job.instances.summary()],
            "seconds": round(seconds, 1),
            "requests": tally.requests,
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "failed": tally.failed,
        }
    )
    for line in sample_lines(target.path / "kept.jsonl", 5):
        display.say(line)
    for pool in pools:
        if not pool.full:
            display.say(
                f"{pool.language}: only {pool.kept} of {pool.target} examples after {pool.proposals} "
                "proposals (--max-proposals raises the limit)"
            )
    data = target.path / "dataset"
    how = f"next: python -c \"from datasets import load_dataset; print(load_dataset('{data}'))\""
    none = f"nothing was kept, so there is nothing to load; {target.path / 'dropped.jsonl'} says why"
    display.say(f"dataset: {data}\n{how if job.instances.kept else none}")
