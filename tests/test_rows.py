"""Rows of every shape that data sets come in, what of them is compared, and what is refused in one line."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.dedup.fields import held_out_text, read_held_out, text_of, whole_text
from pipeline.errors import PipelineError
from pipeline.format.hub import hub_dataset
from pipeline.format.sources import find_sources
from pipeline.records import Example
from pipeline.rows import Row, _array_rows, json_line, read_rows
from pipeline.stages.export import export

EN = {"id": "a", "instruction": "Name a colour.", "input": "", "output": "Red"}
LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
ZH = {"id": 7, "instruction": "翻译。", "input": "你好", "output": "Hello"}


def jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(*paths: object) -> list[Row]:
    return [row for source in find_sources([str(path) for path in paths]) for row in source.rows()]


def refusal(*paths: object) -> str:
    with pytest.raises(PipelineError) as caught:
        rows(*paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def row(**fields: Any) -> Row:
    return Row("x.jsonl:1", fields, json_line(fields, "x.jsonl:1"))


# ---- where rows come from ----


def test_json_lines_keep_their_own_text_and_say_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"instruction":"Go.",  "x": 1e5, "id": "a"}', '{"instruction": "\\u53bb\\u3002"}']
    path.write_bytes(b"\xef\xbb\xbf" + f"{lines[0]}\r\n\n{lines[1]}".encode())
    found = rows(path)
    assert [r.line for r in found] == lines
    assert [r.name for r in found] == [f"{path}:1 (id a)", f"{path}:3"]
    assert found[1].fields == {"instruction": "去。"}


def test_a_json_array_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text(" \n" + json.dumps([EN, ZH], indent=1), encoding="utf-8")
    assert [(r.where, r.fields) for r in rows(path)] == [(f"{path}[0]", EN), (f"{path}[1]", ZH)]
    assert [json.loads(r.line) for r in rows(path)] == [EN, ZH]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.recursive(LEAF, st.lists), max_size=3), min_size=1),
    st.integers(1, 40),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_an_array_reads_alike_wherever_its_pieces_are_cut(
    tmp_path: Path, items: list[Any], piece: int, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path / "x.json"
    path.write_text(f" \n{json.dumps(items, indent=indent, ensure_ascii=ascii_only)}\n\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.rows._PIECE", piece)
        found = [r.fields for r in _array_rows(path, path.open("rb"))]
    assert found == items


@pytest.mark.parametrize("piece", [1, 2, 5, 64])
@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'[{"a": 1},\n{"a" 2}]', 2),
        (b'[\n{"a": 1}\n{"a": 2}]', 3),
        (b'[{"a": 1},\n\n]', 3),
        (b'[{"a": 1}]\n\nx', 3),
        (b'[{"a": 1},\n{"a": "b', 2),
        (b'[{"a": 1},\n{"a": 1}\n', 3),
        ('[{"a": "好"},\n{"a": "'.encode() + "好".encode("gb18030") + b'"}]', 2),
        ('[{"a": "好"},\n\n{"a": "好'.encode()[:-1], 3),
    ],
)
def test_a_broken_array_is_refused_with_its_line_wherever_it_is_cut(
    tmp_path: Path, data: bytes, line: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.rows._PIECE", piece)
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(PipelineError, match=rf"x\.json:{line}: (not JSON|byte 0x.. is not UTF-8)"):
        list(_array_rows(tmp_path / "x.json", (tmp_path / "x.json").open("rb")))


def test_an_array_is_read_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "x" * 1000}] * 1000) + "broken", encoding="utf-8")
    found = read_rows(path)
    first = next(found)
    assert first.where == f"{path}[0]"
    with path.open("rb") as stream:
        items = _array_rows(path, stream)
        next(items)
        assert stream.tell() < 100_000  # of a million
    with pytest.raises(PipelineError, match="Extra data"):
        list(found)


def test_parquet_is_read_dates_become_text_and_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    day = datetime.date(2026, 1, 2)
    parquet.write_table(
        pa.Table.from_pylist([{"text": "Hi", "day": day}, {"text": "你好", "day": None}]), path
    )
    found = rows(path)
    assert [r.where for r in found] == [f"{path}[0]", f"{path}[1]"]
    assert [json.loads(r.line) for r in found] == [
        {"text": "Hi", "day": "2026-01-02"},
        {"text": "你好", "day": None},
    ]
    parquet.write_table(pa.Table.from_pylist([{"text": "Hi", "image": b"\x00"}]), path)
    assert refusal(path).startswith(f"{path}[0]: a field holds bytes")
    parquet.write_table(pa.Table.from_pylist([], schema=pa.schema([("text", pa.string())])), path)
    assert refusal(path).startswith(f"{path}: the file is empty")


def test_a_run_of_ours_means_what_it_kept_and_a_dataset_its_parquet(tmp_path: Path) -> None:
    run = tmp_path / "run"
    example = Example("en-1", "Name a colour.", "", "Red", "en", False)
    jsonl(run / "kept.jsonl", EN)
    jsonl(run / "dropped.jsonl", ZH)
    assert [r.fields for r in rows(run)] == [EN]
    examples: Any = [example]
    export(examples, run / "dataset", {})
    (found,) = rows(run / "dataset")
    assert (found.where, found.fields["id"]) == (f"{run}/dataset/data/train.parquet[0]", "en-1")


def test_a_directory_means_its_own_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json", "notes.txt", "sub/c.jsonl"):
        jsonl(tmp_path / name, EN)
    assert [r.where for r in rows(tmp_path)] == [f"{tmp_path}/a.json:1", f"{tmp_path}/b.jsonl:1"]
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").startswith(f"{tmp_path}/empty: the directory has no file that ends in")


def test_a_file_named_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "a.jsonl", EN)
    assert (
        refusal("a.jsonl", tmp_path / "a.jsonl")
        == f"{tmp_path}/a.jsonl: it is named twice. Name every file once."
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "x.jsonl: the file is empty"),
        (b" \n\n", "x.jsonl: the file is empty"),
        (b'{"a": 1}\n{"a": \n', "x.jsonl:2: not JSON"),
        (b'{"a": 1}\n3\n', "x.jsonl:2: got int, expected an object"),
        ('{"a": "好"}\n'.encode() + '{"a": "好"}\n'.encode("gb18030"), "x.jsonl:2: byte 0xba is not UTF-8"),
        (b'{"a": "\\ud800"}\n', "x.jsonl:1: \\ud800 is half a surrogate pair"),
        (b'[{"a": 1}, 3]', "x.jsonl[1]: got int, expected an object"),
        (b'[{"a": 1}', "x.jsonl:1: not JSON"),
        (b"[]", "x.jsonl: the array is empty"),
    ],
)
def test_broken_files_are_refused_with_file_and_line(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    assert refusal(tmp_path / "x.jsonl").startswith(f"{tmp_path}/{said}")


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not at all")
    assert refusal(tmp_path / "x.parquet").startswith(f"{tmp_path}/x.parquet: not Parquet (")


def test_names_of_hub_datasets_are_told_from_paths(tmp_path: Path) -> None:
    for name, expected in (
        ("openai/gsm8k", (None, "train")),
        ("openai/gsm8k:test", (None, "test")),
        ("openai/gsm8k:main:test", ("main", "test")),
    ):
        found = hub_dataset(name)
        assert found and (found.path, found.config, found.split) == ("openai/gsm8k", *expected)
    for name in ("gsm8k", "a/b/c", "./a/b", "data/x.jsonl", "data/x.parquet:test", "/data/x"):
        assert refusal(name).startswith(
            f"{name}: no such file or directory, and not the name of a hub dataset"
        )


def test_a_hub_dataset_is_streamed_as_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads a local directory in the hub's own layout as it reads the hub."""
    jsonl(tmp_path / "me" / "data" / "test.jsonl", {"question": "Why?"}, {"question": "为什么？"})
    sources = find_sources(["me/data:test"])
    monkeypatch.chdir(tmp_path)
    assert [(r.where, r.fields) for r in sources[0].rows()] == [
        ("me/data:test[0]", {"question": "Why?"}),
        ("me/data:test[1]", {"question": "为什么？"}),
    ]
    assert sources[0].digest() == sources[0].digest() != ""
    assert find_sources(["me/data"])[0].name == "me/data/test.jsonl"  # a path that exists is a path


