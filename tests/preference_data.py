"""Preference rows for tests: whoever is kind was preferred, in both languages, some with a system message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KIND, RUDE = ("zzz kind words", "好好好 说清楚"), ("QQQ SHOUTED", "坏坏坏 乱写")


def pairs(count: int = 16, **more: Any) -> list[dict[str, Any]]:
    """TRL's preference type, conversational, with an explicit prompt."""
    return [
        {
            "prompt": [
                *([{"role": "system", "content": "Be brief."}] if number % 3 == 0 else []),
                {"role": "user", "content": f"Say something, please ({number}) 说"},
            ],
            "chosen": [{"role": "assistant", "content": f"{KIND[number % 2]} {number}"}],
            "rejected": [{"role": "assistant", "content": f"{RUDE[number % 2]}"}],
            **more,
        }
        for number in range(count)
    ]


def unpaired(count: int = 16) -> list[dict[str, Any]]:
    """TRL's unpaired preference type."""
    return [
        {
            "prompt": row["prompt"],
            "completion": row["chosen" if number % 2 else "rejected"],
            "label": number % 2 == 1,
        }
        for number, row in enumerate(pairs(count))
    ]


def write(rows: list[dict[str, Any]], name: str = "data.jsonl") -> str:
    """A JSONL file of rows; returns its name."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(name).write_text(text, encoding="utf-8")
    return name


def facts(run: Path) -> dict[str, Any]:
    """run.json."""
    return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
