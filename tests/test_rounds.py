"""The parts of `python -m pipeline.loop`: recipes, figures of a round, guards, the table."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline import loop
from pipeline.config import parse
from pipeline.errors import PipelineError, Stopped
from pipeline.intervals import Interval, share
from pipeline.rounds import facts, guards, table
from pipeline.rounds.facts import Made
from pipeline.rounds.options import Options
from pipeline.rounds.recipe import RECIPES, check, completed, read, sections, wanted
from pipeline.rounds.runner import Stage
from pipeline.rounds.scores import Scored

POEMS = {
    "en": "Write a poem about a {} cat that sleeps on the warm stove.",
    "zh": "请写一首诗，讲一只{}的猫睡在温暖的炉子上。",
}
WORDS = {"en": "red blue old young tall".split(), "zh": "红色 蓝色 年老 年轻 高大".split()}
DIFFERENT = {
    "en": [
        "Explain how tides work.", "Translate this letter into French.", "Name five rivers of Asia.",
        "Why do cats purr?", "Summarise the report in two sentences.",
    ],
    "zh": [
        "解释潮汐是怎么形成的。", "把这封信翻译成法语。", "列出亚洲的五条河流。", "猫为什么会打呼噜？",
        "用两句话概括报告。",
    ],
}  # fmt: skip


def made(kept: int = 50, wanted: int = 50, diversity: float = 0.8) -> Made:
    none = Interval(0.0, 0.0, 0.0, 0)
    spread = Interval(diversity, diversity - 0.02, diversity + 0.02, kept)
    return Made(wanted, kept, 200, share(kept, 200), none, none, spread)


# ---- recipes ----


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_ours_is_read_and_fits_together(path: Path) -> None:
    found = read(path.stem)
    options = completed(parse(Options, [], prog="x", doc="", base=found))
    check(options, sections(options))
    assert sum(wanted(sections(options)).values()) > 0


def test_the_command_line_wins_over_the_recipe_and_values_keep_their_types(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "rounds: 5\nsft: {num_epochs: 1, trainer: ['a=[1, 2]']}\ndpo: {loss: [sigmoid, sft]}\n"
        "set: [dpo.beta=0.2]\n"
    )
    found = read(str(recipe))
    assert found["rounds"] == 5
    options = completed(Options(set=(*found["set"], "sft.num-epochs=4", "dpo.loss=[ipo]")))
    own = sections(options)
    assert own["sft"] == {"num_epochs": 4, "trainer": ["a=[1, 2]"]}
    assert own["dpo"] == {"loss": ["ipo"], "beta": 0.2}
    assert completed(options).set == options.set  # what config.yaml holds means the same again
    recipe.write_text("set: dpo.beta=0.2\n")
    assert read(str(recipe))["set"] == ["dpo.beta=0.2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "sft.num_epoch=1"), "Did you mean 'num_epochs'?"),
        (("--set", "stf.num_epochs=1"), "Did you mean 'sft'?"),
        (("--set", "sft.num_epochs=many"), "got 'many', expected a number"),
        (("--set", "sft.model=x"), "the loop itself decides"),
        (("--set", "sft"), "expected STAGE.OPTION=VALUE"),
        (("--set", "sft.num_epochs=[1"), "not YAML"),
        (("--recipe", "huge"), "none of ours (tiny)"),
        (("--stages", "selfinstruct", "evaluate"), "a stage that trains"),
        (("--stages", "selfinstruct", "sft", "dpo"), "Name preferences before dpo"),
        (("--stages", "selfinstruct", "sft", "sft"), "named twice"),
        (("--generator", "teacher"), "--teacher"),
        (("--set", "evaluate.contamination=exclude"), "scored on other tasks"),
        (("--rounds", "0"), "at least 1"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=said.replace("(", r"\(").replace("?", r"\?").replace(")", r"\)")):
        loop.main(list(words))
    assert not list(tmp_path.iterdir())


# ---- figures ----


@pytest.mark.parametrize("language", ["en", "zh"])
def test_diversity_tells_one_task_with_other_words_from_different_tasks(language: str) -> None:
    alike = facts.diversity([(language, POEMS[language].format(word)) for word in WORDS[language]])
    different = facts.diversity([(language, text) for text in DIFFERENT[language]])
    assert alike.value < 0.35 < 0.6 < different.value
    assert alike.low <= alike.value <= alike.high
    assert facts.diversity([(language, "x")] * 3).value == 0
    assert facts.diversity([(language, "one")]).count == 0


def test_diversity_compares_within_a_language_and_hangs_on_no_number() -> None:
    texts = [("en", text) for text in DIFFERENT["en"]] + [("zh", text) for text in DIFFERENT["zh"]]
    both, english = facts.diversity(texts), facts.diversity(texts[:5])
    assert both.count == 10
    assert english.value != both.value
    many = [("en", POEMS["en"].format(word)) for word in WORDS["en"] * 100]
    assert facts.diversity(many).count == 300
    assert facts.diversity(many) == facts.diversity(many)


def test_what_a_round_made_is_read_from_its_runs(tmp_path: Path) -> None:
    for name, evolved in (("a", {"from": "x", "operation": "deepen"}), ("b", None)):
        folder = tmp_path / name
        folder.mkdir()
        rows = [
            {
                "language": "en", "instruction": f"Explain {name} {number}.", "input": "", "output": "o",
                "provenance": {"evolved": evolved} if evolved else {},
            }
            for number in (1, 1, 2)
        ]  # fmt: skip
        (folder / "kept.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        ledger = [{"unit": "request", "opened": 9, "kept": 9}, {"unit": "candidate", "opened": 8, "kept": 2}]
        (folder / "run.json").write_text(json.dumps({"ledger": ledger}))
    found = facts.made([tmp_path / "a", tmp_path / "b"], 10, 0)
    assert (found.wanted, found.kept, found.proposed) == (10, 6, 16)
    assert (found.acceptance.value, found.evolved.value) == (0.25, 0.5)
    assert found.complexity.value == 3


# ---- guards ----


def test_data_are_rejected_for_their_yield_and_for_a_fall_of_diversity() -> None:
    options, before = Options(), Interval(0.8, 0.75, 0.85, 100)
    assert guards.data(options, made(), before, "round 0") == []
    assert guards.data(options, made(kept=13), before, "round 0") == []  # 0.26 of what was wanted
    (why,) = guards.data(options, made(kept=12), before, "round 0")
    assert why.startswith("yield: 12 of 50 wanted examples were kept of 200 proposals")
    assert len(guards.data(options, made(kept=0), before, "round 0")) == 1
    (why,) = guards.data(options, made(diversity=0.57), before, "the seeds")  # 0.59 < 0.8 * 0.75
    assert why.startswith("diversity: 0.570 [0.550, 0.590] after 0.800 [0.750, 0.850] of the seeds")
    assert guards.data(options, made(diversity=0.59), before, "the seeds") == []


def scored(
    name: str, folder: Path, successes: list[float], *, leaked: float = 0.0, stops: bool = True
) -> Scored:
    folder.mkdir()
    answers = [
        {
            "task": f"t{number}", "id": f"t{number}", "success": value, "judged": None, "rating": None,
            "reference": "abc", "reference_logprob": -1.0, "rouge_l": 0.5, "repetition": "", "length": 3,
            "finish_reason": "stop" if stops else "length", "wrong_language": False,
        }
        for number, value in enumerate(successes)
    ]  # fmt: skip
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "count": len(answers)}
    sheet = {name: figure for name in ("success", "loss", "rouge_l", "stopped", "length")}
    leak = {"value": leaked, "low": 0, "high": 1, "count": len(answers)}
    (folder / "scores.json").write_text(json.dumps({**sheet, "contamination": {"share": leak}}))
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return Scored(name, folder)


def test_a_policy_is_rejected_when_it_is_worse_beyond_the_interval(tmp_path: Path) -> None:
    good = scored("round 0", tmp_path / "good", [1.0] * 20 + [0.0] * 20)
    same = scored("round 1", tmp_path / "same", [1.0] * 19 + [0.0] * 21)
    worse = scored("round 1", tmp_path / "worse", [1.0] * 8 + [0.0] * 32, stops=False)
    better = scored("round 1", tmp_path / "better", [1.0] * 35 + [0.0] * 5)
    options = Options()
    assert guards.policy(options, same, good) == []
    assert guards.policy(options, better, good) == []
    (why,) = guards.policy(options, worse, good)
    assert why.startswith("success: 0.500 -> 0.200, -0.300 [-0.4")
    assert why.endswith("against round 0")
    assert list(guards.alarms(same, good)) == []
    (alarm,) = guards.alarms(worse, good)
    assert alarm.startswith("ended by itself: 1.000 -> 0.000")
    assert better.win_rate(good).value == pytest.approx((15 + 25 / 2) / 40)


def test_a_policy_is_rejected_when_its_data_give_the_held_out_tasks_away(tmp_path: Path) -> None:
    good = scored("start", tmp_path / "good", [1.0, 0.0] * 10)
    leaked = scored("round 0", tmp_path / "leaked", [1.0, 0.0] * 10, leaked=0.1)
    (why,) = guards.policy(Options(), leaked, good)
    assert why.startswith("contamination: 10.0% of the held-out requests")
    assert guards.policy(Options(max_contaminated=0.1), leaked, good) == []


# ---- stages and the table ----


def test_a_stage_goes_on_where_its_run_has_begun(tmp_path: Path) -> None:
    stage = Stage("sft", tmp_path / "round-00" / "sft", {})
    assert stage.words[-2:] == ["--run", str(stage.folder)]
    stage.folder.mkdir(parents=True)
    (stage.folder / "config.yaml").touch()
    assert stage.words[-1] == "--resume"
    assert not stage.done


def test_a_stage_that_fails_is_named_with_its_command(tmp_path: Path, capfd: Any) -> None:
    stage = Stage("sft", tmp_path / "round-00" / "sft", {"data": ["missing.jsonl"]})
    with pytest.raises(PipelineError, match=r"pipeline\.sft .*failed; it says why above\. Mend it"):
        stage.run()
    assert "missing.jsonl" in capfd.readouterr().err
    assert (tmp_path / "round-00" / "sft.yaml").read_text() == "data:\n- missing.jsonl\n"


def test_the_table_shows_every_row_with_intervals_and_why_a_round_was_rejected(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "start", "success": {"value": 0.1, "low": 0.05, "high": 0.2, "count": 40}},
        {"name": "round 0", **made().as_json(), "verdict": "accepted", "why": [], "alarms": ["loss: up"]},
        {"name": "round 1", **made(kept=2).as_json(), "verdict": "rejected", "why": ["yield: 2 of 50"]},
    ]
    first = scored("round 0", tmp_path / "a", [1.0, 0.0])
    shown = table.with_wins(rows, {"round 0": first, "start": scored("start", tmp_path / "b", [0.0, 0.0])})
    assert [row["win_rate"] and row["win_rate"]["value"] for row in shown] == [0.25, None, None]
    text = table.markdown(shown)
    head, _, *body = text.splitlines()
    assert head.startswith("| model | kept | of proposed | acceptance")
    assert "0.100 [0.050, 0.200]" in body[0]
    assert body[1].endswith("| accepted |")
    assert "- round 1: rejected: yield: 2 of 50" in body
    assert "- round 0: alarm: loss: up" in body
    table.draw(shown, tmp_path)
    assert (tmp_path / "rounds.svg").stat().st_size > 5000
    assert len({line.count("|") for line in text.splitlines()[:5]}) == 1


def test_a_signal_that_comes_too_late_for_a_stage_stops_the_loop_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage ends as if nothing had been; the loop must not go on with the next one."""
    deaf = "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(0)); time.sleep(30)"
    stage = Stage("sft", tmp_path / "round-00" / "sft", {})
    monkeypatch.setattr(Stage, "words", property(lambda self: ["-c", deaf]))
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(Stopped) as caught:
        stage.run()
    timer.join()
    assert caught.value.code == 130
