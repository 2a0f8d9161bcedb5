"""What `saturation.py` measures: an engine, opened anew for each pass, and the server behind it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from noted import Opener, Pass, bare_run, pipeline_run

from pipeline.config import parse
from pipeline.engines.base import Request, Sampling
from pipeline.engines.models import language_model
from pipeline.selfinstruct import Options


class Bench:
    """One engine, what is asked of the pipeline on it, and what keeps a pass apart from the one before."""

    def __init__(self, given: argparse.Namespace, more: Sequence[str], url: str) -> None:
        self.given, self.more, self.url = given, list(more), url
        self.server = given.engine == "server"
        self.batch = 1 if self.server else given.concurrency
        self.places = given.concurrency if self.server else 1  # groups in flight, of batch_size requests each

    def options(self, run: str, *extra: str) -> Options:
        """The options of a run."""
        where = ["--engine", "embedded", "--batch-size", str(self.batch)]
        if self.server:
            where = f"--engine openai --model {self.given.model} --base-url {self.url}".split()
            where += ["--concurrency", str(self.given.concurrency)]
        wanted = f"--num-examples {self.given.num_examples} --seed {self.given.seed} --cache off".split()
        argv = [*where, *wanted, "--run", run, *self.more, *extra]
        return parse(Options, argv, prog="saturation", doc="")

    @property
    def opened(self) -> Opener:
        """Opens the engine and warms it up."""
        options = self.options("-")

        async def open_it() -> Any:
            if self.server:
                from pipeline.engines.openai import OpenAIEngine

                engine = OpenAIEngine(
                    options.model,
                    self.url,
                    options.api_key_env,
                    options.concurrency,
                    options.window,
                    options.request_timeout,
                )
                await engine.open()
                return engine
            from pipeline.engines.embedded import EmbeddedEngine

            embedded = EmbeddedEngine(options.model, options.batch_size, options.slots)
            await embedded.generate([Request("Hello", sampling=Sampling(max_tokens=4))] * self.batch)
            return embedded

        return open_it

    def run(self, *extra: str, seconds: float = 0.0) -> Pass:
        """The pipeline's command."""
        self.forget()
        with self.counting() as counts:
            run = pipeline_run(self.opened, lambda run: self.options(run, *extra), seconds)
        run.counts = counts
        return run

    def bare(self, groups: Sequence[Sequence[Request]]) -> Pass:
        """The engine alone."""
        self.forget()
        with self.counting() as counts:
            bare = bare_run(self.opened, groups, self.places, 60 * self.given.minutes)
        bare.counts = counts
        return bare

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[tuple[float, float]]]:
        """Note the server's own count of generated tokens with the time, about once a second."""
        counts, ended = list[tuple[float, float]](), threading.Event()

        def look() -> None:
            last = False
            while not last:
                last = ended.wait(1)
                with urllib.request.urlopen(f"{root(self.url)}/metrics") as answer:
                    text = answer.read().decode()
                found = re.findall(r"^vllm:generation_tokens_total\S* (\S+)$", text, re.MULTILINE)
                counts.append((time.monotonic(), sum(map(float, found))))

        looking = threading.Thread(target=look, daemon=True)
        if self.server:
            looking.start()
        try:
            yield counts
        finally:
            ended.set()
            if self.server:
                looking.join()

    def forget(self) -> None:
        """Have the server empty its prefix cache."""
        address = f"{root(self.url)}/reset_prefix_cache"
        for _ in range(20 if self.server else 0):
            try:
                with urllib.request.urlopen(urllib.request.Request(address, method="POST")) as answer:
                    if json.loads(answer.read() or b"{}").get("success"):
                        return
            except OSError as error:
                sys.exit(f"{address}: {error}; start the server with VLLM_SERVER_DEV_MODE=1")
            time.sleep(0.5)  # answers that nobody waits for any more still hold blocks
        if self.server:
            sys.exit(f"{address}: the server does not empty its cache")


@contextlib.contextmanager
def server(given: argparse.Namespace) -> Iterator[str]:
    """The base URL of the server, which is started if none is given."""
    if given.engine == "embedded" or given.base_url:
        yield given.base_url
        return
    import contract

    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    module = [contract.vllm_python(), "-m", "vllm.entrypoints.openai.api_server"]
    what = f"--model {language_model()} --served-model-name {given.model} --dtype {contract.DTYPE}"
    limits = f"--max-model-len {contract.WINDOW} --max-num-seqs {max(64, given.concurrency)} --enforce-eager"
    words = [*what.split(), *limits.split(), "--enable-prefix-caching", "--generation-config", "vllm"]
    # vLLM 0.31 on a CPU dies of a seeded request whose prompt is computed in parts ("does not use offset")
    words.append("--no-enable-chunked-prefill")
    with tempfile.TemporaryDirectory() as folder, contract.serving(Path(folder), [*module, *words]) as url:
        yield url


def root(url: str) -> str:
    """The server's address without the protocol's /v1."""
    return url.removesuffix("/").removesuffix("/v1")
