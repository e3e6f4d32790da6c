import json
from itertools import permutations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts.fused_manifest import COLUMNS, SCHEMA, BadManifest, FusedManifest
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets_tests.contracts.builders import (
    KEY,
    make_placeholder,
    make_row,
    make_shard,
    to_table,
)

LATER_KEY = KEY.replace("part-0000", "part-0001")


def merged(*tables, start=None):
    manifest = start or FusedManifest.empty(1)
    for table in tables:
        manifest = manifest.merged([table], table["fused_key"].to_pylist())
    return manifest


def test_columns_in_the_contracts_order():
    text, whole = pa.string(), pa.int64()
    assert list(zip(SCHEMA.names, SCHEMA.types, strict=True)) == [
        ("video_id", text),
        ("captured_at", text),
        ("source_hash", text),
        ("fusion_strategy", text),
        ("fused_dim", whole),
        ("fused_key", text),
        ("shard_idx", whole),
        ("shard_n", whole),
        ("video_emb_key", text),
        ("audio_emb_key", text),
        ("text_emb_key", text),
        ("text_present", whole),
        ("text_source", text),
        ("text_state_status", text),
        ("text_missing_reason", text),
        ("fusion_status", text),
        ("retry_count_at_write", whole),
    ]
    assert len(COLUMNS) == 17


# --- merging


def plainly(rows):
    """Section 8.2, full rows after placeholders: sort, drop duplicates by key, keep the last."""
    ordered = sorted(
        rows,
        key=lambda row: (
            row["video_id"],
            row["source_hash"],
            # A row without a capture time is no later than any other.
            (row["captured_at"] is not None, row["captured_at"] or ""),
            row["text_present"],
            row["fused_key"],
        ),
    )
    kept = {(row["video_id"], row["source_hash"]): row for row in ordered}
    return [kept[key] for key in sorted(kept)]


ROWS = st.builds(
    lambda video_id, source, captured, present, part: make_row(
        video_id,
        source_hash=source,
        captured_at=captured,
        text_present=present,
        fused_key=f"{KEY[:-8]}000{part}.npz",
        shard_idx=part,  # rows that are equal in the order are equal
    ),
    st.sampled_from(["aaa", "-bb", "_cc", "é"]),
    st.sampled_from(["h1", "h2"]),
    st.sampled_from([None, "", "2026-02-05T17:34:41+00:00", "2026-02-05T17:34:41.5+00:00", "x"]),
    st.integers(0, 1),
    st.integers(0, 3),
)


@settings(max_examples=50, deadline=None)
@given(batches=st.lists(st.lists(ROWS, max_size=5), min_size=1, max_size=4), data=st.data())
def test_equals_the_rule_in_any_order_and_however_often(batches, data):
    expected = plainly([row for batch in batches for row in batch])
    tables = [to_table(*batch) for batch in batches]
    at_once = FusedManifest.empty(1).merged(tables, ["k"])
    assert at_once.rows.to_pylist() == expected
    assert at_once.rows.schema.equals(SCHEMA)
    order = data.draw(st.permutations(tables))
    repeated = data.draw(st.lists(st.sampled_from(tables), max_size=4))
    one_by_one = merged(*order, *repeated)
    assert one_by_one.rows.equals(at_once.rows)
    assert one_by_one.merged([], []) == one_by_one


def test_equal_manifests_are_equal_bytes_whatever_the_order():
    tables = [to_table(make_row(f"id{k}"), make_row("same", shard_idx=1)) for k in range(3)]
    files = {
        table_to_parquet(manifest.rows, manifest.file_metadata())
        for manifest in (merged(*order) for order in permutations(tables))
    }
    assert len(files) == 1


