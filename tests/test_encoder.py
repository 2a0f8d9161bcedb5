"""Texts to vectors: the model's own vectors in the texts' own order, whoever shares a batch."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup import encoder as module
from pipeline.dedup import token_batches
from pipeline.dedup.encoder import EncoderSettings, NoEncoder, SentenceEncoder, encoder_for
from pipeline.dedup.token_batches import cut
from pipeline.engines.device import compute
from pipeline.engines.models import SENTENCE_WHEEL, sentence_model
from pipeline.errors import PipelineError

has_model = pytest.mark.skipif(
    importlib.util.find_spec(SENTENCE_WHEEL[0]) is None,
    reason=f"the wheel {SENTENCE_WHEEL[1]} is not installed",
)
WORDS = (
    "write explain a short poem about the old bridge and its builders in simple words 请 写 一首 诗".split()
)


def sentences(count: int) -> list[str]:
    """Texts of 1 to 40 words in no order of length."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) for _ in range(count)]


# ---- which encoder ----


def test_the_settings_choose_the_encoder() -> None:
    kinds = {
        model: type(encoder_for(EncoderSettings(model, "http://h/v1"))).__name__ for model in ("", "off")
    }
    assert kinds == {"": "SentenceEncoder", "off": "NoEncoder"}
    served = encoder_for(EncoderSettings("openai:smol", "http://h/v1"))
    assert (type(served).__name__, served.name) == ("EndpointEncoder", "smol")


def test_chinese_is_covered_only_by_a_named_model() -> None:
    default, named = SentenceEncoder(), SentenceEncoder(EncoderSettings("owner/multilingual"))
    assert (default.covers("en"), default.covers("zh")) == (True, False)
    assert (named.covers("en"), named.covers("zh")) == (True, True)
    assert (NoEncoder().covers("en"), NoEncoder().covers("zh")) == (False, False)


def test_no_encoder_makes_vectors_without_dimensions() -> None:
    assert encoder_for(EncoderSettings("off")).encode(["a", "写诗"]).shape == (2, 0)


def test_a_model_that_is_not_there_is_a_one_line_error(tmp_path: Path) -> None:
    encoder = SentenceEncoder(EncoderSettings(str(tmp_path / "gone")))
    for use in (encoder.check, lambda: encoder.encode(["a"])):
        with pytest.raises(PipelineError, match="no such directory and not a hub id"):
            use()


def test_a_gpu_that_is_not_there_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match="--embedding-device: got cuda, but torch sees no GPU"):
        module._device("cuda")
    assert module._device("auto") == "cpu"


