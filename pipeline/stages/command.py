"""What `python -m pipeline.selfinstruct` does, once its options are parsed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_NOTHING_KEPT, EXIT_PAUSED, Stopped, disk_errors
from pipeline.lines import StoredExamples, StoredRows
from pipeline.progress import Display
from pipeline.report import write_report
from pipeline.rundir import RunDir, next_name
from pipeline.stages import setup
from pipeline.stages.diversity import diversity
from pipeline.stages.export import export
from pipeline.stages.generate import Generated, Given, generate, how_to_go_on
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import lint, load_seeds, summary_lines
from pipeline.stages.summary import drop_table, end_table, evolved_counts, sample_lines

if TYPE_CHECKING:
    from pipeline.stages.options import Options


def check_seeds(options: Options) -> int:
    """Print what the seeds hold and what is wrong with them; exit code 2 if anything is."""
    seeds = load_seeds(options.seeds)
    problems = lint(seeds)
    print("\n".join([*summary_lines(seeds), *problems, f"{len(problems)} problems"]))
    return EXIT_ERROR if problems else 0


def run(options: Options, root: Path) -> int:
    """Make a dataset in a run directory and print its path; returns the exit code.

    Raises PipelineError, Stopped.
    """
    seeds, prompts = setup.seeds_by_language(options), Prompts(options.prompts)
    config, inputs = setup.config(options), setup.inputs(options, prompts)
    target = RunDir(Path(options.run) if options.run else next_name(root, "selfinstruct"))
    if options.resume and target.done:
        target.check_same(config, inputs)
        return _end(target.path)
    setup.check_models(options)
    given = Given(seeds, prompts, setup.held_out(options), setup.earlier(options))
    target.claim(
        config, inputs, resume=options.resume, overwrite=options.overwrite, manner=setup.manner(options)
    )
    try:
        began = time.monotonic()
        with Display(target.path / "log.txt") as display:
            made = generate(options, target.path, given, display)
        _export(target, made, options)
        _diversity(target, made)
        _report(display, target, made, time.monotonic() - began)
        write_report(target.path)
        target.finish(config, inputs)
    except Stopped as stop:
        code = EXIT_PAUSED if str(stop) else EXIT_INTERRUPTED
        raise Stopped(how_to_go_on(target.path, str(stop) or "Stopped"), code) from None
    except KeyboardInterrupt:
        raise Stopped(how_to_go_on(target.path)) from None
    finally:
        target.release()
    return _end(target.path)


def _end(path: Path) -> int:
    """Print where the dataset of a finished run is, and that it is empty if it is."""
    with disk_errors(path / "kept.jsonl"):
        empty = not (path / "kept.jsonl").stat().st_size
    print(path / "dataset")
    if empty:
        why = "dropped.jsonl there says why of every proposal, journal.jsonl holds the answers"
        print(f"{path}: nothing was kept, so the dataset is empty. {why}.", file=sys.stderr)
    return EXIT_NOTHING_KEPT if empty else 0


def _export(target: RunDir, made: Generated, options: Options) -> None:
    job, tally = made.job, made.tally
    facts = {
        # Not the run's name: the same options give the same bytes.
        "name": f"self-instruct-{'-'.join(setup.targets(options))}",
        "generator": {"engine": options.engine, **made.generator},
        "seeds": setup.seed_facts(options.seeds),
        "options": setup.config(options),
        "evolved": evolved_counts(job),
        "stages": [{"stage": s, **counts} for s, counts in drop_table(job).items()],
        "tokens": {
            "requests": tally.requests,
            "prompt": tally.prompt_tokens,
            "completion": tally.completion_tokens,
        },
    }
    export(StoredExamples(target.path / "kept.jsonl"), target.path / "dataset", facts)


def _diversity(target: RunDir, made: Generated) -> None:
    found = diversity(made.job.pools, StoredRows(target.path / "kept.jsonl"))
    target.write("diversity.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _report(display: Display, target: RunDir, made: Generated, seconds: float) -> None:
    job, tally = made.job, made.tally
    display.table(end_table(job, tally, seconds))
    target.update(
        {
            "ledger": [ledger.summary() for ledger in (job.requests, job.candidates, job.instances)],
            "evolved": evolved_counts(job),
            "seconds": round(seconds, 1),
            "requests": tally.requests,
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "failed": tally.failed,
            "cached": tally.cached,
            "retries": tally.retries,
            "spent": made.spent,
        }
    )
    for line in sample_lines(target.path / "kept.jsonl", 5):
        display.say(line)
    for pool in job.pools:
        if not pool.full:
            display.say(
                f"{pool.language}: only {pool.kept} of {pool.target} examples after {pool.proposals} "
                "proposals (--max-proposals raises the limit)"
            )
    data = target.path / "dataset"
    how = f"\nnext: python -c \"from datasets import load_dataset; print(load_dataset('{data}'))\""
    display.say(f"dataset: {data}{how if job.instances.kept else ''}")
