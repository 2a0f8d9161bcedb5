"""Whole runs of `python -m pipeline.evaluate`, most with a model that answers by rule."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from evaluated import MATH, RuleEngine, opens, right, rows, sheet, task, tasks, write, wrong
from fault_server import FaultServer
from preference_data import write as write_data
from scripted import REPO, Ended, environment, process, refused

from pipeline.errors import run_command
from pipeline.evaluate import main
from pipeline.evaluation import command
from pipeline.evaluation.options import CompareOptions, Options
from pipeline.stages.seeds import lint, load_seeds

Call = Callable[..., Ended]
OFF = ("--embedding-model", "off")
HELD = ("--heldout", "held.jsonl", "--seeds", REPO / "seeds")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return str(path)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Call:
    """The command in this process, in a directory with `held.jsonl` and the project's seeds."""
    monkeypatch.chdir(tmp_path)
    write(tasks())

    def run(*args: object, engine: RuleEngine | None = None) -> Ended:
        if engine:
            monkeypatch.setattr(command, "open_engine", opens(engine))
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


def evaluate(call: Call, model: str, engine: RuleEngine, *args: object, run: str = "r") -> dict[str, Any]:
    ended = call(
        model, "--heldout", "held.jsonl", "--seeds", REPO / "seeds", *OFF, *args, "--run", run, engine=engine
    )
    assert (ended.code, ended.out) == (0, f"{run}/scores.json\n"), ended.err
    return sheet(run)


# ---- scores ----


def test_a_model_that_is_right_everywhere_gets_full_marks(call: Call, model: str) -> None:
    found = evaluate(call, model, RuleEngine())
    # seven tasks; sum, motto, jia have checks, mood and xin are classifications of two requests each
    assert found["heldout"]["tasks"] == 7 and found["heldout"]["requests"] == 9
    assert (found["success"]["value"], found["success"]["count"]) == (1, 5)
    assert found["success"]["by"]["checks"]["count"] == 3 and found["success"]["by"]["label"]["count"] == 2
    told = found["classification"]
    assert (told["accuracy"]["value"], told["macro_f1"]["value"], told["chance"]) == (1, 1, 0.5)
    assert told["requests"] == 4 and told["without_label"]["value"] == 0
    assert found["stopped"]["value"] == 1 and found["failures"]["failed"]["value"] == 0
    assert found["by_language"]["zh"]["success"]["value"] == 1
    assert found["by_tag"]["math"]["tasks"] == 2
    assert found["failures"]["worst"] == [] and rows("r/failures.jsonl") == []
    assert (Path("r") / "report.md").read_text("utf-8").startswith(f"# Evaluation of {model}\n")


def test_a_model_that_fails_is_told_why(call: Call, model: str) -> None:
    found = evaluate(call, model, RuleEngine(said=wrong))
    assert (found["success"]["value"], found["success"]["count"]) == (0, 5)
    reasons = {row["id"]: row["reason"] for row in rows("r/failures.jsonl")}
    assert reasons["sum"] == "wrong_answer" and reasons["motto"] == "repetition"
    assert reasons["mood/1"] == "no_label" and reasons["mood/2"] == reasons["rain"] == "empty"
    assert reasons["shi"] == "wrong_language" and reasons["xin/1"] == "empty"
    motto = next(row for row in rows("r/failures.jsonl") if row["id"] == "motto")
    assert motto["also"] == ["cut_off", "check_failed"]
    assert found["failures"]["by_reason"]["empty"] == 5
    assert found["failures"]["by_tag"]["classification"] == {"empty": 3, "no_label": 1}
    worst = found["failures"]["worst"]
    assert all(kind["failed"]["value"] > 0 for kind in worst)


def test_a_loop_is_no_success_whatever_its_checks_say(call: Call, model: str) -> None:
    loop = "The answer is 12. " * 30
    found = evaluate(call, model, RuleEngine(said=lambda request: (loop, "length")))
    assert found["checks_passed"]["value"] > 0 and found["success"]["value"] == 0
    assert {row["reason"] for row in rows("r/failures.jsonl")} == {"repetition"}


