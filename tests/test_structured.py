"""Schemas of answers, and answers read back whether they follow one or not."""

from __future__ import annotations

import json

import pytest

from pipeline.engines.base import Response
from pipeline.stages.classify import ask_request, parse_classification
from pipeline.stages.instantiate import parse_labels
from pipeline.stages.judge import parse_score
from pipeline.stages.prompts import Prompts
from pipeline.stages.structured import list_of_text, one_of, plain, whole_number


@pytest.mark.parametrize("schema", [one_of(("Yes", "No")), list_of_text(), whole_number(1, 5)])
def test_a_schema_asks_for_one_field_and_nothing_else(schema: str) -> None:
    # what OpenAI's strict mode wants: an object, every property required, no further ones
    found = json.loads(schema)
    assert found["type"] == "object" and found["additionalProperties"] is False
    assert list(found["properties"]) == found["required"] == ["answer"]


def test_the_values_are_those_that_may_be_answered() -> None:
    assert json.loads(one_of(("是", "否")))["properties"]["answer"]["enum"] == ["是", "否"]
    assert json.loads(whole_number(1, 5))["properties"]["answer"]["enum"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"answer": "Yes"}', "Yes"),
        ('{"answer": ["好评", "差评"]}', "好评, 差评"),
        ('{"answer": 4}', "4"),
        ("Yes", "Yes"),
        ("4", "4"),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ('{"answer": "Ye', '{"answer": "Ye'),  # cut off
        ("", ""),
    ],
)
def test_json_and_plain_text_are_read(text: str, read: str) -> None:
    assert plain(text) == read


def test_each_stage_reads_both_forms() -> None:
    for yes, no in (('{"answer": "Yes"}', '{"answer": "No"}'), ("Yes", "No"), ('{"answer": "是"}', "否")):
        assert parse_classification(Response(yes, "stop", 1, 1)) is True
        assert parse_classification(Response(no, "stop", 1, 1)) is False
    assert parse_labels('{"answer": ["spam", "not spam"]}') == ("spam", "not spam")
    assert parse_labels('{"answer": ["好评", "差评"]}') == ("好评", "差评")
    assert (
        parse_score(Response('{"answer": 3}', "stop", 1, 1)) == parse_score(Response("3", "stop", 1, 1)) == 3
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_schema_is_asked_for_only_where_an_engine_follows_one(language: str) -> None:
    prompt = Prompts().get(language, "classify", "chat")
    asked, bare = (
        ask_request(prompt, [], "Sort it.", language, can_score=False, structured=s) for s in (True, False)
    )
    assert asked.schema and not bare.schema and asked.prompt == bare.prompt
    assert asked.sampling.stop == ()  # a stop string would cut the JSON
