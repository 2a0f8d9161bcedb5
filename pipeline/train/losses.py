"""The losses of `python -m pipeline.dpo` by name: all that TRL's DPO, KTO and ORPO trainers have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PipelineError

DPO, KTO, ORPO = "dpo", "kto", "orpo"  # the trainers


@dataclass(frozen=True)
class Loss:
    """What a loss is and which trainer has it.

    `smoothing` is its own label smoothing, None if it reads none. `anchored`: it compares each answer with
    the reference, not only the two answers' differences from it, and so cannot do without.
    """

    name: str
    summary: str
    trainer: str = DPO
    smoothing: float | None = None
    anchored: bool = False


def _table(*losses: Loss) -> dict[str, Loss]:
    return {loss.name: loss for loss in losses}


LOSSES: dict[str, Loss] = _table(
    Loss("sigmoid", "DPO: the pair's log-odds (Rafailov et al. 2023, arXiv:2305.18290)"),
    Loss("hinge", "SLiC: a margin of 1 is enough (Zhao et al. 2023, arXiv:2305.10425)"),
    Loss(
        "ipo", "a squared distance to a margin of 1/(2 beta), per token (Azar et al. 2023, arXiv:2310.12036)"
    ),
    Loss("exo_pair", "reverse KL to smoothed labels (Ji et al. 2024, arXiv:2402.00856)", smoothing=1e-3),
    Loss("nca_pair", "keeps the chosen answer likely (Chen et al. 2024, arXiv:2402.05369)", anchored=True),
    Loss("robust", "DPO under flipped labels (Chowdhury et al. 2024, arXiv:2403.00409)", smoothing=0.1),
    Loss("bco_pair", "a classifier of single answers (Jung et al. 2024, arXiv:2404.04656)", anchored=True),
    Loss("sppo_hard", "self-play to fixed margins (Wu et al. 2024, arXiv:2405.00675)", anchored=True),
    Loss("aot", "sorts the batch's margins (Melnyk et al. 2024, arXiv:2406.05882)", smoothing=0.0),
    Loss("aot_unpaired", "sorts either side (the same)", smoothing=0.0),
    Loss("apo_zero", "chosen up, rejected down (D'Oosterlinck et al. 2024, arXiv:2408.06266)", anchored=True),
    Loss("apo_down", "both down, rejected more (the same)", anchored=True),
    Loss("discopop", "found by a language model (Lu et al. 2024, arXiv:2406.08414)"),
    Loss("sft", "likelihood of the chosen answer; beside another one, as in RPO (arXiv:2404.19733)"),
    Loss("sigmoid_norm", "DPO per token, as in Tulu 3 (Lambert et al. 2024, arXiv:2411.15124)"),
    Loss(
        "kto", "single answers, wanted or not (Ethayarajh et al. 2024, arXiv:2402.01306)", KTO, anchored=True
    ),
    Loss("apo_zero_unpaired", "apo_zero on single answers", KTO, anchored=True),
    Loss("orpo", "likelihood and odds ratio, no reference (Hong et al. 2024, arXiv:2403.07691)", ORPO),
)


def trainer_of(names: Sequence[str]) -> str:
    """The trainer that has all these losses. Raises PipelineError."""
    if len(set(names)) < len(names) or not names:
        problem = f"got {' '.join(names) or 'none'}, expected different losses"
        raise PipelineError("--loss", problem, "Name each once.")
    found = {LOSSES[name].trainer for name in names}
    if len(names) > 1 and found != {DPO}:
        alone = next(name for name in names if LOSSES[name].trainer != DPO)
        raise PipelineError(
            "--loss", f"got {' '.join(names)}", f"{alone} stands alone: leave the others out."
        )
    return found.pop()


def smoothing(names: Sequence[str], wanted: float) -> float:
    """The label smoothing of these losses; `wanted` 0 means their own. Raises PipelineError."""
    own = [LOSSES[name].smoothing for name in names]
    if wanted and all(value is None for value in own):
        can = ", ".join(name for name, loss in LOSSES.items() if loss.smoothing is not None)
        problem = f"got {wanted:g}, which --loss {' '.join(names)} does not read"
        raise PipelineError("--label-smoothing", problem, f"Leave it out, or use --loss {can}.")
    if wanted >= 0.5 and "robust" in names:
        problem = f"got {wanted:g}, expected less than 0.5 for --loss robust: a share of flipped labels"
        raise PipelineError("--label-smoothing", problem, "Lower it.")
    return wanted or max((value for value in own if value is not None), default=0.0)
