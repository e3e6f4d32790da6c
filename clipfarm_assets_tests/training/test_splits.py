"""The rule of each split, and the rules of all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.split_rules import EXCLUDED, PARTS, SPLIT_KINDS, split_verdict
from clipfarm_assets.training.components import Components
from clipfarm_assets.training.splits import SplitUnavailable, split_report
from clipfarm_assets_tests.training.splits_kit import Rows, sizes, spread_rows


def plain_random(n, ratios=(0.70, 0.15, 0.15), seed=42):
    rows = list(np.arange(n))
    np.random.default_rng(seed).shuffle(indices := np.array(rows))
    train, val = int(n * ratios[0]), int(n * ratios[1])
    parts = [""] * n
    for place, row in enumerate(indices):
        parts[row] = "train" if place < train else "val" if place < train + val else "test"
    return parts, indices.tolist()


# --- random


@pytest.mark.parametrize("n", [12, 13, 20, 48, 1001])
@pytest.mark.parametrize("ratios", [(0.70, 0.15, 0.15), (0.5, 0.25, 0.25), (0.1, 0.8, 0.1)])
@pytest.mark.parametrize("seed", [42, 0])
def test_random_is_the_plain_draw(n, ratios, seed):
    found = Rows(n).split("random", ratios=ratios, seed=seed)
    assert found.tolist() == plain_random(n, ratios, seed)[0]
    assert split_report("random", found, ratios, seed).moved == 0


def test_random_of_seed_42_stays_what_it_is():
    """Recorded: snapshots are compared across releases by their test rows."""
    assert "".join(part[:2] for part in Rows(20).split("random")) == (
        "trtevatrvatrtrtrtetrtrtrtrtetrtrtrvatrtr"
    )


@given(st.lists(st.integers(0, 9), min_size=20, max_size=40), st.integers(0, 5))
def test_duplicates_go_to_the_part_of_their_first_row_in_shuffled_order(groups, seed):
    n = len(groups)
    plain, shuffled = plain_random(n, seed=seed)
    home = {}
    for row in shuffled:
        home.setdefault(groups[row], plain[row])
    expected = [home[group] for group in groups]
    rows = Rows(n, duplicate_groups=groups)
    if set(expected) == set(PARTS):
        found = rows.split("random", seed=seed)
        assert found.tolist() == expected
        moved = sum(a != b for a, b in zip(plain, expected, strict=True))
        report = split_report("random", found, seed=seed)
        assert report.moved == moved
        assert report.rows == {part: expected.count(part) for part in PARTS}
    else:
        with pytest.raises(SplitUnavailable, match="would have none of"):
            rows.split("random", seed=seed)


# --- chronological


def test_the_oldest_rows_are_train_and_the_newest_test():
    rng = np.random.default_rng(0)
    order = rng.permutation(100)
    parts = Rows(100).take(order).split("chronological")
    in_time = parts[np.argsort(order)]
    assert in_time.tolist() == ["train"] * 70 + ["val"] * 15 + ["test"] * 15


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        # Boundaries 14 and 17 of 20 rows, inside ties of train and of val.
        ([0] * 13 + [1] * 2 + [2] + [3] * 2 + [4] * 2, [15, 3, 2]),
        ([0] * 14 + [1] * 3 + [2] * 3, [14, 3, 3]),
        # Three moments are just enough, whatever the counts.
        ([0] * 18 + [1, 2], [18, 1, 1]),
        ([0, 1] + [2] * 18, [1, 1, 18]),
        # The tie that should end in train would leave nothing for test.
        ([0] * 5 + [1] * 5 + [2] * 5 + [3] * 5, [10, 5, 5]),
    ],
)
def test_rows_of_one_moment_stay_together(moments, expected):
    captured = np.array(moments).astype("datetime64[D]").astype("datetime64[us]")
    parts = Rows(20, captured_at=captured).split("chronological")
    assert sizes(parts)[:3] == expected
    assert len({(m, p) for m, p in zip(moments, parts, strict=True)}) == len(set(moments))


def test_later_rows_of_a_straddling_group_are_left_out():
    groups = np.arange(20)
    groups[[3, 15, 19]] = 0  # train, val, test
    groups[[14, 18]] = 1  # val, test
    groups[1] = 50
    parts = Rows(20, duplicate_groups=groups).split("chronological")
    expected = ["train"] * 14 + ["val"] * 3 + ["test"] * 3
    for row in (15, 19, 18):
        expected[row] = EXCLUDED
    assert parts.tolist() == expected
    report = split_report("chronological", parts)
    assert (report.rows, report.excluded, report.moved) == (
        {"train": 14, "val": 2, "test": 1},
        3,
        0,
    )


# --- grouped


def test_many_channels_come_near_the_ratios():
    parts = spread_rows(2000, channels=300).split("grouped")
    train, val, test, excluded = sizes(parts)
    assert excluded == 0
    assert abs(train - 1400) < 40
    assert abs(val - 300) < 30
    assert abs(test - 300) < 30


def test_few_uneven_channels_come_near_the_ratios_on_average():
    found = [sizes(spread_rows(seed=k).split("grouped", seed=k))[:3] for k in range(30)]
    assert (np.abs(np.array(found) - [420, 90, 90]).mean(axis=0) < 6).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_channel_with_most_rows_is_train_whatever_is_drawn_first(seed):
    channels = ["big"] * 60 + [f"c{k}" for k in range(40)]
    parts = Rows(100, channel_id=channels).split("grouped", seed=seed)
    assert set(parts[:60]) == {"train"}
    assert sizes(parts) == [70, 15, 15, 0]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("counts", [(4, 4, 4), (10, 1, 1), (2, 9, 2), (1, 1, 2, 20)])
def test_three_channels_are_enough(counts, seed):
    channels = [f"c{k}" for k, rows in enumerate(counts) for _ in range(rows)]
    parts = Rows(len(channels), channel_id=channels).split("grouped", seed=seed)
    assert min(sizes(parts)[:3]) > 0
    assert sizes(parts)[0] == max(sizes(parts))


def test_duplicates_tie_channels_together():
    rows = spread_rows()
    rows.channel_id[:2] = ["one", "other"]
    rows.duplicate_groups[:2] = 10_000
    parts = rows.split("grouped")
    assert parts[0] == parts[1]
    assert split_verdict("grouped", parts=parts, **vars(rows)).holds


def test_clips_without_a_channel_are_not_one_channel():
    parts = Rows(100, channel_id=[""] * 100).split("grouped")
    assert sizes(parts) == [70, 15, 15, 0]


# --- chronological and grouped


def test_kept_rows_come_near_the_ratios_where_channels_post_all_the_time():
    rows = spread_rows(3000, channels=100)
    parts = rows.split("chronological_grouped")
    train, val, test, excluded = sizes(parts)
    kept = train + val + test
    assert kept + excluded == 3000
    assert kept > 3000 / 3
    assert 0.6 < train / kept < 0.85
    assert 0.08 < val / kept < 0.22
    assert 0.08 < test / kept < 0.22


def test_only_rows_outside_their_channels_window_are_left_out():
    rows = spread_rows()
    parts = rows.split("chronological_grouped")
    order = np.argsort(rows.captured_at)
    windows = np.empty(600, dtype="<U8")
    windows[order] = ["train"] * 420 + ["val"] * 90 + ["test"] * 90
    kept = parts != EXCLUDED
    assert (parts[kept] == windows[kept]).all()
    assert not kept.all()
    linked = Components(600)
    linked.join_equal(rows.channel_id)
    linked.join_equal(rows.duplicate_groups)
    for component in np.unique(linked.labels()):
        inside = linked.labels() == component
        assert len(set(windows[inside & kept])) == 1, "it belongs to one part, and loses not all"
        part = windows[inside & kept][0]
        np.testing.assert_array_equal(kept[inside], windows[inside] == part)


def test_channels_of_one_window_lose_nothing():
    channels = [f"c{k // 5}" for k in range(100)]
    parts = Rows(100, channel_id=channels).split("chronological_grouped")
    assert sizes(parts) == [70, 15, 15, 0]


def test_the_last_channel_with_rows_in_a_window_is_kept_for_it():
    """Else b would be train, where it weighs most, a val, and nobody test."""
    channels = ["b"] * 70 + ["a"] * 14 + ["c"] + ["b"] * 14 + ["a"]
    parts = Rows(100, channel_id=channels).split("chronological_grouped")
    assert parts.tolist() == (
        ["train"] * 70 + [EXCLUDED] * 14 + ["val"] + [EXCLUDED] * 14 + ["test"]
    )


def test_the_only_channel_of_the_last_window_is_test():
    channels = ["a"] * 35 + ["b"] * 35 + ["c"] * 15 + ["b"] * 15
    parts = Rows(100, channel_id=channels).split("chronological_grouped")
    assert sizes(parts) == [35, 15, 15, 35]


# --- all kinds


@st.composite
def any_rows(draw):
    n = draw(st.integers(12, 40))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    minutes = np.array(column(st.integers(0, draw(st.sampled_from([1, 4, 1000])))))
    captured = minutes.astype("datetime64[m]").astype("datetime64[us]")
    if draw(st.integers(0, 9)) == 0:
        captured[draw(st.integers(0, n - 1))] = "NaT"
    channels = column(st.integers(0, draw(st.sampled_from([2, 5, 40]))))
    return Rows(
        n,
        captured_at=captured,
        channel_id=["" if c == 0 else f"c{c}" for c in channels],
        duplicate_groups=column(st.integers(0, draw(st.sampled_from([3, 40, 1000])))),
    )


@given(any_rows(), st.integers(0, 3))
def test_every_split_keeps_its_rules_or_says_why_there_is_none(rows, seed):
    splits, reasons = rows.all(seed=seed)
    assert sorted([*splits, *reasons]) == sorted(SPLIT_KINDS)
    for kind, parts in splits.items():
        verdict = split_verdict(kind, parts=parts, **vars(rows))
        assert verdict.holds, verdict.summary()
        report = split_report(kind, parts, seed=seed)
        assert sum(report.rows.values()) + report.excluded == len(parts)
        assert report.excluded == 0 or "chronological" in kind
    for reason in reasons.values():
        assert "split needs" in reason


@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_same_rows_same_split(kind):
    rows = spread_rows()
    np.testing.assert_array_equal(rows.split(kind), rows.split(kind))
    assert rows.split(kind).tolist() == rows.all()[0][kind].tolist()


@pytest.mark.parametrize("kind", ["random", "grouped"])
def test_another_seed_another_split(kind):
    rows = spread_rows()
    assert rows.split(kind, seed=1).tolist() != rows.split(kind, seed=2).tolist()


@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_group_numbers_are_names_only(kind):
    rows = spread_rows()
    parts = rows.split(kind)
    rows.duplicate_groups = rows.duplicate_groups * 10**12 - 5
    np.testing.assert_array_equal(rows.split(kind), parts)
