"""The options of every command that asks a model: which engine, which limits, which cache."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option

_ENGINE, _SERVER, _VLLM, _LIMITS = "engine", "openai engine", "vllm engine", "budget and cache"
# Options that say how the answers are had, not which: a resumed run may change them.
MANNER = (
    *("base_url", "api_key_env", "concurrency", "request_timeout", "max_retries", "gpu_memory_frac"),
    *("max_requests", "max_tokens_total", "max_cost", "prices", "cache", "cache_file", "max_failed_frac"),
)


@dataclass(frozen=True)
class EngineOptions:
    """Where text comes from."""

    engine: str = option(
        "embedded",
        "where text comes from: a model in this process (transformers or vLLM), or a server",
        choices=("embedded", "openai", "vllm"),
        group=_ENGINE,
    )
    model: str = option(
        "",
        "directory or hub id, or the server's name of it; none: the embedded SmolLM2-135M-Instruct",
        metavar="MODEL",
        group=_ENGINE,
    )
    batch_size: int = option(
        0,
        "requests in a group of the embedded engine (0: 64) or in a batch file (0: 1000)",
        unit="requests",
        low=0,
        high=50000,
        group=_ENGINE,
    )
    slots: int = option(
        28, "sequences in the embedded model at a time", unit="sequences", low=1, high=1024, group=_ENGINE
    )
    concurrency: int = option(
        64,
        "requests in flight at a time (openai, vllm); fewer while a server says that it has too many",
        unit="requests",
        low=1,
        high=4096,
        group=_ENGINE,
    )
    window: int = option(
        256,
        "requests built ahead of the oldest unanswered one (openai, vllm); a longer window keeps the engine "
        "busy when answers differ in length, and sees the pool later",
        unit="requests",
        low=1,
        high=65536,
        group=_ENGINE,
    )
    max_failed_frac: float = option(
        0.2, "share of failed requests at which the run stops", low=0, high=1, group=_ENGINE
    )

    base_url: str = option(
        "",
        "the server's address, e.g. http://localhost:8000/v1; none: $OPENAI_BASE_URL, else OpenAI's",
        metavar="URL",
        group=_SERVER,
    )
    api_key_env: str = option(
        "OPENAI_API_KEY", "environment variable that holds the key", metavar="NAME", group=_SERVER
    )
    request_timeout: float = option(
        120.0, "longest wait for one answer before it is asked again", unit="seconds", low=0.1, group=_SERVER
    )
    max_retries: int = option(
        8,
        "further attempts of a request that failed for a passing reason",
        unit="attempts",
        low=0,
        group=_SERVER,
    )
    batch_api: bool = option(
        False, "write OpenAI batch files instead of asking, and read their results on --resume", group=_SERVER
    )

    lora: str = option("", "LoRA adapter to use", metavar="DIR", group=_VLLM)
    quantization: str = option("", "quantisation method, passed to vLLM", metavar="NAME", group=_VLLM)
    tensor_parallel: int = option(1, "GPUs that share one model", unit="GPUs", low=1, group=_VLLM)
    max_model_len: int = option(
        0, "longest prompt with answer; 0: what memory and model allow", unit="tokens", low=0, group=_VLLM
    )
    gpu_memory_frac: float = option(
        0.9, "share of the GPU's memory that vLLM may take", low=0.05, high=1, group=_VLLM
    )
    trust_remote_code: bool = option(False, "run Python code that comes with the model", group=_VLLM)

    max_requests: int = option(
        0, "stop before more requests than this are sent; 0: no limit", unit="requests", low=0, group=_LIMITS
    )
    max_tokens_total: int = option(
        0,
        "stop before more tokens of prompts and answers than this are used; 0: no limit",
        unit="tokens",
        low=0,
        group=_LIMITS,
    )
    max_cost: float = option(
        0.0,
        "stop before more money than this is spent; 0: no limit",
        unit="currency of --prices",
        low=0,
        group=_LIMITS,
    )
    prices: str = option(
        "",
        "YAML table of prices per million tokens, MODEL: {prompt: 0.15, completion: 0.60}",
        metavar="FILE",
        group=_LIMITS,
    )
    cache: str = option(
        "auto",
        "keep answers and take them from earlier runs; auto: for the openai engine. With the embedded engine "
        "and vLLM numbers depend on which requests are answered together, and so on what was cached",
        choices=("auto", "on", "off"),
        group=_LIMITS,
    )
    cache_file: str = option(
        "runs/requests.sqlite", "the cache, shared by all runs", metavar="FILE", group=_LIMITS
    )
