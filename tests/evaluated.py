"""For tests of `python -m pipeline.evaluate`: a model that answers by rule, and held-out rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stub import StubEngine

from pipeline.engines.base import Request, Response
from pipeline.engines.budget import Budget, BudgetedEngine

MATH = {"kind": "math", "answer": "12"}
SHORT = {
    "kind": "constraints",
    "checks": [{"id": "length_constraints:number_words", "relation": "at most", "num_words": 4}],
}


def task(name: str, instruction: str, output: str, tags: str = "", **more: Any) -> dict[str, Any]:
    """A held-out task with one instance."""
    instances = [{"input": "", "output": output}]
    return {
        "id": name,
        "instruction": instruction,
        "instances": instances,
        "language": "zh" if any("\u4e00" <= c <= "\u9fff" for c in instruction) else "en",
        "tags": tags.split(),
        **more,
    }


def tasks() -> list[dict[str, Any]]:
    """Four English and three Chinese tasks: maths, a form, a classification, something open."""
    return [
        task("sum", "What is five plus seven?", "5 + 7 = 12", "math", verifier=MATH),
        task("motto", "Give a motto of at most four words.", "Try again tomorrow.", "form", verifier=SHORT),
        {
            **task("mood", "Is the mood of this line happy or sad?", "", "classification"),
            "instances": [
                {"input": "The sun is out.", "output": "happy"},
                {"input": "Nobody came.", "output": "sad"},
            ],
            "is_classification": True,
        },
        task("rain", "Why does it rain?", "Water in the air cools down and falls as drops.", "reasoning"),
        task("jia", "五加七等于几？", "5＋7＝12", "math", verifier=MATH),
        {
            **task("xin", "这句话说的是晴天还是雨天？", "", "classification"),
            "instances": [
                {"input": "出门别忘了伞。", "output": "雨天"},
                {"input": "太阳真晒。", "output": "晴天"},
            ],
            "is_classification": True,
        },
        task("shi", "用一句话介绍长江的位置。", "长江发源于青藏高原，向东流入东海。", "question_answering"),
    ]  # fmt: skip


def write(rows: Sequence[dict[str, Any]], path: str | Path = "held.jsonl") -> str:
    """A JSONL file of rows; returns its name."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def rows(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def sheet(run: str | Path) -> dict[str, Any]:
    return dict(json.loads((Path(run) / "scores.json").read_text("utf-8")))


def right(request: Request) -> tuple[str, str]:
    """Solves what is in `tasks`."""
    known = {"five": "The answer is 12.", "motto": "Try again tomorrow.", "sun": "happy", "Nobody": "Sad."}
    known |= {"rain": "Water in the air cools down and falls as drops.", "五加七": "答案是12。"}
    known |= {"伞": "雨天", "太阳": "这是晴天。", "长江": "长江发源于青藏高原，向东流入东海。"}
    return next((said for key, said in known.items() if key in request.prompt), "well"), "stop"


def wrong(request: Request) -> tuple[str, str]:
    """Solves nothing, and does it badly in several ways."""
    if "five" in request.prompt:
        return "The answer is 13.", "stop"
    if "motto" in request.prompt:
        return "again and " * 20, "length"
    if "sun" in request.prompt:
        return "Who knows?", "stop"
    return ("The weather is what it is today, I am afraid." if "长江" in request.prompt else "", "stop")


@dataclass
class RuleEngine(StubEngine):
    """Answers by `said`, compares by `verdict` (log-probabilities of A and B), scores by `likely`."""

    said: Callable[[Request], tuple[str, str]] = right
    verdict: Callable[[str], tuple[float, float]] = lambda prompt: (-1.0, -2.0)
    likely: float = -0.5
    model: str = "rule"
    batch_size: int = 4
    groups_in_flight: int = 1
    can_score: bool = True
    has_chat: bool = True
    asked: list[Request] = field(default_factory=list)

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        self.asked += requests
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Response:
        if len(request.choices) == 1:
            return Response("", "score", 9, 0, (self.likely * len(request.choices[0][1]),))
        if len(request.choices) == 2:
            return Response("", "score", 9, 0, self.verdict(request.prompt))
        if request.choices:
            return Response("", "score", 9, 0, (-9.0, -9.0, -9.0, -9.0, -0.1))
        text, reason = self.said(request)
        return Response(text, reason, 9, len(text.split()))


def opens(engine: RuleEngine) -> Callable[..., Any]:
    """In place of `engines.open.open_engine`."""

    @asynccontextmanager
    async def open_engine(options: Any, *other: Any) -> AsyncIterator[BudgetedEngine]:
        yield BudgetedEngine(engine, Budget(options.max_requests, options.max_tokens_total))

    return open_engine
