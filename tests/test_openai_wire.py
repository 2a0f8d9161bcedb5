"""Bodies that servers take, answers read from theirs; what is malformed is said, not guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines import openai_wire as wire
from pipeline.engines.base import Request, Response, Sampling
from pipeline.records import to_json

SAMPLING = Sampling(0.7, 0.9, max_tokens=64, stop=("\n\n", "问题："), seed=7)


def chat_answer(text: Any = "长江。The Yangtze.", reason: Any = "stop", **message: Any) -> dict[str, Any]:
    """The shape of OpenAI's answers and of vLLM 0.31's."""
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    message = {"role": "assistant", "content": text, "refusal": None, **message}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage}


def completion_answer(text: Any = " 长江。", reason: Any = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}


# ---- bodies ----


def test_a_chat_request_becomes_messages_with_its_sampling():
    request = Request("列举三条河流。", chat=True, system="Be brief.", sampling=SAMPLING)
    assert wire.body(request, "m") == (
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "列举三条河流。"},
            ],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 64,
            "seed": 7,
            "stop": ["\n\n", "问题："],
        },
    )


def test_a_text_request_becomes_a_prompt_and_what_is_not_set_is_left_out():
    assert wire.body(Request("Rivers:"), "m") == (
        "/v1/completions",
        {"model": "m", "prompt": "Rivers:", "temperature": 0.0, "top_p": 1.0, "max_tokens": 256, "seed": 0},
    )


def test_a_frequency_penalty_is_sent_and_only_four_stops_are():
    body = wire.completion_body(
        Request("x", sampling=Sampling(frequency_penalty=0.5, stop=tuple("abcde"))), "m"
    )
    assert (body["frequency_penalty"], body["stop"]) == (0.5, ["a", "b", "c", "d"])


def test_a_schema_becomes_a_response_format_of_chat_only():
    schema = {"type": "object", "properties": {"答": {"type": "string"}}}
    request = Request("x", chat=True, schema=json.dumps(schema))
    assert wire.chat_body(request, "m")["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }
    assert "response_format" not in wire.completion_body(Request("x", schema=json.dumps(schema)), "m")


@pytest.mark.parametrize("chat", [True, False])
def test_a_request_to_score_has_no_body(chat):
    with pytest.raises(ValueError, match="scored"):
        wire.body(Request("x", chat=chat, choices=(("", " yes"),)), "m")


# ---- answers ----


def test_answers_are_read_with_their_usage():
    assert wire.parse_chat(chat_answer()) == Response("长江。The Yangtze.", "stop", 9, 4)
    assert wire.parse_chat(chat_answer(reason="length")).finish_reason == "length"
    assert wire.parse_completion(completion_answer()) == Response(" 长江。", "stop", 0, 0)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}])
def test_usage_that_is_not_said_counts_as_nothing(usage):
    response = wire.parse_chat({**chat_answer(), "usage": usage})
    assert (response.prompt_tokens, response.completion_tokens) == (0, 0)


@pytest.mark.parametrize("text", ["", None, "half a"])
def test_a_filtered_answer_is_an_error_without_text(text):
    expected = Response("", "content_filter", 9, 4, error="content filter")
    assert wire.parse_chat(chat_answer(text, "content_filter")) == expected
    assert wire.parse_completion(completion_answer(text, "content_filter")).error == "content filter"


def test_a_refusal_is_an_error_that_says_so():
    response = wire.parse_chat(chat_answer(None, refusal="I can't help."))
    assert (response.finish_reason, response.error) == ("content_filter", "the model refused: I can't help.")


def test_no_content_is_an_empty_text_only_where_the_answer_was_cut_off():
    assert wire.parse_chat(chat_answer(None, "length")) == Response("", "length", 9, 4)
    with pytest.raises(ValueError, match="'content' is missing, expected text"):
        wire.parse_chat(chat_answer(None))


MALFORMED = [
    (None, "the body is missing"),
    ([], "the body is list"),
    ({}, "'choices' is missing"),
    ({"choices": []}, "'choices' is an empty list"),
    ({"choices": "no"}, "'choices' is str"),
    ({"choices": [None]}, "the choice is missing"),
    ({"choices": [{"finish_reason": "stop"}]}, "expected"),
    (chat_answer(["text"]), "'content' is list"),
    (chat_answer(reason=None), "'finish_reason' is None"),
    (chat_answer(reason="tool_calls"), "'finish_reason' is 'tool_calls'"),
    ({**chat_answer(), "usage": [1]}, "'usage' is list"),
    ({**chat_answer(), "usage": {"prompt_tokens": "9"}}, "'prompt_tokens' is '9'"),
    ({**chat_answer(), "usage": {"completion_tokens": -1}}, "'completion_tokens' is -1"),
    ({**chat_answer(), "usage": {"completion_tokens": True}}, "'completion_tokens' is True"),
]


@pytest.mark.parametrize(("body", "said"), MALFORMED, ids=[said for _, said in MALFORMED])
def test_a_malformed_body_is_refused_with_what_is_wrong(body, said):
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        wire.parse_chat(body)
    if said.startswith(("the ", "'choices'")):
        with pytest.raises(ValueError, match=said):
            wire.parse_completion(body)


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from("choices message content text finish_reason refusal usage prompt_tokens".split()),
            inner,
        )
    ),
)


@given(body=NESTED)
def test_any_body_is_an_answer_or_a_value_error(body):
    for parse in (wire.parse_chat, wire.parse_completion):
        try:
            assert isinstance(parse(body), Response)
        except ValueError:
            continue


def test_a_lone_surrogate_cannot_reach_a_file():
    text = json.loads('"half \\ud83d, whole \\ud83d\\ude00 \\u4f60"')
    response = wire.parse_chat(chat_answer(text))
    assert response.text == "half \ufffd, whole 😀 你"
    assert to_json(response).encode()


# ---- stops ----


def test_a_text_is_cut_before_the_first_stop_and_is_then_complete():
    cut = wire.cut_at_stop(Response("一。\n\n问题：二", "length", 1, 5), ("问题：", "\n\n"))
    assert cut == Response("一。", "stop", 1, 5)


@pytest.mark.parametrize("stops", [(), ("zz",)])
def test_a_text_without_a_stop_stays(stops):
    response = Response("abc", "length", 1, 5)
    assert wire.cut_at_stop(response, stops) is response
