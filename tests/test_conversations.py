"""Rows of every shape as conversations, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.format.conversations import Conversation, conversations
from pipeline.rows import Row, json_line


def read(**fields: Any) -> list[Conversation]:
    return list(conversations(Row("x.jsonl:1", fields, json_line(fields, "x.jsonl:1"))))


def turns(**fields: Any) -> list[tuple[str, str]]:
    (found,) = read(**fields)
    return [(m["role"], m["content"]) for m in found.messages]


def refusal(**fields: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        read(**fields)
    return str(caught.value)


def test_alpaca_rows_with_and_without_input() -> None:
    assert turns(instruction="Translate. ", input=" 你好\n", output="Hello ") == [
        ("user", "Translate.\n\n你好"),
        ("assistant", "Hello"),
    ]
    assert turns(instruction="Say hi.", input="", output="Hi", system="Be short.") == [
        ("system", "Be short."),
        ("user", "Say hi."),
        ("assistant", "Hi"),
    ]
    (found,) = read(instruction="翻译成英文。", input="你好", output="Hello", is_classification=False)
    assert found.exchange and (found.exchange.input, found.exchange.language) == ("你好", "zh")
    assert found.key == "翻译成英文。"


def test_a_seed_task_is_one_conversation_for_each_instance() -> None:
    instances = [{"input": "a", "output": "1"}, {"input": "", "output": "2"}]
    found = read(id="s", instruction="Count.", instances=instances, tags=["math"])
    assert [(c.where, c.messages[0]["content"], c.messages[1]["content"]) for c in found] == [
        ("x.jsonl:1 instances[0]", "Count.\n\na", "1"),
        ("x.jsonl:1 instances[1]", "Count.", "2"),
    ]
    assert {c.exchange.kind for c in found if c.exchange} == {"math"}


def test_messages_sharegpt_and_prompt_completion_are_told_apart() -> None:
    two = [("user", "Hi"), ("assistant", "Hello"), ("user", "再见"), ("assistant", "Bye")]
    assert turns(messages=[{"role": role, "content": content} for role, content in two]) == two
    parts = [{"type": "text", "text": "Hi"}]
    answer = {"role": "assistant", "content": "Yo"}
    assert turns(messages=[{"role": "user", "content": parts}, answer])[0] == ("user", "Hi")
    names = {"user": "human", "assistant": "gpt"}
    assert turns(conversations=[{"from": names[role], "value": content} for role, content in two]) == two
    assert turns(
        conversations=[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}], system="S"
    ) == [("system", "S"), ("user", "Hi"), ("assistant", "Yo")]
    assert turns(prompt="Hi", completion=" Hello") == [("user", "Hi"), ("assistant", "Hello")]
    assert (
        turns(
            prompt=[{"role": "user", "content": "Hi"}], completion=[{"role": "assistant", "content": "Hello"}]
        )
        == two[:2]
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "Hi"}, "has text, expected instruction and output (Alpaca)"),
        ({"instruction": "Go.", "output": 3}, "'output' is int, expected text"),
        ({"instruction": "Go.", "output": " "}, "what the assistant says in turn 1 is empty"),
        ({"instruction": "", "output": "x"}, "what the user says in turn 0 is empty"),
        ({"instruction": "Go.", "instances": ["x"]}, "instances[0]: got str, expected input and output"),
        ({"messages": []}, "'messages' is an empty list"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "the last turn is of the user"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "no turn of a user"),
        ({"messages": [{"role": "boss", "content": "Hi"}]}, "messages[0]: the role is 'boss'"),
        ({"messages": [{"role": "user", "content": None}]}, "the content is NoneType, expected text"),
        ({"conversations": ["Hi"]}, "conversations[0]: got str, expected role and content"),
        ({"prompt": "Hi", "completion": [{"role": "assistant", "content": "x"}]}, "'prompt' is str"),
    ],
)
def test_rows_that_say_nothing_to_learn_are_refused(fields: dict[str, Any], said: str) -> None:
    message = refusal(**fields)
    assert message.startswith("x.jsonl:1") and said in message and message.endswith("--bad-rows drop.")
