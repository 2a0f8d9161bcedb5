"""Answers drawn by vLLM through TRL: what its configuration needs, and what vLLM needs on a CPU."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

from pipeline.errors import PipelineError


def require() -> None:
    """Refuse where there is no vLLM. Raises PipelineError."""
    if find_spec("vllm") is None:
        fix = "Install vLLM, or draw with --rollouts transformers."
        raise PipelineError("--rollouts vllm", "vllm is not installed", fix)


def prepare(device: str) -> dict[str, Any]:
    """Fields of TRL's configuration; on a CPU vLLM is prepared for weights that change.

    Colocate mode, vLLM in this process, is the default; `--trainer.vllm_mode server` asks a server that
    `trl vllm-serve` started, which wants GPUs.
    """
    if device == "cpu":
        _on_cpu()
    return {"use_vllm": True, "vllm_mode": "colocate"}


def _on_cpu() -> None:
    """Keep vLLM in this process, and its weights as they are given.

    On a CPU it packs every weight for its own kernels when it loads and forgets the one it was given: there
    would be nothing left to write the policy's new weights to.
    """
    import torch
    from vllm.model_executor.layers import utils

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB

    def plain(layer: Any, remove_weight: bool) -> None:
        """Multiply by the weight as it stands."""
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain
    _hide_llvmlite()


def _hide_llvmlite() -> None:
    """Where vLLM looks for kernels in every loaded module it stumbles over llvmlite's library object.

    That one, loaded with our compiled loops, answers to every name, `__dict__` too.
    """
    from vllm.triton_utils import dispatcher

    rebind = dispatcher._rebind_kernels

    def without(overrides: Any) -> None:
        """Look through the others."""
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("llvmlite")}
        try:
            rebind(overrides)
        finally:
            sys.modules.update(hidden)

    dispatcher._rebind_kernels = without
