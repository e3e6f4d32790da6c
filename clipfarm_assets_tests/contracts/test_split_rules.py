import numpy as np
import pytest

from clipfarm_assets.contracts import split_rules
from clipfarm_assets.contracts.split_rules import (
    PARTS,
    SPLIT_KINDS,
    SplitLeakage,
    assert_split_holds,
    split_verdict,
)

PARTS_OF_SIX = np.array(["train", "train", "train", "val", "test", "excluded"])


def good(**changed):
    rows = {
        "parts": PARTS_OF_SIX,
        "video_ids": np.array(list("abcdef")),
        "captured_at": np.arange(6).astype("datetime64[D]").astype("datetime64[us]"),
        "channel_id": np.array(["x", "x", "", "y", "", "x"]),
        "duplicate_groups": np.array([0, 0, 1, 2, 3, 0]),
    }
    return rows | changed


def told(verdict):
    return [str(finding) for finding in verdict.findings]


@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_a_good_split_holds(kind):
    verdict = split_verdict(kind, **good())
    assert verdict.holds
    assert verdict.examined == 6
    assert verdict.facts["train"] == 3
    assert verdict.facts["excluded"] == 1
    assert_split_holds(kind, verdict)


BREACHES = {
    "video": ({"video_ids": np.array(list("abcade"))}, "video a: is in train and val", SPLIT_KINDS),
    "duplicates": (
        {"duplicate_groups": np.array([0, 1, 2, 3, 1, 4])},
        "duplicate group 1: is in train and test",
        SPLIT_KINDS,
    ),
    "channel": (
        {"channel_id": np.array(["x", "y", "", "y", "y", "x"])},
        "channel y: is in train and val and test",
        ("grouped", "chronological_grouped"),
    ),
    "time": (
        {"captured_at": np.array([0, 9, 8, 7, 10, 0]).astype("datetime64[D]")},
        "train: 2 rows were captured after the first val row (1970-01-08)",
        ("chronological", "chronological_grouped"),
    ),
    "empty part": (
        {"parts": np.array(["train", "train", "train", "test", "test", "excluded"])},
        "val: has no rows",
        SPLIT_KINDS,
    ),
    "unknown mark": (
        {"parts": np.array(["train", "train", "trian", "val", "test", "excluded"])},
        "'trian': is no mark of a part: expected one of train, val, test, excluded",
        SPLIT_KINDS,
    ),
}


@pytest.mark.parametrize("kind", SPLIT_KINDS)
@pytest.mark.parametrize("breach", BREACHES)
def test_each_rule_is_held_where_it_applies_and_only_there(breach, kind):
    changed, finding, kinds = BREACHES[breach]
    assert told(split_verdict(kind, **good(**changed))) == ([finding] if kind in kinds else [])


def test_a_breach_is_refused_with_one_sentence():
    verdict = split_verdict("random", **good(video_ids=np.array(list("abcade"))))
    with pytest.raises(SplitLeakage, match=r"the random split .*video a: is in train and val; ass"):
        assert_split_holds("random", verdict)


def test_rows_of_one_moment_may_lie_on_both_sides():
    same = np.zeros(6, dtype="datetime64[us]")
    assert split_rules.chronology_holds(same, PARTS_OF_SIX).holds


def test_val_after_test_is_found():
    times = np.array([0, 1, 2, 5, 4, 9]).astype("datetime64[D]")
    verdict = split_rules.chronology_holds(times, PARTS_OF_SIX)
    assert told(verdict) == ["val: 1 rows were captured after the first test row (1970-01-05)"]


def test_a_row_without_a_time_is_found_and_the_others_are_still_compared():
    times = np.array(["NaT", "1970-01-09", "1970-01-02", "1970-01-05", "1970-01-10", "NaT"])
    verdict = split_rules.chronology_holds(times.astype("datetime64[us]"), PARTS_OF_SIX)
    assert told(verdict) == [
        "train: 1 rows have no capture time",
        "train: 1 rows were captured after the first val row (1970-01-05T00:00:00.000000)",
    ]
    assert verdict.examined == 5


def test_rows_without_a_channel_are_counted_not_compared():
    channels = np.array(["", "", "x", "", "", ""])
    verdict = split_rules.no_channel_in_two_parts(channels, PARTS_OF_SIX)
    assert verdict.holds
    assert verdict.examined == 1
    assert verdict.facts == {"rows_without_channel": 5}


def test_excluded_rows_are_in_no_part_and_not_examined():
    ids = np.array(list("abcdea"))
    verdict = split_rules.no_video_in_two_parts(ids, PARTS_OF_SIX)
    assert verdict.holds
    assert verdict.examined == 5
    alone = split_rules.no_video_in_two_parts(np.array(list("abcdef")), PARTS_OF_SIX)
    assert alone.examined == 5


def test_a_promise_about_nothing_looks_so():
    nothing = np.array([], dtype="<U8")
    assert split_rules.no_video_in_two_parts(nothing, nothing).examined == 0
    assert told(split_rules.parts_not_empty(nothing)) == [f"{part}: has no rows" for part in PARTS]


def test_columns_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="video_ids must have one value a row of the split: 3, 6"):
        split_verdict("random", **good(video_ids=np.array(list("abc"))))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown split 'stratified': expected one of random, "):
        split_verdict("stratified", **good())
