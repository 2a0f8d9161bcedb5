"""Texts to unit vectors: a sentence-transformers model, an embeddings endpoint, or nothing.

The default model, all-MiniLM-L6-v2, reads English only; it sees most Chinese characters as unknown and calls
different sentences equal. So it says that it covers English alone, and Chinese texts are left to ROUGE-L
unless another model is named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.dedup.embedding_options import EncoderSettings as EncoderSettings
from pipeline.dedup.token_batches import token_batches
from pipeline.engines.device import compute, native_bf16, one_core
from pipeline.engines.models import quiet, sentence_model
from pipeline.errors import PipelineError

OFF, SERVED = "off", "openai:"
_DEFAULT = "all-MiniLM-L6-v2"
_FEW = 4  # texts that one core encodes alone
_TOKENISED = 2048  # texts tokenised at a time
_MANY, _AHEAD = 256, 4  # texts that are worth a thread for each core; batches that wait for one


class Encoder(Protocol):
    """What makes vectors of texts."""

    @property
    def name(self) -> str:
        """The model's name, for people."""

    def covers(self, language: str) -> bool:
        """Whether the vectors of texts in this language mean anything."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) in float32, in the order of the texts. Raises PipelineError."""

    def check(self) -> None:
        """Refuse a model that cannot be had, as early and as cheaply as possible. Raises PipelineError."""


def encoder_for(settings: EncoderSettings) -> Encoder:
    """The encoder that the settings ask for; a model is loaded when it is first used."""
    if settings.model == OFF:
        return NoEncoder()
    if settings.model.startswith(SERVED):
        from pipeline.dedup.endpoint import EndpointEncoder
        from pipeline.dedup.vector_cache import CachedEncoder

        name = settings.model.removeprefix(SERVED)
        served = EndpointEncoder(name, settings.base_url, settings.api_key_env)
        return CachedEncoder(served, Path(settings.cache)) if settings.cache else served
    return SentenceEncoder(settings)


class NoEncoder:
    """Covers no language, so that nothing is compared by meaning."""

    name = "no model"

    def covers(self, language: str) -> bool:
        """It never does."""
        return False

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors without dimensions (N, 0)."""
        return np.zeros((len(texts), 0), dtype=np.float32)

    def check(self) -> None:
        """There is nothing to refuse."""


class SentenceEncoder:
    """A sentence-transformers model, with the tokeniser, prompt, pooling and scaling that it comes with.

    Texts go through it in batches of near-equal lengths. Padding is masked, so who shares a text's batch
    changes its vector by rounding only: about 1e-7 in fp32, 1e-3 in bf16. The same call gives the same bytes
    on the same machine with the same versions.
    """

    def __init__(self, settings: EncoderSettings | None = None) -> None:
        self._settings = settings or EncoderSettings()
        self._model: Any = None
        self.name = self._settings.model or _DEFAULT

    def covers(self, language: str) -> bool:
        """English by default, everything by a model that was named."""
        return bool(self._settings.model) or language == "en"

    def check(self) -> None:
        """Look for the files of a model that was named, without loading them."""
        if self._settings.model:
            sentence_model(self._settings.model)

    @property
    def model(self) -> Any:
        """The SentenceTransformer, loaded on first use. Raises PipelineError."""
        if self._model is None:
            self._model = compute(_load, self._settings)
        return self._model

    @property
    def precision(self) -> str:
        """What the model computes in: fp32 or bf16."""
        return _precision(self.model.device.type, self._settings.precision)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) in float32, in the order of the texts. Raises PipelineError."""
        return compute(self._encode_alone if len(texts) <= _FEW else self._encode, texts)

    def _encode_alone(self, texts: Sequence[str]) -> np.ndarray:
        with one_core():
            return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        vectors = np.empty((len(texts), self.model.get_embedding_dimension()), dtype=np.float32)
        threads, on_cpu = torch.get_num_threads(), self.model.device.type == "cpu"
        if not on_cpu or threads == 1 or len(texts) < _MANY:
            for rows, features in self._batches(texts):
                vectors[rows] = self._vectors(features)
            return vectors
        # a batch for each core: cores that share one wait for each other after each operation
        waiting = deque[tuple[np.ndarray, Future[np.ndarray]]]()
        with (
            one_core(),
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as workers,
        ):
            for rows, features in self._batches(texts):
                waiting.append((rows, workers.submit(self._vectors, features)))
                if len(waiting) > _AHEAD * threads:
                    rows, found = waiting.popleft()
                    vectors[rows] = found.result()
            for rows, found in waiting:
                vectors[rows] = found.result()
        return vectors

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Texts of near-equal lengths: their numbers (B,) and the model's input."""
        by_length = np.argsort([len(text) for text in texts], kind="stable")  # in characters, to pad little
        for begin in range(0, len(texts), _TOKENISED):
            part = by_length[begin : begin + _TOKENISED]
            for rows, features in token_batches(self.model, [texts[i] for i in part]):
                yield part[rows], features

    def _vectors(self, features: dict[str, Any]) -> np.ndarray:
        """Unit vectors (B, D) of a batch."""
        import torch

        with torch.inference_mode():
            found = self.model(features)["sentence_embedding"].float()
            return np.asarray(torch.nn.functional.normalize(found, dim=1).cpu().numpy())


def _load(settings: EncoderSettings) -> Any:
    from sentence_transformers import SentenceTransformer

    quiet()
    folder, device = sentence_model(settings.model), _device(settings.device)
    try:
        model = SentenceTransformer(folder, device=device).eval().float()
    except Exception as error:  # of many unrelated types; all mean that the files do not do
        said = (str(error).strip() or "no reason given").splitlines()[0][:200].rstrip(".")
        problem = f"cannot be loaded ({type(error).__name__}: {said})"
        raise PipelineError(f"model {folder}", problem, "Give a sentence-transformers model.") from error
    if _precision(device, settings.precision) == "bf16" and model.transformers_model is not None:
        import torch

        # the transformer alone: pooling and what follows add up in fp32
        model[0].to(torch.bfloat16).register_forward_hook(_widen)
    return model


def _widen(module: Any, given: Any, features: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.float() if getattr(value, "is_floating_point", bool)() else value
        for name, value in features.items()
    }


def _device(wanted: str) -> str:
    """Resolve cpu, cuda or auto. Raises PipelineError where there is no GPU to be had."""
    from torch import cuda

    if wanted == "auto":
        return "cuda" if cuda.is_available() else "cpu"
    if wanted == "cuda" and not cuda.is_available():
        raise PipelineError("--embedding-device", "got cuda, but torch sees no GPU", "Use cpu or auto.")
    return wanted


def _precision(device: str, wanted: str) -> str:
    """Resolve fp32, bf16 or auto.

    That is bf16 where the processor multiplies it in hardware (a CPU with AVX512-BF16 or AMX, a GPU from
    Ampere on), at twice the speed of fp32 or more; elsewhere it would be emulated, and slower.
    """
    if wanted != "auto":
        return wanted
    if device == "cuda":
        from torch import cuda

        return "bf16" if cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if native_bf16() else "fp32"
