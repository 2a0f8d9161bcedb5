"""The report page: counts, examples, drops; text from a model is data, never markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.report import main, write_report


def made_run(folder: Path) -> Path:
    """A run directory with one example (English with markup) and two drops (one Chinese)."""
    folder.mkdir()
    record = {"requests": 7, "prompt_tokens": 70, "completion_tokens": 30, "seconds": 2.5}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text("seed: 0\n")
    kept = {"id": "en-1", "instruction": "Say <script>alert(1)</script>.", "input": "", "output": "a < b"}
    drops = [
        {
            "unit": "candidate",
            "id": "zh-1",
            "stage": "screen",
            "reason": "too_short",
            "evidence": "1",
            "instruction": "写诗",
        },
        {
            "unit": "candidate",
            "id": "en-2",
            "stage": "parse",
            "reason": "not_needed",
            "evidence": "",
            "instruction": "Go.",
        },
    ]
    (folder / "kept.jsonl").write_text(json.dumps(kept) + "\n")
    (folder / "dropped.jsonl").write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in drops))
    return folder


def test_the_page_holds_counts_examples_and_drops_in_both_languages(tmp_path: Path) -> None:
    page = write_report(made_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert "1 examples kept, 2 records of drops" in page and "7 requests" in page
    assert "写诗" in page and "too_short" in page
    assert "Go." not in page  # what was merely not needed is counted, not shown
    assert "not_needed" in page


def test_markup_in_a_model_s_text_is_shown_and_not_run(tmp_path: Path) -> None:
    page = write_report(made_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>" not in page
    assert "a &lt; b" in page


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no run directory"):
        main([str(tmp_path)])
    with pytest.raises(PipelineError, match="no run directory given"):
        main([])


def test_the_page_shows_how_diverse_the_examples_are(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    english = {
        "model": "all-MiniLM-L6-v2",
        "num_examples": 9,
        "num_texts": 7,
        "num_compared": 7,
        "seeds": [["seed-3", 5], ["seed-1", 2], ["seed-2", 0]],
        "seeds_covered": 2,
        "even_seeds": 1.8,
        "histogram": [0] * 16 + [2, 4, 1, 0],
        "mean_nearest": 0.873,
        "clusters": [{"size": 7, "key": "en-1", "text": "Compare <b> and <i>."}],
    }
    found = {"en": english, "zh": {"left_out": "the model does not read this language"}}
    (run / "diversity.json").write_text(json.dumps(found), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "9 examples have 7 different tasks" in page and "drawn at random" not in page
    assert "2 of 3 are the nearest seed" in page and "seed-3 (5), seed-1 (2)" in page and "seed-2" not in page
    assert page.count("<rect ") == 20
    assert 'height="100.0"><title>4</title>' in page and 'height="50.0"><title>2</title>' in page
    assert "Compare &lt;b&gt; and &lt;i&gt;." in page and "mean 0.87" in page
    assert "Left out: the model does not read this language." in page


def test_a_run_without_the_numbers_has_no_such_section(tmp_path: Path) -> None:
    assert "Diversity" not in write_report(made_run(tmp_path / "run")).read_text(encoding="utf-8")
