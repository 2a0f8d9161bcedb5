"""Vectors of a server are asked for once, by whichever run or process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripted
from fault_server import FaultServer

from pipeline.dedup import vector_cache
from pipeline.dedup.encoder import NoEncoder
from pipeline.dedup.vector_cache import CachedEncoder
from pipeline.errors import PipelineError


class Counting(NoEncoder):
    """A server whose digits change with every call."""

    def __init__(self, name: str = "smol", dimensions: int = 4) -> None:
        self.name, self.dimensions, self.asked = name, dimensions, list[list[str]]()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        rng = np.random.default_rng(len(self.asked))
        return rng.normal(size=(len(texts), self.dimensions)).astype(np.float32)


def test_a_text_is_asked_for_once_in_any_process_and_keeps_its_digits(tmp_path: Path) -> None:
    path, server = tmp_path / "new" / "vectors.sqlite", Counting()
    first = CachedEncoder(server, path).encode(["a", "写诗", "a"])
    assert server.asked == [["a", "写诗"]] and np.array_equal(first[0], first[2])
    again = CachedEncoder(server, path).encode(["写诗", "b", "a"])
    assert server.asked == [["a", "写诗"], ["b"]]
    assert np.array_equal(again[[0, 2]], first[[1, 0]]) and again.dtype == np.float32
    assert CachedEncoder(server, path).encode([]).shape == (0, 0)


def test_another_model_is_asked_for_itself(tmp_path: Path) -> None:
    path, other = tmp_path / "v", Counting("large", 8)
    CachedEncoder(Counting(), path).encode(["a"])
    assert CachedEncoder(other, path).encode(["a"]).shape == (1, 8) and other.asked == [["a"]]


def test_many_texts_are_stored_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "_PART", 2)
    server = Counting()
    CachedEncoder(server, tmp_path / "v").encode(list("abcab"))
    assert server.asked == [["a", "b"], ["c"]]  # the fourth and fifth were there by then


def test_a_model_whose_vectors_have_changed_their_length_is_refused(tmp_path: Path) -> None:
    CachedEncoder(Counting(), tmp_path / "v").encode(["a"])
    with pytest.raises(PipelineError, match="longer or shorter than the server's now. Move the file away"):
        CachedEncoder(Counting(dimensions=5), tmp_path / "v").encode(["a", "b"])


def test_a_file_of_something_else_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("not a database, and long enough to be seen as none" * 10)
    with pytest.raises(PipelineError, match="the cache of vectors cannot be used .file is not a database"):
        CachedEncoder(Counting(), tmp_path / "v").encode(["a"])


def test_a_run_that_was_stopped_asks_for_no_vector_twice_and_ends_the_same(call: Any, tmp_path: Path) -> None:
    with FaultServer() as server:
        options = ("--embedding-threshold", 0.9999, "--embedding-model", "openai:smol")
        args = (*scripted.ARGS, *options, "--embedding-base-url", server.url, "--batch-size", 4)
        whole = call(*args, "--run", "whole", "--num-examples", 12, "--cache", "off")
        assert whole.code == 0 and not (tmp_path / "runs").exists()
        server.asked.clear()
        assert call(*args, "--run", "r", "--num-examples", 12, "--max-requests", 20).code == 3
        before = len(server.asked)
        assert call("--resume", "--run", "r", "--max-requests", 0).code == 0
    assert (tmp_path / "runs" / "vectors.sqlite").is_file() and before < len(server.asked)
    texts = [text for asked in server.asked for text in asked.body["input"] if text != "Hello."]
    assert len(texts) == len(set(texts)) > 194  # the seeds and some proposals
    assert scripted.result(tmp_path / "r") == scripted.result(tmp_path / "whole")
