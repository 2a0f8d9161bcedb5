"""Accuracy, calibration and length buckets of a reward model's margins, against numbers derived by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pipeline.train import calibration


def test_a_tie_counts_as_half() -> None:
    found = calibration.accuracy([1.0, -1.0, 0.0, 2.0])
    assert (found.value, found.count) == (2.5 / 4, 4)


def test_confidence_and_accuracy_are_compared_bin_by_bin() -> None:
    """Margins of +-log 3 mean 75% sure, 0 means 50%.

    Two bins: [0.5, 0.75) holds the tie (sure 0.5, right 0.5), [0.75, 1] four pairs (sure 0.75), three right.
    The expected error is (1 * 0 + 4 * 0) / 5 = 0; with one right of four it is 4 * 0.5 / 5 = 0.4.
    """
    sure = math.log(3) + 1e-9  # on the boundary it would be rounding that decides
    bins = calibration.reliability([0.0, sure, sure, sure, -sure], 2)
    assert [(one.low, one.high, one.accuracy.count) for one in bins] == [(0.5, 0.75, 1), (0.75, 1.0, 4)]
    assert [one.accuracy.value for one in bins] == [0.5, 0.75]
    assert [one.confidence for one in bins] == pytest.approx([0.5, 0.75])
    assert calibration.expected_error(bins) == pytest.approx(0.0, abs=1e-9)
    worse = calibration.reliability([0.0, sure, -sure, -sure, -sure], 2)
    assert calibration.expected_error(worse) == pytest.approx(0.4)
    assert calibration.reliability([1e9, -1e9], 10)[0].confidence == pytest.approx(1.0)


def test_pairs_are_sorted_by_the_difference_of_lengths(tmp_path: Path) -> None:
    buckets = calibration.by_length([1.0, -1.0, 1.0, 1.0], [-200, -200, 5, 500])
    assert [(one.name, one.accuracy.value, one.accuracy.count) for one in buckets] == [
        ("100 shorter or more", 0.5, 2),
        ("over 0 to 30", 1.0, 1),
        ("over 100 longer", 1.0, 1),
    ]
    calibration.draw(calibration.reliability([1.0, -1.0], 10), buckets, tmp_path, "title")
    assert (tmp_path / "calibration.svg").stat().st_size > 1000 and (tmp_path / "calibration.png").exists()


def test_what_is_better_than_chance_is_said() -> None:
    half, most = calibration.accuracy([0.0] * 50), calibration.accuracy([1.0] * 45 + [-1.0] * 5)
    assert calibration.said("accuracy", half, most).endswith("after: above chance")
    assert calibration.said("accuracy", half, half).endswith("after: not to be told from chance")
