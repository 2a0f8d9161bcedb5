"""Whatever was opened is closed exactly once, and the counts add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.ledger import Ledger


def test_kept_and_dropped_add_up_and_reasons_come_frequent_first():
    ledger = Ledger("candidate")
    for key in "abcde":
        ledger.open(key)
    ledger.keep("a")
    ledger.drop("b", "screen", "too_short")
    for key in "cde":
        ledger.drop(key, "dedup", "rouge")
    ledger.check()
    assert ledger.summary() == {
        "unit": "candidate",
        "opened": 5,
        "kept": 1,
        "dropped": [
            {"stage": "dedup", "reason": "rouge", "count": 3},
            {"stage": "screen", "reason": "too_short", "count": 1},
        ],
    }


def test_the_same_reason_of_two_stages_is_counted_apart():
    ledger = Ledger("candidate")
    for stage in ("screen", "validate"):
        ledger.open(stage)
        ledger.drop(stage, stage, "empty")
    assert [row["count"] for row in ledger.summary()["dropped"]] == [1, 1]


@pytest.mark.parametrize("close", [lambda x, key: x.keep(key), lambda x, key: x.drop(key, "s", "r")])
def test_closing_what_is_not_open_is_an_error(close):
    ledger = Ledger("instance")
    with pytest.raises(PipelineError, match="instance a was closed twice"):
        close(ledger, "a")
    ledger.open("a")
    close(ledger, "a")
    with pytest.raises(PipelineError, match="instance a was closed twice"):
        close(ledger, "a")
    ledger.check()  # the refused calls changed no count


def test_opening_twice_is_an_error():
    ledger = Ledger("candidate")
    ledger.open("a")
    with pytest.raises(PipelineError, match="candidate a was opened twice"):
        ledger.open("a")
    assert ledger.opened == 1


def test_something_still_open_fails_the_check_with_the_counts():
    ledger = Ledger("candidate")
    for key in "abc":
        ledger.open(key)
    ledger.keep("a")
    with pytest.raises(PipelineError) as caught:
        ledger.check()
    assert "3 candidates opened, 1 kept + 0 dropped, 2 still open" in str(caught.value)


def test_a_count_changed_behind_its_back_fails_the_check():
    ledger = Ledger("candidate")
    ledger.open("a")
    ledger.keep("a")
    ledger.kept += 1
    with pytest.raises(PipelineError, match=r"1 candidates opened, 2 kept \+ 0 dropped, 0 still open"):
        ledger.check()


@given(st.lists(st.sampled_from(["keep", "rouge", "short", "open"])))
def test_the_check_passes_exactly_when_nothing_is_open(fates):
    ledger = Ledger("candidate")
    for i, fate in enumerate(fates):
        ledger.open(str(i))
        if fate == "keep":
            ledger.keep(str(i))
        elif fate != "open":
            ledger.drop(str(i), "stage", fate)
    if "open" in fates:
        with pytest.raises(PipelineError, match=f"{fates.count('open')} still open"):
            ledger.check()
    else:
        ledger.check()
        assert ledger.opened == ledger.kept + ledger.dropped.total() == len(fates)
