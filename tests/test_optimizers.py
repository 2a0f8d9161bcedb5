"""Optimizers and schedules: each learns, resumes exactly, keeps to its paper and works in a Trainer."""

from __future__ import annotations

import gc
import importlib.util
import io
import math
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from tiny_llama import VOCAB, network
from torch import nn
from torch.testing import assert_close
from transformers import LlamaForCausalLM, Trainer, TrainingArguments, get_scheduler
from transformers.optimization import Adafactor

from pipeline.errors import PipelineError
from pipeline.train.lowrank import Apollo, GaLore, random_projection
from pipeline.train.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerSettings,
    build,
    parameter_groups,
    schedule,
)

HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
RATES = {
    "adamw": 1e-2,
    "adamw8bit": 1e-2,
    "adafactor": 1e-2,
    "lomo": 0.1,
    "adalomo": 5e-2,
    "galore": 4e-2,
    "apollo": 2e-2,
    "sgd": 0.1,
}
EACH = [
    pytest.param(
        name, marks=pytest.mark.skipif(name == "adamw8bit" and not HAS_BITSANDBYTES, reason="no bitsandbytes")
    )
    for name in RATES
]
HOOKED = [name for name, row in OPTIMIZERS.items() if row.needs_hook]
BATCH = torch.randint(4, VOCAB, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(name: str, **changes: Any) -> OptimizerSettings:
    """Rank 4 and a projection for two steps: both fit the tiny model (width 32)."""
    values = {"name": name, "learning_rate": RATES[name], "rank": 4, "update_every": 2, **changes}
    return OptimizerSettings(**values)


def tiny(dtype: torch.dtype = torch.float32) -> Any:
    return deepcopy(network("eager")).to(dtype).train()


def train(model: Any, optimizer: Any, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = model(input_ids=BATCH, labels=BATCH).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def pull(parameters: list[Any], gradients: list[torch.Tensor], optimizer: Any) -> None:
    """One step along given gradients: that of the sum of parameter * gradient."""
    torch.stack([(p * g).sum() for p, g in zip(parameters, gradients, strict=True)]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def same_weights(one: Any, other: Any, **tolerance: Any) -> None:
    weights = dict(other.named_parameters())
    for name, parameter in one.named_parameters():
        assert_close({name: parameter}, {name: weights[name]}, **tolerance)


def test_every_optimizer_is_tested_here() -> None:
    assert set(RATES) == set(OPTIMIZERS)
    assert all(row.name == name and row.summary and row.memory for name, row in OPTIMIZERS.items())


# ---- each one ----


@pytest.mark.parametrize("name", EACH)
def test_the_loss_falls(name: str) -> None:
    model = tiny()
    losses = train(model, build(model, settings(name)), 15)
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", EACH)
def test_three_steps_saved_and_three_more_equal_six(name: str, dtype: torch.dtype) -> None:
    whole, first, second = tiny(dtype), tiny(dtype), tiny(dtype)
    train(whole, build(whole, settings(name)), 6)
    optimizer, file = build(first, settings(name)), io.BytesIO()
    train(first, optimizer, 3)
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)  # as Trainer loads it
    second.load_state_dict(saved["model"])
    resumed = build(second, settings(name))
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, 3)
    same_weights(second, whole, rtol=0, atol=0)


@pytest.mark.parametrize("name", EACH)
def test_weight_decay_shrinks_matrices_and_leaves_norms_and_biases(name: str) -> None:
    config = deepcopy(network("eager").config)
    config.attention_bias = True
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            parameter.data.fill_(1.0)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    parameters = list(model.parameters())
    optimizer = build(model, settings(name, learning_rate=0.1, weight_decay=0.5))
    pull(parameters, [torch.zeros_like(p) for p in parameters], optimizer)
    assert any(key.endswith("bias") for key in before)
    for key, parameter in model.named_parameters():
        old = before[key]
        # w - rate * decay * w; AdaLOMO's rate is in proportion to the matrix's root mean square
        rate = 0.1 * (old.square().mean().sqrt() if name == "adalomo" else 1)
        assert_close(parameter.data, old if old.ndim == 1 else old * (1 - rate * 0.5))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PipelineError, match="unknown optimizer 'adaloma'. Did you mean 'adalomo'"):
        build(tiny(), OptimizerSettings(name="adaloma"))


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(PipelineError, match="no trainable parameter"):
        build(tiny().requires_grad_(False), OptimizerSettings())


# ---- parameter groups ----


def rates(model: Any, **changes: Any) -> dict[str, float]:
    groups = parameter_groups(model, OptimizerSettings(learning_rate=1.0, **changes))
    assert [group["lr"] for group in groups] == sorted((group["lr"] for group in groups), reverse=True)
    found = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


