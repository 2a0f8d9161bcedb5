"""What `python -m pipeline.sft` does to teach answers, once its options are parsed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.format.templates import Template
from pipeline.train import adapters
from pipeline.train.answers import answer
from pipeline.train.audited_job import AuditedJob
from pipeline.train.data import Data, as_dataset, load
from pipeline.train.outcome import report
from pipeline.train.policy import policy
from pipeline.train.sft_options import Options, refuse_options_of


class SFTJob(AuditedJob):
    """Supervised fine-tuning of a language model on proved rows."""

    command = "sft"
    by_several = True
    data: Data
    ends: Sequence[int]

    @classmethod
    def config_class(cls, options: Options) -> Any:
        """TRL's."""
        from trl import SFTConfig

        return SFTConfig

    @classmethod
    def check(cls, options: Options) -> None:
        """Refuse options of classifiers."""
        refuse_options_of("classify", options)

    def prepare(self) -> Any:
        """Read, prove and audit the rows. Raises PipelineError."""
        data = self.data = self.read_rows(self._load)
        trainer = self._trainer()
        prepared = itertools.chain(trainer.train_dataset, trainer.eval_dataset or ())
        self.audit_rows(data.audit, [*data.train, *data.validation], prepared, trainer.data_collator)
        last = {one.ids[end - 1] for one in data.train for _, end in one.spans}
        self.ends = sorted(last & self.template.ends)  # an answer that was cut ends with any token
        return trainer

    def _load(self, template: Template, phrasing: str) -> Data:
        return load(self.options, self.given, template, phrasing, self.options.seed)

    def _trainer(self) -> Any:
        from pipeline.train.sft_trainer import Trainer

        options, data, tokenizer = self.options, self.data, self.template.tokenizer
        train, packing = as_dataset(data.train), self.machine.packing
        tuned = policy(options, self.machine, self.base, train, len(tokenizer))
        fields = {
            "max_length": options.max_length if packing else None,
            "dataset_kwargs": {"skip_prepare_dataset": not packing},
        }
        validation = as_dataset(data.validation) if data.validation else None
        return self.build(Trainer, tuned, train, validation, tokenizer, fields)

    def look(self, trainer: Any) -> dict[str, Any]:
        """The held-out loss, and answers to held-out requests."""
        asked = self.data.held_out[: self.options.num_answers]
        model = trainer.accelerator.unwrap_model(trainer.model)
        loss = trainer.evaluate()["eval_loss"] if self.data.validation else None
        said = answer(model, self.template, asked, self.ends, self.options.max_new_tokens) if asked else []
        return {"eval_loss": loss, "answers": [asdict(one) for one in said]}

    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """With the template in the tokenizer and the end tokens in the generation configuration."""
        model.generation_config.eos_token_id = list(self.ends)  # what was trained to end an answer does
        adapters.save(model, folder)
        self.template.tokenizer.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)

    def report(
        self, trainer: Any, before: dict[str, Any], after: dict[str, Any], seconds: float
    ) -> Sequence[str]:
        """answers.jsonl and run.json."""
        return report(self.target, trainer, self.data, before, after, seconds)
