"""What the training commands' entry points share: their words become options, and `merge` and `chat`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipeline.config import parse
from pipeline.errors import PipelineError
from pipeline.rundir import resumable
from pipeline.train.options import BaseOptions

_TRAINER = "--trainer."
OptionsT = TypeVar("OptionsT", bound=BaseOptions)


def parsed(cls: type[OptionsT], argv: list[str], name: str, doc: str, runs: Path) -> OptionsT:
    """The options of command `name`; with --resume on top of those that the run began with.

    Raises PipelineError.
    """
    prog, words = f"python -m pipeline.{name}", trainer_words(argv)
    options = parse(cls, words, prog=prog, doc=doc)
    if not options.resume:
        return options
    folder = resumable(Path(options.run) if options.run else None, runs, name)
    return replace(parse(cls, words, prog=prog, doc=doc, base=folder / "config.yaml"), run=str(folder))


def trainer_words(argv: list[str]) -> list[str]:
    """The same with all `--trainer.NAME VALUE` and `--trainer.NAME=VALUE` gathered in one --trainer."""
    rest, found, words = list[str](), list[str](), iter(argv)
    for word in words:
        if not word.startswith(_TRAINER):
            rest.append(word)
            continue
        name, sign, value = word.removeprefix(_TRAINER).partition("=")
        if not sign:
            following = next(words, None)
            if following is None:
                raise PipelineError(word, "no value follows", "Give one.")
            value = following
        found.append(f"{name}={value}")
    return [*rest, *(["--trainer", *found] if found else [])]


def act(action: str, argv: list[str], name: str) -> int:
    """Carry out `merge RUN` or `chat RUN` of command `name`; returns the exit code. Raises PipelineError."""
    usage = f"python -m pipeline.{name} {action} RUN"
    if len(argv) != 1 or argv[0].startswith("-"):
        raise PipelineError("command line", f"expected one run directory: {usage}", "Name it.")
    from pipeline.train import trained

    folder = Path(argv[0])
    return trained.merge(folder) if action == "merge" else trained.chat(folder)
