"""Vectors from an OpenAI-compatible embeddings endpoint: OpenAI, `vllm serve`, llama.cpp, TEI, ...

The official client asks again by itself (429, 5xx, timeouts, cut connections), with back-off and Retry-After.
The key comes from the environment and is written nowhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipeline.engines.openai_connection import CONNECT_TIMEOUT, OPENAI_URL, host_of, key_in
from pipeline.engines.openai_errors import Cleaner, Missing, classify
from pipeline.errors import PipelineError

_BATCH, _AT_ONCE = 256, 4  # texts of a request, requests in flight
_TIMEOUT = 120.0  # s, of each attempt


class EndpointEncoder:
    """A server's model `name`.

    Texts are sent as they are, but an empty one as a space, which servers take. The digits for one text may
    differ from call to call; `vector_cache` keeps the first ones.
    """

    def __init__(self, name: str, base_url: str, api_key_env: str, max_retries: int = 8) -> None:
        if not name:
            raise PipelineError("--embedding-model", "got 'openai:' without a name", "Add the name.")
        self.name, self._key_name, self._max_retries = name, api_key_env, max_retries
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL", "") or OPENAI_URL
        self._where = f"embeddings at {host_of(self._base_url, '--embedding-base-url')}"
        self._client: Any = None
        self._clean = Cleaner("")

    def covers(self, language: str) -> bool:
        """Whoever names a model knows what it reads."""
        return True

    def check(self) -> None:
        """Ask for one vector."""
        self.encode(["Hello."])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) in float32, in the order of the texts. Raises PipelineError."""
        self._connect()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            starts = range(0, len(texts), _BATCH)
            parts = list(threads.map(lambda begin: self._ask(texts[begin : begin + _BATCH]), starts))
        if not parts:
            return np.zeros((0, 0), dtype=np.float32)
        if len({part.shape[1] for part in parts}) > 1:
            raise self._wrong("vectors of different lengths")
        return np.concatenate(parts)

    def _connect(self) -> None:
        if self._client is not None:
            return
        try:
            import openai
        except ModuleNotFoundError as error:
            problem = f"package {error.name} is not installed"
            raise PipelineError("--embedding-model", problem, "Run: pip install openai") from None
        needed = self._base_url == OPENAI_URL
        key = key_in(self._key_name, needed=needed, option="--embedding-api-key-env")
        self._clean = Cleaner(key)
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=self._base_url,
            timeout=openai.Timeout(_TIMEOUT, connect=CONNECT_TIMEOUT),
            max_retries=self._max_retries,
        )

    def _ask(self, texts: Sequence[str]) -> np.ndarray:
        """The unit vectors of one request's texts (N, D). Raises PipelineError."""
        import openai

        try:  # as numbers: not every server knows the base64 that the client would ask for
            answer = self._client.embeddings.with_raw_response.create(
                model=self.name, input=[text or " " for text in texts], encoding_format="float"
            )
            return self._vectors(json.loads(answer.content), len(texts))
        except openai.APIError as error:
            raise self._meaning(error) from None
        except ValueError:
            raise self._wrong("an answer that is not JSON") from None

    def _meaning(self, error: Any) -> PipelineError:
        """What a failed call means, on one line and without the key."""
        failure = classify(error, self._where, self._key_name, self._clean)
        if isinstance(failure, PipelineError):
            return failure
        if isinstance(failure, Missing):
            fix = "Name a model that it serves for embeddings."
            return PipelineError(f"--embedding-model openai:{self.name}", f"{self._where}: {failure}", fix)
        problem = f"no vectors ({str(failure).rstrip('.')})"
        return PipelineError(self._where, problem, "Check the server, then go on with --resume.")

    def _vectors(self, body: Any, count: int) -> np.ndarray:
        """Read vectors (N, D) from an answer, by the index of each. Raises PipelineError."""
        rows = body.get("data") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._wrong("no list 'data' of objects")
        order = [row.get("index", number) for number, row in enumerate(rows)]
        if sorted(order, key=str) != sorted(range(count), key=str):
            raise self._wrong(f"{len(rows)} vectors, or wrongly numbered ones, for {count} texts")
        try:
            found = np.array([row.get("embedding") for row in rows], dtype=np.float32)
        except (TypeError, ValueError):
            raise self._wrong("an 'embedding' that is no list of numbers, or of another length") from None
        if found.ndim != 2 or not np.isfinite(found).all():
            raise self._wrong("an 'embedding' that is no list of finite numbers")
        vectors = np.empty_like(found)
        vectors[order] = found
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _wrong(self, what: str) -> PipelineError:
        problem = f"got {what}, expected an OpenAI embeddings answer"
        return PipelineError(self._where, problem, "Check --embedding-base-url and the server.")
