"""TRL's ORPO trainer, which it counts as experimental (Hong et al. 2024, arXiv:2403.07691).

Deviation from TRL: the likelihood term falls on the chosen answer, as in the paper's equation 6 and as the
mask audit wants it; TRL adds the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn import functional
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from pipeline.train.pair_trainers import PairTrainer

__all__ = ["ORPO", "ORPOConfig"]


class ORPO(PairTrainer, ORPOTrainer):
    """Pairs, without a reference."""

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        """It is tokenised."""
        return {}

    def lengths(self, rows: Any) -> list[int]:
        """The tokens of the longer side of each row."""
        sides = zip(rows["chosen_input_ids"], rows["rejected_input_ids"], strict=True)
        return [max(len(chosen), len(rejected)) for chosen, rejected in sides]

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, which forgets the rows' metrics."""
        if "loss" not in logs:
            found = self._stored_metrics["eval"]
            self._metrics = {"eval": {name.removeprefix("eval_"): values for name, values in found.items()}}
        super().log(logs, start_time)

    def compute_loss(self: Any, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's, which counts no tokens."""
        masks = (inputs["chosen_attention_mask"], inputs["rejected_attention_mask"])
        self._total_train_tokens = getattr(self, "_total_train_tokens", 0) + sum(int(m.sum()) for m in masks)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def concatenated_forward(self: Any, model: Any, batch: Mapping[str, Any]) -> tuple[Any, ...]:
        """Mean log-probabilities (B,) and logits of both sides, and the chosen answers' loss a token."""
        both = self.concatenated_inputs(
            batch, padding_value=self.processing_class.pad_token_id, device=self.accelerator.device
        )
        labels, count = both["concatenated_labels"], len(batch["chosen_labels"])
        logits = model(
            both["concatenated_input_ids"],
            attention_mask=both["concatenated_attention_mask"],
            use_cache=False,
        ).logits[:, -labels.shape[1] :]  # soft prompts stand before the tokens
        likelihood = functional.cross_entropy(
            logits[:count, :-1].flatten(0, 1).float(), labels[:count, 1:].flatten()
        )
        logps = self.get_batch_logps(logits, labels, average_log_prob=True)
        return logps[:count], logps[count:], logits[:count], logits[count:], likelihood

    def sequences(self: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Both sides in one batch."""
        both = self.concatenated_inputs(batch, padding_value=self.processing_class.pad_token_id)
        labels = both["concatenated_labels"]
        return both["concatenated_input_ids"], both["concatenated_attention_mask"], labels != -100
