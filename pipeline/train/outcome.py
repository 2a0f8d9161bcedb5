"""What came of a training run: answers.jsonl, the figures in run.json, and what a user is shown of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from pipeline.format.conversations import Conversation
from pipeline.lines import LineFile
from pipeline.rundir import RunDir
from pipeline.train.adapters import trainable
from pipeline.train.answers import Answer, side_by_side
from pipeline.train.data import Data

_SHOWN = 300  # characters of a request or an answer


def report(
    target: RunDir,
    trainer: Any,
    data: Data,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    seconds: float,
) -> list[str]:
    """Write down what was found before and after `seconds` of training; returns lines for people."""
    answered, said = report_answers(target, data.held_out, before, after)
    tokens = int(trainer._total_train_tokens)
    facts = training_facts(trainer, len(data.train), len(data.validation), len(data.dropped), tokens, seconds)
    facts["eval_loss"] = {"before": before["eval_loss"], "after": after["eval_loss"]}
    target.update(facts | answered)
    if data.validation:
        said.append(f"held-out loss: {before['eval_loss']:.4f} before, {after['eval_loss']:.4f} after")
    said.append(speed(tokens, seconds))
    return [*said, f"next: python -m pipeline.sft chat {target.path}"]


def report_answers(
    target: RunDir, asked: Sequence[Conversation], before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Write answers.jsonl of the first of the requests; returns facts for run.json and lines for people."""
    old, new = ([Answer(**one) for one in found["answers"]] for found in (before, after))
    rows = side_by_side(asked[: len(old)], old, new)
    with closing(LineFile(target.path / "answers.jsonl", anew=True)) as file:
        file.append(rows)
    stopped = {"before": sum(one.stopped for one in old), "after": sum(one.stopped for one in new)}
    said = [_shown(row) for row in rows]
    if rows:
        counts = f"{stopped['before']} before, {stopped['after']} after, of {len(rows)}"
        said.append(f"answers that stopped: {counts}")
    return {"answers_stopped": {**stopped, "of": len(rows)}}, said


def speed(tokens: int, seconds: float) -> str:
    """How fast it was, for people."""
    return f"{tokens} tokens trained on, {tokens / max(seconds, 1e-9):.0f} a second"


def training_facts(
    trainer: Any, train: int, validation: int, dropped: int, tokens: int, seconds: float
) -> dict[str, Any]:
    """What run.json says of any training."""
    trained, whole = trainable(trainer.model)
    return {
        "rows": {"train": train, "validation": validation},
        "dropped": dropped,
        "parameters": {"trained": trained, "all": whole},
        "steps": trainer.state.global_step,
        "train_tokens": tokens,
        "train_seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory(),
    }


def _peak_memory() -> dict[str, int]:
    """The most this process, and torch on a GPU, have held so far, in MB."""
    import resource
    import sys

    from torch import cuda

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, kB elsewhere
    found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6}
    return found | ({"gpu": cuda.max_memory_allocated() // 10**6} if cuda.is_available() else {})


def _shown(row: Mapping[str, Any]) -> str:
    asked = row["messages"][-1]["content"][:_SHOWN]
    return "\n".join([f"\n> {asked}", *(f"  {when}: {row[when][:_SHOWN]}" for when in ("before", "after"))])
