"""The options of `python -m pipeline.loop`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option

_ROUNDS, _DATA, _GUARDS, _RUN = "rounds", "data of a round", "guards", "run"
GENERATE, LAST = "selfinstruct", "evaluate"
TRAINED = ("sft", "reward", "dpo", "grpo", "ppo")
STAGES = (GENERATE, "sft", "preferences", "reward", "dpo", "grpo", "ppo", LAST)
POLICY, TEACHER, MIXTURE = "policy", "teacher", "mixture"


@dataclass(frozen=True)
class RoundOptions:
    """What a round does."""

    recipe: str = option(
        "",
        "file of these options with a section for each stage's own (selfinstruct: {num_examples: 100}), or "
        "the name of one of pipeline/recipes",
        metavar="NAME-or-FILE",
        group=_ROUNDS,
    )
    rounds: int = option(2, "rounds of generate, filter, train, evaluate", low=1, group=_ROUNDS)
    stages: tuple[str, ...] = option(
        (GENERATE, "sft", "preferences", "dpo", LAST),
        "what a round runs, in the order in which they are named here",
        choices=STAGES,
        metavar="STAGE",
        group=_ROUNDS,
    )
    set: tuple[str, ...] = option(
        (),
        "options of the stages' own commands, as STAGE.OPTION=VALUE (sft.num_epochs=2 dpo.loss=[ipo]); "
        "teacher.* are those of selfinstruct where the teacher writes",
        metavar="STAGE.OPTION=VALUE",
        group=_ROUNDS,
    )
    model: str = option(
        "",
        "where the first round begins: run of ours, directory or hub id; none: the embedded model",
        metavar="MODEL",
        group=_ROUNDS,
    )
    start: str = option(
        "policy",
        "what a later round's training begins with: the last good policy, or --model again",
        choices=("policy", "model"),
        group=_ROUNDS,
    )
    evaluate: str = option(
        "last",
        "which models of a round are evaluated: the last one, or every one that was trained",
        choices=("last", "every"),
        group=_ROUNDS,
    )


@dataclass(frozen=True)
class DataOptions:
    """What the rounds are trained on."""

    seeds: tuple[str, ...] = option(
        ("seeds",), "seed tasks: directories or files", metavar="PATH", group=_DATA
    )
    heldout: tuple[str, ...] = option(
        ("seeds/heldout",),
        "held-out tasks: every model is evaluated on them, and nothing that is made may give them away",
        metavar="PATH",
        group=_DATA,
    )
    generator: str = option(
        POLICY,
        "who writes the data: the policy as it is (--model at first), a fixed teacher, or both",
        choices=(POLICY, TEACHER, MIXTURE),
        group=_DATA,
    )
    teacher: str = option("", "the teacher's model", metavar="MODEL", group=_DATA)
    teacher_frac: float = option(
        0.5, "the teacher's share of the examples of a mixture", low=0.01, high=0.99, group=_DATA
    )
    train_on_seeds: bool = option(True, "the seed tasks are trained on in every round", group=_DATA)
    replay_frac: float = option(
        0.3, "share of earlier rounds' examples in the rows of a later one", low=0, high=0.9, group=_DATA
    )
    evolve_frac: float = option(
        0.3,
        "share of the proposals that evolve an instruction, from the second round on (selfinstruct's "
        "--evolve-frac)",
        low=0,
        high=1,
        group=_DATA,
    )
    max_growth: float = option(
        3.0,
        "examples of a round at most, in times of the seeds and the examples of the rounds before",
        low=0.01,
        group=_DATA,
    )


@dataclass(frozen=True)
class GuardOptions:
    """When a round is rejected, and the last good policy kept."""

    min_yield: float = option(
        0.25, "examples kept over examples wanted, below which it is", low=0, high=1, group=_GUARDS
    )
    max_fall: float = option(
        0.2,
        "share of the instructions' diversity that may be lost to the last good round (at first to the "
        "seeds), beyond both intervals",
        low=0,
        high=1,
        group=_GUARDS,
    )
    max_contaminated: float = option(
        0.02,
        "share of the held-out requests that the training data may give away",
        low=0,
        high=1,
        group=_GUARDS,
    )


@dataclass(frozen=True)
class Options(RoundOptions, DataOptions, GuardOptions):
    """Every option of the command, as a flag and as a YAML key."""

    run: str = option("", "run directory; none: the next free runs/loop-NNN", metavar="DIR", group=_RUN)
    seed: int = option(0, "random seed; round r's commands get this plus r", low=0, group=_RUN)
    resume: bool = option(
        False, "go on with an interrupted run (of --run, else the newest unfinished one)", group=_RUN
    )
    overwrite: bool = option(False, "start anew in a used run directory", group=_RUN)
