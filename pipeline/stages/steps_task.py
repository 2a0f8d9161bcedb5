"""The steps that make a task: propose, screen, dedup, classify, labels.

Each is an `ask_*` and a `took_*` function.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.engines.base import Request, Response
from pipeline.records import Drop, Task
from pipeline.stages.alpaca import alpaca_request, parse_alpaca
from pipeline.stages.books import Ask, Candidate, not_needed
from pipeline.stages.classify import (
    ANSWERS,
    ask_request,
    closed_question,
    compare_request,
    implausible,
    parse_classification,
    told_by_verb,
)
from pipeline.stages.evolve import Operation, copied, evolve_request, failed, opening, parse_evolved
from pipeline.stages.instantiate import labels_request, named_labels, parse_labels
from pipeline.stages.propose import Demonstrations, parse_proposals, propose_request
from pipeline.stages.screen import screen
from pipeline.stages.validate import refers_to_input

if TYPE_CHECKING:
    from pipeline.stages.flow import SelfInstruct

_EVOLVED = 2.5  # times as much surprisal: half of what was evolved is its parent, or the first words given


def ask_propose(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask for new instructions, or for whole examples in Alpaca's variant."""
    pool, plan = ask.pool, run.plan
    rng = random.Random(f"{plan.seed}/{pool.language}/proposal {pool.proposals}")
    evolution = pool.evolution and pool.parents.draw(pool.evolution, pool.proposals)
    if pool.proposals % plan.prompt_reuse == 0:
        pool.draw_demonstrations(rng)
    pool.proposals += 1
    pool.proposals_in_flight += 1
    if evolution:
        return _ask_evolved(run, ask, *evolution)
    ask.shown, classification = pool.shown_now, pool.classification_now
    ask.opener = rng.choice(pool.openers(classification)) if plan.prime else ""
    kind = (
        "propose_alpaca"
        if plan.variant == "alpaca"
        else "propose_classification"
        if classification
        else "propose"
    )
    prompt, sampling = pool.prompt(kind), plan.sampling["propose"]
    ask.label = prompt.name
    if plan.variant == "alpaca":
        return alpaca_request(prompt, pool.seeds_now, ask.opener, plan.num_proposals, pool.language, sampling)
    return propose_request(prompt, ask.shown, ask.opener, plan.num_proposals, sampling)


def _ask_evolved(
    run: SelfInstruct, ask: Ask, operation: Operation, lead: str, parent: tuple[str, str]
) -> Request:
    """Ask what becomes of an instruction."""
    key, text = parent
    prompt = ask.pool.prompt("evolve")
    ask.shown, ask.operation, ask.label = Demonstrations((text,), (key,)), operation.name, prompt.name
    ask.opener = opening(text, lead, in_depth=operation.in_depth) if run.plan.prime else ""
    return evolve_request(prompt, operation, text, ask.opener, run.plan.sampling["propose"])


def compared(run: SelfInstruct, ask: Ask, response: Response) -> list[str]:
    """The texts whose meaning `took_propose` will probably compare."""
    if not ask.pool.embeds:
        return []
    found = [text for text, drop, _ in _parsed(run, ask, response) if not drop]
    return [*found, *(ask.shown.texts if ask.operation and ask.shown else ())]


def _parsed(
    run: SelfInstruct, ask: Ask, response: Response
) -> list[tuple[str, Drop | None, tuple[str, str]]]:
    """The proposed instructions, what is wrong with each, and in Alpaca's variant its input and output."""
    shown, chat, why = ask.shown, ask.pool.prompt("propose").chat, response.finish_reason
    assert shown is not None
    if ask.operation:
        return [(text, drop, ("", "")) for text, drop in _evolved(ask, response, shown.texts[0])]
    if run.plan.variant == "alpaca":
        found = parse_alpaca(response.text, ask.opener, chat=chat, finish_reason=why)
        return [(p.instruction, p.drop, (p.input, p.output)) for p in found]
    parsed = parse_proposals(response.text, ask.opener, chat=chat, finish_reason=why, shown=shown.texts)
    return [(text, drop, ("", "")) for text, drop in parsed]


def _evolved(ask: Ask, response: Response, parent: str) -> Iterator[tuple[str, Drop | None]]:
    """The evolved instruction, if there is one, and why it is none."""
    pool, evolution = ask.pool, ask.pool.evolution
    assert evolution is not None
    operation, chat = evolution.named(ask.operation), pool.prompt("evolve").chat
    found = parse_evolved(
        response.text, ask.opener, operation, chat=chat, finish_reason=response.finish_reason
    )
    if found:
        text, drop = found
        drop = drop or failed(text, parent, operation, evolution, pool.words)
        yield text, drop or copied(text, operation, pool.words, pool.language)


