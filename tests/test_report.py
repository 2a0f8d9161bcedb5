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
