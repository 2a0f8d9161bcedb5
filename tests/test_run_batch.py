"""Our batch files through vLLM's own run_batch, with SmolLM2 on the CPU."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from contract import DTYPE, WINDOW, model_folder, vllm_python

from pipeline.engines.base import NotSent, Request, Sampling
from pipeline.engines.batchfile import BatchFileEngine
from pipeline.stages.structured import one_of


def chat(text: str, schema: str = "", **sampling: object) -> Request:
    return Request(text, True, "Answer briefly.", Sampling(max_tokens=24, **sampling), schema=schema)  # type: ignore[arg-type]


@pytest.mark.slow
def test_run_batch_answers_our_files_and_we_read_its_own(tmp_path: Path) -> None:
    engine = BatchFileEngine(tmp_path, model_folder(), 6)
    requests = [
        chat("Name a colour."),
        chat("用一句话介绍长江。", temperature=0.7, seed=3),
        chat("Is water wet?", one_of(("Yes", "No"))),
        chat("Count from one to nine.", stop=("five", "a", "b", "c", "Five")),
        chat("Name a colour."),
        chat("word " * 3000),
    ]
    with pytest.raises(NotSent) as told:
        asyncio.run(engine.generate(requests))
    line = next(line for line in str(told.value).splitlines() if "vllm.entrypoints" in line)
    words = shlex.split(line)  # the command that the user is told to type
    assert words[:3] == ["python", "-m", "vllm.entrypoints.openai.run_batch"]
    limits = ["--dtype", DTYPE, "--max-model-len", str(WINDOW), "--enforce-eager"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}
    subprocess.run([vllm_python(), *words[1:], *limits], check=True, env=environment, timeout=400)
    answers = asyncio.run(engine.generate(requests))
    assert [bool(a.error) for a in answers] == [False] * 5 + [True]
    # each is asked for itself; in bf16 both may differ by whom they were computed with
    assert answers[0].text and answers[4].text and answers[0].prompt_tokens == answers[4].prompt_tokens
    assert answers[1].text and answers[1].completion_tokens <= 24
    said = answers[2].text  # the model may fill up with white space, which the schema allows
    assert '"answer"' in said and ('"Yes"' in said or '"No"' in said)
    assert "five" not in answers[3].text.lower()
