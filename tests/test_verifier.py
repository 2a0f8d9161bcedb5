"""Verifiers are read from our rows and from others', refused with a hint, written back, and scored."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.verify.verifier import Verifier, from_row, parse, verify

WORDS = {"id": "length_constraints:number_words", "relation": "at most", "num_words": 3}
NO_COMMA = {"id": "punctuation:no_comma"}


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "constraints", "checks": [WORDS, NO_COMMA]},
        {"kind": "constraints", "checks": [{"id": "keywords:existence", "keywords": ["a", "b"]}]},
        {"kind": "math", "answer": "42"},
        {"kind": "code", "tests": "assert f(2) == 4", "timeout": 2.0},
        {"kind": "code", "tests": "assert f(2) == 4", "setup": "import math", "timeout": 5.0},
    ],
)
def test_a_verifier_is_read_and_written_back(value: dict[str, Any]) -> None:
    verifier = parse(value, "here")
    assert verifier.as_json() == value
    assert parse(verifier.as_json(), "here") == verifier


def test_the_score_is_the_share_of_checks_that_passed() -> None:
    verifier = parse({"kind": "constraints", "checks": [WORDS, NO_COMMA]}, "here")
    verified = verify(verifier, "one, two")  # two words, but a comma
    assert (verified.score, verified.all_passed) == (0.5, False)
    assert [check.evidence for check in verified.checks] == [
        "2 words, wanted at most 3",
        "commas: 1, wanted none",
    ]
    assert verify(verifier, "one two").all_passed


def test_maths_and_code_score_nothing_or_all() -> None:
    maths = parse({"kind": "math", "answer": 42}, "here")
    assert [verify(maths, text).score for text in ("It is 42.", "It is 41.")] == [1.0, 0.0]
    code = parse({"kind": "code", "tests": "assert f(2) == 4"}, "here")
    answer = "Here:\n```python\ndef f(x):\n    return x * x\n```\nDone."
    assert (verify(code, answer).score, verify(code, "no code").score) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "here: the verifier is list, expected an object"),
        ({"kind": "maths"}, "unknown verifier kind 'maths'.*Did you mean 'math'"),
        ({"kind": "math"}, "no field 'answer'"),
        ({"kind": "math", "answer": "4", "test": "x"}, "unknown field of a math verifier, 'test'"),
        ({"kind": "code", "tests": ""}, "'tests' is empty"),
        ({"kind": "code", "tests": "x", "timeout": 0}, "'timeout' is 0, expected seconds"),
        ({"kind": "constraints", "checks": []}, r"'checks' is \[\], expected a list"),
        ({"kind": "constraints", "checks": ["x"]}, "check 1: got 'x', expected an object with an id"),
        (
            {"kind": "constraints", "checks": [{"id": "punctuation:no_coma"}]},
            "Did you mean 'punctuation:no_comma'",
        ),
        (
            {"kind": "constraints", "checks": [{**WORDS, "num_word": 3}]},
            "'num_word'.*Did you mean 'num_words'",
        ),
        ({"kind": "constraints", "checks": [{**WORDS, "num_words": None}]}, "has no 'num_words'"),
        (
            {"kind": "constraints", "checks": [{**WORDS, "num_words": "3"}]},
            "num_words: got '3', expected a whole",
        ),
        (
            {"kind": "constraints", "checks": [{**WORDS, "relation": "more than"}]},
            "expected one of: less than",
        ),
        ({"kind": "constraints", "checks": [{**NO_COMMA, "n": 1}]}, "expected one of no arguments at all"),
        (
            {"kind": "constraints", "checks": [{"id": "keywords:existence", "keywords": []}]},
            "a list of texts",
        ),
        (
            {"kind": "constraints", "checks": [{"id": "language:response_language", "language": "xx"}]},
            "one of: ar",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_hint(value: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        parse(value, "here")


def test_a_row_of_ours_has_its_verifier_in_a_field() -> None:
    assert from_row({"prompt": "x", "verifier": {"kind": "math", "answer": "4"}}, "here") == Verifier(
        "math", answer="4"
    )
    assert from_row({"prompt": "x", "verifier": None}, "here") is None
    assert from_row({"prompt": "x", "answer": "four"}, "here") is None


def test_a_row_of_ifeval_loads_as_it_is() -> None:
    row = {
        "key": 1000,
        "prompt": "Write without commas, and highlight 3 sections.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_highlighted_sections"],
        "kwargs": [{}, {"num_highlights": 3.0, "relation": None, "num_words": None}],
    }
    verifier = from_row(row, "here")
    assert verifier is not None
    assert [check.as_json() for check in verifier.checks] == [
        {"id": "punctuation:no_comma"},
        {"id": "detectable_format:number_highlighted_sections", "num_highlights": 3},
    ]
    with pytest.raises(PipelineError, match="no lists of the same length"):
        from_row({**row, "kwargs": [{}]}, "here")


def test_a_row_of_gsm8k_gives_its_last_number() -> None:
    row = {"question": "x", "answer": "She has 2 * 9 = <<2*9=18>>18 dollars.\n#### 1,018"}
    assert from_row(row, "here") == Verifier("math", answer="1,018")


def test_a_row_of_mbpp_gives_its_tests() -> None:
    row = {"text": "x", "test_list": ["assert f(1) == 1", "assert f(2) == 4"], "test_setup_code": ""}
    assert from_row(row, "here") == Verifier("code", tests="assert f(1) == 1\nassert f(2) == 4")
    clean = {**row, "test_imports": ["import math"]}
    assert from_row(clean, "here") == Verifier("code", tests="\n".join(row["test_list"]), setup="import math")


def test_a_row_of_humaneval_calls_check_with_the_function() -> None:
    row = {
        "prompt": "from typing import List\n\ndef f(x: List[int]) -> int:\n",
        "test": "def check(candidate):\n    assert candidate([2]) == 2\n",
        "entry_point": "f",
    }
    verifier = from_row(row, "here")
    assert verifier is not None and verifier.setup == "from typing import List"
    assert verify(verifier, "def f(x: List[int]) -> int:\n    return x[0]").all_passed
    assert not verify(verifier, "def f(x: List[int]) -> int:\n    return 0").all_passed