@pytest.mark.parametrize("native", [True, False])
def test_precision_follows_the_processor_unless_it_is_named(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(module, "native_bf16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    expected = "bf16" if native else "fp32"
    assert module._precision("cpu", "auto") == module._precision("cuda", "auto") == expected
    assert (module._precision("cpu", "fp32"), module._precision("cpu", "bf16")) == ("fp32", "bf16")


# ---- batches ----


@given(st.lists(st.integers(1, 60)), st.integers(1, 200))
def test_batches_cover_all_texts_within_the_budget(lengths: list[int], budget: int) -> None:
    lengths.sort()
    edges = list(cut(lengths, budget))
    assert [number for begin, end in edges for number in range(begin, end)] == list(range(len(lengths)))
    for begin, end in edges:
        assert end - begin == 1 or (end - begin) * lengths[end - 1] <= budget
    for (begin, end), _ in zip(edges, edges[1:], strict=False):  # and none could have taken one more
        assert (end + 1 - begin) * lengths[end] > budget


@pytest.mark.parametrize("left", [False, True])
def test_padding_is_cut_off_on_either_side_and_tokens_stay_together(
    left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    lengths = [5, 1, 3, 0, 2, 8, 3]
    rows = [[number * 10 + 1 + place for place in range(length)] for number, length in enumerate(lengths)]
    pads = [[0] * (9 - length) for length in lengths]  # one column more than any text needs
    ids = torch.tensor([pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)])
    features = {"input_ids": ids, "attention_mask": (ids > 0).long(), "modality": "text", "prompt_length": 2}
    model: Any = SimpleNamespace(
        prompts={"query": "Query: "},
        default_prompt_name="query",
        device=torch.device("cpu"),
        preprocess=lambda texts, prompt: features if prompt == "Query: " else None,
    )
    monkeypatch.setitem(token_batches._BUDGET, "cpu", 8)
    seen: dict[int, list[int]] = {}
    widths = []
    for numbers, batch in token_batches.token_batches(model, ["text"] * 7):
        assert (batch["modality"], batch["prompt_length"]) == ("text", 2)
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        widths.append(tuple(batch["input_ids"].shape))
        for number, row in zip(numbers.tolist(), batch["input_ids"].tolist(), strict=True):
            seen[number] = [token for token in row if token]
    assert [seen[number] for number in range(7)] == rows
    # ascending lengths 0 1 2 | 3 3 | 5 | 8: three times 2 make 6, four times 3 would make 12
    assert widths == [(3, 2), (2, 3), (1, 5), (1, 8)]


# ---- real models ----


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return SentenceEncoder(EncoderSettings(precision="fp32"))


@has_model
def test_the_vectors_are_those_of_sentence_transformers_itself(minilm: SentenceEncoder) -> None:
    texts = sentences(150)
    theirs = minilm.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    ours = minilm.encode(texts)
    assert ours.shape == (150, 384) and ours.dtype == np.float32
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(ours - theirs).max() < 1e-5


@has_model
def test_a_vector_does_not_depend_on_who_shares_the_batch(minilm: SentenceEncoder) -> None:
    texts = [*sentences(40), "word " * 300]  # the last is longer than the model reads
    together, alone = minilm.encode(texts), np.concatenate([minilm.encode([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.array_equal(minilm.encode(texts), together)  # and the same call gives the same bytes


@has_model
def test_order_is_restored_across_parts_that_are_tokenised_apart(
    minilm: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = sentences(30)
    whole = minilm.encode(texts)
    monkeypatch.setattr(module, "_TOKENISED", 7)
    assert np.abs(minilm.encode(texts) - whole).max() < 1e-5


@has_model
def test_few_texts_are_encoded_by_one_core_and_many_by_all(
    minilm: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    used, encode = list[int](), SentenceEncoder._encode
    monkeypatch.setattr(
        SentenceEncoder, "_encode", lambda *args: (used.append(torch.get_num_threads()), encode(*args))[1]
    )
    all_of_them = compute(torch.get_num_threads)
    apart = np.vstack([minilm.encode([text]) for text in ("Write a poem.", "写一首诗。")] * 4)
    together = minilm.encode(["Write a poem.", "写一首诗。"] * 4)
    assert used == [1, 1, all_of_them] and compute(torch.get_num_threads) == all_of_them
    np.testing.assert_allclose(apart, together, atol=1e-5)


@has_model
def test_many_texts_are_encoded_batch_by_batch_on_all_cores(
    minilm: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    texts, before = [*sentences(290), "", "写一首诗。" * 9], compute(torch.get_num_threads)
    monkeypatch.setattr(module, "_MANY", 1000)
    alone = minilm.encode(texts)
    monkeypatch.setattr(module, "_MANY", 256)
    monkeypatch.setitem(token_batches._BUDGET, "cpu", 64)
    used, vectors = set[int](), SentenceEncoder._vectors
    monkeypatch.setattr(
        SentenceEncoder, "_vectors", lambda *args: (used.add(torch.get_num_threads()), vectors(*args))[1]
    )
    spread = minilm.encode(texts)
    assert np.abs(spread - alone).max() < 1e-5 and np.array_equal(minilm.encode(texts), spread)
    assert compute(torch.get_num_threads) == before
    if before > 1:
        assert used == {1}
    monkeypatch.setattr(SentenceEncoder, "_vectors", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        minilm.encode(texts)
    assert compute(torch.get_num_threads) == before


@has_model
def test_nothing_and_empty_texts_are_encoded_too(minilm: SentenceEncoder) -> None:
    assert minilm.encode([]).shape == (0, 384)
    assert np.isfinite(minilm.encode(["", "写诗", ""])).all()


@has_model
def test_bf16_is_near_enough_to_fp32_and_comes_out_as_fp32(minilm: SentenceEncoder) -> None:
    narrow, texts = SentenceEncoder(EncoderSettings(precision="bf16")), sentences(20)
    found = narrow.encode(texts)
    assert found.dtype == np.float32 and (narrow.precision, minilm.precision) == ("bf16", "fp32")
    cosines = (found * minilm.encode(texts)).sum(axis=1)
    assert cosines.min() > 0.999 and cosines.min() < 1 - 1e-7  # so it was not fp32


@has_model
def test_any_sentence_transformers_directory_is_read(minilm: SentenceEncoder) -> None:
    named = SentenceEncoder(EncoderSettings(str(sentence_model()), precision="fp32"))
    named.check()
    texts = sentences(5)
    assert np.array_equal(named.encode(texts), minilm.encode(texts))
    assert named.covers("zh") and named.name == str(sentence_model())


def test_a_model_without_attention_is_read_too(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(["?", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.random.default_rng(0).normal(size=(len(vocabulary), 8)).astype(np.float32)
    static = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"))
    encoder, texts = SentenceEncoder(EncoderSettings(str(tmp_path / "static"))), sentences(50)
    found = encoder.encode(texts)
    # the mean of a text's word vectors, on the unit sphere
    means = np.stack([weights[[vocabulary[word] for word in text.split()]].mean(axis=0) for text in texts])
    assert found == pytest.approx(means / np.linalg.norm(means, axis=1, keepdims=True), abs=1e-5)