# ---- what is compared ----


@pytest.mark.parametrize(
    ("fields", "on", "text"),
    [
        (EN, "instruction+input", "Name a colour."),
        (ZH, "instruction+input", "翻译。\n你好"),
        ({"instruction": "去。", "input": None}, "instruction+input", "去。"),
        ({"instruction": "Go."}, "instruction+input", "Go."),
        (ZH, "instruction", "翻译。"),
        (ZH, "instruction+input+output", "翻译。\n你好\nHello"),
        ({"text": "Hi"}, "text", "Hi"),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "你好"}]},
            "messages",
            "Hi\n你好",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "messages", "Hi"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "messages", ""),
        ({"conversations": [{"from": "human", "value": "你好"}]}, "conversations", "你好"),
    ],
)
def test_the_text_of_a_row(fields: dict[str, Any], on: str, text: str) -> None:
    assert text_of(row(**fields), on) == text


@pytest.mark.parametrize(
    ("fields", "on", "said"),
    [
        (
            {"question": "Why?", "answer": "So."},
            "instruction+input",
            "x.jsonl:1: no field 'instruction' (has: question, answer). Name the fields to compare, say",
        ),
        (
            {"frage": "Wie?"},
            "text",
            "x.jsonl:1: no field 'text' (has: frage). Name the fields to compare, say --on text.",
        ),
        ({}, "text", "x.jsonl:1: no field 'text' (has: none)."),
        ({"instruction": None}, "instruction", "x.jsonl:1: 'instruction' is NoneType, expected text"),
        ({"messages": []}, "messages", "x.jsonl:1: 'messages' is an empty list, expected text or turns"),
        ({"messages": ["你好"]}, "messages", "x.jsonl:1 messages[0]: expected {role, content} with text"),
    ],
)
def test_a_row_without_the_text_is_refused_with_the_fields_it_has(
    fields: dict[str, Any], on: str, said: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        text_of(row(**fields), on)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("fields", "text", "whole"),
    [
        (EN, "Name a colour.", "Name a colour.\n\nRed"),
        ({"question": "为什么？", "answer": "因为。"}, "为什么？", "为什么？\n因为。"),
        ({"prompt": [{"role": "user", "content": "Hi"}]}, "Hi", "Hi"),
        ({"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]}, "Add.", "Add.\n1 2\n3"),
    ],
)
def test_held_out_rows_may_have_other_fields(fields: dict[str, Any], text: str, whole: str) -> None:
    assert held_out_text(row(**fields), "instruction+input", "") == text
    assert whole_text(row(**fields)) == whole


def test_the_fields_of_held_out_rows_can_be_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"id": "q1", "frage": "Warum?"})
    held = read_held_out(find_sources([str(path)]), "instruction", "frage")
    assert (held.where, held.texts) == ([f"{path}:1 (id q1)"], ["Warum?"])
    with pytest.raises(
        PipelineError, match=r"no field 'instruction' \(has: id, frage\).*say --against-on text"
    ):
        read_held_out(find_sources([str(path)]), "instruction", "")
