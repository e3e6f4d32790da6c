import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import BadManifest, FusedManifest
from clipfarm_assets.contracts.manifest_file import ManifestFooter, from_bytes, to_bytes
from clipfarm_assets.storage import tables
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.contracts.builders import KEY, make_row, to_table
from clipfarm_assets_tests.contracts.test_manifest_merge import LOST, ROWS

OTHER = KEY.replace("part-0000", "part-0007")
# Of shards that no base knows.
NEW_ROWS = ROWS.map(lambda row: row | {"fused_key": row["fused_key"].replace("000", "001")})


def manifest(rows, lock_version=1, more=()):
    """Of rows, and of shards that have no row left."""
    table = to_table(*rows)
    keys = {row["fused_key"] for row in rows} | set(more)
    return FusedManifest.empty(lock_version).merged([table], keys)


def older_bytes(*rows):
    """Without key-values of ours, in no order."""
    return table_to_parquet(to_table(*rows))


def merged_both_ways(data, additions):
    """As a manifest and as a file, which must agree."""
    found = manifest_file.merged(data, "k", additions)
    assert from_bytes(manifest_file.merged_to_bytes(data, "k", additions), "k") == found
    return found


def plainly(base, additions):
    """Read whole and merged by the rule, all at once, but for what the base has looked at."""
    whole = from_bytes(base, "k")
    recorded = ManifestFooter.of(base, "k").shards or ()
    shards = set().union(*(a.shards for a in additions))
    rows = [row for a in additions for row in a.rows.to_pylist()]
    return whole.merged([to_table(*(r for r in rows if r["fused_key"] not in recorded))], shards)


@settings(max_examples=30, deadline=None)
@given(
    base=st.lists(ROWS, max_size=20),
    additions=st.lists(st.lists(ROWS | NEW_ROWS, max_size=8), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 9)),
)
def test_merging_into_a_file_gives_the_bytes_of_merging_everything(base, additions, sizes):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "CHUNK_ROWS", sizes[0])
        patched.setattr(tables, "_GROUP_ROWS", sizes[1])
        data = to_bytes(manifest(base, 3, {OTHER}))
        added = [manifest(rows, 3) for rows in additions]
        expected = plainly(data, added)
        assert manifest_file.merged_to_bytes(data, "k", added) == to_bytes(expected)
        assert manifest_file.merged(data, "k", added) == expected


def test_what_an_addition_says_of_a_shard_that_the_base_has_looked_at_is_passed_over():
    """The shard was removed, and then published by somebody who had read it before."""
    base = to_bytes(manifest([make_row("a")], more={OTHER}))
    late = make_row("b", fused_key=OTHER), make_row("a", fused_key=OTHER, captured_at="2028")
    assert merged_both_ways(base, [manifest(late)]) == from_bytes(base, "k")
    new = make_row("c", fused_key=KEY.replace("part-0000", "part-0008"))
    found = merged_both_ways(base, [manifest([*late, new])])
    assert found.rows["video_id"].to_pylist() == ["a", "c"]


@settings(max_examples=30, deadline=None)
@given(base=st.lists(ROWS, max_size=20), new=st.lists(NEW_ROWS, max_size=8), lost=LOST)
def test_lost_shards_that_no_row_leads_to_any_more_are_on_record_as_settled(base, new, lost):
    added, held = manifest(new), manifest(base, more={*lost, OTHER})
    expected = held.merged([added.rows], added.shards, lost)

    data = manifest_file.merged_to_bytes(to_bytes(held), "k", [added], lost)

    assert from_bytes(data, "k") == expected
    footer = ManifestFooter.of(data, "k")
    assert (footer.rows, footer.shards) == (expected.rows.num_rows, expected.shards)
    assert footer.settled == lost - set(expected.rows["fused_key"].to_pylist())
    # What is settled remains so, and is not written where there is none.
    unknown = KEY.replace("part-0000", "part-0009")
    again = manifest_file.merged_to_bytes(data, "k", [manifest([])], {OTHER, unknown})
    assert ManifestFooter.of(again, "k").settled == footer.settled | {OTHER}
    assert manifest_file.merged_to_bytes(to_bytes(expected), "k", []) == to_bytes(expected)


def test_nothing_to_add():
    whole = manifest([make_row()])
    assert manifest_file.merged(to_bytes(whole), "k", []) == whole
    assert manifest_file.merged_to_bytes(to_bytes(whole), "k", []) == to_bytes(whole)


@pytest.mark.parametrize(
    "data",
    [
        older_bytes(make_row("b"), make_row("a"), make_row("a", captured_at="2027")),
        older_bytes(),
        # Ours by its key-values, but in no order, or with a shard in its rows that they don't name.
        table_to_parquet(
            to_table(make_row("b"), make_row("a")), manifest([make_row()]).file_metadata()
        ),
        table_to_parquet(to_table(make_row("a", fused_key=OTHER)), manifest([]).file_metadata()),
    ],
)
def test_a_file_that_no_merge_left_is_merged_all_the_same(data):
    new = KEY.replace("part-0000", "part-0008")
    rows = [make_row("aa", fused_key=new), make_row("a", captured_at="2028", fused_key=new)]
    added = [manifest(rows)]
    found = merged_both_ways(data, added)
    assert found == plainly(data, added)
    ids = found.rows["video_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert found.shards >= set(found.rows["fused_key"].to_pylist())


def test_shards_of_a_file():
    whole = manifest([make_row()], more={OTHER})
    assert manifest_file.shards_of_file(to_bytes(whole), "k") == {KEY, OTHER}
    assert manifest_file.shards_of_file(older_bytes(make_row()), "k") == {KEY}


def test_the_footer_alone():
    whole = manifest([make_row("a"), make_row("b")], 4, {OTHER})
    footer = ManifestFooter.of(to_bytes(whole), "k")
    assert footer == ManifestFooter(2, 4, frozenset({KEY, OTHER}))
    assert ManifestFooter.of(older_bytes(make_row()), "k") == ManifestFooter(1, 1, None)


READS = {
    "whole": lambda data: from_bytes(data, "the/key"),
    "footer": lambda data: ManifestFooter.of(data, "the/key"),
    "merged": lambda data: manifest_file.merged(data, "the/key", [manifest([make_row()])]),
    "to bytes": lambda data: manifest_file.merged_to_bytes(
        data, "the/key", [manifest([make_row()])]
    ),
}


@pytest.mark.parametrize("read", READS)
def test_bad_files_are_named(read):
    good = to_bytes(manifest([make_row(f"id{n}") for n in range(50)]))
    damaged = [b"", b"junk", good[:-3]]
    if read != "footer":
        damaged.append(good[20:])  # the footer is whole, the pages are not where it says
    for data in damaged:
        with pytest.raises(BadManifest, match=r"^the/key: not a readable parquet file"):
            READS[read](data)


@pytest.mark.parametrize("read", ["merged", "to bytes"])
def test_files_that_are_no_manifest_are_named(read):
    rows = to_table(make_row()).drop_columns(["shard_n"])
    with pytest.raises(BadManifest, match=r"^the/key must have the 17 .*: shard_n missing$"):
        READS[read](table_to_parquet(rows, manifest([]).file_metadata()))
    with pytest.raises(BadManifest, match=r"^the/key: clipfarm.lock_version counts from 1"):
        READS[read](table_to_parquet(rows, {"clipfarm.lock_version": "0"}))
    for name in ("clipfarm.shards", "clipfarm.settled_shards"):
        with pytest.raises(BadManifest, match=rf"^the/key: {name} must be a JSON list of keys: "):
            READS[read](table_to_parquet(rows, {name: '["a", 1]'}))
