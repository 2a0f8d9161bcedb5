"""`python -m pipeline`: the map of commands, one line each."""

from __future__ import annotations

import ast
from pathlib import Path

SPINE = ("config", "records", "rows", "lines", "rundir", "errors", "ledger", "progress", "intervals")


def commands() -> dict[str, str]:
    """Every command and the first line of its docstring, read without importing anything."""
    found = {}
    here = Path(__file__).parent
    files = {path.stem: path for path in here.glob("[!_]*.py") if path.stem not in SPINE}
    rooms = {path.parent.name: path for path in here.glob("*/__main__.py")}
    for name, path in sorted({**files, **rooms}.items()):
        purpose = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = purpose.split("\n")[0]
    return found


if __name__ == "__main__":
    for name, purpose in commands().items():
        print(f"python -m pipeline.{name:<14} {purpose}")
    print("\nAdd --help to any of them.")
