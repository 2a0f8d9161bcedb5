"""A training job whose rows are proved by their template, audited as the trainer sees them, and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pipeline.format.audit import Audit, audit, write_json
from pipeline.format.show import as_page, in_terminal
from pipeline.format.templates import Encoded, Template, template_for
from pipeline.train.job import Job

_IN_PAGE = 20  # rows of masks.html


class Audited(Protocol):
    """Data that the audit knows of."""

    audit: Audit
    said: list[str]
    dropped: list[dict[str, str]]


D = TypeVar("D", bound=Audited)


class AuditedJob(Job):
    """Reads rows through a template and refuses to train on what is not exactly as it was proved."""

    template: Template

    def read_rows(self, load: Callable[[Template, str], D]) -> D:
        """What `load` makes of a template and the phrasing that goes with it. Raises PipelineError."""
        from transformers import AutoTokenizer

        options = self.options
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        self.template, phrasing = template_for(tokenizer, options.format, options.format_file)
        most = f"at most {options.max_length} tokens a row"
        self.display.say(f"data: {self.given.names}; format {self.template.name}; {most}")
        data = load(self.template, phrasing)
        for line in data.said:
            self.display.say(line)
        self.drop(data.dropped)
        if data.audit.refused:  # before a model is loaded
            self._show(data.audit)
        return data

    def audit_rows(
        self,
        found: Audit,
        expected: Sequence[Encoded],
        prepared: Iterable[Mapping[str, Any]],
        collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]] | None,
    ) -> None:
        """Compare what the trainer was given with what was proved. Raises PipelineError."""
        tokenizer = self.template.tokenizer
        audit(expected, prepared, collate, bos=tokenizer.bos_token_id, found=found)
        self._show(found)
        self.target.write("masks.html", as_page(tokenizer, expected[:_IN_PAGE]))
        for one in expected[: self.options.show_mask]:
            self.display.console.print(in_terminal(tokenizer, one), soft_wrap=True)

    def _show(self, found: Audit) -> None:
        self.target.write("mask_audit.json", write_json(found))
        self.display.table(found.table())
        found.check(self.options.max_length)