def test_the_later_capture_wins_then_the_later_key():
    old = make_row(captured_at="2026-02-05T00:00:00+00:00", fused_key=LATER_KEY, shard_idx=1)
    new = make_row(captured_at="2026-02-06T00:00:00+00:00", fused_key=KEY, shard_idx=2)
    same = make_row(captured_at="2026-02-06T00:00:00+00:00", fused_key=LATER_KEY, shard_idx=3)
    assert merged(to_table(new), to_table(old)).rows.to_pylist() == [new]
    assert merged(to_table(same), to_table(new), to_table(old)).rows.to_pylist() == [same]


def test_a_row_without_capture_time_loses():
    without = make_row(captured_at=None, fused_key=LATER_KEY)
    dated = make_row(captured_at="2026-02-05", fused_key=KEY)
    for tables in ((without, dated), (dated, without)):
        assert merged(*map(to_table, tables)).rows.to_pylist() == [dated]
    assert merged(to_table(without)).rows.to_pylist() == [without]


def test_another_source_of_a_clip_is_another_row():
    rows = [make_row(source_hash=source) for source in ("h2", "h1")]
    assert merged(*map(to_table, rows)).rows["source_hash"].to_pylist() == ["h1", "h2"]


def test_a_placeholder_is_replaced_once_its_text_is_fused():
    placeholder, other = make_placeholder("ppp"), make_row("aaa")
    full = make_row("ppp", fused_key=LATER_KEY)
    before = merged(to_table(placeholder, other))
    after = merged(to_table(full), start=before)
    assert before.rows.to_pylist() == [other, placeholder]
    assert after.rows.to_pylist() == [other, full]
    # Nor does the placeholder come back when its shard is merged again.
    assert merged(to_table(placeholder, other), start=after).rows.equals(after.rows)


def test_an_upgrade_wins_over_a_placeholder_that_lies_under_a_later_day():
    placeholder = make_placeholder("ppp", fused_key=LATER_KEY)
    full = make_row("ppp", fused_key=KEY)
    for tables in ((placeholder, full), (full, placeholder)):
        assert merged(*map(to_table, tables)).rows.to_pylist() == [full]


def test_shards_are_remembered_even_if_no_row_of_theirs_is_left():
    manifest = merged(to_table(make_placeholder("ppp")))
    manifest = merged(to_table(make_row("ppp", fused_key=LATER_KEY)), start=manifest)
    assert manifest.rows["fused_key"].to_pylist() == [LATER_KEY]
    assert manifest.shards == {KEY, LATER_KEY}
    stored = table_to_parquet(manifest.rows, manifest.file_metadata())
    assert FusedManifest.from_table(parquet_to_table(stored)) == manifest


def test_merging_leaves_the_old_manifest_as_it_was():
    old = merged(to_table(make_row("aaa")))
    old.merged([to_table(make_row("bbb"))], [LATER_KEY])
    assert (old.rows.num_rows, old.shards) == (1, {KEY})


def test_rows_of_a_shard_merge_and_keep_their_order_of_ids():
    table = make_shard().manifest_rows(KEY)
    manifest = FusedManifest.empty(3).merged([table], [KEY])
    assert manifest.rows["video_id"].to_pylist() == ["-bb", "_cc", "aaa"]
    assert manifest.rows["shard_idx"].to_pylist() == [1, 2, 0]
    assert manifest.lock_version == 3


# --- the file


def test_file_metadata():
    manifest = FusedManifest.empty(4).merged([], "gbdface")
    assert manifest.file_metadata() == {
        "clipfarm.lock_version": "4",
        "clipfarm.shards": '["a", "b", "c", "d", "e", "f", "g"]',
    }


@pytest.mark.parametrize("rows", [(), (make_row(), make_placeholder())])
def test_round_trip_through_parquet(rows):
    manifest = FusedManifest.empty(2).merged([to_table(*rows)], [KEY, LATER_KEY])
    stored = parquet_to_table(table_to_parquet(manifest.rows, manifest.file_metadata()))
    found = FusedManifest.from_table(stored)
    assert found == manifest
    assert found.rows.schema.equals(SCHEMA)


