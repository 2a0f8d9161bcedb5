"""Seed tasks: read them from files and folders, refuse what cannot be used, point out what will hurt.

Two shapes are recognised row by row, in JSONL or in a JSON array: Self-Instruct's seed_tasks.jsonl (arXiv
2212.10560: id, instruction, instances, is_classification; here also language and tags) and Alpaca's
instruction/input/output. A row without a language gets one by its script.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, disk_errors
from pipeline.records import LANGUAGES, Instance, SeedTask, check_characters, duplicates, text_field
from pipeline.rows import read_rows
from pipeline.stages.language import row_language
from pipeline.stages.text import collapse

TAGS = (
    "open_generation",
    "rewriting",
    "summarization",
    "question_answering",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "classification",
    "translation",
    "brainstorming",
    "planning",
    "role_play",
    "format_constrained",
)
MAX_ROUGE = 0.7
ENOUGH = 50  # seeds of one language from which shares and tag coverage say something
CLASSIFICATION_SHARE = (0.15, 0.35)
_COUNTED = ("classification", "with_input")

# Control tokens of the common model families; in a prompt they would end or forge a turn.
_SPECIAL = re.compile(
    r"<[|｜][\w▁.:/-]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)


def load_seeds(paths: Sequence[str]) -> list[SeedTask]:
    """Load every seed of the files and folders in `paths`; an id occurs once in all. Raises PipelineError."""
    found = [pair for path in seed_files(paths) for pair in read_seeds(path)]
    duplicates((where, seed.id) for where, seed in found)
    return [seed for _, seed in found]


def seed_files(paths: Sequence[str]) -> list[Path]:
    """List the files that `paths` mean; a folder means its own *.jsonl and *.json by name, no subfolders."""
    if not paths:
        raise PipelineError("seeds", "no path given, expected a file or a folder", "The default is seeds/.")
    return [file for path in paths for file in _files(Path(path))]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            problem = "no such file or folder, expected seed tasks (JSONL or JSON)"
            raise PipelineError(path, problem, "Correct the path, or leave it out: the default is seeds/.")
        return [path]
    with disk_errors(path):
        inside = sorted(path.iterdir())
    files = [
        f for f in inside if f.suffix.lower() in (".jsonl", ".json") and f.is_file() and f.name[0] != "."
    ]
    if not files:
        problem = "the folder has no *.jsonl or *.json file (subfolders are not searched)"
        raise PipelineError(path, problem, "Put seed tasks there or name their file.")
    for file in files:
        check_characters(file.name, file)  # a name that is not UTF-8; ids and records hold it
    return files


def read_seeds(path: Path) -> list[tuple[str, SeedTask]]:
    """Read the seeds of one file with their places (`file:line` or `file[index]`). Raises PipelineError."""
    rows = enumerate(read_rows(path), 1)
    return [(row.where, _seed(row.fields, f"{path.stem}-{number}", row.where)) for number, row in rows]


def _seed(row: Mapping[str, Any], made_id: str, where: str) -> SeedTask:
    """One row of either shape; an Alpaca row without an id gets `made_id`."""
    instruction = _clean(collapse(text_field(row, "instruction", where)), "instruction", where)
    if "instances" in row:
        seed_id, instances = text_field(row, "id", where), tuple(_instances(row["instances"], where))
    elif "output" in row:
        seed_id = text_field(row, "id", where) if "id" in row else made_id
        instances = (_instance(row, where),)
    else:
        problem = f"neither 'instances' (Self-Instruct) nor 'output' (Alpaca) (has: {', '.join(row)})"
        raise PipelineError(where, problem, "Add instances: [{input, output}].")
    is_classification = row.get("is_classification", False)
    if not isinstance(is_classification, bool):
        problem = f"'is_classification' is {type(is_classification).__name__}, expected true or false"
        raise PipelineError(where, problem, "Fix the row.")
    return SeedTask(
        seed_id,
        instruction,
        instances,
        is_classification,
        _language(row, instruction, where),
        _tags(row, where),
    )


def _instances(value: Any, where: str) -> Iterator[Instance]:
    if not isinstance(value, list):
        raise PipelineError(
            where, f"'instances' is {type(value).__name__}, expected a list of objects", "Fix the row."
        )
    if not value:
        raise PipelineError(where, "'instances' is empty, expected at least one input and output", "Add one.")
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            problem = f"instances[{number}] is {type(item).__name__}, expected an object"
            raise PipelineError(where, problem, "Write {input, output}.")
        yield _instance(item, f"{where} instances[{number}]")


def _instance(row: Mapping[str, Any], where: str) -> Instance:
    """The input (may be missing) and the output (may be empty, `lint` reports it) of a row or instance."""
    given = text_field(row, "input", where, empty=True) if "input" in row else ""
    output = text_field(row, "output", where, empty=True)
    return Instance(_clean(given, "input", where), _clean(output, "output", where))


def _clean(text: str, name: str, where: str) -> str:
    if match := _SPECIAL.search(text):
        problem = f"'{name}' holds the special token {match[0]}, which would end or forge a turn in a prompt"
        raise PipelineError(where, problem, "Remove it or spell it differently.")
    return text


def _language(row: Mapping[str, Any], instruction: str, where: str) -> str:
    if "language" not in row:
        return row_language(row, instruction)
    language = text_field(row, "language", where)
    if language not in LANGUAGES:
        raise PipelineError(
            where, f"language '{language}', expected one of {', '.join(LANGUAGES)}", "Correct it."
        )
    return language


def _tags(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    tags = row.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise PipelineError(where, f"'tags' is {tags!r}, expected a list of texts", "Fix the row.")
    return tuple(tags)


def lint(seeds: Sequence[SeedTask]) -> list[str]:
    """Name what is usable but will hurt, one line each, for `--check-seeds`; [] if all is well."""
    lines = [f"{seed.id}: {complaint}" for seed in seeds for complaint in _complaints(seed)]
    lines += _near_duplicates(seeds)
    for language, group in _by_language(seeds).items():
        lines += [f"{language}: {complaint}" for complaint in _balance(group)]
    return lines


def _complaints(seed: SeedTask) -> Iterator[str]:
    if seed.is_classification and len({i.output for i in seed.instances}) < 2:
        yield "classification with fewer than 2 different outputs: add an instance for another label"
    if seed.is_classification and not all(i.input for i in seed.instances):
        yield "classification with an empty input: there is nothing to classify"
    for number, instance in enumerate(seed.instances):
        if not instance.output:
            yield f"instances[{number}] has an empty output"
        elif instance.output == instance.input:
            yield f"instances[{number}] has the input as its output"
    for tag in seed.tags:
        if tag not in TAGS:
            yield f"unknown tag '{tag}' (known: {', '.join(TAGS)})"


def _near_duplicates(seeds: Sequence[SeedTask]) -> Iterator[str]:
    from pipeline.dedup.rouge import RougeIndex

    index = RougeIndex(MAX_ROUGE)
    verdicts = index.add([s.id for s in seeds], [s.instruction for s in seeds])
    for number, seed in enumerate(seeds):
        if near := index.neighbour(verdicts, number):
            score = f"ROUGE-L {near.score:.2f} > {MAX_ROUGE}"
            yield f"{seed.id}: near duplicate of {near.key} ({score}): reword or remove one"


def _balance(seeds: Sequence[SeedTask]) -> Iterator[str]:
    if len(seeds) < ENOUGH:
        return
    low, high = CLASSIFICATION_SHARE
    share = sum(seed.is_classification for seed in seeds) / len(seeds)
    if not low <= share <= high:
        yield f"{share:.1%} of {len(seeds)} seeds are classification, expected {low:.0%} to {high:.0%}"
    missing = [tag for tag in TAGS if not any(tag in seed.tags for seed in seeds)]
    if missing:
        yield "no seed has tags" if len(missing) == len(TAGS) else f"no seed is tagged {', '.join(missing)}"


def summary(seeds: Sequence[SeedTask]) -> dict[str, dict[str, Any]]:
    """Count per language: seeds, classification, with_input and tags (tag -> count, commonest first)."""
    return {
        language: {
            "seeds": len(group),
            "classification": sum(seed.is_classification for seed in group),
            "with_input": sum(any(i.input for i in seed.instances) for seed in group),
            "tags": dict(Counter(tag for seed in group for tag in seed.tags).most_common()),
        }
        for language, group in _by_language(seeds).items()
    }


def summary_lines(seeds: Sequence[SeedTask]) -> list[str]:
    """Write `summary` for people, two lines a language."""
    lines = []
    for language, row in summary(seeds).items():
        shares = (f"{row[k]} {k.replace('_', ' ')} ({row[k] / row['seeds']:.0%})" for k in _COUNTED)
        tags = ", ".join(f"{tag} {count}" for tag, count in row["tags"].items()) or "none"
        lines += [f"{language}: {row['seeds']} seeds, {', '.join(shares)}", f"    tags: {tags}"]
    return lines


def _by_language(seeds: Sequence[SeedTask]) -> dict[str, list[SeedTask]]:
    groups: dict[str, list[SeedTask]] = defaultdict(list)
    for seed in seeds:
        groups[seed.language].append(seed)
    return dict(sorted(groups.items()))
