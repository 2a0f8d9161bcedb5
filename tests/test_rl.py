"""`python -m pipeline.grpo` and `pipeline.ppo` on a model that trains in milliseconds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from fault_server import FaultServer
from preference_data import facts, lines
from safetensors.torch import load_file

from pipeline import grpo, ppo
from pipeline.errors import PipelineError, Stopped
from pipeline.train import rl_look, rl_trainer, watch
from pipeline.train.rl_options import LOSSES

HERE = Path(__file__).resolve().parent
FEW = (
    "--max-steps 4 --batch-size 4 --gradient-accumulation 2 --max-completion-length 6 "
    "--max-prompt-length 100 --validation-frac 0.3 --num-held-out 4 --eval-every 2 --max-truncated-frac 1 "
    "--no-mask-truncated"
).split()
COMMANDS = {"grpo": (grpo.main, ("--num-generations", "4")), "ppo": (ppo.main, ("--num-generations", "1"))}
REWARD = ("--reward", "rl_rewards:letters")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prompts(count: int = 48) -> str:
    """A file of prompts, every third in Chinese, each with a constraint."""
    rows = [
        {
            "id": f"p{number}",
            "prompt": f"请说一个词 {number}" if number % 3 == 0 else f"Say a word {number}",
            "verifier": {
                "kind": "constraints",
                "checks": [{"id": "length_constraints:number_words", "relation": "at most", "num_words": 3}],
            },
        }
        for number in range(count)
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "prompts.jsonl"


def train(command: str, model: Path, *words: str, run: str = "out") -> Path:
    main, own = COMMANDS[command]
    assert main([prompts(), *FEW, *own, *words, "--model", str(model), "--run", run]) == 0
    return Path(run)


def refusal(command: str, model: Path, *words: str) -> str:
    with pytest.raises(PipelineError) as caught:
        train(command, model, *words, "--overwrite")
    return str(caught.value)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = {}
    for folder in (run / "model", run / "value_model"):
        for file in folder.glob("*.safetensors") if folder.is_dir() else ():
            if file.stem != "training_state":
                found |= {f"{folder.name}/{name}": one for name, one in load_file(file).items()}
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reward_rises(
    command: str, precision: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--learning-rate 0.01 --max-steps 40 --batch-size 8 --beta 0 --eval-every 16 --precision".split()
    run = train(command, model, *REWARD, *words, precision)
    shown = capsys.readouterr()
    assert shown.out == "out/model\n"
    held = facts(run)["held_out"]
    assert held["reward"]["after"]["value"] > held["reward"]["before"]["value"] + 0.2, held
    rows = [row for row in lines(run / "metrics.jsonl") if "reward" in row]
    draws = 40 if command == "grpo" else 20  # PPO draws once for two steps
    rewards = [row["reward"] for row in rows]
    assert len(rows) == draws and sum(rewards[-4:]) > sum(rewards[:4]) + 1.2, rewards
    assert [row["step"] for row in lines(run / "metrics.jsonl") if "eval_reward" in row] == [16, 32]
    drawn = lines(run / "rollouts.jsonl")
    assert len(drawn) == 16 * draws and set(drawn[0]["parts"]) == {"rl_rewards:letters"}
    if command == "ppo":
        explained = [row["value/explained_variance"] for row in rows]
        assert explained[0] == 0.0 and max(explained) > 0.1, explained
    names = {path.name for path in run.iterdir()}
    assert names >= {"DONE", "rewards.svg", "rewards.png", "answers.jsonl", "metrics.jsonl", "run.json"}
    assert (run / "value_model").is_dir() == (command == "ppo")
    assert len(lines(run / "answers.jsonl")) == 4


MINIBATCHES = "--tuning full --precision bf16 --num-minibatches 2 --batch-size 2".split()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grpo", ["--tuning", "lora"]),
        ("grpo", MINIBATCHES),
        pytest.param("grpo", ["--rollouts", "transformers"], marks=pytest.mark.slow),
        ("ppo", ["--tuning", "lora"]),
        ("ppo", MINIBATCHES),
        ("ppo", ["--num-iterations", "1"]),
        ("ppo", ["--value-tuning", "head", "--num-iterations", "1"]),
        ("ppo", ["--value-tuning", "head", *MINIBATCHES]),
        pytest.param("ppo", ["--rollouts", "transformers"], marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(
    command: str, words: list[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, *REWARD, "--max-steps", "12", "--eval-every", "4"]  # several epochs
    whole = train(command, model, *words, run="whole")
    before = watch.Metrics.on_step_end

    def interrupt(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        before(self, args, state, control, **more)
        if state.global_step == 5:  # in the midst of what was drawn together, where several steps use it
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(watch.Metrics, "on_step_end", interrupt)
    with pytest.raises(Stopped, match="--run cut --resume goes on"):
        train(command, model, *words, run="cut")
    monkeypatch.setattr(watch.Metrics, "on_step_end", before)
    assert COMMANDS[command][0](["--run", "cut", "--resume"]) == 0
    one, other = weights(whole), weights(Path("cut"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "rollouts.jsonl").read_text() == Path("cut/rollouts.jsonl").read_text()
    assert (whole / "answers.jsonl").read_text() == Path("cut/answers.jsonl").read_text()
    steps = [row["step"] for row in lines(Path("cut/metrics.jsonl")) if "loss" in row]
    assert steps == sorted(set(steps)) and steps[-1] == 12


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_run_goes_on_to_the_same_weights(command: str, model: Path) -> None:
    words = ["--reward", "rl_rewards:slow", "--max-steps", "12", "--eval-every", "4"]
    whole = train(command, model, *words, run="whole")
    own = [*FEW, *COMMANDS[command][1], *words, "--model", str(model), "--run", "cut"]
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    started = subprocess.Popen(
        [sys.executable, "-m", f"pipeline.{command}", "prompts.jsonl", *own],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    metrics, deadline = Path("cut/metrics.jsonl"), time.monotonic() + 120
    while not (metrics.exists() and '"step": 7' in metrics.read_text()):
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    started.kill()
    started.wait()
    assert not Path("cut/DONE").exists()
    assert COMMANDS[command][0](["--run", "cut", "--resume"]) == 0
    one, other = weights(whole), weights(Path("cut"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "rollouts.jsonl").read_text() == Path("cut/rollouts.jsonl").read_text()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(loss: str, model: Path) -> None:
    run = train("grpo", model, *REWARD, "--loss", loss, "--learning-rate", "0.001", "--max-steps", "2")
    rows = [row for row in lines(run / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 2 and max(row["grad_norm"] for row in rows) > 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("tuning", ["pissa", "houlsby", "bitfit", "ia3", "last-k", "prefix"])
def test_other_tuning_methods_train(command: str, tuning: str, model: Path) -> None:
    run = train(command, model, *REWARD, "--tuning", tuning, "--max-steps", "2", "--num-iterations", "1")
    rows = [row for row in lines(run / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 2
    if tuning != "prefix":  # the policy begins as its reference; untrained vectors before a text change it
        assert rows[0]["kl/answer"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("tuning", ["lora", "full"])  # the reference: without the adapter, and a copy
def test_on_a_cpu_the_vocabulary_is_asked_of_answers_alone(
    command: str, tuning: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's head scores the prompts, too; it must not be the one that runs."""

    def refuse(*_: object) -> None:
        raise AssertionError("TRL's head was asked")

    monkeypatch.setattr("trl.kernels.chunked_logprob.ChunkedLogProbFunction.apply", refuse)
    train(command, model, *REWARD, "--tuning", tuning, "--beta", "0.1", "--max-steps", "2")


