"""The embedded model, for minutes: a run, the same run again, stopped and killed runs, and Chinese."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "pipeline.selfinstruct"]
ARGS = ["--seeds", str(REPO / "seeds"), "--num-examples", "4", "--batch-size", "8"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_OFFLINE": "1"}
LIMIT = 900  # seconds for one run


def run(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT
    )


def result(folder: Path) -> dict[str, bytes]:
    """What must be the same for the same options: the dataset and the two record files."""
    files = [*(p for p in (folder / "dataset").rglob("*") if p.is_file())]
    files += [folder / "kept.jsonl", folder / "dropped.jsonl"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def same(folder: Path, whole: Path) -> None:
    """Of two runs the answers, one by one, and then all results: a failure shows where they part."""
    one, other = ((run / "journal.jsonl").read_text(encoding="utf-8").splitlines() for run in (folder, whole))
    apart = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    assert apart is None, f"answer {apart} differs:\n{one[apart]}\n{other[apart]}"
    assert result(folder) == result(whole)


def start_and_wait_for_answers(cwd: Path, count: int) -> subprocess.Popen[str]:
    """Start the run in r/; return once its journal holds `count` answers."""
    running = subprocess.Popen(
        [*COMMAND, *ARGS, "--run", "r"],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal, deadline = cwd / "r" / "journal.jsonl", time.monotonic() + LIMIT
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= count):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()
        time.sleep(0.05)
    return running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stops."""
    cwd = tmp_path_factory.mktemp("whole")
    done = run(cwd, *ARGS, "--run", "r")
    assert (done.returncode, done.stdout) == (0, "r/dataset\n"), done.stderr
    return cwd / "r"


def test_the_dataset_loads_and_its_rows_are_complete(whole: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(whole / "dataset"), split="train", cache_dir=str(tmp_path))
    assert rows.num_rows == 4
    kept = [json.loads(line) for line in (whole / "kept.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, example in zip(rows, kept, strict=True):
        assert row["instruction"] == example["instruction"] and row["output"] == example["output"]
        assert row["instruction"] and row["output"] and row["language"] == "en"
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        provenance = json.loads(row["provenance"])
        assert provenance["model"].startswith("SmolLM2-135M-Instruct") and provenance["shown"]


def test_the_ledger_in_run_json_adds_up_with_the_files(whole: Path) -> None:
    record = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    dropped = [
        json.loads(line) for line in (whole / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for ledger in record["ledger"]:
        assert ledger["opened"] == ledger["kept"] + sum(drop["count"] for drop in ledger["dropped"])
        mine = sum(row["unit"] == ledger["unit"] for row in dropped)
        assert mine == sum(drop["count"] for drop in ledger["dropped"])
    assert record["ledger"][2]["kept"] == 4
    answers = (whole / "journal.jsonl").read_bytes().count(b"\n")
    assert record["requests"] == answers and record["failed"] == 0 and record["completion_tokens"] > 0


def test_the_same_seed_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    assert run(tmp_path, *ARGS).stdout == "runs/selfinstruct-001/dataset\n"
    same(tmp_path / "runs" / "selfinstruct-001", whole)


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on_and_ends_in_the_same_bytes(
    whole: Path, tmp_path: Path
) -> None:
    running = start_and_wait_for_answers(tmp_path, 16)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=LIMIT)
    assert (running.returncode, out) == (130, "")
    assert err.endswith("Go on with:\n  python -m pipeline.selfinstruct --resume --run r\n")
    assert "Traceback" not in err
    assert not (tmp_path / "r" / "DONE").exists()
    done = run(tmp_path, "--resume", "--run", "r")
    assert (done.returncode, done.stdout) == (0, "r/dataset\n"), done.stderr
    same(tmp_path / "r", whole)


def test_a_killed_run_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    running = start_and_wait_for_answers(tmp_path, 24)
    running.kill()
    running.communicate()
    done = run(tmp_path, "--resume", "--run", "r")
    assert (done.returncode, done.stdout) == (0, "r/dataset\n"), done.stderr
    same(tmp_path / "r", whole)


def test_chinese_with_a_model_that_cannot_write_it_ends_cleanly(tmp_path: Path) -> None:
    words = ["--seeds", str(REPO / "seeds"), "--languages", "zh:1", "--max-proposals", "12"]
    done = run(tmp_path, *words, "--run", "r")
    assert done.stdout == "r/dataset\n", done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads((tmp_path / "r" / "run.json").read_text(encoding="utf-8"))
    _, candidates, instances = record["ledger"]
    assert candidates["opened"] > 0
    kept = (tmp_path / "r" / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    assert instances["kept"] == len(kept) <= 1
    assert done.returncode == (0 if kept else 1)
    if not kept:
        assert "zh: only 0 of 1 examples after 12 proposals" in done.stderr


def test_a_classifier_that_was_trained_here_decides_what_a_run_keeps(whole: Path, tmp_path: Path) -> None:
    """Seeds with their own outputs are good, with an excuse instead they are bad."""
    lines = (REPO / "seeds" / "en.jsonl").read_text(encoding="utf-8").splitlines()[:80]
    excuses = ("I am sorry, but I cannot help with that.", "As a language model I am not able to do this.")
    labelled = [
        {"instruction": s["instruction"], "input": s["instances"][0]["input"], "output": said, "label": label}
        for number, s in enumerate(map(json.loads, lines))
        for said, label in ((s["instances"][0]["output"], "good"), (excuses[number % 2], "bad"))
    ]
    data = tmp_path / "rated.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in labelled), encoding="utf-8")
    words = f"{data} --task classify --model sentence-transformers/all-MiniLM-L6-v2 --tuning full --run rater"
    more = "--learning-rate 2e-4 --num-epochs 2 --batch-size 8 --max-truncated-frac 0.1".split()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.sft", *words.split(), *more],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "rater" / "run.json").read_text(encoding="utf-8"))
    found = facts["held_out"]
    assert (
        found["after"]["accuracy"] > facts["majority_accuracy"]
        and found["after"]["loss"] < found["before"]["loss"]
    )
    strict = ["--quality-model", "rater", "--min-quality", "0.5", "--run", "r"]
    done = run(tmp_path, *ARGS, *strict)
    assert done.returncode == 0, done.stderr
    kept = [
        json.loads(line) for line in (tmp_path / "r" / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(kept) == 4 and all(row["scores"]["quality"] >= 0.5 for row in kept)
    assert result(tmp_path / "r") != result(whole)  # the scores at least
