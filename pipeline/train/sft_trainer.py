"""TRL's SFTTrainer with what it lacks."""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer

from pipeline.train.answer_head import score_answers_only
from pipeline.train.targets import plain
from pipeline.train.tuned_trainer import TunedTrainer


class Trainer(TunedTrainer, SFTTrainer):
    """Trains rows that are tokenised and labelled."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        score_answers_only(plain(self.model), ("entropy", "is_top1"))
