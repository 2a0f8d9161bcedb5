"""`python -m pipeline.dpo` from preferences to a policy, on a model that trains in milliseconds."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from preference_data import facts, lines, pairs, unpaired, write
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.dpo import main
from pipeline.errors import PipelineError, Stopped
from pipeline.format.conversations import Conversation
from pipeline.format.templates import template_for
from pipeline.sft import main as sft
from pipeline.train import adapters, answer_head, pair_trainers, trained, watch
from pipeline.train.dpo_job import ending
from pipeline.train.losses import DPO, KTO, LOSSES
from pipeline.train.methods import METHODS

FEW = "--max-steps 4 --batch-size 2 --gradient-accumulation 1 --num-answers 0 --validation-frac 0.3".split()
QUICK = ("pissa", "prompt", "bitfit")
ON_PAIRS = [name for name, loss in LOSSES.items() if loss.trainer == DPO]


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


def dpo(model: Path | str, *words: str, run: str = "out") -> Path:
    assert main([*FEW, *words, "--model", str(model), "--run", run]) == 0
    return Path(run)


def refusal(model: Path, *words: str) -> str:
    with pytest.raises(PipelineError) as caught:
        dpo(model, *words, "--overwrite")
    return str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_policy_learns_to_prefer_what_was_preferred(
    model: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--learning-rate 0.01 --max-steps 12 --num-answers 2 --max-new-tokens 4 --precision".split()
    run = dpo(model, write(pairs(32)), *words, precision, "--show-mask", "1")
    shown = capsys.readouterr()
    assert shown.out == "out/model\n"
    assert "Mask audit: 64 rows" in shown.err and "reference: the model without its adapter" in shown.err
    assert "tokens chosen and" in shown.err and "held-out reward accuracy: 0.500" in shown.err
    found = facts(run)
    before, after = (found["reward_accuracy"][when] for when in ("before", "after"))
    assert before["value"] == 0.5 and after["value"] == 1.0 and after["low"] > 0.5
    assert found["eval_loss"]["before"] == pytest.approx(0.6931, abs=1e-4)  # -log sigmoid(0)
    assert found["eval_loss"]["after"] < 0.5 and found["margin"]["after"] > 0
    assert found["lengths"]["chosen_longer_frac"] == 1.0 and found["reference"] == "base"
    steps = lines(run / "metrics.jsonl")
    assert any("rewards/margins" in row for row in steps)
    assert any("eval_rewards/accuracies" in row for row in steps)
    names = {path.name for path in run.iterdir()}
    assert names >= {"DONE", "rewards.svg", "rewards.png", "loss.svg", "mask_audit.json", "masks.html"}
    answers = lines(run / "answers.jsonl")
    assert len(answers) == 2 and set(answers[0]) >= {"messages", "reference", "before", "after"}
    assert json.loads((run / "model" / "generation_config.json").read_text())["eos_token_id"]


def test_answers_that_no_longer_end_are_told_of_with_a_remedy() -> None:
    fewer = {"before": 10, "after": 7, "of": 10}
    (said,) = ending(fewer, ["sigmoid"])
    assert '--loss sigmoid sft --trainer.loss_weights "[1.0, 0.5]"' in said
    assert not ending({**fewer, "after": 10}, ["sigmoid"])
    assert (
        not ending(fewer, ["sigmoid", "sft"]) and not ending(fewer, ["kto"]) and not ending(fewer, ["orpo"])
    )


def test_the_loss_weights_of_the_remedy_are_taken(model: Path) -> None:
    words = ["--loss", "sigmoid", "sft", "--trainer.loss_weights", "[1.0, 0.5]"]
    found = facts(dpo(model, write(pairs(8)), *words))
    assert found["eval_loss"]["before"] > 0.7  # -log sigmoid(0), and half of the answers' own loss


def test_the_table_has_every_loss_of_the_installed_trl() -> None:
    import inspect

    from trl import DPOTrainer, KTOTrainer

    text = inspect.getsource(DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', text)) == set(ON_PAIRS)
    text = inspect.getsource(KTOTrainer._compute_loss)
    unpaired_losses = {name for name, loss in LOSSES.items() if loss.trainer == KTO}
    assert set(re.findall(r'loss_type == "(\w+)"', text)) == unpaired_losses


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(model: Path, loss: str) -> None:
    run = dpo(model, write(pairs(8)), "--loss", loss, "--tuning", "full", "--learning-rate", "0.0005")
    found = facts(run)
    rows = [row for row in lines(run / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 4 and rows[0]["grad_norm"] > 0
    assert found["train_tokens"] > 0
    if loss not in ("ipo", "sppo_hard"):  # these aim at a distance that so few steps may overshoot
        assert found["eval_loss"]["after"] < found["eval_loss"]["before"]


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in METHODS]
)
def test_every_tuning_method_trains_and_comes_back(model: Path, method: str) -> None:
    run = dpo(model, write(pairs(8)), "--tuning", method, "--precision", "fp32")
    assert trained.load(run)[0].tuning.method == method
    assert facts(run)["reward_accuracy"]["after"]["count"] > 0


def _logps(network: Any, ids: list[int], begin: int) -> float:
    """The log-probability of the tokens from `begin` on, computed the plain way."""
    with torch.inference_mode():
        rows = network(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return float(sum(rows[at - 1, ids[at]] for at in range(begin, len(ids))))


@pytest.mark.parametrize("words", [["--tuning", "lora"], ["--tuning", "full"], ["--tuning", "prompt"]])
def test_the_reference_is_the_base(model: Path, words: list[str]) -> None:
    """Its log-probabilities are those of the plain base on the answer and its end token."""
    rows = pairs(8)
    run = dpo(model, write(rows), *words, "--precision", "fp32", "--validation-frac", "0")
    stored = json.loads((run / "reference.json").read_text())["train"]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    template, _ = template_for(AutoTokenizer.from_pretrained(model), "chat")
    for column, side in (("ref_chosen_logps", "chosen"), ("ref_rejected_logps", "rejected")):
        for number, row in enumerate(rows):
            one = template.encode(Conversation("", (*row["prompt"], *row[side])))
            begin, end = one.spans[-1]
            wanted = _logps(base, one.ids[:end], begin)
            assert stored[column][number] == pytest.approx(wanted, abs=1e-3)


def test_the_reference_is_the_same_run_at_every_step(model: Path) -> None:
    data = write(pairs())
    for method in ("lora", "full"):
        words = ["--tuning", method, "--precision", "fp32", "--learning-rate", "0.003"]
        once = dpo(model, data, *words, run=f"{method}-once")
        live = dpo(model, data, *words, "--no-precompute-reference", run=f"{method}-live")
        assert not (live / "reference.json").exists()
        for one, other in zip(*(lines(run / "metrics.jsonl") for run in (once, live)), strict=True):
            if "loss" in one:
                assert one["loss"] == pytest.approx(other["loss"], abs=1e-3)
        assert facts(once)["eval_loss"]["after"] == pytest.approx(facts(live)["eval_loss"]["after"], abs=1e-3)


def test_without_a_reference_the_answers_alone_are_compared(model: Path) -> None:
    run = dpo(model, write(pairs()), "--reference-free")
    assert set(json.loads((run / "reference.json").read_text())["train"]["ref_chosen_logps"]) == {0.0}
    assert facts(run)["reference"] == "none"
    assert facts(run)["margin"]["before"] != 0


def test_an_adapter_goes_on_from_itself_as_reference(model: Path) -> None:
    data = write(pairs())
    dpo(model, data, "--learning-rate", "0.01", run="first")
    second = dpo(model, data, "--adapter", "first", run="second")
    found = facts(second)
    assert found["reference"] == "start" and found["reward_accuracy"]["before"]["value"] == 0.5
    said = refusal(model, data, "--adapter", "first", "--no-precompute-reference")
    assert "the policy of the beginning is kept nowhere" in said


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        (["--tuning", "lora"], "fp32"),
        (["--tuning", "full"], "bf16"),
        pytest.param(["--loss", "kto"], "fp32", marks=pytest.mark.slow),
        pytest.param(["--loss", "orpo"], "bf16", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(
    model: Path, words: list[str], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, words = write(pairs()), [*words, "--precision", precision]
    whole = weights(dpo(model, data, *words, run="whole"))
    before = watch.Metrics.on_step_end

    def interrupt(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        before(self, args, state, control, **more)
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(watch.Metrics, "on_step_end", interrupt)
    with pytest.raises(Stopped, match="Stopped after step 2. --run cut --resume goes on."):
        dpo(model, data, *words, run="cut")
    monkeypatch.setattr(watch.Metrics, "on_step_end", before)
    # what is known of the reference is not computed again
    monkeypatch.setattr(pair_trainers.ReferencedTrainer, "_log_probabilities", None)
    assert main(["--run", "cut", "--resume"]) == 0
    resumed = weights(Path("cut"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert [row["step"] for row in lines(Path("cut/metrics.jsonl")) if "loss" in row] == [1, 2, 3, 4]


def weights(run: Path) -> dict[str, torch.Tensor]:
    (file,) = [path for path in (run / "model").glob("*.safetensors") if path.stem != "training_state"]
    return load_file(file)


def test_rated_answers_train_with_kto(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = dpo(model, write(unpaired()), "--loss", "kto")
    assert "8 wanted and 8 unwanted answers" in capsys.readouterr().err
    found = facts(run)
    assert found["wanted"] == 8 and "reward_accuracy" not in found and found["eval_loss"]["after"]
    assert json.loads((run / "mask_audit.json").read_text())["rows"] == 16
    assert "with python -m pipeline.dpo --loss kto" in refusal(model, write(unpaired()))


# ---- the audit ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": "bad <|im_end|> and more"}, "special tokens in their texts (data.jsonl:1 rejected"),
        ({"chosen": "x" * 3000}, "would fit all (now 256)"),
        ({"rejected": "x" * 3000}, "answers cut off at the longest length (data.jsonl:1 rejected"),
    ],
)
def test_the_audit_refuses_either_side_before_a_model_is_loaded(
    model: Path, change: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs()
    rows[0] |= {name: [{"role": "assistant", "content": text}] for name, text in change.items()}
    monkeypatch.setattr(adapters, "attach", lambda *args, **more: pytest.fail("a model was loaded"))
    assert said in refusal(model, write(rows))
    assert not Path("out/DONE").exists() and Path("out/mask_audit.json").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lambda row: {**row, "chosen_ids": row["chosen_ids"][:-1]}, "answers cut off at the longest length"),
        (lambda row: {**row, "rejected_ids": [*row["rejected_ids"], row["rejected_ids"][-1]]}, "end twice"),
        (lambda row: {**row, "prompt_ids": [1, *row["prompt_ids"]]}, "rows with other tokens than an engine"),
        (
            lambda row: {
                **row,
                "chosen_ids": [row["prompt_ids"][-1], *row["chosen_ids"]],
                "rejected_ids": [row["prompt_ids"][-1], *row["rejected_ids"]],
                "prompt_ids": row["prompt_ids"][:-1],
            },
            "rows with a trained prompt token",
        ),
    ],
)  # fmt: skip
def test_the_audit_sees_what_the_trainer_would_change(
    model: Path, row: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when TRL tokenised the rows itself: other tokens, cut ones, another mask."""
    monkeypatch.setattr(
        pair_trainers.PairTrainer,
        "_prepare_dataset",
        lambda self, dataset, *_: dataset.map(row),
        raising=True,
    )
    assert said in refusal(model, write(pairs()))


