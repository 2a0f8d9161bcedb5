"""Learning from rewards on our tuning methods, rewards and rollouts: TRL's GRPOTrainer, some parts exchanged.

Deviations: (1) the reference is what our tuning methods want: the base without the adapter, or the policy as
it was at the beginning; (2) answers come from a merged copy of the policy, each with a seed of its own, and
the order of the prompts hangs on the epoch alone, so that a resumed run draws what an unbroken one draws; (3)
an answer that no reward could be found for, and a group whose answers were all rewarded alike, are masked:
they move neither the loss nor its divisor; (4) every answer is written down with its rewards; (5) padding and
masked answers are not computed (unpadded.py).
"""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from pipeline.errors import PipelineError
from pipeline.lines import LineFile
from pipeline.records import read_text, to_json
from pipeline.train.answer_head import score_answers_only
from pipeline.train.reward_terms import repetition
from pipeline.train.rewards import Rewards, Row, Scored
from pipeline.train.rollouts import PolicyCopy
from pipeline.train.row_order import PromptSampler
from pipeline.train.targets import plain
from pipeline.train.tuned_trainer import TunedTrainer, casting
from pipeline.train.unpadded import UnpaddedTrainer

STATE_FILE = "rl_state.json"
_DRAWS = 10  # over which the share of truncated answers is taken


