"""LoRA adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records import read_text

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM reserves room for one of these


def adapter_name(folder: str) -> str:
    """What provenance calls the adapter: its folder's name."""
    return Path(folder).resolve().name


def adapter_rank(folder: str) -> int:
    """The rank to reserve for the adapter: the largest of its layers', rounded up. Raises PipelineError."""
    path = Path(folder) / "adapter_config.json"
    weights = path.with_name("adapter_model.safetensors")
    for needed in (path, weights):
        if not needed.is_file():
            fix = "Give a folder that PEFT's save_pretrained wrote, with safetensors."
            raise PipelineError(f"adapter {folder}", f"it has no {needed.name}", fix)
    try:
        config = json.loads(read_text(path))
        largest = max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(
            path, f"not a LoRA adapter's configuration ({error!r})", "Give a LoRA."
        ) from error
    rank = next((rank for rank in RANKS if rank >= largest), 0)
    if not rank:
        raise PipelineError(path, f"rank {largest}, expected at most {RANKS[-1]}", "Use a smaller adapter.")
    return rank
