"""What `python -m pipeline.sft` does, once its options are parsed."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config import as_dict
from pipeline.engines.models import language_model, quiet
from pipeline.errors import Stopped, disk_errors
from pipeline.format.audit import audit, write_json
from pipeline.format.show import as_page, in_terminal
from pipeline.format.templates import Template, template_for
from pipeline.lines import LineFile, StoredRows
from pipeline.progress import Display
from pipeline.records import read_text, to_json
from pipeline.rundir import RunDir, next_name
from pipeline.train import adapters, hardware
from pipeline.train.answers import answer
from pipeline.train.curves import draw
from pipeline.train.data import Data, Input, as_dataset, find_input, load
from pipeline.train.optimizers import OptimizerSettings
from pipeline.train.options import Options
from pipeline.train.outcome import report
from pipeline.train.policy import fitting, policy

_NOT_CONFIG = ("run", "resume", "overwrite", "show_mask")
_IN_PAGE = 20  # rows of masks.html


def run(options: Options, root: Path) -> int:
    """Train in a run directory and print where the model is; returns the exit code.

    Raises PipelineError, Stopped.
    """
    given = find_input(options, root)
    config = {name: value for name, value in as_dict(options).items() if name not in _NOT_CONFIG}
    if not (options.data or options.mix):
        config["data"] = [source.name for part in given.sources for source in part]
    target = RunDir(Path(options.run) if options.run else next_name(root, "sft"))
    inputs = given.digests
    if options.resume and target.done:
        target.check_same(config, inputs)
        print(target.path / "model")
        return 0
    base = language_model(options.model)
    options = fitting(options, base)
    machine = hardware.choose(options)
    target.claim(config, inputs, resume=options.resume, overwrite=options.overwrite)
    try:
        with Display(target.path / "log.txt") as display:
            _Job(options, given, base, machine, target, display).run()
        target.finish(config, inputs)
    except KeyboardInterrupt:
        raise Stopped(f"\nStopped. --run {target.path} --resume goes on.") from None
    finally:
        target.release()
    print(target.path / "model")
    return 0


class _Job:
    """One training run, step by step."""

    def __init__(
        self,
        options: Options,
        given: Input,
        base: str,
        machine: hardware.Hardware,
        target: RunDir,
        display: Display,
    ) -> None:
        self.options, self.given, self.base, self.machine = options, given, base, machine
        self.target, self.display = target, display
        self.folder, self.began = target.path, time.monotonic()

    def run(self) -> None:
        """Everything from the data to the saved model. Raises PipelineError, Stopped."""
        from datasets import disable_progress_bars

        from pipeline.train.watch import Metrics

        quiet()
        disable_progress_bars()
        self.display.say(f"directory: {self.folder}; {self.machine.said}")
        template, data = self._data()
        trainer = self._trainer(template, data)
        self._audit(trainer, template, data)
        ends = sorted({one.ids[end - 1] for one in data.train for _, end in one.spans})
        checkpoint = self._checkpoint()
        with closing(LineFile(self.folder / "metrics.jsonl", anew=checkpoint is None)) as file:
            trainer.add_callback(Metrics(file, self.display))
            before = self._before(trainer, template, data, ends)
            seconds = self._train(trainer, checkpoint)
            after = self._look(trainer, template, data, ends)
        self._save(trainer, template, ends)
        said = report(self.target, trainer, data, before, after, seconds)
        self.target.update({"base": self.base, "seconds": round(time.monotonic() - self.began, 1)})
        draw(self.folder / "metrics.jsonl", self.folder, f"{self.options.tuning}, {self.given.names}"[:80])
        for line in said:
            self.display.say(line)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)  # the best one is what was saved

    def _data(self) -> tuple[Template, Data]:
        from transformers import AutoTokenizer

        options = self.options
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        template, phrasing = template_for(tokenizer, options.format, options.format_file)
        said = f"data: {self.given.names}; format {template.name}; at most {options.max_length} tokens a row"
        self.display.say(said)
        data = load(options, self.given, template, phrasing, options.seed)
        if data.repeated:
            self.display.say(f"{data.repeated} rows of the mixture come twice or more: a source is exhausted")
        if data.dropped:
            with closing(LineFile(self.folder / "dropped.jsonl", anew=True)) as file:
                file.append(data.dropped)
            self.display.say(f"{len(data.dropped)} rows were left out; dropped.jsonl says why")
        if data.audit.refused:  # before a model is loaded
            self._show(data)
        return template, data

    def _trainer(self, template: Template, data: Data) -> Any:
        from transformers import PrinterCallback

        from pipeline.train.sft_trainer import Trainer, config

        options, train = self.options, as_dataset(data.train)
        rate = options.learning_rate or adapters.METHODS[options.tuning].learning_rate
        model, tuning = policy(options, self.machine, self.base, data, len(template.tokenizer))
        trainer = Trainer(
            settings=OptimizerSettings(
                options.optimizer,
                learning_rate=rate,
                weight_decay=options.weight_decay,
                layer_decay=options.layer_decay,
                rank=options.optimizer_rank,
            ),
            options=options,
            model=model,
            args=config(options, self.machine, self.folder, rate, validates=bool(data.validation)),
            train_dataset=train,
            eval_dataset=as_dataset(data.validation) if data.validation else None,
            processing_class=template.tokenizer,
            callbacks=adapters.callbacks(model, tuning),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to where the result goes
        trained, whole = adapters.trainable(trainer.model)
        said = f"tuning {options.tuning}: {trained:,} of {whole:,} parameters ({trained / whole:.2%})"
        self.display.say(f"{said}; {options.optimizer}, learning rate {rate:g}, {options.schedule}")
        return trainer

    def _audit(self, trainer: Any, template: Template, data: Data) -> None:
        prepared = itertools.chain(trainer.train_dataset, trainer.eval_dataset or ())
        audit(
            [*data.train, *data.validation],
            prepared,
            trainer.data_collator,
            bos=template.tokenizer.bos_token_id,
            found=data.audit,
        )
        self._show(data)
        shown = data.train[:_IN_PAGE]
        self.target.write("masks.html", as_page(template.tokenizer, shown))
        for one in data.train[: self.options.show_mask]:
            self.display.console.print(in_terminal(template.tokenizer, one), soft_wrap=True)

    def _show(self, data: Data) -> None:
        self.target.write("mask_audit.json", write_json(data.audit))
        self.display.table(data.audit.table())
        data.audit.check(self.options.max_length)

    def _before(self, trainer: Any, template: Template, data: Data, ends: Sequence[int]) -> dict[str, Any]:
        """The held-out loss and answers of the untrained model, kept for a run that is resumed."""
        path = self.folder / "before.json"
        if self.options.resume and path.exists():
            return dict(json.loads(read_text(path)))
        found = self._look(trainer, template, data, ends)
        self.target.write("before.json", to_json(found) + "\n")
        return found

    def _look(self, trainer: Any, template: Template, data: Data, ends: Sequence[int]) -> dict[str, Any]:
        asked = data.held_out[: self.options.num_answers]
        model = trainer.accelerator.unwrap_model(trainer.model)
        loss = trainer.evaluate()["eval_loss"] if data.validation else None
        said = answer(model, template, asked, ends, self.options.max_new_tokens) if asked else []
        return {"eval_loss": loss, "answers": [asdict(one) for one in said]}

    def _checkpoint(self) -> Path | None:
        """The newest whole checkpoint; metrics of later steps, which will be taken again, are cut off."""
        folders = (self.folder / "checkpoints").glob("checkpoint-*")
        # the Trainer writes its state last: without it a kill came in between
        found = sorted((path for path in folders if (path / "trainer_state.json").is_file()), key=_step)
        if not found:
            return None
        rows = [row for row in StoredRows(self.folder / "metrics.jsonl") if row["step"] <= _step(found[-1])]
        self.target.write("metrics.jsonl", "".join(to_json(row) + "\n" for row in rows))
        return found[-1]

    def _train(self, trainer: Any, checkpoint: Path | None) -> float:
        from transformers import EarlyStoppingCallback
        from transformers.integrations import TensorBoardCallback

        from pipeline.train.watch import Stop

        stop, options = Stop(), self.options
        if options.early_stopping and trainer.eval_dataset is not None:
            trainer.add_callback(EarlyStoppingCallback(options.early_stopping))
        began = time.monotonic()
        trainer.add_callback(stop)
        trainer.add_callback(TensorBoardCallback(_writer(self.folder / "tensorboard")))
        with stop.listening(), disk_errors(self.folder):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked:
            step = trainer.state.global_step
            raise Stopped(f"Stopped after step {step}. --run {self.folder} --resume goes on.")
        return time.monotonic() - began

    def _save(self, trainer: Any, template: Template, ends: Sequence[int]) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.generation_config.eos_token_id = list(ends)  # what was trained to end an answer does end it
        with disk_errors(self.folder / "model"):
            adapters.save(model, self.folder / "model")
            template.tokenizer.save_pretrained(self.folder / "model")
            model.generation_config.save_pretrained(self.folder / "model")


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
