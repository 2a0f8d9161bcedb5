"""Opens the engine that the options ask for, other models beside it, cache and budget around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engines.base import Engine
from pipeline.engines.batchfile import BatchFileEngine
from pipeline.engines.budget import Budget, BudgetedEngine, load_prices
from pipeline.engines.cache import CachedEngine, RequestCache
from pipeline.engines.models import language_model
from pipeline.engines.openai import OpenAIEngine
from pipeline.engines.routed import RoutedEngine
from pipeline.engines.vllm import VllmEngine
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.engines.options import EngineOptions

EMBEDDED_BATCH, FILE_BATCH = 64, 1000  # requests


def check_engine(options: EngineOptions, others: Iterable[str] = ()) -> None:
    """Refuse options that do not fit together and models, `others` too, that are not there.

    Raises PipelineError.
    """
    if options.engine == "openai" and not options.model:
        raise PipelineError("--model", "got none, expected the server's name of one", "Name it.")
    if options.batch_api and options.engine != "openai":
        raise PipelineError(
            "--batch-api", f"got --engine {options.engine}, expected openai", "Add --engine openai."
        )
    if options.window < options.concurrency and options.engine != "embedded":
        problem = f"got {options.window}, expected at least --concurrency ({options.concurrency})"
        raise PipelineError("--window", problem, "Raise it, or lower --concurrency.")
    if options.engine != "openai":
        for name in dict.fromkeys((options.model, *others)):
            language_model(name)
    _budget(options, others)


@asynccontextmanager
async def open_engine(
    options: EngineOptions, folder: Path, others: Mapping[str, str] | None = None
) -> AsyncIterator[BudgetedEngine]:
    """The engine, ready to answer; closed at the end. `folder` is where batch files go.

    Requests whose role is in `others` go to the model named there. Raises PipelineError.
    """
    cached = options.cache == "on" or (options.cache == "auto" and options.engine == "openai")
    cache = RequestCache(Path(options.cache_file)) if cached and not options.batch_api else None
    engines: dict[str, Engine] = {}  # by model
    roles = others or {}
    try:
        for model in dict.fromkeys((options.model, *roles.values())):
            engines[model] = engine = _model(options, model, folder)
            if isinstance(engine, OpenAIEngine | VllmEngine):
                await engine.open()
        layered = {model: CachedEngine(one, cache) if cache else one for model, one in engines.items()}
        whole = layered[options.model]
        if roles:
            whole = RoutedEngine(whole, {role: layered[model] for role, model in roles.items()})
        yield BudgetedEngine(whole, _budget(options, roles.values()))
    finally:
        for engine in engines.values():
            await engine.close()
        if cache:
            cache.close()


def _model(options: EngineOptions, model: str, folder: Path) -> Engine:
    """One model behind the engine asked for."""
    if options.batch_api:
        return BatchFileEngine(folder / "batches", model, options.batch_size or FILE_BATCH)
    if options.engine == "openai":
        return OpenAIEngine(
            model,
            options.base_url,
            options.api_key_env,
            options.concurrency,
            options.window,
            options.request_timeout,
            options.max_retries,
        )
    if options.engine == "vllm":
        return VllmEngine(
            model,
            options.concurrency,
            options.window,
            lora=options.lora,
            quantization=options.quantization,
            tensor_parallel=options.tensor_parallel,
            max_model_len=options.max_model_len,
            trust_remote_code=options.trust_remote_code,
            gpu_memory_frac=options.gpu_memory_frac,
        )
    from pipeline.engines.embedded import EmbeddedEngine

    return EmbeddedEngine(model, options.batch_size or EMBEDDED_BATCH, options.slots)


def _budget(options: EngineOptions, others: Iterable[str]) -> Budget:
    """The limits; where several models have prices, the highest count."""
    prices = None
    if options.prices:
        rows = [load_prices(Path(options.prices), model) for model in (options.model, *others)]
        prices = max(p for p, _ in rows), max(c for _, c in rows)
    return Budget(options.max_requests, options.max_tokens_total, options.max_cost, prices)
