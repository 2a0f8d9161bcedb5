"""The names of the tuning methods, what each is, and the settings they share. It imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to tune a model.

    `settings` names the fields of Tuning that it reads; `unmergeable` says why its result is not a plain
    transformers model. `packs`: several examples may share a row (packing, padding-free batches).
    `checkpoints`: gradient checkpointing works. `quantizes`: the base may be quantised. `penalty`: the
    trainer has to add `extra_loss`.
    """

    name: str
    summary: str
    learning_rate: float  # for AdamW
    settings: tuple[str, ...] = ()
    unmergeable: str = ""
    packs: bool = True
    checkpoints: bool = True
    quantizes: bool = True
    penalty: bool = False

    @property
    def merges(self) -> bool:
        """Whether the trained model can become a plain one with the same logits."""
        return not self.unmergeable


@dataclass(frozen=True)
class Tuning:
    """How a model is tuned; a method reads the fields that its `settings` name."""

    method: str = "lora"
    rank: int = 16  # of the update; oft: half the block size
    alpha: float = 0  # the update's scale; 0 is the method's own default
    dropout: float = 0.0  # share of the adapter's inputs dropped while training
    target_modules: tuple[str, ...] = ()  # last parts of module names; none: every linear layer but the head
    num_virtual_tokens: int = 20
    bottleneck: int = 64  # width of houlsby and pfeiffer adapters
    last_layers: int = 2
    sparsity: float = 0.005  # share of the target modules' weights that may change
    num_ensemble: int = 1  # prompts that are trained side by side, their logits averaged
    total_steps: int = 0  # optimizer steps of the run, which AdaLoRA's schedule needs
    task: str = "causal"  # or "classify": sequence classification, whose head always trains


_LOW_RANK = ("rank", "alpha", "target_modules")
_PROMPT = "its virtual tokens are inputs, not weights"
_BOTTLENECK = "a bottleneck is not linear, so no weight can hold it"


def _table(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


# Learning rates lean on the papers'; tests/bench/tuning.py raised those of adalora, vera and last-k.
METHODS: dict[str, Method] = _table(
    Method("full", "every weight trains", 2e-5, quantizes=False),
    Method("lora", "low-rank updates (Hu et al. 2021, arXiv:2106.09685)", 2e-4, _LOW_RANK),
    Method(
        "dora", "LoRA on the direction, magnitude apart (Liu et al. 2024, arXiv:2402.09353)", 2e-4, _LOW_RANK
    ),
    Method(
        "rslora", "LoRA scaled by alpha/sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)", 2e-4, _LOW_RANK
    ),
    Method(
        "pissa",
        "LoRA on the principal components (Meng et al. 2024, arXiv:2404.02948)",
        1e-4,
        _LOW_RANK,
        quantizes=False,
    ),
    Method(
        "adalora",
        "LoRA whose rank goes where it matters (Zhang et al. 2023, arXiv:2303.10512)",
        1e-2,
        (*_LOW_RANK, "total_steps"),
        penalty=True,
    ),
    Method(
        "ia3", "rescaled keys, values and MLP (Liu et al. 2022, arXiv:2205.05638)", 3e-3, ("target_modules",)
    ),
    Method(
        "vera",
        "scalings of one shared random LoRA; likes rank 256 (Kopiczko et al. 2023, arXiv:2310.11454)",
        2e-2,
        ("rank", "target_modules"),
    ),
    Method(
        "oft",
        "rotations of the weights (Qiu et al. 2023, arXiv:2306.07280)",
        4e-4,
        ("rank", "target_modules"),
    ),
    Method(
        "prefix",
        "prefix tuning, through a projection (Li & Liang 2021, arXiv:2101.00190)",
        1e-3,
        ("num_virtual_tokens",),
        unmergeable=_PROMPT,
        packs=False,
        checkpoints=False,
    ),
    Method(
        "p-tuning",
        "virtual tokens from an MLP (Liu et al. 2021, arXiv:2103.10385)",
        1e-4,
        ("num_virtual_tokens",),
        unmergeable=_PROMPT,
        packs=False,
    ),
    Method(
        "p-tuning-v2",
        "deep prompts: a prefix without projection (Liu et al. 2021, arXiv:2110.07602)",
        1e-2,
        ("num_virtual_tokens",),
        unmergeable=_PROMPT,
        packs=False,
        checkpoints=False,
    ),
    Method(
        "prompt",
        "prompt tuning, and ensembles of prompts (Lester et al. 2021, arXiv:2104.08691)",
        1e-2,
        ("num_virtual_tokens", "num_ensemble"),
        unmergeable=_PROMPT,
        packs=False,
    ),
    Method(
        "houlsby",
        "bottlenecks after attention and MLP (Houlsby et al. 2019, arXiv:1902.00751)",
        5e-4,
        ("bottleneck", "target_modules"),
        unmergeable=_BOTTLENECK,
    ),
    Method(
        "pfeiffer",
        "bottlenecks after the MLP alone (Pfeiffer et al. 2020, arXiv:2005.00247)",
        5e-4,
        ("bottleneck", "target_modules"),
        unmergeable=_BOTTLENECK,
    ),
    Method("bitfit", "biases alone (Ben Zaken et al. 2021, arXiv:2106.10199)", 1e-3, ("target_modules",)),
    Method("ln", "norm weights alone (Zhao et al. 2023, arXiv:2312.11420)", 1e-3),
    Method(
        "fish-mask",
        "the weights of the largest Fisher information (Sung et al. 2021, arXiv:2111.09839)",
        2e-4,
        ("sparsity", "target_modules"),
        quantizes=False,
    ),
    Method(
        "diff-pruning",
        "a sparse difference, L0-regularised (Guo et al. 2020, arXiv:2012.07463)",
        5e-5,
        ("sparsity", "target_modules"),
        quantizes=False,
        penalty=True,
    ),
    Method(
        "last-k",
        "the last layers and the final norm (Lee et al. 2019, arXiv:1911.03090)",
        2e-4,
        ("last_layers",),
        quantizes=False,
    ),
)