# Two layers and layer_decay 1/2: head 1, layer 1: 1/2, layer 0: 1/4, embeddings 1/8.
DEPTHS = {"embed_tokens": 0.125, "layers.0.": 0.25, "layers.1.": 0.5, "model.norm": 1.0, "lm_head": 1.0}


def check_depths(found: dict[str, float]) -> set[str]:
    """Each parameter learns at the rate of its part; returns the parts that were met."""
    met = set()
    for name, rate in found.items():
        part = next(part for part in DEPTHS if part in name)
        assert rate == DEPTHS[part], name
        met.add(part)
    return met


def test_layer_decay_lowers_the_rate_with_depth() -> None:
    assert check_depths(rates(tiny(), layer_decay=0.5)) == set(DEPTHS)


def test_layer_decay_reads_the_names_of_a_peft_model() -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"])
    met = check_depths(rates(peft.get_peft_model(tiny(), config), layer_decay=0.5))
    assert met == {"embed_tokens", "layers.0.", "layers.1.", "lm_head"}


def test_layer_decay_counts_a_tied_head_as_embeddings() -> None:
    model = tiny()
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    assert check_depths(rates(model, layer_decay=0.5)) == set(DEPTHS) - {"lm_head"}


def test_without_layer_decay_there_are_two_groups_and_no_need_for_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    groups = parameter_groups(model, OptimizerSettings(weight_decay=0.1))
    assert sorted((group["weight_decay"], len(group["params"])) for group in groups) == [(0.0, 3), (0.1, 1)]


def test_layer_decay_of_a_model_without_layers_or_out_of_range_is_refused() -> None:
    with pytest.raises(PipelineError, match="found 0 lists of None layers in Linear, expected 1"):
        parameter_groups(nn.Linear(2, 2), OptimizerSettings(layer_decay=0.9))
    for wrong in (0.0, 1.5):
        with pytest.raises(PipelineError, match=f"layer_decay: got {wrong}, expected more than 0"):
            parameter_groups(tiny(), OptimizerSettings(layer_decay=wrong))


# ---- updates inside the backward pass ----


def test_lomo_equals_sgd_step_for_step() -> None:
    fused, plain = tiny(), tiny()
    changes = {"weight_decay": 0.1, "layer_decay": 0.9}
    lomo, sgd = build(fused, settings("lomo", **changes)), build(plain, settings("sgd", **changes))
    for _ in range(4):
        assert train(fused, lomo, 1) == pytest.approx(train(plain, sgd, 1))
        same_weights(fused, plain)


def test_adalomo_makes_the_first_step_that_was_derived_by_hand() -> None:
    # g^2 = [[1, 4], [9, 16]]; at t = 1 the decay 1 - 1^-0.8 is 0, so the statistics are those of g:
    # row means r = (2.5, 12.5), column means c = (5, 10), mean of r = 7.5;
    # v = r c / 7.5 = [[5/3, 10/3], [25/3, 50/3]]; u^2 = g^2 / v = [[0.6, 1.2], [1.08, 0.96]];
    # RMS(u)^2 = 3.84 / 4 < 1: not clipped. RMS(w)^2 = (9 + 16 + 0 + 25) / 4 = 12.5.
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 5.0]]))
    model = nn.ParameterList([weight])
    optimizer = build(model, OptimizerSettings("adalomo", learning_rate=0.1))
    step = 0.1 * math.sqrt(12.5) * torch.tensor([[0.6, 1.2], [1.08, 0.96]]).sqrt()
    expected = weight.detach() - step
    pull([weight], [torch.tensor([[1.0, 2.0], [3.0, 4.0]])], optimizer)
    assert_close(weight.detach(), expected)


def test_adalomo_equals_adafactor_scaled_by_the_weights() -> None:
    fused, plain = tiny(), tiny()
    adalomo = build(fused, settings("adalomo", weight_decay=0.1))
    groups = parameter_groups(plain, settings("adalomo", weight_decay=0.1))
    train(fused, adalomo, 4)
    train(plain, Adafactor(groups, lr=0.0, scale_parameter=True, relative_step=False), 4)
    same_weights(fused, plain)


@pytest.mark.parametrize("name", HOOKED)
def test_no_gradient_outlives_its_update(name: str) -> None:
    model = tiny()
    optimizer = build(model, settings(name))
    before = deepcopy(model.state_dict())
    model(input_ids=BATCH, labels=BATCH).loss.backward()
    assert optimizer.param_groups and all(p.grad is None for p in model.parameters())
    assert all(not torch.equal(old, model.state_dict()[key]) for key, old in before.items())


