"""The steps that make an example of a task: input, answer, validate, judge.

Each is an `ask_*` and a `took_*` function.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.engines.base import Request, Response
from pipeline.records import Drop
from pipeline.stages.books import Ask
from pipeline.stages.instantiate import answer_request, input_request, labelled_input_request, parse_input
from pipeline.stages.judge import judge_request, parse_score
from pipeline.stages.validate import conflict, refers_to_input, validate

if TYPE_CHECKING:
    from pipeline.stages.flow import SelfInstruct


def ask_labelled(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask for an input whose answer is the label."""
    pool, sampling = ask.pool, run.plan.sampling["input"]
    prompt = pool.prompt("labelled_input")
    return labelled_input_request(
        prompt, pool.shown, ask.task.instruction, ask.label, pool.language, sampling
    )


def took_labelled(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """The label is the output of this input."""
    ask.input, ask.output = parse_input(response.text), ask.label
    if not ask.input:
        return run.books.drop_instance(
            ask, "instantiate", Drop("empty_input", f"no input for label '{ask.label}'")
        )
    return check(run, ask, response.finish_reason)


def ask_input(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask for the text that the task is to be done on."""
    pool, instruction, sampling = ask.pool, ask.task.instruction, run.plan.sampling["input"]
    optional = not refers_to_input(instruction, pool.words)
    return input_request(
        pool.prompt("input"), pool.shown, instruction, pool.language, sampling, optional=optional
    )


def took_input(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """Go on to the answer."""
    if response.finish_reason == "length":
        return run.books.drop_instance(
            ask, "instantiate", Drop("truncated_input", response.text[-80:].strip() or "no text")
        )
    ask.input = parse_input(response.text)
    return ask.pool.go_on(replace(ask, stage="answer"))


def ask_answer(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask for the output of an open task."""
    pool, sampling = ask.pool, run.plan.sampling["answer"]
    return answer_request(
        pool.prompt("answer"), pool.shown, ask.task.instruction, ask.input, pool.language, sampling
    )


def compared(run: SelfInstruct, ask: Ask, response: Response) -> list[str]:
    """The texts whose meaning `took_answer` will probably compare."""
    return ask.pool.request_and_answer(ask.task.instruction, ask.input, response.text.strip())


def took_answer(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """Validate the answer."""
    ask.output = response.text.strip()
    check(run, ask, response.finish_reason)


def check(run: SelfInstruct, ask: Ask, finish_reason: str) -> None:
    """Validate a whole instance; what passes is kept, or judged first."""
    pool, task = ask.pool, ask.task
    drop = validate(
        task.instruction,
        ask.input,
        ask.output,
        finish_reason=finish_reason,
        language=pool.language,
        is_classification=task.is_classification,
        words=pool.words,
        limits=run.plan.validate,
        prompt_texts=pool.prompt_texts,
    )
    drop = drop or conflict(ask.subject.kept, ask.input, ask.output)
    if run.held_out and not drop:
        drop = run.held_out.example(task.instruction, ask.input, ask.output)
    drop = drop or pool.off_topic(task.instruction, ask.input, ask.output)
    if drop:
        return run.books.drop_instance(ask, "validate", drop)
    if quality := run.plan.quality:
        score = quality.score(task.instruction, ask.input, ask.output)
        if drop := quality.verdict(score):
            return run.books.drop_instance(ask, "validate", drop)
        ask.scores = {"quality": round(score, 4)}
    if run.plan.min_judge_score:
        return pool.go_on(replace(ask, stage="judge"))
    return run.books.keep(ask, ask.scores)


def ask_judge(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask the judge for a score."""
    prompt = ask.pool.prompt("judge")
    return judge_request(
        prompt,
        ask.task.instruction,
        ask.input,
        ask.output,
        can_score=run.plan.can_score,
        structured=run.plan.structured,
    )


def took_judge(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """Keep what scores enough."""
    score, least = parse_score(response), run.plan.min_judge_score
    if score is None:
        return run.books.drop_instance(ask, "judge", Drop("no_judge_score", response.text[:80] or "no text"))
    if score < least:
        return run.books.drop_instance(ask, "judge", Drop("low_judge_score", f"score {score} < {least:g}"))
    return run.books.keep(ask, {**ask.scores, "judge": score})
