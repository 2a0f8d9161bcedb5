"""What a training run writes as it goes, metrics.jsonl and the display, and a stop that saves first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from pipeline.lines import LineFile
from pipeline.progress import Display
from pipeline.train import hardware, processes

_SHOWN = (
    "loss", "eval_loss", "mean_token_accuracy", "rewards/margins", "rewards/accuracies", "margin", "accuracy",
    "eval_rewards/accuracies", "eval_accuracy", "reward", "completions/mean_length", "kl/answer",
    "value/explained_variance", "eval_reward", "eval_satisfied", "learning_rate", "grad_norm",
)  # fmt: skip
_TRIM_EVERY = 20.0  # seconds


class Metrics(TrainerCallback):
    """Appends what the trainer logs to metrics.jsonl and shows it."""

    def __init__(self, file: LineFile, display: Display) -> None:
        self._file, self._display = file, display

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any
    ) -> None:
        """Write one record."""
        record = {"step": state.global_step, **(logs or {})}
        self._file.append([record])
        shown = ", ".join(f"{name} {record[name]:.4g}" for name in _SHOWN if record.get(name) is not None)
        if shown:
            self._display.step(f"step {state.global_step}/{state.max_steps}: {shown}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        self._display.bar("steps", state.global_step, state.max_steps)


class Trim(TrainerCallback):
    """Gives freed memory back now and then: what is kept lies in pieces, and grows with every step."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """About three times a minute: it is asked for again at once, which takes a second."""
        if time.monotonic() - self._last > _TRIM_EVERY:
            hardware.trim_memory()
            self._last = time.monotonic()


class Stop(TrainerCallback):
    """Ctrl-C and SIGTERM end the run after the step under way, with a checkpoint; a second one at once.

    `every`: steps that belong together, and are finished first. `asked` is what all processes have agreed on;
    what one of them hears while they agree counts from the next step on.
    """

    def __init__(self, every: int = 1) -> None:
        self.asked, self._heard, self._every = False, False, every

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Save and stop if that was asked for, of any of several processes."""
        self.asked = processes.any_of(self._heard)
        if self.asked and state.global_step % self._every == 0:
            control.should_save = control.should_training_stop = True
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Measure nothing where an unbroken run would not: it could be taken for the best checkpoint."""
        if self.asked and state.epoch % 1 and state.global_step < state.max_steps:
            control.should_evaluate = False
        return control

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to both signals (in the main thread, where they arrive)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heard(number: int, frame: FrameType | None) -> None:
            """The first one is noted, the second one interrupts."""
            if self._heard:
                raise KeyboardInterrupt
            self._heard = True

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
