"""Opens the engine that the options ask for, with a judge, the cache and the budget around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engines.base import Engine
from pipeline.engines.batchfile import BatchFileEngine
from pipeline.engines.budget import Budget, BudgetedEngine, load_prices
from pipeline.engines.cache import CachedEngine, RequestCache
from pipeline.engines.judged import JudgedEngine
from pipeline.engines.models import language_model
from pipeline.engines.openai import OpenAIEngine
from pipeline.engines.vllm import VllmEngine
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.engines.options import EngineOptions

EMBEDDED_BATCH, FILE_BATCH = 64, 1000  # requests


def check_engine(options: EngineOptions, judge_model: str = "") -> None:
    """Refuse options that do not fit together and models that are not there. Raises PipelineError."""
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
        for name in filter(None, (options.model, judge_model)):
            language_model(name)
    _budget(options, judge_model)


@asynccontextmanager
async def open_engine(
    options: EngineOptions, folder: Path, judge_model: str = ""
) -> AsyncIterator[BudgetedEngine]:
    """The engine, ready to answer; closed at the end. `folder` is where batch files go.

    Requests with role "judge" go to `judge_model`, if there is one. Raises PipelineError.
    """
    cached = options.cache == "on" or (options.cache == "auto" and options.engine == "openai")
    cache = RequestCache(Path(options.cache_file)) if cached and not options.batch_api else None
    engines: list[Engine] = []
    try:
        for model in (options.model, *filter(None, [judge_model])):
            engines.append(_model(options, model, folder))
            if isinstance(engines[-1], OpenAIEngine | VllmEngine):
                await engines[-1].open()
        layered = [CachedEngine(engine, cache) if cache else engine for engine in engines]
        whole = JudgedEngine(layered[0], layered[1]) if judge_model else layered[0]
        yield BudgetedEngine(whole, _budget(options, judge_model))
    finally:
        for engine in engines:
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


def _budget(options: EngineOptions, judge_model: str) -> Budget:
    """The limits; where two models have prices, the higher ones count."""
    prices = None
    if options.prices:
        models = [options.model, *filter(None, [judge_model])]
        rows = [load_prices(Path(options.prices), model) for model in models]
        prices = max(p for p, _ in rows), max(c for _, c in rows)
    return Budget(options.max_requests, options.max_tokens_total, options.max_cost, prices)
