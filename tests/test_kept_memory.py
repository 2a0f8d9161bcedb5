"""Training on a CPU keeps the memory that it frees."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
FAULTS = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from pipeline.train import hardware
    hardware.keep_memory()
def allocated():
    one, other = torch.empty(2**24).fill_(1), torch.empty(2**23).fill_(1)  # 64 and 32 MiB
allocated()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    allocated()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


TRIMMED = """
import torch
from pipeline.train import hardware
def pages():
    return int(open("/proc/self/statm").read().split()[1])
hardware.keep_memory()
big, small = torch.empty(2**26).fill_(1), torch.empty(2**12).fill_(1)  # 256 MiB, with something behind it
del big
before = pages()
hardware.trim_memory()
print(before - pages())
"""
ONLY_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")


@ONLY_GLIBC
def test_what_is_kept_can_be_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRIMMED], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * resource.getpagesize() > 200 * 2**20


def test_it_is_given_back_three_times_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.train import watch

    now, trimmed = [100.0], []
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch.hardware, "trim_memory", lambda: trimmed.append(now[0]))
    trim = watch.Trim()
    for second in range(100, 170, 3):
        now[0] = float(second)
        trim.on_step_end(None, None, None)
    assert trimmed == [121.0, 142.0, 163.0]


@ONLY_GLIBC
def test_freed_memory_is_used_again() -> None:
    found = {}
    for arm in ("given back", "kept"):
        command = [sys.executable, "-c", FAULTS, arm]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
        found[arm] = int(done.stdout)
    pages = 10 * 96 * 2**20 // resource.getpagesize()
    assert found["kept"] < pages / 20 < pages / 3 < found["given back"], found


def test_commands_that_train_on_a_cpu_ask_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import tiny_llama

    from pipeline import sft
    from pipeline.train import hardware

    asked: list[bool] = []
    monkeypatch.setattr(hardware, "keep_memory", lambda: asked.append(True))
    monkeypatch.chdir(tmp_path)
    tiny_llama.save(tmp_path / "model")
    rows = "".join(f'{{"instruction": "Say {i}.", "input": "", "output": "{i}"}}\n' for i in range(12))
    Path("rows.jsonl").write_text(rows)
    words = "rows.jsonl --model model --max-steps 1 --batch-size 2 --run out".split()
    assert sft.main(words) == 0 and asked == [True]