def test_constant_rewards_leave_the_policy_as_it_is(model: Path) -> None:
    run = train("grpo", model, "--reward", "rl_rewards:one", "--learning-rate", "0.1", "--beta", "0.5")
    rows = [row for row in lines(run / "metrics.jsonl") if "loss" in row]
    assert all(row["groups/flat_frac"] == 1.0 and row["loss"] == 0.0 for row in rows)
    assert not any(row["trained"] for row in lines(run / "rollouts.jsonl"))
    up = [one for name, one in weights(run).items() if "lora_B" in name]
    assert up and not any(one.any() for one in up)
    assert "had the same reward" in (run / "log.txt").read_text() or len(rows) < 5


def test_an_answer_without_a_reward_is_trained_on_by_nobody(model: Path) -> None:
    run = train("ppo", model, "--reward", "rl_rewards:sometimes")
    drawn = lines(run / "rollouts.jsonl")
    without = [row for row in drawn if row["reward"] is None]
    assert 0 < len(without) < len(drawn)
    assert not any(row["trained"] for row in without)
    assert all(row["trained"] for row in drawn if row["reward"] is not None)


def test_a_failing_reward_names_the_sample_and_stops(model: Path) -> None:
    said = refusal("grpo", model, "--reward", "rl_rewards:broken")
    assert "rl_rewards:broken" in said and "ZeroDivisionError" in said and "the answer to p" in said
    run = train("grpo", model, "--reward", "rl_rewards:broken", "--reward-errors", "exclude", "--overwrite")
    assert all(row["excluded"] for row in lines(run / "rollouts.jsonl"))


