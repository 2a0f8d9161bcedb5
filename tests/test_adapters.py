"""Every tuning method: it learns, trains what it names, comes back from disk, merges or says why not."""

from __future__ import annotations

import copy
import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Trainer,
    TrainerState,
    TrainingArguments,
)

from pipeline.engines.models import language_model
from pipeline.errors import PipelineError
from pipeline.train import adapters
from pipeline.train.adapters import METHODS, Tuning

STEPS, PAD = 12, 0
PAIRS = [
    ("Name a colour.", "Blue."),
    ("说出一种颜色。", "蓝色。"),
    ("Is water dry?", "No, it is wet."),
    ("水是干的吗？", "不，水是湿的。"),
]
# What the parameters that train are called, beside a classifier's head.
TRAINS = {
    "full": "",
    "lora": r"_proj\.lora_[AB]\.",
    "dora": r"_proj\.lora_([AB]|magnitude_vector)\.",
    "rslora": r"_proj\.lora_[AB]\.",
    "pissa": r"_proj\.lora_[AB]\.",
    "adalora": r"_proj\.lora_[ABE]\.",
    "ia3": r"(k|v|down)_proj\.ia3_l\.",
    "vera": r"_proj\.vera_lambda_[bd]\.",
    "oft": r"_proj\.oft_R\.",
    "prefix": r"prompt_encoder\.default\.(embedding|transform)",
    "p-tuning": r"prompt_encoder\.default\.(embedding|mlp_head)",
    "p-tuning-v2": r"prompt_encoder\.default\.embedding",
    "prompt": r"prompt_encoder\.default\.embedding",
    "houlsby": r"(o|down)_proj\.bottleneck\.",
    "pfeiffer": r"down_proj\.bottleneck\.",
    "bitfit": r"_proj\.beft_bias\.",
    "ln": r"(layernorm|norm)\.ln_tuning_layers\.",
    "fish-mask": r"_proj\.sparse_delta\.default\.values",
    "diff-pruning": r"_proj\.sparse_delta\.default\.(difference|gate)",
    "last-k": r"model\.(layers\.1|norm)\.",
}
# Rates at which a network of 32 units learns in twelve steps; the table's are for real models.
RATES = {
    "lora": 1e-2,
    "rslora": 1e-2,
    "dora": 1e-2,
    "pissa": 3e-3,
    "full": 3e-3,
    "last-k": 3e-3,
    "diff-pruning": 3e-3,
    "fish-mask": 1e-2,
    "adalora": 5e-2,
    "p-tuning-v2": 0.3,
}
SOFT = ("prompt", "p-tuning", "p-tuning-v2", "prefix")


class Loop(Trainer):
    """A plain Trainer with the three hooks that `adapters` asks of a trainer."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        more = adapters.extra_loss(model) if model.training else None
        return loss if more is None else loss + more

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not adapters.restore(model or self.model, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """Two threads wait for each other longer than these matrices take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # else the Trainer's collection walks all that is imported, after each run
    yield
    gc.unfreeze()
    gc.collect()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    tiny_llama.save(folder)
    return str(folder)


def fresh(base: str, task: str) -> Any:
    model = copy.deepcopy(untouched(base, task))
    torch.manual_seed(0)
    return model


@cache
def untouched(base: str, task: str) -> Any:
    torch.manual_seed(0)
    if task == "causal":
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return AutoModelForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=2, pad_token_id=PAD
    )


