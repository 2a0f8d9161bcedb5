"""The whole state of a run as plain data, and back: what a snapshot holds, so that resuming need not replay.

JSON-able values and NumPy arrays only: reading one runs no code. Texts that were admitted, the asks under way
with their candidates, the ledgers, the counts. Everything else is rebuilt from options and seeds.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.dedup.rouge import RougeIndex
from pipeline.engines.snapshot import pack, unpack
from pipeline.ledger import Ledger
from pipeline.records import Instance, Task
from pipeline.stages.books import Ask, Candidate
from pipeline.stages.propose import Demonstrations

if TYPE_CHECKING:
    from pipeline.stages.flow import SelfInstruct
    from pipeline.stages.pool import Pool

Arrays = dict[str, np.ndarray]
_ASK = ("stage", "key", "label", "input", "output", "opener", "operation", "scores")
_COUNTS = tuple(
    "kept proposals proposals_in_flight open_candidates closed_candidates evolved evolved_kept".split()
)


def job_state(job: SelfInstruct) -> tuple[dict[str, Any], Arrays]:
    """Everything that `restore_job` needs, as (JSON-able, arrays by name)."""
    asks = [*job.asks.values(), *(ask for pool in job.pools for ask in pool.queue)]
    candidates = {ask.candidate.task.id: ask.candidate for ask in asks if ask.candidate}
    arrays: Arrays = {
        "asked": np.fromiter(job.asked, np.uint64, len(job.asked)),
        "times": np.fromiter(job.asked.values(), np.uint32, len(job.asked)),
    }
    for pool in job.pools:
        arrays[f"vectors-{pool.language}"] = pool.embedding.vectors
        for name, texts in _texts(pool).items():
            data, lengths = pack(texts)
            arrays |= {f"{name}-{pool.language}": data, f"{name}-lengths-{pool.language}": lengths}
    return {
        "candidates": [_candidate_state(c) for c in candidates.values()],
        "asks": {str(number): _ask_state(ask) for number, ask in job.asks.items()},
        "ledgers": [_ledger_state(ledger) for ledger in (job.requests, job.candidates, job.instances)],
        "pools": {pool.language: _pool_state(pool) for pool in job.pools},
    }, arrays


def _texts(pool: Pool) -> dict[str, list[str]]:
    """The admitted instructions, and which of them became kept tasks."""
    finished = [key for key, _ in pool.parents.written.items]
    return {"keys": pool.rouge.keys, "texts": pool.rouge.texts, "finished": finished}


def restore_job(job: SelfInstruct, state: dict[str, Any], arrays: Arrays) -> None:
    """Put a new job of the same options and seeds into the state that was saved."""
    pools = {pool.language: pool for pool in job.pools}
    candidates = {row["task"]["id"]: _candidate(row, pools) for row in state["candidates"]}
    job.asks.update({int(number): _ask(row, pools, candidates) for number, row in state["asks"].items()})
    job.asked.update(Counter(dict(zip(arrays["asked"].tolist(), arrays["times"].tolist(), strict=True))))
    for ledger, row in zip((job.requests, job.candidates, job.instances), state["ledgers"], strict=True):
        _restore_ledger(ledger, row)
    for language, row in state["pools"].items():
        _restore_pool(pools[language], row, candidates, pools)
        _restore_admitted(pools[language], arrays)


def _candidate_state(candidate: Candidate) -> dict[str, Any]:
    return {
        "task": asdict(candidate.task),
        "open_instances": candidate.open_instances,
        "instances": candidate.instances,
        "kept": [[i.input, i.output] for i in candidate.kept],
        "drops": candidate.drops,
    }


def _candidate(row: dict[str, Any], pools: dict[str, Pool]) -> Candidate:
    task = Task(**row["task"])
    kept = [Instance(*pair) for pair in row["kept"]]
    return Candidate(task, pools[task.language], row["open_instances"], row["instances"], kept, row["drops"])


def _ask_state(ask: Ask) -> dict[str, Any]:
    state = {name: getattr(ask, name) for name in _ASK}
    return state | {
        "language": ask.pool.language,
        "candidate": ask.candidate and ask.candidate.task.id,
        "steps": [list(step) for step in ask.steps],
        "shown": ask.shown and [list(ask.shown.texts), list(ask.shown.ids)],
    }


def _ask(row: dict[str, Any], pools: dict[str, Pool], candidates: dict[str, Candidate]) -> Ask:
    plain = {name: row[name] for name in _ASK}
    return Ask(
        **plain,
        pool=pools[row["language"]],
        candidate=candidates[row["candidate"]] if row["candidate"] else None,
        steps=tuple((stage, number) for stage, number in row["steps"]),
        shown=row["shown"] and _shown(row["shown"]),
    )


def _shown(pair: list[list[str]]) -> Demonstrations:
    return Demonstrations(tuple(pair[0]), tuple(pair[1]))


def _ledger_state(ledger: Ledger) -> dict[str, Any]:
    dropped = [[stage, reason, count] for (stage, reason), count in ledger.dropped.items()]
    pending = sorted(ledger.pending)
    return {"opened": ledger.opened, "kept": ledger.kept, "dropped": dropped, "pending": pending}


def _restore_ledger(ledger: Ledger, row: dict[str, Any]) -> None:
    ledger.opened, ledger.kept, ledger.pending = row["opened"], row["kept"], set(row["pending"])
    ledger.dropped.update({(stage, reason): count for stage, reason, count in row["dropped"]})


def _pool_state(pool: Pool) -> dict[str, Any]:
    return {name: getattr(pool, name) for name in _COUNTS} | {
        "queue": [_ask_state(ask) for ask in pool.queue],
        "classification_now": pool.classification_now,
        "shown_now": [list(pool.shown_now.texts), list(pool.shown_now.ids)],
        "seeds_now": [seed.id for seed in pool.seeds_now],
    }


def _restore_pool(
    pool: Pool, row: dict[str, Any], candidates: dict[str, Candidate], pools: dict[str, Pool]
) -> None:
    for name in _COUNTS:
        setattr(pool, name, row[name])
    pool.queue = deque(_ask(ask, pools, candidates) for ask in row["queue"])
    pool.classification_now, pool.shown_now = row["classification_now"], _shown(row["shown_now"])
    seeds = {seed.id: seed for seed in pool.seeds}
    pool.seeds_now = [seeds[key] for key in row["seeds_now"]]


def _restore_admitted(pool: Pool, arrays: Arrays) -> None:
    """The admitted instructions, in each index alike: what a new pool begins with, then the run's own."""
    keys, texts, finished = (
        unpack(arrays[f"{name}-{pool.language}"], arrays[f"{name}-lengths-{pool.language}"])
        for name in ("keys", "texts", "finished")
    )
    begun = len(pool.rouge)
    pool.rouge = RougeIndex(pool.rouge.threshold)
    pool.rouge.insert(keys, texts)
    if pool.embeds:
        pool.embedding.restore(keys[:], texts[:], arrays[f"vectors-{pool.language}"])
    for key, instruction in zip(keys[begun:], texts[begun:], strict=True):
        pool.machine.add(key, instruction)
    said = dict(zip(keys, texts, strict=True))
    for key in finished[len(pool.parents.written.items) :]:
        pool.parents.written.add(key, said[key])