def test_a_task_with_several_requests_counts_once(call: Call, model: str) -> None:
    def half(request: Any) -> tuple[str, str]:
        return ("happy" if "line" in request.prompt else right(request)[0]), "stop"

    found = evaluate(call, model, RuleEngine(said=half))
    # mood is right in one of two, so 4.5 of 5 tasks; F1: happy 2/3, sad 0 -> 1/3, and 1 for the Chinese one
    assert found["success"]["value"] == 0.9
    assert found["classification"]["accuracy"]["value"] == 0.75
    assert found["classification"]["macro_f1"]["value"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-4)


def test_the_same_options_give_the_same_bytes(call: Call, model: str) -> None:
    evaluate(call, model, RuleEngine(said=wrong), run="one")
    evaluate(call, model, RuleEngine(said=wrong), run="two")
    for name in ("scores.json", "answers.jsonl", "failures.jsonl", "report.md"):
        assert (Path("one") / name).read_bytes() == (Path("two") / name).read_bytes()


def test_the_loss_falls_on_the_reference_and_its_end_token(call: Call, model: str) -> None:
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    short = [task("a", "Say no.", "No.", "x"), task("b", "说不。", "不。", "x")]
    write(short)
    found = call(
        model, "--heldout", "held.jsonl", "--seeds", REPO / "seeds", *OFF, "--max-tokens", 4, "--run", "r"
    )
    assert found.code == 0, found.err
    told, network = sheet("r")["loss"], tiny_llama.network("eager")
    tokenizer = AutoTokenizer.from_pretrained(model)
    nats = tokens = 0.0
    for row in short:
        asked, said = row["instruction"], row["instances"][0]["output"]
        prompt = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        begun = tokenizer(prompt, add_special_tokens=False).input_ids
        ids = tokenizer(f"{prompt}{said}<|im_end|>", add_special_tokens=False).input_ids
        with torch.inference_mode():
            logprobs = network(torch.tensor([ids])).logits[0].log_softmax(-1)
        nats -= sum(float(logprobs[i - 1, ids[i]]) for i in range(len(begun), len(ids)))
        tokens += len(ids) - len(begun)
    # "No." is three bytes, "不。" six, and each has an end token
    assert told["tokens"] == tokens == 11
    assert told["value"] == pytest.approx(nats / tokens, rel=0.02)  # the engine may compute in bf16
    assert told["perplexity"]["value"] == pytest.approx(2.718281828 ** told["value"], rel=1e-3)


def test_a_reference_that_cannot_be_proved_is_left_out_and_counted(call: Call, model: str) -> None:
    write([task("a", "Say no.", "No.", "x"), task("b", "End it.", "Done <|im_end|> now", "x")])
    found = evaluate(call, model, RuleEngine())
    assert found["loss_left_out"] == {"special_token": 1} and found["loss"]["count"] == 1
    assert evaluate(call, model, RuleEngine(), "--no-loss", run="s")["loss"] is None
    assert sheet("s")["loss_left_out"] == "switched off (--no-loss)"


def test_an_engine_error_is_a_failure_and_not_the_end(call: Call, model: str) -> None:
    engine = RuleEngine()
    plain = engine.answer

    def answer(request: Any) -> Any:
        from pipeline.engines.base import Response

        if "rain" in request.prompt and not request.choices:
            return Response("", "error", 0, 0, error="it fell over")
        return plain(request)

    engine.answer = answer  # type: ignore[method-assign]
    found = evaluate(call, model, engine)
    assert found["failures"]["by_reason"] == {"engine_error": 1}


# ---- judge ----


def better(prompt: str) -> tuple[float, float]:
    """Sees the reference's "drops" in either place and likes what has none."""
    first = prompt.index("Answer A:") if "Answer A:" in prompt else prompt.index("回答 A：")
    second = prompt.index("Answer B:") if "Answer B:" in prompt else prompt.index("回答 B：")
    return (-2.0, -1.0) if "drops" in prompt[first:second] else (-1.0, -2.0)


def test_a_judge_that_only_sees_the_place_decides_nothing(call: Call, model: str) -> None:
    found = evaluate(call, model, RuleEngine(), "--judges", "pairwise")
    assert found["judge"]["flipped"]["value"] == 1
    assert found["judge"]["beats_reference"]["value"] == 0.5


