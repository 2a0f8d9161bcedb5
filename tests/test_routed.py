"""Several models as one engine: each request goes to the model of its role, answers keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.engines.base import Request, Response
from pipeline.engines.routed import RoutedEngine

WRITER, JUDGE = Request("write"), Request("judge", role="judge")


class Echo:
    """Answers with its name and the number of requests it was given before."""

    batch_size, groups_in_flight, tokens_drawn = 4, 2, 7

    def __init__(self, model: str, *, can_score: bool = True, has_chat: bool = True) -> None:
        self.model, self.can_score, self.has_chat = model, can_score, has_chat
        self.asked: list[Request] = []

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        start = len(self.asked)
        self.asked += requests
        return [Response(f"{self.model} {start + i}", "stop", 1, 1) for i in range(len(requests))]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("wjwjj", ["w 0", "j 0", "w 1", "j 1", "j 2"]),
        ("jw", ["j 0", "w 0"]),
        ("ww", ["w 0", "w 1"]),
        ("j", ["j 0"]),
        ("", []),
    ],
)
def test_each_role_goes_to_its_model_and_the_order_stays(roles, expected):
    writer, judge = Echo("w"), Echo("j")
    requests = [JUDGE if role == "j" else WRITER for role in roles]
    answers = asyncio.run(RoutedEngine(writer, {"judge": judge}).generate(requests))
    assert [a.text for a in answers] == expected
    assert set(writer.asked) <= {WRITER} and set(judge.asked) <= {JUDGE}


@pytest.mark.parametrize(("writer", "judge", "both"), [(1, 1, True), (1, 0, False), (0, 1, False)])
def test_it_scores_only_if_both_models_do(writer, judge, both):
    engine = RoutedEngine(Echo("w", can_score=bool(writer)), {"judge": Echo("j", can_score=bool(judge))})
    assert engine.can_score is both


def test_it_presents_itself_as_the_writer():
    engine = RoutedEngine(Echo("w"), {"judge": Echo("j", has_chat=False)})
    assert (engine.model, engine.batch_size, engine.groups_in_flight, engine.has_chat) == ("w", 4, 2, True)


def test_one_engine_may_have_several_roles_and_another_engine_one():
    writer, other, judge = Echo("w"), Echo("o"), Echo("j")
    engine = RoutedEngine(writer, {"writer-1": other, "writer-2": writer, "judge": judge})
    roles = ["writer", "writer-1", "writer-2", "judge", "writer-1"]
    answers = asyncio.run(engine.generate([Request("x", role=role) for role in roles]))
    assert [a.text for a in answers] == ["w 0", "o 0", "w 1", "j 0", "o 1"]
    assert engine.tokens_drawn == 21  # 7 of each engine, the writer's counted once
