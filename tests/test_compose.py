"""Constraints added to a request fit together, say what is checked, and can be met."""

from __future__ import annotations

import itertools
import random

import pytest

from pipeline.errors import PipelineError
from pipeline.stages.text import cjk_share
from pipeline.verify.checks import CHECKS
from pipeline.verify.compose import compatible, constrain, wordings
from pipeline.verify.verifier import parse

REQUESTS = {"en": "Explain how a bicycle stays upright.", "zh": "介绍一下端午节的由来。"}
LANGUAGES = list(REQUESTS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_seed_adds_the_same_constraints(language: str) -> None:
    one, two = (constrain(REQUESTS[language], language, random.Random(3), 3) for _ in range(2))
    assert one == two
    assert one != constrain(REQUESTS[language], language, random.Random(4), 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_request_comes_first_and_the_verifier_parses(language: str) -> None:
    seen = set()
    for seed in range(300):
        prompt, value = constrain(REQUESTS[language], language, random.Random(seed), 3)
        assert prompt.startswith(REQUESTS[language]) and len(prompt) > len(REQUESTS[language])
        assert "{" not in prompt
        verifier = parse(value, "here")
        assert 1 <= len(verifier.checks) <= 3
        assert verifier.as_json() == value
        seen |= {check.id for check in verifier.checks}
    # a yes or no fits few requests, and only a question in Chinese is sensibly answered in English
    left_out = {"detectable_format:constrained_response"}
    left_out |= {"language:response_language"} if language == "en" else set()
    left_out |= {name for name in CHECKS if name.startswith("change_case:")} if language == "zh" else set()
    left_out |= {"keywords:letter_frequency"} if language == "zh" else set()
    assert seen == set(CHECKS) - left_out


@pytest.mark.parametrize("language", LANGUAGES)
def test_constraints_that_claim_the_same_are_never_asked_for_together(language: str) -> None:
    by_name = {wording.name: wording for wording in wordings(language)}
    for one, other in (
        ("at_most_words", "at_least_words"),
        ("at_most_sentences", "at_least_sentences"),
        ("at_most_words", "two_answers"),
        ("end_phrase", "postscript"),
        ("end_phrase", "quotation"),
        ("title", "quotation"),
        ("bullets_exactly", "bullets_at_least"),
        ("bullets_exactly", "one_sentence"),
        ("repeat", "no_comma"),
        ("repeat", "forbidden_word"),
        ("json", "title"),
        ("one_keyword", "forbidden_word"),
    ):
        assert not compatible(by_name[one], by_name[other]), (one, other)
    assert compatible(by_name["at_most_words"], by_name["no_comma"])
    assert not any(compatible(by_name["json"], other) for other in by_name.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_forbidden_word_is_asked_for_by_another_constraint(language: str) -> None:
    drawn = {w.name: [str(v) for values in w.draw.values() for v in values] for w in wordings(language)}
    forbidden = {word for name, values in drawn.items() if name.startswith("forbidden") for word in values}
    wanted = [v for name in ("first_word", "second_paragraph", "end_phrase") for v in drawn[name]]
    check = {"id": "keywords:forbidden_words", "forbidden_words": sorted(forbidden)}
    verifier = parse({"kind": "constraints", "checks": [check, {"id": "punctuation:no_comma"}]}, "here")
    for check_ in verifier.checks:
        assert check_.found_in("\n".join(wanted)).passed, check_.found_in("\n".join(wanted)).evidence


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_constraint_has_several_phrasings_that_name_what_is_drawn(language: str) -> None:
    entries = wordings(language)
    assert len(entries) >= 20
    assert sum(len(wording.say) for wording in entries) >= 2 * len(entries)
    for wording in entries:
        for phrasing in wording.say:
            assert all(f"{{{name}}}" in phrasing for name in wording.draw), phrasing
            assert (cjk_share(phrasing) > 0.5) == (language == "zh"), phrasing
    for wording in wordings("zh"):
        assert all(a != b for a, b in itertools.combinations(wording.say, 2))


def test_a_request_without_an_end_mark_is_followed_by_a_new_line() -> None:
    for seed in range(20):
        prompt, _ = constrain("Name a colour", "en", random.Random(seed), 1)
        assert prompt.startswith("Name a colour\n")


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(PipelineError, match="unknown language 'fr'"):
        constrain("x", "fr", random.Random(0), 1)
