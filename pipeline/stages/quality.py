"""A classifier that `pipeline.sft --task classify` trained, as the last test of an example."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records import Drop, read_text

LOW = "low_quality"
GOOD = ("good", "1", "true", "yes", "high", "keep")  # names of the class that is wanted
_TRAIN = "python -m pipeline.sft DATA --task classify trains one."


class QualityFilter:
    """Drops examples whose probability of the class `label` is below `least`.

    `label` "": the model's only class with a name of GOOD. Nothing is loaded before the first example.
    Raises PipelineError where `run` holds no classifier with that class.
    """

    def __init__(self, run: str, label: str, least: float) -> None:
        path = Path(run)
        self.run, self.least = path, least
        known = json.loads(read_text(path / "run.json")).get("classes") if (path / "DONE").exists() else None
        if not known:
            problem = "this is no finished run of a classifier"
            raise PipelineError(f"--quality-model {run}", problem, _TRAIN)
        found = [label] if label else [name for name in known if name.casefold() in GOOD]
        if len(found) != 1 or found[0] not in known:
            problem = f"got '{label}'" if label else "it is not plain which class is wanted"
            problem += f", expected one of {', '.join(known)}"
            raise PipelineError("--quality-label", problem, "Name the class to keep.")
        self.label = found[0]

    def score(self, instruction: str, input: str, output: str) -> float:
        """The probability of the wanted class, in [0, 1]."""
        from pipeline.train.classifier import classifier

        model = classifier(self.run)
        return model.probabilities((instruction, input, output))[self.label]

    def verdict(self, score: float) -> Drop | None:
        """Drop what scores too little."""
        if score >= self.least:
            return None
        return Drop(LOW, f"'{self.label}' {score:.3f} < {self.least:g}")
