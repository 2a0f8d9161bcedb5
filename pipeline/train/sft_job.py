"""What `python -m pipeline.sft` does to teach answers, once its options are parsed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.format.audit import audit, write_json
from pipeline.format.show import as_page, in_terminal
from pipeline.format.templates import Template, template_for
from pipeline.train import adapters
from pipeline.train.answers import answer
from pipeline.train.data import Data, as_dataset, load
from pipeline.train.job import Job
from pipeline.train.outcome import report
from pipeline.train.policy import policy

_IN_PAGE = 20  # rows of masks.html


class SFTJob(Job):
    """Supervised fine-tuning of a language model on proved rows."""

    template: Template
    data: Data
    ends: Sequence[int]

    def prepare(self) -> Any:
        """Read, prove and audit the rows. Raises PipelineError."""
        self.template, self.data = self._data()
        trainer = self._trainer()
        self._audit(trainer)
        self.ends = sorted({one.ids[end - 1] for one in self.data.train for _, end in one.spans})
        return trainer

    def _data(self) -> tuple[Template, Data]:
        from transformers import AutoTokenizer

        options = self.options
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        template, phrasing = template_for(tokenizer, options.format, options.format_file)
        said = f"data: {self.given.names}; format {template.name}; at most {options.max_length} tokens a row"
        self.display.say(said)
        data = load(options, self.given, template, phrasing, options.seed)
        for line in data.said:
            self.display.say(line)
        self.drop(data.dropped)
        if data.audit.refused:  # before a model is loaded
            self._show(data)
        return template, data

    def _trainer(self) -> Any:
        from transformers import PrinterCallback

        from pipeline.train.sft_trainer import Trainer
        from pipeline.train.trainer_fields import config

        options, data, tokenizer = self.options, self.data, self.template.tokenizer
        train = as_dataset(data.train)
        model, tuning = policy(options, self.machine, self.base, train, len(tokenizer))
        rate = self.settings().learning_rate
        trainer = Trainer(
            settings=self.settings(),
            options=options,
            model=model,
            args=config(options, self.machine, self.folder, rate, validates=bool(data.validation)),
            train_dataset=train,
            eval_dataset=as_dataset(data.validation) if data.validation else None,
            processing_class=tokenizer,
            callbacks=adapters.callbacks(model, tuning),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to where the result goes
        self.say_tuning(trainer.model)
        return trainer

    def _audit(self, trainer: Any) -> None:
        data, tokenizer = self.data, self.template.tokenizer
        prepared = itertools.chain(trainer.train_dataset, trainer.eval_dataset or ())
        expected = [*data.train, *data.validation]
        audit(expected, prepared, trainer.data_collator, bos=tokenizer.bos_token_id, found=data.audit)
        self._show(data)
        self.target.write("masks.html", as_page(tokenizer, data.train[:_IN_PAGE]))
        for one in data.train[: self.options.show_mask]:
            self.display.console.print(in_terminal(tokenizer, one), soft_wrap=True)

    def _show(self, data: Data) -> None:
        self.target.write("mask_audit.json", write_json(data.audit))
        self.display.table(data.audit.table())
        data.audit.check(self.options.max_length)

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
