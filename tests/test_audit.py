"""The mask audit: a crafted data set for each failure, and TRL's own path falling for those it falls for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from pipeline.errors import PipelineError
from pipeline.format.audit import (
    ANSWER,
    BOS,
    CHECKS,
    END,
    EOS,
    LOST,
    NO_TOKEN,
    PAD,
    PROMPT,
    SERVE,
    TRUNCATED,
    Audit,
    audit,
)  # fmt: skip
from pipeline.format.conversations import Conversation
from pipeline.format.templates import Encoded, template_for

PROMPT_IDS, ANSWER_IDS, STOP = [1, 10, 11, 12], [20, 21, 22], 2


def proved(n: int = 3) -> list[Encoded]:
    """Rows that differ by their third token: prompt, answer, end token, line break."""
    rows = []
    for i in range(n):
        ids = [1, 10, 30 + i, 12, *ANSWER_IDS, STOP, 9]
        rows.append(Encoded(f"x:{i + 1}", ids, ((4, 8),)))
    return rows


def as_rows(rows: Sequence[Encoded]) -> list[dict[str, Any]]:
    return [{"input_ids": list(one.ids), "labels": list(one.labels)} for one in rows]


def collate(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    longest = max(len(row["labels"]) for row in rows)
    return {"labels": torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows])}


def failed(rows: list[dict[str, Any]], collator: Any = collate, expected: Any = None) -> dict[str, int]:
    found = audit(expected or proved(), rows, collator, bos=1)
    return {check: count for check, count in found.failures.items() if count}


def test_rows_as_proved_pass_in_any_order_and_the_table_says_so() -> None:
    rows = as_rows(proved())
    found = audit(proved(), rows[::-1], collate, bos=1)
    assert not found.refused and (found.rows, found.tokens, found.trained) == (3, 27, 12)
    found.check()
    assert len(found.table().rows) == len(CHECKS)


def test_packed_rows_are_taken_apart() -> None:
    one, two, three = as_rows(proved())
    packed = {
        "input_ids": one["input_ids"] + two["input_ids"], "labels": one["labels"] + two["labels"],
        "seq_lengths": [9, 9],
    }  # fmt: skip
    assert failed([packed, three]) == {}
    packed["labels"][3] = 12
    assert failed([packed, three]) == {PROMPT: 1}


@pytest.mark.parametrize("at", [0, 2])
def test_each_failure_is_told_from_the_others(at: int) -> None:
    def spoiled(change: Any) -> dict[str, int]:
        rows = as_rows(proved())
        change(rows, rows[at]["input_ids"], rows[at]["labels"])
        return failed(rows)

    def all_masked(rows: Any, ids: Any, labels: Any) -> None:
        labels[:] = [-100] * 9

    def no_end(rows: Any, ids: Any, labels: Any) -> None:
        labels[7] = -100

    def prompt(rows: Any, ids: Any, labels: Any) -> None:
        labels[3] = ids[3]

    def part(rows: Any, ids: Any, labels: Any) -> None:
        labels[5] = -100

    def two_begins(rows: Any, ids: Any, labels: Any) -> None:
        ids.insert(0, 1), labels.insert(0, -100)

    def two_ends(rows: Any, ids: Any, labels: Any) -> None:
        ids.insert(8, STOP), labels.insert(8, STOP)

    def other(rows: Any, ids: Any, labels: Any) -> None:
        ids[1] = 77

    def short(rows: Any, ids: Any, labels: Any) -> None:
        del ids[6:], labels[6:]

    def no_answer(rows: Any, ids: Any, labels: Any) -> None:
        del ids[4:], labels[4:]

    def lost(rows: Any, ids: Any, labels: Any) -> None:
        del rows[at]

    assert spoiled(all_masked) == {NO_TOKEN: 1}
    assert spoiled(no_end) == {END: 1}
    assert spoiled(prompt) == {PROMPT: 1}
    assert spoiled(part) == {ANSWER: 1}
    assert spoiled(two_begins) == {BOS: 1}
    assert spoiled(two_ends) == {EOS: 1}
    assert spoiled(other) == {SERVE: 1}
    assert spoiled(short) == {TRUNCATED: 1}
    assert spoiled(no_answer) == {TRUNCATED: 1, NO_TOKEN: 1}
    assert spoiled(lost) == {LOST: 1}


def test_rows_that_already_begin_or_end_twice_are_found() -> None:
    begins = [Encoded("x:1", [1, 1, 10, 20, STOP], ((3, 5),))]
    assert failed(as_rows(begins), expected=begins) == {BOS: 1}
    ends = [Encoded("x:1", [1, 10, 20, STOP, STOP], ((2, 4),))]
    assert failed(as_rows(ends), expected=ends) == {EOS: 1}


def test_a_collator_that_masks_padding_by_its_token_hides_the_end() -> None:
    """The classic: pad == eos, and labels of pad tokens are set to -100 by value."""

    def by_value(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        labels = collate(rows)["labels"].clone()
        labels[labels == STOP] = -100
        return {"labels": labels}

    assert failed(as_rows(proved()), by_value) == {PAD: 1}


def test_truncated_answers_are_allowed_up_to_a_share_and_the_length_that_fits_is_said() -> None:
    found = Audit(rows=100, longest=700, allowed_truncated=2)
    found.fail(TRUNCATED, "x:1", "700 tokens cut to 512")
    found.fail(TRUNCATED, "x:9")
    found.check(512)
    found.fail(TRUNCATED, "x:11")
    with pytest.raises(PipelineError) as caught:
        found.check(512)
    assert str(caught.value).startswith("mask audit: 3 of 100 answers cut off")
    assert "--max-length 700 would fit all (now 512)" in str(caught.value)


# ---- TRL's own path ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


ROWS = [("Hi", "Hello"), ("What is 2+2?", "4. It is four."), ("再见", "拜拜")]


def by_trl(folder: Path, shape: str, tmp_path: Path, **more: Any) -> dict[str, int]:
    """What the audit says of a data set that TRL itself prepares."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    template, _ = template_for(AutoTokenizer.from_pretrained(folder), "chat")
    said = [({"role": "user", "content": a}, {"role": "assistant", "content": b}) for a, b in ROWS]
    expected = [template.encode(Conversation(f"x:{i}", messages)) for i, messages in enumerate(said)]
    if shape == "messages":
        rows = [{"messages": list(messages)} for messages in said]
    else:
        rows = [{"prompt": [asked], "completion": [answer]} for asked, answer in said]
    trainer = SFTTrainer(
        model=LlamaForCausalLM.from_pretrained(folder),
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            gradient_checkpointing=False,
            **more,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    found = audit(expected, trainer.train_dataset, trainer.data_collator, bos=tokenizer.bos_token_id)
    return {check: count for check, count in found.failures.items() if count}


def test_trl_trains_the_prompts_of_messages(folder: Path, tmp_path: Path) -> None:
    assert by_trl(folder, "messages", tmp_path) == {PROMPT: 3}


def test_trl_trains_the_line_break_behind_the_end_token(folder: Path, tmp_path: Path) -> None:
    """Of conversational prompt-completion rows it trains all that stands behind the prompt."""
    assert by_trl(folder, "prompt-completion", tmp_path) == {PROMPT: 3}


def test_trl_cuts_answers_without_a_word(folder: Path, tmp_path: Path) -> None:
    # with one token a byte the second row is "<s>user\nWhat is 2+2?</s>\n<s>assistant\n" (30 tokens) and more
    found = by_trl(folder, "prompt-completion", tmp_path, max_length=31)
    assert found[TRUNCATED] >= 1
    found = by_trl(folder, "prompt-completion", tmp_path, max_length=20)
    assert found[LOST] >= 1
