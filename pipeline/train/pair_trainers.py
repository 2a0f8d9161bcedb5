"""TRL's trainers on preferences, fed with rows that are tokenised and proved.

Deviations: (1) the reference is what our tuning methods want: the base without the adapter, or the policy as
it was at the beginning, where TRL would copy the adapter; (2) held-out rows are looked at one by one, so that
a figure per row is known and no padding is computed; (3) DPO needs no reference if that is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from trl import DPOTrainer, KTOTrainer, RewardTrainer

from pipeline.records import read_text, to_json
from pipeline.train.answer_head import score_answers_only
from pipeline.train.targets import plain
from pipeline.train.tuned_trainer import TunedTrainer

REFERENCE_FILE = "reference.json"
_TIES = (("rewards/accuracies", "rewards/margins"), ("accuracy", "margin"))  # the metrics' names


class PairTrainer(TunedTrainer):
    """What is common to them; `evaluated` holds the metrics of every held-out row of the last look."""

    evaluated: Mapping[str, list[float]] = {}

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """It is tokenised, which TRL would do otherwise."""
        return dataset

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return SequentialSampler(eval_dataset)

    def lengths(self, rows: Any) -> list[int]:
        """The tokens of the longer side of each row."""
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        columns = [rows[name] if name in rows.column_names else [[]] * len(rows) for name in names]
        return [len(p) + max(len(c), len(r)) for p, c, r in zip(*columns, strict=True)]

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, which forgets the rows' metrics and counts a tie, as all are at the beginning, as lost."""
        if not self.model.training:
            found = self._metrics["eval"]
            for accuracies, margins in _TIES:
                if accuracies in found:
                    found[accuracies] = [
                        0.5 * (margin > 0) + 0.5 * (margin >= 0) for margin in found[margins]
                    ]
            self.evaluated = {name: list(values) for name, values in found.items()}
        super().log(logs, start_time)

    def fed(self: Any, rows: Any, batch_size: int = 8) -> Iterator[dict[str, list[int]]]:
        """What the model is given of `rows`: each sequence without its padding, and its labels (T,)."""
        for begin in range(0, len(rows), batch_size):
            part = [rows[number] for number in range(begin, min(begin + batch_size, len(rows)))]
            for ids, mask, counts in zip(*self.sequences(self.data_collator(part)), strict=True):
                kept, counts = ids[mask.bool()], counts[mask.bool()].bool()
                yield {"input_ids": kept.tolist(), "labels": kept.masked_fill(~counts, -100).tolist()}

    def sequences(self, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Of a batch the ids (B, T), the mask of what is no padding, and the mask of what the loss reads."""
        return batch["input_ids"], batch["attention_mask"], batch["completion_mask"]


class Reward(PairTrainer, RewardTrainer):
    """Bradley-Terry on the score of the last token that is no padding."""

    def sequences(self: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """The model looks for padding by its id: the last other token is scored."""
        ids = batch["input_ids"]
        places = torch.arange(ids.shape[1]).expand_as(ids)
        last = places.masked_fill(ids == self.model.config.get_text_config().pad_token_id, 0).amax(1)
        return ids, batch["attention_mask"], places == last[:, None]


@dataclass(frozen=True)
class Reference:
    """What the policy is compared with.

    `of`: "base", the model without its adapter; "start", the model as it is before training; "none". `model`
    is a copy to be run at every step, None where the log-probabilities are computed once or the adapter is
    switched off.
    """

    of: str
    folder: Path
    progress: Callable[[int, int], None]
    model: Any = None


class _Nobody(torch.nn.Module):
    """Stands where TRL wants a reference model, so that it makes none."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


class ReferencedTrainer(PairTrainer):
    """Compares with a reference; its log-probabilities become `columns` of the rows."""

    columns: tuple[str, ...]

    def __init__(self: Any, *, reference: Reference, model: Any, **kwargs: Any) -> None:
        self._reference = reference
        super().__init__(model=model, ref_model=reference.model or _Nobody(model.config), **kwargs)
        if reference.model is None:
            self.ref_model = None
        # the Trainer prepares the policy (for bf16) to look at it before training only if this is empty
        self.accelerator._models.clear()
        logged = ("entropy", "mean_logits", "is_top1")
        wanted = (*logged, "log_sum_sq_probs") if getattr(self, "use_weighting", False) else logged
        score_answers_only(plain(self.model), wanted)
        if self.ref_model is not None:
            score_answers_only(self.ref_model, wanted)
        if self.args.precompute_ref_log_probs:
            self.train_dataset = self._compared(self.train_dataset, "train", self.args.train_batch_size)
            if self.eval_dataset is not None:
                self.eval_dataset = self._compared(self.eval_dataset, "eval", self.args.eval_batch_size)

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        """Not yet: TRL does this before the head is in place."""
        return dataset

    def _compared(self: Any, dataset: Any, name: str, batch_size: int) -> Any:
        """The rows with the reference's numbers; what is known from before an interruption is read."""
        path = self._reference.folder / REFERENCE_FILE
        known = dict(json.loads(read_text(path))) if path.is_file() else {}
        if name not in known:
            found = self._log_probabilities(dataset, batch_size)
            known[name] = dict(zip(self.columns, found, strict=False))
            path.with_suffix(".part").write_text(to_json(known), encoding="utf-8")
            path.with_suffix(".part").replace(path)
        for column, values in known[name].items():
            dataset = dataset.add_column(column, values)
        return dataset

    def _log_probabilities(self: Any, dataset: Any, batch_size: int) -> list[list[float]]:
        """For each column one number a row."""
        if self._reference.of == "none":
            return [[0.0] * len(dataset) for _ in self.columns]
        # TRL switches adapters off where there is no reference model
        kept, self.ref_model = self.ref_model, None if self._reference.of == "base" else self.model
        lengths, found = self.lengths(dataset), dict[int, list[float]]()
        order = sorted(range(len(dataset)), key=lengths.__getitem__)
        training = self.model.training
        self.model.eval()
        for begin in range(0, len(order), batch_size):
            part = order[begin : begin + batch_size]
            batch = self._prepare_inputs(self.data_collator([dataset[number] for number in part]))
            values = [v for v in self.compute_ref_log_probs(self.model, batch) if v is not None]
            for place, number in enumerate(part):
                found[number] = [float(value[place]) for value in values]
            self._reference.progress(len(found), len(order))
        self.model.train(training)
        self.ref_model = kept
        return [list(column) for column in zip(*(found[number] for number in range(len(order))), strict=True)]


class DPO(ReferencedTrainer, DPOTrainer):  # type: ignore[misc] # None is a reference model, too
    """Pairs."""

    columns = ("ref_chosen_logps", "ref_rejected_logps")


class KTO(ReferencedTrainer, KTOTrainer):  # type: ignore[misc]
    """Single answers, in the order of the rows: the KL term pairs each prompt with its neighbour's answer."""

    columns = ("ref_logps", "ref_KL_logps")

    def lengths(self, rows: Any) -> list[int]:
        """The tokens of each row."""
        return [len(p) + len(c) for p, c in zip(rows["prompt_ids"], rows["completion_ids"], strict=True)]
