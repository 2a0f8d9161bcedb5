"""Whole runs of `python -m pipeline.preferences` against a server over real HTTP, judges by rule."""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import Answer, FaultServer
from scripted import Ended, environment, process, refused

COMMAND = [sys.executable, "-m", "pipeline.preferences"]
ENGINE = "--engine openai --model smol --cache off".split()
_COMPARE = {
    "en": ("Answer A:\n", "\n\nAnswer B:\n", "\n\nWhich"),
    "zh": ("回答 A：\n", "\n\n回答 B：\n", "\n\n哪个"),
}
_SORTS = "kettle ladder violin compass lantern blanket hammer basket mirror saddle bucket candle".split()


def answer(body: dict[str, Any]) -> str:
    """From two to nine words, by the seed; good is among half of them."""
    rng = random.Random(f"{body.get('seed')} {body['messages'][-1]['content']}")
    words = rng.sample(_SORTS, rng.randint(2, 9))
    return " ".join([*words, *(["good"] if rng.random() < 0.5 else [])])


def shown(text: str) -> tuple[str, str] | None:
    """The two answers in a judge's prompt; None where it is no such prompt."""
    for first, second, end in _COMPARE.values():
        if first in text and second in text:
            rest = text.split(first, 1)[1]
            return rest.split(second, 1)[0], rest.split(second, 1)[1].split(end, 1)[0]
    return None


def judged(verdict: Callable[[str, str], str]) -> Callable[[dict[str, Any]], tuple[str, str]]:
    """A server's rule: answers, and a judge's verdict on two of them."""

    def rule(body: dict[str, Any]) -> tuple[str, str]:
        two = shown(body["messages"][-1]["content"])
        return (verdict(*two) if two else answer(body)), "stop"

    return rule


def spoken(body: dict[str, Any]) -> str:
    """What a chat asks; "" for what an engine asks of a server before it begins."""
    text = str(body["messages"][-1]["content"]) if "messages" in body else ""
    return "" if text == "Hello" else text


def served(rule: Answer, **more: Any) -> FaultServer:
    """A server with that rule for chats; it continues no text."""
    return FaultServer(lambda body: rule(body) if spoken(body) else (" well.", "stop"), **more)


def biased(first: str, second: str) -> str:
    """Sees what is good nine times out of ten where it stands first; else it takes the first place."""
    one, other = "good" in first, "good" in second
    chance = random.Random(f"{first}|{second}").random()
    return "B" if other and not one and chance < 0.6 else "A"


def prompts(folder: Path, count: int = 12, **more: Any) -> Path:
    path = folder / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"Name things of room {i}.", **more} for i in range(count)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def command(server: FaultServer | None, cwd: Path, *args: object) -> Ended:
    engine = [*ENGINE, "--base-url", server.url] if server else []
    return process(*COMMAND, *args, *engine, cwd=cwd, timeout=120, OPENAI_API_KEY="k")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def said(row: dict[str, Any], side: str) -> str:
    return str(row[side][0]["content"])


# ---- judges ----


def test_asking_in_both_orders_takes_the_place_bias_out_of_the_pairs(tmp_path: Path) -> None:
    with served(judged(biased)) as server:
        ended = command(
            server,
            tmp_path,
            prompts(tmp_path, 40),
            "--judges",
            "pairwise",
            "--max-pairs",
            6,
            "--pairs",
            "margin",
            "--run",
            "r",
        )
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "r" / "findings.json").read_text())
    told, pairs = found["comparisons"], rows(tmp_path / "r" / "preferences.jsonl")
    # the judge is seen to favour the first place ...
    assert told["first_preferred"]["low"] > 0.6 and told["flipped"]["value"] > 0.5
    assert "pairwise prefers a place" in ended.err
    # ... and yet in every pair the good answer is the chosen one: a place cannot win twice
    assert len(pairs) > 10
    assert all("good" in said(row, "chosen") and "good" not in said(row, "rejected") for row in pairs)
    # a single order would have been wrong: the naive choice by the first question alone has bad chosen ones
    naive = Counter[bool]()
    for case in rows(tmp_path / "r" / "answers.jsonl"):
        for two in case["comparisons"]:
            texts = [case["answers"][i]["text"] for i in two["answers"]]
            better = texts[0] if two["verdicts"][0] == "A" else texts[1]
            naive["good" in better] += 1
    assert naive[False] > 20


