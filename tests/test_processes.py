"""Several processes train as one does with a larger batch, and one of them writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from preference_data import lines
from safetensors.torch import load_file
from scripted import environment, process
from transformers import TrainerControl, TrainerState

from pipeline.errors import PipelineError
from pipeline.train import processes, watch

HERE = Path(__file__).resolve().parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "--"]
RL = (
    "--max-steps 4 --gradient-accumulation 1 --max-completion-length 6 --max-prompt-length 100 "
    "--precision fp32 --validation-frac 0.3 --num-held-out 4 --eval-every 2 --max-truncated-frac 1 "
    "--no-mask-truncated --reward rl_rewards:letters --learning-rate 0.01"
)
SFT = "--max-steps 4 --num-answers 2 --max-new-tokens 4 --learning-rate 0.01 --precision fp32 --eval-every 2"
COMMANDS = {
    "sft": ("rows.jsonl", SFT),
    "grpo": ("rows.jsonl", f"{RL} --num-generations 4"),
    "ppo": ("rows.jsonl", f"{RL} --num-generations 1 --value-learning-rate 0.01"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_llama.save(tmp_path / "tiny")
    rows = [
        {"instruction": f"请说一个词 {n}" if n % 3 == 0 else f"Say word {n}", "input": "", "output": f"w{n}"}
        for n in range(48)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def words(command: str, batch: int, run: str) -> list[str]:
    data, more = COMMANDS[command]
    given = [f"pipeline.{command}", data, *more.split(), "--model", "tiny", "--batch-size", str(batch)]
    return [*given, "--run", run]


def surroundings() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}:{HERE}"}


def weights(run: Path) -> dict[str, Any]:
    found = [
        load_file(file) for file in (run / "model").glob("*.safetensors") if file.stem != "training_state"
    ]
    return {name: one for file in found for name, one in file.items()}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_end_where_one_does_with_twice_the_batch(command: str, place: Path) -> None:
    one = process(sys.executable, "-m", *words(command, 8, "one"), cwd=place, timeout=300, **surroundings())
    assert one.code == 0, one.err[-3000:]
    two = process(*LAUNCH, *words(command, 4, "two"), cwd=place, timeout=300, **surroundings())
    assert two.code == 0, two.err[-3000:]
    assert two.out == "two/model\n"  # the leader alone says so
    assert {p.name for p in (place / "one").iterdir()} == {p.name for p in (place / "two").iterdir()}
    steps = [[row["step"] for row in lines(place / run / "metrics.jsonl")] for run in ("one", "two")]
    assert steps[0] == steps[1]
    if command != "sft":  # TRL orders the rows of a batch for one and for two processes otherwise
        answers = [
            sorted(row["answer"] for row in lines(place / run / "rollouts.jsonl")) for run in ("one", "two")
        ]
        assert answers[0] == answers[1]
        found = weights(place / "two")
        for name, value in weights(place / "one").items():
            apart = (value - found[name]).abs()
            # up to rounding, which Adam makes a step of where a gradient is next to none; a step is 1e-2
            assert apart.median() < 1e-5 and apart.max() < 1e-2 and (apart > 5e-4).sum() <= 2, name


@pytest.mark.slow
def test_one_of_them_stopped_stops_all_and_they_go_on_together(place: Path) -> None:
    def run(*given: str) -> None:
        ended = process(*LAUNCH, *given, cwd=place, timeout=300, **surroundings())
        assert ended.code == 0, ended.err[-3000:]

    run(*words("grpo", 4, "whole"), "--max-steps", "40")
    given = [*LAUNCH, *words("grpo", 4, "cut"), "--max-steps", "40"]
    child = subprocess.Popen(given, cwd=place, env=environment(**surroundings()), stderr=subprocess.PIPE)
    until = time.monotonic() + 200
    drawn = place / "cut" / "rollouts.jsonl"
    while not drawn.exists() or not drawn.stat().st_size:
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    ranks = subprocess.check_output(["pgrep", "-P", str(child.pid)], text=True).split()
    os.kill(int(ranks[-1]), signal.SIGINT)  # a follower
    child.communicate(timeout=120)
    assert child.returncode != 0
    assert not (place / "cut" / "DONE").exists()
    run("pipeline.grpo", "--run", "cut", "--resume")
    one, other = weights(place / "whole"), weights(place / "cut")
    assert all(bool((one[name] == other[name]).all()) for name in one)
    found = [(place / run / "rollouts.jsonl").read_text() for run in ("whole", "cut")]
    assert found[0] == found[1]


def test_a_signal_heard_while_processes_agree_counts_from_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, control = watch.Stop(), TrainerControl()

    def agree(said: bool) -> bool:  # the others say no, and the signal comes while they do
        if not said:
            os.kill(os.getpid(), signal.SIGINT)
        return said

    monkeypatch.setattr(processes, "any_of", agree)
    with stop.listening():
        stop.on_step_end(None, TrainerState(global_step=1), control)
        assert not stop.asked and not control.should_training_stop
        stop.on_step_end(None, TrainerState(global_step=2), control)
    assert stop.asked and control.should_training_stop and control.should_save


def test_what_several_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.check("dpo", False, "")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match=r"2 processes: pipeline\.dpo trains in one"):
        processes.check("dpo", False, "runs/x")
    with pytest.raises(PipelineError, match="Name it with --run"):
        processes.check("ppo", True, "")
    processes.check("ppo", True, "runs/x")
