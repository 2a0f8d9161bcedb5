"""Degenerate loops in generated text, each measured on units (English words, Chinese characters).

Measures after Gopher's repetition filters (arXiv 2112.11446, table A1), with limits set so that hand-written
answers, poems, lists and tables pass.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from pipeline.records import Drop
from pipeline.stages.code_checks import looks_like_code
from pipeline.stages.sameness import QUOTED
from pipeline.stages.text import CJK, units
from pipeline.stages.words import quote

IN_A_ROW = 6  # the same unit
LETTERS_IN_A_ROW = 10  # "aaaaaaaaaa"
PHRASE_IN_A_ROW = 4  # the same two to eight units
LONG_PHRASE, LONG_PHRASE_IN_A_ROW = 4, 3  # units, times
SAME_SENTENCE, LONG_SENTENCE = 3, 8  # times; from so many words on, twice is too often for a full sentence
NGRAM, NGRAM_FROM, NGRAM_SHARE = 6, 40, 0.3  # words (or 12 characters); share of the text said before
SHORT_FROM, SHORT_SHARE = 14, 0.4  # the same for texts below NGRAM_FROM
DIVERSITY_FROM, DIVERSITY = 80, 3.0  # distinct units / sqrt(units): prose has 6 to 12, a loop under 3
SAME_ITEMS, NEAR = 0.5, 0.8  # share of a list; shared units that make two items nearly equal

PARTS_FROM, SAME_PARTS = 6, 4  # parts between commas of one sentence; times the same one
REFRAIN_FROM, REFRAIN, REFRAIN_SHARE = 30, 5, 0.18  # units of a text; the same three words; their share of it
THRICE, THRICE_SHARE = 3, 0.4  # the same three words within one instruction; their share of it
# "had had", "very very" and "bye bye" are English
_DOUBLED = re.compile(
    r"\b(?!(?:had|that|very|really|so|much|many|long|bye|knock|ha|no|yes|far|more|blah|hip|tut|choo|is|do|her|can)\b)"
    r"(?P<word>[a-z]{2,}) (?P=word)\b(?! \w+ing\b)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"(?P<body>[^.!?。！？；;\n]+)(?P<end>[.!?。！？]*)")
_ITEM = re.compile(r"(?:(?<=\s)|^)(?:\d{1,3}[.)、：:]|[-*•])\s*(?=\D)|[①-⑳]")
_LETTERS = re.compile(rf"([^\W\d_])\1{{{LETTERS_IN_A_ROW - 1},}}")


def repetition(text: str) -> Drop | None:
    """Find loops of letters, units, phrases, sentences and list items, long echoes and a poor vocabulary."""
    if letters := _LETTERS.search(text):
        return _drop(letters.group(), len(letters.group()), "times the letter")
    chain = _hyphen_chain(text)
    if chain:
        return _drop(chain, 3, "times in a chain")
    found = units(text)
    code = looks_like_code(text)  # it repeats its lines with good reason
    looping = _looping(found, PHRASE_IN_A_ROW if code else LONG_PHRASE_IN_A_ROW)
    if looping or code:
        return looping
    text = _FENCED.sub("\n", text)
    return (
        _repeated_sentence(text)
        or _equal_items(text)
        or _covered_by_ngrams(found)
        or _repeated_parts(text)
        or _refrain(units(text))
        or _poor(found)
    )


def stutter(instruction: str) -> Drop | None:
    """Find what an instruction may not do: a word or phrase twice in a row, the same three words thrice."""
    text = re.split("[:：\n]", QUOTED.sub(" ", instruction))[0]
    if doubled := _DOUBLED.search(text):
        return _drop(doubled.group(), 2, "times in a row")
    found = units(text)
    for period in range(3, 9):
        for i in range(len(found) - 2 * period + 1):
            phrase = found[i : i + period]
            if (
                phrase == found[i + period : i + 2 * period]
                and len(set(phrase)) > 1
                and "".join(phrase).isalpha()
            ):
                return _drop(_joined(phrase), 2, "times in a row")
    if _weight(found) < len(found) * 0.75:  # Chinese: three characters are a word
        return None
    grams = Counter(zip(found, found[1:], found[2:], strict=False))
    gram, times = grams.most_common(1)[0] if grams else ((), 0)
    stuck = times >= THRICE and 3 * times >= THRICE_SHARE * len(found) and "".join(gram).isalpha()
    return _drop(" ".join(gram), times, "times the words") if stuck else None


def _joined(found: Sequence[str]) -> str:
    return ("" if CJK.match(found[0]) else " ").join(found)


def _drop(evidence: str, count: float, what: str) -> Drop:
    amount = f"{count:.0%}" if isinstance(count, float) else str(count)
    return Drop("repetition", f"{amount} {what}: {quote(evidence)}"[:80])


def _hyphen_chain(text: str) -> str | None:
    """Find a word such as animal-superior-superior-superior: four parts or more, three in a row alike."""
    for word in re.findall(r"[^\W\d_]{3,}(?:[-–][^\W\d_]{3,}){3,}", text):
        parts = re.split("[-–]", word.lower())
        if any(len(set(parts[i : i + 3])) == 1 for i in range(len(parts) - 2)):
            return str(word)
    return None


def _looping(found: list[str], long_in_a_row: int) -> Drop | None:
    """Find one to eight units repeated back to back; numbers may repeat (tables, matrices)."""
    for period in range(1, 9):
        times = IN_A_ROW if period == 1 else PHRASE_IN_A_ROW if period < LONG_PHRASE else long_in_a_row
        wanted = period * (times - 1)
        run = 0
        for i in range(period, len(found)):
            run = run + 1 if found[i] == found[i - period] else 0
            if run >= wanted and any(unit.isalpha() for unit in found[i - period + 1 : i + 1]):
                return _drop(_joined(found[i - period + 1 : i + 1]), wanted // period + 1, "times in a row")
    return None


def _repeated_sentence(text: str) -> Drop | None:
    parts = [
        (" ".join(found), len(found), _weight(found), m["end"] != "")
        for m in _SENTENCE.finditer(text)
        if (found := units(m["body"]))
    ]
    times = Counter(sentence for sentence, *_ in parts)
    for i, (sentence, size, weight, ended) in enumerate(parts):
        if size < 2 or sentence.replace(" ", "").isdigit():
            continue
        # a line without a full stop may be a label, a table's cell, a chorus
        enough = size >= (3 if ended else 6) and times[sentence] >= SAME_SENTENCE
        long = ended and weight >= LONG_SENTENCE and times[sentence] > 1
        if enough or long or [p[0] for p in parts[i : i + SAME_SENTENCE]] == [sentence] * SAME_SENTENCE:
            return _drop(sentence, times[sentence], "times the sentence")
    return None


def _weight(found: list[str]) -> float:
    """Length in words, two Chinese characters counting as one."""
    return sum(0.5 if CJK.match(unit) else 1 for unit in found)


def _equal_items(text: str) -> Drop | None:
    items = [u for part in _ITEM.split(text)[1:] if (u := units(part.split("\n")[0]))]
    if len(items) < 3:
        return None
    for item in items[:5]:
        near = sum(_near(item, other) for other in items)
        if near >= 3 and near / len(items) > SAME_ITEMS:
            return _drop(" ".join(item), near, f"of {len(items)} list items alike")
    return None


def _near(a: list[str], b: list[str]) -> bool:
    if min(len(a), len(b)) < 6:  # "Monday: 30 minutes of walking" may share most of few words with Tuesday's
        return a == b
    return len(set(a) & set(b)) / len(set(a) | set(b)) > NEAR


def _covered_by_ngrams(found: list[str]) -> Drop | None:
    if len(found) < SHORT_FROM:
        return None
    limit = NGRAM_SHARE if len(found) >= NGRAM_FROM else SHORT_SHARE
    size = NGRAM * 2 if _weight(found) < len(found) * 0.75 else NGRAM  # Chinese
    seen: set[tuple[str, ...]] = set()
    again: set[int] = set()
    last = ""
    for i in range(len(found) - size + 1):
        gram = tuple(found[i : i + size])
        if gram in seen:
            again.update(range(i, i + size))
            last = _joined(gram)
        seen.add(gram)
    share = len(again) / len(found)
    return _drop(last, share, f"said before in runs of {size}") if share > limit else None


def _repeated_parts(text: str) -> Drop | None:
    """Find a sentence that enumerates the same things again and again."""
    for sentence in re.split(r"[.!?。！？；;\n]", text):
        parts = [" ".join(found) for part in re.split("[,，、]", sentence) if (found := units(part))]
        times = Counter(parts).most_common(1)[0] if len(parts) >= PARTS_FROM else ("", 0)
        if times[1] >= SAME_PARTS and not times[0].replace(" ", "").isdigit():
            return _drop(times[0], times[1], f"of {len(parts)} parts of a sentence")
    return None


def _refrain(found: list[str]) -> Drop | None:
    """Find the same few words over and over through a text."""
    size = 6 if _weight(found) < len(found) * 0.75 else 3  # Chinese
    if len(found) < REFRAIN_FROM:
        return None
    grams = Counter(tuple(found[i : i + size]) for i in range(len(found) - size + 1))
    gram, times = grams.most_common(1)[0]
    stuck = times >= REFRAIN and size * times >= REFRAIN_SHARE * len(found) and "".join(gram).isalpha()
    return _drop(_joined(gram), times, "times the words") if stuck else None


def _poor(found: list[str]) -> Drop | None:
    diversity = len(set(found)) / math.sqrt(len(found)) if len(found) >= DIVERSITY_FROM else math.inf
    if diversity >= DIVERSITY:
        return None
    most = " ".join(unit for unit, _ in Counter(found).most_common(5))
    return _drop(most, len(set(found)), f"distinct of {len(found)} units, mostly")
