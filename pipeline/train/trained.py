"""What can be done with a finished training run: load it, merge it into a whole model, talk to it."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.engines.models import quiet
from pipeline.errors import PipelineError, disk_errors
from pipeline.format.conversations import Message
from pipeline.records import read_text
from pipeline.train import adapters

_LONGEST = 512  # tokens of an answer in the terminal


def load(run: Path, *, dtype: Any = None) -> tuple[Any, Any]:
    """Model and tokenizer of a finished run, on the GPU if there is one. Raises PipelineError.

    `dtype`: of the base, none for the one it was trained in.
    """
    from torch import cuda
    from transformers import AutoTokenizer

    quiet()
    if not (run / "DONE").exists() or not (run / "model").is_dir():
        raise PipelineError(run, "this is no finished run of pipeline.sft", "Name one, say runs/sft-001.")
    model = adapters.load(base_of(run)[1], run / "model", dtype=dtype)
    return model.to("cuda" if cuda.is_available() else "cpu"), AutoTokenizer.from_pretrained(run / "model")


def max_length(run: Path) -> int:
    """The longest row, in tokens, that the run was trained on."""
    import yaml

    return int(yaml.safe_load(read_text(run / "config.yaml"))["max_length"])


def base_of(run: Path) -> tuple[str, str]:
    """What the base of a training run was called, "" for the default, and its directory or hub id."""
    import yaml

    config = yaml.safe_load(read_text(run / "config.yaml"))
    return config.get("model", ""), json.loads(read_text(run / "run.json")).get("base", "")


def whole_model(run: Path) -> Path:
    """The whole model of a finished run that answers: RUN/merged, made at the first use.

    Raises PipelineError.
    """
    if not (run / "DONE").exists():
        fix = f"Finish it first (--run {run} --resume), or name another model."
        raise PipelineError(f"model {run}", "the run is not finished", fix)
    if not (found := task_of(run)):
        fix = "Name a run of pipeline.sft or pipeline.dpo, or a model."
        raise PipelineError(f"model {run}", "the run trained no model", fix)
    if found != "causal":
        fix = "Name a run that answers."
        raise PipelineError(f"model {run}", "it is a classifier or a reward model, which does not write", fix)
    return _merged(run, anew=False)


def task_of(run: Path) -> str:
    """What the model of a training run does, "causal" or "classify"; "" where there is none."""
    path = run / "model" / "tuning.json"
    return str(json.loads(read_text(path))["settings"]["task"]) if path.is_file() else ""


def newest(root: Path, command: str) -> Path | None:
    """The newest finished run of `command` under `root` whose model can become a whole one that answers."""
    found = []
    for mark in root.glob(f"{command}-*/DONE"):
        path = mark.parent / "model" / "tuning.json"
        facts = json.loads(read_text(path)) if path.is_file() else {}
        if facts and facts["settings"]["task"] == "causal" and adapters.METHODS[facts["method"]].merges:
            found.append(mark)
    return max(found, key=lambda mark: mark.stat().st_mtime).parent if found else None


def merge(run: Path) -> int:
    """Write the whole model to RUN/merged and print that path."""
    print(_merged(run, anew=True))
    return 0


def _merged(run: Path, *, anew: bool) -> Path:
    """RUN/merged, which appears whole or not at all and is made by one process only."""
    from filelock import FileLock

    folder = run / "merged"
    if folder.is_dir() and not anew:
        return folder
    with disk_errors(folder), FileLock(run / ".merged.lock"):
        if folder.is_dir() and not anew:
            return folder
        print(f"{run}: its whole model is written to {folder}", file=sys.stderr)
        half = Path(tempfile.mkdtemp(prefix=".merged.", dir=run))
        try:
            _write(run, half)
            half.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            half.replace(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return folder


def _write(run: Path, folder: Path) -> None:
    """The whole model in the precision of the base's own files, with its tokenizer.

    It is merged in fp32: what an adapter adds is small beside the steps of bf16.
    """
    from transformers import AutoConfig

    model, tokenizer = load(run, dtype="float32")
    whole = adapters.merge(model)
    whole = whole.to(AutoConfig.from_pretrained(base_of(run)[1]).dtype or whole.dtype)
    if whole.can_generate():
        whole.generation_config.eos_token_id = _ends(run)
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def chat(run: Path) -> int:
    """Answer what is typed, in the template of the training, until an empty line or Ctrl-D."""
    from transformers import TextStreamer

    model, tokenizer = load(run)
    if not model.can_generate():
        raise PipelineError(run, "this is a classifier, which does not talk", "Name a run that answers.")
    model.eval()
    print("An empty line or Ctrl-D ends, /new begins anew.", file=sys.stderr)
    messages: list[Message] = []
    while line := _typed():
        if line == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": line})
        given = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        made = model.generate(
            **given,
            max_new_tokens=_LONGEST,
            do_sample=False,
            streamer=streamer,
            eos_token_id=_ends(run),
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
        said = tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        messages.append({"role": "assistant", "content": said.strip()})
    return 0


def _typed() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


def _ends(run: Path) -> list[int]:
    ends = json.loads(read_text(run / "model" / "generation_config.json"))["eos_token_id"]
    return ends if isinstance(ends, list) else [ends]
