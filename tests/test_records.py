"""The data contracts: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.records import Drop, Example, Instance, SeedTask, duplicates, read_text, text_field, to_json
from pipeline.rows import read_rows


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(path: Path) -> list[tuple[str, dict[str, object]]]:
    return [(row.where, row.fields) for row in read_rows(path)]


def written(folder: Path, data: bytes | str, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_jsonl_rows_carry_file_and_line_and_blank_lines_count(tmp_path: Path) -> None:
    path = written(tmp_path, '{"a": 1}\n\n  \n{"a": "中文"}\n')
    assert read(path) == [(f"{path}:1", {"a": 1}), (f"{path}:4", {"a": "中文"})]


def test_a_json_array_carries_indices(tmp_path: Path) -> None:
    path = written(tmp_path, '\n [{"a": 1},\n {"a": 2}]')
    assert read(path) == [(f"{path}[0]", {"a": 1}), (f"{path}[1]", {"a": 2})]


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [row.fields for row in read_rows(path)] == [{"a": 1}, {"a": 2}]


def test_unicode_line_separators_inside_a_text_do_not_split_the_row(tmp_path: Path) -> None:
    path = written(tmp_path, '{"a": "one\u2028two\u0085three"}\n')
    assert [row.fields["a"] for row in read_rows(path)] == ["one\u2028two\u0085three"]


@pytest.mark.parametrize("content", ["", " \n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str | bytes) -> None:
    path = written(tmp_path, content)
    assert refusal(lambda: list(read_rows(path))).startswith(f"{path}: the file is empty")


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        ('{"a": 1}\n{"a": }\n', ":2", "not JSON (Expecting value at column 7)"),
        ('{"a": 1}\n\n3\n', ":3", "got int, expected an object"),
        ('{"a": 1}\n["b"]\n', ":2", "got list, expected an object"),
        ('[{"a": 1},\n{"a" 2}]', ":2", "not JSON (Expecting ':' delimiter)"),
        ('[{"a": 1}, "中文"]', "[1]", "got str, expected an object"),
    ],
)
def test_a_bad_row_is_refused_by_place(tmp_path: Path, content: str, place: str, problem: str) -> None:
    path = written(tmp_path, content)
    assert refusal(lambda: list(read_rows(path))).startswith(f"{path}{place}: {problem}. ")


def test_rows_before_a_bad_one_are_still_yielded(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, '{"a": 1}\nnonsense\n'))
    assert next(rows).fields == {"a": 1}
    assert "not JSON" in refusal(lambda: next(rows))


def test_another_encoding_is_refused_with_the_line_of_the_bad_byte(tmp_path: Path) -> None:
    # "中" is d6 d0 in GB18030; d6 opens a two-byte sequence in UTF-8 and d0 cannot go on with it.
    path = written(tmp_path, b'{"a": "x"}\n{"a": "' + "中".encode("gb18030") + b'"}\n')
    assert refusal(lambda: read_text(path)).startswith(f"{path}:2: byte 0xd6 is not UTF-8. ")


def test_utf_16_is_refused_at_its_first_byte(tmp_path: Path) -> None:
    path = written(tmp_path, '{"a": 1}'.encode("utf-16"))
    assert refusal(lambda: read_text(path)).startswith(f"{path}:1: byte 0xff is not UTF-8. ")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    assert f"{missing}: No such file or directory (ENOENT)" in refusal(lambda: read_text(missing))
    assert f"{tmp_path}: Is a directory (EISDIR)" in refusal(lambda: read_text(tmp_path))


def test_text_field_strips_and_allows_empty_only_where_told() -> None:
    assert text_field({"output": "  第一行\n第二行 \n"}, "output", "x:1") == "第一行\n第二行"
    assert text_field({"input": " \n"}, "input", "x:1", empty=True) == ""
    message = refusal(lambda: text_field({"input": " \n"}, "input", "x:1"))
    assert message.startswith("x:1: 'input' is empty, expected text. ")


def test_text_field_names_the_fields_there_are_when_one_is_missing() -> None:
    message = refusal(lambda: text_field({"instr": "a", "input": "b"}, "instruction", "x:17"))
    assert message.startswith("x:17: no field 'instruction' (has: instr, input). ")


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), (None, "NoneType"), (["a"], "list"), (True, "bool")])
def test_text_field_refuses_other_types(value: object, kind: str) -> None:
    message = refusal(lambda: text_field({"output": value}, "output", "x:1", empty=True))
    assert message.startswith(f"x:1: 'output' is {kind}, expected text. ")


def test_a_second_use_of_an_id_names_both_places() -> None:
    duplicates([("a:1", "x"), ("a:2", "y"), ("b:1", "甲")])
    message = refusal(lambda: duplicates([("a:1", "x"), ("a:2", "y"), ("b:1", "x")]))
    assert message.startswith("b:1: id 'x' was used before at a:1. ")


def test_to_json_is_one_readable_line_that_reads_back() -> None:
    seed = SeedTask("zh-1", '换行\n与"引号"', (Instance("", "答案😀"),), True, "zh", ("math",))
    line = to_json(seed)
    assert "\n" not in line and "答案😀" in line
    assert json.loads(line) == {
        "id": "zh-1",
        "instruction": '换行\n与"引号"',
        "instances": [{"input": "", "output": "答案😀"}],
        "is_classification": True,
        "language": "zh",
        "tags": ["math"],
    }
    assert to_json({"b": 1, "a": 2}) == '{"b": 1, "a": 2}'
    assert to_json(Drop("too_short", "2 words")) == '{"reason": "too_short", "evidence": "2 words"}'


def test_messages_put_the_input_below_the_instruction() -> None:
    with_input = Example("1", "总结下文。", "很长的文章", "短文", "zh", False)
    assert with_input.messages == [
        {"role": "user", "content": "总结下文。\n\n很长的文章"},
        {"role": "assistant", "content": "短文"},
    ]
    assert Example("2", "Say hi.", "", "Hi.", "en", False).messages[0]["content"] == "Say hi."
