"""The processes in which vLLM schedules and computes: the engine core and its workers.

Three things are arranged here that vLLM leaves open:

1. Ctrl-C reaches every process of a terminal, and a core that gets it drops what is in flight. The core is
   started with SIGINT blocked, so that a stop is ours alone and the answers under way come in.
2. The core is spawned, not forked: a fork would share the loop's signal pipe and the locks of other threads.
3. A core whose parent is killed would live on and keep the GPU's memory: `end_with_parent`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from typing import Any

from pipeline.engines.device import native_bf16
from pipeline.errors import PipelineError

OURS = "PIPELINE_VLLM"  # in the environment of the processes that belong to a VllmEngine
ENVIRONMENT = {
    OURS: "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # vLLM's own choice is stdout, which belongs to the command
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; read on a machine without a GPU only
}


async def start(model: str, settings: dict[str, Any]) -> Any:
    """Load `model` in an engine core, which takes about a minute; returns vLLM's AsyncLLM.

    Raises PipelineError. Cancelling ends the core.
    """
    # A way out of the thread that leaves nothing there: exceptions that vLLM stores hold the thread's frames,
    # and an AsyncLLM that these still held would be torn down when Python already is.
    found: list[Any] = []
    loading = asyncio.ensure_future(asyncio.to_thread(_load, model, settings, found))
    try:
        await asyncio.shield(loading)
    except asyncio.CancelledError:
        while not loading.done():
            for child in multiprocessing.active_children():
                child.kill()  # then loading ends with an error
            await asyncio.sleep(0.1)
        if not loading.exception():
            found.pop().shutdown()
        raise
    return found.pop()


def end_with_parent() -> None:
    """Make a process of ours end when its parent does, even by kill -9; vLLM calls this in each.

    It is an entry point of the group `vllm.general_plugins` in pyproject.toml.
    """
    parent = multiprocessing.parent_process()
    if parent is None or OURS not in os.environ:
        return

    def watch() -> None:
        """Wait for the parent."""
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _said(error: Exception) -> str:
    """What an error says, in one line; pydantic's has it behind a head that names only its own class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    first = lines[1] if len(lines) > 1 and "validation error" in lines[0] else lines[0]
    return first.split(" [type=")[0][:200].rstrip(".")


def _load(model: str, settings: dict[str, Any], found: list[Any]) -> None:
    """Start the core and append its AsyncLLM to `found`.

    Called in a thread, so that SIGINT is blocked only there and in the processes that it starts.
    """
    resource_tracker.ensure_running()  # first: starting it unblocks SIGINT
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        if current_platform.is_cpu():
            # vLLM 0.31 dies on the CPU of a seeded request whose prompt it reads in chunks.
            settings = settings | {"enforce_eager": True, "enable_chunked_prefill": False}
            if settings["dtype"] == "auto" and not native_bf16():
                settings["dtype"] = "float32"
        found.append(AsyncLLM.from_engine_args(AsyncEngineArgs(**settings)))
    except Exception as error:  # one of a dozen unrelated types; all mean that vLLM cannot run this model
        said = _said(error)
        raise PipelineError(
            f"model {model}",
            f"vLLM cannot run it ({type(error).__name__}: {said})",
            "vLLM's own messages above say more.",
        ) from error
