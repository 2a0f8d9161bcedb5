"""Snapshots: taking one up ends in the same bytes, and one that does not fit its files is not believed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripted
from scripted import result

from pipeline.engines.base import Request, Sampling
from pipeline.engines.snapshot import Mark, Snapshot, pack, read_snapshot, unpack, write_snapshot

FILES = ("journal.jsonl", "kept.jsonl", "dropped.jsonl", "metrics.jsonl")


def run(call: Any, *args: object) -> scripted.Ended:
    return call(*scripted.ARGS, "--num-examples", 60, "--batch-size", 8, *args)


def interrupted(call: Any, tmp_path: Path, after: int, *args: object) -> Path:
    """A run with snapshots that a budget stopped after some requests."""
    ended = run(call, "--run", "r", "--snapshot-every", 16, "--max-requests", after, *args)
    assert ended.code == 3, ended.err
    return tmp_path / "r"


@pytest.mark.parametrize("after", [24, 40, 64])
@pytest.mark.parametrize("args", [(), ("--variant", "alpaca")])
def test_a_run_that_goes_on_from_a_snapshot_ends_in_the_same_bytes(
    after: int, args: tuple[str, ...], call: Any, tmp_path: Path
) -> None:
    folder = interrupted(call, tmp_path, after, *args)
    ended = call("--resume", "--run", "r", "--max-requests", 0)
    assert "going on from the snapshot of request" in ended.err, ended.err
    run(call, "--run", "whole", "--snapshot-every", 0, *args)
    assert result(folder) == result(tmp_path / "whole")
    assert (folder / "journal.jsonl").read_bytes() == (tmp_path / "whole" / "journal.jsonl").read_bytes()
    ledgers = [json.loads((tmp_path / r / "run.json").read_text())["ledger"] for r in ("r", "whole")]
    assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize("name", FILES)
def test_a_snapshot_whose_files_changed_is_not_believed(name: str, call: Any, tmp_path: Path) -> None:
    folder = interrupted(call, tmp_path, 104)
    data = (folder / name).read_bytes()
    if name == "journal.jsonl":  # another count of tokens: still a journal
        changed = data.replace(b'"prompt_tokens": 100', b'"prompt_tokens": 101', 1)
    else:
        changed = b"x" + data[1:]
    assert changed != data
    (folder / name).write_bytes(changed)
    ended = call("--resume", "--run", "r", "--max-requests", 0)
    assert ended.code == 0 and "going on from the snapshot" not in ended.err, ended.err
    run(call, "--run", "whole", "--snapshot-every", 0)
    kept = "kept.jsonl"
    assert (folder / kept).read_bytes() == (tmp_path / "whole" / kept).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "pickle", "version"])
def test_a_damaged_snapshot_is_not_believed(damage: str, tmp_path: Path) -> None:
    path, file = tmp_path / "snapshot.npz", tmp_path / "a.jsonl"
    file.write_bytes(b"one\ntwo\n")
    mark = Mark(file)
    mark.advance(4)
    good = Snapshot({"n": 1, "名": "值"}, {"v": np.arange(6.0).reshape(2, 3)}, {"a": mark.state()})
    write_snapshot(path, good)
    found = read_snapshot(path, {"a": Mark(file)})
    assert found and found.values == good.values and (found.arrays["v"] == good.arrays["v"]).all()
    data = path.read_bytes()
    if damage == "pickle":
        np.savez(path, json=np.array([{"version": 1}], dtype=object))
    elif damage == "version":
        head = json.dumps({"version": 2, "values": {}, "marks": {}}).encode()
        np.savez(path, json=np.frombuffer(head, np.uint8))
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "garbage": b"x" * 99, "empty": b""}[damage])
    assert read_snapshot(path, {"a": Mark(file)}) is None


def test_a_snapshot_is_refused_when_a_file_is_shorter_gone_or_other(tmp_path: Path) -> None:
    path, file = tmp_path / "snapshot.npz", tmp_path / "a.jsonl"
    file.write_bytes(b"one\ntwo\n")
    mark = Mark(file)
    mark.advance(8)
    write_snapshot(path, Snapshot({}, {}, {"a": mark.state()}))
    for data, believed in ((b"one\ntwo\nthree\n", True), (b"one\ntwo", False), (b"one\ntwO\n", False)):
        file.write_bytes(data)
        assert (read_snapshot(path, {"a": Mark(file)}) is not None) == believed
    file.unlink()
    assert read_snapshot(path, {"a": Mark(file)}) is None
    assert read_snapshot(path, {"b": Mark(file)}) is None


def test_texts_come_back_from_their_arrays() -> None:
    texts = ["Name a river.", "", "列举三条河流。", "half a pair: \ud83d", "line\nbreak\0"]
    assert unpack(*pack(texts)) == texts
    assert unpack(*pack([])) == []


def test_a_request_comes_back_from_its_json() -> None:
    sampling = Sampling(0.5, 0.9, 0.1, 7, ("\n", "。"), 3)
    asked = Request("问", True, "系统", sampling, (("a", "b"),), "judge", "{}")
    assert Request.from_dict(json.loads(json.dumps(asdict(asked)))) == asked
