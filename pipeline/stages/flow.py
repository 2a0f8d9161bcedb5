"""The Self-Instruct run as a state machine: what to ask next, and what each answer changes.

    propose -> screen -> dedup -> classify -> instantiate (labels, input, answer) -> validate -> (judge) -> kept

It is pure: no clock, no shared random state (every draw is seeded by run seed and request number), so replaying the
journal rebuilds it exactly. Later stages go first; new instructions are proposed when too few are under way.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.engines.base import Request, Response
from pipeline.ledger import Ledger
from pipeline.records import Drop, Example, Instance, Task
from pipeline.stages.classify import ask_request, compare_request, implausible, parse_classification
from pipeline.stages.instantiate import (
    answer_request,
    input_request,
    labelled_input_request,
    labels_request,
    named_labels,
    parse_input,
    parse_labels,
)
from pipeline.stages.judge import judge_request, parse_score
from pipeline.stages.pool import Plan, Pool
from pipeline.stages.propose import Demonstrations, parse_proposals, propose_request
from pipeline.stages.screen import screen
from pipeline.stages.validate import conflict, refers_to_input, validate


@dataclass
class Candidate:
    """An admitted task with the instances made for it so far."""

    task: Task
    pool: Pool
    open_instances: int = 0
    instances: int = 0
    kept: list[Instance] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)


@dataclass
class Ask:
    """One request's purpose; `key` names the instance from the input stage on."""

    stage: str
    pool: Pool
    candidate: Candidate | None = None
    key: str = ""
    label: str = ""
    input: str = ""
    output: str = ""
    request_ids: tuple[int, ...] = ()
    shown: Demonstrations | None = None
    opener: str = ""


