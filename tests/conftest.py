"""Fixtures that several test files share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scripted

from pipeline.errors import run_command
from pipeline.selfinstruct import main
from pipeline.stages import dry_run, generate


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Callable[..., scripted.Ended]:
    """The command with the scripted engine, in this process and in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for module in (generate, dry_run):
        monkeypatch.setattr(module, "open_engine", scripted.open_engine)

    def run(*args: object) -> scripted.Ended:
        monkeypatch.setattr(sys, "argv", ["selfinstruct", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        out, err = capfd.readouterr()
        return scripted.Ended(int(ended.value.code or 0), out, err)

    return run
