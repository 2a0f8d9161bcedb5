"""From options to the parts of an evaluation: model, held-out tasks, judges, plan."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import as_dict
from pipeline.engines.base import Engine, Sampling
from pipeline.engines.models import EMBEDDED, language_model
from pipeline.engines.open import check_engine
from pipeline.engines.options import MANNER
from pipeline.errors import PipelineError
from pipeline.evaluation import lm_eval, suggest
from pipeline.evaluation.flow import Plan
from pipeline.evaluation.lineage import Lineage, run_of
from pipeline.evaluation.options import Options
from pipeline.evaluation.references import References, references
from pipeline.evaluation.tasks import Item
from pipeline.format.sources import Source
from pipeline.judging.flow import Language
from pipeline.judging.model_judge import Ask
from pipeline.judging.options import PAIRWISE
from pipeline.records import LANGUAGES, SeedTask
from pipeline.rundir import file_digest
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import load_seeds, seed_files
from pipeline.stages.words import load_words
from pipeline.train.trained import newest

_NOT_CONFIG = ("target", "run", "resume", "overwrite")
_POLICIES = ("sft", "dpo", "ppo", "grpo")  # commands that train a model which answers
_FILES = ("compare.jinja", "rate.jinja", "words.yaml")


def completed(options: Options, root: Path) -> Options:
    """The options with the model that is meant, and with the judge that --judge-model alone means.

    Raises PipelineError.
    """
    if len(options.target) > 1:
        said = ", ".join(options.target[1:])
        problem = f"got {said} behind {options.target[0]}, expected one model"
        raise PipelineError("command line", problem, "Evaluate one after the other, then compare the runs.")
    if options.target and options.model:
        problem = f"got {options.target[0]} beside --model {options.model}"
        raise PipelineError("command line", problem, "Name the model once.")
    model = options.target[0] if options.target else options.model
    if not model and options.engine != "openai" and not options.resume:
        runs = [found for name in _POLICIES if (found := newest(root, name))]
        model = str(max(runs, key=lambda run: (run / "DONE").stat().st_mtime)) if runs else ""
    model = "" if model == EMBEDDED else model
    judges = options.judges or ((PAIRWISE,) if options.judge_model else ())
    return replace(options, model=model, target=(), judges=tuple(dict.fromkeys(judges)))


def check(options: Options, sources: Sequence[Source]) -> None:
    """Refuse what does not fit together, and models that are not there. Raises PipelineError."""
    lm_eval.check(options)
    suggest.check_file(options, sources)
    check_engine(options, filter(None, [options.judge_model]))


def config(options: Options) -> dict[str, Any]:
    """The options that decide the result."""
    return {k: v for k, v in as_dict(options).items() if k not in (*_NOT_CONFIG, *MANNER)}


def manner(options: Options) -> dict[str, Any]:
    """The options that say how the answers are had."""
    return {name: getattr(options, name) for name in MANNER}


def inputs(options: Options, sources: Sequence[Source], trained: Lineage) -> dict[str, str]:
    """The digests of every file that is read: tasks, seeds, prompts, word lists, training data."""
    found = Prompts(options.prompts)
    files = [found.path(f"{language}/{name}") for language in LANGUAGES for name in _FILES]
    names = {f"prompts/{file.parent.name}/{file.name}": file_digest(file) for file in files}
    seeds = {f"seeds {file}": file_digest(file) for file in seed_files(options.seeds)}
    tasks = {source.name: source.digest() for source in sources}
    run = run_of(options.model)
    model = {f"model {run}": file_digest(run / "DONE")} if run and (run / "DONE").is_file() else {}
    return {**tasks, **seeds, **names, **model, **trained.digests()}


def seeds_of(options: Options) -> list[SeedTask]:
    """The seeds that diversity is measured against. Raises PipelineError."""
    return load_seeds(options.seeds)


def check_chat(engine: Engine) -> None:
    """Refuse a model that cannot be asked. Raises PipelineError."""
    if not engine.has_chat:
        fix = "Train it with python -m pipeline.sft first, which gives it one."
        raise PipelineError(f"model {engine.model}", "it has no chat template", fix)


def scored(options: Options, engine: Engine, items: Sequence[Item]) -> tuple[References, str]:
    """The references that the engine is to score, and why none is, "" if some are."""
    if not options.loss:
        return References(), "switched off (--no-loss)"
    if options.engine == "openai" or not engine.can_score:
        return References(), "a server does not say how likely a given answer is in a chat"
    found = references(items, language_model(options.model))
    return found, "" if found.proved else "no task has a reference that can be scored"


def plan(options: Options, engine: Engine, found: References) -> Plan:
    """The state machine's settings."""
    can_score = engine.can_score and options.engine != "openai"
    return Plan(
        sampling=Sampling(options.temperature, options.top_p, max_tokens=options.max_tokens),
        seed=options.seed,
        judges=options.judges,
        ask=Ask(can_score, engine.can_structure),
        references=found.proved,
    )


def languages(options: Options) -> dict[str, Language]:
    """The judge's prompts and the word lists of every language."""
    found = Prompts(options.prompts)
    return {
        language: Language(
            found.get(language, "compare", "chat"),
            found.get(language, "rate", "chat"),
            load_words(found.path(f"{language}/words.yaml")),
        )
        for language in LANGUAGES
    }


def how_to_go_on(path: Path, why: str = "Stopped") -> str:
    """What to tell the user of a run that was stopped."""
    said = f"\n{why.rstrip('.')}; every answer received is kept. Go on with:\n"
    return f"{said}  python -m pipeline.evaluate --resume --run {shlex.quote(str(path))}"
