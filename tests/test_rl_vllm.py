"""GRPO and PPO with answers drawn by vLLM in the same process; runs in vLLM's environment, for minutes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from preference_data import lines

REPO = Path(__file__).resolve().parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM has an environment of its own"),
]
MOST = 0.25  # nats: mean distance of vLLM's log-probabilities from the trainer's; 0.04 to 0.07 were seen


@pytest.mark.parametrize("command", ["grpo", "ppo"])
def test_vllm_draws_from_the_policy_as_it_is_now(command: str, tmp_path: Path) -> None:
    """The weights are synced: at a huge rate one step changes what is drawn next, and vLLM agrees with it."""
    rows = [{"id": f"p{i}", "prompt": f"Name a thing of colour number {i}."} for i in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        f"-m pipeline.{command} prompts.jsonl --rollouts vllm --reward rl_rewards:letters --max-steps 3 "
        "--batch-size 4 --gradient-accumulation 1 --max-completion-length 16 --max-prompt-length 128 "
        "--num-held-out 0 --num-generations 4 --num-iterations 1 --learning-rate 0.002 --warmup-frac 0 "
        "--max-truncated-frac 1 --no-mask-truncated --trainer.vllm_max_model_length 256 --run out"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
    }
    done = subprocess.run(
        [sys.executable, *words.split()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    steps = [row for row in lines(tmp_path / "out" / "metrics.jsonl") if "reward" in row]
    assert len(steps) == 3
    apart = [row["sampling/sampling_logp_difference/mean"] for row in steps]
    assert all(0 < value < MOST for value in apart), apart
    # after the first step the policy is another one: had vLLM kept the old weights, it would disagree with it
    moved = [row["kl/answer"] for row in steps]
    assert abs(moved[-1]) > 0.05, moved
