"""transformers' Trainer for sequence classification."""

from __future__ import annotations

from typing import Any

from torch.utils.data import SequentialSampler
from transformers import Trainer as PlainTrainer

from pipeline.train.tuned_trainer import TunedTrainer


class Trainer(TunedTrainer, PlainTrainer):
    """Counts the tokens it trains on, padding apart."""

    tokens_seen = 0

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """In the order of the rows: the Trainer would group them by length and mix up predictions."""
        return SequentialSampler(eval_dataset)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own."""
        self.tokens_seen += int(inputs["attention_mask"].sum())
        return super().training_step(model, inputs, *args, **kwargs)


def metrics(found: Any) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes that occur or are predicted."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    predicted, labels = found.predictions.argmax(-1), found.label_ids
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0.0
    )
    out = {"accuracy": accuracy_score(labels, predicted), "precision": precision, "recall": recall, "f1": f1}
    return {name: float(value) for name, value in out.items()}
