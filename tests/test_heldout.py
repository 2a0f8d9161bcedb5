"""`--heldout`: what gives held-out texts away is dropped as contaminated, and the evidence says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scripted
from rule_engine import SEEDS, TARGETS, assert_books_balance, drive
from scripted import refused, result

from pipeline.format.sources import find_sources
from pipeline.rundir import file_digest
from pipeline.stages.heldout import HeldOutFilter

EN = "List three reasons why people in small towns prefer to walk to the market on Sunday mornings."
EN_LIKE = "List three reasons why people in small towns like to walk to the market on Sunday evenings."
ZH = "请列出三个理由，说明为什么小镇上的居民更愿意在星期天早上步行去市场买菜。"
ZH_LIKE = "请列出三个理由，说明为什么小镇上的居民更喜欢在星期六早上步行去市场买菜。"
EN_ANSWER = (
    "They meet friends there, the streets are quiet at that hour, and a walk in the sun does them good."
)
ZH_ANSWER = "因为他们可以在那里遇到朋友，清晨的街道非常安静，而且早饭之前散步对身体也有好处，何乐而不为呢。"


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def held_out(folder: Path, *, ngram: int = 13, rouge: float = 0.7) -> HeldOutFilter:
    rows = (
        {"instruction": EN, "input": "", "output": EN_ANSWER},
        {"instruction": ZH, "instances": [{"input": "", "output": ZH_ANSWER}]},
        {"question": "Why is the sky blue at noon and red in the evening when the sun goes down?"},
    )
    path = jsonl(folder / "test.jsonl", *rows)
    return HeldOutFilter(find_sources([str(path)]), ngram=ngram, rouge=rouge)


@pytest.mark.parametrize(("line", "text", "like"), [(1, EN, EN_LIKE), (2, ZH, ZH_LIKE)], ids=["en", "zh"])
def test_instructions_are_checked_by_ngrams_and_by_wording(
    line: int, text: str, like: str, tmp_path: Path
) -> None:
    quoted = held_out(tmp_path, rouge=1).instruction(f"Please: 请：{text}")
    assert quoted and quoted.reason == "contaminated"
    assert quoted.evidence.startswith("13-gram ") and f"test.jsonl:{line}: {text[:20]}" in quoted.evidence
    reworded = held_out(tmp_path).instruction(like)
    assert reworded and reworded.reason == "contaminated"
    assert (
        reworded.evidence.startswith("ROUGE-L 0.") and f"test.jsonl:{line}: {text[:20]}" in reworded.evidence
    )
    assert held_out(tmp_path, ngram=0, rouge=1).instruction(text) is None


@pytest.mark.parametrize(("line", "answer"), [(1, EN_ANSWER), (2, ZH_ANSWER)], ids=["en", "zh"])
def test_examples_are_checked_in_all_their_parts(line: int, answer: str, tmp_path: Path) -> None:
    against = held_out(tmp_path)
    for parts in (("Explain.", "", f"Well: {answer}"), ("说明。", answer, "好的。")):
        drop = against.example(*parts)
        assert drop and drop.reason == "contaminated" and f"test.jsonl:{line}: " in drop.evidence
    assert against.example("Explain.", "", "They like it.") is None
    assert against.example("说明。", "", "他们喜欢。") is None


def test_what_is_like_a_held_out_row_of_another_shape_is_found(tmp_path: Path) -> None:
    drop = held_out(tmp_path).instruction(
        "Why is the sky blue at noon and red in the evening when the sun sets?"
    )
    assert drop and "test.jsonl:3" in drop.evidence


def test_a_run_drops_the_contaminated_in_both_languages_and_its_books_balance(tmp_path: Path) -> None:
    free = drive()
    bad = [next(e for e in free.kept if e.language == language) for language in ("en", "zh")]
    path = jsonl(tmp_path / "test.jsonl", *({"instruction": e.instruction, "output": ""} for e in bad))
    made = drive(held_out=HeldOutFilter(find_sources([str(path)]), ngram=13, rouge=0.7))
    assert_books_balance(made)
    instructions = {e.instruction for e in made.kept}
    assert not instructions & {e.instruction for e in bad}
    drops = [row for row in made.dropped if row["reason"] == "contaminated"]
    assert {e.instruction for e in bad} <= {row["instruction"] for row in drops}
    assert all(row["stage"] == "heldout" and f"{path}:" in row["evidence"] for row in drops)
    assert made.job.candidates.dropped["heldout", "contaminated"] == len(drops)
    assert {la: len([e for e in made.kept if e.language == la]) for la in SEEDS} == TARGETS


# ---- the command ----

SMALL = (*scripted.ARGS, "--num-examples", "6", "--rouge-threshold", "0.95")


def test_the_ledger_counts_them_and_run_json_holds_the_digest(call: Any, tmp_path: Path) -> None:
    assert call(*SMALL, "--run", "free").code == 0
    kept = [json.loads(line) for line in (tmp_path / "free" / "kept.jsonl").read_text().splitlines()]
    other = next(row for row in kept[1:] if len(row["output"].split()) > 12)
    answers = jsonl(
        tmp_path / "answers.jsonl", {"question": kept[0]["instruction"]}, {"text": other["output"]}
    )
    assert call(*SMALL, "--run", "r", "--heldout", answers).code == 0
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["inputs"]["answers.jsonl"] == file_digest(answers)
    counted = {(led["unit"], d["stage"], d["reason"]) for led in record["ledger"] for d in led["dropped"]}
    assert ("candidate", "heldout", "contaminated") in counted
    assert ("instance", "validate", "contaminated") in counted
    again = [json.loads(line) for line in (tmp_path / "r" / "kept.jsonl").read_text().splitlines()]
    assert kept[0]["instruction"] not in {row["instruction"] for row in again}
    assert other["output"] not in {row["output"] for row in again}


def test_the_same_held_out_files_give_the_same_bytes_and_resuming_refuses_others(
    call: Any, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"text": EN})
    for name in ("a", "b"):
        assert call(*SMALL, "--run", name, "--heldout", path).code == 0
    assert result(tmp_path / "a") == result(tmp_path / "b")
    (tmp_path / "a" / "DONE").unlink()
    jsonl(path, {"text": ZH})
    said = refused(call("--resume", "--run", "a"))
    assert "these differ from when the run began: the contents of t.jsonl" in said
    jsonl(path, {"text": EN})
    other = jsonl(tmp_path / "u.jsonl", {"text": EN})
    said = refused(call("--resume", "--run", "a", "--heldout", other))
    assert "these differ from when the run began: heldout (" in said
    assert call("--resume", "--run", "a").code == 0
    assert result(tmp_path / "a") == result(tmp_path / "b")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "t.jsonl: no such file or directory"),
        ("", "t.jsonl: the file is empty"),
        ('{"frage": "Warum?"}\n', "t.jsonl:1: no field 'instruction' (has: frage)"),
        ('{"text": "a"}\n{"text": \n', "t.jsonl:2: not JSON"),
    ],
)
def test_bad_held_out_files_are_refused_before_anything_is_created(
    data: str | None, said: str, call: Any, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / "t.jsonl").write_text(data)
    before = scripted.tree(tmp_path)
    assert refused(call(*SMALL, "--heldout", "t.jsonl")).startswith(said)
    assert scripted.tree(tmp_path) == before