def test_a_judge_is_asked_in_both_orders_against_the_reference(call: Call, model: str) -> None:
    write([task("rain", "Why does it rain?", "Water falls as drops.", "x")])
    engine = RuleEngine(said=lambda request: ("Because clouds get heavy.", "stop"), verdict=better)
    found = evaluate(call, model, engine, "--judges", "pairwise", "scalar")
    assert found["judge"]["beats_reference"]["value"] == 1 and found["judge"]["flipped"]["value"] == 0
    assert found["judge"]["rating"]["value"] > 0.95
    asked = [request.prompt for request in engine.asked if len(request.choices) == 2]
    assert len(asked) == 2 and asked[0] != asked[1]
    assert rows("r/answers.jsonl")[0]["verdicts"] == ["A", "B"]


# ---- contamination ----


def finished_run(folder: str, config: dict[str, Any], data: str, kept: list[dict[str, Any]]) -> None:
    """What a training run leaves of itself for others to follow."""
    import yaml

    from pipeline.rundir import file_digest

    path = Path(folder)
    path.mkdir(parents=True)
    write(kept, data)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "run.json").write_text(json.dumps({"inputs": {data: file_digest(Path(data))}}))
    (path / "DONE").write_text("x\n")


def chain() -> None:
    """A DPO run on an SFT run, each of which was trained on a held-out task."""
    sft = [
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "五加七等于几？", "input": "", "output": "十二。"},
    ]
    dpo = [
        {
            "prompt": [{"role": "user", "content": "Why does it rain?"}],
            "chosen": [{"role": "assistant", "content": "Clouds."}],
            "rejected": [{"role": "assistant", "content": "Why not."}],
        }
    ]
    finished_run("runs/sft-001", {"model": ""}, "data/kept.jsonl", sft)
    finished_run("runs/dpo-001", {"model": "runs/sft-001"}, "data/preferences.jsonl", dpo)


