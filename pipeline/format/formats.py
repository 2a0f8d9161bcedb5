"""The formats by name: a way of phrasing examples and a chat template."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """How examples become messages (`phrasing`) and messages text (`template`, "": the tokenizer's own)."""

    phrasing: str
    template: str
    summary: str


FORMATS = {
    "chat": Format("plain", "", "the tokenizer's own chat template"),
    "alpaca": Format("apart", "alpaca", "Alpaca's sections, with and without input"),
    "alpaca-zh": Format("apart", "alpaca-zh", "the same in Chinese"),
    "self-instruct": Format("self-instruct", "bare", "Self-Instruct's varied encodings"),
    "qa": Format("plain", "qa", "plain question and answer"),
    "qa-zh": Format("plain", "qa-zh", "the same in Chinese"),
    "flan": Format("flan", "", "FLAN's families of phrasings in the tokenizer's own template"),
    "flan-bare": Format("flan", "bare", "the same without any template"),
}