def test_a_judge_that_only_sees_the_place_makes_no_pair(tmp_path: Path) -> None:
    with served(judged(lambda first, second: "A")) as server:
        ended = command(server, tmp_path, prompts(tmp_path), "--judges", "pairwise", "--run", "r")
    assert ended.code == 1  # nothing kept
    assert json.loads((tmp_path / "r" / "findings.json").read_text())["comparisons"]["flipped"]["value"] == 1
    dropped = rows(tmp_path / "r" / "dropped.jsonl")
    assert {row["reason"] for row in dropped if row["unit"] == "prompt"} == {"no_difference"}
    assert (tmp_path / "r" / "preferences.jsonl").read_bytes() == b""


def test_a_judge_that_loves_length_is_exposed(tmp_path: Path) -> None:
    with served(judged(lambda a, b: "A" if len(a.split()) > len(b.split()) else "B")) as server:
        ended = command(server, tmp_path, prompts(tmp_path, 20), "--judges", "pairwise", "--run", "r")
        found = json.loads((tmp_path / "r" / "findings.json").read_text())
        assert found["judges"]["pairwise"]["longer_preferred"]["low"] > 0.9
        assert found["pairs_by"]["chosen_longer"]["value"] == 1
        assert "pairwise prefers the longer of two answers" in ended.err
        assert "--max-length-ratio matches lengths" in ended.err
        matched = command(
            server,
            tmp_path,
            prompts(tmp_path, 20),
            "--judges",
            "pairwise",
            "--max-length-ratio",
            1.3,
            "--max-pairs",
            3,
            "--run",
            "m",
        )
    assert matched.code == 0
    for row in rows(tmp_path / "m" / "preferences.jsonl"):
        chosen, rejected = row["provenance"]["lengths"]
        assert chosen / rejected <= 1.3


def test_a_rating_judge_scores_each_answer_and_agreement_is_reported(tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> tuple[str, str]:
        text = body["messages"][-1]["content"]
        if two := shown(text):
            return ("A" if "good" in two[0] else "B" if "good" in two[1] else "tie"), "stop"
        if text.startswith("Rate"):
            return ("5" if "good" in text.split("Answer:\n")[1] else "2"), "stop"
        return answer(body), "stop"

    with served(rule) as server:
        ended = command(server, tmp_path, prompts(tmp_path), "--judges", "scalar", "pairwise", "--run", "r")
    assert ended.code == 0, ended.err
    for case in rows(tmp_path / "r" / "answers.jsonl"):
        for one in case["answers"]:
            # (5 - 1) / 4 and (2 - 1) / 4
            assert one["scores"]["scalar"] == (1.0 if "good" in one["text"] else 0.25)
    found = json.loads((tmp_path / "r" / "findings.json").read_text())
    assert found["agreement"][0]["judges"] == ["scalar", "pairwise"]
    assert found["agreement"][0]["same"]["value"] == 1
    assert {row["provenance"]["judge"] for row in rows(tmp_path / "r" / "preferences.jsonl")} == {"scalar"}


def test_verifiable_checks_decide_without_a_judge(tmp_path: Path) -> None:
    spec = {"kind": "constraints", "checks": [{"id": "keywords:existence", "keywords": ["good"]}]}
    with served(judged(biased)) as server:
        ended = command(server, tmp_path, prompts(tmp_path, verifier=spec), "--run", "r")
        assert (
            len(list(filter(None, (spoken(one.body) for one in server.asked)))) == 48
        )  # twelve prompts, four answers, no verdict
    assert ended.code == 0, ended.err
    pairs = rows(tmp_path / "r" / "preferences.jsonl")
    assert pairs and all("good" in said(row, "chosen") for row in pairs)
    assert not any("good" in said(row, "rejected") for row in pairs)
    best = rows(tmp_path / "r" / "best_of_n.jsonl")
    assert all("good" in row["messages"][-1]["content"] for row in best if row["score"] == 1)
    asked = rows(tmp_path / "r" / "prompts.jsonl")
    assert asked[0]["verifier"] == spec
    answers = rows(tmp_path / "r" / "answers.jsonl")
    for prompt, case in zip(asked, answers, strict=True):
        found = [one["scores"]["checks"] for one in case["answers"] if "checks" in one["scores"]]
        assert prompt["score_std"] == pytest.approx(statistics.pstdev(found), abs=1e-4)
    assert len({prompt["score_std"] for prompt in asked}) > 1


def test_constraints_are_added_in_both_languages_and_named_in_the_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    asked = [*(f"Describe room {i}." for i in range(6)), *(f"描述第{i}个房间。" for i in range(6))]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked), "utf-8")
    with served(judged(biased)) as server:
        ended = command(server, tmp_path, path, "--constraints", 2, "--run", "r")
    assert ended.code in (0, 1), ended.err
    found = rows(tmp_path / "r" / "prompts.jsonl")
    for text, row in zip(asked, found, strict=True):
        said_now = row["prompt"][0]["content"]
        assert text.rstrip("。.") in said_now and len(said_now) > len(text)
        assert 1 <= len(row["verifier"]["checks"]) <= 2
    assert [row["language"] for row in found] == ["en"] * 6 + ["zh"] * 6


