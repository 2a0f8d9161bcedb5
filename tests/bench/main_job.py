"""Wall seconds and peak memory of the main job, as a user starts it (the model is converted beforehand).

.venv/bin/python tests/bench/main_job.py [any option of pipeline.selfinstruct]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.engines.models import language_model


def main() -> None:
    """Run the command once in a directory that is thrown away."""
    language_model()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pipeline.selfinstruct",
            "--run",
            str(Path(folder) / "run"),
            *sys.argv[1:],
        ]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{seconds:.0f} s, peak resident memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
