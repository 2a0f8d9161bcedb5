"""The word lists of a language (prompts/LANGUAGE/words.yaml) and how their entries are found in text."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import unknown
from pipeline.errors import PipelineError
from pipeline.records import check_characters, read_text
from pipeline.stages.text import collapse

EVIDENCE = 80  # characters of offending text that a Drop quotes
_STRAIGHT = str.maketrans("‘’“”。、", "''\"\".,")


@dataclass(frozen=True)
class Words:
    """The word lists of one language; words.yaml says what each is for."""

    openers: tuple[str, ...]
    request_markers: tuple[str, ...]
    unsuited: tuple[str, ...]
    refusals: tuple[str, ...]
    boilerplate: tuple[str, ...]
    leaks: tuple[str, ...]
    input_references: tuple[str, ...]


def load_words(path: Path) -> Words:
    """Read a words.yaml. Raises PipelineError on unknown or missing lists and entries that are not text."""
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise PipelineError(path, f"not YAML ({error})", "Mend the file.") from None
    if not isinstance(data, dict):
        problem = f"got {type(data).__name__}, expected 'name: [words]' lines"
        raise PipelineError(path, problem, "Mend the file.")
    names = [f.name for f in dataclasses.fields(Words)]
    for name in data:
        if name not in names:
            raise unknown(path, f"list '{name}'", str(name), names)
    return Words(**{name: _entries(path, data, name) for name in names})


def _entries(path: Path, data: dict[str, Any], name: str) -> tuple[str, ...]:
    if name not in data:
        raise PipelineError(path, f"no list '{name}' (has: {', '.join(data)})", f"Add '{name}: [word, ...]'.")
    entries = data[name]
    if not isinstance(entries, list) or not entries:
        problem = f"'{name}' is {entries!r}, expected a list of text"
        raise PipelineError(path, problem, f"Write '{name}: [word, ...]'.")
    for entry in entries:
        # YAML 1.1 reads a bare yes, no, on, off as true or false
        if not isinstance(entry, str) or not entry.strip():
            raise PipelineError(path, f"{entry!r} in '{name}', expected text", "Put the entry in quotes.")
        check_characters(entry, f"{path}: {name}")
    return tuple(entries)


def find_phrase(text: str, phrases: tuple[str, ...], *, starts: bool = False) -> tuple[str, int] | None:
    """Find the first of `phrases` (with `starts`, at the very start): (as written, its place), or None."""
    found = _pattern(phrases, starts).search(normalise(text)) if phrases else None
    return (found.group(), found.start()) if found else None


class _Folded(dict[int, str]):
    """Characters by code point in the form that they are compared in; filled as they occur."""

    def __missing__(self, code: int) -> str:
        narrow = unicodedata.normalize("NFKC", chr(code))
        narrow = narrow if len(narrow) == 1 else chr(code)
        lower = narrow.lower() if len(narrow.lower()) == 1 else narrow
        self[code] = lower.translate(_STRAIGHT)
        return self[code]


_FOLDED = _Folded()


@functools.lru_cache(maxsize=64)  # one text is looked through for a dozen lists
def normalise(text: str) -> str:
    """Make lower case, full-width forms ASCII and curly quotes straight; places stay where they are."""
    return text.translate(_FOLDED)


def same(text: str) -> str:
    """Reduce to what makes two texts equal: case, white space and punctuation at the ends do not count."""
    return collapse(normalise(text)).strip(" .,!?;:\"'")


def quote(text: str, start: int = 0) -> str:
    """Quote the text from `start` on one line, at most EVIDENCE characters."""
    line = collapse(text[start:])
    return line if len(line) <= EVIDENCE else line[: EVIDENCE - 1] + "…"


@functools.cache
def _pattern(phrases: tuple[str, ...], starts: bool) -> re.Pattern[str]:
    alternatives = "|".join(_alternative(normalise(p)) for p in sorted(phrases, key=len, reverse=True))
    return re.compile(rf"\A\W{{0,2}}(?:{alternatives})" if starts else alternatives)


def _alternative(phrase: str) -> str:
    # "graph" must not be found in "paragraph", while Chinese has no gaps between words
    before = r"(?<![a-z0-9])" if phrase[0].isascii() and phrase[0].isalnum() else ""
    after = r"(?![a-z0-9])" if phrase[-1].isascii() and phrase[-1].isalnum() else ""
    return before + r"\s+".join(re.escape(word) for word in phrase.split()) + after
