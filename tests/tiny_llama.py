"""A random Llama that decodes in milliseconds (4 query heads on 2 key heads), and a byte tokenizer for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import pipeline.engines.embedded  # noqa: F401 - registers the attention "grouped"

VOCAB = 300
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def network(attention: str) -> Any:
    """The same seeded weights under each attention; wide initial weights, so that the context matters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).float().eval()


def reference(model: Any, prompt: list[int], new: int, stop_ids: set[int]) -> list[int]:
    """What transformers' own greedy `generate` writes before the first stop token."""
    ids = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=new,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    return ids[:-1] if ids and ids[-1] in stop_ids else ids


def save(folder: Path, *, chat: bool = True) -> None:
    """Write the model and a tokenizer of one token a byte, plus the special ones, to load from `folder`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    # as in the converted model, not every special token has a role (bos, eos, ...)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2], unk_token=SPECIAL[0]
    )
    if chat:
        tokenizer.chat_template = TEMPLATE
    model = network("eager")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
