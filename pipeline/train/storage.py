"""Tuned models on disk: only what was trained, in safetensors, and `tuning.json` that says how.

What PEFT can carry lies in PEFT's own format (adapter_config.json, adapter_model.safetensors); last-k and a
model's own biases as tensors by name (trained.safetensors); a fully tuned model as a model. `load` needs
the base beside.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.train import pissa, targets
from pipeline.train.methods import Tuning

TUNING_FILE = "tuning.json"
ADAPTER_FILE = "adapter_model.safetensors"
TENSORS_FILE = "trained.safetensors"
STATE_FILE = "training_state.safetensors"
REPARAMETRISED = ("prefix", "p-tuning")  # PEFT stores what the encoder makes, not the encoder
IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what AdaLoRA's allocator remembers of each parameter
HEAD_SETTINGS = (
    "num_labels",
    "id2label",
    "label2id",
    "pad_token_id",
    "problem_type",
)  # of a classifier, unknown to the base
SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")  # what a base must share


def save(model: Any, folder: Path) -> None:
    """Write what was trained, and all that `load` needs beside the base model.

    This finishes a diff pruning: gates that are still undecided are locked, in the model too.
    """
    from peft import PeftModel
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tuning = model.tuning
    if isinstance(model, PeftModel):
        _save_adapter(model, folder)
        if tuning.method in REPARAMETRISED and not model.active_peft_config.inference_mode:
            save_training_state(model, folder)
    elif tuning.method == "full":
        model.save_pretrained(folder)
    else:
        state = model.state_dict()
        save_file({name: state[name].contiguous() for name in model.trained_names}, folder / TENSORS_FILE)
    facts = {
        "method": tuning.method,
        "settings": asdict(tuning),
        "base_model": model.name_or_path,
        "dtype": str(targets.plain(model).dtype).removeprefix("torch."),
        "head": {name: getattr(model.config, name, None) for name in HEAD_SETTINGS},
        "shape": _shape(model),
    }
    (folder / TUNING_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load(base_folder: str, folder: Path, *, dtype: Any = None, trainable: bool = False) -> Any:
    """The model that was saved, with the same logits.

    `base_folder`: directory or hub id of the base, "" for the one it was trained on. `dtype`: of the base,
    none for the one it was trained in. Not `trainable`: everything is frozen.
    """
    facts, tuning = _read(folder)
    kwargs = {"dtype": dtype or facts["dtype"]}
    if tuning.task == "classify":
        kwargs |= _head(facts["head"])
    source = str(folder) if tuning.method == "full" else base_folder or facts["base_model"]
    model = model_class(tuning.task).from_pretrained(source, **kwargs)
    if (found := _shape(model)) != facts["shape"]:
        problem = f"its base has {facts['shape']}, and {source} has {found}"
        raise PipelineError(folder, problem, f"Give the base it was trained on: {facts['base_model']}.")
    if (folder / "adapter_config.json").is_file():
        model = _with_adapter(model, folder, tuning, trainable)
    elif tuning.method != "full":
        _put_tensors(model, folder, trainable)
    if not trainable:
        model.requires_grad_(False)
    model.tuning = tuning
    return model.eval()


def save_training_state(model: Any, folder: Path) -> None:
    """Write every trained parameter by its name in the training model, for `restore`."""
    from safetensors.torch import save_file

    state = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    if model.tuning.method == "adalora":
        allocator = model.base_model.rankallocator
        for kind in IMPORTANCE:
            state |= {f"{kind}/{name}": value for name, value in getattr(allocator, kind).items()}
    save_file(state, folder / f"{STATE_FILE}.part")
    os.replace(folder / f"{STATE_FILE}.part", folder / STATE_FILE)


def last_written(method: str) -> str:
    """The file of a Trainer's checkpoint that is written last: with it the checkpoint is whole."""
    return STATE_FILE if method in (*REPARAMETRISED, "adalora") else "trainer_state.json"


