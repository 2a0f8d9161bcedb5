"""What every training command does around a trainer: its run directory, checkpoints, a stop that saves."""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.config import as_dict
from pipeline.engines.models import quiet
from pipeline.errors import PipelineError, Stopped, disk_errors
from pipeline.lines import LineFile, StoredRows
from pipeline.progress import Display
from pipeline.records import read_text, to_json
from pipeline.rundir import RunDir, next_name
from pipeline.train import adapters, hardware
from pipeline.train.curves import draw
from pipeline.train.data import Input, find_input
from pipeline.train.optimizers import OptimizerSettings
from pipeline.train.options import Options
from pipeline.train.policy import base_model, fitting

_NOT_CONFIG = ("run", "resume", "overwrite", "show_mask")
_ONLY = {  # options that one task alone reads
    "causal": ("format", "format_file", "show_mask", "packing", "num_answers", "max_new_tokens"),
    "classify": ("text_field", "label_field"),
}


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
    base = base_model(options)
    options = fitting(options, base)
    machine = hardware.choose(options)
    job = _job(options)
    _refuse_meaningless(options)
    target.claim(config, inputs, resume=options.resume, overwrite=options.overwrite)
    try:
        with Display(target.path / "log.txt") as display:
            job(options, given, base, machine, target, display).run()
        target.finish(config, inputs)
    except KeyboardInterrupt:
        raise Stopped(f"\nStopped. --run {target.path} --resume goes on.") from None
    finally:
        target.release()
    print(target.path / "model")
    return 0


def _job(options: Options) -> Any:
    if options.task == "classify":
        from pipeline.train.classify_job import ClassifyJob

        return ClassifyJob
    from pipeline.train.sft_job import SFTJob

    return SFTJob


def _refuse_meaningless(options: Options) -> None:
    """Refuse options of the other task. Raises PipelineError."""
    plain = Options()
    for name in _ONLY["causal" if options.task == "classify" else "classify"]:
        if getattr(options, name) not in (getattr(plain, name), "off"):
            flag = "--" + name.replace("_", "-")
            raise PipelineError(flag, f"it has no meaning for --task {options.task}", "Leave it out.")


class Job(ABC):
    """One training run; what is trained on and how it is judged is a subclass's."""

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
        trainer = self.prepare()
        checkpoint = self._checkpoint()
        with closing(LineFile(self.folder / "metrics.jsonl", anew=checkpoint is None)) as file:
            trainer.add_callback(Metrics(file, self.display))
            before = self._before(trainer)
            seconds = self._train(trainer, checkpoint)
            after = self.look(trainer)
        with disk_errors(self.folder / "model"):
            self.save(trainer, trainer.accelerator.unwrap_model(trainer.model), self.folder / "model")
        said = self.report(trainer, before, after, seconds)
        self.target.update({"base": self.base, "seconds": round(time.monotonic() - self.began, 1)})
        draw(self.folder / "metrics.jsonl", self.folder, f"{self.options.tuning}, {self.given.names}"[:80])
        for line in said:
            self.display.say(line)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)  # the best one is what was saved

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
        if rows:
            with closing(LineFile(self.folder / "dropped.jsonl", anew=True)) as file:
                file.append(rows)
            self.display.say(f"{len(rows)} rows were left out; dropped.jsonl says why")

    def settings(self) -> OptimizerSettings:
        """The optimizer as the options say."""
        options = self.options
        return OptimizerSettings(
            options.optimizer,
            learning_rate=options.learning_rate or adapters.METHODS[options.tuning].learning_rate,
            weight_decay=options.weight_decay,
            layer_decay=options.layer_decay,
            rank=options.optimizer_rank,
        )

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

    def _checkpoint(self) -> Path | None:
        """The newest whole checkpoint; metrics of later steps, which will be taken again, are cut off."""
        folders = (self.folder / "checkpoints").glob("checkpoint-*")
        # without the last of its files a kill came in between
        last = adapters.last_written(self.options.tuning)
        found = sorted((path for path in folders if (path / last).is_file()), key=_step)
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


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
