"""What can be done with a finished SFT run: merge it into a whole model, talk to it."""

from __future__ import annotations

import json
import sys
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
    base = json.loads(read_text(run / "run.json"))["base"]
    model = adapters.load(base, run / "model", dtype=dtype)
    return model.to("cuda" if cuda.is_available() else "cpu"), AutoTokenizer.from_pretrained(run / "model")


def max_length(run: Path) -> int:
    """The longest row, in tokens, that the run was trained on."""
    import yaml

    return int(yaml.safe_load(read_text(run / "config.yaml"))["max_length"])


def merge(run: Path) -> int:
    """Write the whole model to RUN/merged, in the precision of the base's own files, and print that path.

    It is merged in fp32: what an adapter adds is small beside the steps of bf16.
    """
    import torch
    from transformers import AutoConfig

    model, tokenizer = load(run, dtype=torch.float32)
    own = AutoConfig.from_pretrained(json.loads(read_text(run / "run.json"))["base"]).dtype
    whole, folder = adapters.merge(model).to(own or torch.float32), run / "merged"
    if whole.can_generate():
        whole.generation_config.eos_token_id = _ends(run)
    with disk_errors(folder):
        whole.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(folder)
    return 0


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
