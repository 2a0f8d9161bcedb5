"""The options of `python -m pipeline.evaluate` and of its `compare`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.dedup.embedding_options import EmbeddingOptions
from pipeline.engines.options import EngineOptions
from pipeline.judging.options import PAIRWISE, SCALAR

_ASKED, _SCORES, _CLEAN, _AFTER, _RUN = "held-out tasks", "scores", "contamination", "afterwards", "run"
OFF, REPORT, EXCLUDE = "off", "report", "exclude"
JUDGES = (PAIRWISE, SCALAR)


@dataclass(frozen=True)
class TaskOptions:
    """What is evaluated, and on which tasks."""

    target: tuple[str, ...] = option(
        (),
        "run of ours, directory or hub id, or `embedded`; none: the newest finished run that trained a model "
        "which answers, else the embedded model",
        metavar="RUN-or-MODEL",
        positional=True,
        group=_ASKED,
    )
    heldout: tuple[str, ...] = option(
        ("seeds/heldout",),
        "held-out tasks: files, directories or hub datasets in any of our forms, with `verifier` and `tags` "
        "where they have any",
        metavar="PATH",
        group=_ASKED,
    )
    num_tasks: int = option(0, "tasks to take, drawn by the seed; 0: all", unit="tasks", low=0, group=_ASKED)
    max_tokens: int = option(
        256, "longest answer; longer ones are cut off, and count as such", unit="tokens", low=1, group=_ASKED
    )
    temperature: float = option(0.0, "of the answers; 0: greedy", low=0, high=2, group=_ASKED)
    top_p: float = option(1.0, "nucleus", low=0.01, high=1, group=_ASKED)


@dataclass(frozen=True)
class ScoreOptions:
    """How answers are scored, and what makes a held-out task unfit."""

    loss: bool = option(
        True, "score the reference answers: loss and perplexity (embedded and vllm engines)", group=_SCORES
    )
    judges: tuple[str, ...] = option(
        (),
        "models that judge: pairwise compares each answer with the reference, in both orders; scalar rates "
        "it. --judge-model alone means pairwise",
        choices=JUDGES,
        metavar="NAME",
        group=_SCORES,
    )
    judge_model: str = option(
        "", "model that judges; none: the evaluated one itself", metavar="MODEL", group=_SCORES
    )
    prompts: str = option(
        "", "directory whose compare.jinja, rate.jinja and propose files replace those of prompts/",
        metavar="DIR", group=_SCORES,
    )  # fmt: skip
    seeds: tuple[str, ...] = option(
        ("seeds",), "seed tasks that diversity is measured against", metavar="PATH", group=_SCORES
    )
    contamination: str = option(
        REPORT,
        "whether the training data of the run, its bases and adapters included, is searched for the held-out "
        "tasks; exclude: those that are found are not scored",
        choices=(OFF, REPORT, EXCLUDE),
        group=_CLEAN,
    )
    contamination_ngram: int = option(
        13, "words in a row that give a held-out task away; 0: off", unit="words", low=0, group=_CLEAN
    )
    contamination_rouge: float = option(
        0.7, "ROUGE-L F with a trained request above which one is given away; 1: off", low=0, high=1,
        group=_CLEAN,
    )  # fmt: skip
    contamination_embedding: float = option(
        0.9, "cosine with a trained request above which one is given away; 1: off", low=0, high=1,
        group=_CLEAN,
    )  # fmt: skip


@dataclass(frozen=True)
class Options(EngineOptions, TaskOptions, ScoreOptions, EmbeddingOptions):
    """Every option of the command, as a flag and as a YAML key."""

    suggest_seeds: str = option(
        "",
        "file for candidates of new seeds of the kinds that failed most: instructions that the model (or the "
        "judge's) proposes from seeds of that kind, never from held-out tasks; a person writes the outputs",
        metavar="FILE",
        group=_AFTER,
    )
    num_suggestions: int = option(12, "requests for such candidates", low=1, high=200, group=_AFTER)
    lm_eval: tuple[str, ...] = option(
        (),
        "tasks of lm-evaluation-harness to run on the checkpoint (pip install .[lm-eval])",
        metavar="TASK",
        group=_AFTER,
    )
    lm_eval_path: str = option("", "directory of its task files (YAML)", metavar="DIR", group=_AFTER)
    lm_eval_limit: int = option(0, "rows of each of its tasks; 0: all", unit="rows", low=0, group=_AFTER)
    run: str = option("", "run directory; none: the next free runs/evaluate-NNN", metavar="DIR", group=_RUN)
    seed: int = option(0, "random seed", low=0, group=_RUN)
    resume: bool = option(
        False, "go on with an interrupted run (of --run, else the newest unfinished one)", group=_RUN
    )
    overwrite: bool = option(False, "start anew in a used run directory", group=_RUN)


@dataclass(frozen=True)
class CompareOptions:
    """Every option of `python -m pipeline.evaluate compare`."""

    runs: tuple[str, ...] = option(
        (),
        "two or more finished runs of pipeline.evaluate on the same tasks; the first is what the others are "
        "compared with",
        metavar="RUN",
        positional=True,
    )
    resamples: int = option(10000, "draws of the bootstrap", unit="draws", low=100)
    seed: int = option(0, "random seed of the bootstrap", low=0)
    out: str = option("", "file that the comparison is written to as JSON", metavar="FILE")