def took_propose(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """Parse the proposals and take each in; those that pass screening and dedup go on."""
    pool, shown = ask.pool, ask.shown
    assert shown is not None
    pool.proposals_in_flight -= 1
    for index, (text, drop, (given, said)) in enumerate(_parsed(run, ask, response)):
        provenance: dict[str, Any] = {
            "model": run.plan.model,
            "requests": {"propose": ask.number},
            "prompts": {"propose": pool.stamp(ask.label)},
            "shown": list(shown.ids),
            "round": run.plan.round,
        }
        if ask.operation:
            provenance["evolved"] = {"from": shown.ids[0], "operation": ask.operation}
        key = f"{pool.language}-{ask.number:06d}-{index}"
        candidate = Candidate(Task(key, text, pool.language, False, provenance), pool)
        run.books.open_candidate(candidate)
        if not _admitted(run, candidate, drop, shown if ask.operation else None):
            continue
        if run.plan.variant == "alpaca":
            made = replace(ask, stage="validate", candidate=candidate, input=given, output=said)
            run.validate(run.books.open_instance(candidate, made), "stop")
        else:
            pool.queue.append(Ask("classify", pool, candidate))


def _harder(candidate: Candidate) -> bool:
    """Whether it was evolved in depth."""
    origin, evolution = candidate.task.provenance.get("evolved"), candidate.pool.evolution
    return bool(origin and evolution and evolution.named(origin["operation"]).in_depth)


def _admitted(
    run: SelfInstruct, candidate: Candidate, drop: Drop | None, parent: Demonstrations | None
) -> bool:
    """Screen a candidate, look for what it is too like, and put it into the pool; False if it was dropped.

    `parent` is what it was evolved from.
    """
    pool, task, stage = candidate.pool, candidate.task, "parse"
    if not drop and pool.full:
        drop = not_needed(pool)
    if not drop:
        stage = "screen"
        drop = screen(task.instruction, pool.language, pool.words, run.plan.screen, pool.proposing_texts)
    if not drop and run.held_out:
        stage = "heldout"
        drop = run.held_out.instruction(task.instruction)
    if not drop:
        stage, harder = "dedup", bool(parent and _harder(candidate))
        if parent and not harder:
            drop = pool.lost_field(task.instruction, parent.texts[0])
    if not drop:
        drop, nearest = pool.compare(task.id, task.instruction, parent.ids[0] if parent and harder else "")
    if drop:
        run.books.drop_candidate(candidate, stage, drop)
        return False
    candidate.task = replace(task, provenance={**task.provenance, "nearest": nearest})
    pool.machine.add(task.id, task.instruction)
    return True


def ask_classify(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask whether the task is one of classification, in the way the engine and the prompts' style allow."""
    pool = ask.pool
    if run.plan.compares:
        return compare_request(pool.prompt("classify_list"), pool.classify_shown, ask.task.instruction)
    prompt = pool.prompt("classify")
    return ask_request(
        prompt,
        pool.classify_shown,
        ask.task.instruction,
        pool.language,
        can_score=run.plan.can_score,
        structured=run.plan.structured,
    )


def took_classify(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """Send the task to its labels, or open its instances."""
    candidate, pool, plan = ask.subject, ask.pool, run.plan
    drop = not_needed(pool) if pool.full else None
    if not drop and plan.compares and pool.language == "en":
        most = plan.max_surprisal * (_EVOLVED if candidate.evolved else 1)
        drop = implausible(response, candidate.task.instruction, plan.min_plausibility, most)
    if drop:
        return run.books.drop_candidate(candidate, "classify", drop)
    prompt = pool.prompt("classify_list" if plan.compares else "classify")
    candidate.note("classify", ask.number, pool.stamp(prompt.name))
    verdict = bool(parse_classification(response, plan.classification_margin if plan.compares else 0.0))
    if plan.compares and (told := told_by_verb(candidate.task.instruction)) is not None:
        verdict = told
    closed = plan.compares and closed_question(candidate.task.instruction, pool.words)
    candidate.task = replace(candidate.task, is_classification=verdict or closed)
    if closed:  # the labels need not be asked for
        return _open_labelled(run, candidate, ANSWERS[pool.language])
    if verdict:
        return pool.go_on(Ask("labels", pool, candidate))
    asks_input = plan.input_decision == "model" or refers_to_input(candidate.task.instruction, pool.words)
    first = "input" if asks_input else "answer"
    begun = [Ask(first, pool, candidate) for _ in range(plan.num_instances)]
    return pool.go_on(*(run.books.open_instance(candidate, ask) for ask in begun))


def ask_labels(run: SelfInstruct, ask: Ask, number: int) -> Request:
    """Ask which labels the task chooses from."""
    prompt, sampling = ask.pool.prompt("labels"), run.plan.sampling["labels"]
    return labels_request(
        prompt, ask.pool.shown, ask.task.instruction, sampling, structured=run.plan.structured
    )


def took_labels(run: SelfInstruct, ask: Ask, response: Response) -> None:
    """Open an instance for each label, so that labels are balanced."""
    candidate, pool = ask.subject, ask.pool
    labels = parse_labels(response.text)
    if run.plan.style == "completion":  # a small model lists labels for anything
        labels = named_labels(labels, candidate.task.instruction)
    candidate.note("labels", ask.number, pool.stamp(pool.prompt("labels").name))
    if pool.full or not labels:
        drop = not_needed(pool) if pool.full else Drop("no_labels", response.text[:80] or "no text")
        return run.books.drop_candidate(candidate, "labels", drop)
    return _open_labelled(run, candidate, labels)


def _open_labelled(run: SelfInstruct, candidate: Candidate, labels: Sequence[str]) -> None:
    """One instance for each label, an input for it to be asked for."""
    wanted = labels[: run.plan.max_labels]
    begun = [Ask("labelled_input", candidate.pool, candidate, label=label) for label in wanted]
    candidate.pool.go_on(*(run.books.open_instance(candidate, ask) for ask in begun))
