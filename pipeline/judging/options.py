"""The options of `python -m pipeline.preferences`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.engines.options import EngineOptions

_PROMPTS, _ANSWERS, _JUDGES, _PAIRS, _RUN = "prompts", "answers", "judges", "pairs", "run"
CHECKS, PAIRWISE, SCALAR, REWARD, HUMAN = "checks", "pairwise", "scalar", "reward", "human"
JUDGES = (CHECKS, PAIRWISE, SCALAR, REWARD, HUMAN)
STRATEGIES = ("best-worst", "best-random", "margin")
EXPORTS = ("kto", "ultrafeedback", "sharegpt")


@dataclass(frozen=True)
class AnswerOptions:
    """What is asked, and who answers."""

    data: tuple[str, ...] = option(
        (),
        "JSONL, JSON, Parquet, directories, seeds, runs of ours or hub datasets (owner/name:config:split) "
        "with a prompt, an instruction or a conversation in each row; none: the newest finished dataset",
        metavar="PROMPTS",
        positional=True,
        group=_PROMPTS,
    )
    num_prompts: int = option(
        0, "prompts to take, drawn by the seed; 0: all", unit="prompts", low=0, group=_PROMPTS
    )
    constraints: int = option(
        0,
        "checkable constraints (at most 40 words, no commas, ...) added to each prompt that has none of its "
        "own, from 1 to this many; 0: none",
        unit="constraints",
        low=0,
        high=3,
        group=_PROMPTS,
    )
    copies: int = option(
        1, "times that each prompt is taken, with other --constraints", unit="times", low=1, group=_PROMPTS
    )
    bad_rows: str = option(
        "refuse",
        "what becomes of rows without a usable prompt; drop: they go to dropped.jsonl with the reason",
        choices=("refuse", "drop"),
        group=_PROMPTS,
    )
    num_answers: int = option(
        4, "answers drawn for each prompt, those that it brings apart", unit="answers", low=0, high=64,
        group=_ANSWERS,
    )  # fmt: skip
    other_models: tuple[str, ...] = option(
        (), "models that answer in turn with --model (UltraFeedback's idea)", metavar="MODEL", group=_ANSWERS
    )
    temperatures: tuple[float, ...] = option(
        (0.8,), "sampling temperatures, in turn", metavar="T", low=0, high=2, group=_ANSWERS
    )
    top_p: float = option(0.95, "nucleus", low=0.01, high=1, group=_ANSWERS)
    max_tokens: int = option(
        256, "longest answer; longer ones are dropped as truncated", unit="tokens", low=1, group=_ANSWERS
    )
    reference_answer: bool = option(
        False, "let the answer that a row brings compete with those drawn", group=_ANSWERS
    )
    max_similarity: float = option(
        0.9, "ROUGE-L F with an earlier answer to the same prompt above which one is dropped", low=0, high=1,
        group=_ANSWERS,
    )  # fmt: skip


@dataclass(frozen=True)
class JudgeOptions:
    """Who says which answer is better."""

    judges: tuple[str, ...] = option(
        (),
        "checks (constraints, maths, code: what a prompt's verifier says), pairwise and scalar (a model with "
        "a rubric), reward (a reward model), human (scores or ranks in the rows). The first that tells a "
        "prompt's answers apart decides on it, all are compared. None: checks if any prompt has a verifier, "
        "human if any has ranks, else pairwise",
        choices=JUDGES,
        metavar="NAME",
        group=_JUDGES,
    )
    judge_model: str = option(
        "", "model that judges (pairwise, scalar); none: --model itself", metavar="MODEL", group=_JUDGES
    )
    reward_model: str = option(
        "", "run of pipeline.reward, or directory or hub id of a reward model", metavar="MODEL", group=_JUDGES
    )
    prompts: str = option(
        "", "directory whose compare.jinja and rate.jinja replace those of prompts/", metavar="DIR",
        group=_JUDGES,
    )  # fmt: skip


@dataclass(frozen=True)
class Options(EngineOptions, AnswerOptions, JudgeOptions):
    """Every option of the command, as a flag and as a YAML key."""

    pairs: str = option(
        "best-worst",
        "best-worst: the best with the worst, the second best with the second worst, ...; best-random: the "
        "best with others by chance; margin: all pairs, the largest margins first",
        choices=STRATEGIES,
        group=_PAIRS,
    )
    max_pairs: int = option(1, "pairs of a prompt at most", unit="pairs", low=1, group=_PAIRS)
    min_margin: float = option(
        0.0, "smallest difference of scores in a pair (a difference there must be)", low=0, group=_PAIRS
    )
    keep_ties: bool = option(
        False, "pair answers by their other comparisons where the two themselves were a tie", group=_PAIRS
    )
    max_length_ratio: float = option(
        0.0, "longer over shorter answer, in words, that a pair may have; 0: any", low=0, group=_PAIRS
    )
    min_best: float = option(
        0.0, "score from which on the best answer goes into best_of_n.jsonl", group=_PAIRS
    )
    export: tuple[str, ...] = option(
        (), "further shapes of the pairs to write", choices=EXPORTS, metavar="SHAPE", group=_PAIRS
    )
    run: str = option(
        "", "run directory; none: the next free runs/preferences-NNN", metavar="DIR", group=_RUN
    )
    seed: int = option(0, "random seed", low=0, group=_RUN)
    resume: bool = option(
        False, "go on with an interrupted run (of --run, else the newest unfinished one)", group=_RUN
    )
    overwrite: bool = option(False, "start anew in a used run directory", group=_RUN)
