"""Mixing and splitting: what `--mix` words mean, exact counts, a clean split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.format.mixing import FLAN_CAP, mixture, normalise, parse_mix, split


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as caught:
        call()
    return str(caught.value)


# ---- --mix ----


def test_words_with_weights_and_without() -> None:
    assert parse_mix(["a.jsonl=0.7", "owner/name:train=3"]) == (["a.jsonl", "owner/name:train"], [0.7, 3.0])
    assert parse_mix(["a.jsonl", "b"]) == (["a.jsonl", "b"], None)
    assert parse_mix(["step=10/a.jsonl=1e-2"]) == (["step=10/a.jsonl"], [0.01])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "got no data set"),
        (["=0.5"], "there is no name"),
        (["a=1", "b"], "b has no weight, but others have"),
        (["a=1", "a=2"], "named twice"),
        (["a=half"], "'half' is not a number"),
        (["a="], "'' is not a number"),
        (["step=10/a.jsonl"], "'10/a.jsonl' is not a number"),
        (["a=0"], "the weight is 0, expected more than 0"),
        (["a=-1"], "the weight is -1"),
        (["a=nan"], "the weight is nan"),
        (["a=inf"], "the weight is inf"),
    ],
)
def test_words_that_are_refused(words: list[str], problem: str) -> None:
    assert problem in refusal(lambda: parse_mix(words))


# ---- mixture ----


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: mixture([3], None, 0, None, 0), "the cap is 0 rows"),
        (lambda: mixture([3, 0], None, 5, None, 0), "data set 2 has no rows"),
        (lambda: mixture([], None, 5, None, 0), "got no data set"),
        (lambda: mixture([3, 3], [1.0], 5, None, 0), "1 weights for 2 data sets"),
        (lambda: mixture([3, 3], [1.0, 0.0], 5, None, 0), "the weight is 0"),
        (lambda: mixture([3, 3], [1.0, float("nan")], 5, None, 0), "the weight is nan"),
        (lambda: mixture([3], None, 5, 0, 0), "the total is 0 rows"),
    ],
)
def test_mixtures_that_are_refused(call: Callable[[], object], problem: str) -> None:
    assert problem in refusal(call)


def test_weights_are_met_exactly() -> None:
    assert mixture([100, 100], [0.7, 0.3], FLAN_CAP, 10, 0).counts == (7, 3)
    # quotas 3 1/3 each: the left-over row goes to the first
    assert mixture([9, 9, 9], [1, 1, 1], FLAN_CAP, 10, 0).counts == (4, 3, 3)
    # quotas 5.4, 2.7, 0.9: floors 5, 2, 0, and the two left-over rows go to .9 and .7
    assert mixture([9, 9, 9], [6, 3, 1], FLAN_CAP, 9, 0).counts == (5, 3, 1)


def test_without_weights_large_sources_count_up_to_the_cap() -> None:
    drawn = mixture([10_000, 3_000, 1_000], None, FLAN_CAP, None, 0)
    assert drawn.counts == (3_000, 3_000, 1_000) and drawn.repeats == (0, 0, 0)
    # beyond the cap rows are drawn from the whole source, not from its first 3000
    assert max(row for source, row in drawn.rows if source == 0) > 9_000
    assert mixture([10_000, 3_000, 1_000], None, FLAN_CAP, 70, 0).counts == (30, 30, 10)
    # the cap bounds a share, not the rows
    assert mixture([10_000], None, FLAN_CAP, None, 0).counts == (10_000,)


def test_without_a_total_it_is_the_most_that_needs_no_row_twice() -> None:
    # 7 rows are 0.7 of 10; one more row would need an eighth
    drawn = mixture([7, 50], [0.7, 0.3], FLAN_CAP, None, 0)
    assert drawn.counts == (7, 3) and drawn.repeats == (0, 0)


def test_an_exhausted_source_begins_anew_and_says_so() -> None:
    drawn = mixture([3, 100], [1, 1], FLAN_CAP, 16, 5)
    assert drawn.counts == (8, 8) and drawn.repeats == (5, 0)
    times = Counter(row for source, row in drawn.rows if source == 0)
    assert sorted(times.values()) == [2, 3, 3]


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@given(SIZES, st.data())
def test_a_mixture_is_exact_even_and_repeatable(sizes: list[int], data: st.DataObject) -> None:
    weight = st.floats(0.01, 100)
    some = st.lists(weight, min_size=len(sizes), max_size=len(sizes))
    weights = data.draw(st.none() | some, "weights")
    cap, total = data.draw(st.integers(1, 40), "cap"), data.draw(st.none() | st.integers(1, 100), "total")
    drawn = mixture(sizes, weights, cap, total, 7)
    assert drawn == mixture(sizes, weights, cap, total, 7)
    assert len(drawn.rows) == sum(drawn.counts) and (total is None or len(drawn.rows) == total)
    parts = weights or [min(size, cap) for size in sizes]
    for source, size in enumerate(sizes):
        rows = Counter(row for s, row in drawn.rows if s == source)
        count = rows.total()
        assert count == drawn.counts[source] and drawn.repeats[source] == max(0, count - size)
        assert abs(count - len(drawn.rows) * parts[source] / sum(parts)) < 1 + 1e-6
        assert set(rows) <= set(range(size))
        each = [rows[row] for row in range(size)]
        assert max(each) - min(each) <= 1  # no row a third time before all have come twice
    if total is None:
        assert not any(drawn.repeats)


def test_another_seed_draws_other_rows_in_another_order() -> None:
    one, other = (mixture([1000, 1000], None, 20, 40, seed) for seed in (1, 2))
    assert one.counts == other.counts and set(one.rows) != set(other.rows)
    sources = [source for source, _ in one.rows]
    assert sources != sorted(sources)


# ---- split ----

KEYS = st.lists(st.text("aAbBｂ 中。．.\n", max_size=4), max_size=30)
FRACS = st.floats(0, 0.99)


@given(KEYS, FRACS, st.integers(0, 3))
def test_no_instruction_stands_on_both_sides(keys: list[str], frac: float, seed: int) -> None:
    train, validation = split(keys, frac, seed)
    assert sorted(train + validation) == list(range(len(keys)))
    assert not {normalise(keys[row]) for row in train} & {normalise(keys[row]) for row in validation}
    if frac and len({normalise(key) for key in keys}) > 1:
        assert train and validation
    if not frac:
        assert not validation


@given(st.permutations([f"task {i // 2}" for i in range(20)]), FRACS)
def test_a_split_does_not_depend_on_the_order(keys: list[str], frac: float) -> None:
    held = {keys[row] for row in split(keys, frac, 0)[1]}
    ordered = sorted(keys)
    assert held == {ordered[row] for row in split(ordered, frac, 0)[1]}


def test_the_share_is_about_right() -> None:
    keys = [f"instruction {i}" for i in range(10_000)]
    for frac in (0.02, 0.1, 0.5):
        # standard deviation: sqrt(10000 x frac x (1 - frac)), at most 50; four of them
        assert abs(len(split(keys, frac, 0)[1]) - 10_000 * frac) < 4 * (10_000 * frac * (1 - frac)) ** 0.5


def test_rows_that_are_added_move_no_others() -> None:
    keys = [f"instruction {i}" for i in range(200)]
    before = split(keys, 0.1, 0)[1]
    after = split([*keys, *(f"another {i}" for i in range(500))], 0.1, 0)[1]
    assert [row for row in after if row < 200] == before


def test_the_seed_changes_the_split() -> None:
    keys = [f"instruction {i}" for i in range(200)]
    assert split(keys, 0.1, 0) == split(keys, 0.1, 0) != split(keys, 0.1, 1)


def test_instructions_are_the_same_but_for_case_white_space_and_width() -> None:
    assert normalise("  Sum UP\nthis\u3000text ") == "sum up this text"
    assert normalise("翻译这句话：ＡＢＣ！") == normalise("翻译这句话:abc!")
    assert normalise("Straße") == normalise("STRASSE")


def test_a_single_instruction_is_trained_on() -> None:
    assert split(["a", "A "], 0.99, 0) == ([0, 1], [])
    assert split([], 0.5, 0) == ([], [])


@pytest.mark.parametrize("frac", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(frac: float) -> None:
    assert "expected at least 0 and less than 1" in refusal(lambda: split(["a", "b"], frac, 0))