@pytest.mark.parametrize("name", HOOKED)
def test_a_rate_set_after_loading_is_the_one_that_backward_uses(name: str) -> None:
    model = tiny()
    optimizer = build(model, settings(name))
    optimizer.load_state_dict(optimizer.state_dict())  # replaces the groups
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = deepcopy(model)
    train(model, optimizer, 1)
    same_weights(model, before, rtol=0, atol=0)


def test_backward_leaves_gradients_again_when_the_optimizer_is_gone() -> None:
    model = tiny()
    optimizer = build(model, settings("lomo"))
    del optimizer
    gc.collect()
    before = deepcopy(model)
    model(input_ids=BATCH, labels=BATCH).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    same_weights(model, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", HOOKED)
def test_frozen_parameters_stay_and_checkpointed_layers_learn_the_same(name: str) -> None:
    plain, checkpointed = tiny(), tiny()
    checkpointed.gradient_checkpointing_enable()
    for model in (plain, checkpointed):
        model.model.embed_tokens.requires_grad_(False)
        train(model, build(model, settings(name)), 2)
    assert torch.equal(plain.model.embed_tokens.weight, network("eager").model.embed_tokens.weight)
    same_weights(checkpointed, plain)


@pytest.mark.parametrize("name", HOOKED)
def test_what_needs_whole_gradients_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=f"optimizer {name}: got gradient accumulation 4, expected 1"):
        build(tiny(), settings(name), gradient_accumulation=4)
    with pytest.raises(PipelineError, match=f"optimizer {name}: got max_grad_norm 1, expected 0"):
        build(tiny(), settings(name), max_grad_norm=1.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match=f"optimizer {name}: got 2 processes, expected 1"):
        build(tiny(), settings(name))
    build(tiny(), settings("adamw"), gradient_accumulation=4, max_grad_norm=1.0)


# ---- low rank ----


@pytest.mark.parametrize("name", ["galore", "apollo"])
def test_a_rank_that_saves_nothing_leaves_adamw(name: str) -> None:
    # At the full rank nothing is projected: Adam in a rotated basis would not be Adam's step.
    low_rank, plain = tiny(), tiny()
    changes = {"learning_rate": 1e-2, "weight_decay": 0.1}
    train(low_rank, build(low_rank, settings(name, rank=32, **changes)), 4)
    train(plain, build(plain, settings("adamw", **changes)), 4)
    same_weights(low_rank, plain)


@pytest.mark.parametrize("name", ["galore", "apollo"])
def test_only_matrices_of_the_layers_have_a_rank(name: str) -> None:
    model = tiny()
    optimizer = build(model, settings(name))
    train(model, optimizer, 1)
    sides = {key: tuple(optimizer.state[p]["exp_avg"].shape) for key, p in model.named_parameters()}
    # (64, 32) and (32, 64) keep the larger side and the rank; the rest is as it was
    assert sides["model.layers.0.mlp.up_proj.weight"] == (64, 4)
    assert sides["model.layers.1.mlp.down_proj.weight"] == (64, 4)
    assert sides["model.embed_tokens.weight"] == sides["lm_head.weight"] == (VOCAB, 32)
    assert sides["model.norm.weight"] == (32,)


def matrix(optimizer: type, weight: torch.Tensor, **changes: Any) -> tuple[Any, Any]:
    """A parameter and its optimizer: rank 1, rate 1."""
    parameter = nn.Parameter(weight.clone())
    options = {"lr": 1.0, "betas": (0.9, 0.999), "update_every": 2, **changes}
    return parameter, optimizer([{"params": [parameter], "rank": 1}], **options)


@pytest.mark.parametrize("update_every", [1, 2])
def test_galore_moves_along_the_leading_singular_vector_until_it_is_found_anew(update_every: int) -> None:
    # diag(3, 2) leads along e1: Adam sees (3, 0) and steps by (1, 0), times 0.25; only w[0, 0] moves.
    # diag(0, 2) then has nothing along e1, but Adam's moments of the first row go on: m = 0.9 * 0.3 = 0.27,
    # corrected by 1 - 0.9^2 = 0.19, and v = 0.999 * 0.009 = 0.008991, corrected by 1 - 0.999^2 = 0.001999.
    # Projected anew, onto e2, that step falls on w[0, 1], and the second row, which sees 0, then 2, moves by
    # m = 0.2 over 0.19 and v = 0.004 over 0.001999.
    weight, optimizer = matrix(GaLore, torch.zeros(2, 2), update_every=update_every)
    pull([weight], [torch.diag(torch.tensor([3.0, 2.0]))], optimizer)
    assert_close(weight.detach(), torch.tensor([[-0.25, 0.0], [0.0, 0.0]]))
    pull([weight], [torch.diag(torch.tensor([0.0, 2.0]))], optimizer)
    goes_on = 0.25 * (0.27 / 0.19) / math.sqrt(0.008991 / 0.001999)
    fresh = 0.25 * (0.2 / 0.19) / math.sqrt(0.004 / 0.001999)
    if update_every == 2:
        assert_close(weight.detach(), torch.tensor([[-0.25 - goes_on, 0.0], [0.0, 0.0]]))
    else:  # the sign of a singular vector, and so of what goes on along another one, is arbitrary
        assert_close(weight.detach().abs(), torch.tensor([[0.25, goes_on], [0.0, fresh]]))
        assert weight[1, 1] < 0


