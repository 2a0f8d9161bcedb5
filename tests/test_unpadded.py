"""Padding left out: the same numbers and gradients as with it, from less computing."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_llama
import torch
from transformers import AutoModelForCausalLM

from pipeline.train.unpadded import by_length, compute

LENGTH = 5  # columns of the answers
PROMPTS = [3, 1, 4, 2, 3]  # tokens
ANSWERS = [2, 4, 1, 0, 3]  # the fourth takes no part, and is not computed
SHAPES = {  # what is computed, by the rows at a time: its shape, and the columns of answers in it
    0: [((4, 8), 4)],
    1: [((1, 5), 2), ((1, 5), 4), ((1, 5), 1), ((1, 6), 3)],
    2: [((2, 7), 4), ((2, 7), 3)],
}


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (5, 6 + LENGTH); two columns of prompts and one of answers hold nothing."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(5, 6 + LENGTH, dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        mask[row, 6 - prompt : 6 + answer] = 1
    ids = torch.randint(3, 100, mask.shape, generator=generator)
    return ids * mask, mask


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return AutoModelForCausalLM.from_pretrained(path)


@pytest.mark.parametrize("size", SHAPES)
def test_log_probabilities_and_gradients_are_those_of_the_padded_batch(model: Any, size: int) -> None:
    ids, mask = padded()
    seen = []

    def logps(ids: torch.Tensor, mask: torch.Tensor, length: int) -> list[torch.Tensor]:
        seen.append((tuple(ids.shape), length))
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1]
        found = logits.log_softmax(-1).gather(2, ids[:, -length:, None])[..., 0]
        return [found * mask[:, -length:]]

    def gradient(found: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        found.sum().backward()
        return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])

    used = torch.tensor([0, 1, 2, 4])
    whole = torch.zeros(5, LENGTH).index_copy(0, used, logps(ids[used], mask[used], LENGTH)[0])
    wanted = gradient(whole)
    seen.clear()
    found = compute(logps, ids, mask, LENGTH, size)[0]
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(found), wanted, atol=1e-4, rtol=1e-4)
    assert seen == SHAPES[size]


def test_where_nothing_takes_part_one_row_is_computed_for_its_gradient(model: Any) -> None:
    ids, mask = padded()
    mask[:, 6:] = 0
    weight = torch.ones(1, requires_grad=True)
    shapes = []

    def what(ids: torch.Tensor, mask: torch.Tensor, length: int) -> list[torch.Tensor]:
        shapes.append(tuple(ids.shape))
        return [weight * mask[:, -length:]]

    (found,) = compute(what, ids, mask, LENGTH)
    assert found.shape == (5, LENGTH)
    assert not found.detach().any()
    found.sum().backward()
    assert weight.grad is not None
    assert shapes == [(1, PROMPTS[0] + 1)]


def test_rows_alike_in_length_come_together_and_none_is_lost() -> None:
    ids, mask = padded()
    ids, mask = torch.cat([ids, ids + 1])[:8], torch.cat([mask, mask])[:8]
    batches = [
        {
            "prompt_mask": mask[begin : begin + 4, :6],
            "completion_mask": mask[begin : begin + 4, 6:],
            "completion_ids": ids[begin : begin + 4, 6:],
            "names": [f"row {begin + i}" for i in range(4)],
            "num_items_in_batch": torch.tensor(7),
            "images": None,
        }
        for begin in (0, 4)
    ]
    found = by_length(batches)
    assert [len(one["names"]) for one in found] == [4, 4]
    assert sorted(name for one in found for name in one["names"]) == [f"row {i}" for i in range(8)]
    for one in found:
        assert one["num_items_in_batch"] == 7
        assert one["images"] is None
        for place, name in enumerate(one["names"]):
            row = int(name.split()[1])
            assert torch.equal(one["completion_ids"][place], ids[row, 6:])
    names = [name for one in found for name in one["names"]]
    assert names[0] == "row 3"
    lengths = [int(mask[int(name.split()[1])].sum()) for name in names[1:]]
    assert lengths == sorted(lengths)
