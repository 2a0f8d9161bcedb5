"""PPO's trainer as a whole: what its loss comes to, padding, and two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_llama
import torch

from pipeline.train import ppo_math
from pipeline.train.ppo_trainer import PPO, PPOSettings

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


def trained(folder: Path, model: Path, processes: int, *words: str) -> dict[str, Any]:
    """Train in so many processes of one thread (gloo); returns what process 0 found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = []
    for rank in range(processes):
        own = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": processes,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1,
            "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}",
        }
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        if processes == 1:
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                del environment[name]
        command = [sys.executable, str(HERE / "ppo_process.py"), str(folder), str(model), *words]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for one in running:
        _, said = one.communicate(timeout=300)
        assert one.returncode == 0, said[-3000:]
    return dict(json.loads((folder / "found.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "ppo once", "ppo head", "grpo"])
def test_two_processes_do_what_one_does_with_twice_the_batch(kind: str, model: Path, tmp_path: Path) -> None:
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        found[processes] = trained(folder, model, processes, kind, str(8 // processes))
    one, two = found[1], found[2]
    assert one["answers"] == two["answers"]  # every one of all four draws
    for name, values in one["weights"].items():
        assert values == pytest.approx(two["weights"][name], abs=2e-5), name
    moved = max(abs(value) for name, values in one["weights"].items() if "lora_B" in name for value in values)
    assert moved > 1e-3


class Stub:
    """What PPO's loss needs of a trainer, with numbers in the place of models."""

    beta, mode = 0.1, "train"
    current_gradient_accumulation_steps = 1
    state = type("State", (), {"global_step": 0})()
    args = type("Args", (), {"steps_per_generation": 1})()
    accelerator = type("Accelerator", (), {"num_processes": 1})()
    _ppo = PPOSettings()

    def __init__(self, policy_loss: torch.Tensor, values: torch.Tensor) -> None:
        from collections import defaultdict

        self._metrics = {"train": defaultdict(list)}
        self.policy_loss, self.values = policy_loss, values

    _tokens = PPO._tokens
    _sum = staticmethod(lambda tensor: tensor)
    _at_once = False

    @property
    def critic(self) -> Any:
        return SimpleNamespace(reads_policy=False, values=lambda inputs: self.values)


def test_padding_never_changes_the_value_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import GRPOTrainer

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", lambda self, model, inputs: self.policy_loss)
    generator = torch.Generator().manual_seed(0)
    values, old, returns = (torch.randn(3, 5, generator=generator) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    junk = torch.full((3, 4), 1e9)

    def loss(*parts: torch.Tensor) -> float:
        values, old, returns, mask = parts
        inputs = {
            "completion_mask": mask,
            "old_values": old,
            "returns": returns,
            "num_items_in_batch": mask.sum(),
        }
        stub: Any = Stub(torch.tensor(0.0), values)
        stub.__class__ = type("Stubbed", (Stub, PPO), {"mode": "train", "__init__": Stub.__init__})
        return float(PPO._compute_loss(stub, None, inputs))

    plain = loss(values, old, returns, mask)
    wide = [torch.cat([part, junk], 1) for part in (values, old, returns)]
    padded = loss(*wide, torch.cat([mask, torch.zeros(3, 4, dtype=mask.dtype)], 1))
    expected, _ = ppo_math.value_loss(values, old, returns, mask.float(), 0.2)
    assert plain == padded == pytest.approx(float(expected.sum() / mask.sum()))
