"""What the machine computes fast."""

from __future__ import annotations


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware.

    Elsewhere it is emulated and several times slower than fp32.
    """
    from torch import cpu

    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
