"""Which answers are paired: strategies, margins, ties, lengths, refusals; and what a judge's words mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.engines.base import Response
from pipeline.intervals import mean, share
from pipeline.judging.answers import Answer, near_identical
from pipeline.judging.flow import Case
from pipeline.judging.model_judge import FIRST, SECOND, TIE, Comparison, parse_rating, parse_verdict
from pipeline.judging.options import PAIRWISE, SCALAR, Options
from pipeline.judging.pairs import pairs
from pipeline.judging.scores import deciding
from pipeline.records import Drop, Prompt

PROMPT = Prompt("p", ({"role": "user", "content": "Say something."},), "en")


def case(*scores: float, judge: str = SCALAR, texts: dict[int, str] | None = None) -> Case:
    answers = [Answer(f"p/{i}", (texts or {}).get(i, f"answer {i}"), "m") for i in range(len(scores))]
    for answer, score in zip(answers, scores, strict=True):
        answer.scores[judge] = score
    return Case(PROMPT, answers)


def numbers(one: Case, **options: Any) -> list[tuple[int, int]]:
    found = pairs(one, [SCALAR, PAIRWISE], replace(Options(), **options))
    assert not isinstance(found, Drop), found
    return [(int(pair.chosen.id[2:]), int(pair.rejected.id[2:])) for pair in found]


def test_the_best_is_paired_with_the_worst_then_the_second_best_with_the_second_worst() -> None:
    one = case(0.2, 0.9, 0.6, 0.4)
    assert numbers(one) == [(1, 0)]
    assert numbers(one, max_pairs=2) == [(1, 0), (2, 3)]
    assert numbers(one, max_pairs=9) == [(1, 0), (2, 3)]  # no answer is in two pairs


def test_by_margin_all_pairs_come_the_largest_first() -> None:
    # margins of (0.9, 0.2), (0.6, 0.2), (0.9, 0.6): 0.7, 0.4, 0.3
    one = case(0.2, 0.9, 0.6)
    assert numbers(one, pairs="margin", max_pairs=9) == [(1, 0), (2, 0), (1, 2)]
    assert numbers(one, pairs="margin", max_pairs=9, min_margin=0.35) == [(1, 0), (2, 0)]


def test_the_best_with_others_by_chance_depends_on_seed_and_prompt_alone() -> None:
    one = case(0.1, 0.2, 0.3, 0.9, 0.9)
    drawn = [numbers(one, pairs="best-random", seed=seed)[0] for seed in range(20)]
    assert drawn == [numbers(one, pairs="best-random", seed=seed)[0] for seed in range(20)]
    assert {chosen for chosen, _ in drawn} == {3}  # of equals the one drawn first
    assert {rejected for _, rejected in drawn} == {0, 1, 2}  # never its equal


def test_a_refusal_is_rejected_and_never_chosen() -> None:
    one = case(0.9, 0.5, 0.1)
    one.answers[0].refused = True
    assert numbers(one, max_pairs=3) == [(1, 2)]
    one.answers[1].refused = one.answers[2].refused = True
    for strategy in ("best-worst", "best-random", "margin"):
        assert isinstance(pairs(one, [SCALAR], replace(Options(), pairs=strategy)), Drop)


def test_pairs_of_other_lengths_are_passed_over() -> None:
    one = case(0.9, 0.8, 0.1, texts={0: "a b c d e f", 1: "a b", 2: "c d"})
    assert numbers(one) == [(0, 2)]
    assert numbers(one, max_length_ratio=2) == [(1, 2)]
    zh = case(0.9, 0.1, texts={0: "好好学习天天向上", 1: "好"})  # eight characters and one
    assert pairs(zh, [SCALAR], replace(Options(), max_length_ratio=4)) == Drop("no_fitting_pair", "1 length")


def test_a_pair_that_was_a_tie_itself_is_left_out_unless_ties_are_kept() -> None:
    one = case(0.75, 0.25, 0.5, judge=PAIRWISE)
    one.comparisons = {(0, 1): Comparison(FIRST, FIRST), (0, 2): Comparison(FIRST, SECOND)}
    one.comparisons[1, 2] = Comparison(SECOND, FIRST)
    # 0 and 1 are furthest apart but flipped; next come 0 over 2 and 2 over 1
    assert numbers(one, max_pairs=3) == [(0, 2)]
    assert numbers(one, keep_ties=True) == [(0, 1)]


def test_a_pair_goes_the_way_of_its_own_comparison() -> None:
    # 1 won against everybody but 0, and has the higher share all the same
    one = case(0.5, 0.75, 0.0, judge=PAIRWISE)
    one.comparisons = {(0, 1): Comparison(FIRST, SECOND)}
    assert pairs(one, [PAIRWISE], replace(Options(), max_pairs=3)) == Drop("no_fitting_pair", "3 tied")


def test_prompts_without_a_pair_say_why() -> None:
    assert pairs(case(0.5), [SCALAR], Options()) == Drop("too_few_answers", "1 usable")
    assert pairs(case(0.5, 0.5), [SCALAR, PAIRWISE], Options()) == Drop(
        "no_difference", "scalar: 0.5, pairwise: none"
    )
    assert pairs(case(0.5, 0.6), [SCALAR], replace(Options(), min_margin=0.2)) == Drop(
        "no_fitting_pair", "1 margin"
    )


def test_the_first_judge_that_tells_answers_apart_decides() -> None:
    one = case(0.5, 0.5)
    for answer, score in zip(one.answers, (0.1, 0.2), strict=True):
        answer.scores[PAIRWISE] = score
    assert deciding(one, [SCALAR, PAIRWISE]) == PAIRWISE
    assert deciding(one, [SCALAR]) is None


@pytest.mark.parametrize(
    ("verdicts", "winner", "flipped"),
    [
        ((FIRST, SECOND), 0, False),
        ((SECOND, FIRST), 1, False),
        ((FIRST, FIRST), None, True),
        ((SECOND, SECOND), None, True),
        ((TIE, FIRST), None, False),
        ((TIE, TIE), None, False),
        ((None, FIRST), None, False),
    ],
)
def test_a_verdict_counts_only_in_both_orders(
    verdicts: tuple[str | None, str | None], winner: int | None, flipped: bool
) -> None:
    assert (Comparison(*verdicts).winner, Comparison(*verdicts).flipped) == (winner, flipped)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", FIRST),
        (" B.", SECOND),
        ("Answer B is better", SECOND),
        ("tie", TIE),
        ("It is a tie.", TIE),
        ("平局", TIE),
        ("回答 A 更好", FIRST),
        ('{"answer": "B"}', SECOND),
        ("A and B are equal", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_verdicts_are_read_from_words(text: str, verdict: str | None) -> None:
    assert parse_verdict(Response(text, "stop", 1, 1)) == verdict


def test_verdicts_and_ratings_are_read_from_likelihoods() -> None:
    assert parse_verdict(Response("", "score", 1, 0, (-1.0, -2.0))) == FIRST
    assert parse_verdict(Response("", "score", 1, 0, (-2.0, -1.0))) == SECOND
    assert parse_verdict(Response("", "score", 1, 0, (-1.0, -1.0))) == TIE
    # five equal likelihoods: the expectation is 3, and (3 - 1) / 4 = 0.5
    assert parse_rating(Response("", "score", 1, 0, (-1.0,) * 5)) == 0.5
    assert parse_rating(Response("4", "stop", 1, 1)) == 0.75
    assert parse_rating(Response("good", "stop", 1, 1)) is None
    assert parse_verdict(Response("A", "error", 1, 1, error="x")) is None


def test_repeated_answers_are_found_in_both_languages_and_without_any_word() -> None:
    texts = [
        "the cat sat on the mat",
        "!!!",
        "The cat sat on the mat.",
        "今天天气很好",
        "!!!",
        "今天天气很好。",
        "a dog",
    ]
    answers = [Answer(f"p/{i}", text, "m") for i, text in enumerate(texts)]
    found = near_identical(answers, 0.9)
    assert [(answer.id, drop.evidence.split(":")[0]) for answer, drop in found] == [
        ("p/2", "1.000 to p/0"),
        ("p/4", "1.000 to p/1"),
        ("p/5", "1.000 to p/3"),
    ]


def test_intervals_are_wilsons_and_the_normal_ones() -> None:
    # 8 of 10: (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10) with z2 = 3.8415: 0.490 to 0.943
    found = share(8, 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.490, 0.943)
    assert (share(0, 0).low, share(0, 0).high) == (0, 1)
    # mean 2, standard deviation 1, half width 1.96 / sqrt(3) = 1.132
    found = mean([1, 2, 3])
    assert (round(found.low, 3), round(found.high, 3), found.count) == (0.868, 3.132, 3)