def resolved_to(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run's model be the tiny one."""
    from pipeline.engines import open as opening
    from pipeline.evaluation import setup

    for module in (opening, setup):
        monkeypatch.setattr(module, "language_model", lambda name: model)


def test_training_data_are_followed_through_runs_and_searched(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain()
    resolved_to(model, monkeypatch)
    found = evaluate(call, "runs/dpo-001", RuleEngine())["contamination"]
    assert found["runs"] == ["runs/dpo-001", "runs/sft-001"] and found["rows"] == 3
    assert found["not_known"] == ["the embedded SmolLM2-135M-Instruct"]
    assert set(found["found"]) == {"rain", "jia"}
    assert found["found"]["jia"][0]["where"].startswith("data/kept.jsonl:2")
    assert (found["share"]["value"], found["share"]["count"]) == (round(2 / 9, 4), 9)
    assert sheet("r")["heldout"]["requests"] == 9  # only reported


def test_the_diversity_of_the_training_data_is_in_the_sheet(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sft = [
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "Name a river.", "input": "", "output": "The Rhine."},
        {"instruction": "Name a river.", "input": "", "output": "The Elbe."},  # asked once, said twice
        {"instruction": "写一首短诗。", "input": "", "output": "春眠不觉晓。"},
    ]
    finished_run("runs/sft-001", {"model": ""}, "data/kept.jsonl", sft)
    resolved_to(model, monkeypatch)
    found = evaluate(call, "runs/sft-001", RuleEngine())["training_diversity"]
    assert found["en"].pop("meaning")["left_out"] == "no embedding model"
    own = {"distinct_1": 0.6667, "distinct_2": 0.75, "opening_entropy": 0.0, "shared_4grams": 0.0}
    assert found["en"] == {"requests": 2, **own}
    assert found["zh"]["requests"] == 1 and found["zh"]["distinct_1"] == 1.0
    told = Path("r/report.md").read_text(encoding="utf-8")
    assert "## Diversity of what the training data ask\n\n| language | measure | value |" in told
    assert "| en | requests | 2 |" in told and "| zh | requests | 1 |" in told


def test_contaminated_tasks_can_be_left_out_of_the_scores(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain()
    resolved_to(model, monkeypatch)
    found = evaluate(call, "runs/dpo-001", RuleEngine(), "--contamination", "exclude")
    assert found["contamination"]["excluded_tasks"] == ["rain", "jia"]
    assert {row["task"] for row in rows("r/answers.jsonl")} == {"sum", "motto", "mood", "xin", "shi"}
    write([task("rain", "Why does it rain?", "Clouds.")])
    ended = call("runs/dpo-001", "--heldout", "held.jsonl", "--seeds", REPO / "seeds", *OFF,
                 "--contamination", "exclude", "--run", "s", engine=RuleEngine())  # fmt: skip
    assert "all 1 held-out tasks are in the training data" in ended.err and ended.code == 2


def test_training_data_that_changed_or_went_is_said(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain()
    resolved_to(model, monkeypatch)
    write([{"instruction": "Another.", "input": "", "output": "One."}], "data/kept.jsonl")
    Path("data/preferences.jsonl").unlink()
    found = evaluate(call, "runs/dpo-001", RuleEngine())["contamination"]
    assert any("it has changed since the training" in line for line in found["not_known"])
    assert any("data/preferences.jsonl of runs/dpo-001" in line for line in found["not_known"])


def test_a_passage_of_a_reference_inside_a_long_row_is_found(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved_to(model, monkeypatch)
    said = "one fox and two hens went over the hill to see what the new miller had built there last spring"
    write([task("fox", "Tell me a tale of a fox.", f"It is said that {said}.")])
    messages = [
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "content": f"Once, {said}, and so on."},
    ]
    finished_run("runs/sft-001", {"model": "x"}, "data/kept.jsonl", [{"messages": messages}])
    found = evaluate(call, "runs/sft-001", RuleEngine())["contamination"]["found"]["fox"]
    # 20 of the 30 tokens of request and reference
    assert found[0]["measure"] == "13-gram" and found[0]["score"] == pytest.approx(20 / 30, abs=0.05)


def test_the_newest_trained_model_is_the_default(call: Call, model: str) -> None:
    from pipeline.sft import main as sft

    torch.set_num_threads(1)
    data = write_data([{"instruction": f"Say {i}.", "input": "", "output": "Red."} for i in range(6)])
    words = "--max-steps 1 --num-answers 0 --validation-frac 0".split()
    assert sft([data, *words, "--model", model, "--run", "runs/sft-001"]) == 0
    ended = call(
        "--heldout", "held.jsonl", "--seeds", REPO / "seeds", *OFF, "--max-tokens", 4, engine=RuleEngine()
    )
    assert (ended.code, ended.out) == (0, "runs/evaluate-001/scores.json\n"), ended.err
    found = sheet("runs/evaluate-001")
    assert found["model"] == "runs/sft-001" and found["contamination"]["rows"] == 6
    assert found["contamination"]["not_known"] == [model]


# ---- seeds ----


def proposals(request: Any) -> tuple[str, str]:
    """Five proposals: of the rule, a held-out task, a seed, something that is no request, a good one."""
    if request.chat:
        return wrong(request)
    if "\u4e00" <= request.prompt[0] <= "\u9fff":
        return "请算出三十六除以四再加五等于多少。\n8. 五加七等于几？\n", "stop"
    seed = load_seeds([str(REPO / "seeds" / "en.jsonl")])[0].instruction
    good = "Work out how many minutes a film of two hours and a quarter lasts."
    return f"{good}\n8. What is five plus seven?\n9. {seed}\n10. Hello.\n", "stop"


def test_candidates_of_seeds_are_of_failing_kinds_and_never_held_out_tasks(call: Call, model: str) -> None:
    math = [
        task(f"sum-{i}", f"What is {n} plus seven?", "5 + 7 = 12", "math", verifier=MATH)
        for i, n in enumerate("five nine three".split())
    ]
    chinese = [
        task(f"jia-{i}", f"{n}加七等于几？", "5＋7＝12", "math", verifier=MATH)
        for i, n in enumerate("五六八")
    ]
    write([*math, *chinese])
    engine = RuleEngine(said=proposals)
    evaluate(call, model, engine, "--suggest-seeds", "new/candidates.jsonl", "--num-suggestions", 4)
    found = load_seeds(["new/candidates.jsonl"])
    assert {seed.language for seed in found} == {"en", "zh"}
    assert [seed.instruction for seed in found if seed.language == "en"] == [
        "Work out how many minutes a film of two hours and a quarter lasts."
    ]
    assert all(seed.tags == ("math",) for seed in found)
    # a person has to answer them: our own lint says so
    assert sum("empty output" in line for line in lint(found)) == len(found)
    held = [row["instruction"] for row in (*math, *chinese)]
    asked = [r.prompt for r in engine.asked if not r.chat and not r.choices]
    assert len(asked) == 4 and not any(text in prompt for prompt in asked for text in held)


def test_a_stop_among_the_suggestions_is_resumed_to_the_same_bytes(call: Call, model: str) -> None:
    write([task(f"s{i}", f"What is {i} plus {i}?", f"{2 * i}", "math", verifier=MATH) for i in range(4)])
    evaluate(call, model, RuleEngine(said=proposals), "--suggest-seeds", "whole.jsonl", run="whole")
    words = (model, *HELD, *OFF, "--suggest-seeds", "r.jsonl", "--run", "r")
    # eight requests come first: four answers, four references
    ended = call(*words, "--max-requests", 14, engine=RuleEngine(said=proposals))
    assert ended.code == 3 and not Path("r.jsonl").exists()
    assert Path("r/journal-suggest.jsonl").read_bytes()
    engine = RuleEngine(said=proposals)
    assert call("--resume", "--run", "r", "--max-requests", 0, engine=engine).code == 0
    assert Path("r.jsonl").read_bytes() == Path("whole.jsonl").read_bytes() != b""
    assert len(engine.asked) == 8  # of 20, twelve were answered: the group that went over the limit was not


def test_candidates_are_never_written_among_seeds(call: Call, model: str) -> None:
    Path("mine").mkdir()
    base = (model, "--heldout", "held.jsonl", *OFF)
    write([task("s", "Name a fruit.", "Pear.")], "mine/seeds.jsonl")
    for file in (
        REPO / "seeds" / "new.jsonl",
        REPO / "seeds" / "heldout" / "x.jsonl",
        "mine/new.jsonl",
        "held.jsonl",
    ):
        ended = call(*base, "--seeds", "mine", "--suggest-seeds", file, engine=RuleEngine())
        assert "whose tasks are read as they are" in refused(ended)
        assert Path(file).name == "held.jsonl" or not Path(file).exists()
    write([], "there/x.jsonl")
    ended = call(*base, "--seeds", "mine", "--suggest-seeds", "there/x.jsonl", engine=RuleEngine())
    assert "there/x.jsonl: the file is there already" in refused(ended)
    assert not Path("runs").exists()


# ---- errors ----


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("a", "b"), "command line: got b behind a, expected one model"),
        (("a", "--model", "b"), "command line: got a beside --model b. Name the model once."),
        (("--heldout", "nowhere.jsonl"), "nowhere.jsonl: no such file or directory"),
        (("--judges", "pairwse"), "Did you mean 'pairwise'?"),
        (("--contamination", "exclud"), "Did you mean 'exclude'?"),
        (("--held-out", "x"), "Did you mean '--heldout'?"),
        (("--lm-eval-limit", "3", "./x"), "--lm-eval-limit: it goes with --lm-eval and with nothing else"),
        (("./x", "--seeds", "nowhere"), "model ./x: no such directory and not a hub id"),
        (("--engine", "openai"), "--model: got none, expected the server's name of one"),
        (("m", "--engine", "openai", "--lm-eval", "t"), "--lm-eval t: it runs on a checkpoint"),
        (("--resume",), "--resume: no unfinished run under runs/"),
        (("compare",), "compare: got 0 runs, expected at least two"),
        (("compare", "a", "b"), "compare a: no such directory. Name a run of pipeline.evaluate."),
        (("compare", "a", "--resample", "9"), "Did you mean '--resamples'?"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(call: Call, args: tuple[str, ...], expected: str) -> None:
    seeds = () if args[0] == "compare" or "--seeds" in args else ("--seeds", str(REPO / "seeds"))
    if seeds and "--heldout" not in args:
        seeds += ("--heldout", "held.jsonl")
    if "nowhere" in args:
        args = (*args[:1], "--seeds", str(REPO / "seeds"))
        seeds = ("--heldout", "held.jsonl")
    assert expected in refused(call(*args, *seeds))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "x"}, "held.jsonl:1: has text, expected"),
        ({"instruction": " "}, "held.jsonl:1: the request is empty, expected text"),
        (task("a", "A?", "b", verifier={"kind": "maths", "answer": "1"}), "Did you mean 'math'?"),
        (
            {**task("a", "A?", "b"), "tags": "math"},
            "held.jsonl:1: 'tags' is 'math', expected a list of texts",
        ),
        (
            {"messages": [{"role": r, "content": "x"} for r in ("user", "assistant", "user", "assistant")]},
            "held.jsonl:1: the request has turns of user, assistant, user, expected one of the user",
        ),
    ],
)
def test_a_bad_held_out_row_is_named(call: Call, model: str, row: dict[str, Any], expected: str) -> None:
    write([row])
    assert expected in refused(call(model, *HELD))


