"""`python -m pipeline.evaluate compare`: paired intervals, wins, and no verdict where nothing is shown."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from evaluated import RuleEngine, opens, right, sheet, task, write
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import REPO, Ended, refused

from pipeline.errors import run_command
from pipeline.evaluate import main
from pipeline.evaluation import command
from pipeline.evaluation.bootstrap import paired
from pipeline.evaluation.comparison import NO_DIFFERENCE, verdict, wins
from pipeline.intervals import Interval, ratio

Call = Callable[..., Ended]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return str(path)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Call:
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


def sums(count: int = 30) -> list[dict[str, Any]]:
    """English and Chinese sums in turn, one task each."""
    asked = ("What is {} plus one?", "{}加一等于几？")
    return [
        task(
            f"t{i}",
            asked[i % 2].format(i),
            str(i + 1),
            "math",
            verifier={"kind": "math", "answer": str(i + 1)},
        )
        for i in range(count)
    ]


def knows(share: float, salt: str = "") -> Callable[[Any], tuple[str, str]]:
    """Right on that share of the sums, which ones by the salt."""

    def said(request: Any) -> tuple[str, str]:
        number = next(int(word) for word in request.prompt.replace("加", " ").split() if word.isdigit())
        lucky = random.Random(f"{number} {salt}").random() < share
        return (f"The answer is {number + 1 if lucky else 999}.", "stop")

    return said


def evaluated(
    call: Call, monkeypatch: pytest.MonkeyPatch, model: str, run: str, said: Any, *args: object, **more: Any
) -> None:
    monkeypatch.setattr(command, "open_engine", opens(RuleEngine(said=said, **more)))
    words = ["--heldout", "held.jsonl", "--seeds", REPO / "seeds", "--embedding-model", "off"]
    ended = call(model, *words, *args, "--run", run)
    assert ended.code == 0, ended.err


def test_a_better_model_is_called_better_and_an_equal_one_is_not(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sums())
    evaluated(call, monkeypatch, model, "a", knows(0.4, "a"))
    evaluated(call, monkeypatch, model, "b", knows(0.95, "b"))
    evaluated(call, monkeypatch, model, "c", knows(0.4, "a"))
    ended = call("compare", "a", "b", "c", "--out", "all.json")
    assert ended.code == 0, ended.err
    better, rate, same, draw = ended.out.splitlines()
    assert better.startswith("b against a: success ") and better.endswith(": better")
    assert rate.startswith("b against a: win rate ") and ": better (30 requests by success)" in rate
    assert same.startswith("c against a: success ") and same.endswith(f": {NO_DIFFERENCE}")
    assert draw.startswith("c against a: win rate 0.500 [0.500, 0.500] of 30: no difference shown")
    found = json.loads(Path("all.json").read_text())
    told = {row["metric"]: row for row in found["compared"][0]["metrics"]}
    before, after = sheet("a")["success"]["value"], sheet("b")["success"]["value"]
    assert (told["success"]["before"], told["success"]["after"]) == (before, after)
    assert told["success"]["difference"]["low"] > 0
    assert told["loss, nats a character"]["verdict"] == NO_DIFFERENCE
    assert "no difference shown" in ended.err and "success" in ended.err  # the table


def test_a_small_difference_is_no_difference(call: Call, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(sums(12))
    evaluated(call, monkeypatch, model, "a", knows(0.5, "x"))
    evaluated(call, monkeypatch, model, "b", knows(0.6, "y"))
    first, second, *_ = call("compare", "a", "b").out.splitlines()
    assert first.endswith(NO_DIFFERENCE) and NO_DIFFERENCE in second


def test_the_same_seed_gives_the_same_comparison(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sums(12))
    evaluated(call, monkeypatch, model, "a", knows(0.5, "x"))
    evaluated(call, monkeypatch, model, "b", knows(0.6, "y"))
    for name in ("one.json", "two.json"):
        call("compare", "a", "b", "--resamples", 100, "--out", name)
    assert Path("one.json").read_bytes() == Path("two.json").read_bytes()
    call("compare", "a", "b", "--resamples", 100, "--out", "other.json", "--seed", 1)
    assert Path("one.json").read_bytes() != Path("other.json").read_bytes()


def test_without_checks_or_judge_the_likelihood_of_the_reference_decides(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write([task(f"t{i}", f"Say {i}.", f"It is number {i}.", "x") for i in range(12)])
    evaluated(call, monkeypatch, model, "a", right, likely=-0.9)
    evaluated(call, monkeypatch, model, "b", right, likely=-0.2)
    lines = call("compare", "a", "b").out.splitlines()
    assert lines[0].startswith("b against a: loss, nats a character ") and lines[0].endswith(": better")
    assert (
        "win rate 1.000 [1.000, 1.000] of 12: better (12 requests by likelihood of the reference)" in lines[1]
    )


def test_other_tasks_are_refused(call: Call, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(sums(4))
    evaluated(call, monkeypatch, model, "a", knows(1))
    write(sums(5))
    evaluated(call, monkeypatch, model, "b", knows(1))
    said = refused(call("compare", "a", "b"))
    assert "the held-out tasks differ: 1 only in b (t4)" in said and "--contamination exclude" in said
    changed = [{**row, "instances": [{"input": "", "output": "other"}]} for row in sums(4)]
    write(changed)
    evaluated(call, monkeypatch, model, "c", knows(1))
    assert "same names, other texts or checks" in refused(call("compare", "a", "c"))


def test_unfinished_runs_and_other_directories_are_refused(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sums(4))
    evaluated(call, monkeypatch, model, "a", knows(1))
    shutil.copytree("a", "b")
    Path("b/DONE").unlink()
    hint = "the run is not finished. Finish it: python -m pipeline.evaluate --resume --run b"
    assert f"compare b: {hint}" in refused(call("compare", "a", "b"))
    Path("empty").mkdir()
    assert "compare empty: it holds no scores.json" in refused(call("compare", "empty", "a"))
    Path("b/DONE").write_text("x")
    Path("b/scores.json").write_text("[]")
    assert "b/scores.json: this is no score sheet" in refused(call("compare", "a", "b"))
    assert "got 1 runs, expected at least two" in refused(call("compare", "a"))


def test_answers_drawn_otherwise_and_few_tasks_are_noted(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sums(4))
    evaluated(call, monkeypatch, model, "a", knows(1))
    evaluated(call, monkeypatch, model, "b", knows(1), "--max-tokens", 9)
    out = call("compare", "a", "b").out
    assert "note: 4 tasks are too few for such an interval" in out
    assert "note: the answers were drawn otherwise: max_tokens 256 and 9" in out


# ---- arithmetic ----


def test_the_bootstrap_agrees_with_the_normal_interval_of_many_tasks() -> None:
    values = np.random.default_rng(3).normal(0.1, 1.0, 400)
    found = paired(values.tolist(), resamples=4000)
    half = 1.96 * values.std(ddof=1) / 20  # sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_weights_make_a_ratio_of_sums() -> None:
    # (1 * 3 + 5 * 1) / (3 + 1) = 2
    assert paired([1.0, 5.0], [3.0, 1.0]).value == 2.0
    # nats over tokens: (3 + 1) / (2 + 2)
    assert ratio([3.0, 1.0], [2.0, 2.0]).value == 1.0
    assert ratio([], []).count == 0


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_an_interval_turns_round_with_the_two_models(changes: list[float], seed: int) -> None:
    forth, back = (paired(row, resamples=200, seed=seed) for row in (changes, [-c for c in changes]))
    assert forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high) and forth.high == pytest.approx(-back.low)


def test_equal_models_show_no_difference_in_nine_of_ten_draws_at_least() -> None:
    shown = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        changes = (rng.random(60) < 0.4).astype(float) - (rng.random(60) < 0.4)
        shown += verdict(paired(changes.tolist(), resamples=500, seed=seed), 1) != NO_DIFFERENCE
    assert shown <= 10  # 5 are expected


def test_a_verdict_knows_which_way_is_better() -> None:
    up, down = Interval(0.2, 0.1, 0.3, 9), Interval(-0.2, -0.3, -0.1, 9)
    assert [verdict(up, way) for way in (1, -1, 0)] == ["better", "worse", "higher"]
    assert [verdict(down, way) for way in (1, -1, 0)] == ["worse", "better", "lower"]
    assert verdict(Interval(0.1, 0.0, 0.2, 9), 1) == verdict(Interval(0, 0, 0, 0), 1) == NO_DIFFERENCE


def test_a_win_is_decided_by_checks_then_the_judge_then_the_likelihood() -> None:
    def row(name: str, success: Any, judged: Any, logprob: Any) -> dict[str, Any]:
        return {"task": name, "success": success, "judged": judged, "reference_logprob": logprob}

    before = [
        row("a", 1.0, 0.0, -1),
        row("b", None, 0.5, -1),
        row("c", None, None, -3),
        row("d", None, None, None),
    ]
    after = [
        row("a", 1.0, 1.0, -9),
        row("b", None, 1.0, -9),
        row("c", None, None, -2),
        row("d", None, None, None),
    ]
    found = wins(before, after, resamples=100, seed=0)
    # a tie and a win by the judge: likelihood counts where nothing else is known of any task
    assert (found["win_rate"]["value"], found["win_rate"]["count"]) == (0.75, 2)
    assert found["decided_by"] == {"success": 1, "judged": 1}
    assert found["by"]["success"]["win_rate"]["value"] == 0.5
    assert found["by"]["judged"]["win_rate"]["value"] == 1
    # two losses and a win
    assert found["by"]["reference_logprob"]["win_rate"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    alone = wins(before[2:], after[2:], resamples=100, seed=0)
    assert alone["decided_by"] == {"reference_logprob": 1} and alone["win_rate"]["value"] == 1
