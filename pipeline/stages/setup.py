"""From options to the parts of a run: languages, seeds, plan, engine, pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import as_dict
from pipeline.dedup.encoder import Encoder, encoder_for
from pipeline.engines.base import Engine, Sampling
from pipeline.engines.open import check_engine
from pipeline.engines.options import MANNER
from pipeline.errors import PipelineError
from pipeline.format.sources import find_sources
from pipeline.records import LANGUAGES, SeedTask
from pipeline.rundir import file_digest, shown
from pipeline.stages.earlier import Earlier, earlier_sources, read_earlier
from pipeline.stages.heldout import HeldOutFilter
from pipeline.stages.plan import Plan
from pipeline.stages.pool import Pool
from pipeline.stages.prompts import Prompts
from pipeline.stages.quality import QualityFilter
from pipeline.stages.screen import ScreenLimits
from pipeline.stages.seeds import load_seeds, seed_files
from pipeline.stages.validate import ValidateLimits

if TYPE_CHECKING:
    from pipeline.stages.options import Options

# Options that say where and how a run is kept, not what comes out of it.
_NOT_CONFIG = ("run", "resume", "overwrite", "dry_run", "check_seeds")
# Nats; beyond it the embedded model loses the thread.
_MAX_SURPRISAL = 30.0
# Options that say how the result is had: a resumed run may change them.
_MANNER = (*MANNER, "snapshot_every", "embedding_base_url", "embedding_api_key_env")


def targets(options: Options) -> dict[str, int]:
    """The number of examples wanted per language, from `--languages en zh:20`."""
    wanted: dict[str, int] = {}
    for word in options.languages:
        language, _, number = word.partition(":")
        if language not in LANGUAGES or (number and not (number.isdecimal() and int(number) > 0)):
            raise PipelineError(
                "--languages",
                f"got '{word}', expected one of {', '.join(LANGUAGES)} or LANG:NUMBER",
                "Correct the language.",
            )
        wanted[language] = int(number or options.num_examples)
    return wanted


def seeds_by_language(options: Options) -> dict[str, list[SeedTask]]:
    """The seeds of each wanted language. Raises PipelineError where there are too few to show."""
    seeds = load_seeds(options.seeds)
    found = {language: [s for s in seeds if s.language == language] for language in targets(options)}
    for language, mine in found.items():
        if len(mine) < 2:
            raise PipelineError(
                "--seeds",
                f"{len(mine)} seeds in language '{language}', expected at least 2",
                "Write more seeds, or leave the language out of --languages.",
            )
    return found


def config(options: Options) -> dict[str, Any]:
    """The options that decide the result."""
    return {k: v for k, v in as_dict(options).items() if k not in (*_NOT_CONFIG, *_MANNER)}


def manner(options: Options) -> dict[str, Any]:
    """The options that say how the answers are had."""
    return {name: getattr(options, name) for name in _MANNER}


def inputs(options: Options, prompts: Prompts) -> dict[str, str]:
    """The digests of every file that is read: seeds, prompts, word lists, held-out texts, earlier runs."""
    files = list(seed_files(options.seeds))
    for folder in prompts.folders:
        for language in targets(options):
            files += sorted(f for f in (folder / language).glob("*") if f.is_file())
    if options.quality_model:
        files += sorted(f for f in (Path(options.quality_model) / "model").glob("*") if f.is_file())
    more = (*find_sources(options.heldout), *earlier_sources(options.pool))
    read = {str(shown(Path(source.name))): source.digest() for source in more}
    return {str(shown(f)): file_digest(f) for f in files} | read


def earlier(options: Options) -> Earlier:
    """The instructions of earlier rounds in the wanted languages. Raises PipelineError."""
    found = read_earlier(earlier_sources(options.pool))
    return {language: found[language] for language in targets(options)}


def held_out(options: Options) -> HeldOutFilter | None:
    """The filter against held-out texts, if any are named. Raises PipelineError."""
    sources = find_sources(options.heldout)
    if not sources:
        return None
    return HeldOutFilter(sources, ngram=options.heldout_ngram, rouge=options.rouge_threshold)


def quality(options: Options) -> QualityFilter | None:
    """The classifier that examples must please, if one is named. Raises PipelineError."""
    if not options.quality_model:
        return None
    return QualityFilter(options.quality_model, options.quality_label, options.min_quality)


def other_models(options: Options) -> dict[str, str]:
    """The model of the judge's role, if another one than the writer judges."""
    return {"judge": options.judge_model} if options.judge_model and options.min_judge_score else {}


