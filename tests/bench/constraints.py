"""What two policies make of the same held-out prompts with constraints: shares satisfied, and the difference.

    HELD=prompts/constraints/held_out_en.jsonl
    python -m pipeline.preferences $HELD --judges checks --model runs/sft-001 --run runs/before
    python -m pipeline.preferences $HELD --judges checks --model runs/dpo-001 --run runs/after
    .venv/bin/python tests/bench/constraints.py runs/before runs/after

Both runs must have answered the same prompts as often. An answer that was dropped (truncated, empty)
satisfies nothing; a repetition of another one counts as that one does. Shares are means over prompts; the
difference is taken prompt by prompt. Intervals are of 95%.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from pipeline.intervals import mean
from pipeline.lines import StoredRows
from pipeline.verify.verifier import parse, verify


def shares(run: Path) -> dict[str, tuple[float, float]]:
    """By prompt: the share of checks passed, and of answers that pass all."""
    found = defaultdict[str, list[tuple[float, bool]]](list)
    verifiers = {}
    for case in StoredRows(run / "answers.jsonl"):
        verifiers[case["id"]] = parse(case["verifier"], case["id"])
        for answer in case["answers"]:
            passed = [check["passed"] for check in answer["checks"]]
            found[case["id"]].append((statistics.fmean(passed), all(passed)))
    for row in StoredRows(run / "dropped.jsonl"):
        if row["unit"] != "answer":
            continue
        prompt = row["id"].rsplit("/", 1)[0]
        if row["reason"] == "near_identical":
            again = verify(verifiers[prompt], row["text"])
            found[prompt].append((again.score, again.all_passed))
        else:
            found[prompt].append((0.0, False))
    return {
        name: (statistics.fmean(a for a, _ in rows), statistics.fmean(b for _, b in rows))
        for name, rows in found.items()
    }


def main() -> None:
    """Print a line for each run and one for the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args()
    before, after = shares(given.before), shares(given.after)
    if set(before) != set(after):
        parser.error("the runs answered other prompts")
    for place, what in enumerate(("checks passed", "answers with all passed")):
        print(f"{what}: before {mean([row[place] for row in before.values()])}")
        print(f"{what}: after  {mean([row[place] for row in after.values()])}")
        print(f"{what}: change {mean([after[name][place] - before[name][place] for name in before])}")


if __name__ == "__main__":
    main()
