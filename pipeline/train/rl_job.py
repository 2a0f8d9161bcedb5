"""What `python -m pipeline.grpo` and `python -m pipeline.ppo` do, their trainers apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.engines.base import Sampling
from pipeline.errors import PipelineError
from pipeline.format.sources import find_sources
from pipeline.format.templates import Template, template_for
from pipeline.lines import LineFile
from pipeline.train import adapters, rl_look, trained, vllm_rollouts
from pipeline.train.data import Input
from pipeline.train.job import Job
from pipeline.train.judge_reward import ModelJudge, check_judges, judge_engine
from pipeline.train.outcome import training_facts
from pipeline.train.policy import policy, window, with_adapter
from pipeline.train.rewards import Rewards, check_rewards, parse_rewards
from pipeline.train.rl_curves import draw_rl
from pipeline.train.rl_options import RLOptions
from pipeline.train.rl_prompts import PromptData, columns, load

_BLIND = ("fish-mask", "diff-pruning", "prompt")  # look at answers before training, or end as another model


class RLJob(Job):
    """Learns from rewards of answers that it draws itself."""

    rows = "prompts.jsonl"
    rate = 0.5
    by_several = True
    options: RLOptions
    template: Template
    data: PromptData

    @classmethod
    def completed(cls, options: Any, root: Path) -> Any:
        """The newest preferences' prompts, and the newest model of pipeline.sft. Raises PipelineError."""
        options = super().completed(options, root)
        if options.model or options.adapter:
            return options
        newest = trained.newest(root, "sft")
        return replace(options, model=str(newest)) if newest else options

    @classmethod
    def find(cls, options: Any) -> Input:
        """The prompts that the options name; of a run of selfinstruct its examples. Raises PipelineError."""
        given = []
        for name in options.data:
            folder = Path(name)
            rows = "kept.jsonl" if (folder / "kept.jsonl").is_file() else cls.rows
            given += find_sources([name], rows)
        return Input([given])

    @classmethod
    def fitted(cls, options: Any, base: str) -> Any:
        """Prompt and answer within what the model reads. Raises PipelineError."""
        most = window(base)
        if most and options.max_prompt_length + options.max_completion_length > most:
            problem = (
                f"{options.max_prompt_length} tokens of a prompt and {options.max_completion_length} of an "
                f"answer, and the model reads {most}"
            )
            fix = "Lower --max-prompt-length or --max-completion-length."
            raise PipelineError("command line", problem, fix)
        return with_adapter(options)

    @classmethod
    def check(cls, options: Any) -> None:
        """Refuse what does not fit together. Raises PipelineError."""
        check_judges(parse_rewards(options.reward), options.judge)
        if options.rollouts == "vllm":
            vllm_rollouts.require()
        if options.tuning in _BLIND:
            problem = "it wants answers to look at before it trains, or draws none"
            raise PipelineError(f"--tuning {options.tuning}", problem, "Use lora or another method.")
        answers = options.batch_size * options.gradient_accumulation * options.num_minibatches
        if answers % options.num_generations:
            problem = (
                f"{answers} answers are drawn together (--batch-size x --gradient-accumulation x "
                f"--num-minibatches), which {options.num_generations} do not divide"
            )
            fix = "Change one, so that whole groups are drawn."
            raise PipelineError(f"--num-generations {options.num_generations}", problem, fix)
        if options.rollouts == "embedded" and not adapters.METHODS[options.tuning].merges:
            problem = f"{options.tuning} cannot be merged into a copy to draw from"
            raise PipelineError("--rollouts embedded", problem, "Use transformers.")

    @property
    def stops_every(self) -> int:  # type: ignore[override]
        """Answers that were drawn are used up before a run is left."""
        return self.options.draws_every

    def prepare(self) -> Any:
        """Read the prompts, load the rewards and the policy. Raises PipelineError."""
        from transformers import AutoTokenizer

        options = self.options
        self.display.say(f"policy: {options.model or 'the embedded model'} ({self.base})")
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        self.template, _ = template_for(tokenizer, options.format, options.format_file)
        data = self.data = load(options, self.given, self.template)
        self.drop(data.dropped)
        data.validation = data.validation[: options.num_held_out]
        counts = f"{len(data.train)} prompts to train on, {len(data.validation)} held out"
        self.display.say(f"data: {self.given.names}; {counts}; format {self.template.name}")
        self._enough()
        terms = parse_rewards(options.reward)
        check_rewards(terms, [one.verifier for one in data.train])
        judge = partial(ModelJudge, options=judge_engine(options.judge), folder=self.folder)
        self.rewards = Rewards(terms, judge=judge, on_error=options.reward_errors)
        trainer = self.trainer(self._tuned(), columns(data.train))
        trainer.add_callback(rl_look.Looks(self, trainer, self.keepers["alarms"]))
        return trainer

    def _enough(self) -> None:
        options = self.options
        answers = options.batch_size * options.gradient_accumulation * options.num_minibatches
        wanted = answers // options.num_generations
        if len(self.data.train) < wanted:
            problem = f"{len(self.data.train)} prompts, and {wanted} are answered together"
            fix = "Give more prompts, or lower --batch-size, --gradient-accumulation or --num-minibatches."
            raise PipelineError("data", problem, fix)

    def _tuned(self) -> Any:
        """The model to train; an end token of the template ends an answer."""
        tokenizer = self.template.tokenizer
        model, tuning = policy(self.options, self.machine, self.base, [], len(tokenizer))
        model.generation_config.eos_token_id = sorted(self.template.ends)
        return model, tuning

    def trainer(self, tuned: Any, rows: Sequence[dict[str, Any]]) -> Any:
        """TRL's trainer, ours in parts."""
        raise NotImplementedError

    def rollouts(self, model: Any, beta: float, *, drop_flat: bool) -> Any:
        """What the trainer is given beside TRL's configuration."""
        from pipeline.train.alarms import Alarms
        from pipeline.train.rl_trainer import Rollouts
        from pipeline.train.rollouts import PolicyCopy

        options, way = self.options, self._way()
        sampling = Sampling(options.temperature, options.top_p, max_tokens=options.max_completion_length)
        ends, precision = sorted(self.template.ends), self.machine.precision
        copies = PolicyCopy(sampling, ends, options.seed, precision) if way == "embedded" else None
        adapted = hasattr(model, "get_base_model") and options.tuning != "pissa" and not options.adapter
        reference = "none" if not beta else "base" if adapted else "start"
        said = {
            "none": "none",
            "base": "the model without its adapter",
            "start": "the policy at the beginning",
        }
        self.display.say(f"answers drawn by: {way}; reference: {said[reference]}")
        self.keepers: dict[str, Any] = {"alarms": Alarms()}
        path = self.folder / "rollouts.jsonl"
        return Rollouts(
            self.rewards, copies, path, reference, beta, drop_flat, options.max_truncated_frac, self.keepers
        )

    def _way(self) -> str:
        wanted = self.options.rollouts
        if wanted != "auto":
            return wanted
        merges = adapters.METHODS[self.options.tuning].merges
        return "embedded" if self.machine.device == "cpu" and merges else "transformers"

    def fields(self) -> dict[str, Any]:
        """What these commands decide of TRL's configuration."""
        options = self.options
        every = options.draws_every
        fields: dict[str, Any] = {
            "num_generations": options.num_generations,
            "max_completion_length": options.max_completion_length,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": 0,
            "loss_type": options.loss,  # type: ignore[attr-defined]
            "epsilon": options.epsilon,
            "num_iterations": options.num_iterations,
            "steps_per_generation": options.gradient_accumulation * options.num_minibatches,
            "mask_truncated_completions": options.mask_truncated,
            "save_steps": -(-options.eval_every // every) * every,
            "save_strategy": "steps",
            "remove_unused_columns": False,
            "train_sampling_strategy": "random",
        }
        if self._way() == "vllm":
            fields |= vllm_rollouts.prepare(self.machine.device)
        return fields

    def look(self, trainer: Any) -> dict[str, Any]:
        """One answer to each held-out prompt, its reward, and whether it passes all checks: the leader's."""
        if not self.leads:
            return {"rows": []}
        return rl_look.look(trainer, self.data.validation, self.template, self.rewards)

    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """With the template in the tokenizer and the end tokens in the generation configuration."""
        adapters.save(model, folder)
        self.template.tokenizer.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)

    def report(
        self, trainer: Any, before: Mapping[str, Any], after: Mapping[str, Any], seconds: float
    ) -> Sequence[str]:
        """answers.jsonl, rewards.svg and run.json."""
        self.rewards.close()
        data, tokens = self.data, int(trainer.state.num_input_tokens_seen)
        counts = len(data.train), len(data.validation), len(data.dropped)
        facts, said = rl_look.compare(before, after)
        with closing(LineFile(self.folder / "answers.jsonl", anew=True)) as file:
            file.append(rl_look.side_by_side(data.validation, before, after))
        self.target.update(training_facts(trainer, *counts, tokens, seconds) | {"held_out": facts})
        steps = max(trainer.state.global_step, 1)
        ends = [
            {"step": step} | {f"eval_{name}": one.value for name, one in rl_look.figures(found).items()}
            for step, found in ((0, before), (steps, after))
        ]
        draw_rl(self.folder / "metrics.jsonl", self.folder, ends)
        said.append(f"{steps} steps, {seconds / steps:.1f} s each; rewards.svg shows them")
        return [*said, f"next: python -m pipeline.{self.command} chat {self.folder}"]
