"""What the trainings on preferences share: rows read into encoded answers, their audit, length statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.formats import FORMATS
from pipeline.format.templates import Encoded, Template
from pipeline.rows import Row
from pipeline.train.audited_job import AuditedJob
from pipeline.train.pairs import PairData, cut_together, lengths, load

_PHRASED = ("plain", "apart")  # formats that change nothing in a conversation


class PairJob(AuditedJob):
    """Trains on answers that are preferred or rated."""

    rows = "preferences.jsonl"
    cut = staticmethod(cut_together)  # what is too long
    data: PairData[Any]

    @classmethod
    def check(cls, options: Any) -> None:
        """Refuse formats for single examples. Raises PipelineError."""
        if not options.format_file and FORMATS[options.format].phrasing not in _PHRASED:
            can = ", ".join(name for name, form in FORMATS.items() if form.phrasing in _PHRASED)
            problem = "it phrases instructions, and preferences are conversations"
            raise PipelineError(f"--format {options.format}", problem, f"Use one of {can}.")

    def read_pairs(self, read: Callable[[Row], Iterable[Any]]) -> dict[str, Any]:
        """Fill `data` with what `read` makes of the rows; returns facts on them. Raises PipelineError."""

        def of(template: Template, phrasing: str) -> PairData[Any]:
            """The rows in tokens."""
            tokenizer = template.tokenizer
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            return load(self.options, self.given, template, read, cut=self.cut)

        data = self.data = self.read_rows(of)
        rows = [*data.train, *data.validation]
        if len(rows[0].sides) == 1:
            wanted = sum(row.record.wanted for row in rows)
            self.display.say(f"{wanted} wanted and {len(rows) - wanted} unwanted answers")
            return {"wanted": wanted, "unwanted": len(rows) - wanted}
        found = lengths(rows)
        sizes = " and ".join(f"{found[name]['mean']:.0f} tokens {name}" for name in ("chosen", "rejected"))
        longer = f"the chosen answer is the longer one in {found['chosen_longer_frac']:.0%}"
        self.display.say(f"{len(rows)} pairs, on average {sizes}; {longer}")
        return {"lengths": found}

    def audit_pairs(self, trainer: Any, expected: Sequence[Encoded]) -> None:
        """Compare what the collator feeds with the proved answers, on all sides. Raises PipelineError."""
        fed = [
            row for rows in (trainer.train_dataset, trainer.eval_dataset) if rows for row in trainer.fed(rows)
        ]
        self.audit_rows(self.data.audit, expected, fed, None)

    def base_rows(self) -> list[dict[str, Any]]:
        """One sequence a row, as a method takes them that looks at the data before it trains."""
        return [{"input_ids": row.sides[0].ids, "labels": row.sides[0].labels} for row in self.data.train]
