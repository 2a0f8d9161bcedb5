"""The final answer of a worked solution is found and compared exactly, in English and in Chinese."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.verify.maths import final_answer, same_result
from pipeline.verify.quantities import numbers, read


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        (r"So \boxed{3}, no: \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),  # the last box, with its braces
        ("12 eggs\n#### 1,200\n", "1,200"),
        ("The answer is 7. Well, the answer is 8.", "8"),
        ("The final answer is: **42**", "42"),
        ("答案是十二个苹果。", "十二个苹果"),
        ("所以最终答案为：3/4", "3/4"),
        ("3 + 4 = 7, so 7 in all", "7"),
        ("一共有二十五人", "25"),
        ("nobody knows", ""),
    ],
)
def test_the_final_answer_is_found(answer: str, final: str) -> None:
    assert final_answer(answer) == final


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (r"\boxed{\frac{3}{4}}", "0.75"),
        (r"\boxed{\dfrac34}", "3/4"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{12 \text{ cm}}", "12"),
        ("The answer is $1,200.00.", "1200"),
        ("The answer is 5 + 3 = 8.", "8"),
        ("It costs 18 dollars", "$18"),
        ("2 1/2 cups", "2.5"),
        ("2½", "5/2"),
        ("It is −5.", "-5"),
        ("50%", "50"),  # the question may have asked for percents
        ("50%", "0.5"),
        ("0.5", "50%"),
        ("two thirds is 0.67", "2/3"),  # 2/3 = 0.666..., to two places 0.67
        ("3.1416", "3.14"),
        ("3.00", "3"),
        ("6.02 * 10^23", "6.02e23"),
        ("twenty-five apples", "25"),
        ("The answer is Blue.", "blue"),
        ("The answer is (B).", "B"),
        (r"\boxed{(3, 4)}", "(3,4)"),
        ("from 10-12", "12"),  # a dash, no minus
        ("答案：百分之五十", "50%"),
        ("占三分之二", "2/3"),
        ("共１２００元", "1200"),
        ("约1.2万人", "12000"),
        ("答：一千零五", "1005"),
        ("三亿零五十万", "300500000"),
        ("三点一四", "3.14"),
    ],
)
def test_a_right_result_is_recognised_however_it_is_written(answer: str, wanted: str) -> None:
    found = same_result(answer, wanted)
    assert found.passed, found.evidence


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("The answer is 41.", "42"),
        ("42 at first, but in the end 41", "42"),
        ("3.1", "3.14"),  # fewer decimals than wanted
        ("0.7", "2/3"),  # one decimal is too few to be a rounded number
        ("2.54", "2.5"),
        ("42.3", "42"),
        ("-5", "5"),
        ("5%", "0.5"),
        ("The answer is 2x + 1.", "2"),
        ("The answer is 2x+1.", "2x-1"),
        ("1/0", "1"),
        ("The answer is red.", "blue"),
        ("", "1"),
        ("答案是十三。", "12"),
    ],
)
def test_a_wrong_result_is_not(answer: str, wanted: str) -> None:
    found = same_result(answer, wanted)
    assert not found.passed
    assert f"wanted {wanted}" in found.evidence


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**4))
def test_any_fraction_reads_back(above: int, below: int) -> None:
    quantity = read(f"{above}/{below}")
    assert quantity is not None and quantity.value == Fraction(above, below)


@given(st.decimals(-(10**6), 10**6, places=3))
def test_any_decimal_is_found_in_a_sentence(number: object) -> None:
    (quantity,) = numbers(f"It is {number} km")
    assert (quantity.value, str(quantity)) == (Fraction(str(number)), f"{number}".replace("-0.000", "0.000"))


@given(st.text(max_size=80))
def test_no_answer_makes_the_comparison_raise(answer: str) -> None:
    assert same_result(f"The answer is {answer}", "12").evidence
    assert same_result(answer, answer or "x").evidence
