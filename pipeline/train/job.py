"""What every training command does around a trainer: its run directory, checkpoints, a stop that saves."""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pipeline.engines.models import quiet
from pipeline.errors import Stopped, disk_errors
from pipeline.lines import LineFile
from pipeline.progress import Display
from pipeline.records import read_text, to_json
from pipeline.rundir import RunDir
from pipeline.train import adapters, hardware, processes
from pipeline.train.checkpoints import newest
from pipeline.train.curves import draw
from pipeline.train.data import Input, find_input, newest_run
from pipeline.train.optimizers import OptimizerSettings, chosen
from pipeline.train.options import BaseOptions
from pipeline.train.policy import fitting
from pipeline.train.trainer_fields import trainer_config

OptionsT = TypeVar("OptionsT", bound=BaseOptions)


class Job(ABC):
    """One training run; what is trained on and how it is judged is a subclass's."""

    command: ClassVar[str]
    rows: ClassVar[str] = "kept.jsonl"  # the file of a run of ours that is read
    rate: ClassVar[float] = 1.0  # learning rate over the tuning method's own
    by_several: ClassVar[bool] = False  # whether several processes may train together
    stops_every = 1  # steps between two at which a run can be left and gone on with

    def __init__(
        self,
        options: Any,
        given: Input,
        base: str,
        machine: hardware.Hardware,
        target: RunDir,
        display: Display,
    ) -> None:
        self.options, self.given, self.base, self.machine = options, given, base, machine
        self.target, self.display = target, display
        self.folder, self.began = target.path, time.monotonic()
        self.leads = processes.leads()

    def run(self) -> None:
        """Everything from the data to the saved model. Raises PipelineError, Stopped."""
        from datasets import disable_progress_bars

        from pipeline.train.watch import Metrics

        quiet()
        disable_progress_bars()
        self.display.say(f"directory: {self.folder}; {self.machine.said}")
        trainer = self.prepare()
        checkpoint = newest(self.target, self.options.tuning)
        with ExitStack() as opened:
            if self.leads:
                file = LineFile(self.folder / "metrics.jsonl", anew=checkpoint is None)
                trainer.add_callback(Metrics(opened.enter_context(closing(file)), self.display))
            before = self._before(trainer)
            seconds = self._train(trainer, checkpoint)
            after = self.look(trainer)
        if self.leads:
            self._end(trainer, before, after, seconds)
        processes.meet(self.machine.device)

    def _end(self, trainer: Any, before: dict[str, Any], after: dict[str, Any], seconds: float) -> None:
        """Save and report."""
        with disk_errors(self.folder / "model"):
            self.save(trainer, trainer.accelerator.unwrap_model(trainer.model), self.folder / "model")
        said = self.report(trainer, before, after, seconds)
        self.target.update({"base": self.base, "seconds": round(time.monotonic() - self.began, 1)})
        draw(self.folder / "metrics.jsonl", self.folder, f"{self.options.tuning}, {self.given.names}"[:80])
        for line in said:
            self.display.say(line)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)  # the best one is what was saved

    @classmethod
    def completed(cls, options: OptionsT, root: Path) -> OptionsT:
        """The options with what is found under `root` in the place of what was not named.

        Raises PipelineError.
        """
        if options.data or getattr(options, "mix", ()):
            return options
        return replace(options, data=(str(newest_run(root, cls.rows)),))

    @classmethod
    def find(cls, options: Any) -> Input:
        """The rows that the options name. Raises PipelineError."""
        return find_input(options, cls.rows)

    @classmethod
    def fitted(cls, options: Any, base: str) -> Any:
        """The options as the model and the adapter allow them. Raises PipelineError."""
        return fitting(options, base)

    @classmethod
    @abstractmethod
    def config_class(cls, options: Any) -> Any:
        """The class of the trainer's configuration."""

    @classmethod
    @abstractmethod
    def check(cls, options: Any) -> None:
        """Refuse what does not fit together. Raises PipelineError."""

    @abstractmethod
    def prepare(self) -> Any:
        """Read and check the data; returns the trainer."""

    @abstractmethod
    def look(self, trainer: Any) -> dict[str, Any]:
        """What the model is worth now, as JSON."""

    @abstractmethod
    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """Write the trained model and all that it needs."""

    @abstractmethod
    def report(
        self, trainer: Any, before: dict[str, Any], after: dict[str, Any], seconds: float
    ) -> Sequence[str]:
        """Write down what came of it; returns lines for people."""

    def drop(self, rows: list[dict[str, str]]) -> None:
        """Write down the rows that were left out."""
        if rows and self.leads:
            with closing(LineFile(self.folder / "dropped.jsonl", anew=True)) as file:
                file.append(rows)
            self.display.say(f"{len(rows)} rows were left out; dropped.jsonl says why")

    def build(
        self, kind: Any, tuned: tuple[Any, adapters.Tuning], train: Any, validation: Any, tokenizer: Any,
        fields: Mapping[str, Any], **more: Any,
    ) -> Any:  # fmt: skip
        """A trainer of class `kind` for a tuned model; `fields` go to its configuration, `more` to itself."""
        from transformers import PrinterCallback

        options, (model, tuning), settings = self.options, tuned, self.settings()
        trainer = kind(
            settings=settings,
            options=options,
            model=model,
            args=trainer_config(
                self.config_class(options),
                options,
                self.machine,
                self.folder,
                {"learning_rate": settings.learning_rate, **fields},
                validates=validation is not None,
            ),
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            callbacks=adapters.callbacks(model, tuning),
            **more,
        )
        trainer.remove_callback(PrinterCallback)  # it prints to where the result goes
        self.say_tuning(trainer.model)
        return trainer

    def settings(self) -> OptimizerSettings:
        """The optimizer as the options say."""
        return chosen(self.options, adapters.METHODS[self.options.tuning].learning_rate, self.rate)

    def say_tuning(self, model: Any) -> None:
        """What trains, and how."""
        trained, whole = adapters.trainable(model)
        options, rate = self.options, self.settings().learning_rate
        said = f"tuning {options.tuning}: {trained:,} of {whole:,} parameters ({trained / whole:.2%})"
        self.display.say(f"{said}; {options.optimizer}, learning rate {rate:g}, {options.schedule}")

    def _before(self, trainer: Any) -> dict[str, Any]:
        """What the untrained model is worth, kept for a run that is resumed."""
        path = self.folder / "before.json"
        if self.options.resume and path.exists():
            return dict(json.loads(read_text(path)))
        found = self.look(trainer)
        self.target.write("before.json", to_json(found) + "\n")
        return found

    def _train(self, trainer: Any, checkpoint: Path | None) -> float:
        from torch.utils.tensorboard import SummaryWriter
        from transformers import EarlyStoppingCallback
        from transformers.integrations import TensorBoardCallback

        from pipeline.train.watch import Stop, Trim

        stop, options = Stop(self.stops_every), self.options
        if options.early_stopping and trainer.eval_dataset is not None:
            trainer.add_callback(EarlyStoppingCallback(options.early_stopping))
        began = time.monotonic()
        trainer.add_callback(stop)
        if self.machine.device == "cpu":
            trainer.add_callback(Trim())
        if self.leads:
            trainer.add_callback(TensorBoardCallback(SummaryWriter(str(self.folder / "tensorboard"))))
        with stop.listening(), disk_errors(self.folder):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked:
            step = trainer.state.global_step
            raise Stopped(f"Stopped after step {step}. --run {self.folder} --resume goes on.")
        return time.monotonic() - began
