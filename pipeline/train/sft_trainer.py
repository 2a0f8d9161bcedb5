"""TRL's SFTTrainer with what it lacks."""

from __future__ import annotations

from trl import SFTTrainer

from pipeline.train.tuned_trainer import TunedTrainer


class Trainer(TunedTrainer, SFTTrainer):
    """Trains rows that are tokenised and labelled."""