class SelfInstruct:
    """Implements `scheduler.Job`; `on_keep` and `on_drop` receive examples and drop records as they are decided."""

    def __init__(
        self,
        plan: Plan,
        pools: list[Pool],
        on_keep: Callable[[Example], None],
        on_drop: Callable[[dict[str, Any]], None],
    ) -> None:
        self.plan, self.pools, self.on_keep, self.on_drop = plan, pools, on_keep, on_drop
        self.candidates, self.instances = Ledger("candidate"), Ledger("instance")
        self.asks: dict[int, Ask] = {}
        self._build = {
            "propose": self._ask_propose,
            "classify": self._ask_classify,
            "labels": self._ask_labels,
            "input": self._ask_input,
            "labelled_input": self._ask_labelled,
            "answer": self._ask_answer,
            "judge": self._ask_judge,
        }
        self._take = {
            "propose": self._took_propose,
            "classify": self._took_classify,
            "labels": self._took_labels,
            "input": self._took_input,
            "labelled_input": self._took_labelled,
            "answer": self._took_answer,
            "judge": self._took_judge,
        }

    # ---- scheduler.Job ----------------------------------------------------------------------------------------

    def next_request(self, number: int) -> Request | None:
        """Take the next piece of work from the language that is furthest from its goal."""
        for pool in sorted((p for p in self.pools if not p.full), key=lambda p: p.progress):
            if pool.queue:
                ask = pool.queue.popleft()
            elif pool.wants_proposals:
                ask = Ask("propose", pool)
            else:
                continue
            ask.request_ids += (number,)
            self.asks[number] = ask
            request = self._build[ask.stage](ask, number)
            return replace(request, sampling=replace(request.sampling, seed=self._seed(number)))
        return None

    def admit(self, number: int, response: Response) -> None:
        """Act on an answer. A failed request drops what it was for."""
        ask = self.asks.pop(number)
        if not response.error:
            self._take[ask.stage](ask, response)
        elif ask.stage == "propose":
            ask.pool.proposals_in_flight -= 1
        elif ask.key:
            self._drop_instance(ask, ask.stage, Drop("engine_error", response.error))
        elif ask.candidate:
            self._drop_candidate(ask.candidate, ask.stage, Drop("engine_error", response.error))

    def finish(self) -> None:
        """Close what was under way when the goal was reached, and prove that the ledger adds up."""
        for pool in self.pools:
            for ask in list(pool.queue):
                reason = "not_needed" if pool.full else "no_more_requests"
                drop = Drop(reason, f"{pool.kept} of {pool.target} examples were kept before its turn came")
                if ask.key:
                    self._drop_instance(ask, ask.stage, drop)
                elif ask.candidate:
                    self._drop_candidate(ask.candidate, ask.stage, drop)
            pool.queue.clear()
        self.candidates.check()
        self.instances.check()

    # ---- stage 1 to 3: propose, screen, dedup -----------------------------------------------------------------

    def _ask_propose(self, ask: Ask, number: int) -> Request:
        pool, plan = ask.pool, self.plan
        rng = random.Random(self._seed(number))
        if pool.proposals % plan.prompt_reuse == 0:
            pool.draw_demonstrations(rng)
        classification, ask.shown = pool.classification_now, pool.shown_now
        ask.opener = rng.choice(pool.openers(classification)) if plan.prime else ""
        pool.proposals += 1
        pool.proposals_in_flight += 1
        stage = "propose_classification" if classification else "propose"
        prompt = pool.prompt(stage)
        ask.label = prompt.name
        return propose_request(prompt, ask.shown, ask.opener, plan.num_proposals, plan.sampling["propose"])

    def _took_propose(self, ask: Ask, response: Response) -> None:
        pool, shown = ask.pool, ask.shown
        assert shown is not None
        pool.proposals_in_flight -= 1
        parsed = parse_proposals(
            response.text,
            ask.opener,
            chat=pool.prompt("propose").chat,
            finish_reason=response.finish_reason,
            shown=shown.texts,
        )
        for index, (text, drop) in enumerate(parsed[: self.plan.num_proposals + 2]):
            key = f"{pool.language}-{ask.request_ids[0]:06d}-{index}"
            provenance = {
                "model": self.plan.model,
                "requests": {"propose": ask.request_ids[0]},
                "prompts": {"propose": self._stamp(pool, ask.label)},
                "shown": list(shown.ids),
                "round": 0,
            }
            candidate = Candidate(Task(key, text, pool.language, False, provenance), pool)
            self.candidates.open(key)
            pool.open_candidates += 1
            self._admit_candidate(candidate, drop)

    def _admit_candidate(self, candidate: Candidate, drop: Drop | None) -> None:
        pool, task = candidate.pool, candidate.task
        if drop:
            return self._drop_candidate(candidate, "parse", drop)
        if pool.full:
            return self._drop_candidate(
                candidate, "parse", Drop("not_needed", f"{pool.kept} examples kept already")
            )
        drop = screen(task.instruction, pool.language, pool.words, self.plan.screen, pool.prompt_texts)
        if drop:
            return self._drop_candidate(candidate, "screen", drop)
        drop, nearest = pool.compare(task.id, task.instruction)
        if drop:
            return self._drop_candidate(candidate, "dedup", drop)
        candidate.task = replace(task, provenance={**task.provenance, "nearest": nearest})
        pool.machine.append((task.id, task.instruction))
        pool.queue.append(Ask("classify", pool, candidate))

    # ---- stage 4: classify ------------------------------------------------------------------------------------

    def _ask_classify(self, ask: Ask, number: int) -> Request:
        pool, instruction = ask.pool, self._task(ask).instruction
        if self.plan.can_score and self.plan.style == "completion":
            return compare_request(pool.prompt("classify_list"), pool.classify_shown, instruction)
        return ask_request(
            pool.prompt("classify"),
            pool.classify_shown,
            instruction,
            pool.language,
            can_score=self.plan.can_score,
        )

    def _took_classify(self, ask: Ask, response: Response) -> None:
        candidate, pool = self._candidate(ask), ask.pool
        if pool.full:
            return self._drop_candidate(
                candidate, "classify", Drop("not_needed", f"{pool.kept} examples kept already")
            )
        compared = self.plan.can_score and self.plan.style == "completion"
        verdict = bool(parse_classification(response, self.plan.classification_margin if compared else 0.0))
        if compared and pool.language == "en" and self.plan.min_plausibility:
            drop = implausible(response, candidate.task.instruction, self.plan.min_plausibility)
            if drop:
                return self._drop_candidate(candidate, "classify", drop)
        self._note(candidate, "classify", ask, prompt="classify_list" if compared else "classify")
        candidate.task = replace(candidate.task, is_classification=verdict)
        if verdict:
            pool.queue.append(Ask("labels", pool, candidate))
            return None
        for _ in range(self.plan.num_instances):
            needs = refers_to_input(candidate.task.instruction, pool.words)
            stage = "input" if needs or self.plan.input_decision == "model" else "answer"
            self._open_instance(candidate, Ask(stage, pool, candidate))
        return None

    # ---- stage 5: instantiate ---------------------------------------------------------------------------------

    def _ask_labels(self, ask: Ask, number: int) -> Request:
        return labels_request(
            ask.pool.prompt("labels"),
            ask.pool.shown,
            self._task(ask).instruction,
            self.plan.sampling["labels"],
        )

    def _took_labels(self, ask: Ask, response: Response) -> None:
        candidate = self._candidate(ask)
        labels = parse_labels(response.text)
        if self.plan.style == "completion":
            labels = named_labels(labels, candidate.task.instruction)
        self._note(candidate, "labels", ask)
        if not labels or ask.pool.full:
            drop = (
                Drop("no_labels", response.text[:80])
                if not labels
                else Drop("not_needed", "examples are enough")
            )
            return self._drop_candidate(candidate, "labels", drop)
        for label in labels[: self.plan.max_labels]:
            self._open_instance(candidate, Ask("labelled_input", ask.pool, candidate, label=label))
        return None

    def _ask_labelled(self, ask: Ask, number: int) -> Request:
        return labelled_input_request(
            ask.pool.prompt("labelled_input"),
            ask.pool.shown,
            self._task(ask).instruction,
            ask.label,
            ask.pool.language,
            self.plan.sampling["input"],
        )

    def _took_labelled(self, ask: Ask, response: Response) -> None:
        ask.input, ask.output = parse_input(response.text), ask.label
        if not ask.input:
            return self._drop_instance(
                ask, "instantiate", Drop("empty_input", f"no input for label '{ask.label}'")
            )
        return self._validate(ask, response.finish_reason)

    def _ask_input(self, ask: Ask, number: int) -> Request:
        task = self._task(ask)
        optional = not refers_to_input(task.instruction, ask.pool.words)
        return input_request(
            ask.pool.prompt("input"),
            ask.pool.shown,
            task.instruction,
            ask.pool.language,
            self.plan.sampling["input"],
            optional=optional,
        )

    def _took_input(self, ask: Ask, response: Response) -> None:
        if response.finish_reason == "length":
            return self._drop_instance(ask, "instantiate", Drop("truncated_input", response.text[-80:]))
        ask.input = parse_input(response.text)
        ask.pool.queue.append(replace(ask, stage="answer"))
        return None

    def _ask_answer(self, ask: Ask, number: int) -> Request:
        return answer_request(
            ask.pool.prompt("answer"),
            ask.pool.shown,
            self._task(ask).instruction,
            ask.input,
            ask.pool.language,
            self.plan.sampling["answer"],
        )

    def _took_answer(self, ask: Ask, response: Response) -> None:
        ask.output = response.text.strip()
        self._validate(ask, response.finish_reason)

    # ---- stage 6: validate, judge -----------------------------------------------------------------------------

    def _validate(self, ask: Ask, finish_reason: str) -> None:
        candidate, pool = self._candidate(ask), ask.pool
        task = candidate.task
        drop = validate(
            task.instruction,
            ask.input,
            ask.output,
            finish_reason=finish_reason,
            language=pool.language,
            is_classification=task.is_classification,
            words=pool.words,
            limits=self.plan.validate,
            prompt_texts=pool.prompt_texts,
        ) or conflict(candidate.kept, ask.input, ask.output)
        drop = drop or pool.off_topic(task.instruction, ask.input, ask.output)
        if drop:
            return self._drop_instance(ask, "validate", drop)
        if self.plan.min_judge_score:
            pool.queue.append(replace(ask, stage="judge"))
            return None
        return self._keep(ask, {})

    def _ask_judge(self, ask: Ask, number: int) -> Request:
        return judge_request(
            ask.pool.prompt("judge"),
            self._task(ask).instruction,
            ask.input,
            ask.output,
            can_score=self.plan.can_score,
        )

    def _took_judge(self, ask: Ask, response: Response) -> None:
        score = parse_score(response)
        if score is None or score < self.plan.min_judge_score:
            evidence = (
                f"score {score}, wanted {self.plan.min_judge_score}"
                if score
                else f"no score: {response.text[:60]}"
            )
            return self._drop_instance(
                ask, "judge", Drop("low_judge_score" if score else "no_judge_score", evidence)
            )
        return self._keep(ask, {"judge": score})

    def _keep(self, ask: Ask, scores: dict[str, float]) -> None:
        candidate, pool = self._candidate(ask), ask.pool
        if pool.full:
            return self._drop_instance(
                ask, "export", Drop("not_needed", f"{pool.kept} examples kept already")
            )
        task = candidate.task
        provenance = {
            **task.provenance,
            "requests": {**task.provenance["requests"], "instance": list(ask.request_ids)},
        }
        self.on_keep(
            Example(
                ask.key,
                task.instruction,
                ask.input,
                ask.output,
                task.language,
                task.is_classification,
                provenance,
                scores,
            )
        )
        candidate.kept.append(Instance(ask.input, ask.output))
        pool.kept += 1
        self.instances.keep(ask.key)
        self._instance_closed(candidate)

    # ---- bookkeeping ------------------------------------------------------------------------------------------

    def _open_instance(self, candidate: Candidate, ask: Ask) -> None:
        ask.key = f"{candidate.task.id}-{candidate.instances}"
        candidate.instances += 1
        candidate.open_instances += 1
        self.instances.open(ask.key)
        ask.pool.queue.append(ask)

    def _drop_instance(self, ask: Ask, stage: str, drop: Drop) -> None:
        candidate = self._candidate(ask)
        self.instances.drop(ask.key, stage, drop.reason)
        candidate.drops.append(drop.reason)
        self.on_drop(
            {
                "unit": "instance",
                "id": ask.key,
                "stage": stage,
                **asdict(drop),
                "instruction": candidate.task.instruction,
                "input": ask.input,
                "output": ask.output,
            }
        )
        self._instance_closed(candidate)

    def _instance_closed(self, candidate: Candidate) -> None:
        candidate.open_instances -= 1
        if candidate.open_instances:
            return
        if candidate.kept:
            self.candidates.keep(candidate.task.id)
            self._candidate_closed(candidate.pool)
        else:
            self._drop_candidate(candidate, "validate", Drop("no_instance_kept", ", ".join(candidate.drops)))

    def _drop_candidate(self, candidate: Candidate, stage: str, drop: Drop) -> None:
        self.candidates.drop(candidate.task.id, stage, drop.reason)
        self.on_drop(
            {
                "unit": "candidate",
                "id": candidate.task.id,
                "stage": stage,
                **asdict(drop),
                "instruction": candidate.task.instruction,
            }
        )
        self._candidate_closed(candidate.pool)

    @staticmethod
    def _candidate_closed(pool: Pool) -> None:
        pool.open_candidates -= 1
        pool.closed_candidates += 1

    def _note(self, candidate: Candidate, stage: str, ask: Ask, *, prompt: str = "") -> None:
        """Remember in the provenance which request decided a stage."""
        known = candidate.task.provenance
        candidate.task = replace(
            candidate.task,
            provenance={
                **known,
                "requests": {**known["requests"], stage: ask.request_ids[-1]},
                "prompts": {
                    **known["prompts"],
                    stage: self._stamp(ask.pool, ask.pool.prompt(prompt or stage).name),
                },
            },
        )

    @staticmethod
    def _stamp(pool: Pool, name: str) -> str:
        return f"{name}@{pool.prompt_digest(name)}"

    @staticmethod
    def _candidate(ask: Ask) -> Candidate:
        assert ask.candidate is not None
        return ask.candidate

    def _task(self, ask: Ask) -> Task:
        return self._candidate(ask).task

    def _seed(self, number: int) -> int:
        return random.Random(f"{self.plan.seed}/{number}").getrandbits(31)
