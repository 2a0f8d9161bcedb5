"""What suits the machine: precision, packing and gradient checkpointing, chosen and said aloud."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from typing import Any

from pipeline.engines.device import native_bf16
from pipeline.errors import PipelineError
from pipeline.train.methods import METHODS
from pipeline.train.options import BaseOptions

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of malloc.h


@dataclass(frozen=True)
class Hardware:
    """`precision` is that of the products; weights that are trained are always fp32."""

    device: str
    precision: str
    packing: bool
    gradient_checkpointing: bool

    @property
    def said(self) -> str:
        """In words."""
        rows = "rows packed (bfd_split)" if self.packing else "rows grouped by length"
        again = "on" if self.gradient_checkpointing else "off"
        return f"device {self.device}, {self.precision}, {rows}, gradient checkpointing {again}"

    @property
    def fields(self) -> dict[str, Any]:
        """The same as fields of TRL's SFTConfig."""
        return {
            "use_cpu": self.device == "cpu",
            "bf16": self.precision == "bf16",
            "fp16": self.precision == "fp16",
            "packing": self.packing,
            "packing_strategy": "bfd_split",
            "eval_packing": False,
            "gradient_checkpointing": self.gradient_checkpointing,
            "train_sampling_strategy": "random" if self.packing else "group_by_length",
        }


def choose(options: BaseOptions) -> Hardware:
    """Resolve what is "auto". Raises PipelineError for what this machine cannot do."""
    from torch import cuda

    device = "cuda" if cuda.is_available() else "cpu"
    if options.quantize != "none" and device == "cpu":
        problem = f"got {options.quantize}, but torch sees no GPU, which bitsandbytes wants"
        raise PipelineError("--quantize", problem, "Leave it out; LoRA on the whole model needs no GPU.")
    if options.precision == "fp16" and device == "cpu":
        raise PipelineError("--precision", "got fp16, which a CPU cannot train in", "Use fp32 or auto.")
    method = METHODS[options.tuning]
    for wanted, can, name in (
        (options.packing, method.packs, "--packing"),
        (options.gradient_checkpointing, method.checkpoints, "--gradient-checkpointing"),
    ):
        if wanted == "on" and not can:
            raise PipelineError(name, f"got on, which {method.name} cannot do", "Use auto or off.")
    return Hardware(
        device,
        _precision(options.precision, device),
        _on(options.packing, device == "cuda" and method.packs),
        _on(options.gradient_checkpointing, device == "cuda" and method.checkpoints),
    )


def keep_memory() -> None:
    """Have glibc keep the memory that tensors free, instead of giving it back and asking for it again.

    Training on a CPU allocates and frees hundreds of large tensors a step; each time the kernel hands out and
    clears their pages anew, which takes a fifth of a step. What is kept grows in holes: see `trim_memory`.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 2**26)


def trim_memory() -> None:
    """Give all freed memory back."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> Any:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _on(wanted: str, fitting: bool) -> bool:
    return fitting if wanted == "auto" else wanted == "on"


def _precision(wanted: str, device: str) -> str:
    """bf16 where it is multiplied in hardware; emulated it is several times slower than fp32."""
    if wanted != "auto":
        return wanted
    if device == "cpu":
        return "bf16" if native_bf16() else "fp32"
    from torch import cuda

    return "bf16" if cuda.is_bf16_supported(including_emulation=False) else "fp16"
