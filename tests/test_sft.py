"""`python -m pipeline.sft` from file to model, on a model that trains in milliseconds."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import PipelineError, Stopped
from pipeline.sft import main, trainer_words
from pipeline.train import adapters, trained, tuned_trainer, watch

PAIRS = [("Name a colour.", "Red."), ("Say hello.", "Hello!"), ("说水果。", "苹果。"), ("Count.", "1 2 3")]
TINY = "--max-steps 6 --batch-size 2 --num-answers 2 --max-new-tokens 4 --validation-frac 0.3".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads wait for each other longer than a tiny model computes
    yield
    torch.set_num_threads(threads)


def alpaca(path: Path, n: int = 12, **more: Any) -> str:
    rows = [
        {"instruction": f"{asked} ({i})", "input": "", "output": said, **more}
        for i, (asked, said) in enumerate(PAIRS * (n // len(PAIRS)))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sft(model: Path, *words: str, run: str = "out") -> Path:
    assert main([*TINY, *words, "--model", str(model), "--run", run]) == 0
    return Path(run)


def refusal(model: Path, *words: str) -> str:
    with pytest.raises(PipelineError) as caught:
        sft(model, *words)
    return str(caught.value)


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = [path for path in (run / "model").glob("*.safetensors") if path.stem != "training_state"]
    return load_file(files[0])


def test_a_run_leaves_everything_a_user_looks_for(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sft(model, alpaca(Path("data.jsonl")), "--show-mask", "1")
    shown = capsys.readouterr()
    assert shown.out == "out/model\n"
    assert "Mask audit: 12 rows" in shown.err and "held-out loss:" in shown.err
    names = {path.name for path in run.iterdir()}
    wanted = "DONE config.yaml run.json metrics.jsonl mask_audit.json masks.html model answers.jsonl log.txt"
    assert names >= {*wanted.split(), "loss.svg", "loss.png", "tensorboard"}
    assert "checkpoints" not in names
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if "loss" in row] == [1, 2, 3, 4, 5, 6]
    facts = json.loads((run / "run.json").read_text())
    assert facts["steps"] == 6 and set(facts["eval_loss"]) == {"before", "after"}
    (answers,) = [[json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]]
    assert 1 <= len(answers) <= 2 and set(answers[0]) >= {"messages", "reference", "before", "after"}
    page = (run / "masks.html").read_text()
    assert 'class="t"' in page and "data.jsonl:" in page


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # bf16 also where the CPU only emulates it
def test_the_loss_falls_and_the_saved_model_is_the_trained_one(model: Path, precision: str) -> None:
    words = "--tuning full --learning-rate 0.01 --precision".split()
    run = sft(model, alpaca(Path("data.jsonl")), *words, precision)
    facts = json.loads((run / "run.json").read_text())
    assert facts["eval_loss"]["after"] < facts["eval_loss"]["before"]
    loaded, tokenizer = trained.load(run)
    assert "<|im_start|>" in tokenizer.chat_template
    assert loaded.generation_config.eos_token_id == [tokenizer.eos_token_id]


def test_on_a_cpu_the_vocabulary_is_asked_of_answers_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's head scores the prompts, too; it must not be the one that runs."""

    def refuse(*_: object) -> None:
        raise AssertionError("TRL's head was asked")

    monkeypatch.setattr("trl.kernels.chunked_logprob.ChunkedLogProbFunction.apply", refuse)
    assert (sft(model, alpaca(Path("data.jsonl"))) / "DONE").exists()


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "pissa"])
def test_a_lora_that_does_not_cast_its_input_learns_the_same(
    method: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [alpaca(Path("data.jsonl")), "--tuning", method, "--precision", "bf16", "--learning-rate", "0.01"]
    seen: list[torch.dtype] = []
    monkeypatch.setattr("peft.tuners.lora.LoraLayer._cast_input_dtype", _noting(seen))
    fast = weights(sft(model, *words, run="fast"))
    assert (torch.bfloat16 in seen) == (method != "dora")  # what autocast gives goes in as it is
    monkeypatch.setattr(tuned_trainer, "casting", lambda _, on: nullcontext())
    slow = weights(sft(model, *words, run="slow"))
    assert fast.keys() == slow.keys() and all(torch.equal(fast[name], slow[name]) for name in fast)


def _noting(seen: list[torch.dtype]) -> Any:
    cast = LoraLayer._cast_input_dtype

    def noting(self: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        found = cast(self, x, dtype)
        if torch.is_grad_enabled() and found.dtype != dtype:
            seen.append(found.dtype)
        return found

    return noting


@pytest.mark.parametrize("method", sorted(adapters.METHODS))
def test_the_command_trains_with_every_method(model: Path, method: str) -> None:
    run = sft(model, alpaca(Path("data.jsonl")), "--tuning", method, "--num-answers", "0")
    facts = json.loads((run / "run.json").read_text())
    assert 0 < facts["parameters"]["trained"] <= facts["parameters"]["all"]
    assert json.loads((run / "model" / "tuning.json").read_text())["method"] == method
    assert trained.load(run)[0].tuning.method == method


def test_the_template_is_saved_with_the_model(model: Path) -> None:
    run = sft(model, alpaca(Path("data.jsonl")), "--format", "alpaca")
    asked = [{"role": "user", "content": "Name a colour."}]
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text.endswith("### Instruction:\nName a colour.\n\n### Response:\n")


def test_without_data_the_newest_finished_run_is_taken(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(model).startswith("data: no finished dataset under runs/.")
    for name in ("old", "new"):
        alpaca(Path(f"runs/{name}/kept.jsonl"))
        (Path(f"runs/{name}") / "dataset").mkdir()
        (Path(f"runs/{name}") / "DONE").write_text("x")
    os.utime("runs/old/DONE", (1, 1))
    sft(model)
    assert "data: runs/new/kept.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "p-tuning", "full"])
def test_a_stopped_run_resumes_to_the_same_weights(
    model: Path, method: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = alpaca(Path("data.jsonl"))
    words = ["--tuning", method, "--precision", precision]
    whole = weights(sft(model, data, *words, run="whole"))
    before = watch.Metrics.on_step_end

    def interrupt(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        before(self, args, state, control, **more)
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(watch.Metrics, "on_step_end", interrupt)
    with pytest.raises(Stopped, match="Stopped after step 3. --run cut --resume goes on."):
        sft(model, data, *words, run="cut")
    monkeypatch.setattr(watch.Metrics, "on_step_end", before)
    assert main(["--run", "cut", "--resume"]) == 0
    resumed = weights(Path("cut"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[k], resumed[k]) for k in whole)
    rows = [json.loads(line) for line in Path("cut/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert main(["--run", "cut", "--resume"]) == 0  # finished: says where it is


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("Red <|im_end|> and more", "rows with special tokens in their texts (data.jsonl:1"),
        ("x" * 3000, "would fit all (now 256)"),
    ],
)
def test_the_audit_refuses_before_a_model_is_loaded(
    model: Path, output: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = alpaca(Path("data.jsonl"))
    lines = Path(data).read_text(encoding="utf-8").splitlines()
    row = {**json.loads(lines[0]), "output": output}
    Path(data).write_text("\n".join([json.dumps(row), *lines[1:]]), encoding="utf-8")
    monkeypatch.setattr(adapters, "attach", lambda *args, **more: pytest.fail("a model was loaded"))
    assert said in refusal(model, data)
    assert json.loads(Path("out/mask_audit.json").read_text())["rows"] == 12
    assert not Path("out/DONE").exists()


def test_bad_rows_are_dropped_with_their_reasons_if_asked(model: Path) -> None:
    data = alpaca(Path("data.jsonl"))
    more = ['{"instruction": "Go.", "output": ""}', '{"instruction": "Go.", "output": "<|im_end|>"}']
    with Path(data).open("a", encoding="utf-8") as file:
        file.write("\n".join(more) + "\n")
    assert "data.jsonl:13: what the assistant says in turn 1 is empty" in refusal(model, data)
    run = sft(model, data, "--bad-rows", "drop", "--overwrite")
    dropped = [json.loads(line) for line in (run / "dropped.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in dropped] == [
        ("data.jsonl:13", "unreadable_row"),
        ("data.jsonl:14", "special_token"),
    ]


def test_truncation_within_the_allowed_share_goes_through(model: Path) -> None:
    data = alpaca(Path("data.jsonl"))
    with Path(data).open("a", encoding="utf-8") as file:
        file.write('{"instruction": "Say it.", "output": "' + "long " * 40 + '"}\n')
    assert "1 of 13 answers cut off" in refusal(model, data, "--max-length", "120")
    run = sft(model, data, "--max-length", "120", "--max-truncated-frac", "0.1", "--overwrite")
    assert json.loads((run / "mask_audit.json").read_text())["checks"]["truncated_response"] == 1


def test_rows_with_one_instruction_stay_on_one_side(model: Path) -> None:
    rows = [{"instruction": f"Task {i // 3}", "input": str(i), "output": "x"} for i in range(30)]
    Path("data.json").write_text(json.dumps(rows))
    run = sft(model, "data.json", "--num-answers", "100", "--max-new-tokens", "1")
    answers = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    asked = [row["messages"][0]["content"].split("\n")[0] for row in answers]
    assert asked and all(asked.count(one) == 3 for one in asked)


def test_a_mixture_is_drawn_by_its_weights(model: Path) -> None:
    one, two = alpaca(Path("one.jsonl"), 12), alpaca(Path("two.jsonl"), 24)
    run = sft(model, "--mix", f"{one}=0.75", f"{two}=0.25", "--validation-frac", "0")
    assert json.loads((run / "run.json").read_text())["rows"] == {"train": 16, "validation": 0}
    assert refusal(model, one, "--mix", two).startswith("command line: got one.jsonl beside --mix")


def test_a_share_of_earlier_data_is_replayed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = alpaca(Path("new.jsonl"), 12)
    earlier = [{"instruction": f"Earlier {i}", "input": "", "output": "以前"} for i in range(10)]
    Path("old.json").write_text(json.dumps(earlier))
    words = ["--replay", "old.json", "--validation-frac", "0"]
    run = sft(model, new, *words, "--replay-frac", "0.25")
    assert json.loads((run / "run.json").read_text())["rows"]["train"] == 16  # 4 of 16 are a quarter
    assert "4 rows are replayed" in capsys.readouterr().err
    page = (run / "masks.html").read_text(encoding="utf-8")
    assert len(set(re.findall(r"old\.json\[\d+\]", page))) == 4
    run = sft(model, new, *words, "--replay-frac", "0.9", run="more")
    assert json.loads((run / "run.json").read_text())["rows"]["train"] == 22  # no row comes twice


def test_an_adapter_is_trained_on(model: Path) -> None:
    data = alpaca(Path("data.jsonl"))
    first = sft(model, data, "--tuning", "ia3", run="first")
    second = sft(model, data, "--adapter", "first", run="second")
    was, now = weights(first), weights(second)
    assert was.keys() == now.keys() and any(not torch.equal(was[k], now[k]) for k in was)
    facts = [json.loads(Path(f"{name}/before.json").read_text())["eval_loss"] for name in ("first", "second")]
    after = json.loads(Path("first/run.json").read_text())["eval_loss"]["after"]
    assert facts[1] == pytest.approx(after, abs=1e-4) and facts[1] != facts[0]
    assert json.loads((second / "model" / "tuning.json").read_text())["method"] == "ia3"
    assert "no adapter of a finished run" in refusal(model, data, "--adapter", "nowhere")


def test_merging_gives_the_same_logits_and_chat_answers(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = sft(model, alpaca(Path("data.jsonl")), "--learning-rate", "0.01")
    assert main(["merge", str(run)]) == 0
    ids = torch.tensor([[1, 40, 41, 42]])
    tuned, _ = trained.load(run, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(run / "merged")
    with torch.inference_mode():
        torch.testing.assert_close(tuned.eval()(ids).logits, merged.eval()(ids).logits, atol=1e-4, rtol=1e-4)
    typed = iter(["Hi", "/new", "你好", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr(trained, "_LONGEST", 5)
    assert main(["chat", str(run)]) == 0
    with pytest.raises(PipelineError, match="this is no finished run of pipeline.sft"):
        main(["merge", "."])
    with pytest.raises(PipelineError, match="expected one run directory"):
        main(["chat"])


def test_merging_keeps_the_precision_of_the_base(model: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model).to(torch.bfloat16).save_pretrained("half")
    AutoTokenizer.from_pretrained(model).save_pretrained("half")
    run = sft(Path("half"), alpaca(Path("data.jsonl")))
    assert main(["merge", str(run)]) == 0
    assert AutoModelForCausalLM.from_pretrained(run / "merged").dtype == torch.bfloat16


def test_packed_rows_pass_the_audit_and_train(model: Path) -> None:
    run = sft(model, alpaca(Path("data.jsonl")), "--packing", "on", "--max-length", "256")
    checks = json.loads((run / "mask_audit.json").read_text())["checks"]
    assert not any(checks.values())


def test_early_stopping_keeps_the_best(model: Path) -> None:
    words = ["--early-stopping", "1", "--eval-every", "1", "--learning-rate", "10", "--max-steps", "6"]
    run = sft(model, alpaca(Path("data.jsonl")), *words)
    facts = json.loads((run / "run.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = min(row["eval_loss"] for row in rows if "eval_loss" in row and row["step"] > 0)
    assert facts["steps"] < 6 and facts["eval_loss"]["after"] == pytest.approx(best)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.max_grad_nrm", "1"], "--trainer.max_grad_nrm: unknown field 'max_grad_nrm'"),
        (["--trainer.optim=sgd"], "--trainer.optim: the pipeline sets this field itself. Use --optimizer."),
        (["--trainer", "noise"], "--trainer: got 'noise', expected name=value"),
        (["--tuning", "lorra"], "Did you mean 'lora'?"),
        (["--quantize", "4bit"], "--quantize: got 4bit, but torch sees no GPU"),
        (["--precision", "fp16"], "--precision: got fp16, which a CPU cannot train in"),
    ],
)
def test_wrong_options_are_refused(model: Path, words: list[str], said: str) -> None:
    if torch.cuda.is_available() and words[0] in ("--quantize", "--precision"):
        pytest.skip("a GPU can")
    assert said in refusal(model, alpaca(Path("data.jsonl")), *words)
    assert not Path("out").exists()


def test_fields_of_trl_pass_through_and_are_cast(model: Path) -> None:
    words = "a --trainer.max_grad_norm 5e-1 --seed 1 --trainer.adam_epsilon=1e-6".split()
    words = trainer_words(words)
    assert words == ["a", "--seed", "1", "--trainer", "max_grad_norm=5e-1", "adam_epsilon=1e-6"]
    run = sft(model, alpaca(Path("data.jsonl")), "--trainer.max_grad_norm", "5e-1")
    assert "max_grad_norm=5e-1" in (run / "config.yaml").read_text()
