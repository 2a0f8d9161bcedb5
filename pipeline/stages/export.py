"""Write a finished dataset: Parquet, JSONL, Alpaca JSON and a Hugging Face dataset card, all or nothing.

The folder is built next to its place and moved there whole. The same examples and facts give the same bytes.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import PipelineError, disk_errors
from pipeline.records import Example, to_json
from pipeline.stages.text import collapse, length

COLUMNS = {
    "id": "unique name of the example",
    "instruction": "the task",
    "input": "the text to work on; empty where the task needs none",
    "output": "the answer",
    "messages": "the same as a conversation: list of {role, content}",
    "language": "en or zh",
    "is_classification": "whether the answer is a label from a small closed set",
    "provenance": "JSON text: where it came from (model, requests, prompts, seeds, nearest neighbour)",
    "scores": "JSON text: name -> number",
}
ROWS_PER_GROUP = 1_000
_TEXTS = ("instruction", "input", "output")
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")  # the hub's names

_WHAT = """Made in the manner of Self-Instruct (arXiv 2212.10560): from hand-written seed tasks a model
proposes new tasks, filters remove what is broken or a near duplicate, and the model answers the rest."""
_LENGTHS = """The last three columns are mean lengths, in words (English) and characters (Chinese); empty
inputs are left out."""
_LICENCE = """What it allows for generated text applies here. The seed tasks keep the licence of their files,
which are listed above."""
_LIMITS = """Every instruction and answer was written by a machine, often a small model, and nobody has
checked the facts. Answers can be wrong, biased or useless although they read well. Judge before use."""
_LOADING = """```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")
```

`data/train.jsonl` holds the same rows; `alpaca.json` only instruction, input and output."""


class Examples(Sized, Iterable[Example], Protocol):
    """Examples that can be gone through several times and need not be in memory."""


def export(examples: Examples, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the dataset directory `folder`, replacing an older one; a failure leaves the older one as it was.

    `facts` (every key optional): name, license, generator {engine, model, license, precision},
    seeds [{path, sha256, count}], options {name: value}, tokens {kind: n},
    stages [{stage, seen, kept, dropped: {reason: n}}].
    Raises PipelineError if the disk refuses, or if `folder` holds something that is not a dataset.
    """
    folder = folder.resolve()
    new, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    with disk_errors(folder):
        _check_replaceable(folder)
        shutil.rmtree(new, ignore_errors=True)
        try:
            (new / "data").mkdir(parents=True)
            _write(examples, new, facts)
            _swap(new, folder, old)
        except UnicodeEncodeError as error:
            problem = (
                f"a text holds half a surrogate pair ({error.object[error.start]!r}), which is no character"
            )
            raise PipelineError(folder, problem, "Remove it from the examples.") from None
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but an older dataset or an empty folder."""
    if (
        folder.exists()
        and not (folder / "data" / "train.parquet").exists()
        and (folder.is_file() or any(folder.iterdir()))
    ):
        raise PipelineError(
            folder, "it holds something other than a dataset", "Move it away or choose another folder."
        )


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Put `new` in the place of `folder`; the one there steps aside and comes back if that fails."""
    if not folder.exists():
        os.replace(new, folder)
    else:
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        try:
            os.replace(new, folder)
        except BaseException:
            os.replace(old, folder)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _write(examples: Examples, folder: Path, facts: Mapping[str, Any]) -> None:
    _write_parquet(examples, folder / "data" / "train.parquet")
    _write_text(folder / "data" / "train.jsonl", (to_json(_row(e)) + "\n" for e in examples))
    fields = ({"instruction": e.instruction, "input": e.input, "output": e.output} for e in examples)
    rows = ((",\n" if number else "\n") + to_json(row) for number, row in enumerate(fields))
    _write_text(folder / "alpaca.json", ["[", *rows, "\n]\n"])
    _write_text(folder / "README.md", [card(examples, facts)])


