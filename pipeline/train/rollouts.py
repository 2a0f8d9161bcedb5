"""Answers drawn from the policy as it is now, by our own decoder on a merged copy of it.

transformers' generate runs every adapter at every token, keeps finished rows until the last one ends and
draws from the global random state. Here the adapter is merged into a copy in the precision of the machine,
every answer has a seed of its own, and a group of answers shares the computing of its prompt.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface

from pipeline.engines.base import Sampling
from pipeline.engines.decode import Decoder
from pipeline.engines.device import store_transposed
from pipeline.engines.kvcache import grouped_attention
from pipeline.train import adapters

AttentionInterface.register("grouped", grouped_attention)
_SLOTS = 32  # answers in the decoder at a time
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class PolicyCopy:
    """Draws answers; `sampling` says how, `ends` are the tokens that end one, `seed` that of the run.

    The copy computes in `precision`: fp32, bf16 or fp16.

    The policy of a step is copied at the first draw of that step.
    """

    def __init__(self, sampling: Sampling, ends: Sequence[int], seed: int, precision: str = "fp32") -> None:
        self._sampling, self._ends, self._seed = sampling, set(ends), seed
        self._dtype = _DTYPES[precision]
        self._decoder: Decoder | None = None
        self._step = -1

    def sync(self, policy: Any, step: int) -> None:
        """Copy the policy, merged, unless that was done in this step."""
        if step == self._step:
            return
        self._decoder = Decoder(merged_copy(policy, self._dtype), self._ends, _no_stop_strings, _SLOTS)
        self._step = step

    def draw(self, prompts: Sequence[list[int]], first: int, salt: str) -> list[list[int]]:
        """Token ids of an answer to each prompt, with the end token if it came to one.

        Answer i is drawn with a seed made of the run's, the `salt` and `first` + i: how answers are spread
        over processes changes none.
        """
        assert self._decoder is not None
        samplings = [
            Sampling(
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_tokens=self._sampling.max_tokens,
                seed=_seed(f"{self._seed}/{salt}/{first + number}"),
            )
            for number in range(len(prompts))
        ]
        found = self._decoder.generate(prompts, samplings)
        return [one.sampled + ([one.ended_with] if one.finish_reason == "stop" else []) for one in found]


def merged_copy(policy: Any, dtype: torch.dtype) -> Any:
    """A plain model with the policy's weights as they are, ready to decode with; the policy is left alone."""
    found = copy.deepcopy(policy)
    for module in found.modules():  # what trainers put there is bound to the model that was copied
        for name in ("forward", "_original_forward"):
            vars(module).pop(name, None)
    found = adapters.merge(found).eval().requires_grad_(False).to(dtype)
    found.set_attn_implementation("grouped")
    if found.device.type == "cpu":
        store_transposed(found)
    return found


def _no_stop_strings(ids: list[int]) -> str:
    return ""


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())
