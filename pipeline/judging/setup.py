"""From options to the parts of a preferences run: prompts, judges, models, plan."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import as_dict
from pipeline.engines.base import Engine, Sampling
from pipeline.engines.open import check_engine
from pipeline.engines.options import MANNER
from pipeline.errors import PipelineError
from pipeline.format.sources import Source, find_sources
from pipeline.judging.flow import Language, Plan, role
from pipeline.judging.model_judge import Ask
from pipeline.judging.options import CHECKS, HUMAN, PAIRWISE, REWARD, SCALAR, Options
from pipeline.judging.prompt_rows import Asked
from pipeline.judging.scores import Scorer
from pipeline.records import LANGUAGES
from pipeline.rundir import file_digest
from pipeline.stages.prompts import Prompts
from pipeline.stages.words import load_words
from pipeline.train.data import newest_dataset

ASKED = frozenset((PAIRWISE, SCALAR))  # judges that are models behind the engine
_NOT_CONFIG = ("run", "resume", "overwrite")
_FILES = ("compare", "rate")


def sources(options: Options, root: Path) -> list[Source]:
    """What the prompts are read from; none named: the newest finished dataset. Raises PipelineError."""
    return find_sources(options.data or (str(newest_dataset(root)),))


def config(options: Options, read: Sequence[Source]) -> dict[str, Any]:
    """The options that decide the result."""
    every = {k: v for k, v in as_dict(options).items() if k not in (*_NOT_CONFIG, *MANNER)}
    return {**every, "data": [source.name for source in read]}


def manner(options: Options) -> dict[str, Any]:
    """The options that say how the answers are had."""
    return {name: getattr(options, name) for name in MANNER}


def inputs(options: Options, read: Sequence[Source]) -> dict[str, str]:
    """The digests of every file that is read: prompts' rows, the judge's prompts, word lists."""
    found, files = Prompts(options.prompts), list[Path]()
    for language in LANGUAGES:
        files += [found.path(f"{language}/{name}.jinja") for name in _FILES]
        files.append(found.path(f"{language}/words.yaml"))
    names = {f"prompts/{file.parent.name}/{file.name}": file_digest(file) for file in files}
    return {source.name: source.digest() for source in read} | names


def judges(options: Options, asked: Sequence[Asked]) -> tuple[str, ...]:
    """The judges asked for, else those that suit the prompts. Raises PipelineError for one with no say."""
    checked = any(one.prompt.verifier for one in asked)
    ranked = any(answer.score is not None for one in asked for answer in one.given)
    if not options.judges:
        if options.reward_model:
            return (REWARD,)
        return (CHECKS,) if checked else (HUMAN,) if ranked else (PAIRWISE,)
    if CHECKS in options.judges and not checked:
        fix = "Add some with --constraints 1, or name another judge."
        raise PipelineError("--judges checks", "no prompt has a verifier, expected one at least", fix)
    if HUMAN in options.judges and not ranked:
        problem = "no answer in the rows has a score or rank, expected one at least"
        raise PipelineError("--judges human", problem, "Add 'answers': [{'text', 'rank'}, ...] to the rows.")
    return tuple(dict.fromkeys(options.judges))


def check(options: Options, named: Sequence[str]) -> None:
    """Refuse what does not fit together and models that are not there. Raises PipelineError."""
    if (REWARD in named) != bool(options.reward_model):
        problem = "it goes with --judges reward and with nothing else"
        raise PipelineError("--reward-model", problem, "Name both, or neither.")
    if options.copies > 1 and not options.constraints:
        raise PipelineError(
            "--copies", "the copies would be the same", "Add --constraints 1, or leave it out."
        )
    if options.judge_model and not ASKED & set(named):
        problem = f"none of the judges ({', '.join(named)}) is a model that is asked"
        raise PipelineError("--judge-model", problem, f"Add --judges {PAIRWISE} or {SCALAR}.")
    check_engine(options, [*options.other_models, *filter(None, [options.judge_model])])


def check_chat(options: Options, engine: Engine) -> None:
    """Refuse a policy that cannot be asked. Raises PipelineError."""
    if options.num_answers and not engine.has_chat:
        fix = "Train it with python -m pipeline.sft first, which gives it one."
        raise PipelineError(f"model {engine.model}", "it has no chat template", fix)


def roles(options: Options, named: Sequence[str]) -> dict[str, str]:
    """The models of all roles but the first writer's."""
    found = {role(place): model for place, model in enumerate(options.other_models, 1)}
    if options.judge_model and ASKED & set(named):
        found["judge"] = options.judge_model
    return found


def plan(options: Options, named: tuple[str, ...], engine: Engine | None) -> Plan:
    """The state machine's settings; `engine` is None where nothing is asked."""
    scores = engine is not None and engine.can_score and options.engine != "openai"
    return Plan(
        models=(engine.model if engine else "", *options.other_models),
        temperatures=options.temperatures,
        sampling=Sampling(top_p=options.top_p, max_tokens=options.max_tokens),
        num_answers=options.num_answers,
        seed=options.seed,
        judges=named,
        ask=Ask(scores, engine is not None and engine.can_structure),
        reference=options.reference_answer,
        max_similarity=options.max_similarity,
    )


def languages(options: Options, has_chat: bool) -> dict[str, Language]:
    """The judge's prompts and the word lists of every language."""
    found, style = Prompts(options.prompts), "chat" if has_chat else "completion"
    return {
        language: Language(
            found.get(language, "compare", style),
            found.get(language, "rate", style),
            load_words(found.path(f"{language}/words.yaml")),
        )
        for language in LANGUAGES
    }


def reward_model(options: Options, named: Sequence[str]) -> Scorer | None:
    """The reward model, if it is a judge. Raises PipelineError."""
    if REWARD not in named:
        return None
    from pipeline.train import reward_model as trained

    found: Scorer = trained.load(options.reward_model)
    return found


def how_to_go_on(path: Path, why: str = "Stopped") -> str:
    """What to tell the user of a run that was stopped."""
    said = f"\n{why.rstrip('.')}; every answer received is kept. Go on with:\n"
    return f"{said}  python -m pipeline.preferences --resume --run {shlex.quote(str(path))}"
