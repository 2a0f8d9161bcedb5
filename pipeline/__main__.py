"""`python -m pipeline`: the map of commands, one line each."""

from __future__ import annotations

import ast
from pathlib import Path

SPINE = ("config", "records", "lines", "rundir", "errors", "ledger", "progress")


def commands() -> dict[str, str]:
    """Every command and the first line of its docstring, read without importing anything."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in SPINE and not path.stem.startswith("_"):
            purpose = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem] = purpose.split("\n")[0]
    return found


if __name__ == "__main__":
    for name, purpose in commands().items():
        print(f"python -m pipeline.{name:<14} {purpose}")
    print("\nAdd --help to any of them.")
