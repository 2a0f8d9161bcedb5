"""Train a model on instructions: every way of tuning by one word, the loss on exactly the answers.

Supervised fine-tuning by TRL's SFTTrainer on any dataset this project made (the newest finished one by
default) or any Alpaca, conversational, ShareGPT or prompt-completion file. Before it starts, a mask audit
compares what the trainer would train on, token by token, with what was proved to be an answer and its end.

  python -m pipeline.sft                       # a LoRA of the embedded model on the newest dataset
  python -m pipeline.sft data.jsonl --format alpaca --tuning full
  python -m pipeline.sft merge runs/sft-001    # write the whole model to runs/sft-001/merged
  python -m pipeline.sft chat runs/sft-001     # talk to it
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.config import parse
from pipeline.errors import PipelineError, run_command
from pipeline.rundir import resumable
from pipeline.train.options import Options

_TRAINER = "--trainer."
_ACTIONS = ("merge", "chat")


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if argv[:1] and argv[0] in _ACTIONS:
        return _act(argv[0], argv[1:])
    prog, doc, runs, words = "python -m pipeline.sft", __doc__ or "", Path("runs"), trainer_words(argv)
    options = parse(Options, words, prog=prog, doc=doc)
    if options.resume:
        folder = resumable(Path(options.run) if options.run else None, runs, "sft")
        options = replace(
            parse(Options, words, prog=prog, doc=doc, base=folder / "config.yaml"), run=str(folder)
        )
    from pipeline.train import job

    return job.run(options, runs)


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


def _act(action: str, argv: list[str]) -> int:
    usage = f"python -m pipeline.sft {action} RUN"
    if len(argv) != 1 or argv[0].startswith("-"):
        raise PipelineError("command line", f"expected one run directory: {usage}", "Name it.")
    from pipeline.train import trained

    folder = Path(argv[0])
    return trained.merge(folder) if action == "merge" else trained.chat(folder)


if __name__ == "__main__":
    run_command(main)
