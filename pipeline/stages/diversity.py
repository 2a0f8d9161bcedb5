"""How diverse a finished run's examples are: diversity.json, from the vectors that dedup made anyway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.dedup.diversity import measure
from pipeline.dedup.encoder import OFF
from pipeline.stages.pool import Pool


def diversity(pools: Iterable[Pool], kept: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By language, the numbers (see `dedup.diversity.Diversity`) or why it is left out (`left_out`).

    `kept` are the rows of kept.jsonl. Examples of one task share its instruction, which is counted once.
    """
    pools, counts = list(pools), {pool.language: dict[str, int]() for pool in pools}
    for row in kept:
        task = row["id"].rsplit("-", 1)[0]
        tasks = counts[row["language"]]
        tasks[task] = tasks.get(task, 0) + 1
    return {pool.language: _measured(pool, counts[pool.language]) for pool in pools}


def _measured(pool: Pool, tasks: Mapping[str, int]) -> dict[str, Any]:
    if why := _left_out(pool):
        return {"left_out": why}
    index = pool.embedding
    place = {key: number for number, key in enumerate(index.keys)}
    ours, seeds = [place[key] for key in tasks], [place[seed.id] for seed in pool.seeds]
    found = measure(
        list(tasks),
        [index.texts[number] for number in ours],
        index.vectors[ours],
        [seed.id for seed in pool.seeds],
        index.vectors[seeds],
        seed=pool.plan.seed,
    )
    return {"model": index.encoder.name, "num_examples": sum(tasks.values()), **asdict(found)}


def _left_out(pool: Pool) -> str:
    """Why the vectors of a language are not there, "" if they are."""
    if pool.embeds:
        return ""
    if pool.plan.embedding_threshold >= 1:
        return "--embedding-threshold 1 switches embeddings off"
    if not (pool.embedding.covers("en") or pool.embedding.covers("zh")):
        return f"--embedding-model {OFF} switches embeddings off"
    name = pool.embedding.encoder.name
    return f"{name} does not read this language; --embedding-model takes a multilingual one"
