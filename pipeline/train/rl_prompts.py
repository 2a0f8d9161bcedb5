"""From files to prompts that answers are drawn for: read, checked, split, in tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.mixing import split
from pipeline.format.templates import Template, Unproved
from pipeline.judging.prompt_rows import read_prompts
from pipeline.records import Prompt
from pipeline.train.data import Input, left_out
from pipeline.train.rl_options import RLOptions

TOO_LONG = "prompt_too_long"
ALIKE = "scored_alike"
_COPY = "#"  # before the number of a prompt's copy in its name


@dataclass
class PromptData:
    """Prompts to train on and prompts held out, in the order of the files; what was left out, and why."""

    train: list[Prompt] = field(default_factory=list)
    validation: list[Prompt] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)


def load(options: RLOptions, given: Input, template: Template) -> PromptData:
    """Read all prompts, leave out what is too long, split the rest.

    Raises PipelineError for the first bad row, unless `options.bad_rows` is "drop".
    """
    sources = [source for part in given.sources for source in part]
    read, data = read_prompts(options, sources, options.seed), PromptData()
    data.dropped = [left_out(row["id"], row["reason"], row["evidence"]) for row in read.dropped]
    fitting = [one.prompt for one in read.asked if _fits(one.prompt, options, template, data)]
    if not fitting:
        fix = "See dropped.jsonl for the reasons." if data.dropped else "Name other data."
        raise PipelineError("data", "no prompt is left to train on", fix)
    train, held = split([_family(one) for one in fitting], options.validation_frac, options.seed)
    data.train, data.validation = [fitting[i] for i in train], [fitting[i] for i in held]
    if options.min_score_std:
        data.train = _apart(data.train, options.min_score_std, data.dropped)
    return data


def _apart(prompts: Sequence[Prompt], least: float, dropped: list[dict[str, str]]) -> list[Prompt]:
    """The prompts whose scores lay far enough apart. Raises PipelineError where that is not known."""
    if all(one.score_std is None for one in prompts):
        fix = "Give the prompts.jsonl of a run of pipeline.preferences."
        raise PipelineError(f"--min-score-std {least:g}", "no prompt has a 'score_std'", fix)
    kept = [one for one in prompts if one.score_std is None or one.score_std >= least]
    names = {one.id for one in kept}
    dropped += [
        left_out(one.id, ALIKE, f"standard deviation {one.score_std:g}")
        for one in prompts
        if one.id not in names
    ]
    return kept


def columns(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """The prompts as rows of a trainer's dataset; verifiers as JSON, as tables pad objects with None."""
    return [
        {
            "prompt": [dict(message) for message in one.messages],
            "id": one.id,
            "language": one.language,
            "verifier": json.dumps(one.verifier) if one.verifier else "",
        }
        for one in prompts
    ]


def _family(prompt: Prompt) -> str:
    """What copies of one prompt with other constraints share."""
    name, sign, number = prompt.id.rpartition(_COPY)
    return name if sign and number.isdigit() else prompt.id


def _fits(prompt: Prompt, options: RLOptions, template: Template, data: PromptData) -> bool:
    try:
        length = len(template.prompt_ids(prompt.messages))
        template.refuse_special(prompt.messages)
    except Unproved as reason:
        if options.bad_rows == "refuse":
            fix = "Fix the row, or leave such rows out with --bad-rows drop."
            raise PipelineError(prompt.id, str(reason), fix) from None
        data.dropped.append(left_out(prompt.id, reason.reason, str(reason)))
        return False
    if length > options.max_prompt_length:
        evidence = f"{length} tokens, --max-prompt-length is {options.max_prompt_length}"
        data.dropped.append(left_out(prompt.id, TOO_LONG, evidence))
    return length <= options.max_prompt_length
