"""Held-out tasks: rows of any form as requests with a reference, tags, labels and what can be checked."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.conversations import Message, conversations, turns
from pipeline.format.sources import Source
from pipeline.records import LANGUAGES, Prompt, duplicates
from pipeline.rows import Row
from pipeline.rundir import digest
from pipeline.stages.text import cjk_share
from pipeline.verify.verifier import from_row

_CHINESE = 0.3  # share of Chinese characters from which a request counts as Chinese
_FIX = "Fix the row, or leave it out of the held-out file."
UNTAGGED = "untagged"


@dataclass(frozen=True)
class Item:
    """One request of a task; `labels` are those of the whole task, () where it is no classification."""

    task: str
    where: str
    prompt: Prompt
    instruction: str
    tags: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Of the item: its task's, with a number where the task has several."""
        return self.prompt.id

    @property
    def text(self) -> str:
        """All that the task gives away: request and reference."""
        return f"{self.prompt.request}\n{self.prompt.reference}".strip()


def read_items(sources: Sequence[Source], num_tasks: int = 0, seed: int = 0) -> list[Item]:
    """Read every request, in the order of the files. Raises PipelineError for the first bad row.

    Requests with one instruction are one task; `num_tasks` of them are drawn by the seed (0: all).
    """
    found = [item for source in sources for row in source.rows() for item in _items(row)]
    duplicates((item.where, item.id) for item in found)
    seen: dict[tuple[str, ...], str] = {}
    for item in found:
        said = tuple(message["content"] for message in item.prompt.messages)
        if said in seen:
            raise PipelineError(
                item.where, f"the same request stands at {seen[said]}", "Remove one of the two."
            )
        seen[said] = item.where
    found = _joined(found)
    tasks = list(dict.fromkeys(item.task for item in found))
    if num_tasks and num_tasks < len(tasks):
        chosen = set(random.Random(f"{seed} tasks").sample(tasks, num_tasks))
        found = [item for item in found if item.task in chosen]
    return found


def digest_of(items: Sequence[Item]) -> str:
    """What two evaluations must share to be compared: requests, references, checks and labels."""
    return digest(
        [
            [
                item.id,
                [dict(message) for message in item.prompt.messages],
                item.prompt.reference,
                item.prompt.verifier,
                list(item.labels),
            ]
            for item in items
        ]
    )


def _joined(items: Sequence[Item]) -> list[Item]:
    """Rows with one instruction are one task, and a classification's labels are all that its rows have."""
    tasks: dict[str, str] = {}
    labels: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for item in items:
        tasks.setdefault(item.instruction, item.task)
        for label in item.labels:
            labels[item.instruction][label] = None
    known = {instruction: tuple(found) for instruction, found in labels.items()}
    return [
        replace(item, task=tasks[item.instruction], labels=known[item.instruction] if item.labels else ())
        for item in items
    ]


def _items(row: Row) -> Iterator[Item]:
    fields, where = row.fields, row.where
    verifier = from_row(fields, where)
    checks = verifier.as_json() if verifier else None
    name = str(fields.get("id") or Path(where).name)
    spoken = list(_spoken(row))
    for number, (messages, instruction, reference) in enumerate(spoken, 1):
        roles = [message["role"] for message in messages]
        if roles not in (["user"], ["system", "user"]):
            problem = f"the request has turns of {', '.join(roles)}, expected one of the user"
            raise PipelineError(where, problem, _FIX)
        asked = messages[-1]["content"]
        if not asked:
            raise PipelineError(where, "the request is empty, expected text", _FIX)
        language = fields.get("language")
        if language not in LANGUAGES:
            language = "zh" if cjk_share(asked) >= _CHINESE else "en"
        one = name if len(spoken) == 1 else f"{name}/{number}"
        classifies = fields.get("is_classification") is True and bool(reference)
        labels = (reference,) if classifies else ()
        prompt = Prompt(one, tuple(messages), language, checks, reference)
        yield Item(name, where, prompt, instruction, _tags(fields, where), labels)


def _spoken(row: Row) -> Iterator[tuple[Sequence[Message], str, str]]:
    """The messages of each request in a row, its instruction, and the answer that came with it ("": none)."""
    fields, where = row.fields, row.where
    asked = next((fields[name] for name in ("prompt", "question") if name in fields), None)
    if asked is not None and not {"completion", "messages"} & set(fields):
        text = isinstance(asked, str)
        messages = [{"role": "user", "content": asked.strip()}] if text else turns(asked, "prompt", where)
        said = fields.get("reference", "")
        yield messages, messages[-1]["content"], said.strip() if isinstance(said, str) else ""
    elif isinstance(fields.get("instruction"), str) and not {"output", "instances"} & set(fields):
        instruction, given = fields["instruction"].strip(), fields.get("input") or ""
        yield [{"role": "user", "content": f"{instruction}\n\n{given}".strip()}], instruction, ""
    else:
        for one in conversations(row):
            yield one.messages[:-1], one.key, one.messages[-1]["content"]


def _tags(fields: Mapping[str, Any], where: str) -> tuple[str, ...]:
    tags = fields.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise PipelineError(where, f"'tags' is {tags!r}, expected a list of texts", _FIX)
    return tuple(tags)
