"""Empirical Fisher information of weights (FISH Mask: Sung et al. 2021, arXiv:2111.09839, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import torch


def fisher_scores(
    model: Any, modules: dict[str, Any], batches: Iterable[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The mean over rows of the squared gradient of log p(labels | inputs), for the weight of each module.

    `batches` hold input_ids, attention_mask and labels; rows without a label are passed over.
    """
    import torch

    weights = {name: module.weight for name, module in modules.items()}
    scores = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    training, count = model.training, 0
    model.eval()
    for weight in weights.values():
        weight.requires_grad_(True)
    for row, num_labels in _rows(batches, next(iter(weights.values())).device):
        count += 1
        # a loss is a mean over labels, but the information is the likelihood's of the whole answer
        gradients = torch.autograd.grad(model(**row).loss * num_labels, list(weights.values()))
        for score, gradient in zip(scores.values(), gradients, strict=True):
            score += gradient.float().square()
    model.train(training)
    if not count:
        problem = "no example with a trained token to measure the Fisher information on"
        raise PipelineError("fish-mask", problem, "Give batches of the training data, with labels.")
    return {name: score / count for name, score in scores.items()}


def _rows(
    batches: Iterable[dict[str, torch.Tensor]], device: Any
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """Each row alone, as a batch's squared gradient is not the sum of its rows', and its number of labels."""
    for batch in batches:
        for i in range(len(batch["labels"])):
            row = {name: value[i : i + 1].to(device) for name, value in batch.items()}
            labels = row["labels"]
            num_labels = int((labels[:, 1:] != -100).sum()) if labels.dim() > 1 else 1
            if num_labels:
                yield row, num_labels
