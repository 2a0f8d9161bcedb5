"""What the machine computes fast, and the one thread on which it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch.nn import Module

P = ParamSpec("P")
T = TypeVar("T")
_NAME = "torch"
_THREAD = ThreadPoolExecutor(1, _NAME)


def start(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Have the thread on which torch computes call the function, after what it was given before.

    OpenMP keeps a team of workers for every thread that computes. With two teams it counts more workers than
    cores, and then lets none wait busily for the next operation: each of a token's few hundred puts them to
    sleep and wakes them.
    """
    return _THREAD.submit(function, *args, **kwargs)


def compute(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function on that thread and wait for it."""
    if threading.current_thread().name.startswith(f"{_NAME}_"):
        return function(*args, **kwargs)
    return start(function, *args, **kwargs).result()


@contextmanager
def one_core() -> Iterator[None]:
    """Compute without helpers, for what is small.

    They gain little then, and wait busily for the next operation: a server on the same machine pays for it.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware.

    Elsewhere it is emulated and several times slower than fp32.
    """
    from torch import cpu

    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def store_transposed(network: Module) -> None:
    """Lay every weight out as (in, out) in memory.

    At 8 to 48 rows a CPU multiplies by it two to four times faster.
    """
    from torch.nn import Linear, Parameter

    for module in network.modules():
        if isinstance(module, Linear):
            module.weight = Parameter(module.weight.detach().t().contiguous().t(), requires_grad=False)
