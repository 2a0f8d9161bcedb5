"""What an answer is worth by itself: checks, label, ROUGE-L, how it ends, loops, language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.dedup.bounds import f_measure
from pipeline.dedup.lcs import lcs, place
from pipeline.dedup.vocabulary import Vocabulary
from pipeline.evaluation.flow import Record
from pipeline.evaluation.labels import said_label
from pipeline.evaluation.references import References
from pipeline.judging.answers import is_refusal
from pipeline.judging.flow import Language
from pipeline.records import LANGUAGES
from pipeline.stages.code_checks import looks_like_code
from pipeline.stages.language import detect, is_language
from pipeline.stages.repetition import repetition
from pipeline.stages.text import length
from pipeline.verify.verifier import parse, verify

_LONGEST = 4096  # tokens of a reference that ROUGE-L looks at
_FEW = 4  # words below which a text's language is not looked at


@dataclass
class Measured:
    """A record with what was found.

    `success` is None where nothing can be checked; an answer that loops is none, whatever its checks say.
    """

    record: Record
    length: int
    rouge: float | None = None
    success: float | None = None
    by: str = ""  # "checks" or "label"
    said: str = ""  # the label that the answer gives
    checks: list[dict[str, Any]] = field(default_factory=list)
    repetition: str = ""
    language: str = ""  # the one that was expected, where the answer is in another
    refused: bool = False
    reference_tokens: int = 0

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off."""
        return self.record.finish_reason == "length"

    @property
    def stopped(self) -> bool:
        """Whether the model ended its answer."""
        return self.record.finish_reason == "stop"

    @property
    def judged(self) -> float | None:
        """1: better than the reference, 0.5: no telling, 0: worse; None where no judge was asked."""
        comparison = self.record.comparison
        if comparison is None or not comparison.read:
            return None
        return 0.5 if comparison.winner is None else 1.0 - comparison.winner

    def as_json(self) -> dict[str, Any]:
        """A line of answers.jsonl."""
        record, item = self.record, self.record.item
        comparison = record.comparison
        verdicts = [comparison.straight, comparison.exchanged] if comparison else []
        return {
            "id": item.id,
            "task": item.task,
            "language": item.prompt.language,
            "tags": list(item.tags),
            "prompt": [dict(message) for message in item.prompt.messages],
            "reference": item.prompt.reference,
            "answer": record.text,
            "finish_reason": record.finish_reason,
            "error": record.error,
            "tokens": record.tokens,
            "length": self.length,
            "success": self.success,
            "success_by": self.by,
            "checks": self.checks,
            "labels": list(item.labels),
            "label": self.said,
            "rouge_l": self.rouge,
            "reference_logprob": record.logprob,
            "reference_tokens": self.reference_tokens,
            "judged": self.judged,
            "verdicts": verdicts,
            "rating": record.rating,
            "repetition": self.repetition,
            "wrong_language": bool(self.language),
            "refused": self.refused,
        }


def measure(
    records: Sequence[Record], references: References, languages: Mapping[str, Language]
) -> list[Measured]:
    """Measure all answers; code runs in processes of its own."""
    rouge = rouge_l([(record.text, record.item.prompt.reference) for record in records])
    with ThreadPoolExecutor(2) as workers:
        found = list(workers.map(_checked, records))
    for one, score in zip(found, rouge, strict=True):
        item, text = one.record.item, one.record.text
        one.rouge = round(score, 4) if item.prompt.reference else None
        if drop := repetition(text) if text else None:
            one.repetition = drop.evidence
            one.success = 0.0 if one.by else None  # a loop may hold every word that a check looks for
        one.language = _other_language(text, item.prompt.reference, item.prompt.language)
        one.refused = bool(text) and is_refusal(text, languages[item.prompt.language].words)
        if (reference := references.proved.get(item.id)) and one.record.logprob is not None:
            one.reference_tokens = reference.tokens
    return found


def rouge_l(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """ROUGE-L F of each pair of texts, on the tokens of dedup: rouge_score's, jieba's for Chinese."""
    vocabulary, out = Vocabulary(), list[float]()
    tokens, starts = vocabulary.encode([text for pair in pairs for text in pair])
    slots = np.zeros(max(len(vocabulary), 1), np.uint64)
    for number in range(0, 2 * len(pairs), 2):
        answer = tokens[starts[number] : starts[number + 1]]
        reference = tokens[starts[number + 1] : starts[number + 2]][:_LONGEST]
        if not len(answer) or not len(reference):
            out.append(0.0)
            continue
        common = lcs(place(reference, slots), slots, answer, 0, len(answer), 0)
        slots[reference] = 0
        out.append(float(f_measure(int(common), len(answer), len(reference))))
    return out


def _checked(record: Record) -> Measured:
    """Checks of a verifier, else the label of a classification."""
    item = record.item
    one = Measured(record, length(record.text))
    if item.prompt.verifier:
        found = verify(parse(item.prompt.verifier, item.where), record.text)
        one.success, one.by = float(found.all_passed), "checks"
        one.checks = [{"id": c.id, "passed": c.passed, "evidence": c.evidence} for c in found.checks]
    elif item.labels:
        one.said = said_label(record.text, item.labels)
        one.success, one.by = float(one.said == item.prompt.reference), "label"
    return one


def _other_language(text: str, reference: str, language: str) -> str:
    """The language of the reference, if the answer is in another one; "" where there is no telling."""
    if min(length(text), length(reference)) < _FEW or looks_like_code(reference):
        return ""
    wanted = language if is_language(reference, language) else detect(reference)[0]
    return wanted if wanted in LANGUAGES and not is_language(text, wanted) else ""
