"""The embedded engine: a transformers model in this process, on CPU or GPU, no key and no server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

from pipeline.engines.base import NotSent, Request, Response
from pipeline.engines.decode import Decoder
from pipeline.engines.device import compute, native_bf16, start, store_transposed
from pipeline.engines.kvcache import grouped_attention
from pipeline.engines.models import LANGUAGE_MODEL, language_model, language_model_license, quiet
from pipeline.engines.tokens import Encoder, misfit
from pipeline.errors import PipelineError

AttentionInterface.register("grouped", grouped_attention)


class EmbeddedEngine:
    """Answers groups of `batch_size` requests, one after the other, with `slots` of them in the model.

    It is given one group at a time: a second one at hand would save the 1% that filtering takes between two,
    and cost more in proposals that come too late to be needed.
    """

    groups_in_flight = 1
    can_score, can_structure = True, False

    def __init__(self, model: str = "", batch_size: int = 64, slots: int = 32) -> None:
        quiet()
        folder = language_model(model)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.bfloat16 if self.device == "cuda" or native_bf16() else torch.float32
        self.model, self.batch_size = model or LANGUAGE_MODEL.split("/")[1], batch_size
        self.tokenizer, network = compute(_load, folder, self.dtype, self.device)
        self.window = int(network.config.max_position_embeddings)
        self.encoder = Encoder(self.tokenizer, self.model)
        stops = {*self.encoder.special_ids, *_as_list(network.generation_config.eos_token_id)}
        self.decoder = Decoder(network, stops, lambda ids: str(self.tokenizer.decode(ids)), slots)
        self.license = language_model_license(model, folder)
        self._turn, self._stopped = asyncio.Lock(), False

    @property
    def has_chat(self) -> bool:
        """Whether the model has a chat template."""
        return self.encoder.has_chat

    @property
    def tokens_drawn(self) -> int:
        """Tokens sampled so far, those of the group at work included."""
        return self.decoder.tokens_drawn

    @property
    def precision(self) -> str:
        """What the numbers are computed in, for the log and the run's record."""
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device}"

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer one group; the model runs in a thread so that the caller's loop stays free."""
        async with self._turn:
            if self._stopped:
                raise NotSent("the engine was stopped")
            return await asyncio.wrap_future(start(self._answer, list(requests)))

    def stop(self) -> None:
        """Finish the group at work and take no other."""
        self._stopped = True

    async def close(self) -> None:
        """Nothing to let go of."""

    def _answer(self, requests: list[Request]) -> list[Response]:
        prompts = [self.encoder.prompt(r) for r in requests]
        answers: dict[int, Response] = {}
        pairs = [self.encoder.choices(r, prompt) for prompt, r in zip(prompts, requests, strict=True)]
        for i, request in enumerate(requests):
            drawing = 0 if request.choices else request.sampling.max_tokens
            if error := misfit(pairs[i] or [(prompts[i], [])], drawing, self.window):
                answers[i] = Response("", "error", len(prompts[i]), 0, error=error)
        scored = [i for i, r in enumerate(requests) if r.choices and i not in answers]
        drawn = [i for i, r in enumerate(requests) if not r.choices and i not in answers]
        for i, values in zip(scored, self.decoder.score([pairs[i] for i in scored]), strict=True):
            answers[i] = Response("", "score", len(prompts[i]), 0, tuple(round(v, 4) for v in values))
        outputs = self.decoder.generate([prompts[i] for i in drawn], [requests[i].sampling for i in drawn])
        for i, out in zip(drawn, outputs, strict=True):
            text = self._cut(self.tokenizer.decode(out.sampled), requests[i].sampling.stop)
            if out.finish_reason == "length":  # it may have ended within a character
                text = text.rstrip("\N{REPLACEMENT CHARACTER}")
            answers[i] = Response(text, out.finish_reason, len(out.prompt), len(out.sampled))
        return [answers[i] for i in range(len(requests))]

    @staticmethod
    def _cut(text: str, stops: Sequence[str]) -> str:
        """The text before the first stop string."""
        return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _load(folder: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """The tokenizer and the network in a directory. Raises PipelineError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        network: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="grouped", use_safetensors=True
        )
    except Exception as error:  # one of a dozen unrelated types; all mean that the files do not do
        said = (str(error).strip() or "no reason given").splitlines()[0][:200].rstrip(".")
        raise PipelineError(
            f"model {folder}",
            f"cannot be loaded ({type(error).__name__}: {said})",
            "Give a causal language model that transformers supports, with its tokenizer.",
        ) from error
    network = network.to(device).eval()
    if device == "cpu":
        store_transposed(network)
    return tokenizer, network


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]