class Keeper(Protocol):
    """What has a state that a resumed run needs."""

    def state(self) -> dict[str, Any]:
        """It as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        ...


@dataclass
class Rollouts:
    """Where answers come from, what becomes of them, and what is kept of them.

    `copies` is None where TRL draws the answers (transformers or vLLM); `reference` is "none", "base" (the
    model without its adapter) or "start" (the policy as it is before training); `path` is where the answers
    are written.
    """

    rewards: Rewards
    copies: PolicyCopy | None
    path: Path
    reference: str = "none"
    beta: float = 0.0
    drop_flat: bool = False
    max_truncated_frac: float = 1.0
    keepers: dict[str, Keeper] = field(default_factory=dict)


class RolloutTrainer(TunedTrainer, UnpaddedTrainer):
    """Draws answers to prompts, has them rewarded, and makes the better ones likelier."""

    def __init__(self: Any, *, rollouts: Rollouts, model: Any, args: Any, **kwargs: Any) -> None:
        self._rollouts = rollouts
        self._truncated: deque[float] = deque(maxlen=_DRAWS)
        self._scored: list[Scored] = []
        reference = copy.deepcopy(model).requires_grad_(False) if rollouts.reference == "start" else None
        args.beta = 0.0  # TRL would copy the adapter, or load the base again
        super().__init__(model=model, args=args, reward_funcs=[_total], **kwargs)
        args.beta = self.beta = rollouts.beta if rollouts.reference != "none" else 0.0
        bonus = self._entropy_bonus_enabled
        score_answers_only(plain(self.model), ["entropy"], temperature=self.temperature, learn_entropy=bonus)
        if reference is not None:
            add_fused_lm_head(plain(reference), temperature=self.temperature)
            score_answers_only(plain(reference), (), temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    @property
    def mode(self: Any) -> str:
        """Under which of TRL's two sets of metrics a figure goes."""
        return "train" if self.model.training else "eval"

    def _get_train_sampler(self: Any, dataset: Any = None) -> PromptSampler:
        return PromptSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def draw(self: Any, prompts: Sequence[list[int]], salt: str) -> list[list[int]]:
        """An answer's token ids to each prompt, by whatever draws them."""
        if self._rollouts.copies is None:
            found, _ = GRPOTrainer._generate_single_turn(self, list(prompts), None, {}, 1)
            return [list(ids) for ids in found]
        self._rollouts.copies.sync(self.accelerator.unwrap_model(self.model), self.state.global_step)
        first = self.accelerator.process_index * len(prompts)
        return self._rollouts.copies.draw(prompts, first, salt)

    def _generate_single_turn(self: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if self._rollouts.copies is None:
            with casting(self.model, on=True):  # it may draw without autocast
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        return self.draw(prompt_ids, f"step {self.state.global_step}"), None

    def rows(
        self: Any, inputs: Sequence[dict[str, Any]], texts: Sequence[str], answers: Sequence[Sequence[int]]
    ) -> list[Row]:
        """What is rewarded: prompts with their answers, as texts and as token ids."""
        return [
            Row(
                id=one["id"],
                prompt=one["prompt"],
                answer=text,
                verifier=json.loads(one["verifier"]) if one["verifier"] else None,
                language=one["language"],
                cut=not ids or ids[-1] not in self.eos_token_ids,
            )
            for one, text, ids in zip(inputs, texts, answers, strict=True)
        ]

    def _calculate_rewards(self: Any, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
        """One column: the weighted sum of all rewards, NaN where there is none (N over all processes, 1)."""
        self._rows = self.rows(inputs, [one[0]["content"] for one in completions], ids)
        self._scored = self._rollouts.rewards.score(self._rows)
        for name, value in self._rollouts.rewards.stats(self._scored).items():
            self._pending_metrics[name].append(value)
        repeated = [-repetition(row.answer) for row in self._rows]
        self._pending_metrics["completions/repetition"].append(sum(repeated) / len(repeated))
        totals = [float("nan") if one.total is None else one.total for one in self._scored]
        found = torch.tensor(totals, dtype=torch.float32, device=self.accelerator.device)[:, None]
        self._totals = self.accelerator.gather(found)
        return self._totals

    def _generate_and_score_completions(self: Any, inputs: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        for name in ("rewards/_total/mean", "rewards/_total/std"):
            self._metrics[self.mode].pop(name, None)
        self._refuse_truncated()
        out["completion_mask"] = out["completion_mask"] * self._counted(len(inputs))[:, None]
        out["num_items_in_batch"] = self.accelerator.gather(out["completion_mask"].sum()).sum()
        self._write(out)
        return out

    def _counted(self: Any, here: int) -> torch.Tensor:
        """1 for each answer of this process (B,) that takes part."""
        totals = self._totals[:, 0]
        keep = ~totals.isnan()
        if self._rollouts.drop_flat:
            groups = totals.view(-1, self.num_generations)
            low, high = groups.nan_to_num(torch.inf).amin(1), groups.nan_to_num(-torch.inf).amax(1)
            flat = ~(high - low > 1e-6)
            self._metrics[self.mode]["groups/flat_frac"].append(float(flat.float().mean()))
            keep &= ~flat.repeat_interleave(self.num_generations)
        begin = self.accelerator.process_index * here
        return keep[begin : begin + here].long()

    def _refuse_truncated(self: Any) -> None:
        """Stop where most answers are cut off. Raises PipelineError."""
        if self.mode != "train":
            return
        self._truncated.append(self._metrics["train"]["completions/clipped_ratio"][-1])
        share, most = sum(self._truncated) / len(self._truncated), self._rollouts.max_truncated_frac
        if len(self._truncated) == _DRAWS and share > most:
            raise PipelineError(
                "rollouts",
                f"{share:.0%} of the answers of the last {_DRAWS} draws were cut off at "
                f"{self.max_completion_length} tokens, allowed are {most:.0%}",
                "Raise --max-completion-length, reward brevity (--reward length=N), or allow more with "
                "--max-truncated-frac.",
            )

    def _write(self: Any, out: dict[str, Any]) -> None:
        """All answers of this draw, with what was made of them."""
        advantages = out["advantages"]
        if advantages.dim() == 2:  # of tokens: their mean
            advantages = (advantages * out["completion_mask"]).sum(1) / out["completion_mask"].sum(1).clamp(1)
        lines = [
            {
                "step": self.state.global_step,
                "id": row.id,
                "answer": row.answer,
                "cut": row.cut,
                "reward": scored.total,
                "parts": scored.parts,
                **({"excluded": scored.excluded} if scored.excluded else {}),
                "advantage": round(float(advantage), 4),
                "trained": bool(mask.any()),
            }
            for row, scored, advantage, mask in zip(
                self._rows, self._scored, advantages, out["completion_mask"], strict=True
            )
        ]
        lines = gather_object(lines)
        if self.accelerator.is_main_process and self.mode == "train":
            with closing(LineFile(self._rollouts.path, anew=self.state.global_step == 0)) as file:
                file.append(lines)

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        """TRL's, with the states of what follows a run; they go first, as the last file marks it whole."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            states = {name: one.state() for name, one in self._rollouts.keepers.items()}
            states["truncated"] = list(self._truncated)
            (folder / STATE_FILE).write_text(to_json(states), encoding="utf-8")
            self.save_beside(folder)
        super()._save_checkpoint(model, trial)

    def save_beside(self, folder: Path) -> None:
        """Write what else has been trained."""

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        states = json.loads(read_text(Path(resume_from_checkpoint) / STATE_FILE))
        self._truncated.extend(states["truncated"])
        for name, keeper in self._rollouts.keepers.items():
            keeper.restore(states[name])


def _total(**_: Any) -> list[float]:
    """Stands where TRL wants a reward; ours are computed together."""
    raise NotImplementedError