@cache
def rows(base: str, task: str) -> list[dict[str, torch.Tensor]]:
    """Four padded examples in English and Chinese; a classifier tells the languages apart."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    out = []
    for i, (prompt, answer) in enumerate(PAIRS):
        given, wanted = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
        ids = torch.tensor(given + wanted)
        labels = torch.tensor([-100] * len(given) + wanted)
        spare = 64 - len(ids)
        out.append(
            {
                "input_ids": nn.functional.pad(ids, (0, spare), value=PAD),
                "attention_mask": nn.functional.pad(torch.ones_like(ids), (0, spare)),
                "labels": torch.tensor(i % 2)
                if task == "classify"
                else nn.functional.pad(labels, (0, spare), value=-100),
            }
        )
    return out


def batch(base: str, task: str) -> dict[str, torch.Tensor]:
    examples = rows(base, task)
    return {name: torch.stack([row[name] for row in examples]) for name in examples[0]}


def tuning_for(method: str, task: str, **more: Any) -> Tuning:
    settings = {"rank": 4, "num_virtual_tokens": 4, "bottleneck": 8, "last_layers": 1, "sparsity": 0.05}
    return Tuning(method=method, task=task, total_steps=STEPS, **{**settings, **more})


def attached(base: str, tuning: Tuning) -> Any:
    model = fresh(base, tuning.task)
    return adapters.attach(model, tuning, batches=[batch(base, tuning.task)])


def train(model: Any, base: str, tuning: Tuning) -> None:
    """Twelve steps of what a Trainer does, which would spend most of its time on other things."""
    hooks, state = adapters.callbacks(model, tuning), TrainerState(max_steps=STEPS)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATES.get(tuning.method, 3e-2))
    halves = [{name: value[i::2] for name, value in batch(base, tuning.task).items()} for i in (0, 1)]
    torch.manual_seed(0)
    for hook in hooks:
        hook.on_train_begin(None, state, None, model=model)
    for step in range(STEPS):
        model.train()
        more = adapters.extra_loss(model)
        (model(**halves[step % 2]).loss + (0 if more is None else more)).backward()
        optimizer.step()
        for hook in hooks:
            hook.on_optimizer_step(None, state, None, model=model)
        optimizer.zero_grad()
        state.global_step += 1
        for hook in hooks:
            hook.on_step_end(None, state, None, model=model)


def run_trainer(model: Any, base: str, tuning: Tuning, folder: Path, *, resume: str | None = None) -> None:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=RATES.get(tuning.method, 3e-2),
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    hooks = adapters.callbacks(model, tuning)
    loop = Loop(model=model, args=arguments, train_dataset=rows(base, tuning.task), callbacks=hooks)
    loop.train(resume_from_checkpoint=resume)


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    model.eval()
    return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits


@torch.no_grad()
def loss(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    model.eval()
    return float(model(**inputs).loss)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def trained(base: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    """The model of a method and a task after twelve steps, its weights before, and where it is saved."""

    @cache
    def run(method: str, task: str) -> tuple[Any, dict[str, torch.Tensor], float, Path]:
        tuning, folder = tuning_for(method, task), tmp_path_factory.mktemp("run")
        model = attached(base, tuning)
        before, first = weights(model), loss(model, batch(base, task))
        train(model, base, tuning)
        adapters.save(model, folder / "model")
        return model, before, first, folder / "model"

    return run


every_method = pytest.mark.parametrize("method", METHODS)
both_tasks = pytest.mark.parametrize("task", ["causal", "classify"])


@every_method
@both_tasks
def test_a_few_steps_lower_the_loss(base: str, trained: Any, method: str, task: str) -> None:
    model, _, first, _ = trained(method, task)
    assert loss(model, batch(base, task)) < 0.97 * first


@every_method
@both_tasks
def test_only_what_the_method_names_trains(trained: Any, method: str, task: str) -> None:
    model, before, _, _ = trained(method, task)
    head = r"|^(base_model\.)?(model\.)?score\." if task == "classify" else ""
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert training and all(re.search(TRAINS[method] + head, name) for name in training)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed <= training
    if method not in ("full", "last-k", "diff-pruning", "adalora"):  # no matrix of any layer is left out
        assert changed == training
    if task == "classify":
        assert any("score" in name for name in changed)


@every_method
@both_tasks
def test_a_loaded_model_gives_the_logits_of_the_one_that_was_saved(
    base: str, trained: Any, method: str, task: str
) -> None:
    model, _, _, folder = trained(method, task)
    inputs = batch(base, task)
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pt"))
    again = adapters.load(base, folder)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(logits(again, inputs), logits(model, inputs))
    assert loss(again, inputs) == pytest.approx(loss(model, inputs), abs=1e-5)


@every_method
def test_a_bfloat16_base_comes_back_as_exactly(base: str, method: str, tmp_path: Path) -> None:
    inputs, tuning = batch(base, "causal"), tuning_for(method, "causal")
    rounded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = adapters.attach(rounded, tuning, batches=[inputs])
    train(model, base, tuning)
    adapters.save(model, tmp_path)
    again = adapters.load(base, tmp_path)
    assert again.get_input_embeddings().weight.dtype == torch.bfloat16
    assert torch.equal(logits(again, inputs), logits(model, inputs))


@every_method
@both_tasks
def test_a_loaded_model_can_be_trained_on(
    base: str, trained: Any, method: str, task: str, tmp_path: Path
) -> None:
    model, _, first, folder = trained(method, task)
    again = adapters.load(base, folder, trainable=True)
    assert torch.equal(logits(again, batch(base, task)), logits(model, batch(base, task)))
    before = weights(again)
    train(again, base, again.tuning)
    assert loss(again, batch(base, task)) < first
    changed = {name for name, value in weights(again).items() if not torch.equal(value, before[name])}
    assert changed and changed <= {name for name, p in again.named_parameters() if p.requires_grad}
    adapters.save(again, tmp_path / "model")
    torch.testing.assert_close(
        logits(adapters.load(base, tmp_path / "model"), batch(base, task)), logits(again, batch(base, task))
    )


@every_method
@both_tasks
def test_a_merged_model_is_plain_and_gives_the_same_logits(
    base: str, trained: Any, method: str, task: str, tmp_path: Path
) -> None:
    model, _, _, folder = trained(method, task)
    again = adapters.load(base, folder)
    if not METHODS[method].merges:
        with pytest.raises(PipelineError, match=re.escape(METHODS[method].unmergeable)):
            adapters.merge(again)
        return
    merged = adapters.merge(again)
    kind = AutoModelForCausalLM if task == "causal" else AutoModelForSequenceClassification
    assert type(merged) is type(fresh(base, task))
    torch.testing.assert_close(
        logits(merged, batch(base, task)), logits(model, batch(base, task)), atol=1e-4, rtol=1e-4
    )
    merged.save_pretrained(tmp_path)
    plain = kind.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits(plain, batch(base, task)), logits(merged, batch(base, task)))


@pytest.mark.parametrize(
    "method", ["lora", "pissa", "adalora", "prefix", "p-tuning", "diff-pruning", "last-k"]
)
def test_a_resumed_run_equals_one_that_was_not_interrupted(base: str, method: str, tmp_path: Path) -> None:
    tuning, inputs = tuning_for(method, "causal"), batch(base, "causal")
    whole = attached(base, tuning)
    run_trainer(whole, base, tuning, tmp_path / "whole")
    # before and after AdaLoRA's last cut (step 9) and diff pruning's projection (step 9)
    for stop in (4, 10) if adapters.callbacks(whole, tuning) else (4,):
        again = attached(base, tuning)
        run_trainer(
            again, base, tuning, tmp_path / "again", resume=str(tmp_path / f"whole/checkpoint-{stop}")
        )
        assert torch.equal(logits(again, inputs), logits(whole, inputs))


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.checkpoints])
def test_gradient_checkpointing_changes_no_gradient(base: str, method: str) -> None:
    model, inputs, seen = attached(base, tuning_for(method, "causal")), batch(base, "causal"), []
    for _ in range(2):
        model.train().zero_grad()
        torch.manual_seed(0)  # for diff pruning's gates
        model(**inputs).loss.backward()
        seen.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert seen[0]
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other)


def test_a_dropout_falls_silent_outside_training(base: str) -> None:
    for method in ("lora", "dora", "adalora", "vera", "oft", "houlsby"):
        model = attached(base, tuning_for(method, "causal", dropout=0.5))
        assert torch.equal(
            logits(model, batch(base, "causal")), logits(fresh(base, "causal"), batch(base, "causal"))
        ), method


def test_importing_the_table_imports_nothing_heavy() -> None:
    code = (
        "import pipeline.train.adapters, sys; assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- what cannot work ----


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "lorra"}, "unknown method 'lorra'. Did you mean lora?"),
        ({"method": "zzz"}, "Known: full, lora"),
        ({"rank": 0}, "rank: it is 0, expected more than 0"),
        ({"method": "prompt", "num_virtual_tokens": 0}, "num_virtual_tokens: it is 0"),
        ({"method": "prompt", "num_ensemble": 0}, "num_ensemble: it is 0"),
        ({"method": "houlsby", "bottleneck": 0}, "bottleneck: it is 0"),
        ({"method": "diff-pruning", "sparsity": 0.0}, "sparsity: it is 0.0"),
        ({"method": "diff-pruning", "sparsity": 1.5}, "expected a share up to 1"),
        ({"target_modules": ("q_prj",)}, "LlamaForCausalLM has no layer q_prj. Did you mean q_proj?"),
        ({"target_modules": ("xyz",)}, "It has down_proj, gate_proj,"),
        ({"method": "last-k", "last_layers": 3}, "the model has 2 layers"),
        ({"method": "fish-mask"}, "there is none. Give attach some batches"),
        ({"method": "adalora", "total_steps": 0}, "the run has 0 optimizer steps, expected 4 or more"),
        ({"task": "rank"}, "task: it is 'rank'"),
        ({"task": "classify"}, "LlamaForCausalLM has no head named score or classifier"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(base: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(says)):
        adapters.attach(fresh(base, "causal"), Tuning(**settings))


def test_a_tied_head_is_no_target() -> None:
    config = copy.deepcopy(tiny_llama.network("eager").config)
    config.tie_word_embeddings = True
    with pytest.raises(PipelineError, match="lm_head shares its weights with the input embeddings"):
        adapters.attach(LlamaForCausalLM(config), Tuning(target_modules=("lm_head",)))


def test_a_prefix_is_refused_under_gradient_checkpointing(base: str) -> None:
    model = fresh(base, "causal")
    model.gradient_checkpointing_enable()
    with pytest.raises(PipelineError, match="Turn gradient checkpointing off"):
        adapters.attach(model, tuning_for("prefix", "causal"))


def test_fish_mask_refuses_batches_without_a_label(base: str) -> None:
    inputs = batch(base, "causal")
    empty = {**inputs, "labels": torch.full_like(inputs["labels"], -100)}
    with pytest.raises(PipelineError, match="no example with a trained token"):
        adapters.attach(fresh(base, "causal"), tuning_for("fish-mask", "causal"), batches=[empty])


def test_a_folder_that_is_none_of_ours_is_refused(base: str, trained: Any, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="not a tuned model of ours"):
        adapters.load(base, tmp_path)


@pytest.mark.parametrize("method", ["lora", "last-k", "prompt", "fish-mask"])
def test_another_base_is_refused_by_name(base: str, trained: Any, tmp_path: Path, method: str) -> None:
    config = copy.deepcopy(tiny_llama.network("eager").config)
    config.hidden_size = 16
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match=f"Give the base it was trained on: {re.escape(base)}"):
        adapters.load(str(tmp_path), trained(method, "causal")[3])


def test_the_base_is_found_where_it_was(base: str, trained: Any) -> None:
    model, _, _, folder = trained("lora", "causal")
    facts = json.loads((folder / "tuning.json").read_text())
    assert (facts["method"], facts["base_model"], facts["dtype"]) == ("lora", base, "float32")
    inputs = batch(base, "causal")
    assert torch.equal(logits(adapters.load("", folder), inputs), logits(model, inputs))


# ---- one method at a time ----


def test_a_lora_folder_is_one_that_peft_itself_reads(base: str, trained: Any) -> None:
    from peft import PeftModel

    # PiSSA trains as (W - B0 A0) + B A and is stored as W + [B, -B0] [A; A0], which rounds otherwise
    for method in ("lora", "dora", "rslora", "pissa"):
        model, _, _, folder = trained(method, "causal")
        again = PeftModel.from_pretrained(fresh(base, "causal"), folder)
        torch.testing.assert_close(
            logits(again, batch(base, "causal")), logits(model, batch(base, "causal")), atol=5e-5, rtol=5e-5
        )


def test_adalora_ends_at_its_rank_and_keeps_what_it_cut_at_zero(trained: Any) -> None:
    model, *_ = trained("adalora", "causal")
    singular = [p for name, p in model.named_parameters() if "lora_E" in name]
    # 14 matrices start at rank 6 and end at 4 on average
    assert sum(p.numel() for p in singular) == 14 * 6
    assert sum(int((p != 0).sum()) for p in singular) == 14 * 4


def test_adaloras_penalty_is_the_one_peft_would_add(base: str) -> None:
    model = attached(base, tuning_for("adalora", "causal"))
    inputs = batch(base, "causal")
    plain = model(**inputs).loss
    model.peft_config["default"].orth_reg_weight = adapters.ORTHOGONALITY
    torch.testing.assert_close(model(**inputs).loss - plain, adapters.extra_loss(model))


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"adalora", "diff-pruning"}))
def test_most_methods_add_nothing_to_the_loss(trained: Any, method: str) -> None:
    assert not METHODS[method].penalty
    assert adapters.extra_loss(trained(method, "causal")[0]) is None


def test_fish_mask_takes_exactly_the_share_of_the_largest_squared_gradients(base: str) -> None:
    from pipeline.train.sparse_delta import Sparse, deltas

    model, scores = fresh(base, "causal"), {}
    for row in rows(base, "causal"):
        # log p(answer | prompt): the mean loss times the number of trained tokens
        one = {name: value[None] for name, value in row.items()}
        model.zero_grad()
        (model(**one).loss * int((row["labels"] != -100).sum())).backward()
        for name, p in model.named_parameters():
            if "_proj" in name:
                scores[name] = scores.get(name, 0) + p.grad.square()
    flat = torch.cat([score.flatten() for score in scores.values()])
    count = round(0.05 * flat.numel())
    least = flat.topk(count).values[-1]

    chosen = deltas(attached(base, tuning_for("fish-mask", "causal")), Sparse)
    assert sum(len(delta.indices) for delta in chosen.values()) == count
    for name, delta in chosen.items():
        assert (scores[f"{name}.weight"].flatten()[delta.indices] >= least * (1 - 1e-4)).all()


def test_diff_pruning_changes_no_more_weights_than_it_may(base: str, trained: Any) -> None:
    for task in ("causal", "classify"):
        *_, folder = trained("diff-pruning", task)
        merged, start = adapters.merge(adapters.load(base, folder)), fresh(base, task)
        changed = total = 0
        for (name, after), before in zip(merged.named_parameters(), start.parameters(), strict=True):
            if "_proj" in name:
                changed, total = changed + int((after != before).sum()), total + before.numel()
        assert 0 < changed <= round(0.05 * total)


def test_diff_prunings_penalty_falls_as_gates_close(base: str) -> None:
    from pipeline.train.sparse_delta import Gated, deltas, project

    model = attached(base, tuning_for("diff-pruning", "causal"))
    # sigmoid(5) of the gates are open at first; -low equals high, so nothing is added to the log-odds
    assert adapters.extra_loss(model).item() == pytest.approx(adapters.L0 / (1 + 2.718281828**-5), rel=1e-4)
    project(model, 0.25)
    assert adapters.extra_loss(model).item() == pytest.approx(adapters.L0 * 0.25, rel=1e-2)
    assert all(delta.locked() for delta in deltas(model, Gated).values())


def test_deep_prompts_start_where_the_base_is(base: str) -> None:
    inputs = batch(base, "causal")
    start = loss(fresh(base, "causal"), inputs)
    for method in ("prefix", "p-tuning-v2"):
        assert loss(attached(base, tuning_for(method, "causal")), inputs) == pytest.approx(start, rel=0.1)


def test_bitfit_trains_the_biases_a_model_has(base: str, tmp_path: Path) -> None:
    config = LlamaConfig(**{**tiny_llama.network("eager").config.to_dict(), "attention_bias": True})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "biased")
    tuning = tuning_for("bitfit", "causal")
    model = adapters.attach(
        LlamaForCausalLM.from_pretrained(tmp_path / "biased", dtype=torch.float32), tuning
    )
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in model.named_parameters() if name.endswith("_proj.bias")}
    train(model, base, tuning)
    adapters.save(model, tmp_path / "model")
    again = adapters.load(str(tmp_path / "biased"), tmp_path / "model")
    assert torch.equal(logits(again, batch(base, "causal")), logits(model, batch(base, "causal")))
    assert adapters.merge(again) is again


def test_new_biases_are_not_merged_where_the_architecture_has_no_room(base: str, tmp_path: Path) -> None:
    known = tiny_llama.network("eager").config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = MistralConfig(**{name: known[name] for name in names}, num_key_value_heads=2)
    model = adapters.attach(MistralForCausalLM(config), tuning_for("bitfit", "causal"))
    with pytest.raises(PipelineError, match="MistralForCausalLM has no place for 14 new biases"):
        adapters.merge(model)


# ---- soft prompts ----


@pytest.mark.parametrize("method", SOFT)
def test_padding_changes_no_prompted_classification(base: str, trained: Any, method: str) -> None:
    model, *_ = trained(method, "classify")
    together = logits(model, batch(base, "classify"))
    for row, expected in zip(rows(base, "classify"), together, strict=True):
        length = int(row["attention_mask"].sum())
        alone = {name: row[name][None, :length] for name in ("input_ids", "attention_mask")}
        torch.testing.assert_close(logits(model, alone)[0], expected, atol=1e-4, rtol=1e-4)


def greedy(model: Any, ids: torch.Tensor, new: int) -> torch.Tensor:
    for _ in range(new):
        last = logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})[:, -1]
        ids = torch.cat((ids, last.argmax(-1, keepdim=True)), dim=1)
    return ids


def check_generation(model: Any, base: str) -> None:
    """`generate` writes what the logits say, also for a shorter prompt that is padded on the left."""
    ids = [row["input_ids"][: int(row["attention_mask"].sum())] for row in rows(base, "causal")[:2]]
    width = max(len(one) for one in ids)
    padded = torch.stack([nn.functional.pad(one, (width - len(one), 0), value=PAD) for one in ids])
    mask = torch.stack([nn.functional.pad(torch.ones_like(one), (width - len(one), 0)) for one in ids])
    out = model.generate(
        input_ids=padded, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=PAD
    )
    for one, row in zip(ids, out, strict=True):
        assert row[width - len(one) :].tolist() == greedy(model, one[None], 6)[0].tolist()


@pytest.mark.parametrize("method", [*SOFT, "houlsby", "diff-pruning"])
def test_generation_follows_the_logits(base: str, trained: Any, method: str) -> None:
    check_generation(adapters.load(base, trained(method, "causal")[3]), base)


def single_prompts(base: str, model: Any, task: str) -> list[Any]:
    """Each prompt of an ensemble as a prompt-tuned model of its own."""
    table = model.prompt_encoder["default"].embedding.weight.detach()
    out = []
    for prompt in table.view(3, 4, -1):
        one = attached(base, tuning_for("prompt", task))
        one.prompt_encoder["default"].embedding.weight.data.copy_(prompt)
        for mine, its in zip(one.modules(), model.modules(), strict=True):
            if isinstance(mine, nn.Linear) and mine.out_features == 2:
                mine.weight.data.copy_(its.weight)
        out.append(one)
    return out


@both_tasks
def test_an_ensemble_averages_its_prompts_and_trains_each_by_its_own_loss(
    base: str, task: str, tmp_path: Path
) -> None:
    tuning, inputs = tuning_for("prompt", task, num_ensemble=3), batch(base, task)
    model = attached(base, tuning)
    first = loss(model, inputs)
    train(model, base, tuning)
    assert loss(model, inputs) < first
    singles = single_prompts(base, model, task)
    mean = torch.stack([logits(one, inputs) for one in singles]).mean(0)
    torch.testing.assert_close(logits(model, inputs), mean, atol=1e-4, rtol=1e-4)
    assert loss(model, inputs) == pytest.approx(sum(loss(one, inputs) for one in singles) / 3, rel=1e-4)

    adapters.save(model, tmp_path / "model")
    for trainable in (False, True):
        again = adapters.load(base, tmp_path / "model", trainable=trainable)
        assert torch.equal(logits(again, inputs), logits(model, inputs))


def test_an_ensembles_loss_counts_the_tokens_of_a_step_as_any_model_does(base: str) -> None:
    inputs = batch(base, "causal")
    model = attached(base, tuning_for("prompt", "causal", num_ensemble=3))
    count = (inputs["labels"] != -100).sum()
    torch.testing.assert_close(model(**inputs, num_items_in_batch=count).loss, model(**inputs).loss)


def test_an_ensemble_generates_by_its_average_and_does_not_sample(base: str) -> None:
    model = attached(base, tuning_for("prompt", "causal", num_ensemble=3)).eval()
    check_generation(model, base)
    with pytest.raises(PipelineError, match="do_sample=False"):
        model.generate(input_ids=torch.ones(1, 3, dtype=torch.long), do_sample=True)


# ---- a real model ----


@pytest.fixture
def freed() -> Iterator[None]:
    """Models hold cycles: half a gigabyte each until the next collection."""
    yield
    gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("freed")
@every_method
def test_on_the_embedded_model_every_method_learns_and_comes_back(method: str, tmp_path: Path) -> None:
    folder = language_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], tokenize=False
        )
        for prompt, answer in PAIRS
    ]
    inputs = dict(tokenizer(texts, return_tensors="pt", padding=True))
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    tuning = Tuning(method=method, total_steps=4)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = adapters.attach(base, tuning, batches=[inputs])
    first = loss(model, inputs)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=METHODS[method].learning_rate, weight_decay=0
    )
    for _ in range(3):
        model.train()
        step = model(**inputs).loss
        more = adapters.extra_loss(model)
        (step if more is None else step + more).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss(model, inputs) < first
    adapters.save(model, tmp_path)
    again = adapters.load(folder, tmp_path)
    assert torch.equal(logits(again, inputs), logits(model, inputs))
    if METHODS[method].merges:
        merged = adapters.merge(again)
        torch.testing.assert_close(logits(merged, inputs), logits(model, inputs), atol=2e-3, rtol=1e-3)
