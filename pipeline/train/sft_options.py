"""The options of `python -m pipeline.sft`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.errors import PipelineError
from pipeline.train.options import AUTO, CLASSES, MACHINE, TUNING, AnswerOptions, TrainingOptions


@dataclass(frozen=True)
class Options(TrainingOptions, AnswerOptions):
    """Every option of `python -m pipeline.sft`, as a flag and as a YAML key."""

    task: str = option(
        "causal",
        "what is learnt: to answer, or to tell to which class a text belongs",
        choices=("causal", "classify"),
        group=TUNING,
    )
    packing: str = option(
        "auto",
        "several rows in one sequence without losing any (bfd_split); auto: on a GPU",
        choices=AUTO,
        group=MACHINE,
    )
    text_field: str = option(
        "",
        "field that is classified; none: 'text', else the whole example, its parts apart by blank lines",
        metavar="NAME",
        group=CLASSES,
    )
    label_field: str = option(
        "label", "field with the class: text, a whole number, true or false", metavar="NAME", group=CLASSES
    )


_ONLY = {  # options that one task alone reads
    "causal": ("format", "format_file", "show_mask", "packing", "num_answers", "max_new_tokens"),
    "classify": ("text_field", "label_field"),
}


def refuse_options_of(task: str, options: Options) -> None:
    """Refuse options that `task` alone reads. Raises PipelineError."""
    plain = Options()
    for name in _ONLY[task]:
        if getattr(options, name) not in (getattr(plain, name), "off"):
            flag = "--" + name.replace("_", "-")
            raise PipelineError(flag, f"it has no meaning for --task {options.task}", "Leave it out.")
