"""The options that say which sentence embeddings are compared, and what computes them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option

_MEANING = "sentence embeddings"


@dataclass(frozen=True)
class EncoderSettings:
    """Which encoder, and how it computes.

    `model` is "" (all-MiniLM-L6-v2), "off", "openai:NAME" (a server's model, at `base_url`, with the key in
    environment variable `api_key_env`), or a directory or hub id of a sentence-transformers model, which runs
    on `device` (cpu, cuda or auto: a GPU if there is one) in `precision` (fp32, bf16 or auto). `cache` is a
    file that keeps what a server answered ("": none).
    """

    model: str = ""
    base_url: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    device: str = "cpu"
    precision: str = "auto"
    cache: str = ""


@dataclass(frozen=True)
class EmbeddingOptions:
    """An encoder: the default one, a sentence-transformers model, or a server's."""

    embedding_model: str = option(
        "",
        "sentence-transformers model (directory or hub id), openai:NAME for a server's, or off; none given: "
        "all-MiniLM-L6-v2, which is not used for Chinese",
        metavar="MODEL",
        group=_MEANING,
    )
    embedding_device: str = option(
        "cpu",
        "where that model runs; auto: on a GPU if there is one, which then has less memory for an engine",
        choices=("cpu", "cuda", "auto"),
        group=_MEANING,
    )
    embedding_precision: str = option(
        "auto",
        "what it computes in; auto: bf16 where the processor multiplies that in hardware, else fp32",
        choices=("auto", "fp32", "bf16"),
        group=_MEANING,
    )
    embedding_base_url: str = option(
        "",
        "address of the server for openai:NAME; none: $OPENAI_BASE_URL, else OpenAI's",
        metavar="URL",
        group=_MEANING,
    )
    embedding_api_key_env: str = option(
        "OPENAI_API_KEY", "environment variable that holds its key", metavar="NAME", group=_MEANING
    )

    def encoder_settings(self, cache: str = "") -> EncoderSettings:
        """The same for the encoder; `cache` is a file that keeps what a server answered ("": none)."""
        return EncoderSettings(
            self.embedding_model,
            self.embedding_base_url,
            self.embedding_api_key_env,
            self.embedding_device,
            self.embedding_precision,
            cache,
        )
