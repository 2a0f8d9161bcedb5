"""Decoding in slots is transformers' own decoding, whatever shares the batch. On a tiny random Llama."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_llama import VOCAB, network, reference

from pipeline.engines import decode
from pipeline.engines.base import Sampling
from pipeline.engines.decode import Decoder
from pipeline.engines.draw import draw
from pipeline.engines.kvcache import SlotCache
from pipeline.engines.sequences import Sequence_

_random = random.Random(7)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost a model this small several times what they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ids(length: int) -> list[int]:
    return [_random.randrange(VOCAB) for _ in range(length)]


SHARED = ids(40)
# long and short ones, three with a shared beginning, two the same, more of them than slots
PROMPTS = [ids(3), ids(90), SHARED + ids(5), ids(1), SHARED + ids(30), SHARED + ids(1), ids(17), ids(17)]
PROMPTS.append(PROMPTS[1])
LENGTHS = [12, 3, 20, 20, 1, 7, 20, 15, 9]


def text(tokens: list[int]) -> str:
    """One character a token."""
    return "".join(chr(0x4E00 + token) for token in tokens)


@cache
def expected(number: int, new: int, stop_ids: frozenset[int] = frozenset()) -> list[int]:
    return reference(network("eager"), PROMPTS[number], new, set(stop_ids))


def decoder(slots: int = 4, stop_ids: set[int] | None = None) -> Decoder:
    return Decoder(network("grouped"), stop_ids or set(), text, slots)


def greedy(lengths: list[int], **how: Any) -> list[Sampling]:
    return [Sampling(max_tokens=n, **how) for n in lengths]


def drawn(temperature: float = 0.9, **how: Any) -> list[Sampling]:
    return [Sampling(temperature, 0.95, max_tokens=15, seed=i, **how) for i in range(len(PROMPTS))]


@torch.inference_mode()
def by_full_forwards(prompt: list[int], sampling: Sampling) -> list[int]:
    """The plainest sampler: the whole text through the model for every token, no cache and no batch."""
    uniform, out = np.random.default_rng(sampling.seed), list[int]()
    while len(out) < sampling.max_tokens:
        logits = network("eager")(torch.tensor([prompt + out])).logits[0, -1:].clone()
        for token in out:
            logits[0, token] -= sampling.frequency_penalty
        out += draw(logits, [sampling], [uniform.random()])
    return out


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 32])
def test_greedy_answers_are_those_of_transformers_whatever_the_slots(slots):
    found = decoder(slots).generate(PROMPTS, greedy(LENGTHS))
    for i, sequence in enumerate(found):
        assert sequence.sampled == expected(i, LENGTHS[i])
        assert (sequence.prompt, sequence.finish_reason) == (PROMPTS[i], "length")


def test_the_greedy_answers_differ_so_that_the_comparison_says_something():
    found = decoder().generate(PROMPTS, greedy([20] * len(PROMPTS)))
    assert len({tuple(s.sampled) for s in found}) == len(PROMPTS) - 1  # two prompts are the same
    assert all(len(set(s.sampled)) > 3 for s in found)


def test_a_special_token_ends_an_answer_and_is_not_part_of_it():
    free = decoder().generate(PROMPTS, greedy([20] * len(PROMPTS)))
    ends = {free[0].sampled[4], free[1].sampled[9], free[6].sampled[0]}
    found = decoder(stop_ids=ends).generate(PROMPTS, greedy([20] * len(PROMPTS)))
    for i, sequence in enumerate(found):
        assert sequence.sampled == expected(i, 20, frozenset(ends))
        assert sequence.finish_reason == ("length" if len(sequence.sampled) == 20 else "stop")
    assert (found[6].sampled, found[6].finish_reason) == ([], "stop")


def test_drawn_answers_are_those_of_a_loop_of_full_forwards():
    settings = drawn()
    settings[2] = Sampling(1.3, 0.5, max_tokens=15, seed=99)
    settings[3] = Sampling(max_tokens=15)  # greedy beside drawn rows
    found = [s.sampled for s in decoder(3).generate(PROMPTS, settings)]
    assert found == [by_full_forwards(p, s) for p, s in zip(PROMPTS, settings, strict=True)]


def test_the_frequency_penalty_is_taken_off_once_per_earlier_use():
    plain, settings = greedy([20] * 9), greedy([20] * 9, frequency_penalty=1.5)
    found = [s.sampled for s in decoder().generate(PROMPTS, settings)]
    assert found == [by_full_forwards(p, s) for p, s in zip(PROMPTS, settings, strict=True)]
    assert found != [s.sampled for s in decoder().generate(PROMPTS, plain)]


def test_a_token_used_twice_pays_the_frequency_penalty_twice():
    # at 1.0 a use: token 7 (three uses) falls from 5 to 2, token 8 (one) from 4 to 3, token 9 stays at 2.5
    logits = torch.zeros(1, VOCAB)
    logits[0, 7:10] = torch.tensor([5.0, 4.0, 2.5])
    sequence = Sequence_([1], Sampling(frequency_penalty=1.0, max_tokens=9), sampled=[7, 8, 7, 7])
    decoder()._extend([sequence], [logits])
    assert sequence.sampled == [7, 8, 7, 7, 8]


def test_the_same_seed_draws_the_same_and_another_seed_another():
    one, same = (decoder(slots).generate(PROMPTS, drawn()) for slots in (4, 2))
    assert [s.sampled for s in one] == [s.sampled for s in same]
    twins = decoder().generate([PROMPTS[0]] * 3, [Sampling(1.0, max_tokens=15, seed=s) for s in (5, 5, 6)])
    assert twins[0].sampled == twins[1].sampled != twins[2].sampled
    plain, other = decoder().generate([PROMPTS[0]] * 2, [Sampling(max_tokens=15, seed=s) for s in (5, 6)])
    assert plain.sampled == other.sampled  # at temperature 0 the seed does not matter


@pytest.mark.parametrize("width", [1, 2, 18])
def test_a_stop_string_ends_the_answer_at_the_token_that_completes_it(width):
    setting = Sampling(1.0, max_tokens=30, seed=3)
    free = decoder().generate(PROMPTS[:1], [setting])[0].sampled
    stop = text(free[6 : 6 + width])  # 18 characters: longer than any fixed window of 16 tokens
    found = decoder().generate(PROMPTS[:1], [replace(setting, stop=("never", stop))])[0]
    assert found.finish_reason == "stop"
    assert text(found.sampled).endswith(stop) and found.sampled == free[: len(found.sampled)]
    assert text(found.sampled).count(stop) == 1


def test_a_stop_on_the_last_allowed_token_counts_as_a_stop():
    free = decoder().generate(PROMPTS[:1], greedy([5]))[0].sampled
    stop = text(free[3:5])
    assert decoder().generate(PROMPTS[:1], greedy([5], stop=(stop,)))[0].finish_reason == "stop"
    assert decoder().generate(PROMPTS[:1], greedy([4], stop=(stop,)))[0].finish_reason == "length"


def test_scores_are_sums_of_log_softmax_over_the_continuation():
    pairs = [
        [(PROMPTS[1], ids(4)), (PROMPTS[1], ids(1)), (PROMPTS[1] + ids(6), ids(9))],
        [(PROMPTS[3], ids(2))],
        [(SHARED + ids(n), ids(3)) for n in (1, 2, 30, 4, 5, 6, 7, 8)],  # more rows than are scored at once
    ]

    @torch.inference_mode()
    def plain(prompt: list[int], choice: list[int]) -> float:
        logprobs = network("eager")(torch.tensor([prompt + choice])).logits[0].log_softmax(-1)
        return sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(choice))

    for slots in (2, 32):
        found = decoder(slots).score(pairs)
        for options, sums in zip(pairs, found, strict=True):
            assert sums == pytest.approx([plain(*option) for option in options], abs=1e-3)


def test_padding_beyond_the_cache_overwrites_nothing():
    # the two that share 40 tokens fill the cache of 43; beside the third their own 3 are padded to 35
    pairs = [[(SHARED + [1, 2], [3])], [(SHARED + [4, 5], [6])], [(ids(30), ids(5))]]
    together = decoder().score(pairs)
    alone = [decoder().score([pair])[0] for pair in pairs]
    assert np.ravel(together) == pytest.approx(np.ravel(alone), abs=1e-3)


def test_nothing_to_do_gives_nothing_and_an_empty_continuation_scores_0():
    assert decoder().generate([], []) == [] and decoder().score([]) == []
    assert decoder().score([[(PROMPTS[0], []), (PROMPTS[0], [1])], []])[0][0] == 0.0


def test_what_lies_in_unused_cache_has_no_influence(monkeypatch):
    before = [s.sampled for s in decoder().generate(PROMPTS, drawn())]
    fresh = SlotCache._buffer
    monkeypatch.setattr(SlotCache, "_buffer", lambda *args: fresh(*args).fill_(1e4))
    assert [s.sampled for s in decoder().generate(PROMPTS, drawn())] == before


def test_a_short_prompt_beside_a_long_one_gives_finite_numbers():
    rows = [[(ids(1), ids(1))], [(ids(200), ids(40))]]
    assert np.isfinite(decoder().score(rows)).all()


def test_prompts_wider_than_one_prefill_are_fed_in_parts(monkeypatch):
    before = [s.sampled for s in decoder(8).generate(PROMPTS, greedy(LENGTHS))]
    monkeypatch.setattr(decode, "PREFILL_TOKENS", 20)
    assert [s.sampled for s in decoder(8).generate(PROMPTS, greedy(LENGTHS))] == before


def test_a_shared_prefix_is_fed_once_and_no_more_rows_than_slots():
    shapes: list[tuple[int, ...]] = []
    hook = network("grouped").register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        worker = decoder(2)
        worker.generate([[*SHARED, i] for i in range(5)], greedy([1] * 5))
    finally:
        hook.remove()
    # the 40 shared tokens once, then the five own ones in slots of two
    assert shapes == [(1, 40), (2, 1), (2, 1), (1, 1)]
    assert worker.tokens_drawn == 5