def test_the_same_request_twice_is_refused(call: Call, model: str) -> None:
    write([task("a", "Why?", "So."), task("b", "Why?", "Because.")])
    said = refused(call(model, *HELD))
    assert said == "held.jsonl:2: the same request stands at held.jsonl:1. Remove one of the two."


def test_a_used_directory_is_refused_and_a_finished_one_told(call: Call, model: str) -> None:
    evaluate(call, model, RuleEngine())
    words = (model, *HELD, *OFF, "--run", "r")
    assert "r: the directory is in use by" in refused(call(*words, engine=RuleEngine()))
    again = call("--resume", "--run", "r")
    assert (again.code, again.out) == (0, "r/scores.json\n")
    assert "these differ from when the run began: max_tokens" in refused(
        call("--resume", "--run", "r", "--max-tokens", 9)
    )
    assert call(*words, "--overwrite", engine=RuleEngine()).code == 0


def test_a_model_without_a_chat_template_is_refused(call: Call, model: str) -> None:
    engine = RuleEngine(has_chat=False)
    ended = call(
        model, "--heldout", "held.jsonl", "--seeds", REPO / "seeds", *OFF, "--run", "r", engine=engine
    )
    assert ended.code == 2 and "model rule: it has no chat template" in ended.err.splitlines()[-1]


