"""`python -m pipeline.reward` from pairs to scores, on a model that trains in milliseconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from preference_data import KIND, RUDE, facts, lines, pairs, write
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pipeline import preferences
from pipeline.errors import PipelineError, Stopped
from pipeline.reward import main
from pipeline.train import score_check, watch
from pipeline.train.methods import METHODS
from pipeline.train.reward_model import load

FEW = "--max-steps 6 --batch-size 2 --gradient-accumulation 1 --validation-frac 0.3 --precision fp32".split()
QUICK = ("lora", "prompt", "fish-mask", "last-k")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reward(model: Path | str, *words: str, run: str = "out") -> Path:
    assert main([*FEW, *words, "--model", str(model), "--run", run]) == 0
    return Path(run)


def refusal(model: Path, *words: str) -> str:
    with pytest.raises(PipelineError) as caught:
        reward(model, *words, "--overwrite")
    return str(caught.value)


def talk(answer: str, asked: str = "Say something, please (99) 说") -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_to_rank_and_says_how_well(
    model: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--tuning full --learning-rate 0.003 --max-steps 24 --precision".split()
    run = reward(model, write(pairs(32)), *words, precision)
    shown = capsys.readouterr()
    assert shown.out == "out/model\n"
    assert "Mask audit: 64 rows" in shown.err and "the end of each answer is scored" in shown.err
    assert "held-out accuracy: " in shown.err and "always the longer answer" in shown.err
    found = facts(run)
    assert found["accuracy"]["after"]["value"] == 1.0 and 0 < found["accuracy"]["after"]["low"] < 1
    assert found["eval_loss"]["after"] < found["eval_loss"]["before"]
    assert found["lengths"]["chosen"]["mean"] > 0 and found["score_check"]["rows"] == 16
    assert 0 <= found["expected_calibration_error"] <= 1 and found["by_length_difference"]
    rows = lines(run / "predictions.jsonl")
    assert all(row["right"] == (row["score_chosen"] > row["score_rejected"]) for row in rows)
    assert any("好" in row["chosen"] for row in rows) and rows[0]["prompt"][-1]["role"] == "user"
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "DONE",
        "calibration.svg",
        "calibration.png",
        "loss.svg",
        "mask_audit.json",
        "masks.html",
    }
    known = load(run)
    kind, rude = known.score([talk(KIND[0]), talk(RUDE[0])])
    assert kind > rude


def test_scores_do_not_depend_on_the_batch_or_the_order(model: Path) -> None:
    run = reward(model, write(pairs()))
    known = load(run)
    talks = [talk(f"{(KIND + RUDE)[i % 4]} {'x' * (i % 7) * 5}") for i in range(40)]
    together = known.score(talks)
    alone = [known.score([one])[0] for one in talks]
    assert together == pytest.approx(alone, abs=1e-4)
    assert known.score(talks[::-1]) == pytest.approx(together[::-1], abs=1e-4)
    assert known.score([]) == []
    for row in lines(run / "predictions.jsonl")[:3]:
        said = [
            [*row["prompt"], {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")
        ]
        assert known.score(said) == pytest.approx([row["score_chosen"], row["score_rejected"]], abs=2e-4)
    assert main(["merge", str(run)]) == 0
    assert load(run / "merged").score(talks) == pytest.approx(together, abs=1e-3)


def test_padding_never_hides_the_end_of_an_answer(model: Path) -> None:
    """Where padding and end token are the same, transformers scores the token before the end."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    AutoModelForCausalLM.from_pretrained(model).save_pretrained("same")
    tokenizer.save_pretrained("same")
    end = tokenizer.eos_token_id
    network = AutoModelForSequenceClassification.from_pretrained("same", num_labels=1, pad_token_id=end)
    ids = torch.tensor([[40, 41, end, end, end], [40, 41, 42, 43, end]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with torch.inference_mode():
        assert score_check._scored(network.eval(), ids, mask)[1] == [1, 3]  # not 2 and 4
    run = reward("same", write(pairs()))
    assert AutoTokenizer.from_pretrained(run / "model").pad_token_id != end
    assert facts(run)["score_check"]["largest_difference"] < 1e-4


def test_the_score_check_refuses_what_it_is_there_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = AutoTokenizer.from_pretrained(model).eos_token_id

    def hiding(tokenizer: Any, ends: Any) -> int:
        tokenizer.pad_token = tokenizer.eos_token
        return end

    with monkeypatch.context() as patch:
        patch.setattr(score_check, "padding_token", hiding)
        assert "answers whose end token is not trained" in refusal(model, write(pairs()))
        patch.setattr("pipeline.train.reward_job.RewardJob.audit_pairs", lambda *_: None)
        assert "expected the answer's end" in refusal(model, write(pairs()))
    monkeypatch.setitem(score_check.TOLERANCE, "fp32", -1.0)
    assert "a score changes by" in refusal(model, write(pairs()))


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in METHODS]
)
def test_every_tuning_method_trains_and_comes_back(model: Path, method: str) -> None:
    run = reward(model, write(pairs()), "--tuning", method)
    found = facts(run)
    assert 0 < found["parameters"]["trained"] <= found["parameters"]["all"]
    row = lines(run / "predictions.jsonl")[0]
    said = [[*row["prompt"], {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")]
    assert load(run).score(said) == pytest.approx([row["score_chosen"], row["score_rejected"]], abs=2e-3)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_to_the_same_weights(
    model: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, words = write(pairs()), ["--tuning", "full", "--precision", precision]
    whole = load_file(reward(model, data, *words, run="whole") / "model" / "model.safetensors")
    before = watch.Metrics.on_step_end

    def interrupt(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        before(self, args, state, control, **more)
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(watch.Metrics, "on_step_end", interrupt)
    with pytest.raises(Stopped, match="Stopped after step 3"):
        reward(model, data, *words, run="cut")
    monkeypatch.setattr(watch.Metrics, "on_step_end", before)
    assert main(["--run", "cut", "--resume"]) == 0
    resumed = load_file("cut/model/model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_margin_is_demanded_where_that_is_wanted(model: Path) -> None:
    data = write(pairs(score_chosen=5, score_rejected=1))
    plain = facts(reward(model, data))["eval_loss"]["before"]
    strict = facts(reward(model, data, "--margin-scale", "1", run="strict"))["eval_loss"]["before"]
    assert strict > plain + 1  # each pair falls short by 4 more
    said = refusal(model, write(pairs()), "--margin-scale", "1")
    assert "no 'margin' and no two scores, expected them for --margin-scale" in said


def test_long_rows_keep_their_answers(model: Path) -> None:
    rows = pairs()
    rows[0]["prompt"][-1]["content"] = "long " * 60
    rows[1]["rejected"][0]["content"] = "long " * 60
    said = refusal(model, write(rows))
    assert "answers cut off at the longest length" in said or "would fit all (now 256)" in said
    run = reward(model, write(rows), "--max-truncated-frac", "0.2", "--overwrite")
    assert facts(run)["rows"]["train"] + facts(run)["rows"]["validation"] == 16
    known = load(run)
    long = talk(KIND[0], "long " * 60)
    assert known.score([long])[0] == pytest.approx(known.score([long, talk(RUDE[0])])[0], abs=1e-4)


def test_it_judges_answers_by_name_in_the_preferences_command(model: Path) -> None:
    run = reward(model, write(pairs()))
    asked = [row["prompt"] for row in pairs()[:4]]
    rows = [{"id": f"p{i}", "prompt": one, "answers": [KIND[0], RUDE[0], "x"]} for i, one in enumerate(asked)]
    given = write(rows, "asked.jsonl")
    words = [str(given), "--num-answers", "0", "--judges", "reward", "--reward-model", str(run)]
    assert preferences.main([*words, "--bad-rows", "drop", "--run", "judged"]) == 0
    known = load(run)
    for case in lines(Path("judged/answers.jsonl")):
        talks = [[*case["prompt"], {"role": "assistant", "content": a["text"]}] for a in case["answers"]]
        scores = [one["scores"]["reward"] for one in case["answers"]]
        assert scores == pytest.approx(known.score(talks), abs=1e-3)
    for pair in lines(Path("judged/preferences.jsonl")):
        assert pair["score_chosen"] > pair["score_rejected"] and pair["provenance"]["judge"] == "reward"


def test_the_newest_preferences_and_a_run_as_model_are_taken(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PipelineError, match="data: no finished preferences under runs/"):
        main([*FEW, "--model", str(model)])
    for name in ("preferences-001", "preferences-002"):
        write(pairs(), f"runs/{name}/preferences.jsonl")
        for file in ("config.yaml", "run.json", "DONE"):
            Path(f"runs/{name}/{file}").write_text("{}")
    os.utime("runs/preferences-001/DONE", (1, 1))
    assert main([*FEW, "--model", str(model)]) == 0
    assert capsys.readouterr().out == "runs/reward-001/model\n"
    log = Path("runs/reward-001/log.txt").read_text(encoding="utf-8")
    assert "data: runs/preferences-002/preferences.jsonl" in log


def test_bad_rows_options_and_models_are_refused(model: Path) -> None:
    same = [*pairs(8), {"prompt": "a", "chosen": "b", "rejected": "b"}]
    assert "data.jsonl:9: 'chosen' and 'rejected' are the same" in refusal(model, write(same))
    special = [*pairs(8), {"prompt": "a", "chosen": "x<|im_end|>", "rejected": "b"}]
    assert "special tokens in their texts (data.jsonl:9 chosen" in refusal(model, write(special))
    run = reward(model, write([*same, special[-1]]), "--bad-rows", "drop", "--overwrite")
    found = [(row["id"], row["reason"]) for row in lines(run / "dropped.jsonl")]
    assert found == [("data.jsonl:9", "same_answers"), ("data.jsonl:10", "special_token")]
    data = write(pairs(8))
    assert "preferences are conversations" in refusal(model, data, "--format", "flan")
    assert "field 'loss_type' of RewardConfig" in refusal(model, data, "--trainer.loss_type", "x")
    with pytest.raises(PipelineError, match="no finished run of pipeline.reward"):
        Path("half").mkdir()
        Path("half/config.yaml").write_text("{}")
        load("half")
    with pytest.raises(PipelineError, match="it does not end with an answer"):
        load(run).score([talk("x")[:1]])
    with pytest.raises(PipelineError, match="a special token"):
        load(run).score([talk("<|im_end|>")])


def test_an_adapter_goes_on_with_its_own_task(model: Path) -> None:
    first = reward(model, write(pairs()), run="first")
    second = reward(model, write(pairs()), "--adapter", "first", run="second")
    after, before = facts(first)["eval_loss"]["after"], facts(second)["eval_loss"]["before"]
    assert before == pytest.approx(after, abs=1e-3)
