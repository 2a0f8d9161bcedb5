"""What `python -m pipeline.sft --task classify` does: a sequence classifier with any tuning method."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.lines import LineFile
from pipeline.train import adapters, labelled
from pipeline.train.job import Job
from pipeline.train.outcome import training_facts
from pipeline.train.policy import policy
from pipeline.train.sft_options import Options, refuse_options_of

METRICS = ("accuracy", "precision", "recall", "f1")


class ClassifyJob(Job):
    """Tells classes of texts apart."""

    command = "sft"
    data: labelled.LabelledData
    tokenizer: Any

    @classmethod
    def config_class(cls, options: Options) -> Any:
        """Of transformers."""
        from transformers import TrainingArguments

        return TrainingArguments

    @classmethod
    def check(cls, options: Options) -> None:
        """Refuse options of models that answer."""
        refuse_options_of("causal", options)

    def prepare(self) -> Any:
        """Read and encode the texts; returns the trainer. Raises PipelineError."""
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(self.base)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        data = self.data = labelled.load(self.options, self.given, self.tokenizer)
        self.drop(data.dropped)
        counts = ", ".join(f"{count} {name}" for name, count in data.counts.items())
        for line in (f"data: {self.given.names}; {counts}", *data.said):
            self.display.say(line)
        return self._trainer()

    def _trainer(self) -> Any:
        from datasets import Dataset
        from transformers import DataCollatorWithPadding

        from pipeline.train.classify_trainer import Trainer, metrics

        options, data = self.options, self.data
        names = dict(enumerate(data.classes))
        head = {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: number for number, name in names.items()},
            "pad_token_id": self.tokenizer.pad_token_id,
            "problem_type": "single_label_classification",
        }
        tuned = policy(options, self.machine, self.base, data.train, len(self.tokenizer), head)
        if (known := list(tuned[0].config.id2label.values())) != list(data.classes):
            problem = f"it tells {', '.join(known)} apart, and the data has {', '.join(data.classes)}"
            raise PipelineError(f"--adapter {options.adapter}", problem, "Train it on data with its classes.")
        validation = Dataset.from_list(data.validation) if data.validation else None
        return self.build(
            Trainer,
            tuned,
            Dataset.from_list(data.train),
            validation,
            self.tokenizer,
            fields={},
            data_collator=DataCollatorWithPadding(self.tokenizer),
            compute_metrics=metrics,
        )

    def look(self, trainer: Any) -> dict[str, Any]:
        """Loss, accuracy and macro averages on the held-out texts, and each text's probabilities."""
        if not self.data.validation:
            return {"eval_loss": None, "probabilities": []}
        import torch

        found = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
        scores = torch.tensor(found.predictions).float().softmax(-1)
        return {
            **{f"eval_{name}": found.metrics[f"eval_{name}"] for name in ("loss", *METRICS)},
            "probabilities": [[round(p, 4) for p in row] for row in scores.tolist()],
        }

    def save(self, trainer: Any, model: Any, folder: Path) -> None:
        """With the tokenizer."""
        adapters.save(model, folder)
        self.tokenizer.save_pretrained(folder)

    def report(
        self, trainer: Any, before: dict[str, Any], after: dict[str, Any], seconds: float
    ) -> Sequence[str]:
        """predictions.jsonl and run.json."""
        data, tokens = self.data, trainer.tokens_seen
        facts = training_facts(
            trainer, len(data.train), len(data.validation), len(data.dropped), tokens, seconds
        )
        facts["classes"] = data.counts
        if not data.validation:
            self.target.update(facts)
            return [f"next: python -m pipeline.sft merge {self.folder}"]
        rows = [
            {
                "where": row.where,
                "text": row.text,
                "label": row.label,
                "predicted": data.classes[max(range(len(scores)), key=scores.__getitem__)],
                "probabilities": dict(zip(data.classes, scores, strict=True)),
            }
            for row, scores in zip(data.held_out, after["probabilities"], strict=True)
        ]
        with closing(LineFile(self.folder / "predictions.jsonl", anew=True)) as file:
            file.append(rows)
        by_class = _by_class(data.classes, rows)
        most = max(data.classes, key=lambda name: by_class[name]["rows"])
        majority = by_class[most]["rows"] / len(rows)
        names = ("loss", *METRICS)
        facts |= {
            "held_out": {
                when: {name: found[f"eval_{name}"] for name in names}
                for when, found in (("before", before), ("after", after))
            },
            "eval_loss": {"before": before["eval_loss"], "after": after["eval_loss"]},
            "majority_accuracy": majority,
            "by_class": by_class,
        }
        self.target.update(facts)
        said = [
            f"held-out {name}: {before[f'eval_{name}']:.4f} before, {after[f'eval_{name}']:.4f} after"
            for name in names
        ]
        said.append(
            f"(always '{most}': accuracy {majority:.4f}; precision, recall and F1 are macro averages)"
        )
        return said


def _by_class(classes: Sequence[str], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each class its rows, and what they were taken for."""
    return {
        name: {
            "rows": sum(row["label"] == name for row in rows),
            "taken_for": {
                other: sum(row["label"] == name and row["predicted"] == other for row in rows)
                for other in classes
            },
        }
        for name in classes
    }
