"""Alpaca's way of making data (Taori et al. 2023, generate_instruction.py), as a loop to compare with.

Faithful in: per step one call of five prompts; each shows three seed tasks, drawn at random from the seeds
only, as the head of a list of twenty ("###", then "4. Instruction: ", "4. Input:" and "4. Output:" with their
texts); a text completion at temperature 1, top_p 1 that may not end by itself (end tokens are biased away)
and stops at item 20; max_tokens shrinks by a fifth where the server says that it does not fit; all five are
waited for; the last item of an answer that was cut off is left out, as is whatever does not split into three
fields; the filters (3 < words <= 150, words for what a text model cannot do, "Write a program", a start with
punctuation or with a character that is not ASCII); ROUGE-L by rouge_score's own functions, over processes,
against every seed and every kept instruction, at most 0.7; the whole file is written again after every step;
only then the next step.

Not faithful in: the wording of the prompt (ours, the same demands), max_tokens (what fits the window; 3072
there), the number of processes (one per core; 16 there) and, in its favour, one pool of processes for the
whole loop, where Alpaca starts a new one for every candidate.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import string
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import openai
from rouge_score import rouge_scorer

BATCH, SHOWN, ITEMS, LIKE = 5, 3, 20, 0.7
SMOLLM2_ENDS = (0, 2)  # <|endoftext|>, <|im_end|>
HEAD = f"""Write {ITEMS} varied tasks for testing how well a language model follows instructions. The demands:
1. Do not use a verb twice: variety counts.
2. Mix questions and commands, and vary the wording.
3. Cover many kinds of task: open questions, classification, editing, summaries, and others.
4. A language model must be able to do the task: no pictures, no sound, no alarms, no appointments.
5. English only.
6. An instruction has one or two sentences.
7. Give a realistic input of at most 100 words where one is needed, else "<noinput>".
8. The output is a fitting answer of at most 100 words.

List of {ITEMS} tasks:
"""
_UNSUITED = "image graph picture file map"  # and their plurals
_OTHER = "draw plot video audio music flowchart diagram"
_WORDS = [*(f"{word}s?" for word in _UNSUITED.split()), *_OTHER.split(), "go to"]
_CANNOT = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)


@dataclass
class Looped:
    """What a loop did."""

    kept: list[dict[str, str]] = field(default_factory=list)
    steps: int = 0
    proposed: int = 0
    tokens: int = 0
    asking: float = 0.0  # seconds in which a call was under way
    seconds: float = 0.0


def alpaca_loop(
    base_url: str, model: str, seeds: Sequence[dict[str, str]], minutes: float, max_tokens: int, seed: int
) -> Looped:
    """Make examples for that long, and to the end of the step that is under way then."""
    rng, out, fields = random.Random(seed), Looped(), ("instruction", "input", "output")
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    against = [scorer._tokenizer.tokenize(task["instruction"]) for task in seeds]
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=600)
    with (
        multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool,
        tempfile.TemporaryDirectory() as folder,
    ):
        pool.map(partial(_f_measure, ["a"]), [["a"]] * 64)  # they are up
        began = time.monotonic()
        while (asked := time.monotonic()) < began + 60 * minutes:
            prompts = [prompt(rng.sample(list(seeds), SHOWN)) for _ in range(BATCH)]
            answer = ask(client, model, prompts, max_tokens)
            answered, fresh, proposed = time.monotonic(), list[dict[str, str]](), 0
            for choice in answer.choices:
                for task in parse(choice.text, choice.finish_reason):
                    proposed += 1
                    tokens = scorer._tokenizer.tokenize(task[0])
                    if max(pool.map(partial(_f_measure, tokens), against)) <= LIKE:
                        against.append(tokens)
                        fresh.append(dict(zip(fields, task, strict=True)))
            (Path(folder) / "regen.json").write_text(json.dumps([*out.kept, *fresh], indent=4))
            out.kept += fresh
            out.steps, out.proposed = out.steps + 1, out.proposed + proposed
            out.tokens += answer.usage.completion_tokens
            out.asking, out.seconds = out.asking + answered - asked, time.monotonic() - began
    return out


def _f_measure(one: list[str], other: list[str]) -> float:
    return float(rouge_scorer._score_lcs(one, other).fmeasure)


def prompt(shown: Sequence[dict[str, str]]) -> str:
    """The demands and the first tasks of the list."""
    text = HEAD
    for number, task in enumerate(shown, 1):
        instruction = re.sub(r"\s+", " ", task["instruction"]).strip().rstrip(":")
        text += (
            f"###\n{number}. Instruction: {instruction}\n{number}. Input:\n{task['input'] or '<noinput>'}\n"
        )
        text += f"{number}. Output:\n{task['output']}\n"
    return f"{text}###\n{len(shown) + 1}. Instruction:"


def ask(client: openai.OpenAI, model: str, prompts: Sequence[str], max_tokens: int) -> Any:
    """Ask all prompts in one call, for fewer tokens where these do not fit; without a seed, as there."""
    while True:
        try:
            return client.completions.create(
                model=model,
                prompt=list(prompts),
                temperature=1.0,
                top_p=1.0,
                max_tokens=max_tokens,
                stop=[f"\n{ITEMS}", f"{ITEMS}."],
                logit_bias={str(token): -100 for token in SMOLLM2_ENDS},
            )
        except openai.BadRequestError:
            if max_tokens < 64:
                raise
            max_tokens = int(max_tokens * 0.8)


def parse(text: str, finish_reason: str) -> Iterator[tuple[str, str, str]]:
    """The tasks that have three fields and pass Alpaca's filters."""
    blocks = re.split("###", f"{SHOWN + 1}. Instruction:{text}")
    for number, block in enumerate(blocks, SHOWN + 1):
        if finish_reason == "length" and number == SHOWN + len(blocks):
            continue
        parts = re.split(rf"{number}\.\s+(Instruction|Input|Output):", block)
        if len(parts) != 7:
            continue
        instruction, given, output = (parts[i].strip() for i in (2, 4, 6))
        if passes(instruction):
            yield instruction, "" if given.lower() == "<noinput>" else given, output


def passes(instruction: str) -> bool:
    """Alpaca's own filters."""
    if not 3 < len(instruction.split()) <= 150 or _CANNOT.search(instruction):
        return False
    first, program = instruction[0], instruction.startswith("Write a program")
    return not program and first not in string.punctuation and first.isascii()


def passing(options: Any, made: Sequence[dict[str, str]]) -> int:
    """How many examples our own screening, dedup and validation keep, in order."""
    from pipeline.stages import setup
    from pipeline.stages.prompts import Prompts
    from pipeline.stages.screen import screen
    from pipeline.stages.validate import validate

    plan = setup.plan(options, model=options.model, can_score=False, has_chat=True)
    seeds = setup.seeds_by_language(options)
    pool, kept = setup.pools(seeds, Prompts(options.prompts), plan, setup.targets(options))[0], 0
    shown = (*pool.prompt_texts, HEAD)
    for number, row in enumerate(made):
        drop = screen(row["instruction"], "en", pool.words, plan.screen, shown)
        drop = drop or pool.compare(str(number), row["instruction"])[0]
        drop = drop or validate(
            **row,
            finish_reason="stop",
            language="en",
            is_classification=False,
            words=pool.words,
            limits=plan.validate,
            prompt_texts=shown,
        )
        kept += not (drop or pool.off_topic(**row))
    return kept