def test_too_many_answers_cut_off_stop_the_run(model: Path) -> None:
    words = "--max-truncated-frac 0.1 --max-steps 12 --max-completion-length 2".split()
    said = refusal("grpo", model, *REWARD, *words)
    assert "were cut off at 2 tokens, allowed are 10%" in said and "--max-completion-length" in said


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("grpo", ["--num-generations", "3"], "which 3 do not divide"),
        ("grpo", ["--num-generations", "1"], "an answer is held against its group's mean"),
        ("grpo", ["--reward", "lenght=3"], "Did you mean 'length'"),
        ("grpo", ["--reward", "math"], "no prompt has a math verifier"),
        ("grpo", ["--max-prompt-length", "4000"], "the model reads"),
        ("grpo", ["--batch-size", "64"], "prompts, and 32 are answered together"),
        ("grpo", ["--tuning", "prefix", "--rollouts", "embedded"], "cannot be merged"),
        ("grpo", ["--trainer.num_generations", "2"], "Use --num-generations"),
        pytest.param(
            "grpo",
            ["--rollouts", "vllm"],
            "vllm is not installed",
            marks=pytest.mark.skipif(find_spec("vllm") is not None, reason="it is installed"),
        ),
        ("grpo", ["--min-score-std", "0.1"], "no prompt has a 'score_std'. Give the prompts.jsonl of a run"),
        ("ppo", ["--optimizer", "lomo"], "it cannot train policy and value model together"),
        ("ppo", ["--kl-control", "adaptive", "--beta", "0"], "nothing to follow"),
        ("ppo", ["--value-model", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_what_does_not_fit_is_refused(command: str, words: list[str], said: str, model: Path) -> None:
    assert said in refusal(command, model, *words)


def test_prompts_whose_answers_were_all_alike_can_be_left_out(model: Path) -> None:
    rows = list(map(json.loads, Path(prompts()).read_text("utf-8").splitlines()))
    for number, row in enumerate(rows[:40]):
        row["score_std"] = number % 2 / 4  # of the last eight it is not known
    Path("known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["--min-score-std", "0.2", *REWARD, "--max-steps", "24", "--model", str(model), "--run", "out"]
    main, own = COMMANDS["grpo"]
    assert main(["known.jsonl", *FEW, *own, *words]) == 0
    dropped = {row["id"]: row for row in lines(Path("out/dropped.jsonl"))}
    used = {int(row["id"][1:]) for row in lines(Path("out/rollouts.jsonl"))}
    held = {int(row["id"][1:]) for row in lines(Path("out/answers.jsonl"))}
    assert used and not any(number < 40 and number % 2 == 0 for number in used) and not held & used
    assert all(row["reason"] == "scored_alike" and int(name[1:]) % 2 == 0 for name, row in dropped.items())
    assert any(number < 40 and number % 2 == 0 for number in held), "what is held out is not chosen"
    assert len(dropped) >= 5


def test_prompts_of_one_family_are_held_out_together(model: Path) -> None:
    words = ["--constraints", "2", "--copies", "3"]
    rows = [
        {"instruction": f"Write about thing number {number}.", "id": f"t{number}"} for number in range(12)
    ]
    Path("tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main, own = COMMANDS["grpo"]
    assert main(["tasks.jsonl", *FEW, *own, *words, "--model", str(model), "--run", "out"]) == 0
    held = {row["id"].split("#")[0] for row in lines(Path("out/answers.jsonl"))}
    used = {row["id"].split("#")[0] for row in lines(Path("out/rollouts.jsonl"))}
    assert held and used and not held & used


def test_adaptive_control_and_its_state_survive_a_resume(model: Path) -> None:
    words = "--kl-control adaptive --kl-target 0.001 --kl-horizon 10 --learning-rate 0.01".split()
    run = train("ppo", model, *REWARD, *words, "--max-steps", "8")
    rows = [row["kl/coefficient"] for row in lines(run / "metrics.jsonl") if "kl/coefficient" in row]
    assert rows[0] == 0.05 and rows[-1] != rows[0]


def test_value_warm_up_leaves_the_policy_alone(model: Path) -> None:
    run = train("ppo", model, *REWARD, "--value-warmup-steps", "4", "--learning-rate", "0.1")
    found = weights(run)
    assert not any(one.any() for name, one in found.items() if name.startswith("model/") and "lora_B" in name)
    assert any(
        one.any() for name, one in found.items() if name.startswith("value_model/") and "lora_B" in name
    )


def test_a_head_on_the_policy_learns_the_values_and_leaves_the_policy_alone(model: Path) -> None:
    words = "--value-tuning head --value-learning-rate 0.01 --max-steps 50 --batch-size 16 --beta 0".split()
    words += "--num-iterations 1 --gradient-accumulation 1 --value-warmup-steps 50 --learning-rate 1".split()
    run = train("ppo", model, "--reward", "rl_rewards:chinese", *words)
    assert not any(one.any() for name, one in weights(run).items() if "lora_B" in name)
    explained = [row["value/explained_variance"] for row in lines(run / "metrics.jsonl") if "reward" in row]
    assert explained[0] == 0.0 and sum(explained[-10:]) / 10 > 0.15, explained
    head = load_file(run / "value_model" / "value.safetensors")
    assert head["weight"].any() and {path.name for path in (run / "value_model").iterdir()} == {
        "value.safetensors"
    }
    words = "--value-tuning head --value-learning-rate 1e-9 --value-model out".split()
    again = load_file(train("ppo", model, *REWARD, *words, run="on") / "value_model" / "value.safetensors")
    assert all(torch.allclose(again[name], head[name], atol=1e-6) for name in head)
    said = refusal("ppo", model, "--value-tuning", "head", "--value-model", "elsewhere")
    assert said.startswith("--value-model elsewhere: no value_model/value.safetensors. Name a run")


@pytest.mark.parametrize("words", [[], ["--value-tuning", "head"]])
def test_the_reward_rises_in_one_pass(words: list[str], model: Path) -> None:
    own = "--learning-rate 0.01 --max-steps 40 --batch-size 8 --beta 0 --num-iterations 1".split()
    run = train("ppo", model, *REWARD, *own, *words)
    held = facts(run)["held_out"]
    assert held["reward"]["after"]["value"] > held["reward"]["before"]["value"] + 0.2, held
    rows = [row for row in lines(run / "metrics.jsonl") if "reward" in row]
    assert all(row["value/clip_frac"] == 0 and row["value/loss"] > 0 for row in rows)


def test_a_critic_that_learns_while_it_judges_learns_what_the_loss_teaches(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.train import ppo_trainer

    def values(one: Any) -> dict[str, torch.Tensor]:
        return {name: found for name, found in weights(one).items() if "value_model" in name}

    rates = "--value-learning-rate 0.01 --learning-rate 0.01 --precision fp32".split()
    words = [*REWARD, "--num-iterations", "1", *rates]
    fast = train("ppo", model, *words, run="fast")
    learn = ppo_trainer.PPO._old_values

    def as_before(self: Any, *given: Any) -> torch.Tensor:
        self._at_once = False
        return learn(self, *given)

    monkeypatch.setattr(ppo_trainer.PPO, "_old_values", as_before)
    slow = train("ppo", model, *words, run="slow")
    assert lines(fast / "rollouts.jsonl") == lines(slow / "rollouts.jsonl")
    one, other = values(fast), values(slow)
    moved = [name for name in one if "lora_B" in name and one[name].abs().max() > 1e-3]
    assert moved and all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_the_alarms_are_raised(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    after = rl_look.alarms.Alarms.after_step

    def listen(self: Any, step: int, metrics: Any, held_out: Any = None) -> list[str]:
        seen.append(set(metrics) | {f"held:{name}" for name in held_out or ()})
        return [*after(self, step, metrics, held_out), "alarm test: heard"]

    monkeypatch.setattr(rl_look.alarms.Alarms, "after_step", listen)
    run = train("grpo", model, *REWARD)
    assert {"reward", "mean_length", "repetition", "kl", "clipped_frac", "excluded_frac"} <= seen[0]
    assert any("held:satisfied" in one for one in seen)
    assert "step 1: alarm test: heard" in (run / "log.txt").read_text()


def test_what_is_drawn_is_what_the_served_template_asks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts reach the decoder token for token as an engine is sent them."""
    drawn: list[list[int]] = []
    draw = rl_trainer.PolicyCopy.draw

    def listen(self: Any, prompts: Any, first: int, salt: str) -> list[list[int]]:
        drawn.extend(prompts)
        return draw(self, prompts, first, salt)

    monkeypatch.setattr(rl_trainer.PolicyCopy, "draw", listen)
    run = train("grpo", model, *REWARD, "--max-steps", "1")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    asked = {row["id"]: row["prompt"] for row in lines(Path("prompts.jsonl"))}
    served = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=True, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for text in asked.values()
    ]
    assert drawn and all(list(ids) in served for ids in drawn)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_judge_behind_a_server_rewards_and_is_asked_once_for_each_answer(
    command: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")

    def rated(body: dict[str, Any]) -> tuple[str, str]:
        text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        said = re.split(r"Answer:|回答：|\n+Rating|\n+评分", str(text))[-2:][0]
        return ("5" if any(c in said for c in "aeiou") else "1"), "stop"

    with FaultServer(rated, share=0.2, faults=("500", "429"), max_faults=2) as server:
        words = ["--reward", "judge:2", "repetition", "--judge", "engine=openai", "model=smol"]
        run = train(command, model, *words, f"base_url={server.url}")
        asked = sum("Rating" in text or "评分" in text or "分" in text for text in server.prompts())
        assert server.injected.total() > 0
    rows = [row for row in lines(run / "metrics.jsonl") if "reward" in row]
    assert all(0 <= row["rewards/judge/mean"] <= 1 and row["rewards/excluded"] == 0 for row in rows)
    drawn = lines(run / "rollouts.jsonl")
    assert {one["parts"]["judge"] for one in drawn} <= {0.0, 1.0} and asked > 0
    for one in drawn:
        assert one["parts"]["judge"] == float(any(c in one["answer"] for c in "aeiou"))
        assert one["reward"] == pytest.approx(2 * one["parts"]["judge"] + one["parts"]["repetition"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge", "engine=openai"], "no judge is among the rewards"),
        (["--reward", "judge", "--judge", "engine"], "expected NAME=VALUE"),
        (["--reward", "judge", "--judge", "engin=openai"], "Did you mean 'engine'"),
        (["--reward", "judge", "--judge", "max_cost=dear"], "got 'dear', expected a number"),
        (["--reward", "judge", "--judge", "engine=openai"], "--model"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_anything_runs(
    words: list[str], said: str, model: Path
) -> None:
    assert said in refusal("grpo", model, *words)
    assert not Path("out").exists()