def test_apollo_scales_each_row_by_what_adam_does_to_its_projection() -> None:
    # At the first step Adam's direction is the sign of each of the `rank` numbers of a projected row, of norm
    # sqrt(rank); so row g_i is multiplied by sqrt(rank) / |g_i P|.
    gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    parameter = nn.Parameter(torch.zeros(6, 5))
    optimizer = Apollo([{"params": [parameter], "rank": 3}], lr=1.0, betas=(0.9, 0.999), update_every=2)
    projection = random_projection(gradient, {"number": 1, "step": 0}, {"rank": 3, "update_every": 2})
    pull([parameter], [gradient], optimizer)
    scale = math.sqrt(3) / (gradient @ projection).norm(dim=1, keepdim=True)
    assert_close(parameter.detach(), -gradient * scale, rtol=1e-4, atol=1e-5)


def test_apollo_draws_another_projection_when_it_is_due() -> None:
    gradient, group = torch.ones(6, 5), {"rank": 3, "update_every": 2}
    drawn = [random_projection(gradient, {"number": 1, "step": step}, group) for step in range(3)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0], random_projection(gradient, {"number": 2, "step": 0}, group))


def test_apollo_lets_the_scaled_gradient_grow_by_one_percent_and_recovers_from_zeros() -> None:
    weight, optimizer = matrix(Apollo, torch.zeros(3, 2))
    zeros, small, large = torch.zeros(3, 2), torch.ones(3, 2), 100 * torch.ones(3, 2)
    lengths = []
    for step, gradient in enumerate([zeros, small, large], 1):
        before = weight.detach().clone()
        pull([weight], [gradient], optimizer)
        # without Adam's bias correction, as the limit sees it
        correction = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        lengths.append((weight.detach() - before).norm().item() / correction)
    assert lengths[0] == 0 and lengths[1] > 0.1
    assert lengths[2] == pytest.approx(1.01 * lengths[1], rel=1e-4)


@pytest.mark.parametrize("optimizer", [GaLore, Apollo])
def test_a_wide_matrix_is_treated_as_its_transpose(optimizer: type) -> None:
    gradient = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    wide, of_wide = matrix(optimizer, torch.ones(3, 5))
    tall, of_tall = matrix(optimizer, torch.ones(5, 3))
    for factor in (1.0, -2.0, 0.5):
        pull([wide], [factor * gradient], of_wide)
        pull([tall], [factor * gradient.T], of_tall)
    assert_close(wide.detach(), tall.detach().T)


# ---- 8 bits ----


def test_eight_bits_without_bitsandbytes_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(
        PipelineError, match="adamw8bit: it needs .* pip install .bitsandbytes>=0.50., or take"
    ):
        build(tiny(), OptimizerSettings(name="adamw8bit"))


