"""A finished run of ours wherever a causal language model is asked for: it means its whole model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_llama
import torch
from preference_data import pairs, write
from transformers import AutoModelForCausalLM

from pipeline.engines.models import language_model, language_model_license
from pipeline.errors import PipelineError
from pipeline.reward import main as reward
from pipeline.sft import main as sft
from pipeline.train import trained

FEW = "--max-steps 2 --num-answers 0 --validation-frac 0 --learning-rate 0.01".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained_run(model: Path | str, *words: str, run: str = "first") -> Path:
    rows = [{"instruction": f"Say {i}.", "input": "", "output": "Red."} for i in range(8)]
    assert sft([write(rows), *FEW, *words, "--model", str(model), "--run", run]) == 0
    return Path(run)


def test_a_run_means_its_whole_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained_run(model)
    capsys.readouterr()
    folder = language_model(str(run))
    shown = capsys.readouterr()
    assert folder == "first/merged" and shown.out == ""
    assert shown.err.endswith("first: its whole model is written to first/merged\n")
    ids = torch.tensor([[1, 40, 41, 42]])
    with torch.inference_mode():
        there = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        tuned = trained.load(run, dtype=torch.float32)[0].eval()(ids).logits
        base = AutoModelForCausalLM.from_pretrained(model).eval()(ids).logits
    torch.testing.assert_close(there, tuned, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(there, base, atol=1e-2)
    assert language_model_license("first", folder) == "mit"  # that of its base


def test_it_is_made_once(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained_run(model)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(language_model(str(run)))) for _ in range(3)]
    capsys.readouterr()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["first/merged"] * 3
    assert capsys.readouterr().err.count("its whole model is written to") == 1
    before = (run / "merged" / "model.safetensors").stat().st_mtime_ns
    assert language_model(str(run)) == "first/merged"
    assert (run / "merged" / "model.safetensors").stat().st_mtime_ns == before
    assert sorted(path.name for path in run.glob(".merged*")) == [".merged.lock"]


def test_training_goes_on_from_a_run(model: Path) -> None:
    second = trained_run(trained_run(model), run="second")
    assert trained.base_of(second) == ("first", "first/merged")
    assert language_model_license("second", language_model("second")) == "mit"


def test_a_run_that_is_no_model_is_refused_by_name(model: Path) -> None:
    run = trained_run(model)
    (run / "DONE").unlink()
    with pytest.raises(PipelineError, match=r"model first: the run is not finished. Finish it first \(--run"):
        language_model("first")
    Path("made").mkdir()
    for name in ("config.yaml", "run.json", "DONE"):
        (Path("made") / name).write_text("{}")
    with pytest.raises(
        PipelineError, match="model made: the run trained no model. Name a run of pipeline.sft"
    ):
        language_model("made")
    few = "--max-steps 1 --validation-frac 0 --run scores".split()
    assert reward([write(pairs(8)), *few, "--model", str(model)]) == 0
    with pytest.raises(PipelineError, match="a classifier or a reward model, which does not write"):
        language_model("scores")
    soft = trained_run(model, "--tuning", "prompt", run="soft")
    with pytest.raises(PipelineError, match="merging prompt: its virtual tokens are inputs"):
        language_model(str(soft))
    assert not list(soft.glob(".merged.[!l]*")) and not (soft / "merged").exists()
