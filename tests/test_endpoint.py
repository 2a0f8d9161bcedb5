"""Vectors from a server: a real HTTP server answers, fails and answers nonsense."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from fault_server import EMBEDDINGS, FaultServer, error, vector

from pipeline.dedup import endpoint
from pipeline.dedup.endpoint import EndpointEncoder
from pipeline.errors import PipelineError

KEY = "sk-test-1234567890"
TEXTS = ["Write a poem about the sea.", "写一首关于大海的诗。", "List three planets.", "列出三颗行星。", "?"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asking(server: FaultServer, name: str = "smol", **more: Any) -> EndpointEncoder:
    return EndpointEncoder(name, server.url, "OPENAI_API_KEY", **more)


def expected(texts: list[str]) -> np.ndarray:
    vectors = np.array([vector(text) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_come_back_as_unit_vectors_in_the_texts_order() -> None:
    with FaultServer(key=KEY) as server:  # which sends the last vector first, and none of unit length
        found = asking(server).encode(TEXTS)
    assert found.dtype == np.float32 and found == pytest.approx(expected(TEXTS), abs=1e-6)
    (asked,) = server.asked
    assert asked.path == EMBEDDINGS
    assert asked.body == {"model": "smol", "input": TEXTS, "encoding_format": "float"}


def test_many_texts_go_in_batches_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_BATCH", 3)
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]
    with FaultServer(latency=0.01) as server:
        found = asking(server).encode(texts)
    assert found == pytest.approx(expected(texts), abs=1e-6)
    assert sorted(len(asked.body["input"]) for asked in server.asked) == [1] + [3] * 33
    assert 1 < server.most_in_flight <= 4


def test_an_empty_text_is_sent_as_a_space_and_no_text_asks_nothing() -> None:
    with FaultServer() as server:
        encoder = asking(server)
        assert encoder.encode([]).shape == (0, 0)
        assert not server.asked
        encoder.encode(["", "a"])
    assert server.asked[0].body["input"] == [" ", "a"]


@pytest.mark.parametrize("fault", ["429-retry-after", "429", "500", "503", "cut"])
def test_a_passing_fault_is_asked_again(fault: str) -> None:
    with FaultServer(share=1.0, faults=[fault], max_faults=1) as server:
        found = asking(server).encode(TEXTS)
    assert found == pytest.approx(expected(TEXTS), abs=1e-6)
    assert server.injected[fault] == 1 and len(server.asked) == 2


def test_a_fault_that_stays_is_one_line() -> None:
    with (
        FaultServer(share=1.0, faults=["500"], max_faults=99) as server,
        pytest.raises(PipelineError) as said,
    ):
        asking(server, max_retries=1).encode(TEXTS)
    assert "no vectors (500: Try again). Check the server" in str(said.value) and len(server.asked) == 2


def test_a_wrong_key_names_the_variable_and_shows_no_key() -> None:
    with FaultServer(key="another") as server, pytest.raises(PipelineError) as said:
        asking(server).check()
    assert "environment variable OPENAI_API_KEY" in str(said.value) and "(401)" in str(said.value)
    assert KEY not in str(said.value)


def test_an_unknown_model_names_the_option() -> None:
    with FaultServer() as server, pytest.raises(PipelineError) as said:
        asking(server, "bge-m3").check()
    assert str(said.value).startswith("--embedding-model openai:bge-m3: embeddings at 127.0.0.1:")
    assert "`bge-m3` does not exist" in str(said.value)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with FaultServer() as server:
        gone = asking(server, max_retries=0)
    with pytest.raises(PipelineError, match=r"embeddings at 127\.0\.0\.1:\d+: no vectors \("):
        gone.encode(["a"])


def test_a_refusal_is_shown() -> None:
    def refuse(path: str, body: Any) -> web.Response:
        return error(400, "the input is longer than the maximum context length")

    with FaultServer(refuse=refuse) as server, pytest.raises(PipelineError, match="context overflow"):
        asking(server).encode(["a"])


ROWS: list[tuple[Any, str]] = [
    ([], "no list 'data'"),
    ({"object": "list"}, "no list 'data'"),
    ({"data": [7, 8]}, "no list 'data' of objects"),
    ({"data": []}, "0 vectors"),
    ({"data": [{"index": 0, "embedding": [1.0]}]}, "1 vectors"),
    ({"data": [{"index": 0, "embedding": [1.0]}] * 2}, "wrongly numbered"),
    ({"data": [{"embedding": [1.0]}, {"embedding": "Zm9v"}]}, "no list of numbers"),
    ({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}, "of another length"),
    ({"data": [{"embedding": 1.0}, {"embedding": 2.0}]}, "no list of finite numbers"),
    ({"data": [{"embedding": [1.0]}, {"embedding": [float("nan")]}]}, "no list of finite numbers"),
    ({"data": [{}, {}]}, "no list of finite numbers"),
]


@pytest.mark.parametrize(("answer", "what"), ROWS)
def test_an_answer_of_another_shape_is_one_line(answer: Any, what: str) -> None:
    with FaultServer(refuse=lambda path, body: web.json_response(answer)) as server:
        with pytest.raises(PipelineError) as said:
            asking(server).encode(["a", "b"])
        assert what in str(said.value) and "expected an OpenAI embeddings answer" in str(said.value)


def test_an_answer_that_is_not_json_is_one_line() -> None:
    def refuse(path: str, body: Any) -> web.Response:
        return web.Response(text="<html>Hello</html>", content_type="text/html")

    with FaultServer(refuse=refuse) as server, pytest.raises(PipelineError, match="not JSON"):
        asking(server).encode(["a"])


def test_rows_without_an_index_count_by_their_place() -> None:
    rows = {"data": [{"embedding": [3.0, 4.0]}, {"embedding": [0.0, 2.0]}]}
    with FaultServer(refuse=lambda path, body: web.json_response(rows)) as server:
        assert asking(server).encode(["a", "b"]) == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))


def test_vectors_that_change_their_length_between_batches_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_BATCH", 1)

    def answer(path: str, body: Any) -> web.Response:
        return web.json_response({"data": [{"embedding": [1.0] * len(body["input"][0])}]})

    with (
        FaultServer(refuse=answer) as server,
        pytest.raises(PipelineError, match="vectors of different lengths"),
    ):
        asking(server).encode(["a", "bc"])


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: EndpointEncoder("", "http://h/v1", "K"), "'openai:' without a name"),
        (lambda: EndpointEncoder("m", "nonsense", "K"), "--embedding-base-url: not an address"),
        (lambda: EndpointEncoder("m", "http://me:hunter2@h/v1", "K"), "do not belong"),
        (lambda: EndpointEncoder("m", "http://h/v1", KEY).check(), "--embedding-api-key-env: not the name"),
        (lambda: EndpointEncoder("m", "", "NO_SUCH_KEY").check(), "NO_SUCH_KEY: it is not set"),
    ],
)
def test_settings_that_cannot_do_are_refused_without_a_secret(
    make: Callable[[], Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(PipelineError) as said:
        make()
    assert what in str(said.value) and KEY not in str(said.value) and "hunter2" not in str(said.value)


def test_a_missing_client_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PipelineError, match="package openai is not installed. Run: pip install openai"):
        EndpointEncoder("m", "http://127.0.0.1:1/v1", "OPENAI_API_KEY").encode(["a"])
