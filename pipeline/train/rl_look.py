"""Looks at held-out prompts while a policy learns from rewards: one answer to each, rewarded and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from pipeline.format.templates import Template
from pipeline.intervals import Interval, mean
from pipeline.records import Prompt
from pipeline.train import alarms
from pipeline.train.rewards import Rewards
from pipeline.train.rl_prompts import columns
from pipeline.verify.verifier import parse, verify

_SALT = "held out"  # the same seeds at every look: what differs is the policy
_SHOWN = 300  # characters of a request or an answer
_METRICS = {  # what the alarms call what the trainer logs
    "reward": alarms.REWARD,
    "completions/mean_length": alarms.LENGTH,
    "completions/repetition": alarms.REPETITION,
    "kl/answer": alarms.KL,
    "completions/clipped_ratio": alarms.CUT,
    "rewards/excluded": alarms.EXCLUDED,
    "groups/flat_frac": alarms.FLAT,
}


def look(trainer: Any, prompts: Sequence[Prompt], template: Template, rewards: Rewards) -> dict[str, Any]:
    """An answer to each prompt: its reward (None if excluded), whether all checks passed (None without any).

    The same seeds are used every time. Returns {"rows": [...]}, as JSON.
    """
    if not prompts:
        return {"rows": []}
    with _evaluating(trainer):
        ids = trainer.draw([template.prompt_ids(one.messages) for one in prompts], _SALT)
    texts = template.tokenizer.batch_decode(ids, skip_special_tokens=True)
    rows = trainer.rows(columns(prompts), texts, ids)
    found = []
    for row, scored, tokens in zip(rows, rewards.score(rows), ids, strict=True):
        passed = verify(parse(row.verifier, row.id), row.answer).all_passed if row.verifier else None
        found.append(
            {
                "answer": row.answer,
                "reward": scored.total,
                "passed": passed,
                "tokens": len(tokens),
                "cut": row.cut,
            }
        )
    return {"rows": found}


def figures(found: Mapping[str, Any]) -> dict[str, Interval]:
    """Mean reward, share of prompts whose checks all passed, and mean length in tokens, with intervals."""
    rows = found["rows"]
    values = {
        "reward": [row["reward"] for row in rows if row["reward"] is not None],
        "satisfied": [float(row["passed"]) for row in rows if row["passed"] is not None],
        "mean_length": [float(row["tokens"]) for row in rows],
    }
    return {name: mean(numbers) for name, numbers in values.items() if numbers}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Facts for run.json and lines for people; changes are taken prompt by prompt."""
    facts: dict[str, Any] = {}
    said = []
    old, new = figures(before), figures(after)
    for name, field in (("reward", "reward"), ("satisfied", "passed"), ("mean_length", "tokens")):
        if name not in old or name not in new:
            continue
        pairs = [
            (float(one[field]), float(other[field]))
            for one, other in zip(before["rows"], after["rows"], strict=True)
            if one[field] is not None and other[field] is not None
        ]
        change = mean([b - a for a, b in pairs])
        intervals = {"before": old[name], "after": new[name], "change": change}
        facts[name] = {when: one.as_json() for when, one in intervals.items()}
        said.append(f"held-out {name}: {old[name]} before, {new[name]} after; change {change}")
    return facts, said


def side_by_side(
    prompts: Sequence[Prompt], before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One record a prompt, for answers.jsonl."""
    return [
        {"id": one.id, "messages": [dict(m) for m in one.messages], "before": old, "after": new}
        for one, old, new in zip(prompts, before["rows"], after["rows"], strict=True)
    ]


class Looks(TrainerCallback):
    """Looks every `--eval-every` steps, logs what it saw, and raises the alarms."""

    def __init__(self, job: Any, trainer: Any, watched: alarms.Alarms) -> None:
        self._job, self._trainer, self._alarms = job, trainer, watched
        self._held: dict[str, Interval] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look, unless training ends here: then the job does."""
        due = state.global_step % self._job.options.eval_every == 0 and state.global_step < state.max_steps
        if not due or not self._job.leads:
            return
        self._held = figures(self._job.look(self._trainer))
        with _evaluating(self._trainer), _kept(control):
            self._trainer.log({f"eval_{name}": one.value for name, one in self._held.items()})

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any
    ) -> None:
        """Give the figures of a step to the alarms and say what they say."""
        if not logs or "loss" not in logs:
            return
        held = {name: one for name, one in self._held.items() if name != "mean_length"}
        seen = {ours: logs[theirs] for theirs, ours in _METRICS.items() if logs.get(theirs) is not None}
        for said in self._alarms.after_step(state.global_step, seen, held):
            self._job.display.say(f"step {state.global_step}: {said}")
        self._held = {}


@contextmanager
def _kept(control: Any) -> Iterator[None]:
    """Logging takes itself for the step's own and asks for no other."""
    wanted = control.should_log
    yield
    control.should_log = wanted


@contextmanager
def _evaluating(trainer: Any) -> Iterator[None]:
    """The model as for evaluation; what is drawn and logged meanwhile counts as evaluation."""
    training = trainer.model.training
    trainer.model.eval()
    try:
        yield
    finally:
        trainer.model.train(training)
