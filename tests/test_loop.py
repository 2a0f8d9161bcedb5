"""Whole loops: real commands on a model that trains in milliseconds, the teacher behind real HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from evaluated import tasks
from fault_server import FaultServer
from scripted import REPO, Ended, environment, process
from written import answer, stage_of

COMMAND = [sys.executable, "-m", "pipeline.loop"]
_ENGINE = "engine=openai style=chat num_proposals=3 rouge_threshold=0.9 embedding_threshold=1"
_SETTINGS = [
    "selfinstruct.languages=['en:6','zh:3']",
    *(f"selfinstruct.{one}" for one in f"{_ENGINE} min_relevance=0 evolve_frac=0 cache=off".split()),
    *(f"sft.{one}" for one in "max_steps=2 max_length=250 max_truncated_frac=1 num_answers=0".split()),
    "sft.bad_rows=drop",
    *(f"preferences.{one}" for one in "engine=openai num_answers=3 judges=[scalar] cache=off".split()),
    *(f"dpo.{one}" for one in "max_steps=2 max_length=250 num_answers=0 validation_frac=0.3".split()),
    *(f"evaluate.{one}" for one in "max_tokens=8 cache=off embedding_model='off'".split()),
]
Talk = Callable[[dict[str, Any]], tuple[str, str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_llama.save(tmp_path / "tiny")
    (tmp_path / "held.jsonl").write_text(
        "".join(json.dumps(task, ensure_ascii=False) + "\n" for task in tasks()), encoding="utf-8"
    )
    return tmp_path


def words(server: FaultServer, *more: str) -> list[str]:
    settings = [*_SETTINGS, *(f"{stage}.base_url={server.url}" for stage in ("selfinstruct", "preferences"))]
    return [
        *f"--run loop --model tiny --generator teacher --teacher smol --seeds {REPO / 'seeds'}".split(),
        *"--heldout held.jsonl --no-train-on-seeds --max-fall 1".split(),
        *more,
        "--set",
        *settings,
    ]


def run(server: FaultServer, place: Path, *more: str) -> Ended:
    given = ["--run", "loop", "--resume"] if "--resume" in more else words(server, *more)
    return process(*COMMAND, *given, cwd=place, timeout=900, **KEYS)


KEYS = {"OPENAI_API_KEY": "sk-x", "OMP_NUM_THREADS": "1"}


def rows(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "loop" / "rounds.jsonl").read_text("utf-8").splitlines()]


def judged(body: dict[str, Any]) -> tuple[str, str]:
    """The teacher, who also answers in the place of the random policy, and rates answers by chance."""
    text = body["messages"][-1]["content"] if "messages" in body else ""
    if text.rstrip().endswith(("Rating (1 to 5):", "评分（1 到 5）：")):
        return str(zlib.crc32(text.encode()) % 5 + 1), "stop"
    return answer(body)


class Anything(tuple[str, ...]):
    """A server's models: every name is known."""

    def __contains__(self, name: object) -> bool:
        return True


def stubborn(talk: Talk, when: Callable[[], bool]) -> Talk:
    """A teacher that proposes one task over and over as soon as `when`."""

    def said(body: dict[str, Any]) -> tuple[str, str]:
        text = body["messages"][-1]["content"] if "messages" in body else ""
        if text and when() and stage_of(text).startswith("propose"):
            return "9. Write a short poem about the sea at night.", "stop"
        return talk(body)

    return said