def test_trl_itself_would_train_a_line_break_behind_the_end(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `_prepare_dataset` of TRL makes of the same conversations is no longer what was proved."""
    from datasets import Dataset

    prepare = pair_trainers.DPOTrainer._prepare_dataset

    def trls(self: Any, dataset: Any, *more: Any) -> Any:
        return prepare(self, Dataset.from_list(pairs()), *more)

    monkeypatch.setattr(pair_trainers.PairTrainer, "_prepare_dataset", trls)
    assert "mask audit: " in refusal(model, write(pairs()), "--validation-frac", "0")


def test_answers_may_be_cut_within_the_allowed_share(model: Path) -> None:
    rows = pairs()
    for number, side in ((0, "chosen"), (1, "rejected")):
        rows[number][side] = [{"role": "assistant", "content": "long " * 60}]
    rows[2]["prompt"] = [{"role": "user", "content": "long " * 60}]
    rows[3] |= {
        side: [{"role": "assistant", "content": "long " * 60 + side}] for side in ("chosen", "rejected")
    }
    run = dpo(model, write(rows), "--max-truncated-frac", "0.3")
    assert json.loads((run / "mask_audit.json").read_text())["checks"]["truncated_response"] == 6
    found = {row["id"]: row["reason"] for row in lines(run / "dropped.jsonl")}
    assert found == {"data.jsonl:4": "same_answers"}
    assert sum(facts(run)["rows"].values()) == 15
    end = AutoTokenizer.from_pretrained(model).eos_token_id  # and no token at which an answer was cut
    assert json.loads((run / "model" / "generation_config.json").read_text())["eos_token_id"] == [end]


# ---- options, defaults, runs ----


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loss", "sigmoyd"], "Did you mean 'sigmoid'?"),
        (["--loss", "sigmoid", "kto"], "kto stands alone"),
        (["--loss", "sigmoid", "sigmoid"], "Name each once"),
        (["--label-smoothing", "0.1"], "--loss sigmoid does not read"),
        (["--loss", "robust", "--label-smoothing", "0.5"], "expected less than 0.5"),
        (["--loss", "apo_zero", "--reference-free"], "apo_zero compares each answer with the reference"),
        (["--loss", "orpo", "--reference-free"], "orpo has no reference anyway"),
        (["--tuning", "pissa", "--no-precompute-reference"], "kept nowhere"),
        (["--reference-free", "--no-precompute-reference"], "there is no reference"),
        (["--trainer.beta", "1"], "--trainer.beta: the pipeline sets this field itself. Use --beta."),
        (["--trainer.betta", "1"], "unknown field 'betta' of DPOConfig"),
        (["--format", "self-instruct"], "preferences are conversations"),
    ],
)
def test_wrong_options_are_refused(model: Path, words: list[str], said: str) -> None:
    assert said in refusal(model, write(pairs(8)), *words)
    assert not Path("out").exists()


def test_several_losses_are_summed_with_weights(model: Path) -> None:
    data = write(pairs())
    words = ["--precision", "fp32"]
    one = facts(dpo(model, data, *words, run="a"))["eval_loss"]["before"]
    other = facts(dpo(model, data, *words, "--loss", "sft", run="b"))["eval_loss"]["before"]
    weighed = ["--loss", "sigmoid", "sft", "--trainer.loss_weights", "[1.0, 0.5]"]
    both = facts(dpo(model, data, *words, *weighed, run="c"))["eval_loss"]["before"]
    assert both == pytest.approx(one + 0.5 * other, rel=1e-4)


def test_the_newest_sft_run_and_the_newest_preferences_are_taken(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": f"Say {i}.", "input": "", "output": "x"} for i in range(8)]
    few = "--max-steps 1 --num-answers 0 --validation-frac 0 --learning-rate 0.01".split()
    assert sft([write(rows, "sft.jsonl"), *few, "--model", str(model)]) == 0
    assert sft(["sft.jsonl", *few, "--model", str(model), "--tuning", "prompt"]) == 0  # cannot be merged
    write(pairs(), "runs/preferences-001/preferences.jsonl")
    for file in ("config.yaml", "run.json", "DONE"):
        Path(f"runs/preferences-001/{file}").write_text("{}")
    assert main(FEW) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("runs/dpo-001/model\n")
    assert "policy: runs/sft-001 (runs/sft-001/merged)" in shown.err
    assert "data: runs/preferences-001/preferences.jsonl" in shown.err
    assert facts(Path("runs/dpo-001"))["base"] == "runs/sft-001/merged"
    assert "model: runs/sft-001" in Path("runs/dpo-001/config.yaml").read_text()
    # and a run of ours is a model: the next policy starts from it
    again = dpo("runs/dpo-001", "runs/preferences-001", run="again")
    assert facts(again)["base"] == "runs/dpo-001/merged"
    assert main(["merge", "again"]) == 0
    with pytest.raises(PipelineError, match="the run made no preferences.jsonl"):
        dpo("runs/dpo-001", "runs/sft-001", run="wrong")


def test_the_head_of_answers_equals_trls(model: Path) -> None:
    """Log-probabilities, metrics and gradients of rows with more and fewer answer tokens, in chunks.

    At a temperature, and with a gradient of the entropy, as GRPO and PPO want it.
    """
    from trl.trainer.utils import add_fused_lm_head

    names = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
    ids = torch.randint(0, 290, (3, 40), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :30], labels[1, :7], labels[2, 20:] = -100, -100, -100
    found = []
    for ours in (False, True):
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        add_fused_lm_head(network, temperature=0.7, outputs=names)
        if ours:
            assert answer_head.score_answers_only(network, names, temperature=0.7, learn_entropy=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answer_head, "_CHUNK", 16)
            out = network(ids, labels=labels, fused_lm_head=True)
            (out.log_probs.sum() - 0.3 * out.entropy.sum()).backward()
        gradients = [p.grad for p in network.parameters()]
        assert network(ids, labels=labels).logits.shape == (3, 40, tiny_llama.VOCAB)
        found.append([*(out[name].float() for name in names), out.loss, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
