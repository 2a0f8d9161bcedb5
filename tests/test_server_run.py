"""Whole runs against a server over real HTTP: faults, budgets, the cache, secrets, batch files.

The server answers by a rule (`written.answer`), so a run has one right result whatever happens on the way.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from scripted import REPO, Ended, environment, process, refused_after_start, result
from written import answer

COMMAND = [sys.executable, "-m", "pipeline.selfinstruct"]
KEY = "sk-secret-0123456789"
ARGS = (
    *f"--seeds {REPO / 'seeds'} --languages en:14 zh:8 --engine openai --model smol --style chat".split(),
    *"--num-proposals 3 --classification-frac 0.4 --rouge-threshold 0.9 --embedding-threshold 1".split(),
    *"--min-relevance 0 --concurrency 12 --window 24 --snapshot-every 25".split(),
)


def command(server: FaultServer, cwd: Path, *args: object, key: str = KEY, timeout: float = 120) -> Ended:
    """The command on the server; options of ARGS but for a resumed run."""
    given = () if "--resume" in args else ARGS
    return process(
        *COMMAND, *given, "--base-url", server.url, *args, cwd=cwd, timeout=timeout, OPENAI_API_KEY=key
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Counter[str]]:
    """The result of an undisturbed run, and how often each request was answered."""
    folder = tmp_path_factory.mktemp("whole")
    with FaultServer(answer) as server:
        ended = command(server, folder, "--run", "r")
    assert ended.code == 0, ended.err
    kept = [json.loads(line) for line in (folder / "r" / "kept.jsonl").read_text("utf-8").splitlines()]
    assert Counter(row["language"] for row in kept) == {"en": 14, "zh": 8}
    assert {row["is_classification"] for row in kept} == {True, False}
    return result(folder / "r"), server.answered


def test_a_server_that_fails_at_three_requests_in_ten_changes_nothing(tmp_path: Path, whole: Any) -> None:
    # a time-out that a busy machine does not reach by itself: what is answered too late is asked again
    with FaultServer(answer, share=0.3, hang=6) as server:
        ended = command(server, tmp_path, "--run", "r", "--request-timeout", 4)
    assert ended.code == 0, ended.err
    assert result(tmp_path / "r") == whole[0]
    assert server.injected.total() > 40 and len(server.injected) == 9  # every kind of fault occurred
    assert server.answered == whole[1]
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    to_probes = sum(server.attempts[key] - server.answered[key] for key in probes(server))
    assert record["retries"] == server.injected.total() - to_probes and record["failed"] == 0


def test_filtered_and_cut_answers_end_in_the_ledger(tmp_path: Path) -> None:
    faults = ("content_filter", "length", "500")
    with FaultServer(answer, share=0.3, faults=faults, max_faults=9) as server:
        ended = command(server, tmp_path, "--run", "r", "--max-retries", 1, "--max-failed-frac", 0.5)
    assert ended.code == 0, ended.err
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    requests = record["ledger"][0]
    counts = Counter({d["reason"]: d["count"] for d in requests["dropped"]})
    reasons = Counter()
    for d in requests["dropped"]:
        reasons[d["reason"]] += d["count"]
    assert requests["opened"] == requests["kept"] + reasons.total() == record["requests"]
    assert reasons["content_filter"] == server.injected["content_filter"] > 0 and counts
    assert reasons["engine_error"] > 0 and reasons.total() == record["failed"]
    dropped = [
        json.loads(line) for line in (tmp_path / "r" / "dropped.jsonl").read_text("utf-8").splitlines()
    ]
    assert {"truncated", "content_filter", "engine_error"} <= {row["reason"] for row in dropped}


def test_no_key_stands_in_any_file_or_line(tmp_path: Path) -> None:
    with FaultServer(answer, key=KEY, share=0.2, hang=2) as server:
        ended = command(server, tmp_path, "--run", "r", "--request-timeout", 1)
        assert ended.code == 0, ended.err
        wrong = command(server, tmp_path, "--run", "wrong", key="sk-wrong-987654")
    assert "OPENAI_API_KEY" in refused_after_start(wrong)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"requests.sqlite", "journal.jsonl", "log.txt", "config.yaml"} <= {p.name for p in files}
    for secret in (KEY, "sk-wrong", "Bearer", "Authorization"):
        assert not [p for p in files if secret.encode() in p.read_bytes()]
        assert secret not in ended.err + ended.out + wrong.err + wrong.out


@pytest.mark.parametrize("limit", ["--max-requests 40", "--max-tokens-total 20000", "--max-cost 0.02"])
def test_a_budget_stops_cleanly_and_a_larger_one_goes_on(limit: str, tmp_path: Path, whole: Any) -> None:
    (tmp_path / "prices.yaml").write_text("smol: {prompt: 1, completion: 2}\n")
    name, number = limit.split()
    with FaultServer(answer) as server:
        ended = command(server, tmp_path, "--run", "r", *limit.split(), "--prices", "prices.yaml")
        assert ended.code == 3 and "budget reached" in ended.err and name in ended.err, ended.err
        assert ended.err.endswith("--resume --run r\n") and "every answer received is kept" in ended.err
        sent = server.answered.total()
        assert 0 < sent <= (43 if name == "--max-requests" else 400)  # three requests find out what it can do
        more = command(server, tmp_path, "--resume", "--run", "r", name, 1000 * int(float(number) + 1))
    assert more.code == 0, more.err
    assert result(tmp_path / "r") == whole[0]
    probes = 6
    assert server.answered.total() == whole[1].total() + probes - 3


def test_running_again_with_another_filter_asks_only_for_what_changed(tmp_path: Path, whole: Any) -> None:
    with FaultServer(answer) as server:
        command(server, tmp_path, "--run", "a")
        first = server.answered.total()
        same = command(server, tmp_path, "--run", "b")
        assert server.answered.total() == first + 3  # the probes
        assert result(tmp_path / "b") == result(tmp_path / "a") == whole[0]
        other = command(server, tmp_path, "--run", "c", "--max-output", 12)
    assert same.code == other.code == 0
    record = json.loads((tmp_path / "c" / "run.json").read_text())
    assert record["cached"] > 0.6 * record["requests"] and record["cached"] < record["requests"]
    assert result(tmp_path / "c") != whole[0]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop_keeps_every_answer_that_was_paid_for(
    kind: signal.Signals, tmp_path: Path, whole: Any
) -> None:
    with FaultServer(answer, latency=0.1) as server:
        running = begin(server, tmp_path)
        running.send_signal(kind)
        _, err = running.communicate(timeout=30)
        assert running.returncode == 130 and "Traceback" not in err, err
        ended = command(server, tmp_path, "--resume", "--run", "r")
    assert ended.code == 0, ended.err
    assert result(tmp_path / "r") == whole[0]
    assert server.answered == whole[1] + Counter({k: 1 for k in probes(server)})


def begin(server: FaultServer, cwd: Path, answered: int = 50) -> subprocess.Popen[str]:
    """Start a run, or go on with it; return once some more requests were answered."""
    words = [str(w) for w in (*COMMAND, *ARGS, "--base-url", server.url, "--run", "r")]
    before = server.answered.total()
    running = subprocess.Popen(
        words,
        cwd=cwd,
        env=environment(OPENAI_API_KEY=KEY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while server.answered.total() < before + answered:
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()
        time.sleep(0.005)
    return running


def probes(server: FaultServer) -> set[str]:
    """The requests that only find out what the server can do."""
    from fault_server import digest

    return {digest(asked.body) for asked in server.asked if asked.body.get("max_tokens") in (0, 1)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of six megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small file system: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("free", [60, 200, 400])  # KB; cache and run need about 800
def test_a_disk_that_fills_up_is_named_and_the_run_completes_once_there_is_room(
    free: int, small_disk: Path, whole: Any
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (6144 - free) * 1024)
    with FaultServer(answer) as server:
        said = refused_after_start(command(server, small_disk, "--run", "r"))
        assert "the disk is full" in said
        ballast.unlink()
        more = ("--resume",) if (small_disk / "r" / "config.yaml").exists() else ()
        ended = command(server, small_disk, *more, "--run", "r")
    assert ended.code == 0, ended.err
    assert result(small_disk / "r") == whole[0]


def test_batch_files_give_the_result_of_a_server(tmp_path: Path) -> None:
    batch = (*ARGS, "--batch-api", "--batch-size", "60")
    ended = process(*COMMAND, *batch, "--run", "r", cwd=tmp_path)
    rounds = 0
    while ended.code == 3:
        assert "run_batch" in ended.err and "--resume" in ended.err
        rounds += 1
        for asked in (tmp_path / "r" / "batches").glob("*.input.jsonl"):
            rows = [json.loads(line) for line in asked.read_text("utf-8").splitlines()]
            done = asked.with_name(asked.name.replace(".input.", ".output."))
            if not done.exists():
                done.write_text("".join(json.dumps(answered(row)) + "\n" for row in reversed(rows)), "utf-8")
        ended = process(*COMMAND, "--resume", "--run", "r", cwd=tmp_path)
    assert ended.code == 0 and rounds > 3, ended.err
    kept = [json.loads(line) for line in (tmp_path / "r" / "kept.jsonl").read_text("utf-8").splitlines()]
    assert Counter(row["language"] for row in kept) == {"en": 14, "zh": 8}


def answered(row: dict[str, Any]) -> dict[str, Any]:
    """A line of a batch's result file."""
    text, reason = answer(row["body"])
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
    return {"id": "x", "custom_id": row["custom_id"], "error": None} | {
        "response": {"status_code": 200, "request_id": "y", "body": body}
    }


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_change_nothing(tmp_path: Path, whole: Any) -> None:
    """kill -9 at random moments of all stages; each run ends as the undisturbed one.

    What was answered is asked again only if it was in flight, or on its way to the disk, at the kill.
    """
    moments, kills, runs = random.Random(0), 0, 0
    while kills < 50:
        folder = tmp_path / str(runs)
        folder.mkdir()
        runs += 1
        with FaultServer(answer, latency=0.1) as server:
            killed = 0
            while one_life(server, folder, moments):
                killed += 1
            repeated = server.answered - whole[1]
            for key in probes(server):
                del repeated[key]
            assert repeated.total() <= 12 * killed  # --concurrency
            assert set(server.answered) - probes(server) == set(whole[1]) - probes(server)
        assert result(folder / "r") == whole[0]
        kills += killed
    print(f"{kills} kills in {runs} runs")


def one_life(server: FaultServer, cwd: Path, moments: random.Random) -> bool:
    """Start or go on with a run and kill it; False if it came to its end before.

    One in five is killed while it starts, the others up to a second after their first request.
    """
    more = ("--resume",) if (cwd / "r" / "config.yaml").exists() else ARGS
    words = [str(w) for w in (*COMMAND, *more, "--base-url", server.url, "--run", "r")]
    asked, starting = len(server.asked) + 3, moments.random() < 0.2  # three requests find out what it can do
    running = subprocess.Popen(
        words, cwd=cwd, env=environment(OPENAI_API_KEY=KEY), stderr=subprocess.PIPE, text=True
    )
    while not starting and running.poll() is None and len(server.asked) <= asked:
        time.sleep(0.01)
    try:
        _, err = running.communicate(timeout=moments.uniform(0, 3 if starting else 1))
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        return True
    assert running.returncode == 0, err
    return False
