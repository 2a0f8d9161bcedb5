"""What the request cache saves: a run, then the same run with another filter, on the same cache.

    .venv/bin/python tests/bench/again.py --engine openai --model smol --base-url http://127.0.0.1:8000/v1 \\
        --style completion --num-examples 60

Every option is the command's. Printed: for each change, the share of the second run's requests that the cache
answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHANGES = ("", "--max-output 60", "--rouge-threshold 0.6", "--answer-max-tokens 150", "--min-words 6")


def main() -> None:
    """Run all in a directory that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        for change in ("--cache on", *CHANGES):
            run, cache = Path(folder) / "run", Path(folder) / "requests.sqlite"
            command = [sys.executable, "-m", "pipeline.selfinstruct", "--run", str(run), "--overwrite"]
            command += ["--cache", "on", "--cache-file", str(cache), *sys.argv[1:], *change.split()]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            record = json.loads((run / "run.json").read_text(encoding="utf-8"))
            cached, requests = record["cached"], record["requests"]
            name = "first run" if change == "--cache on" else change or "nothing changed"
            share = f"{cached} of {requests} requests from the cache ({cached / requests:.0%})"
            print(f"{name:<24} {share}", flush=True)


if __name__ == "__main__":
    main()