def check_models(options: Options) -> None:
    """Refuse models that are not there, before a run directory is touched. Raises PipelineError."""
    check_engine(options, [options.judge_model] if options.judge_model else [])
    if options.batch_api and "completion" in (options.style, options.answer_style):
        problem = "a batch file holds chat requests only, and a style is completion"
        raise PipelineError("--batch-api", problem, "Use --style chat --answer-style chat.")
    if options.judge_model and not options.min_judge_score:
        problem = f"got {options.judge_model}, but --min-judge-score 0 asks no judge"
        raise PipelineError("--judge-model", problem, "Give a score from 1 to 5, or leave the model out.")
    if options.evolve_frac and options.variant == "alpaca":
        problem = "Alpaca's variant proposes whole examples, and an instruction alone is evolved"
        raise PipelineError("--evolve-frac", problem, "Leave it out, or --variant alpaca.")
    quality(options)
    if options.embedding_model:
        encoder(options).check()


def encoder(options: Options) -> Encoder:
    """What makes vectors of texts; nothing is loaded yet."""
    kept = "" if options.cache == "off" else str(Path(options.cache_file).with_name("vectors.sqlite"))
    return encoder_for(options.encoder_settings(kept))


def plan_for(options: Options, engine: Engine) -> Plan:
    """The settings that suit an engine."""
    return plan(
        options,
        model=engine.model,
        can_score=engine.can_score,
        has_chat=engine.has_chat,
        can_structure=engine.can_structure,
    )


def plan(
    options: Options, *, model: str, can_score: bool, has_chat: bool, can_structure: bool = False
) -> Plan:
    """The state machine's settings; "auto" is decided here."""
    small = options.engine == "embedded" or not (options.model and has_chat)
    style = ("completion" if small else "chat") if options.style == "auto" else options.style
    answer = (
        ("chat" if has_chat else "completion") if options.answer_style == "auto" else options.answer_style
    )
    decision = (
        ("rule" if style == "completion" else "model")
        if options.input_decision == "auto"
        else options.input_decision
    )
    same = (
        "variant",
        "seed",
        "round",
        "num_human",
        "num_machine",
        "num_proposals",
        "classification_frac",
        "evolve_frac",
        "max_shown",
        "num_instances",
        "max_labels",
        "min_judge_score",
        "rouge_threshold",
        "embedding_threshold",
        "min_relevance",
        "classification_margin",
        "min_plausibility",
        "prompt_reuse",
    )
    return Plan(
        model=model,
        can_score=can_score and (style == "completion" or options.engine != "openai"),
        structured=options.structured and can_structure and style == "chat",
        style=style,
        answer_style=answer,
        input_decision=decision,
        sampling=_sampling(options),
        encoder=encoder(options),
        quality=quality(options),
        prime=options.prime and style == "completion",
        max_surprisal=options.max_surprisal or (math.inf if options.model else _MAX_SURPRISAL),
        max_proposals=options.max_proposals or 12 * max(targets(options).values()) + 20,
        screen=ScreenLimits(options.min_words, options.max_words),
        validate=ValidateLimits(min_output=options.min_output, max_output=options.max_output),
        **{name: getattr(options, name) for name in same},
    )


def _sampling(options: Options) -> dict[str, Sampling]:
    """How each kind of answer is drawn.

    A whole example of Alpaca's variant gets the tokens of its three parts.
    """
    o, whole = options, options.variant == "alpaca"
    proposal = o.propose_max_tokens + whole * (o.input_max_tokens + o.answer_max_tokens)
    return {
        "propose": Sampling(o.propose_temperature, o.propose_top_p, max_tokens=proposal),
        "labels": Sampling(o.input_temperature, o.input_top_p, max_tokens=min(48, o.input_max_tokens)),
        "input": Sampling(o.input_temperature, o.input_top_p, max_tokens=o.input_max_tokens),
        "answer": Sampling(
            o.answer_temperature, o.answer_top_p, o.answer_frequency_penalty, o.answer_max_tokens
        ),
    }


def pools(
    seeds: dict[str, list[SeedTask]],
    prompts: Prompts,
    settings: Plan,
    wanted: dict[str, int],
    earlier: Earlier | None = None,
) -> list[Pool]:
    """One pool per language."""
    before = earlier or {}
    return [
        Pool(language, mine, prompts, settings, wanted[language], before.get(language, ()))
        for language, mine in seeds.items()
    ]


def seed_facts(paths: Sequence[str]) -> list[dict[str, Any]]:
    """What the dataset card says of each seed file."""
    return [
        {"path": str(shown(f)), "sha256": file_digest(f), "count": len(load_seeds([str(f)]))}
        for f in seed_files(paths)
    ]
