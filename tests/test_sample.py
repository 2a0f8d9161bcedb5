"""A steady sample: every item is drawn as often as any other, and a draw hardly depends on the rest."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.stages.sample import SteadySample, stable_hash


def sample_of(texts: list[str]) -> SteadySample:
    sample = SteadySample()
    for text in texts:
        sample.add(text)
    return sample


@pytest.mark.parametrize("word", ["task", "任务"])
def test_every_item_is_drawn_about_as_often(word: str) -> None:
    sample = sample_of([f"{word} {i}" for i in range(20)])
    counts = Counter(i for k in range(2000) for i in sample.draw(f"{k}", 3))
    # each of 20 is among 3 with probability .15: 300 of 2000 draws, standard deviation 16
    assert set(counts) == set(range(20)) and all(230 <= n <= 370 for n in counts.values())


def test_a_draw_has_no_item_twice_and_never_more_than_there_are() -> None:
    sample = sample_of([f"text {i}" for i in range(5)])
    assert sorted(sample.draw("a", 9)) == list(range(5)) and sample_of([]).draw("a", 2) == []
    assert len(set(sample.draw("b", 4))) == 4


def test_the_draw_is_the_same_in_every_process() -> None:
    # by SplitMix64's finaliser in Python's own integers
    def mix(v: int) -> int:
        v = ((v ^ (v >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        v = ((v ^ (v >> 27)) * 0x94D049BB133111EB) % 2**64
        return v ^ (v >> 31)

    key = stable_hash("run 0/en/7")
    wanted = sorted(range(100), key=lambda i: mix(stable_hash(f"text {i}") ^ key))[:3]
    assert wanted == [55, 85, 5]
    assert sample_of([f"text {i}" for i in range(100)]).draw("run 0/en/7", 3) == wanted


def test_it_grows_past_its_first_room() -> None:
    sample = sample_of([f"text {i}" for i in range(1000)])
    assert len(sample) == 1000 and max(i for k in range(300) for i in sample.draw(str(k), 5)) > 900
