"""What can't be split, and what is refused."""

import numpy as np
import pytest

from clipfarm_assets.contracts.split_rules import SPLIT_KINDS
from clipfarm_assets.training.splits import BadSplitRatios, TooFewRows
from clipfarm_assets_tests.training.splits_kit import Rows, sizes

# --- what can't be split


def test_one_channel_leaves_the_other_kinds():
    splits, reasons = Rows(40, channel_id=["only"] * 40).all()
    assert sorted(splits) == ["chronological", "random"]
    assert reasons["grouped"] == (
        "a grouped split needs at least 3 channels that share no duplicates: found 1"
    )
    assert "found 1" in reasons["chronological_grouped"]


@pytest.mark.parametrize("moments", [1, 2])
def test_too_few_moments_leave_the_other_kinds(moments):
    captured = (np.arange(40) % moments).astype("datetime64[D]").astype("datetime64[us]")
    splits, reasons = Rows(40, captured_at=captured).all()
    assert sorted(splits) == ["grouped", "random"]
    assert reasons["chronological"] == (
        f"a chronological split needs rows captured at 3 moments or more: found {moments}"
    )


def test_unknown_times_leave_the_other_kinds():
    captured = np.arange(40).astype("datetime64[D]").astype("datetime64[us]")
    captured[[3, 7]] = "NaT"
    splits, reasons = Rows(40, captured_at=captured).all()
    assert sorted(splits) == ["grouped", "random"]
    assert "2 of 40 have none" in reasons["chronological_grouped"]


def test_channels_that_all_begin_in_train_may_leave_too_few_for_three_parts():
    channels = ["a", "b", "c"] * 13 + ["a"]
    captured = np.arange(40).astype("datetime64[D]").astype("datetime64[us]")
    rows = Rows(40, captured_at=captured, channel_id=channels)
    rows.channel_id[28:] = "a"
    splits, reasons = rows.all()
    assert "chronological_grouped" not in splits
    assert reasons["chronological_grouped"].startswith(
        "a chronological_grouped split needs rows in every part: "
    )


def test_duplicates_of_each_other_make_no_split():
    splits, reasons = Rows(40, duplicate_groups=[0] * 40).all()
    assert not splits
    assert "val and test would have none of 40" in reasons["chronological"]


# --- what is refused


def test_fewer_than_twelve_rows_are_refused():
    assert set(Rows(12).all()[0]) == set(SPLIT_KINDS)
    for n in (0, 1, 11):
        with pytest.raises(TooFewRows, match=f"at least 12 rows: found {n};"):
            Rows(n).all()


@pytest.mark.parametrize(
    "ratios",
    [
        (0.7, 0.3),
        (0.7, 0.1, 0.1, 0.1),
        (0.7, 0.15, 0.16),
        (0.85, 0.15, 0.0),
        (1.15, 0.15, -0.3),
        (float("nan"), 0.5, 0.5),
        (float("inf"), 0.5, 0.5),
        ("most", "some", "rest"),
        (0.7, 0.15, 0.15 + 2e-9),
        (),
        None,
    ],
)
def test_ratios_that_are_none_are_refused(ratios):
    with pytest.raises(BadSplitRatios, match=r"three positive numbers.*found"):
        Rows(40).all(ratios=ratios)


def test_ratios_that_leave_a_part_empty_are_refused():
    with pytest.raises(BadSplitRatios, match="of 12 rows give train 10, val 0, test 2"):
        Rows(12).all(ratios=(0.9, 0.05, 0.05))
    assert sizes(Rows(40).split("random", ratios=(0.9, 0.05, 0.05)))[:3] == [36, 2, 2]


def test_rounding_of_the_ratios_is_forgiven():
    third = 1 / 3
    assert Rows(30).split("random", ratios=(third, third, 1 - 2 * third)).size == 30


def test_a_clip_that_is_there_twice_is_refused():
    rows = Rows(20)
    rows.video_ids[5] = "v0"
    with pytest.raises(ValueError, match="every clip once: 1 rows repeat the id of another"):
        rows.all()


def test_columns_of_other_lengths_and_unknown_kinds_are_refused():
    rows = Rows(20)
    rows.channel_id = rows.channel_id[:-1]
    with pytest.raises(ValueError, match="20 ids, 20 times, 19 channels and 20 group numbers"):
        rows.all()
    with pytest.raises(ValueError, match="unknown split 'stratified'"):
        Rows(20).split("stratified")
