"""A trained classifier at work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.train import trained
from pipeline.train.labelled import encode, joined


class Classifier:
    """The model of a finished run of `pipeline.sft --task classify`."""

    def __init__(self, run: Path) -> None:
        self._model, self._tokenizer = trained.load(run)
        config = self._model.config
        self.classes = [config.id2label[number] for number in range(config.num_labels)]
        longest = getattr(config, "max_position_embeddings", None)
        self._longest = min(longest or trained.max_length(run), trained.max_length(run))

    def probabilities(self, parts: Sequence[str]) -> dict[str, float]:
        """The probability of each class for a text given in its parts (instruction, input, output).

        One text at a time, so that a score does not depend on what else is asked.
        """
        import torch

        ids = encode(self._tokenizer, joined(parts), self._longest)
        with torch.inference_mode():
            given = torch.tensor([ids], device=self._model.device)
            logits = self._model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0]
        return dict(zip(self.classes, logits.float().softmax(-1).tolist(), strict=True))


@cache
def classifier(run: Path) -> Classifier:
    """The same object for the same run: it is loaded once."""
    return Classifier(run)