def test_a_chinese_judge_is_asked_in_chinese(tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> tuple[str, str]:
        text = body["messages"][-1]["content"]
        if two := shown(text):
            assert "两个助手" in text
            return ("A" if "好" in two[0] else "B" if "好" in two[1] else "tie"), "stop"
        rng = random.Random(body["seed"])
        return rng.choice(
            ["房间里有桌子和椅子。", "这里很好，有灯和书。", "墙上挂着一面镜子。", "好的，窗边有花。"]
        ), "stop"

    path = tmp_path / "zh.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"描述第{i}个房间。"}) + "\n" for i in range(8)), "utf-8")
    with served(rule) as server:
        ended = command(server, tmp_path, path, "--judges", "pairwise", "--run", "r")
    assert ended.code == 0, ended.err
    pairs = rows(tmp_path / "r" / "preferences.jsonl")
    assert pairs and all("好" in said(row, "chosen") and "好" not in said(row, "rejected") for row in pairs)


# ---- answers ----


def test_answers_that_cannot_be_used_are_dropped_each_with_its_reason(tmp_path: Path) -> None:
    said_by = iter(range(10**6))

    def rule(body: dict[str, Any]) -> tuple[str, str]:
        kinds = {
            "p0": ("cut off in the mid", "length"),
            "p1": ("   ", "stop"),
            "p2": ("the very same words in each of them", "stop"),
            "p3": ("fine <|im_start|> broken", "stop"),
            "p4": ("I'm sorry, but I cannot help with that request.", "stop"),
        }
        name = next(name for name in kinds if f"{name}!" in body["messages"][-1]["content"])
        number = next(said_by)
        text, why = kinds[name]
        return (text if name != "p4" or number % 2 else f"Room {number} is good, warm and dry."), why

    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{i}", "prompt": f"Say p{i}!"}) + "\n" for i in range(5)))
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")  # asked twice
    verdict = judged(lambda a, b: "A" if a.startswith("I'm") else "B" if b.startswith("I'm") else "tie")
    with served(
        lambda body: verdict(body) if shown(body["messages"][-1]["content"]) else rule(body)
    ) as server:
        ended = command(
            server, tmp_path, path, "--judges", "pairwise", "--concurrency", 1, "--window", 1, "--run", "r"
        )
    assert ended.code == 1, ended.err
    dropped = rows(tmp_path / "r" / "dropped.jsonl")
    reasons = Counter((row["unit"], row["reason"]) for row in dropped)
    assert (
        reasons["answer", "truncated"]
        == reasons["answer", "empty"]
        == reasons["answer", "special_token"]
        == 4
    )
    assert reasons["prompt", "duplicate_prompt"] == 1
    assert [r["id"] for r in dropped if r["reason"] == "near_identical"][:3] == ["p2/1", "p2/2", "p2/3"]
    assert {r["id"]: r["reason"] for r in dropped if r["unit"] == "prompt"}["p4"] == "no_fitting_pair"
    case = rows(tmp_path / "r" / "answers.jsonl")[4]
    assert {a["refused"] for a in case["answers"]} == {
        True,
        False,
    }  # a refusal wins here, and is never chosen
    ledger = json.loads((tmp_path / "r" / "run.json").read_text())["ledger"]
    assert ledger[0]["opened"] == 20 == ledger[0]["kept"] + sum(r["count"] for r in ledger[0]["dropped"])


def test_several_models_and_temperatures_answer_in_turn(tmp_path: Path) -> None:
    with served(judged(biased), models=("smol", "large")) as server:
        command(
            server, tmp_path, prompts(tmp_path, 3), "--other-models", "large", "--temperatures", 0.5, 1.0,
            "--judges", "pairwise", "--judge-model", "large", "--run", "r",
        )  # fmt: skip
        asked = [one.body for one in server.asked if spoken(one.body)]
    drawn = Counter((body["model"], body["temperature"]) for body in asked if not shown(spoken(body)))
    judges = {body["model"] for body in asked if shown(spoken(body))}
    assert drawn == {(model, t): 3 for model in ("smol", "large") for t in (0.5, 1.0)}
    assert judges == {"large"}


def test_ranks_that_a_person_added_decide_and_nothing_is_asked(tmp_path: Path) -> None:
    with served(judged(biased)) as server:
        command(server, tmp_path, prompts(tmp_path, 3), "--judges", "pairwise", "--run", "r")
    cases = rows(tmp_path / "r" / "answers.jsonl")
    for case in cases:
        for place, one in enumerate(case["answers"], 1):
            one["rank"] = place
    ranked = tmp_path / "ranked.jsonl"
    ranked.write_text("".join(json.dumps(case) + "\n" for case in cases))
    ended = command(None, tmp_path, ranked, "--num-answers", 0, "--run", "h")
    assert ended.code == 0, ended.err
    pairs = rows(tmp_path / "h" / "preferences.jsonl")
    assert [said(row, "chosen") for row in pairs] == [case["answers"][0]["text"] for case in cases]
    assert [said(row, "rejected") for row in pairs] == [case["answers"][-1]["text"] for case in cases]
    assert not (tmp_path / "h" / "journal.jsonl").exists()


def test_the_reference_answer_competes_if_it_is_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(
        json.dumps(
            [{"instruction": f"Name {i}", "input": "", "output": f"good and right {i}"} for i in range(4)]
        )
    )
    judge = judged(lambda a, b: "A" if "right" in a else "B" if "right" in b else "tie")
    with served(judge) as server:
        command(server, tmp_path, path, "--judges", "pairwise", "--reference-answer", "--run", "r")
    pairs = rows(tmp_path / "r" / "preferences.jsonl")
    assert [said(row, "chosen") for row in pairs] == [f"good and right {i}" for i in range(4)]
    assert {row["provenance"]["models"][0] for row in pairs} == {"reference"}


# ---- the run ----


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    names = (
        "answers.jsonl",
        "preferences.jsonl",
        "best_of_n.jsonl",
        "prompts.jsonl",
        "dropped.jsonl",
        "findings.json",
    )
    source = prompts(tmp_path, 20)
    with served(judged(biased), share=0.1, faults=("500", "429", "cut")) as server:
        args = [source, "--judges", "pairwise", "--concurrency", 4, "--window", 8, "--request-timeout", 2]
        assert command(server, tmp_path, *args, "--run", "whole").code == 0
        server.latency = 0.05
        words = [*COMMAND, *map(str, args), *ENGINE, "--base-url", server.url, "--run", "r"]
        running = subprocess.Popen(
            words, cwd=tmp_path, env=environment(OPENAI_API_KEY="k"), stderr=subprocess.PIPE, text=True
        )
        journal, deadline = tmp_path / "r" / "journal.jsonl", time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 90):  # 80 answers, then verdicts
            assert running.poll() is None and time.monotonic() < deadline, running.communicate()
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130 and "--resume --run r" in err, err
        assert not (tmp_path / "r" / "preferences.jsonl").exists()
        before, server.latency = journal.read_bytes(), 0
        ended = command(server, tmp_path, "--resume", "--run", "r")
    assert ended.code == 0, ended.err
    assert journal.read_bytes().startswith(before)
    for name in names:
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    again = command(None, tmp_path, "--resume", "--run", "r")
    assert (again.code, again.out) == (0, "r/preferences.jsonl\n")


