"""vLLM in the process: what surrounds the model; what it answers is held against the contract."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import contract
import psutil
import pytest

from pipeline.engines.adapters import adapter_name, adapter_rank
from pipeline.engines.base import Request, Sampling
from pipeline.engines.vllm import VllmEngine
from pipeline.engines.vllm_core import end_with_parent
from pipeline.errors import PipelineError


def adapter(folder: Path, config: object, weights: str = "adapter_model.safetensors") -> str:
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / weights).touch()
    return str(folder)


def test_an_adapter_is_given_the_next_rank_that_vllm_has(tmp_path):
    for rank, reserved in ((1, 8), (8, 8), (9, 16), (512, 512)):
        assert adapter_rank(adapter(tmp_path, {"r": rank})) == reserved
    # one layer has a rank of its own
    assert adapter_rank(adapter(tmp_path, {"r": 8, "rank_pattern": {"q_proj": 48}})) == 64
    assert adapter_rank(adapter(tmp_path, {"r": 16, "rank_pattern": None})) == 16


def test_an_adapter_that_will_not_do_is_an_error_for_the_user(tmp_path):
    with pytest.raises(PipelineError, match="it has no adapter_config.json"):
        adapter_rank(str(tmp_path))
    # a pickle could run any code
    with pytest.raises(PipelineError, match="it has no adapter_model.safetensors"):
        adapter_rank(adapter(tmp_path, {"r": 8}, "adapter_model.bin"))
    for config in ({"peft_type": "IA3"}, {"r": "wide"}, [8]):
        with pytest.raises(PipelineError, match="not a LoRA adapter"):
            adapter_rank(adapter(tmp_path, config, "adapter_model.safetensors"))
    with pytest.raises(PipelineError, match="rank 600, expected at most 512"):
        adapter_rank(adapter(tmp_path, {"r": 600}))


def test_an_adapter_is_called_as_its_folder(tmp_path):
    assert adapter_name(str(tmp_path) + "/") == adapter_name(str(tmp_path)) == tmp_path.name


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_error_says_how_to_get_it():
    with pytest.raises(PipelineError, match=r'Run: pip install "instruction-pipeline\[vllm\]"'):
        VllmEngine()


def test_only_children_that_belong_to_an_engine_watch_their_parent(monkeypatch):
    watching = """
import multiprocessing, sys, time
from pipeline.engines.vllm_core import end_with_parent
def child():
    end_with_parent()
    print("ready", flush=True)
    time.sleep(60)
if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=child).start()
"""
    end_with_parent()  # this process is nobody's child: nothing happens
    process = subprocess.Popen(
        [sys.executable, "-c", watching],
        cwd=contract.REPO,
        env={**os.environ, "PIPELINE_VLLM": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        family = psutil.Process(process.pid).children()
        assert len(family) == 1
        process.kill()
    assert not psutil.wait_procs(family, timeout=10)[1]


IN_FLIGHT = """
import asyncio, signal, sys
from pipeline.engines.base import Request, Sampling
from pipeline.engines.vllm import VllmEngine

async def main():
    engine = VllmEngine(concurrency=4, max_model_len=512)
    try:
        await engine.open()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, engine.stop)
        long = Request("Once", sampling=Sampling(max_tokens=100))
        asking = [asyncio.ensure_future(engine.generate([long])) for _ in range(8)]
        await asyncio.sleep(1)
        print("asked", flush=True)
        ends = await asyncio.gather(*asking, return_exceptions=True)
        print(" ".join(sorted("answered" if isinstance(end, list) else type(end).__name__ for end in ends)))
        sys.stdout.flush()
        await asyncio.sleep(600)  # until it is killed
    finally:
        await engine.close()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.slow
def test_ctrl_c_loses_no_answer_and_the_core_ends_with_a_killed_parent(tmp_path):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("it is run in vLLM's own environment: make test-all")
    script = tmp_path / "in_flight.py"
    script.write_text(IN_FLIGHT, encoding="utf-8")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=contract.REPO,
            env={**os.environ, "PYTHONPATH": str(contract.REPO)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            assert process.stdout.readline() == "asked\n", (tmp_path / "log").read_text()
            family = psutil.Process(process.pid).children(recursive=True)
            assert len(family) >= 2
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process gets it
            ends = process.stdout.readline().split()
        finally:
            process.kill()
    assert ends == ["NotSent"] * 4 + ["answered"] * 4
    assert not psutil.wait_procs(family, timeout=30)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [({"quantization": "nonsense"}, "nonsense"), ({"tensor_parallel": 2}, "tensor parallel size")],
)
def test_vllm_inprocess_is_told_of_quantisation_and_of_gpus(settings, said):
    """What this machine or model cannot do is vLLM's own refusal, in one line for the user."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("it is run in vLLM's own environment: make test-all")
    with pytest.raises(PipelineError, match=said):
        asyncio.run(VllmEngine(**settings).open())


def merged_and_adapter(folder: Path) -> tuple[object, str]:
    """The embedded model with a LoRA adapter merged into it, and the adapter as PEFT would save it."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    rank, alpha, weights = 8, 16, {}
    model = AutoModelForCausalLM.from_pretrained(contract.model_folder(), dtype=torch.float32)
    torch.manual_seed(0)
    for number, layer in enumerate(model.model.layers):
        for name in ("q_proj", "v_proj"):
            linear = getattr(layer.self_attn, name)
            a, b = torch.randn(rank, linear.in_features) / 24, torch.randn(linear.out_features, rank) / 24
            where = f"base_model.model.model.layers.{number}.self_attn.{name}"
            weights |= {f"{where}.lora_A.weight": a, f"{where}.lora_B.weight": b}
            linear.weight.data += alpha / rank * b @ a
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "bias": "none"}
    config |= {"target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "", "lora_dropout": 0.0}
    return model, adapter(folder, config)


@pytest.mark.slow
def test_an_adapter_changes_the_answers_as_merging_it_would(tmp_path):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("it is run in vLLM's own environment: make test-all")
    from transformers import AutoTokenizer

    model, folder = merged_and_adapter(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(contract.model_folder())
    prompts = ["The capital of France is", "Name three fruits:", "Once upon a time"]
    wanted = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        drawn = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        wanted.append(tokenizer.decode(drawn, skip_special_tokens=True))

    async def ask(lora):
        engine = VllmEngine(contract.model_folder(), 4, max_model_len=512, dtype="float32", lora=lora)
        try:
            await engine.open()
            asked = [Request(text, sampling=Sampling(temperature=0, max_tokens=8)) for text in prompts]
            return engine.model, [answer.text for answer in await engine.generate(asked)]
        finally:
            await engine.close()

    name, found = asyncio.run(ask(folder))
    assert found == wanted and name.endswith(f"+{tmp_path.name}")
    assert asyncio.run(ask(""))[1] != wanted