def test_a_budget_pauses_and_resume_ends_in_the_same_bytes(call: Call, model: str) -> None:
    evaluate(call, model, RuleEngine(said=wrong), run="whole")
    words = (model, *HELD, *OFF, "--run", "r")
    ended = call(*words, "--max-requests", 8, engine=RuleEngine(said=wrong))
    assert ended.code == 3 and "python -m pipeline.evaluate --resume --run r" in ended.err
    assert not Path("r/scores.json").exists()
    engine = RuleEngine(said=wrong)
    assert call("--resume", "--run", "r", "--max-requests", 0, engine=engine).code == 0
    assert len(engine.asked) == 18 - 8  # nothing is asked twice
    for name in ("scores.json", "answers.jsonl", "failures.jsonl", "report.md"):
        assert (Path("r") / name).read_bytes() == (Path("whole") / name).read_bytes()


# ---- over HTTP ----


def test_ctrl_c_stops_with_a_hint_and_resume_ends_in_the_same_bytes(tmp_path: Path) -> None:
    def said(body: dict[str, Any]) -> tuple[str, str]:
        text = str(body.get("messages", [{"content": ""}])[-1]["content"])
        if "Answer B:" in text or "回答 B：" in text:
            return random.Random(text).choice(["A", "B"]), "stop"
        return f"It is {random.Random(text).randint(10, 14)}.", "stop"

    path = write([task(f"t{i}", f"What is {i} plus {i + 2}?", f"{2 * i + 2}.", "math",
                       verifier={"kind": "math", "answer": str(2 * i + 2)}) for i in range(20)],
                 tmp_path / "held.jsonl")  # fmt: skip
    with FaultServer(said, share=0.1, faults=("500", "429", "cut")) as server:
        engine = (
            f"smol --engine openai --cache off --concurrency 4 --window 8 --base-url {server.url}".split()
        )
        words = [
            sys.executable,
            "-m",
            "pipeline.evaluate",
            *engine,
            "--heldout",
            path,
            "--seeds",
            str(REPO / "seeds"),
        ]
        words += [*OFF, "--judges", "pairwise", "--request-timeout", "2"]
        whole = process(*words, "--run", "whole", cwd=tmp_path, timeout=120, OPENAI_API_KEY="k")
        assert whole.code == 0, whole.err
        assert "no held-out loss: a server does not say how likely" in whole.err
        server.latency = 0.1
        running = subprocess.Popen([*words, "--run", "r"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                                   env=environment(OPENAI_API_KEY="k"))  # fmt: skip
        journal, deadline = tmp_path / "r" / "journal.jsonl", time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 25):
            assert running.poll() is None and time.monotonic() < deadline, running.communicate()
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130 and "python -m pipeline.evaluate --resume --run r" in err, err
        before, server.latency = journal.read_bytes(), 0
        resumed = [*words[:3], "--resume", "--run", "r"]
        ended = process(*resumed, cwd=tmp_path, timeout=120, OPENAI_API_KEY="k")
    assert ended.code == 0, ended.err
    assert journal.read_bytes().startswith(before)
    for name in ("scores.json", "answers.jsonl", "failures.jsonl", "report.md"):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


