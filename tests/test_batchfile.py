"""Batch files: what is asked is written once, whatever files come back are read, and nothing is guessed."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.base import NotSent, Request, Response, Sampling
from pipeline.engines.batchfile import BatchFileEngine, read_answer
from pipeline.errors import PipelineError

ASK = Request("列举三条河流。\u2028", chat=True, sampling=Sampling(0.7, stop=("\n\n",), seed=1))


def numbered(count: int) -> list[Request]:
    return [replace(ASK, sampling=replace(ASK.sampling, seed=n)) for n in range(count)]


def generate(folder: Path, requests: list[Request], model: str = "m") -> list[Response]:
    return asyncio.run(BatchFileEngine(folder, model).generate(requests))


def asked(folder: Path, requests: list[Request], model: str = "m") -> str:
    """What a group that is not answered says."""
    with pytest.raises(NotSent) as caught:
        generate(folder, requests, model)
    return str(caught.value)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def answer(row: dict[str, Any], text: str | None = None, **choice: Any) -> dict[str, Any]:
    """A line as OpenAI and vLLM write it; the text tells which request it answers."""
    text = f"河流 {row['body']['seed']}\n\nmore" if text is None else text
    choices = [{"index": 0, "message": {"content": text}, "finish_reason": "stop", **choice}]
    body = {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    response = {"status_code": 200, "request_id": "vllm-batch-1", "body": body}
    return {"id": "vllm-1", "custom_id": row["custom_id"], "response": response, "error": None}


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def expected(count: int) -> list[Response]:
    return [Response(f"河流 {n}", "stop", 9, 4) for n in range(count)]  # cut at the stop


# ---- asking ----


def test_a_group_becomes_a_file_of_openais_format_and_words_on_what_to_do(tmp_path):
    folder = tmp_path / "my batches"
    said = asked(folder, numbered(3))
    path = only(folder, "batch-*.input.jsonl")
    assert len(path.name) == len("batch-.input.jsonl") + 12
    assert rows(path)[2] == {
        "custom_id": rows(path)[2]["custom_id"],
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "m",
            "messages": [{"role": "user", "content": "列举三条河流。\u2028"}],
            "temperature": 0.7,
            "top_p": 1.0,
            "max_tokens": 256,
            "seed": 2,
            "stop": ["\n\n"],
        },
    }
    assert len({row["custom_id"] for row in rows(path)}) == 3
    target = str(path).replace(".input.", ".output.")
    assert said.startswith(f"3 requests wait in {path}.\n")
    assert f"run_batch -i '{path}' -o '{target}' --model m --generation-config vllm\n" in said
    assert "--resume" in said and "purpose batch" in said


def test_asking_again_without_an_answer_writes_the_same_file(tmp_path):
    said = asked(tmp_path, numbered(3))
    before = only(tmp_path, "*").read_bytes()
    assert asked(tmp_path, numbered(3)) == said and only(tmp_path, "*").read_bytes() == before


def test_a_schema_is_passed_on(tmp_path):
    asked(tmp_path, [replace(ASK, schema='{"type": "object"}')])
    response_format = rows(only(tmp_path, "*"))[0]["body"]["response_format"]
    assert response_format["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize("request_", [Request("text to continue"), replace(ASK, choices=(("", "x"),))])
def test_what_a_batch_file_cannot_hold_is_refused_before_anything_is_written(tmp_path, request_):
    with pytest.raises(
        PipelineError, match="chat requests only, got one (of text|to score). Use --style chat"
    ):
        generate(tmp_path, [ASK, request_])
    assert not list(tmp_path.iterdir())


def test_a_completion_style_is_refused_up_front(tmp_path):
    BatchFileEngine(tmp_path, "m", styles=("chat", "chat"))
    with pytest.raises(PipelineError, match="chat requests only"):
        BatchFileEngine(tmp_path, "m", styles=("chat", "completion"))


# ---- answers ----


def test_answers_are_matched_by_id_in_any_order_and_any_number_of_files(tmp_path):
    requests = numbered(10)
    asked(tmp_path, requests)
    source = only(tmp_path, "*")
    lines = [answer(row) for row in rows(source)]
    random.Random(0).shuffle(lines)
    write(tmp_path / source.name.replace("input", "output"), lines[:6])
    write(tmp_path / "batch_68f2_output.jsonl", lines[6:])  # as OpenAI names it
    engine = BatchFileEngine(tmp_path, "m")
    assert asyncio.run(engine.generate(requests)) == expected(10)
    assert engine.tokens_drawn == 40
    assert generate(tmp_path, requests[:4]) == expected(4)  # another group of the same requests


def test_equal_requests_of_a_group_have_their_own_answers(tmp_path):
    asked(tmp_path, [ASK, ASK])
    first, second = rows(only(tmp_path, "*"))
    write(tmp_path / "batch.jsonl", [answer(second, "b"), answer(first, "a")])
    assert [r.text for r in generate(tmp_path, [ASK, ASK])] == ["a", "b"]


def test_another_models_answers_are_not_taken(tmp_path):
    asked(tmp_path, [ASK])
    write(tmp_path / "batch.jsonl", [answer(row) for row in rows(only(tmp_path, "*"))])
    assert "1 request waits" in asked(tmp_path, [ASK], model="m2")


def test_what_is_missing_is_counted_and_asked_for_alone(tmp_path):
    requests = numbered(5)
    asked(tmp_path, requests)
    lines = [answer(row) for row in rows(only(tmp_path, "*"))]
    write(tmp_path / "batch-a.output.jsonl", lines[:3])
    said = asked(tmp_path, requests)
    assert (
        said.startswith("2 requests wait in ")
        and "(3 of the group are answered; if the others failed" in said
    )
    left = next(p for p in tmp_path.glob("*.input.jsonl") if len(rows(p)) == 2)
    write(tmp_path / "batch-b.output.jsonl", [answer(row) for row in rows(left)])
    assert generate(tmp_path, requests) == expected(5)


def test_requests_that_a_batch_never_ran_are_asked_again_and_failed_ones_are_not(tmp_path):
    requests = numbered(3)
    asked(tmp_path, requests)
    good, failed, expired = rows(only(tmp_path, "*"))
    write(tmp_path / "batch-a.output.jsonl", [answer(good)])
    late = {"code": "batch_expired", "message": "not executed in time"}
    refused = {"status_code": 400, "body": {"error": {"message": "context overflow", "code": None}}}
    lines = [
        {"custom_id": expired["custom_id"], "response": None, "error": late},
        {"custom_id": failed["custom_id"], "response": refused, "error": None},
    ]
    write(tmp_path / "batch-a.error.jsonl", lines)
    assert asked(tmp_path, requests).startswith("1 request waits")
    write(tmp_path / "batch-b.output.jsonl", [answer(expired)])
    answers = generate(tmp_path, requests)
    assert [a.error for a in answers] == ["", "context overflow", ""]


def test_a_good_answer_goes_before_a_failure_of_the_same_request(tmp_path):
    asked(tmp_path, [ASK])
    (row,) = rows(only(tmp_path, "*"))
    for failed, good in (("batch-a.jsonl", "batch-b.jsonl"), ("batch-b.jsonl", "batch-a.jsonl")):
        write(tmp_path / failed, [{"custom_id": row["custom_id"], "response": None, "error": "no"}])
        write(tmp_path / good, [answer(row)])
        assert generate(tmp_path, [ASK])[0].text == "河流 1"


FAILURES = [
    ({"response": {"status_code": 400, "body": None}, "error": "URL was used"}, "URL was used"),  # vLLM
    (
        {
            "response": {"status_code": 404, "body": None},
            "error": {"error": {"message": "no model", "code": 404}},
        },
        "no model",
    ),  # vLLM
    ({"response": None, "error": {"code": "server_error", "message": "sorry"}}, "sorry"),  # OpenAI
    ({"response": {"status_code": 500, "body": {}}, "error": None}, "status 500"),
    ({"response": None, "error": None}, "status None"),
    ({}, "status None"),
    (
        {"response": {"status_code": 200, "body": {"choices": []}}},
        "malformed answer: 'choices' is an empty list",
    ),
    (
        {"response": {"status_code": 200, "body": "<html>"}},
        "malformed answer: the body is str, expected an object",
    ),
    ({"response": None, "error": "half \ud83d"}, "half \ufffd"),
]


@pytest.mark.parametrize(("row", "said"), FAILURES, ids=[said for _, said in FAILURES])
def test_a_failed_line_is_an_error_that_says_why(row, said):
    assert read_answer(row) == Response("", "error", 0, 0, error=said)


def test_filtered_and_cut_off_answers_say_so():
    row = {"custom_id": "x", "body": {"seed": 1}}
    assert read_answer(answer(row, finish_reason="content_filter")).error == "content filter"  # type: ignore
    assert read_answer(answer(row, finish_reason="length")).finish_reason == "length"  # type: ignore


@pytest.mark.parametrize(
    "bad", ['{"custom_id": "a", "resp', "[]", '{"id": "x"}', '{"custom_id": 3}', "[" * 100_000]
)
def test_a_torn_or_foreign_file_is_an_error_naming_the_line(tmp_path, bad):
    (tmp_path / "batch.jsonl").write_text('{"custom_id": "other"}\n\n' + bad, encoding="utf-8")
    with pytest.raises(
        PipelineError, match=r"batch\.jsonl:3: not a line of a batch's results .* Fetch the file"
    ):
        generate(tmp_path, [ASK])


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "journal.jsonl").write_text("not ours", encoding="utf-8")
    assert asked(tmp_path, [ASK])


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match="EEXIST|ENOTDIR"):
        generate(tmp_path / "file", [ASK])
