"""The judge's score: an expectation over five likelihoods, or the digit in the text."""

from __future__ import annotations

import math

import pytest

from pipeline.engines.base import Response
from pipeline.stages.judge import judge_request, parse_score
from pipeline.stages.prompts import Prompts


def scores(*values: float) -> Response:
    return Response("", "score", 1, 0, values)


def test_the_score_is_the_expectation_over_the_five_digits() -> None:
    # weights 1 : 1 : 2 : 2 : 4 of 10: (1 + 2 + 6 + 8 + 20) / 10 = 37 / 10
    weights = (1, 1, 2, 2, 4)
    assert parse_score(scores(*(math.log(w) for w in weights))) == 3.7
    assert parse_score(scores(*(math.log(w) - 2000 for w in weights))) == 3.7  # e^-2000 would underflow


def test_equal_likelihoods_score_in_the_middle_and_a_sure_digit_scores_itself() -> None:
    assert parse_score(scores(*[-2.0] * 5)) == 3.0
    assert parse_score(scores(-900.0, -900.0, -900.0, -900.0, -1.0)) == 5.0
    assert parse_score(scores(-1.0, -900.0, -900.0, -900.0, -900.0)) == 1.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4.0),
        (" 5.", 5.0),
        ("Rating: 2", 2.0),
        ("**3**", 3.0),
        ("4/5", 4.0),
        ("4.5", 4.0),
        ("评分：3分", 3.0),
        ("我给4分。", 4.0),
    ],
)
def test_without_likelihoods_the_first_digit_counts(text: str, score: float) -> None:
    assert parse_score(Response(text, "stop", 1, 1)) == score


@pytest.mark.parametrize("text", ["", "good", "0", "7", "10", "10/10", "100", "很好", "0.5"])
def test_an_answer_without_a_digit_from_one_to_five_has_no_score(text: str) -> None:
    assert parse_score(Response(text, "stop", 1, 1)) is None


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("style", "lead"), [("chat", ""), ("completion", " ")])
def test_the_judge_is_asked_for_a_digit_in_its_own_role(language: str, style: str, lead: str) -> None:
    prompt = Prompts().get(language, "judge", style)
    scored = judge_request(prompt, "INSTRUCTION", "INPUT", "OUTPUT", can_score=True)
    assert scored.choices == tuple(("", f"{lead}{digit}") for digit in "12345")
    assert scored.role == "judge" and scored.chat == (style == "chat")
    assert all(part in scored.prompt for part in ("INSTRUCTION", "INPUT", "OUTPUT"))
    drawn = judge_request(prompt, "INSTRUCTION", "", "OUTPUT", can_score=False)
    assert drawn.choices == () and drawn.sampling.max_tokens == 8 and drawn.role == "judge"
    assert "INPUT" not in drawn.prompt
