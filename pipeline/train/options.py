"""The options that training commands share, in groups."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.format.formats import FORMATS
from pipeline.train.methods import METHODS
from pipeline.train.optimizers import OPTIMIZERS
from pipeline.train.schedules import SCHEDULES

DATA, FORMAT, TUNING, TRAINING = "data", "format and masks", "what is tuned", "optimisation"
CLASSES, MACHINE, RUN = "--task classify", "machine", "run"
AUTO = ("auto", "on", "off")


@dataclass(frozen=True)
class SourceOptions:
    """What is read, what is held out, and how it is written."""

    data: tuple[str, ...] = option(
        (),
        "JSONL, JSON, Parquet, directories, runs of ours or hub datasets (owner/name:config:split) in "
        "Alpaca's, conversational, ShareGPT or prompt-completion form; none: the newest finished run",
        metavar="DATA",
        positional=True,
        group=DATA,
    )
    validation_frac: float = option(
        0.1,
        "share of the instructions held out; rows with the same instruction stay together",
        low=0,
        high=0.9,
        group=DATA,
    )
    bad_rows: str = option(
        "refuse",
        "what becomes of rows that cannot be trained on; drop: they go to dropped.jsonl with the reason",
        choices=("refuse", "drop"),
        group=DATA,
    )
    format: str = option(
        "chat", "how examples are written", choices=tuple(FORMATS), metavar="NAME", group=FORMAT
    )
    format_file: str = option("", "a chat template of your own (Jinja) instead", metavar="FILE", group=FORMAT)


@dataclass(frozen=True)
class DataOptions(SourceOptions):
    """Mixtures of data with answers, and how long a row may be."""

    mix: tuple[str, ...] = option(
        (),
        "the same as a mixture, each with its weight (a.jsonl=0.7 b=0.3); without weights in proportion to "
        "their sizes up to --mix-cap",
        metavar="DATA[=W]",
        group=DATA,
    )
    mix_cap: int = option(
        3000, "rows from which on a source of --mix is as likely as a larger one (FLAN's)", low=1, group=DATA
    )
    replay: tuple[str, ...] = option(
        (), "data of earlier rounds, of which some is trained on again", metavar="DATA", group=DATA
    )
    replay_frac: float = option(
        0.2,
        "share of --replay in all rows; fewer where it has fewer, none comes twice",
        low=0,
        high=0.9,
        group=DATA,
    )
    max_length: int = option(
        2048, "tokens of a row, prompt and answers; what is longer is cut", low=8, group=FORMAT
    )
    max_truncated_frac: float = option(
        0.0, "share of the rows whose answers may be cut", low=0, high=1, group=FORMAT
    )
    show_mask: int = option(0, "rows to print token by token, trained ones coloured", low=0, group=FORMAT)


@dataclass(frozen=True)
class TuningOptions:
    """Which parameters are trained."""

    model: str = option(
        "",
        "run of ours, directory or hub id of a causal language model, or of any encoder for --task classify; "
        "none: the embedded SmolLM2-135M-Instruct",
        metavar="MODEL",
        group=TUNING,
    )
    adapter: str = option("", "run whose adapter is trained on", metavar="RUN", group=TUNING)
    tuning: str = option("lora", "method", choices=tuple(METHODS), metavar="NAME", group=TUNING)
    rank: int = option(16, "of lora, dora, rslora, pissa, adalora, vera, oft", low=1, group=TUNING)
    alpha: float = option(0.0, "scale of the same; 0: the method's own", low=0, group=TUNING)
    dropout: float = option(0.0, "of what an adapter reads", low=0, high=0.9, group=TUNING)
    target_modules: tuple[str, ...] = option(
        (), "names of the layers to adapt; none: all linear ones but the head", metavar="NAME", group=TUNING
    )
    num_virtual_tokens: int = option(20, "of prompt and prefix methods", low=1, group=TUNING)
    num_ensemble: int = option(1, "prompts trained side by side (--tuning prompt)", low=1, group=TUNING)
    bottleneck: int = option(64, "width of houlsby and pfeiffer adapters", low=1, group=TUNING)
    last_layers: int = option(2, "layers that last-k trains", low=1, group=TUNING)
    sparsity: float = option(
        0.005, "share of the weights that fish-mask and diff-pruning may change", low=0, high=1, group=TUNING
    )


@dataclass(frozen=True)
class OptimisationOptions:
    """How long, how fast and by what rule."""

    num_epochs: float = option(3.0, "passes over the data", low=0, group=TRAINING)
    max_steps: int = option(0, "optimizer steps to stop at; 0: as the epochs say", low=0, group=TRAINING)
    batch_size: int = option(8, "rows of a step on each device", low=1, group=TRAINING)
    gradient_accumulation: int = option(1, "batches of an optimizer step", low=1, group=TRAINING)
    learning_rate: float = option(0.0, "peak; 0: the tuning method's own", low=0, group=TRAINING)
    schedule: str = option(
        "cosine", "of the learning rate", choices=tuple(SCHEDULES), metavar="NAME", group=TRAINING
    )
    warmup_frac: float = option(0.05, "share of the steps in which it rises", low=0, high=1, group=TRAINING)
    optimizer: str = option("adamw", "by name", choices=tuple(OPTIMIZERS), metavar="NAME", group=TRAINING)
    optimizer_rank: int = option(128, "of what galore and apollo keep", low=1, group=TRAINING)
    weight_decay: float = option(0.0, "of weights, not of norms and biases", low=0, group=TRAINING)
    layer_decay: float = option(
        1.0, "each layer's learning rate over that of the next; 1: the same", low=0.01, high=1, group=TRAINING
    )
    eval_every: int = option(
        0, "steps between two looks at the held-out loss; 0: each epoch", low=0, group=TRAINING
    )


@dataclass(frozen=True)
class MachineOptions:
    """What suits the machine, and what only the trainer knows."""

    precision: str = option(
        "auto",
        "auto: bf16 where the machine multiplies it in hardware, else fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
        group=MACHINE,
    )
    gradient_checkpointing: str = option(
        "auto", "compute activations twice to hold fewer; auto: on a GPU", choices=AUTO, group=MACHINE
    )
    quantize: str = option(
        "none", "the base model in 4 bits (QLoRA; wants a GPU and bitsandbytes)",
        choices=("none", "4bit"), group=MACHINE,
    )  # fmt: skip
    trainer: tuple[str, ...] = option(
        (),
        "any other field of TRL's own configuration as name=value; on the command line also "
        "--trainer.NAME VALUE",
        metavar="NAME=VALUE",
        group=MACHINE,
    )


@dataclass(frozen=True)
class RunOptions:
    """Where the run is, and how it begins."""

    run: str = option("", "run directory; none: the next free one under runs/", metavar="DIR", group=RUN)
    seed: int = option(0, "random seed", low=0, group=RUN)
    resume: bool = option(
        False, "go on with an interrupted run (of --run, else the newest unfinished one)", group=RUN
    )
    overwrite: bool = option(False, "start anew in a used run directory", group=RUN)


@dataclass(frozen=True)
class AnswerOptions:
    """The answers that are shown before and after."""

    num_answers: int = option(
        10, "held-out requests answered before and after training, side by side", low=0, group=RUN
    )
    max_new_tokens: int = option(128, "tokens of such an answer", low=1, group=RUN)


@dataclass(frozen=True)
class BaseOptions(SourceOptions, TuningOptions, OptimisationOptions, MachineOptions, RunOptions):
    """What every training command reads."""

    @property
    def task(self) -> str:
        """What is learnt: to answer ("causal"), or to sort or score ("classify")."""
        return "causal"

    @property
    def packing(self) -> str:
        """Several rows in one sequence, where a command can do that."""
        return "off"

    @property
    def neftune(self) -> float:
        """Noise on embeddings, where a command can do that."""
        return 0.0

    @property
    def early_stopping(self) -> int:
        """Looks without a better held-out loss after which to stop, where there is one; 0: never."""
        return 0


@dataclass(frozen=True)
class TrainingOptions(DataOptions, BaseOptions):
    """What every command reads that trains on given answers."""

    neftune: float = option(
        0.0, "noise on embeddings (NEFTune's alpha, 5 say); 0: none", low=0, group=TRAINING
    )
    early_stopping: int = option(
        0, "looks without a better held-out loss after which to stop; 0: never", low=0, group=TRAINING
    )
