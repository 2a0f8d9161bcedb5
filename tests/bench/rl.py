"""Seconds a step of GRPO and PPO at equal samples, lengths and KL, with a value model or a head, and others.

    .venv/bin/python tests/bench/rl.py prompts.jsonl --model runs/sft-001 --max-steps 6

Each arm is a run of the command in a process of its own, all with the same prompts, groups, passes and KL
coefficient; the first step, which warms up, is left out. `--rounds` takes the arms in turn. Other options go
to both commands. The last lines are a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ARMS = {
    "grpo": ["pipeline.grpo", "--no-drop-flat"],
    "ppo": ["pipeline.ppo"],
    "ppo, head": ["pipeline.ppo", "--value-tuning", "head"],
    "grpo, transformers": ["pipeline.grpo", "--no-drop-flat", "--rollouts", "transformers"],
}
EQUAL = "--num-generations 8 --num-iterations 1 --beta 0.02 --no-mask-truncated --num-held-out 0".split()


def main() -> None:
    """Run them one after the other; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--max-steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    given, more = parser.parse_known_args()
    seconds: dict[str, list[float]] = {arm: [] for arm in given.arms}
    tokens: dict[str, list[float]] = {arm: [] for arm in given.arms}
    for _ in range(given.rounds):
        for arm in given.arms:
            for row in steps(given, ARMS[arm], more)[1:]:
                seconds[arm].append(row["step_time"])
                tokens[arm].append(row["completions/mean_length"])
            print(arm, [round(value, 1) for value in seconds[arm]], flush=True)
    print("\n| arm | seconds a step | over GRPO's | tokens an answer |\n|---|---|---|---|")
    first = statistics.median(seconds[given.arms[0]])
    for arm in given.arms:
        middle = statistics.median(seconds[arm])
        print(f"| {arm} | {middle:.1f} | {middle / first:.2f} | {statistics.fmean(tokens[arm]):.0f} |")


def steps(given: argparse.Namespace, arm: list[str], more: list[str]) -> list[dict[str, float]]:
    """The metrics of each step of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", arm[0], given.data, *arm[1:], *EQUAL, *more]
        command += ["--max-steps", str(given.max_steps), "--run", f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        rows = map(json.loads, (Path(folder) / "run" / "metrics.jsonl").open(encoding="utf-8"))
        return [row for row in rows if "step_time" in row]


if __name__ == "__main__":
    main()
