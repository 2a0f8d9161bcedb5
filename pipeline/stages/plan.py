"""The settings of a run's state machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.dedup.encoder import Encoder
from pipeline.engines.base import Sampling
from pipeline.stages.quality import QualityFilter
from pipeline.stages.screen import ScreenLimits
from pipeline.stages.validate import ValidateLimits


@dataclass(frozen=True)
class Plan:
    """What the state machine needs to know of the options and of the engine."""

    model: str
    variant: str
    seed: int
    round: int
    can_score: bool
    structured: bool
    style: str
    answer_style: str
    num_human: int
    num_machine: int
    num_proposals: int
    classification_frac: float
    evolve_frac: float
    prime: bool
    max_shown: int
    num_instances: int
    max_labels: int
    input_decision: str
    max_proposals: int
    min_judge_score: float
    quality: QualityFilter | None
    rouge_threshold: float
    embedding_threshold: float
    encoder: Encoder
    min_relevance: float
    classification_margin: float
    min_plausibility: float
    max_surprisal: float
    prompt_reuse: int
    sampling: Mapping[str, Sampling]
    screen: ScreenLimits = field(default_factory=ScreenLimits)
    validate: ValidateLimits = field(default_factory=ValidateLimits)

    @property
    def compares(self) -> bool:
        """Whether tasks are classified by comparing likelihoods in two lists instead of by asking."""
        return self.can_score and self.style == "completion"
