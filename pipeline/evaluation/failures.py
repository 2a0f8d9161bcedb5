"""Why answers fail, the worst kinds of tasks, and which seeds would help.

Each failing answer has one reason, the first that holds of those in REASONS, and the others beside it. What
can only be judged fails where the judge prefers the reference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from pipeline.evaluation.measures import Measured
from pipeline.evaluation.tasks import UNTAGGED
from pipeline.intervals import share

ERROR, EMPTY, CUT_OFF, REPETITION = "engine_error", "empty", "cut_off", "repetition"
LANGUAGE, REFUSAL, NO_LABEL, WRONG = "wrong_language", "refusal", "no_label", "wrong_answer"
CHECK, WORSE = "check_failed", "worse_than_reference"
REASONS = (ERROR, EMPTY, REPETITION, CUT_OFF, LANGUAGE, REFUSAL, NO_LABEL, WRONG, CHECK, WORSE)
CLASSIFICATION = "classification"
_FEWEST = 3  # requests of a kind from which on it can be among the worst
_WORST = 5
_ADVICE = {
    EMPTY: "with whole answers, however short",
    CUT_OFF: "with short answers that come to an end; or raise --max-tokens",
    REPETITION: "with answers that say each thing once",
    LANGUAGE: "whose answers are in the language that is asked for",
    REFUSAL: "that look sensitive and are harmless, answered plainly",
    NO_LABEL: "whose answer is the label alone",
    WRONG: "with worked answers that end in the result",
    CHECK: "that demand a form or a length and keep to it",
    WORSE: "with careful, complete answers",
}


def failure(one: Measured) -> list[tuple[str, str]]:
    """Why an answer fails, (reason, evidence) from the gravest on; [] if it does not."""
    record, found = one.record, dict[str, str]()
    if record.error:
        found[ERROR] = record.error
    elif not record.text:
        found[EMPTY] = "no text"
    if one.truncated:
        found[CUT_OFF] = f"{record.tokens} tokens"
    if one.repetition:
        found[REPETITION] = one.repetition
    if one.language:
        found[LANGUAGE] = f"expected '{one.language}'"
    if one.refused and one.success != 1:
        found[REFUSAL] = record.text[:80]
    if one.success == 0 and one.by == "label":
        wanted = record.item.prompt.reference
        found[WRONG if one.said else NO_LABEL] = f"said '{one.said or record.text[:40]}', wanted '{wanted}'"
    for check in one.checks:
        if not check["passed"]:
            reason = WRONG if check["id"] in ("math", "code") else CHECK
            found.setdefault(reason, f"{check['id']}: {check['evidence']}")
    if one.success is None and one.judged == 0:
        found[WORSE] = "the judge prefers the reference in both orders"
    return [(reason, found[reason]) for reason in REASONS if reason in found]


def rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """The lines of failures.jsonl, grouped by reason and then by kind."""
    out = []
    for one in measured:
        if why := failure(one):
            item, (reason, evidence) = one.record.item, why[0]
            row = {"id": item.id, "reason": reason, "evidence": evidence, "also": [r for r, _ in why[1:]]}
            row |= {"language": item.prompt.language, "tags": list(item.tags)}
            row |= {"request": item.prompt.request, "answer": one.record.text}
            out.append({**row, "reference": item.prompt.reference})
    return sorted(out, key=lambda row: (REASONS.index(row["reason"]), row["tags"][:1], row["id"]))


def summary(measured: Sequence[Measured]) -> dict[str, Any]:
    """How many fail, by reason, by tag and reason, and the worst kinds with advice."""
    reasons, kinds = Counter[str](), defaultdict[tuple[str, str], list[str]](list)
    by_tag = defaultdict[str, Counter[str]](Counter)
    for one in measured:
        why, item = failure(one), one.record.item
        first = why[0][0] if why else ""
        reasons[first] += 1
        for tag in item.tags or (UNTAGGED,):
            by_tag[tag][first] += 1
        for tag in (CLASSIFICATION,) if item.labels else item.tags or (UNTAGGED,):
            kinds[item.prompt.language, tag].append(first)
    failed = len(measured) - reasons.pop("", 0)
    return {
        "failed": share(failed, len(measured)).as_json(),
        "by_reason": {reason: reasons[reason] for reason in REASONS if reasons[reason]},
        "by_tag": {
            tag: {reason: counts[reason] for reason in REASONS if counts[reason]}
            for tag, counts in sorted(by_tag.items())
        },
        "worst": worst(kinds),
    }


def worst(kinds: dict[tuple[str, str], list[str]]) -> list[dict[str, Any]]:
    """The kinds, language and tag, of which surely most fails: by the lower end of the share's interval."""
    ranked = []
    for (language, tag), found in kinds.items():
        failed = [reason for reason in found if reason]
        if len(found) >= _FEWEST and failed:
            ranked.append((share(len(failed), len(found)), language, tag, Counter(failed).most_common(1)[0]))
    ranked.sort(key=lambda row: (-row[0].low, row[1], row[2]))
    return [
        {
            "language": language,
            "tag": tag,
            "failed": found.as_json(),
            "mostly": reason,
            "add": _add(language, tag, reason),
        }
        for found, language, tag, (reason, _) in ranked[:_WORST]
    ]


def _add(language: str, tag: str, reason: str) -> str:
    what = {"en": "English", "zh": "Chinese"}.get(language, language)
    advice = _ADVICE.get(reason, "of this kind")
    return f"more {what} seeds of the kind '{tag}', {advice}"
