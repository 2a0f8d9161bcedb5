"""What `python -m pipeline.reward` does, once its options are parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.preference_rows import ROW, preferences
from pipeline.format.templates import Encoded
from pipeline.lines import LineFile
from pipeline.records import Preference
from pipeline.train import adapters, calibration, score_check
from pipeline.train.outcome import speed, training_facts
from pipeline.train.pair_job import PairJob
from pipeline.train.pairs import Encodings, cut_begin
from pipeline.train.policy import policy
from pipeline.train.preference_options import RewardOptions

_CHECKED = 8  # pairs whose scores are compared in a batch and alone


class RewardJob(PairJob):
    """Learns to give the better answer the higher score."""

    command = "reward"
    cut = staticmethod(cut_begin)  # the answer's end is what is scored
    # of SFT's rate: LoRA on 240 pairs ranked 68% of held-out ones at 1e-3; 24 steps at 2e-4 showed nothing
    rate = 5.0
    options: RewardOptions

    @classmethod
    def config_class(cls, options: RewardOptions) -> Any:
        """TRL's."""
        from trl import RewardConfig

        return RewardConfig

    def prepare(self) -> Any:
        """Read, prove and audit the rows of both sides, and prove the scores. Raises PipelineError."""
        from pipeline.train.pair_trainers import Reward

        self.facts = self.read_pairs(preferences)
        data, tokenizer = self.data, self.template.tokenizer
        ends = sorted({side.ids[-1] for side in data.sides})
        head = {"num_labels": 1, "pad_token_id": score_check.padding_token(tokenizer, ends)}
        tuned = policy(self.options, self.machine, self.base, self.base_rows(), len(tokenizer), head)
        if tuned[0].config.num_labels != 1:
            problem = f"it has {tuned[0].config.num_labels} outputs, expected the one of a reward model"
            raise PipelineError(
                f"--adapter {self.options.adapter}", problem, "Name a run of pipeline.reward."
            )
        train, validation = (self._dataset(rows) for rows in (data.train, data.validation))
        fields = {
            "max_length": None,
            "per_device_eval_batch_size": 1,
            "disable_dropout": not self.options.dropout,
        }
        trainer = self.build(Reward, tuned, train, validation, tokenizer, fields)
        data.audit.trained = len(data.sides)
        self.audit_pairs(trainer, [_scored(side) for side in data.sides])
        checked = [side for row in [*data.validation, *data.train][:_CHECKED] for side in row.sides]
        worst = score_check.check(trainer, checked, self.machine.precision)
        self.display.say(f"the end of each answer is scored, in a padded batch as alone (within {worst:.2g})")
        self.facts["score_check"] = {"rows": len(checked), "largest_difference": worst}
        return trainer

    def base_rows(self) -> list[dict[str, Any]]:
        """A wanted and an unwanted answer in turn, labelled 1 and 0."""
        found = [(row.sides[number % 2], float(1 - number % 2)) for number, row in enumerate(self.data.train)]
        return [{"input_ids": side.ids, "labels": label} for side, label in found]

    def _dataset(self, rows: Sequence[Encodings[Preference]]) -> Any:
        from datasets import Dataset

        if not rows:
            return None
        scale = self.options.margin_scale
        margin = (lambda row: {"margin": scale * demanded(row.record)}) if scale else lambda row: {}
        return Dataset.from_list(
            [{"chosen_ids": row.sides[0].ids, "rejected_ids": row.sides[1].ids} | margin(row) for row in rows]
        )

    def look(self, trainer: Any) -> dict[str, Any]:
        """The held-out loss and the two scores of every held-out pair."""
        if not self.data.validation:
            return {"eval_loss": None, "scores": []}
        loss = trainer.evaluate()["eval_loss"]
        found = trainer.evaluated  # one pair a batch: its extremes are its scores
        extremes = zip(found["min_reward"], found["max_reward"], found["margin"], strict=True)
        return {
            "eval_loss": loss,
            "scores": [[high, low] if margin > 0 else [low, high] for low, high, margin in extremes],
        }

    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """With the template and the padding token in the tokenizer."""
        adapters.save(model, folder)
        self.template.tokenizer.save_pretrained(folder)

    def report(
        self, trainer: Any, before: dict[str, Any], after: dict[str, Any], seconds: float
    ) -> Sequence[str]:
        """predictions.jsonl, calibration.svg and run.json."""
        data, tokens = self.data, int(trainer._total_train_tokens)
        counts = len(data.train), len(data.validation), len(data.dropped)
        facts = training_facts(trainer, *counts, tokens, seconds) | self.facts
        said = [
            speed(tokens, seconds),
            f"next: python -m pipeline.preferences --judges reward --reward-model {self.folder}",
        ]
        if data.validation:
            found, lines = self._judged(before, after)
            facts, said = facts | found, [*lines, *said]
        self.target.update(facts)
        return said

    def _judged(
        self, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        rows = self.data.validation
        with closing(LineFile(self.folder / "predictions.jsonl", anew=True)) as file:
            file.append([_prediction(row, scores) for row, scores in zip(rows, after["scores"], strict=True)])
        old, new = ([c - r for c, r in look["scores"]] for look in (before, after))
        longer = [len(row.answer_ids(0)) - len(row.answer_ids(1)) for row in rows]
        bins = calibration.reliability(new, self.options.num_bins)
        buckets, error = calibration.by_length(new, longer), calibration.expected_error(bins)
        calibration.draw(bins, buckets, self.folder, f"expected calibration error {error:.3f}")
        was, now = calibration.accuracy(old), calibration.accuracy(new)
        always_longer = calibration.accuracy(longer)
        facts = {
            "eval_loss": {"before": before["eval_loss"], "after": after["eval_loss"]},
            "accuracy": {"before": was.as_json(), "after": now.as_json()},
            "longer_answer_accuracy": always_longer.as_json(),
            "expected_calibration_error": round(error, 4),
            "reliability": [
                {"low": b.low, "high": b.high, "confidence": round(b.confidence, 4)} | b.accuracy.as_json()
                for b in bins
            ],
            "by_length_difference": [{"tokens": b.name} | b.accuracy.as_json() for b in buckets],
        }
        said = [
            f"held-out loss: {before['eval_loss']:.4f} before, {after['eval_loss']:.4f} after",
            calibration.said("accuracy", was, now),
            f"(always the longer answer: {always_longer}; expected calibration error {error:.3f})",
            *(f"  chosen {b.name} tokens: {b.accuracy}" for b in buckets),
        ]
        return facts, said


def demanded(row: Preference) -> float:
    """By how much the row says that its chosen answer is better. Raises PipelineError if it does not say."""
    if row.margin is not None:
        return row.margin
    if row.score_chosen is None or row.score_rejected is None:
        problem = "no 'margin' and no two scores, expected them for --margin-scale"
        raise PipelineError(row.provenance[ROW], problem, "Add them, or leave --margin-scale out.")
    return row.score_chosen - row.score_rejected


def _scored(side: Encoded) -> Encoded:
    """The sequence with what is scored, its last token, as what counts."""
    return Encoded(side.where, side.ids, ((len(side.ids) - 1, len(side.ids)),))


def _prediction(row: Encodings[Preference], scores: Sequence[float]) -> dict[str, Any]:
    record = row.record
    return {
        "where": record.provenance[ROW],
        "prompt": [dict(message) for message in record.prompt],
        "chosen": record.chosen["content"],
        "rejected": record.rejected["content"],
        "score_chosen": round(scores[0], 4),
        "score_rejected": round(scores[1], 4),
        "tokens": [len(row.answer_ids(0)), len(row.answer_ids(1))],
        "right": scores[0] > scores[1],
    }
