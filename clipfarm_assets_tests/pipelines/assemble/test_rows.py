"""Which rows of the metadata and of the manifest make a labelled clip, and how they are read."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from clipfarm_assets.contracts.features import Column
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.leakage import UndeclaredColumn
from clipfarm_assets_tests.pipelines.assemble.kit import CLIPS


def test_horizons_and_views_are_read_as_people_write_them(bench):
    ids = sorted(bench.ids())
    views = dict(zip(ids, ["", " 12 ", "12.0", "1e3", "many", "-3", "nan", "1e400"], strict=False))

    def edit(row):
        if row["horizon_days"] == "7":
            row["horizon_days"] = "7.0" if row["video_id"] < ids[40] else " 7"
            row["horizon_view_count"] = views.get(row["video_id"], row["horizon_view_count"])
        return row

    bench.edit_rows(edit)
    data = bench.assemble()
    kept = dict(zip(data.clips.video_ids.tolist(), data.target_raw.tolist(), strict=True))
    assert [kept.get(i) for i in ids[:8]] == [0.0, 12.0, 12.0, 1000.0, None, None, None, None]
    counts = data.counts
    assert (counts["views_missing"], counts["views_unparsable"], counts["views_negative"]) == (
        1, 3, 1,
    )  # fmt: skip
    assert counts["rows"] == CLIPS - 4


def test_a_refused_label_is_not_replaced_by_an_earlier_one(bench):
    rows = bench.rows()
    first = next(row for row in rows if row["horizon_days"] == "7")
    later = {**first, "captured_at": "2030-01-01T00:00:00+00:00", "horizon_view_count": "lots"}
    bench.write_rows([later, *rows])
    data = bench.assemble()
    assert first["video_id"] not in data.clips.video_ids
    assert (data.counts["superseded_rows"], data.counts["views_unparsable"]) == (1, 1)


def test_the_latest_row_of_a_clip_wins_by_time_and_not_by_text(bench):
    rows = bench.rows()
    first = next(row for row in rows if row["horizon_days"] == "7")
    moment = datetime.fromisoformat(first["captured_at"])
    # Half a day earlier as a moment, later as text, and later in the file.
    zoned = {**first, "captured_at": f"{moment:%Y-%m-%dT}23:59:59+23:59"}
    bench.write_rows([*rows, {**zoned, "horizon_view_count": "1"}])
    data = bench.assemble()
    at = data.clips.video_ids.tolist().index(first["video_id"])
    assert zoned["captured_at"] > first["captured_at"]
    assert data.target_raw[at] == float(first["horizon_view_count"]) != 1
    assert data.captured_at[at] == np.datetime64(moment.replace(tzinfo=None))


def test_rows_without_partner_are_counted_on_both_sides(bench):
    gone = set(bench.ids()[:5])
    bench.write_rows([row for row in bench.rows() if row["video_id"] not in gone])
    lost = set(bench.ids()[-3:])
    manifest = bench.manifest().rows.to_pylist()
    bench.write_manifest([row for row in manifest if row["video_id"] not in lost])
    data = bench.assemble()
    assert data.counts["fused_without_metadata"] == 5
    assert data.counts["metadata_without_fused"] == 3
    assert len(data) == CLIPS - 8


def test_a_clip_fused_from_another_url_is_kept_and_counted(bench):
    changed = bench.ids()[0]

    def edit(row):
        if row["video_id"] == changed:
            row["url"] = "https://youtu.be/elsewhere"
        return row

    bench.edit_rows(edit)
    data = bench.assemble()
    assert data.counts["other_source_hash"] == 1
    assert changed in data.clips.video_ids


def test_the_latest_fused_row_of_a_clip_wins(bench):
    """Two sources of one clip: the manifest has a row of each."""
    rows = bench.manifest().rows.to_pylist()
    one, other = rows[0], next(r for r in rows[1:] if r["text_present"] == rows[0]["text_present"])
    # An earlier source of clip `one`, fused where `other` lies, in a shard edited to say so.
    old = {**other, "video_id": one["video_id"], "source_hash": "0" * 64}
    # Earlier as a moment, later as text.
    old["captured_at"] = f"{one['captured_at'][:10]}T23:59:59+23:59"

    def rename(shard):
        ids = np.where(shard.video_ids == other["video_id"], one["video_id"], shard.video_ids)
        return replace(shard, video_ids=ids)

    bench.edit_shards(rename)
    bench.write_manifest([old, *(row for row in rows if row is not other)])
    data = bench.assemble()
    at = data.clips.video_ids.tolist().index(one["video_id"])
    shard = FusedShard.from_npz(bench.store.get(one["fused_key"]), "shard")
    np.testing.assert_array_equal(data.clips.fused[at], shard.vectors[one["shard_idx"]])
    assert data.counts["superseded_fused_rows"] == 1


def test_an_undeclared_column_is_refused_and_a_declared_one_is_a_feature(bench):
    bench.edit_rows(lambda row: {**row, "novelty": "0.5"})
    with pytest.raises(UndeclaredColumn, match="'novelty'"):
        bench.assemble()
    data = bench.assemble(declared_columns={"novelty": Column("at_publish", "numeric")})
    assert (data.clips.metadata["novelty"] == 0.5).all()


def test_a_declared_column_that_the_file_lacks_is_counted_and_said(bench):
    column = Column("at_publish", "numeric")
    without = bench.assemble()
    assert without.counts["declared_columns_absent"] == 0
    assert not any("declared but not in the CSV" in line for line in bench.said)
    bench.edit_rows(lambda row: {**row, "novelty": "0.5"})
    declared = dict.fromkeys(("novelty", "novelti", "a_typo"), column)
    data = bench.assemble(declared_columns=declared)
    assert data.counts["declared_columns_absent"] == 2
    assert (data.clips.metadata["novelty"] == 0.5).all()
    assert set(data.clips.metadata.columns) == {*without.clips.metadata.columns, "novelty"}
    said = [line for line in bench.said if "declared but not in the CSV" in line]
    assert said == ["declared but not in the CSV, so no feature: a_typo, novelti; misspelt?"]


def test_what_features_cannot_read_is_counted_by_column(bench):
    first = bench.ids()[0]

    def edit(row):
        if row["video_id"] == first:
            row["duration_seconds"] = "soon"
        return row

    bench.edit_rows(edit)
    data = bench.assemble()
    assert data.counts["unparsable:duration_seconds"] == 1
    assert data.clips.metadata["duration_seconds"][0] is None


def test_an_older_file_without_channels_and_times_is_taken(bench):
    lacking = {"channel_id", "published_at", "channel_created_at"}
    names = [name for name in bench.rows()[0] if name not in lacking]
    bench.write_rows(bench.rows(), names)
    data = bench.assemble()
    assert not data.clips.channel_id.astype(bool).any()
    assert np.isnat(data.clips.published_at).all()
    assert "published_hour" not in data.clips.metadata.columns
