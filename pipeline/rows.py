"""Rows of JSONL files and of JSON arrays, read as they go and refused with file and line or index."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import PipelineError, disk_errors
from pipeline.records import check_characters, json_object

NO_ROWS = "Write one, or leave the file out."
_BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 16  # bytes read at a time
_SPACE = re.compile(r"[ \t\r\n]*")  # JSON's white space
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Row:
    """One row: where it stands (`file:line`, `file[index]`), its fields, and itself as one line of JSON."""

    where: str
    fields: dict[str, Any]
    line: str

    @property
    def name(self) -> str:
        """Where it stands and, if it has one, its id."""
        return f"{self.where} (id {self.fields['id']})" if "id" in self.fields else self.where


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSONL file or of a JSON array, whichever it is; at least one. Raises PipelineError."""
    with disk_errors(path), path.open("rb") as stream:
        array = stream.read(_PIECE).removeprefix(_BOM).lstrip().startswith(b"[")
        stream.seek(0)
        empty = True
        for row in _array_rows(path, stream) if array else _json_lines(path, stream):
            empty = False
            yield row
    if empty:
        problem = "the array is empty" if array else "the file is empty"
        raise PipelineError(path, f"{problem}, expected at least one row", NO_ROWS)


def json_line(fields: dict[str, Any], where: str) -> str:
    """The fields as one line of JSON, dates and decimals as text. Raises PipelineError for bytes."""
    try:
        return json.dumps(fields, ensure_ascii=False, default=_plain)
    except TypeError as error:
        raise PipelineError(where, str(error), "Leave that column out.") from None


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("a field holds bytes, which JSONL cannot hold")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _json_lines(path: Path, stream: BinaryIO) -> Iterator[Row]:
    for number, raw in enumerate(stream, 1):
        data = raw.removeprefix(_BOM) if number == 1 else raw
        if data.strip():
            where = f"{path}:{number}"
            try:
                line = data.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise _not_utf8(where, error) from None
            yield Row(where, json_object(where, line), line)


def _array_rows(path: Path, stream: BinaryIO) -> Iterator[Row]:
    for index, fields in enumerate(_Array(path, stream)):
        where = f"{path}[{index}]"
        if not isinstance(fields, dict):
            raise PipelineError(where, f"got {type(fields).__name__}, expected an object", "Mend the row.")
        line = json_line(fields, where)
        check_characters(line, where)
        yield Row(where, fields, line)


class _Array:
    """The items of a JSON array, decoded one by one from as much of the file as they need."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at = "", 0  # what was read and not yet dropped; how much of it is decoded
        self._line = 1  # of the text's beginning

    def __iter__(self) -> Iterator[Any]:
        self._sign("[")
        if self._peek() != "]":
            yield self._item()
            while self._peek() != "]":
                self._sign(",")
                yield self._item()
        self._sign("]")
        if self._peek():
            raise self._refusal("Extra data", self._at)

    def _item(self) -> Any:
        self._peek()
        size = _PIECE
        while True:
            try:
                item, self._at = _DECODER.raw_decode(self._text, self._at)
                return item
            except json.JSONDecodeError as error:
                # perhaps its end has not been read; twice as much each time, as it is decoded anew
                if not self._more(size):
                    raise self._refusal(error.msg, error.pos) from None
                size *= 2
            except RecursionError:
                raise self._refusal("nested too deeply", self._at) from None

    def _sign(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._refusal(f"Expecting '{sign}'", self._at)
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_PIECE):
                return ""

    def _more(self, size: int) -> bool:
        """Read on, and drop what is decoded; False at the end of the file."""
        data = self._stream.read(size)
        begun = self._line + self._text.count("\n")
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line = begun + error.object.count(b"\n", 0, error.start)
            raise _not_utf8(f"{self._path}:{line}", error) from None
        if not data:
            return False
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + text, 0
        return True

    def _refusal(self, problem: str, at: int) -> PipelineError:
        line = self._line + self._text.count("\n", 0, at)
        return PipelineError(f"{self._path}:{line}", f"not JSON ({problem})", "Mend the file.")


def _not_utf8(where: str, error: UnicodeDecodeError) -> PipelineError:
    problem = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
    return PipelineError(where, problem, "Save the file as UTF-8 (iconv -f GB18030 -t UTF-8, say).")
