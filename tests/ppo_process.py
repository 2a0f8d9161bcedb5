"""One process of a training: FOLDER MODEL KIND BATCH; the first one writes FOLDER/found.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer
from trl import GRPOConfig

from pipeline.engines.base import Sampling
from pipeline.train import adapters
from pipeline.train.critic import Critic, HeadCritic
from pipeline.train.grpo_trainer import GRPO
from pipeline.train.optimizers import OptimizerSettings
from pipeline.train.ppo_math import FixedKL
from pipeline.train.ppo_trainer import PPO, KLState, PPOConfig, PPOSettings
from pipeline.train.rewards import Rewards, parse_rewards
from pipeline.train.rl_options import GRPOOptions, PPOOptions
from pipeline.train.rl_trainer import Rollouts
from pipeline.train.rollouts import PolicyCopy
from pipeline.train.value_model import head


def main(folder: Path, model: str, kind: str, batch: int) -> None:
    """Train four steps of grpo, ppo, ppo once (one pass), ppo head; write down answers and weights."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.padding_side = "left"

    def tuned(whole: torch.nn.Module, task: str) -> torch.nn.Module:
        torch.manual_seed(0)
        found: torch.nn.Module = adapters.attach(whole, adapters.Tuning(method="lora", task=task, rank=4))
        return found

    policy = tuned(AutoModelForCausalLM.from_pretrained(model), "causal")
    policy.generation_config.eos_token_id = [tokenizer.eos_token_id]
    ends = [tokenizer.eos_token_id]
    rows = [
        {"prompt": [{"role": "user", "content": f"word {i}" * (i % 3 + 1)}], "id": f"p{i}"} for i in range(32)
    ]
    data = Dataset.from_list([{**row, "language": "en", "verifier": ""} for row in rows])
    copies = PolicyCopy(Sampling(temperature=1.0, max_tokens=6), ends, 0)
    rewards = Rewards(parse_rewards(["rl_rewards:letters"]))
    rollouts = Rollouts(rewards, copies, folder / "rollouts.jsonl", "base", 0.05)
    fields = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 6,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "loss_type": "dapo",
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "bf16": False,
        "temperature": 1.0,
        "seed": 0,
    }
    given = {
        "rollouts": rollouts,
        "settings": OptimizerSettings("adamw", learning_rate=0.01),
        "model": policy,
        "train_dataset": data,
        "processing_class": tokenizer,
    }
    if kind.startswith("ppo"):
        critic = (
            HeadCritic(head(policy, ""), 0.01)
            if kind == "ppo head"
            else Critic(
                tuned(AutoModelForTokenClassification.from_pretrained(model, num_labels=1), "classify"), 0.01
            )
        )
        trainer = PPO(
            **given,
            options=PPOOptions(schedule="constant", warmup_frac=0.0),
            args=PPOConfig(**fields, num_generations=1, num_iterations=1 if kind == "ppo once" else 2),
            critic=critic,
            ppo=PPOSettings(),
            kl=KLState(FixedKL(0.05)),
        )
    else:
        config = GRPOConfig(**fields, num_generations=4, scale_rewards="group")
        options = GRPOOptions(schedule="constant", warmup_frac=0.0)
        trainer = GRPO(**given, options=options, args=config)
    trainer.train()
    if trainer.accelerator.is_main_process:
        models = [trainer.accelerator.unwrap_model(trainer.model)]
        models += [trainer.critic.model] if kind != "grpo" else []
        weights = {
            f"{i} {name}": one.detach().flatten().tolist()
            for i, whole in enumerate(models)
            for name, one in whole.named_parameters()
            if one.requires_grad
        }
        answers = [json.loads(line)["answer"] for line in (folder / "rollouts.jsonl").open(encoding="utf-8")]
        (folder / "found.json").write_text(json.dumps({"answers": answers, "weights": weights}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