def _write_text(path: Path, parts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _write_parquet(examples: Iterable[Example], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = {"messages": pa.list_(turn), "is_classification": pa.bool_()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    with path.open("wb") as file:
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            rest = iter(examples)
            while rows := [_row(e) for e in itertools.islice(rest, ROWS_PER_GROUP)]:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def _row(example: Example) -> dict[str, Any]:
    """The example under COLUMNS; free-form mappings as JSON text, so that every row has the same schema."""
    as_text = {"provenance": _stable_json(example.provenance), "scores": _stable_json(example.scores)}
    return {name: as_text[name] if name in as_text else getattr(example, name) for name in COLUMNS}


def _stable_json(value: Any) -> str:
    value = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def card(examples: Examples, facts: Mapping[str, Any]) -> str:
    """Write the dataset card: YAML front matter for `datasets` and the hub, then what people should know."""
    name, generator = facts.get("name") or "instructions", facts.get("generator") or {}
    sections = {
        f"# {name}": f"{len(examples):,} examples written by {generator.get('model') or 'a model'}. {_WHAT}",
        "## Counts": f"{_counts(examples)}\n\n{_LENGTHS}",
        "## How it was made": _how(generator, facts),
        "## What was dropped, and why": _dropped(facts.get("stages") or []),
        "## Licence": f"The generator's licence: {generator.get('license') or 'not stated'}. {_LICENCE}",
        "## Limits": _LIMITS,
        "## How to load it": _LOADING,
        "## Columns": _table(("column", "content"), COLUMNS.items()),
    }
    return _front_matter(examples, facts) + "".join(
        f"\n{title}\n\n{body}\n" for title, body in sections.items()
    )


def _front_matter(examples: Examples, facts: Mapping[str, Any]) -> str:
    import yaml

    stated = str(facts.get("license") or (facts.get("generator") or {}).get("license") or "unknown").lower()
    data = {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}
        ],
        "language": sorted({e.language for e in examples}),
        # The hub knows licences by identifiers such as apache-2.0; a sentence is "other" to it.
        "license": stated if all(c.isalnum() or c in ".-+" for c in stated) else "other",
        "tags": ["synthetic", "self-instruct", "instruction-tuning"],
        "size_categories": [_SIZES[min(max(len(str(len(examples))) - 3, 0), 5)]],
        "task_categories": ["text-generation"],
    }
    kept = {key: value for key, value in data.items() if value}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}---\n"


def _counts(examples: Iterable[Example]) -> str:
    groups: dict[str, Counter[str]] = {"all": Counter()}
    for example in examples:
        for name in ("all", example.language):
            _count(groups.setdefault(name, Counter()), example)
    if len(groups) == 2:
        del groups["all"]
    head = ("language", "examples", "classification", "with input", "instruction", "input", "output")
    rows = ((name, f"{groups[name]['n']:,}", *_shares(groups[name])) for name in sorted(groups))
    return _table(head, rows)


def _count(group: Counter[str], example: Example) -> None:
    group.update(n=1, classification=example.is_classification)
    for name in _TEXTS:
        if text := getattr(example, name):
            group.update({f"with {name}": 1, name: length(text)})


def _shares(group: Counter[str]) -> Iterator[str]:
    for name in ("classification", "with input"):
        yield f"{group[name] / group['n']:.1%}" if group["n"] else "-"
    for name in _TEXTS:
        yield f"{group[name] / group[f'with {name}']:.1f}" if group[f"with {name}"] else "-"


def _how(generator: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    parts = [_table(("generator", ""), generator.items())]
    if seeds := facts.get("seeds"):
        rows = [(s.get("path", ""), s.get("count", ""), f"`{s.get('sha256', '')}`") for s in seeds]
        parts.append(_table(("seed file", "seeds", "sha256"), rows))
    if (evolved := facts.get("evolved") or {}).get("proposed"):
        parts.append("{kept:,} of {proposed:,} tasks evolved from others were kept.".format(**evolved))
    if tokens := facts.get("tokens"):
        parts.append("Tokens: " + ", ".join(f"{n:,} {kind}" for kind, n in tokens.items()) + ".")
    if options := facts.get("options"):
        parts.append(
            _table(("setting", "value"), ((f"`{k}`", f"`{_stable_json(v)}`") for k, v in options.items()))
        )
    return "\n\n".join(parts)


def _dropped(stages: Sequence[Mapping[str, Any]]) -> str:
    if not stages:
        return "Not recorded."
    rows = []
    for stage in stages:
        reasons = sorted((stage.get("dropped") or {}).items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{reason} {n:,}" for reason, n in reasons) or "-"
        numbers = (stage["seen"], stage["kept"], sum(n for _, n in reasons))
        rows.append((stage["stage"], *(f"{n:,}" for n in numbers), why))
    return _table(("stage", "seen", "kept", "dropped", "by reason"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; white space and bars in cells cannot break it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(collapse(str(cell)).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
