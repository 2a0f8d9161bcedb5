"""What `python -m pipeline.dpo` does, once its options are parsed."""

from __future__ import annotations

import copy
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.preference_rows import preferences, rated
from pipeline.train import adapters, calibration, pair_rows, trained
from pipeline.train.answers import answer
from pipeline.train.curves import draw_rewards
from pipeline.train.losses import DPO, KTO, LOSSES, ORPO, smoothing, trainer_of
from pipeline.train.outcome import report_answers, speed, training_facts
from pipeline.train.pair_job import PairJob
from pipeline.train.pairs import Encodings, held_out
from pipeline.train.policy import policy
from pipeline.train.preference_options import DPOOptions


class DPOJob(PairJob):
    """Makes a policy prefer what was preferred."""

    command = "dpo"
    # of SFT's rate; on 240 pairs LoRA at half of it (1e-4) had learnt nothing after 19 steps
    rate = 1.0
    options: DPOOptions

    @classmethod
    def completed(cls, options: Any, root: Path) -> Any:
        """The newest preferences, and the newest model of pipeline.sft. Raises PipelineError."""
        options = super().completed(options, root)
        if options.model or options.adapter:
            return options
        newest = trained.newest(root, "sft")
        return replace(options, model=str(newest)) if newest else options

    @classmethod
    def config_class(cls, options: DPOOptions) -> Any:
        """TRL's, by the loss."""
        kind = trainer_of(options.loss)
        if kind == ORPO:
            return _orpo().ORPOConfig
        import trl

        return trl.KTOConfig if kind == KTO else trl.DPOConfig

    @classmethod
    def check(cls, options: DPOOptions) -> None:
        """Refuse what does not fit together. Raises PipelineError."""
        super().check(options)
        smoothing(options.loss, options.label_smoothing)
        anchored = [name for name in options.loss if LOSSES[name].anchored]
        if options.reference_free and anchored:
            problem = f"--loss {anchored[0]} compares each answer with the reference"
            raise PipelineError("--reference-free", problem, "Leave it out, or choose another loss.")
        if options.reference_free and trainer_of(options.loss) == ORPO:
            raise PipelineError("--reference-free", "orpo has no reference anyway", "Leave it out.")
        if not options.precompute_reference and (options.adapter or options.tuning == "pissa"):
            problem = "the policy of the beginning is kept nowhere to be run at every step"
            raise PipelineError("--no-precompute-reference", problem, "Leave it out.")
        if not options.precompute_reference and options.reference_free:
            raise PipelineError("--no-precompute-reference", "there is no reference", "Leave it out.")

    def prepare(self) -> Any:
        """Read, prove and audit the rows of both sides. Raises PipelineError."""
        self.display.say(f"policy: {self.options.model or 'the embedded model'} ({self.base})")
        self.kind = trainer_of(self.options.loss)
        self.facts = self.read_pairs(rated if self.kind == KTO else preferences)
        if self.kind == KTO:  # TRL trains in the order of the rows
            random.Random(self.options.seed).shuffle(self.data.train)
        trainer = self._trainer()
        self.audit_pairs(trainer, self.data.sides)
        self.ends = sorted({side.ids[-1] for side in self.data.sides} & self.template.ends)
        return trainer

    def _trainer(self) -> Any:
        from datasets import Dataset

        data, tokenizer = self.data, self.template.tokenizer
        tuned = policy(self.options, self.machine, self.base, self.base_rows(), len(tokenizer))
        train, validation = (
            Dataset.from_list(self._rows(rows)) if rows else None for rows in (data.train, data.validation)
        )
        if self.kind == ORPO:
            return self.build(_orpo().ORPO, tuned, train, validation, tokenizer, self._fields())
        from pipeline.train import pair_trainers

        kind = pair_trainers.KTO if self.kind == KTO else pair_trainers.DPO
        reference = self._reference(tuned[0])
        return self.build(kind, tuned, train, validation, tokenizer, self._fields(), reference=reference)

    def _reference(self, model: Any) -> Any:
        from peft import PeftModel

        from pipeline.train.pair_trainers import Reference

        options = self.options
        adapted = isinstance(model, PeftModel) and options.tuning != "pissa" and not options.adapter
        of = "none" if options.reference_free else "base" if adapted else "start"
        kept = None if options.precompute_reference or adapted else copy.deepcopy(model).requires_grad_(False)
        said = {
            "none": "none",
            "base": "the model without its adapter",
            "start": "the policy as it is before training",
        }
        when = "computed once" if options.precompute_reference else "run at every step"
        self.display.say(f"reference: {said[of]}{'' if of == 'none' else ', ' + when}")
        self.facts["reference"] = of

        return Reference(of, self.folder, self._progress, kept)

    def _progress(self, done: int, whole: int) -> None:
        """A bar, and elsewhere about ten lines."""
        self.display.bar("reference", done, whole)
        if done * 10 // whole > (done - self._batch) * 10 // whole:
            self.display.step(f"reference: {done} of {whole} rows")

    def _fields(self) -> dict[str, Any]:
        """What this command decides of TRL's configuration."""
        options = self.options
        fields: dict[str, Any] = {
            "beta": options.beta,
            "max_length": None if self.kind != ORPO else options.max_length,
            "per_device_train_batch_size": self._batch,
            "per_device_eval_batch_size": self._batch if self.kind == KTO else 1,
            "precompute_ref_log_probs": options.precompute_reference,
            "disable_dropout": not options.dropout,
            "remove_unused_columns": self.kind != ORPO,
        }
        if self.kind == KTO:
            fields["train_sampling_strategy"] = "sequential"
        losses = list(options.loss)
        fields["loss_type"] = losses[0] if self.kind == KTO else losses
        return fields | {"label_smoothing": smoothing(losses, options.label_smoothing)}

    @property
    def _batch(self) -> int:
        """Rows of a batch: a pair is two of KTO's."""
        return self.options.batch_size * (2 if self.kind == KTO else 1)

    def _rows(self, rows: Sequence[Encodings[Any]]) -> list[dict[str, Any]]:
        if self.kind == KTO:
            return pair_rows.for_kto(rows, self._batch)
        return pair_rows.for_orpo(rows) if self.kind == ORPO else pair_rows.for_dpo(rows)

    def look(self, trainer: Any) -> dict[str, Any]:
        """The held-out loss, every held-out pair's margin, and answers to held-out prompts."""
        asked = held_out(self.data.validation, self.options.num_answers)
        model = trainer.accelerator.unwrap_model(trainer.model)
        found: dict[str, Any] = {"eval_loss": None, "margins": []}
        if self.data.validation:
            found["eval_loss"] = trainer.evaluate()["eval_loss"]
            found["margins"] = list(trainer.evaluated.get("rewards/margins", ()))
        said = answer(model, self.template, asked, self.ends, self.options.max_new_tokens) if asked else []
        return found | {"answers": [asdict(one) for one in said]}

    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """With the template in the tokenizer and the end tokens in the generation configuration."""
        model.generation_config.eos_token_id = list(self.ends)
        adapters.save(model, folder)
        self.template.tokenizer.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)

    def report(
        self, trainer: Any, before: dict[str, Any], after: dict[str, Any], seconds: float
    ) -> Sequence[str]:
        """answers.jsonl, rewards.svg and run.json."""
        data, tokens = self.data, int(trainer._total_train_tokens)
        counts = len(data.train), len(data.validation), len(data.dropped)
        facts = training_facts(trainer, *counts, tokens, seconds) | self.facts
        answered, said = report_answers(self.target, held_out(data.validation, 10**6), before, after)
        said += ending(answered["answers_stopped"], self.options.loss)
        facts |= answered | {"eval_loss": {"before": before["eval_loss"], "after": after["eval_loss"]}}
        if data.validation:
            said.append(f"held-out loss: {before['eval_loss']:.4f} before, {after['eval_loss']:.4f} after")
        if after["margins"]:
            means = [statistics.fmean(found["margins"]) for found in (before, after)]
            facts["margin"] = {"before": round(means[0], 4), "after": round(means[1], 4)}
            said.append(f"held-out reward margin: {means[0]:.4f} before, {means[1]:.4f} after")
        if after["margins"] and self.kind != KTO:  # there a margin is a batch's
            old, new = (calibration.accuracy(look["margins"]) for look in (before, after))
            facts["reward_accuracy"] = {"before": old.as_json(), "after": new.as_json()}
            said.append(calibration.said("reward accuracy", old, new))
        self.target.update(facts)
        draw_rewards(self.folder / "metrics.jsonl", self.folder)
        return [*said, speed(tokens, seconds), f"next: python -m pipeline.dpo chat {self.folder}"]


def ending(stopped: Mapping[str, int], loss: Sequence[str]) -> list[str]:
    """What to say if fewer answers end by themselves than before: the end token of both sides lost weight."""
    if stopped["after"] >= stopped["before"] or "sft" in loss or trainer_of(loss) != DPO:
        return []
    way = f'--loss {" ".join(loss)} sft --trainer.loss_weights "{[1.0] * len(loss) + [0.5]}"'
    return [f"note: fewer answers end by themselves than before; {way} holds on to the end token"]


def _orpo() -> Any:
    """Our ORPO trainer; importing what TRL counts as experimental it says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pipeline.train import orpo_trainer
    return orpo_trainer