# ---- the command ----


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.evaluate import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers', 'numba', 'datasets', 'openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m pipeline.evaluate compare" in done.stdout


def read_of_options() -> set[str]:
    """What the room and the engines read of their options, and the embedding options of themselves."""
    rooms = [REPO / "pipeline" / name for name in ("evaluation", "engines")]
    files = [path for room in rooms for path in room.glob("*.py")]
    own = REPO / "pipeline" / "dedup" / "embedding_options.py"
    pairs = [(path, ("options", "_options")) for path in files] + [(own, ("self",))]
    found = set()
    for path, owners in pairs:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                found |= {node.attr} if owner in owners else set()
    return found


@pytest.mark.parametrize("options", [Options, CompareOptions])
def test_every_option_is_read(options: Any) -> None:
    assert not sorted({field.name for field in fields(options)} - read_of_options())


def test_a_missing_harness_says_how_to_install_it(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "lm_eval" else found(name, *a)
    )
    ended = call(model, *HELD, "--lm-eval", "arc_easy")
    assert "--lm-eval arc_easy: lm-evaluation-harness is not installed. Install it: pip install" in refused(
        ended
    )


def test_the_harness_runs_a_local_task_file(call: Call, model: str) -> None:
    pytest.importorskip("lm_eval")
    torch.set_num_threads(1)
    write(
        [{"question": f"{i} + 1 =", "answer": str(i + 1), "wrong": "7"} for i in range(4)], "eval/rows.jsonl"
    )
    Path("eval/sums.yaml").write_text(
        "task: tiny_sums\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: eval/rows.jsonl\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: ['{{answer}}', '{{wrong}}']\ndoc_to_target: 0\nmetric_list:\n  - metric: acc\n"
    )
    found = evaluate(call, model, RuleEngine(), "--lm-eval", "tiny_sums", "--lm-eval-path", "eval")
    assert 0 <= found["lm_eval"]["tiny_sums"]["acc,none"] <= 1
    assert "lm-eval tiny_sums: acc,none" in Path("r/report.md").read_text("utf-8")
    missing = call(model, *HELD, *OFF, "--lm-eval", "nix", "--run", "s",
                   engine=RuleEngine())  # fmt: skip
    assert missing.code == 2 and "no task 'nix' among" in missing.err


def test_the_map_of_commands_has_it() -> None:
    from pipeline.__main__ import commands

    assert commands()["evaluate"].startswith("Measure a model on held-out tasks")


@pytest.mark.slow  # the embedded model answers 20 tasks, about a minute
def test_the_embedded_model_is_evaluated_on_our_tasks_twice_alike(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipeline.evaluate", "--heldout", REPO / "seeds" / "heldout"]
    words += ["--seeds", REPO / "seeds", "--num-tasks", 20, "--max-tokens", 48]
    for name in ("one", "two"):
        ended = process(*words, "--run", name, cwd=tmp_path, timeout=600)
        assert ended.code == 0, ended.err
    found = sheet(tmp_path / "one")
    assert 1 < found["loss"]["value"] < 6 and found["rouge_l"]["value"] > 0.05
    assert found["diversity"]["en"]["meaning"]["seeds_covered"] > 3
    for name in ("scores.json", "answers.jsonl", "failures.jsonl", "report.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
