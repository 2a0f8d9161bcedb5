"""Every tuning method on the same rows: trained parameters, peak memory, tokens a second, held-out loss.

    .venv/bin/python tests/bench/tuning.py data.json --max-steps 40
    .venv/bin/python tests/bench/tuning.py data.json --methods lora ia3 --learning-rates 1e-4 1e-3

Each method is a run of `python -m pipeline.sft` in a process of its own with the method's own learning rate,
or with each of `--learning-rates`. Other options go to the command (`--batch-size 4`). The last lines are a
table in Markdown. Peak memory is the process's (on a GPU: torch's).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.train.methods import METHODS

HEAD = "| method | learning rate | trained parameters | peak memory | tokens/s | held-out loss |"


def main() -> None:
    """Run them one after the other; print a table."""
    given, more = parsed()
    rows = [HEAD, "|---|---|---|---|---|---|"]
    for method in given.methods:
        for rate in given.learning_rates or [METHODS[method].learning_rate]:
            rows.append(line(method, rate, trained(given, method, rate, more)))
            print(rows[-1], flush=True)
    print("\n".join(["", *rows]))


def trained(given: argparse.Namespace, method: str, rate: float, more: Sequence[str]) -> dict[str, Any]:
    """What run.json says after one run; {} and the error's last line if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline.sft", given.data, "--run", f"{folder}/run"]
        command += ["--tuning", method, "--learning-rate", str(rate), "--max-steps", str(given.max_steps)]
        command += ["--num-answers", "0", *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1]}
        return dict(json.loads((Path(folder) / "run" / "run.json").read_text(encoding="utf-8")))


def line(method: str, rate: float, facts: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in facts:
        return f"| {method} | {rate:g} | {facts['error']} | | | |"
    few, whole = facts["parameters"]["trained"], facts["parameters"]["all"]
    memory = facts["peak_memory_mb"]
    speed = facts["train_tokens"] / facts["train_seconds"]
    loss, peak = facts["eval_loss"], memory.get("gpu", memory["process"]) / 1e3
    return (
        f"| {method} | {rate:g} | {few:,} ({few / whole:.2%}) | {peak:.2f} GB "
        f"| {speed:.0f} | {loss['before']:.3f} → {loss['after']:.3f} |"
    )


def parsed() -> tuple[argparse.Namespace, list[str]]:
    """The options, and those of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="any file that pipeline.sft reads")
    parser.add_argument("--max-steps", type=int, default=40)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[])
    return parser.parse_known_args()


if __name__ == "__main__":
    main()