@pytest.mark.slow
def test_a_generator_that_repeats_one_task_is_rejected_and_the_good_policy_kept(place: Path) -> None:
    harmful = (place / "loop" / "round-00" / "evaluate" / "DONE").exists
    with FaultServer(stubborn(answer, harmful)) as server:
        ended = run(server, place, "--stages", "selfinstruct", "sft", "evaluate", "--rounds", "3")
    assert ended.code == 0, ended.err[-3000:]
    found = rows(place)
    assert [row["name"] for row in found] == ["start", "round 0", "round 1", "round 2"]
    verdicts = [row.get("verdict") for row in found]
    assert verdicts[2:] == ["rejected", "rejected"]
    for row in found[2:]:
        assert row["why"][0].startswith("yield: ")
        assert row["kept"] <= 1
    if verdicts[1] == "accepted":  # two steps may make a random model worse
        good = "loop/round-00/sft"
        assert found[1]["policy"] == found[2]["policy"] == found[3]["policy"] == good
        assert ended.out.strip() == good
    assert not (place / "loop" / "round-01" / "sft").exists()  # nothing was trained on it
    text = (place / "loop" / "rounds.md").read_text(encoding="utf-8")
    assert "- round 1: rejected: yield: " in text
    assert (place / "loop" / "rounds.png").stat().st_size > 5000


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[FaultServer, list[dict[str, Any]], str]]:
    """The server, and the table of a loop of two rounds that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_llama.save(folder / "tiny")
    held = "".join(json.dumps(task, ensure_ascii=False) + "\n" for task in tasks())
    (folder / "held.jsonl").write_text(held, encoding="utf-8")
    with FaultServer(judged, models=Anything(["smol"])) as server:
        ended = run(server, folder)
        assert ended.code == 0, ended.err[-3000:]
        text = (folder / "loop" / "rounds.md").read_text(encoding="utf-8")
        check_rounds(folder, ended)
        yield server, rows(folder), text


def check_rounds(folder: Path, ended: Ended) -> None:
    loop = folder / "loop"
    for name in ("selfinstruct", "sft", "preferences", "dpo", "evaluate"):
        for number in ("00", "01"):
            assert (loop / f"round-{number}" / name / "DONE").is_file(), (number, name)
    found = rows(folder)
    first, second = ([row["id"] for row in lines(loop / f"round-0{n}/selfinstruct/kept.jsonl")] for n in "01")
    assert first and second
    told = [{row["instruction"] for row in lines(loop / f"round-0{n}/selfinstruct/kept.jsonl")} for n in "01"]
    if found[1]["verdict"] == "accepted":
        assert not told[0] & told[1]  # no instruction twice
        inputs = json.loads((loop / "round-01/sft/run.json").read_text())["inputs"]
        assert any("round-00/selfinstruct" in name for name in inputs)  # replayed
    assert {row["language"] for row in lines(loop / "round-00/selfinstruct/kept.jsonl")} == {"en", "zh"}
    # every figure of the table is a stage's own
    for row, where in zip(found, ("start", "round-00", "round-01"), strict=True):
        sheet = json.loads((loop / where / "evaluate" / "scores.json").read_text())
        assert row["success"]["value"] == sheet["success"]["value"]
        assert row["loss"]["value"] == sheet["loss"]["value"]
    assert found[2]["win_rate"] and not found[1]["win_rate"]
    assert "round 1: " in ended.err


@pytest.mark.slow
def test_teacher_and_policy_write_together_and_every_model_is_evaluated(place: Path) -> None:
    """The server writes for both; a reward model drives GRPO."""
    words_ = "max_steps=2 batch_size=4 gradient_accumulation=1 num_generations=2 max_completion_length=6"
    grpo = f"{words_} max_prompt_length=200 max_truncated_frac=1 num_held_out=2 mask_truncated=false"
    more = [f"grpo.{one}" for one in grpo.split()]
    more += ["reward.max_steps=2", "reward.max_length=250", "reward.validation_frac=0.3"]
    more += ["teacher.num_proposals=2"]
    with FaultServer(judged, models=Anything(["smol"])) as server:
        given = words(server, *"--stages selfinstruct sft preferences reward grpo evaluate".split())
        given[given.index("--generator") + 1] = "mixture"
        one = "--rounds 1 --evaluate every --teacher-frac 0.7".split()
        ended = process(*COMMAND, *one, *given, *more, cwd=place, timeout=600, **KEYS)
    assert ended.code == 0, ended.err[-3000:]
    first = place / "loop" / "round-00"
    assert lines(first / "selfinstruct-teacher" / "kept.jsonl")
    pool = json.loads((first / "selfinstruct" / "run.json").read_text())["inputs"]
    assert any("selfinstruct-teacher/kept.jsonl" in name for name in pool)  # the policy repeats none of them
    found = rows(place)
    assert [row["name"] for row in found] == ["start", "round 0, sft", "round 0, grpo", "round 0"]
    for row in found[1:3]:
        sheet = json.loads((first / f"evaluate-{row['name'].split()[-1]}" / "scores.json").read_text())
        assert row["loss"]["value"] == sheet["loss"]["value"]
    assert found[3]["loss"] == found[2]["loss"]
    assert "reward_model=loop/round-00/reward" in (first / "grpo.yaml").read_text()
    assert found[3]["wanted"] == found[3]["kept"] == 9  # 4 and 2 of the teacher, 2 and 1 of the policy
    kept = [lines(first / name / "kept.jsonl") for name in ("selfinstruct-teacher", "selfinstruct")]
    assert [len(one) for one in kept] == [6, 3]
    assert [{row["provenance"]["model"] for row in one} for one in kept] == [{"smol"}, {"tiny"}]
    assert not {row["instruction"] for row in kept[0]} & {row["instruction"] for row in kept[1]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_killed_and_stopped_on_the_way_the_table_is_the_same(place: Path, whole: Any) -> None:
    server, wanted, text = whole

    def disturbed(words: list[str], waits_for: str, number: int) -> int:
        """Start the command, wait until a file is there, and send a signal to the loop alone."""
        child = subprocess.Popen(
            [*COMMAND, *words], cwd=place, env=environment(**KEYS), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 600
        while not list((place / "loop").glob(waits_for)):
            assert child.poll() is None and time.monotonic() < until, waits_for
            time.sleep(0.02)
        child.send_signal(number)
        return child.wait(timeout=120)

    again = ["--run", "loop", "--resume"]
    assert disturbed(words(server), "round-00/sft/config.yaml", signal.SIGKILL) == -signal.SIGKILL
    assert disturbed(again, "round-00/preferences/journal.jsonl", signal.SIGINT) == 130
    assert disturbed(again, "round-01/selfinstruct/journal.jsonl", signal.SIGKILL) == -signal.SIGKILL
    ended = run(server, place, "--resume")
    assert ended.code == 0, ended.err[-3000:]
    assert rows(place) == wanted
    assert (place / "loop" / "rounds.md").read_text(encoding="utf-8") == text
    twice = run(server, place, "--resume")  # it is finished
    assert twice.code == 0
    assert twice.out == ended.out
    assert not [p for p in os.listdir(place) if p not in ("tiny", "held.jsonl", "loop")]
