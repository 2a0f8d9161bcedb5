"""What is under way and what became of it.

Requests, candidates, their instances, the three ledgers, the records written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.ledger import Ledger
from pipeline.records import Drop, Example, Instance, Task
from pipeline.stages.pool import Pool
from pipeline.stages.propose import Demonstrations


@dataclass
class Candidate:
    """A proposed task with the instances made for it so far."""

    task: Task
    pool: Pool
    open_instances: int = 0
    instances: int = 0
    kept: list[Instance] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)

    @property
    def evolved(self) -> bool:
        """Whether it was made of another instruction."""
        return "evolved" in self.task.provenance

    def note(self, stage: str, request: int, stamp: str) -> None:
        """Remember in the provenance which request and prompt decided a stage."""
        known = self.task.provenance
        requests, prompts = {**known["requests"], stage: request}, {**known["prompts"], stage: stamp}
        self.task = replace(self.task, provenance={**known, "requests": requests, "prompts": prompts})


@dataclass
class Ask:
    """One request's purpose.

    `candidate` is None for a proposal only; `key` names the instance, once there is one.
    """

    stage: str
    pool: Pool
    candidate: Candidate | None = None
    key: str = ""
    label: str = ""
    input: str = ""
    output: str = ""
    steps: tuple[tuple[str, int], ...] = ()
    shown: Demonstrations | None = None
    opener: str = ""
    operation: str = ""  # that evolves the instruction shown; "" for a new one
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The number of the request that this became last."""
        return self.steps[-1][1]

    @property
    def subject(self) -> Candidate:
        """The candidate that a later stage is about."""
        assert self.candidate is not None
        return self.candidate

    @property
    def task(self) -> Task:
        """The candidate's task."""
        return self.subject.task


class Books:
    """Opens and closes candidates and instances; every one is written as kept or as dropped."""

    def __init__(self, on_keep: Callable[[Example], None], on_drop: Callable[[dict[str, Any]], None]) -> None:
        self.on_keep, self.on_drop = on_keep, on_drop
        self.requests = Ledger("request")
        self.candidates, self.instances = Ledger("candidate"), Ledger("instance")

    def open_candidate(self, candidate: Candidate) -> None:
        """Take in a parsed proposal."""
        self.candidates.open(candidate.task.id)
        candidate.pool.open_candidates += 1
        candidate.pool.evolved += candidate.evolved

    def open_instance(self, candidate: Candidate, ask: Ask) -> Ask:
        """Begin one more instance of a candidate; `ask` gets its key."""
        ask.key = f"{candidate.task.id}-{candidate.instances}"
        candidate.instances += 1
        candidate.open_instances += 1
        self.instances.open(ask.key)
        return ask

    def keep(self, ask: Ask, scores: dict[str, float]) -> None:
        """Close an instance as a kept example."""
        candidate, pool = ask.subject, ask.pool
        if pool.full:
            return self.drop_instance(ask, "export", not_needed(pool))
        task = candidate.task
        stamps = {stage: pool.stamp(pool.prompt(stage).name) for stage, _ in ask.steps if stage != "propose"}
        provenance = {
            **task.provenance,
            "requests": {**task.provenance["requests"], **dict(ask.steps)},
            "prompts": {**task.provenance["prompts"], **stamps},
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
        return self._instance_closed(candidate)

    def drop(self, ask: Ask, stage: str, drop: Drop) -> None:
        """Close what `ask` is about: its instance if there is one, else its candidate."""
        if ask.key:
            self.drop_instance(ask, stage, drop)
        elif ask.candidate:
            self.drop_candidate(ask.candidate, stage, drop)

    def drop_request(self, number: int, ask: Ask, drop: Drop) -> None:
        """Record a request that got no answer."""
        self.requests.drop(str(number), ask.stage, drop.reason)
        self.on_drop({"unit": "request", "id": str(number), "stage": ask.stage, **asdict(drop)})

    def drop_instance(self, ask: Ask, stage: str, drop: Drop) -> None:
        """Close an instance as dropped."""
        candidate = ask.subject
        self.instances.drop(ask.key, stage, drop.reason)
        candidate.drops.append(drop.reason)
        row = {"unit": "instance", "id": ask.key, "stage": stage, **asdict(drop)}
        self.on_drop(
            row | {"instruction": candidate.task.instruction, "input": ask.input, "output": ask.output}
        )
        self._instance_closed(candidate)

    def drop_candidate(self, candidate: Candidate, stage: str, drop: Drop) -> None:
        """Close a candidate as dropped."""
        self.candidates.drop(candidate.task.id, stage, drop.reason)
        row = {"unit": "candidate", "id": candidate.task.id, "stage": stage, **asdict(drop)}
        origin = {"evolved": candidate.task.provenance["evolved"]} if candidate.evolved else {}
        self.on_drop(row | {"instruction": candidate.task.instruction} | origin)
        self._candidate_closed(candidate.pool)

    def _instance_closed(self, candidate: Candidate) -> None:
        candidate.open_instances -= 1
        if candidate.open_instances:
            return
        if candidate.kept:
            self.candidates.keep(candidate.task.id)
            candidate.pool.evolved_kept += candidate.evolved
            candidate.pool.parents.written.add(candidate.task.id, candidate.task.instruction)
            self._candidate_closed(candidate.pool)
        else:
            self.drop_candidate(candidate, "validate", Drop("no_instance_kept", ", ".join(candidate.drops)))

    @staticmethod
    def _candidate_closed(pool: Pool) -> None:
        pool.open_candidates -= 1
        pool.closed_candidates += 1


def not_needed(pool: Pool) -> Drop:
    """The drop of what comes after the goal was reached."""
    return Drop("not_needed", f"{pool.kept} of {pool.target} examples were kept before its turn came")
