"""The options of `python -m pipeline.selfinstruct`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.dedup.embedding_options import EmbeddingOptions
from pipeline.engines.options import EngineOptions
from pipeline.stages.run_options import RunOptions

_PROMPTS, _PROPOSE, _FILTER = "prompts", "propose", "filter"
_INSTANCE = "instantiate and validate"


@dataclass(frozen=True)
class Options(EngineOptions, EmbeddingOptions, RunOptions):
    """Every option of the command, as a flag and as a YAML key."""

    style: str = option(
        "auto",
        "prompts for the writing stages: text to continue, or chat messages",
        choices=("auto", "completion", "chat"),
        group=_PROMPTS,
    )
    answer_style: str = option(
        "auto", "the same for the answers", choices=("auto", "completion", "chat"), group=_PROMPTS
    )
    structured: bool = option(
        True,
        "have labels, verdicts and scores written as JSON where an engine follows a schema (chat style)",
        group=_PROMPTS,
    )
    prompts: str = option(
        "", "directory whose files replace those of prompts/", metavar="DIR", group=_PROMPTS
    )

    variant: str = option(
        "self-instruct",
        "propose instructions and work them out stage by stage, or whole examples at once (Alpaca)",
        choices=("self-instruct", "alpaca"),
        group=_PROPOSE,
    )
    num_human: int = option(
        6, "seed instructions shown per proposal", unit="instructions", low=1, high=64, group=_PROPOSE
    )
    num_machine: int = option(
        2,
        "machine-written instructions shown per proposal",
        unit="instructions",
        low=0,
        high=64,
        group=_PROPOSE,
    )
    num_proposals: int = option(
        1, "new instructions asked for per proposal", unit="instructions", low=1, high=64, group=_PROPOSE
    )
    classification_frac: float = option(
        0.1, "share of proposals that ask for classification tasks", low=0, high=1, group=_PROPOSE
    )
    evolve_frac: float = option(
        0.0,
        "share of proposals that make a harder or a rarer one of an instruction (seed or machine-written) "
        "instead of a new one",
        low=0,
        high=1,
        group=_PROPOSE,
    )
    prime: bool = option(True, "give each proposal a first word (completion style only)", group=_PROPOSE)
    prompt_reuse: int = option(
        4,
        "proposals that show the same instructions (with other first words); the engine computes "
        "what they share once",
        unit="proposals",
        low=1,
        high=1024,
        group=_PROPOSE,
    )
    max_shown: int = option(
        20,
        "longest seed instruction shown to the model",
        unit="words (zh: twice as many characters)",
        low=4,
        group=_PROPOSE,
    )
    max_proposals: int = option(
        0,
        "proposals per language before giving up; 0: 12 per wanted example",
        unit="requests",
        low=0,
        group=_PROPOSE,
    )
    propose_temperature: float = option(
        0.7, "sampling temperature of proposals", low=0, high=2, group=_PROPOSE
    )
    propose_top_p: float = option(0.9, "nucleus of proposals", low=0.01, high=1, group=_PROPOSE)
    propose_max_tokens: int = option(64, "longest proposal answer", unit="tokens", low=8, group=_PROPOSE)

    min_words: int = option(4, "shortest instruction", unit="words (zh: characters)", low=1, group=_FILTER)
    max_words: int = option(60, "longest instruction", unit="words (zh: characters)", low=1, group=_FILTER)
    rouge_threshold: float = option(
        0.7, "highest ROUGE-L F against any admitted instruction or seed", low=0, high=1, group=_FILTER
    )
    embedding_threshold: float = option(
        0.9, "highest cosine of sentence embeddings; 1 switches them off", low=0, high=1, group=_FILTER
    )
    heldout: tuple[str, ...] = option(
        (),
        "held-out texts that nothing made may give away: files, directories or hub datasets "
        "(owner/name:config:split)",
        metavar="PATH",
        group=_FILTER,
    )
    heldout_ngram: int = option(
        13,
        "words in a row that an instruction or example must not share with a held-out text; 0: only "
        "ROUGE-L of instructions is compared",
        unit="words (zh: jieba words)",
        low=0,
        high=1000,
        group=_FILTER,
    )

    num_instances: int = option(
        1, "instances per open task", unit="instances", low=1, high=16, group=_INSTANCE
    )
    max_labels: int = option(
        3,
        "labels of a classification task that get an input each",
        unit="labels",
        low=1,
        high=16,
        group=_INSTANCE,
    )
    input_decision: str = option(
        "auto",
        "who says whether a task needs an input: its wording (rule) or the model",
        choices=("auto", "rule", "model"),
        group=_INSTANCE,
    )
    input_temperature: float = option(0.7, "sampling temperature of inputs", low=0, high=2, group=_INSTANCE)
    input_top_p: float = option(0.9, "nucleus of inputs", low=0.01, high=1, group=_INSTANCE)
    input_max_tokens: int = option(120, "longest input", unit="tokens", low=8, group=_INSTANCE)
    answer_temperature: float = option(0.3, "sampling temperature of answers", low=0, high=2, group=_INSTANCE)
    answer_top_p: float = option(0.9, "nucleus of answers", low=0.01, high=1, group=_INSTANCE)
    answer_frequency_penalty: float = option(
        0.3, "taken off a token's logit per earlier use in the answer", low=0, high=2, group=_INSTANCE
    )
    answer_max_tokens: int = option(
        200, "longest answer; longer ones are dropped as truncated", unit="tokens", low=8, group=_INSTANCE
    )
    min_output: int = option(1, "shortest output", unit="words (zh: characters)", low=1, group=_INSTANCE)
    max_output: int = option(400, "longest output", unit="words (zh: characters)", low=1, group=_INSTANCE)
    classification_margin: float = option(
        6.0,
        "by how much a task must be likelier in a list of classification tasks than of open ones",
        unit="nats",
        low=0,
        group=_FILTER,
    )
    min_plausibility: float = option(
        -3.2,
        "lowest mean log-likelihood of an English instruction in either list; 0 asks none",
        unit="nats per word",
        high=0,
        group=_FILTER,
    )
    max_surprisal: float = option(
        0.0,
        "highest surprisal of an English instruction in the likelier list, 2.5 times that if it was "
        "evolved; 0: 30 for the embedded model, no limit for others",
        unit="nats",
        low=0,
        group=_FILTER,
    )
    min_relevance: float = option(
        0.45,
        "lowest cosine between the embeddings of request and answer; 0 asks none",
        low=0,
        high=1,
        group=_INSTANCE,
    )
    quality_model: str = option(
        "",
        "run of pipeline.sft --task classify whose classifier tells good examples from bad ones",
        metavar="RUN",
        group=_INSTANCE,
    )
    quality_label: str = option(
        "",
        "its class that is wanted; none: the only one called good, 1, true, yes, high or keep",
        metavar="NAME",
        group=_INSTANCE,
    )
    min_quality: float = option(0.5, "lowest probability of that class", low=0, high=1, group=_INSTANCE)
    judge_model: str = option(
        "", "model that scores examples; none: the writer itself", metavar="MODEL", group=_INSTANCE
    )
    min_judge_score: float = option(
        0.0, "lowest score of the judge; 0 asks no judge", unit="1 to 5", low=0, high=5, group=_INSTANCE
    )
