import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts.fused_manifest import SCHEMA
from clipfarm_assets.contracts.manifest_merge import NotMerged, latest, spliced
from clipfarm_assets_tests.contracts.builders import KEY, make_row, to_table

IDS = ["", "-", "-bb", "_cc", "a", "aa", "aaa", "b", "z", "é", "\U0001f600"]
ROWS = st.builds(
    lambda video_id, source, captured, present, part: make_row(
        video_id,
        source_hash=source,
        captured_at=captured,
        text_present=present,
        fused_key=f"{KEY[:-8]}000{part}.npz",
        shard_idx=part,
    ),
    st.sampled_from(IDS),
    st.sampled_from(["", "h1", "h10", "h2"]),
    st.sampled_from([None, "2026-02-05", "2026-02-06"]),
    st.integers(0, 1),
    st.integers(0, 3),
)


def pieces(table, size):
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


def joined(chunks):
    return pa.concat_tables([SCHEMA.empty_table(), *chunks])


@settings(max_examples=40, deadline=None)
@given(base=st.lists(ROWS, max_size=30), new=st.lists(ROWS, max_size=30), size=st.integers(1, 31))
def test_splicing_equals_the_rule(base, new, size):
    """Also in pieces of one row, into nothing, and where every new row replaces one."""
    held, fresh = latest([to_table(*base)]), to_table(*new)
    found = joined(spliced(pieces(held, size), fresh))
    assert found.equals(latest([held, fresh]))
    assert found.schema.equals(SCHEMA)


LOST = st.sets(st.integers(0, 3).map(lambda part: f"{KEY[:-8]}000{part}.npz"))


@settings(max_examples=40, deadline=None)
@given(
    base=st.lists(ROWS, max_size=20),
    new=st.lists(ROWS, max_size=20),
    lost=LOST,
    size=st.integers(1, 21),
)
def test_rows_of_lost_shards_give_way_to_any_others_and_to_none(base, new, lost, size):
    """The rule of those that are there; where a key has none, the rule of those that aren't."""
    held, fresh = latest([to_table(*base)]), to_table(*new)
    rows = [*held.to_pylist(), *new]
    there = latest([to_table(*(row for row in rows if row["fused_key"] not in lost))])
    keys = {(row["video_id"], row["source_hash"]) for row in there.to_pylist()}
    nowhere = [row for row in rows if (row["video_id"], row["source_hash"]) not in keys]
    expected = latest([there, to_table(*nowhere)])

    assert latest([held, fresh], lost).equals(expected)
    assert joined(spliced(pieces(held, size), fresh, lost)).equals(expected)


def test_pieces_without_new_rows_pass_as_they_are():
    held = latest([to_table(*(make_row(f"id{n}") for n in range(9)))])
    chunks = pieces(held, 3)
    found = list(spliced(chunks, to_table(make_row("id4", captured_at="2027"), make_row("id9"))))
    assert found[0] is chunks[0]
    assert found[2] is chunks[2]
    assert [chunk.num_rows for chunk in found] == [3, 3, 3, 1]
    assert found[1]["captured_at"].to_pylist()[1] == "2027"


def test_a_tie_goes_to_the_new_row_as_in_the_rule():
    """Two rows of one shard for one clip: equal in the order, so the one that comes later."""
    old, new = make_row(shard_idx=1), make_row(shard_idx=0)
    (found,) = spliced([to_table(old)], to_table(new))
    assert found.to_pylist() == [new]
    assert latest([to_table(old), to_table(new)]).to_pylist() == [new]


@pytest.mark.parametrize(
    "chunks",
    [
        [[make_row("b"), make_row("a")]],
        [[make_row("a"), make_row("a")]],
        [[make_row("a", source_hash="2"), make_row("a", source_hash="1")]],
        [[make_row("b")], [make_row("a")]],
        [[make_row("a")], [make_row("a")]],
        [[make_row("a")], [], [make_row("a")]],
        [[make_row("a", source_hash=None)]],
    ],
)
def test_what_no_merge_leaves_is_refused(chunks):
    with pytest.raises(NotMerged):
        list(spliced([to_table(*rows) for rows in chunks], to_table(make_row("c"))))


def test_new_rows_without_a_key_are_refused():
    with pytest.raises(NotMerged, match=r"^video_id of 1 rows is empty$"):
        list(spliced([], to_table(make_row(source_hash="h") | {"video_id": None})))