def older_table(*rows):
    """As a dataframe library of an older deployment writes it."""
    table = to_table(*rows)
    columns = []
    for field in SCHEMA:
        column = table[field.name]
        if field.name == "text_present":
            columns.append(column.cast(pa.float64()))  # whole numbers, after a join
        elif field.name == "fusion_strategy":
            columns.append(column.combine_chunks().dictionary_encode())
        elif field.type == pa.int64():
            columns.append(column.cast(pa.int32()))
        else:
            columns.append(column.cast(pa.large_string()))
    columns.append(pa.array(range(len(rows)), pa.int64()))
    names = [*COLUMNS, "__index_level_0__"]
    return pa.Table.from_arrays(columns, names).replace_schema_metadata({"pandas": "{}"})


def test_an_older_deployments_file_is_accepted_as_it_is():
    rows = [make_row("aaa"), make_placeholder("ppp"), make_row("bbb", fused_key=LATER_KEY)]
    stored = parquet_to_table(table_to_parquet(older_table(*rows)))
    manifest = FusedManifest.from_table(stored)
    assert manifest.rows.to_pylist() == rows
    assert manifest.rows.schema.equals(SCHEMA, check_metadata=True)
    assert manifest.lock_version == 1
    assert manifest.shards == {KEY, LATER_KEY}  # named by the rows themselves


def test_columns_in_another_order_and_columns_of_nulls():
    table = to_table(make_row()).select(COLUMNS[::-1])
    position = table.column_names.index("text_missing_reason")
    table = table.set_column(position, "text_missing_reason", pa.nulls(1))
    assert FusedManifest.from_table(table).rows.to_pylist() == [make_row()]


def test_refuses_missing_columns_by_name():
    table = to_table(make_row()).drop_columns(["shard_idx", "fused_key"])
    message = "^k must have the 17 manifest columns: fused_key, shard_idx missing$"
    with pytest.raises(BadManifest, match=message):
        FusedManifest.from_table(table, "k")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shard_idx", pa.array([1.5])),
        ("shard_idx", pa.array(["first"])),
        ("fused_dim", pa.array([2**63], pa.uint64())),
        ("fused_key", pa.array([[1]])),
    ],
)
def test_refuses_values_that_would_be_changed(name, values):
    table = to_table(make_row())
    table = table.set_column(table.column_names.index(name), name, values)
    with pytest.raises(BadManifest, match=r"^k holds values its columns can't: "):
        FusedManifest.from_table(table, "k")


@pytest.mark.parametrize(
    "name",
    [
        "video_id",
        "source_hash",
        "fusion_strategy",
        "fused_dim",
        "fused_key",
        "shard_idx",
        "shard_n",
    ],
)
def test_refuses_rows_that_lead_nowhere(name):
    table = to_table(make_row(), {**make_row("bbb"), name: None}, make_row("ccc"))
    message = f"^k: every row must say where its vector is: {name} of 1 rows is empty$"
    with pytest.raises(BadManifest, match=message):
        FusedManifest.from_table(table, "k")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"clipfarm.lock_version": "two"}, "its own metadata can't be read"),
        ({"clipfarm.lock_version": "0"}, "clipfarm.lock_version counts from 1: found 0"),
        ({"clipfarm.shards": "[1"}, "its own metadata can't be read"),
        ({"clipfarm.shards": '"abc"'}, "must be a JSON list of keys: found b'\"abc\"'"),
        ({"clipfarm.shards": "5"}, "must be a JSON list of keys"),
        ({"clipfarm.shards": json.dumps([1, 2])}, "must be a JSON list of keys"),
    ],
)
def test_refuses_metadata_it_can_not_trust(metadata, message):
    table = to_table(make_row()).replace_schema_metadata(metadata)
    with pytest.raises(BadManifest, match=f"^k: .*{message}"):
        FusedManifest.from_table(table, "k")
