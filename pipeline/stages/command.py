"""What `python -m pipeline.selfinstruct` does, once its options are parsed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engines.journal import Journal
from pipeline.engines.scheduler import Scheduler, Tally
from pipeline.errors import Stopped
from pipeline.progress import Display
from pipeline.records import Example, read_rows
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
        return target.path / "dataset"
    target.claim(config, inputs, resume=options.resume, overwrite=options.overwrite)
    try:
        _work(options, target, seeds, prompts)
        target.finish(config, inputs)
    finally:
        target.release()
    return target.path / "dataset"


def dry_run(options: Options) -> int:
    """Show the first prompt of each language and an estimate from a pilot; writes nothing."""
    seeds, prompts = setup.seeds_by_language(options), Prompts(options.prompts)
    engine, settings = _engine(options)
    small = {language: 3 for language in seeds}
    pools = setup.pools(seeds, prompts, settings, small)
    engine.batch_size = min(engine.batch_size, 16 * len(pools))
    job = SelfInstruct(settings, pools, lambda example: None, lambda row: None)
    shown: dict[str, str] = {}
    ask = job.next_request

    def watched(number: int) -> Any:
        request = ask(number)
        if request:
            label = f"{job.asks[number].pool.language}/{job.asks[number].stage}"
            shown.setdefault(label, request.prompt)
        return request

    job.next_request = watched  # type: ignore[method-assign]
    began = time.monotonic()
    tally = asyncio.run(Scheduler(job, engine, Journal(None)).run())
    seconds = time.monotonic() - began
    for label, prompt in shown.items():
        print(f"----- {label}\n{prompt}\n")
    wanted = setup.targets(options)
    print(
        f"seeds: {', '.join(f'{len(s)} {language}' for language, s in seeds.items())}; wanted: "
        f"{', '.join(f'{n} {language}' for language, n in wanted.items())} examples; writer: {settings.model}"
    )
    kept = sum(p.kept for p in pools)
    print(
        f"pilot: {tally.requests} requests, {tally.prompt_tokens} + {tally.completion_tokens} tokens, "
        f"{kept} examples kept, {seconds:.0f} s"
    )
    if not kept:
        print("estimate: none, the pilot kept no example")
        return 0
    factor = sum(wanted.values()) / kept
    print(
        f"estimate: about {tally.requests * factor:.0f} requests, {tally.prompt_tokens * factor:.0f} prompt + "
        f"{tally.completion_tokens * factor:.0f} completion tokens, {seconds * factor / 60:.0f} minutes on this machine "
        "(from a small pilot: half to twice that)"
    )
    return 0


def _engine(options: Options) -> tuple[Any, Any]:
    engine = setup.open_engine(options)
    settings = setup.plan(options, model=engine.model, can_score=engine.can_score, has_chat=engine.has_chat)
    return engine, settings


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
        engine, settings = _engine(options)
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
        )
        try:
            with display:
                for pool in pools:
                    display.bar(pool.language, 0, pool.target)
                tally = asyncio.run(scheduler.run())
        except (Stopped, KeyboardInterrupt):
            raise Stopped(
                f"\nStopped; every answer received is kept. Go on with:\n  python -m pipeline.selfinstruct "
                f"--resume --run {path}"
            ) from None
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
        "name": target.path.name,
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
                f"{pool.language}: only {pool.kept} of {pool.target} examples after {pool.proposals} proposals "
                "(--max-proposals raises the limit)"
            )
    data = target.path / "dataset"
    display.say(
        f"dataset: {data}\nnext: python -c \"from datasets import load_dataset; print(load_dataset('{data}'))\""
    )
