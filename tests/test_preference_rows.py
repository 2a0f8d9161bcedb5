"""Rows of preference data in every shape, into one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.format.mixing import split
from pipeline.format.preference_rows import SameAnswers, preferences, rated
from pipeline.records import Preference, Rated
from pipeline.rows import Row, read_rows
from pipeline.train.pairs import asked

DEMO = Path("/work/shared/data/dpo_en_demo.json")
USER = {"role": "user", "content": "你好?"}
GOOD, BAD = {"role": "assistant", "content": "你好!"}, {"role": "assistant", "content": "走开"}
HH = "\n\nHuman: 你好?\n\nAssistant:"  # as Anthropic's data writes it
SYSTEM = {"role": "system", "content": "Be kind."}


def row(fields: dict[str, Any]) -> Row:
    return Row("a.jsonl:3", fields, json.dumps(fields))


def one(fields: dict[str, Any]) -> Preference:
    (found,) = preferences(row(fields))
    return found


def refusal(fields: dict[str, Any], read: Any = preferences) -> str:
    with pytest.raises(PipelineError) as caught:
        list(read(row(fields)))
    assert str(caught.value).startswith("a.jsonl:3")
    return str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},  # TRL, explicit
        {"prompt": " 你好? ", "chosen": "你好!\n", "rejected": "走开"},
        {"prompt": "你好?", "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},  # TRL, implicit
        {"prompt": "你好?", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": []},  # UltraFeedback
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": f"{HH} 你好!", "rejected": f"{HH} 走开"},
        {"prompt": HH, "chosen": "你好!", "rejected": "走开"},
        {  # ShareGPT
            "conversations": [{"from": "human", "value": "你好?"}],
            "chosen": {"from": "gpt", "value": "你好!"},
            "rejected": {"from": "gpt", "value": "走开"},
        },
        {"instruction": "你好?", "input": "", "chosen": "你好!", "rejected": "走开"},  # Alpaca
        {"question": "你好?", "chosen": "你好!", "rejected": "走开"},
    ],
)  # fmt: skip
def test_every_shape_says_the_same(fields: dict[str, Any]) -> None:
    found = one(fields)
    assert (found.prompt, found.chosen, found.rejected) == ((USER,), GOOD, BAD)
    assert found.provenance == {"row": "a.jsonl:3"} and found.margin is None


def test_system_messages_and_earlier_turns_stay() -> None:
    talk = [SYSTEM, USER, GOOD, {"role": "user", "content": "And now?"}]
    for fields in (
        {"prompt": talk, "chosen": [BAD], "rejected": [GOOD]},
        {"chosen": [*talk, BAD], "rejected": [*talk, GOOD]},
        {"prompt": talk[1:], "system": "Be kind.", "chosen": "走开", "rejected": "你好!"},
        {
            "instruction": "And now?",
            "history": [["你好?", "你好!"]],
            "system": "Be kind.",
            "chosen": "走开",
            "rejected": "你好!",
        },
    ):
        found = one(fields)
        assert found.prompt == tuple(talk) and found.chosen == BAD and found.rejected == GOOD
    joined = one({"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"})
    assert joined.prompt == ({"role": "user", "content": "Add.\n\n1 2"},)


def test_scores_margin_and_provenance_are_read() -> None:
    fields = {"prompt": "a", "chosen": "b", "rejected": "c"}
    found = one(
        {**fields, "score_chosen": 8, "score_rejected": 2.5, "margin": 1, "provenance": {"judge": "x"}}
    )
    assert (found.score_chosen, found.score_rejected, found.margin) == (8.0, 2.5, 1.0)
    assert found.provenance == {"judge": "x", "row": "a.jsonl:3"}
    assert one({**fields, "chosen-rating": 4, "rejected-rating": 1}).score_chosen == 4.0
    assert "'margin' is 'big', expected a number" in refusal({**fields, "margin": "big"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "a", "chosen": "b"}, "no 'rejected' (has: prompt, chosen)"),
        ({"chosen": "b", "rejected": "c"}, "there is no prompt"),
        ({"prompt": "a", "chosen": " b", "rejected": "b "}, "'chosen' and 'rejected' are the same"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "'chosen' is empty, expected an answer"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "'chosen' is int, expected a list of turns"),
        ({"prompt": [USER, GOOD], "chosen": [BAD], "rejected": [GOOD]}, "ends with a turn of the assistant"),
        (
            {"prompt": "b", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            "the prompt says 'b', the answers'",
        ),
        ({"chosen": [USER, GOOD], "rejected": "b"}, "one side begins with a question"),
        (
            {"chosen": [USER, GOOD, USER, BAD], "rejected": [USER, BAD, USER, GOOD]},
            "'chosen' has the turns assistant, user, assistant behind the shared prompt, expected one answer",
        ),
        ({"prompt": "a", "completion": "b", "label": True}, "with python -m pipeline.dpo --loss kto"),
        ({"prompt": [{"role": "user", "content": ""}], "chosen": "b", "rejected": "c"}, "in turn 0 is empty"),
    ],
)
def test_bad_rows_are_refused_with_what_to_do(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(fields)


def test_the_same_answer_twice_has_a_reason_of_its_own() -> None:
    with pytest.raises(SameAnswers) as caught:
        one({"prompt": "a", "chosen": "b", "rejected": "b"})
    assert caught.value.reason == "same_answers"


def test_rated_answers_and_pairs_become_single_ones() -> None:
    found = list(rated(row({"prompt": [USER], "completion": [GOOD], "label": True})))
    assert found == [Rated((USER,), GOOD, True, {"row": "a.jsonl:3"})]
    assert list(rated(row({"prompt": "你好?", "completion": "你好!", "label": 1}))) == found
    assert list(rated(row({"messages": [USER, GOOD], "label": True}))) == found
    both = list(rated(row({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]})))
    assert both == [*found, Rated((USER,), BAD, False, {"row": "a.jsonl:3"})]
    said = refusal({"prompt": "a", "completion": "b", "label": "good"}, rated)
    assert "'label' is 'good', expected true or false" in said
    assert "no 'completion'" in refusal({"prompt": "a", "label": True}, rated)


def test_rows_of_one_prompt_stay_on_one_side() -> None:
    rows = [one({"prompt": f"Prompt {i // 3}", "chosen": f"a{i}", "rejected": "b"}) for i in range(60)]
    train, held = split([asked(r) for r in rows], 0.3, 0)
    assert held and not {asked(rows[i]) for i in train} & {asked(rows[i]) for i in held}


def test_a_real_file_loads_as_it_is() -> None:
    if not DEMO.exists():
        pytest.skip("the shared data is not here")
    found = [pair for line in read_rows(DEMO) for pair in preferences(line)]
    assert len(found) == 299 and sum(pair.prompt[0]["role"] == "system" for pair in found) == 80
    assert max(len(pair.prompt) for pair in found) == 13  # multi-turn prompts are kept