def restore(model: Any, folder: Path) -> bool:
    """Put a checkpoint's parameters back into the attached model; False where the Trainer's own way does it.

    PEFT stores the prompts that prefix tuning and p-tuning compute but not the encoder that trains, and cuts
    AdaLoRA's matrices to their current rank, so a Trainer cannot resume these three.
    """
    from safetensors.torch import load_file

    path = Path(folder) / STATE_FILE
    if not path.is_file():
        return False
    state = load_file(path, device=str(model.device))
    for key in [key for key in state if "/" in key]:
        kind, name = key.split("/")
        getattr(model.base_model.rankallocator, kind)[name] = state.pop(key)
    if unknown := model.load_state_dict(state, strict=False).unexpected_keys:
        problem = f"it holds {len(unknown)} parameters that the model has not, as {unknown[0]}"
        raise PipelineError(path, problem, "Resume with the tuning settings that the run began with.")
    return True


def _head(stored: dict[str, Any]) -> dict[str, Any]:
    """What the configuration of a classifier says beside its base's; JSON made texts of the class numbers."""
    known = {name: value for name, value in stored.items() if value is not None}
    return known | {"id2label": {int(number): name for number, name in known.get("id2label", {}).items()}}


def _shape(model: Any) -> dict[str, Any]:
    return {name: getattr(model.config, name, None) for name in SHAPE}


def model_class(task: str) -> Any:
    """Of transformers, for a task."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if task == "classify" else AutoModelForCausalLM


def _read(folder: Path) -> tuple[dict[str, Any], Tuning]:
    path = folder / TUNING_FILE
    if not path.is_file():
        fix = f"Give a folder with a {TUNING_FILE}, which every training command here writes."
        raise PipelineError(folder, "not a tuned model of ours", fix)
    facts = json.loads(path.read_text(encoding="utf-8"))
    settings = facts["settings"]
    return facts, Tuning(**{**settings, "target_modules": tuple(settings["target_modules"])})


def _save_adapter(model: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.active_peft_config
    pattern = getattr(config, "rank_pattern", None)
    if model.tuning.method == "adalora":
        # Cut to the last allocation's pattern it would lose what has trained since; what is shut is zero.
        config.rank_pattern = None
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    stored = copy.deepcopy(config)
    if pattern:
        config.rank_pattern = pattern
    if model.tuning.method == "pissa":
        pissa.to_lora(model, stored, state)
    if getattr(stored, "gated", False):
        state = _to_sparse(model, stored, state)
    stored.inference_mode = True
    stored.save_pretrained(str(folder))
    save_file({name: value.contiguous() for name, value in state.items()}, folder / ADAPTER_FILE)


def _to_sparse(model: Any, config: Any, state: dict[str, Any]) -> dict[str, Any]:
    """A gated difference as the positions and values of what stays."""
    from pipeline.train.sparse_delta import Gated, deltas, project

    gated = deltas(model, Gated)
    if not all(delta.locked() for delta in gated.values()):
        project(model, model.tuning.sparsity)
    state = {name: value for name, value in state.items() if ".sparse_delta." not in name}
    config.gated, config.num_values = False, {}
    for name, delta in gated.items():
        kept = (delta.gate > 0).flatten().nonzero().flatten()
        if len(kept):
            config.num_values[name] = len(kept)
            state[f"base_model.model.{name}.sparse_delta.indices"] = kept
            state[f"base_model.model.{name}.sparse_delta.values"] = delta.difference.detach().flatten()[kept]
    config.target_modules = set(config.num_values)
    return state


def _with_adapter(base: Any, folder: Path, tuning: Tuning, trainable: bool) -> Any:
    model: Any
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    # two of these only register themselves with PEFT
    from pipeline.train import bottleneck_tuner, soft_prompts, sparse_delta  # noqa: F401
    from pipeline.train.peft_configs import freeze_rank_counts, without_warnings

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    if config.is_prompt_learning:
        # PEFT refuses to train loaded prompts, as it could not with an encoder
        model = soft_prompts.prompt_model(base, config, tuning)
        if not (trainable and restore(model, folder)):
            set_peft_model_state_dict(model, load_file(folder / ADAPTER_FILE))
        return model
    if tuning.method == "pissa":
        return pissa.from_lora(base, config, load_file(folder / ADAPTER_FILE))
    with without_warnings():
        model = PeftModel.from_pretrained(base, str(folder), config=config, is_trainable=trainable)
    if tuning.method == "adalora":
        model.base_model.trainable_adapter_name = "default"  # else PEFT cannot compute a loss
        freeze_rank_counts(model)
    return model


def _put_tensors(model: Any, folder: Path, trainable: bool) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / TENSORS_FILE)
    model.load_state_dict(state, strict=False)
    model.trained_names = tuple(state)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable and name in state)
