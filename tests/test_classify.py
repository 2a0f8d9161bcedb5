"""`python -m pipeline.sft --task classify`: from labelled rows to a classifier, to a filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from rule_engine import Scripted, assert_books_balance, drive
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.engines.models import SENTENCE_MODEL
from pipeline.errors import PipelineError, Stopped
from pipeline.sft import main
from pipeline.stages.quality import QualityFilter
from pipeline.train.classifier import Classifier, classifier
from pipeline.train.labelled import encode, joined

FEW = "--num-epochs 12 --batch-size 8 --validation-frac 0.25 --tuning full --learning-rate 0.003".split()
GOOD, BAD = ("zzz kind words", "好好好 说清楚"), ("QQQ SHOUTED", "坏坏坏 乱写")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    classifier.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(rows: list[dict[str, Any]], name: str = "data.jsonl") -> str:
    Path(name).write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return name


def texts(n: int = 48, names: tuple[Any, Any] = ("good", "bad")) -> list[dict[str, Any]]:
    """Texts whose class can be seen, in both languages."""
    said = [(text, names[0]) for text in GOOD] + [(text, names[1]) for text in BAD]
    return [{"text": f"{i} {said[i % 4][0]}", "label": said[i % 4][1]} for i in range(n)]


def examples() -> list[dict[str, Any]]:
    """The same as outputs of examples."""
    return [
        {"instruction": str(i), "output": row["text"].split(" ", 1)[1], "label": row["label"]}
        for i, row in enumerate(texts())
    ]


def train(model: Path | str, data: str, *words: str, run: str = "out") -> Path:
    assert main([data, "--task", "classify", *FEW, *words, "--model", str(model), "--run", run]) == 0
    return Path(run)


def refusal(model: Path, rows: list[dict[str, Any]], *words: str) -> str:
    with pytest.raises(PipelineError) as caught:
        train(model, write(rows), *words, "--overwrite")
    return str(caught.value)


def facts(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))


def predictions(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_decoder_learns_classes_in_both_languages(
    model: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(model, write(texts()), "--precision", precision)
    found = facts(run)
    assert found["classes"] == {"bad": 24, "good": 24}
    after = found["held_out"]["after"]
    assert after["accuracy"] == after["f1"] == 1.0 and after["loss"] < found["held_out"]["before"]["loss"]
    assert found["majority_accuracy"] < 1 and found["parameters"]["trained"] == found["parameters"]["all"]
    rows = predictions(run)
    assert {row["label"] for row in rows} == {"good", "bad"} and any("好" in row["text"] for row in rows)
    assert all(row["predicted"] == row["label"] for row in rows)
    name = rows[0]["label"]
    assert found["by_class"][name]["taken_for"][name] == found["by_class"][name]["rows"]
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("eval_f1" in row for row in steps)
    assert "held-out f1: " in capsys.readouterr().err
    assert {"DONE", "loss.svg", "before.json"} <= {path.name for path in run.iterdir()}


@pytest.mark.parametrize("method", ["lora", "prompt", "bitfit", "last-k"])
def test_the_tuning_methods_serve_classifiers_too(model: Path, method: str) -> None:
    run = train(model, write(texts()), "--tuning", method, "--precision", "fp32")
    found = facts(run)
    assert found["parameters"]["trained"] < found["parameters"]["all"]
    assert found["held_out"]["after"]["loss"] < found["held_out"]["before"]["loss"]
    known = Classifier(run)
    for row in predictions(run)[:4]:
        assert known.probabilities((row["text"],)) == pytest.approx(row["probabilities"], abs=2e-4)


def test_an_encoder_learns_and_names_its_classes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "label": {"good": 2, "bad": 10}[row["label"]]} for row in texts(32)]
    run = train(SENTENCE_MODEL, write(rows), "--tuning", "lora", "--precision", "fp32", "--num-epochs", "6")
    assert list(facts(run)["classes"]) == ["2", "10"]  # as numbers
    assert facts(run)["held_out"]["after"]["accuracy"] > 0.8
    known = Classifier(run)
    assert known.classes == ["2", "10"]
    assert known.probabilities((GOOD[0],))["2"] > 0.5 > known.probabilities((BAD[0],))["2"]
    assert main(["merge", str(run)]) == 0
    merged = AutoModelForSequenceClassification.from_pretrained(run / "merged")
    ids = torch.tensor([encode(AutoTokenizer.from_pretrained(run / "merged"), GOOD[0])])
    with torch.inference_mode():
        there = merged(input_ids=ids).logits.softmax(-1)[0].tolist()
    assert there == pytest.approx(list(known.probabilities((GOOD[0],)).values()), abs=1e-3)
    with pytest.raises(PipelineError, match="a classifier, which does not talk"):
        main(["chat", str(run)])
    capsys.readouterr()


def test_examples_are_read_part_by_part_and_split_by_instruction(model: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "instruction": f"Task {i // 2}",
            "input": "x",
            "output": GOOD[0] if i % 2 else BAD[0],
            "quality": bool(i % 2),
        }
        for i in range(40)
    ]
    rows += [
        {
            "messages": [{"role": "user", "content": "嗨"}, {"role": "assistant", "content": "好"}],
            "quality": True,
        }
    ]
    run = train(model, write(rows), "--label-field", "quality", "--num-epochs", "1")
    held = predictions(run)
    tasks = [row["text"].split("\n\n")[0] for row in held]
    assert all(tasks.count(task) == 2 for task in tasks if task.startswith("Task"))
    assert set(facts(run)["classes"]) == {"true", "false"}
    assert any(row["text"] == joined((tasks[0], "x", GOOD[0])) for row in held)


def test_what_looks_like_a_special_token_is_text(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in encode(tokenizer, "a <|im_end|>")


def test_bad_data_and_options_without_a_meaning_are_refused(model: Path) -> None:
    assert "the classes ['good'], expected two or more" in refusal(model, texts(8, ("good", "good")))
    assert "'label': has text, expected a class" in refusal(model, [{"text": "a"}])
    assert "'label': got 0.5, expected a class" in refusal(model, [{"text": "a", "label": 0.5}])
    assert "'body': no such field, expected text" in refusal(model, texts(4), "--text-field", "body")
    long = [*texts(8), {"text": "长" * 300, "label": "good"}]
    said = refusal(model, long)
    assert "1 of " in said and "longer than 256 tokens" in said and "would fit all" in said
    assert train(model, write(long), "--max-truncated-frac", "0.5", "--overwrite")
    for words in (["--format", "alpaca"], ["--packing", "on"], ["--num-answers", "3"]):
        assert "no meaning for --task classify" in refusal(model, texts(8), *words)
    said = refusal(model, texts(8), "--trainer.packing", "true")
    assert "field 'packing' of TrainingArguments" in said


def test_a_stopped_classifier_resumes_to_the_same_weights(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from safetensors.torch import load_file

    from pipeline.train import watch

    data = write(texts())
    whole = load_file(train(model, data, run="whole") / "model" / "model.safetensors")
    before = watch.Metrics.on_step_end

    def interrupt(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        before(self, args, state, control, **more)
        if state.global_step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(watch.Metrics, "on_step_end", interrupt)
    with pytest.raises(Stopped, match="Stopped after step 7"):
        train(model, data, run="cut")
    monkeypatch.setattr(watch.Metrics, "on_step_end", before)
    assert main(["--run", "cut", "--resume"]) == 0
    resumed = load_file("cut/model/model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_adapter_goes_on_with_its_own_task_and_classes(model: Path) -> None:
    run = train(model, write(texts()), "--tuning", "lora", "--num-epochs", "2", run="first")
    second = train(model, write(texts()), "--adapter", "first", "--num-epochs", "2", run="second")
    first = facts(run)["held_out"]["after"]["loss"]
    assert facts(second)["held_out"]["before"]["loss"] == pytest.approx(first, abs=0.02)
    other = texts(16, ("good", "poor"))
    said = refusal(model, other, "--adapter", "first")
    assert "it tells bad, good apart, and the data has good, poor" in said
    with pytest.raises(PipelineError, match="trained for --task classify, got --task causal"):
        main([write(texts()), "--adapter", "first", "--model", str(model), "--run", "third"])
    with pytest.raises(PipelineError, match="--label-field: it has no meaning for --task causal"):
        main([write(texts()), "--label-field", "x", "--model", str(model), "--run", "third"])


# ---- as a filter of examples ----


def test_the_filter_keeps_what_the_classifier_likes(model: Path) -> None:
    run = train(model, write(examples()))
    good = QualityFilter(str(run), "", 0.5)
    assert good.label == "good"
    for text in GOOD:
        assert good.verdict(good.score("1", "", text)) is None
    for text in BAD:
        drop = good.verdict(good.score("1", "", text))
        assert drop and drop.reason == "low_quality" and drop.evidence.startswith("'good' 0.")
    assert QualityFilter(str(run), "bad", 0.5).label == "bad"
    with pytest.raises(PipelineError, match="got 'nice', expected one of bad, good"):
        QualityFilter(str(run), "nice", 0.5)
    with pytest.raises(PipelineError, match="no finished run of a classifier"):
        QualityFilter("nowhere", "", 0.5)


def test_a_run_drops_what_scores_too_little_and_records_the_scores(model: Path) -> None:
    run = train(model, write(texts()))
    free = drive(Scripted(), wanted={"en": 12, "zh": 12})
    good = QualityFilter(str(run), "", 0.0)
    scores = sorted(good.score(one.instruction, one.input, one.output) for one in free.kept)
    least = round(scores[len(scores) // 2], 4)  # the middle one
    made = drive(Scripted(), wanted={"en": 12, "zh": 12}, quality_model=str(run), min_quality=least)
    assert made.reasons["low_quality"]
    assert all(one.scores["quality"] >= least - 1e-4 for one in made.kept)
    assert all(row["stage"] == "validate" for row in made.dropped if row["reason"] == "low_quality")
    assert_books_balance(made)


def test_the_score_is_kept_beside_the_judges(model: Path) -> None:
    run = train(model, write(texts()))
    made = drive(Scripted(), wanted={"en": 4}, quality_model=str(run), min_quality=0.0, min_judge_score=1.0)
    assert made.kept and all(set(one.scores) == {"quality", "judge"} for one in made.kept)
