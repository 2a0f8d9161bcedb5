"""Whether a run's training data give held-out tasks away, by n-grams, wording and meaning.

Every held-out task is looked for among the training rows, so that each has its own verdict; n-grams in all
that a row says, wording (ROUGE-L) and meaning (cosine) in what it asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.dedup.contamination import Contamination, Finding, HeldOut
from pipeline.dedup.encoder import OFF as NO_MODEL
from pipeline.dedup.encoder import Encoder
from pipeline.dedup.meaning import Meaning
from pipeline.dedup.tokens import tokenize
from pipeline.errors import PipelineError
from pipeline.evaluation.lineage import Lineage, asked, whole
from pipeline.evaluation.options import EXCLUDE, OFF, Options
from pipeline.evaluation.tasks import Item
from pipeline.intervals import share


@dataclass
class Contaminated:
    """What was found, by item, and where it was looked for."""

    mode: str
    measures: dict[str, Any] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    rows: int = 0
    items: int = 0
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the score sheet."""
        if self.mode == OFF:
            return {"mode": self.mode}
        trained = [source.name for source in self.lineage.sources]
        where = {"runs": self.lineage.runs, "trained_on": trained, "not_known": self.lineage.unknown}
        said = {"mode": self.mode, "measures": self.measures, **where, "rows": self.rows}
        if not trained:
            return {**said, "share": None, "found": {}, "excluded_tasks": []}
        counts = share(len(self.found), self.items).as_json()
        return {**said, "share": counts, "found": self.found, "excluded_tasks": self.excluded}

    def sentence(self) -> str:
        """The result on one line, for people."""
        if self.mode == OFF:
            return "contamination: not looked for (--contamination off)"
        if not self.lineage.sources:
            return f"contamination: not known what {', '.join(self.lineage.unknown)} was trained on"
        said = f"contamination: {len(self.found)} of {self.items} requests are in {self.rows} training rows"
        away = f"; {len(self.excluded)} tasks are not scored" if self.mode == EXCLUDE else ""
        unknown = f"; not known: {', '.join(self.lineage.unknown)}" if self.lineage.unknown else ""
        return f"{said}{away}{unknown}"


def contaminated(options: Options, items: Sequence[Item], found: Lineage, encoder: Encoder) -> Contaminated:
    """Search the training data for the held-out items. Raises PipelineError."""
    out = Contaminated(options.contamination)
    if options.contamination == OFF:
        return out
    by_meaning = options.contamination_embedding < 1 and options.embedding_model != NO_MODEL
    out.lineage, out.items = found, len(items)
    out.measures = {
        "ngram": options.contamination_ngram,
        "rouge": options.contamination_rouge,
        "embedding": {"model": encoder.name, "cosine": options.contamination_embedding}
        if by_meaning
        else None,
    }
    rows = [(row.name, row.fields) for source in found.sources for row in source.rows()]
    out.rows = len(rows)
    if not rows:
        return out
    where = [name for name, _ in rows]
    questions = HeldOut(where, [asked(fields) for _, fields in rows])
    passages = HeldOut(where, [whole(fields) for _, fields in rows])
    meaning, vectors = None, None
    requests = [item.prompt.request for item in items]
    if by_meaning:
        meaning = Meaning(options.contamination_embedding, encoder)
        meaning.insert(where, questions.texts, meaning.encode(questions.texts))
        vectors = meaning.encode(requests)
    worded = Contamination(questions, ngram=0, rouge=options.contamination_rouge, meaning=meaning)
    shared = Contamination(passages, ngram=options.contamination_ngram, rouge=1)
    findings = [shared.find([item.text for item in items]), worded.find(requests, vectors)]
    for number, item in enumerate(items):
        mine = [one for part in findings for one in part.get(number, [])]
        if mine:
            out.found[item.id] = [_as_json(item, one) for one in mine]
    return out


def clean(items: Sequence[Item], found: Contaminated) -> list[Item]:
    """The items that are scored: with `exclude` those of tasks of which nothing was found.

    Raises PipelineError if none is left.
    """
    if found.mode != EXCLUDE:
        return list(items)
    bad = {item.task for item in items if item.id in found.found}
    found.excluded = [task for task in dict.fromkeys(item.task for item in items) if task in bad]
    left = [item for item in items if item.task not in bad]
    if not left:
        problem = f"all {len(found.excluded)} held-out tasks are in the training data"
        raise PipelineError(f"--contamination {EXCLUDE}", problem, "Evaluate on other tasks (--heldout).")
    return left


def _as_json(item: Item, one: Finding) -> dict[str, Any]:
    """The finding; of n-grams the share of the held-out text, not of the training row."""
    said = one.as_json()
    if one.spans:
        covered = sum(len(tokenize(span)) for span in one.spans)
        said["score"] = round(min(1.0, covered / max(1, len(tokenize(item.text)))), 4)
    return said