def test_all_shapes_are_written_and_load(tmp_path: Path) -> None:
    with served(judged(biased)) as server:
        ended = command(
            server,
            tmp_path,
            prompts(tmp_path),
            "--judges",
            "pairwise",
            "--export",
            "kto",
            "ultrafeedback",
            "sharegpt",
            "--run",
            "r",
        )
    assert ended.code == 0, ended.err
    pairs, folder = rows(tmp_path / "r" / "preferences.jsonl"), tmp_path / "r" / "export"
    kto, ultra = rows(folder / "kto.jsonl"), rows(folder / "ultrafeedback.jsonl")
    share = json.loads((folder / "sharegpt.json").read_text())
    assert len(kto) == 2 * len(pairs) and [row["label"] for row in kto] == [True] * len(pairs) + [
        False
    ] * len(pairs)
    for pair, row, other in zip(pairs, ultra, share, strict=True):
        assert (
            row["chosen"] == pair["prompt"] + pair["chosen"] and row["prompt"] == pair["prompt"][0]["content"]
        )
        assert other["chosen"] == {"from": "gpt", "value": said(pair, "chosen")}
        assert other["conversations"] == [{"from": "human", "value": row["prompt"]}]


@pytest.mark.parametrize(
    ("row", "args", "expected"),
    [
        ({"text": "x"}, [], "prompts.jsonl:1: has text, expected"),
        ({"prompt": " "}, [], "prompts.jsonl:1: the prompt is empty, expected text. Fix the row"),
        (
            {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            [],
            "prompts.jsonl:1: the prompt has turns of user, assistant, expected one of the user.",
        ),
        ({"prompt": "x", "score_std": -1}, [], "'score_std' is -1, expected a number of at least 0. Fix"),
        ({"prompt": "x", "answers": [3]}, [], "prompts.jsonl:1 answers[0]: no text, expected text"),
        ({"prompt": "x"}, ["--judges", "checks"], "--judges checks: no prompt has a verifier"),
        ({"prompt": "x"}, ["--judges", "human"], "--judges human: no answer in the rows has a score"),
        ({"prompt": "x"}, ["--judges", "pairwse"], "Did you mean 'pairwise'?"),
        ({"prompt": "x"}, ["--judges", "reward"], "--reward-model: it goes with --judges reward"),
        ({"prompt": "x", "answers": [{"text": "a", "rank": 1}]}, ["--judge-model", "j"], "--judge-model: no"),
        ({"prompt": "x", "verifier": {"kind": "constraint"}}, [], "Did you mean 'constraints'?"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_a_directory_is_made(
    row: dict[str, Any], args: list[str], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    ended = process(*COMMAND, "prompts.jsonl", *args, cwd=tmp_path, timeout=60)
    assert expected in refused(ended)
    assert not (tmp_path / "runs").exists()


def test_bad_rows_may_be_dropped_with_the_reason(tmp_path: Path) -> None:
    path = prompts(tmp_path, 3)
    path.write_text(path.read_text() + '{"text": "x"}\n')
    with served(judged(biased)) as server:
        command(server, tmp_path, path, "--bad-rows", "drop", "--judges", "pairwise", "--run", "r")
    first = rows(tmp_path / "r" / "dropped.jsonl")[0]
    assert (first["unit"], first["reason"], first["id"]) == ("prompt", "unreadable_row", f"{path}:4")


@pytest.mark.slow  # the embedded model answers and judges, a minute or two
def test_the_embedded_model_answers_and_judges_by_likelihood(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    asked = ["Name a fruit.", "What is rain?", "请说出一种水果。"]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked), "utf-8")
    args = [*COMMAND, path, "--num-answers", 3, "--max-tokens", 48, "--judges", "scalar", "pairwise"]
    args += ["--constraints", 1]
    ended = process(*args, "--run", "r", cwd=tmp_path, timeout=900)
    assert ended.code in (0, 1), ended.err
    cases = rows(tmp_path / "r" / "answers.jsonl")
    assert len(cases) == 3
    for case in cases:
        texts = [one["text"] for one in case["answers"]]
        assert all(0 < one["scores"]["scalar"] < 1 for one in case["answers"])  # an expectation, no digit
        assert len(case["comparisons"]) == len(texts) * (len(texts) - 1) // 2
        assert all(set(two["verdicts"]) <= {"A", "B"} for two in case["comparisons"])
    assert process(*args, "--run", "again", cwd=tmp_path, timeout=900).code == ended.code
    for name in ("answers.jsonl", "preferences.jsonl", "findings.json", "dropped.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "r" / name).read_bytes()
