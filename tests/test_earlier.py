"""`--pool`: earlier rounds' instructions are admitted before, are shown, and are named in the evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripted
from rule_engine import NOUNS, OPEN, SEEDS, Scripted, assert_books_balance, begin, drive
from scripted import refused, result
from test_flow import MEANING, Numbered

from pipeline.errors import PipelineError
from pipeline.rundir import file_digest
from pipeline.stages.earlier import earlier_sources, read_earlier
from pipeline.stages.state import job_state, restore_job

EN, ZH = "Explain how bees find their way home.", "请解释蜜蜂怎样找到回家的路。"


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(*names: Path) -> dict[str, list[tuple[str, str]]]:
    return {la: list(mine) for la, mine in read_earlier(earlier_sources([str(n) for n in names])).items()}


# ---- what is read ----

ROWS = {
    "kept.jsonl": {"instruction": EN, "input": "", "output": "x", "language": "en", "provenance": {}},
    "Alpaca": {"instruction": EN, "input": "", "output": "x"},
    "an instruction alone": {"instruction": f" {EN}\n"},
    "messages": {"messages": [{"role": "user", "content": EN}, {"role": "assistant", "content": "x"}]},
    "ShareGPT": {"conversations": [{"from": "human", "value": EN}, {"from": "gpt", "value": "x"}]},
    "prompt and completion": {"prompt": EN, "completion": "x"},
    "a seed task": {"instruction": EN, "instances": [{"input": "", "output": "x"}]},
}


@pytest.mark.parametrize("shape", ROWS)
def test_instructions_are_read_out_of_every_shape_of_row(shape: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS[shape])
    assert read(path) == {"en": [(f"{path}:1", EN)], "zh": []}
    array = tmp_path / "b.json"
    array.write_text(json.dumps([ROWS[shape]]))
    assert read(array) == {"en": [(f"{array}[0]", EN)], "zh": []}


def test_the_language_is_the_rows_own_else_that_of_its_script(tmp_path: Path) -> None:
    rows = ({"instruction": EN}, {"instruction": ZH}, {"instruction": "“慢走”", "language": "en"})
    path = jsonl(tmp_path / "a.jsonl", *rows, {"instruction": "Hola.", "language": "es"})
    found = read(path)
    assert [text for _, text in found["en"]] == [EN, "“慢走”", "Hola."]
    assert found["zh"] == [(f"{path}:2", ZH)]


def test_an_instruction_counts_once_under_its_first_id_and_no_id_twice(tmp_path: Path) -> None:
    one = jsonl(tmp_path / "a.jsonl", {"id": "x", "instruction": EN}, {"id": "y", "instruction": EN})
    two = jsonl(tmp_path / "b.jsonl", {"id": "x", "instruction": ZH}, {"id": "x", "instruction": f"{ZH}！"})
    assert read(one, two) == {"en": [(f"{one}:x", EN)], "zh": [(f"{two}:x", ZH), (f"{two}:2", f"{ZH}！")]}


def test_a_file_in_the_working_directory_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "r" / "DONE").write_text("x\n")
    jsonl(tmp_path / "r" / "kept.jsonl", {"id": "en-000001-0-0", "instruction": EN})
    for name in ("r", "r/kept.jsonl", tmp_path / "r"):
        assert read(Path(name))["en"] == [("r:en-000001-0-0", EN)]


BAD = {
    "": "the file is empty",
    "{'a'": "x.jsonl:1: not JSON",
    '{"instruction": ""}': "x.jsonl:1: 'instruction' is empty",
    '{"instruction": 3}': "x.jsonl:1: 'instruction' is int",
    '{"text": "a"}': "x.jsonl:1: has text, expected instruction and output",
    '{"messages": []}': "x.jsonl:1: 'messages' is an empty list",
}


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_cannot_be_read_is_a_one_line_error(text: str, call: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    said = refused(call(*scripted.ARGS, "--pool", "x.jsonl", "--run", "r"))
    assert BAD[text] in said and "--bad-rows" not in said
    assert not (tmp_path / "r").exists()


def test_an_unfinished_run_and_a_missing_one_are_refused(call: Any, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text("seed: 0\n")
    jsonl(tmp_path / "old" / "kept.jsonl", {"instruction": EN})
    for name in ("old", "old/kept.jsonl"):
        said = refused(call(*scripted.ARGS, "--pool", name, "--run", "r"))
        assert said == (
            f"--pool {name}: the run is not finished. "
            "Finish it (python -m pipeline.selfinstruct --resume --run old), or leave it out."
        )
    assert "gone: no such file" in refused(call(*scripted.ARGS, "--pool", "gone", "--run", "r"))
    with pytest.raises(PipelineError, match="named twice"):
        (tmp_path / "old" / "DONE").write_text("x\n")
        earlier_sources(["old", "old"])


# ---- what it does to a run ----


def rows(language: str) -> list[tuple[str, str]]:
    """Instructions that a run of the scripted engine makes too."""
    kept = drive(wanted={language: 25}).kept
    return [(f"old:{e.id}", e.instruction) for e in kept]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_like_an_earlier_instruction_is_admitted_and_the_evidence_names_it(language: str) -> None:
    earlier = {language: rows(language)}
    again = drive(wanted={language: 12}, earlier=earlier)
    assert not {e.instruction for e in again.kept} & {text for _, text in earlier[language]}
    named = {d["evidence"].split(" against ")[1] for d in again.dropped if d["reason"] == "near_duplicate"}
    assert any(evidence.startswith("old:") for evidence in named)
    assert_books_balance(again)


def test_what_means_the_same_as_an_earlier_instruction_is_named_too() -> None:
    class Comparing(Numbered):
        """All comparisons mean the same."""

        def encode(self, texts: Any) -> np.ndarray:
            found = super().encode(texts)
            found[[text.startswith("Compare a ") for text in texts]] = np.eye(8, dtype=np.float32)[0]
            return found

    earlier = {"en": [("old:1", "Compare a fork."), ("old:2", "Name a lake.")]}
    made = drive(wanted={"en": 12}, earlier=earlier, encoder=Comparing(), **MEANING)
    named = {d["evidence"].split(" against ")[1] for d in made.dropped if d["reason"] == "same_meaning"}
    assert "old:1: Compare a fork." in named
    pool = made.job.pools[0]
    assert pool.embedding.keys == pool.rouge.keys
    assert pool.rouge.keys[: len(SEEDS["en"]) + 2] == [*(s.id for s in SEEDS["en"]), "old:1", "old:2"]


def test_they_are_shown_and_evolved_like_the_runs_own() -> None:
    earlier = {la: rows(la) for la in ("en", "zh")}
    made = drive(earlier=earlier, classification_frac=0, evolve_frac=0.3, max_shown=24, rouge_threshold=0.95)
    plain = [e for e in made.kept if "evolved" not in e.provenance]
    shown = [sum(key.startswith("old:") for key in e.provenance["shown"]) for e in plain]
    assert 2 in shown and max(shown) == 2  # from the first proposal on, two of them
    assert any(e.provenance["evolved"]["from"].startswith("old:") for e in made.kept if e not in plain)


def test_what_this_run_would_screen_out_counts_but_is_not_shown() -> None:
    odd = [
        "Draw a picture of the sea.",
        "word " * 99,
        "<|im_start|>system Name a river.",
        "The sun is a star.",
    ]
    pairs = [(f"old:{n}", text) for n, text in enumerate([EN, *odd])]
    pool = begin(Scripted(), wanted={"en": 5}, earlier={"en": pairs})[0].pools[0]
    assert pool.machine.items == pairs[:1]
    assert pool.rouge.keys[-5:] == [key for key, _ in pairs]


def test_a_job_with_earlier_instructions_is_saved_and_restored() -> None:
    old = {
        la: [(f"old:{i}", OPEN[la][0].format(*NOUNS[la][4 * i : 4 * i + 4])) for i in range(9)] for la in OPEN
    }
    options = {"earlier": old, **MEANING}
    made = drive(encoder=Numbered(), evolve_frac=0.8, max_shown=24, **options)
    restored = begin(Scripted(), encoder=Numbered(), evolve_frac=0.8, max_shown=24, **options)[0]
    restore_job(restored, *job_state(made.job))
    for mine, theirs in zip(restored.pools, made.job.pools, strict=True):
        assert mine.rouge.keys == theirs.rouge.keys and mine.embedding.keys == theirs.embedding.keys
        assert mine.machine.items == theirs.machine.items
        assert mine.parents.written.items == theirs.parents.written.items != []
        assert mine.machine.items[:9] == old[mine.language]
        assert (mine.evolved, mine.evolved_kept) == (theirs.evolved, theirs.evolved_kept) != (0, 0)
        np.testing.assert_array_equal(mine.embedding.vectors, theirs.embedding.vectors)


# ---- the command ----


@pytest.fixture
def old(call: Any, tmp_path: Path) -> Path:
    """A finished run."""
    assert call(*scripted.ARGS, "--num-examples", 30, "--run", "old").code == 0
    return tmp_path / "old"


def test_a_second_round_adds_to_the_first(call: Any, old: Path, tmp_path: Path) -> None:
    ended = call(*scripted.ARGS, "--num-examples", 10, "--run", "r", "--pool", "old", "--round", 1)
    assert ended.code == 0 and "; 30 instructions of earlier rounds; " in ended.err
    first, second = (
        [json.loads(line) for line in (tmp_path / name / "kept.jsonl").read_text().splitlines()]
        for name in ("old", "r")
    )
    assert not {row["instruction"] for row in first} & {row["instruction"] for row in second}
    assert {row["provenance"]["round"] for row in first} == {0}
    assert {row["provenance"]["round"] for row in second} == {1}
    assert any(
        "against old:en-" in line for line in (tmp_path / "r" / "dropped.jsonl").read_text().splitlines()
    )
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["inputs"]["old/kept.jsonl"] == file_digest(old / "kept.jsonl")
    # the dataset of a run, and its Alpaca JSON, do as well
    for number, name in enumerate(("old/dataset", "old/dataset/alpaca.json")):
        ended = call(*scripted.ARGS, "--num-examples", 2, "--run", f"s{number}", "--pool", name)
        assert ended.code == 0 and "; 30 instructions of earlier rounds; " in ended.err


@pytest.mark.parametrize("after", [24, 48])
def test_a_round_with_a_pool_goes_on_from_a_snapshot_to_the_same_bytes(
    after: int, call: Any, old: Path, tmp_path: Path
) -> None:
    args = (
        *scripted.ARGS,
        "--num-examples",
        40,
        "--batch-size",
        8,
        "--pool",
        "old",
        "--evolve-frac",
        0.5,
        "--max-shown",
        24,
    )
    snapshots = ("--snapshot-every", 16, "--max-requests", after)
    assert call(*args, "--run", "r", *snapshots).code == 3
    ended = call("--resume", "--run", "r", "--max-requests", 0)
    assert "going on from the snapshot of request" in ended.err, ended.err
    assert call(*args, "--run", "whole", "--snapshot-every", 0).code == 0
    assert result(tmp_path / "r") == result(tmp_path / "whole")
    counts = [json.loads((tmp_path / name / "run.json").read_text())["evolved"] for name in ("r", "whole")]
    assert counts[0] == counts[1]


def test_resuming_with_a_changed_pool_names_the_file(call: Any, old: Path, tmp_path: Path) -> None:
    shutil.copy(old / "kept.jsonl", tmp_path / "mine.jsonl")
    assert call(*scripted.ARGS, "--num-examples", 2, "--run", "r", "--pool", "mine.jsonl").code == 0
    (tmp_path / "r" / "DONE").unlink()
    jsonl(tmp_path / "mine.jsonl", {"instruction": EN})
    assert "the contents of mine.jsonl" in refused(call("--resume", "--run", "r"))
    said = refused(call("--resume", "--run", "r", "--pool", "old", "--round", 3))
    assert "pool (['mine.jsonl'] -> ['old'])" in said and "round (0 -> 3)" in said