def test_eight_bits_on_a_cpu_want_a_version_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(AdamW8bit=None, GlobalOptimManager=None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=module, __version__="0.49.2"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(PipelineError, match="bitsandbytes 0.49.2 needs a GPU, expected 0.50 for a CPU"):
        build(tiny(), OptimizerSettings(name="adamw8bit"))


@pytest.mark.skipif(not HAS_BITSANDBYTES, reason="no bitsandbytes")
def test_eight_bits_hold_the_layers_and_not_the_embeddings() -> None:
    model = tiny()
    optimizer = build(model, settings("adamw8bit"))
    train(model, optimizer, 1)
    types = {key: optimizer.state[p]["state1"].dtype for key, p in model.named_parameters()}
    assert types["model.embed_tokens.weight"] == torch.float32
    assert types["lm_head.weight"] == torch.uint8


# ---- schedules ----


def factors(name: str, **changes: Any) -> list[float]:
    """The rate at each of 120 steps: 20 of warm-up, then 100; the peak is 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, name, total_steps=120, warmup_steps=20, **changes)
    found = []
    for _ in range(121):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


# at the end of the warm-up, half way (50 of 100 steps), and at the end
@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("cosine", {}, (1.0, 0.5, 0.0)),  # (1 + cos(pi / 2)) / 2
        ("cosine", {"floor": 0.2}, (1.0, 0.6, 0.2)),  # 0.2 + 0.8 * 0.5
        ("linear", {}, (1.0, 0.5, 0.0)),
        ("linear", {"floor": 0.1}, (1.0, 0.55, 0.1)),
        ("constant", {}, (1.0, 1.0, 1.0)),
        ("step", {}, (1.0, 0.25, 0.0625)),  # halved every 25: 2 times, 4 times
        ("step", {"step_every": 30, "gamma": 0.1}, (1.0, 0.1, 0.001)),  # 50 // 30 = 1, 100 // 30 = 3
        ("exponential", {}, (1.0, 0.25, 0.0625)),  # 0.5 ** (50 / 25), 0.5 ** (100 / 25)
        ("exponential", {"step_every": 100, "gamma": 0.01}, (1.0, 0.1, 0.01)),  # 0.01 ** 0.5, 0.01 ** 1
    ],
)
def test_a_schedule_warms_up_and_falls_as_derived(name: str, changes: Any, expected: Any) -> None:
    found = factors(name, **changes)
    assert found[:20] == pytest.approx([step / 20 for step in range(20)])
    assert (found[20], found[70], found[120]) == pytest.approx(expected)


def test_the_steps_of_step_are_flat_and_exponential_is_smooth() -> None:
    stairs, slope = factors("step"), factors("exponential")
    assert len(set(stairs[20:45])) == 1 and stairs[45] == stairs[44] / 2
    assert all(after < before for before, after in zip(slope[20:], slope[21:], strict=False))


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_a_schedule_that_transformers_has_gives_its_numbers(name: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(
        {"constant": "constant_with_warmup"}.get(name, name), optimizer, 20, num_training_steps=120
    )
    for ours in factors(name):
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_schedule_keeps_the_ratios_of_layer_decay() -> None:
    optimizer = build(tiny(), settings("sgd", learning_rate=1.0, layer_decay=0.5))
    scheduler = schedule(optimizer, "constant", total_steps=4, warmup_steps=2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25, 0.125, 0.0625]


def test_an_unknown_schedule_is_answered_with_the_nearest() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(PipelineError, match="unknown schedule 'cosin'. Did you mean 'cosine'"):
        schedule(optimizer, "cosin", total_steps=1, warmup_steps=0)
    assert set(SCHEDULES) == {"cosine", "linear", "constant", "step", "exponential"}


# ---- in a Trainer ----


def trainer(folder: Path, name: str, decay: str = "cosine") -> Any:
    model, hooked = tiny(), OPTIMIZERS[name].needs_hook
    accumulation, norm = (1, 0.0) if hooked else (2, 1.0)
    optimizer = build(model, settings(name), gradient_accumulation=accumulation, max_grad_norm=norm)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=3,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=norm,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    rows = [{"input_ids": row, "labels": row} for row in BATCH.repeat(4, 1)]
    scheduler = schedule(optimizer, decay, total_steps=3, warmup_steps=1)
    return Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, scheduler))


@pytest.mark.parametrize("name", EACH)
def test_a_trainer_takes_it_and_resumes_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    whole = trainer(tmp_path, name)
    whole.train()
    start = tiny().state_dict()
    assert all(not torch.equal(old, whole.model.state_dict()[key]) for key, old in start.items())
    resumed = trainer(tmp_path, name)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 3
    same_weights(resumed.model, whole.model, rtol=0, atol=0)
    # the rates of the three steps: 0 and 1 of the warm-up, then cos at half
    logged = [row["learning_rate"] for row in whole.state.log_history if "learning_rate" in row]
    assert logged == pytest.approx([0.0, RATES[name], RATES[name] / 2])


def test_a_trainer_of_a_fused_optimizer_makes_the_steps_of_sgd(tmp_path: Path) -> None:
    one, other = trainer(tmp_path / "lomo", "lomo"), trainer(tmp_path / "sgd", "sgd")
    other.args.gradient_accumulation_steps, other.args.max_grad_norm = 1, 0.0
    other.accelerator.gradient_accumulation_steps = 1
    one.train()
    other.train()
    same_weights(one.model, other.model)


# ---- the table ----


def test_the_table_is_read_without_torch() -> None:
    code = "import pipeline.train.optimizers, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parent.parent, check=True)
