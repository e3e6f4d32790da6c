import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.storage.keys import check_key
from clipfarm_assets.storage.layout import BadVideoId, Layout, ShardRef, check_video_id

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
DAY = "2026-02-05"


def test_every_key_is_that_of_the_published_pipeline():
    layout = Layout()
    for key, expected in {
        layout.metadata(): "clipfarm/metadata/shorts_metadata_horizon.csv",
        layout.raw("video", "-a_1"): "clipfarm/raw/video/-a_1.mp4",
        layout.raw("audio", "-a_1"): "clipfarm/raw/audio/-a_1.wav",
        layout.raw("text", "-a_1"): "clipfarm/raw/text/-a_1.json",
        layout.embedding("video", "-a_1"): "clipfarm/embeddings/video/-a_1.npy",
        layout.embedding("audio", "-a_1"): "clipfarm/embeddings/audio/-a_1.npy",
        layout.embedding("text", "-a_1"): "clipfarm/embeddings/text/-a_1.npy",
        layout.clip_index(DAY): "clipfarm/index/date=2026-02-05/clip_index.parquet",
        layout.embedding_manifest(DAY): (
            "clipfarm/embeddings/manifests/date=2026-02-05/embedding_manifest.parquet"
        ),
        layout.state("video_embedding"): "clipfarm/state/video_embedding.sqlite",
        layout.state("fusion_sum_pool"): "clipfarm/state/fusion_sum_pool.sqlite",
        layout.text_downloader_state(): "clipfarm/state/text_downloader.sqlite",
        layout.models_lock(): "clipfarm/state/models_lock.json",
        layout.equivalence(): "clipfarm/state/equivalence.json",
        layout.schema_lock("concat"): "clipfarm/fused/concat/schema.json",
        layout.schema_lock_archive("concat", 2): "clipfarm/fused/concat/schema.v2.json",
        layout.fused_manifest("max_pool"): "clipfarm/fused/max_pool/fused_manifest.parquet",
        layout.fused_manifest_archive(
            "concat", 1
        ): "clipfarm/fused/concat/fused_manifest.v1.parquet",
        layout.shards_prefix("concat"): "clipfarm/fused/concat/shards/",
        layout.shards_prefix("concat", DAY): "clipfarm/fused/concat/shards/date=2026-02-05/",
        layout.shard("sum_pool", DAY, 0): (
            "clipfarm/fused/sum_pool/shards/date=2026-02-05/part-0000.npz"
        ),
        layout.shard("sum_pool", DAY, 12345): (
            "clipfarm/fused/sum_pool/shards/date=2026-02-05/part-12345.npz"
        ),
    }.items():
        assert key == expected


@pytest.mark.parametrize(
    ("prefix", "given_key", "key"),
    [
        ("clipfarm", "metadata/x.csv", "clipfarm/metadata/x.csv"),
        ("clipfarm", "clipfarm/metadata/x.csv", "clipfarm/metadata/x.csv"),
        ("clipfarm", "clipfarm.csv", "clipfarm/clipfarm.csv"),
        ("team/clips", "team/clips/x.csv", "team/clips/x.csv"),
    ],
)
def test_the_metadata_key_may_be_relative_or_whole(prefix, given_key, key):
    assert Layout(prefix, given_key).metadata() == key


@pytest.mark.parametrize("field", [{"prefix": "../x"}, {"prefix": ""}, {"metadata_key": "/etc/x"}])
def test_a_layout_stays_inside_the_store(field):
    with pytest.raises(ValueError, match="bad object key"):
        Layout(**field)


@given(IDS)
def test_valid_ids_make_valid_keys(video_id):
    layout = Layout()
    assert check_video_id(video_id) == video_id
    assert check_key(layout.embedding("video", video_id)).endswith(f"/{video_id}.npy")


@given(st.text(max_size=80))
def test_other_ids_are_refused(text):
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    if 1 <= len(text) <= 64 and set(text) <= allowed:
        assert check_video_id(text) == text
    else:
        with pytest.raises(BadVideoId):
            Layout().raw("video", text)


@pytest.mark.parametrize("video_id", ["", "../x", "a/b", "a.b", "é", "x\n", "٣", "x" * 65, None, 7])
def test_hostile_ids_are_refused(video_id):
    with pytest.raises(BadVideoId, match="expected 1 to 64 characters"):
        check_video_id(video_id)


@pytest.mark.parametrize(
    "date", ["2026-02-30", "20260205", "2026-2-5", "2026-02-05T00:00", "", None, "٢٠٢٦-02-05"]
)
def test_dates_that_are_none_are_refused(date):
    for build in (Layout().clip_index, Layout().embedding_manifest):
        with pytest.raises(ValueError, match="bad date"):
            build(date)


def test_a_delta_is_named_by_its_hash():
    layout, sha256 = Layout(), "0a" * 32
    key = f"clipfarm/fused/concat/manifest_deltas/{sha256}.parquet"
    assert layout.manifest_delta("concat", sha256) == key
    assert layout.manifest_delta_sha256("concat", key) == sha256


@pytest.mark.parametrize(
    "key",
    [
        "clipfarm/fused/max_pool/manifest_deltas/" + "0a" * 32 + ".parquet",
        "clipfarm/fused/concat/manifest_deltas/" + "0A" * 32 + ".parquet",
        "clipfarm/fused/concat/manifest_deltas/" + "0a" * 31 + ".parquet",
        "clipfarm/fused/concat/manifest_deltas/" + "0a" * 32 + ".parquet.parquet",
        "clipfarm/fused/concat/manifest_deltas/" + "0a" * 32,
        "0a" * 32 + ".parquet",
        "clipfarm/fused/concat/fused_manifest.parquet",
    ],
)
def test_keys_that_no_delta_has_are_none(key):
    assert Layout().manifest_delta_sha256("concat", key) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda layout: layout.raw("image", "a"),
        lambda layout: layout.embedding("../raw", "a"),
        lambda layout: layout.schema_lock("mean"),
        lambda layout: layout.shard("concat", DAY, -1),
        lambda layout: layout.shard("concat", DAY, 10**9),
        lambda layout: layout.schema_lock_archive("concat", 0),
        lambda layout: layout.state("../x"),
        lambda layout: layout.state(""),
        lambda layout: layout.manifest_delta("concat", "0a"),
        lambda layout: layout.manifest_delta("mean", "0a" * 32),
    ],
)
def test_unknown_parts_are_refused(call):
    with pytest.raises(ValueError, match=r"unknown|bad"):
        call(Layout())


@given(st.sampled_from(["concat", "sum_pool", "max_pool"]), st.dates(), st.integers(0, 10**9 - 1))
def test_shard_ref_inverts_shard(strategy, date, part):
    layout = Layout("a.b/c")
    key = layout.shard(strategy, date.isoformat(), part)
    assert layout.shard_ref(key) == ShardRef(strategy, date.isoformat(), part)


@pytest.mark.parametrize(
    "key",
    [
        "clipfarm/fused/concat/shards/date=2026-02-30/part-0000.npz",
        "clipfarm/fused/concat/shards/date=2026-02-05/part-000.npz",
        "clipfarm/fused/concat/shards/date=2026-02-05/part-00001.npz",
        "clipfarm/fused/concat/shards/date=2026-02-05/part-0000.npz#1",
        "clipfarm/fused/concat/shards/date=2026-02-05/x/part-0000.npz",
        "clipfarm/fused/mean/shards/date=2026-02-05/part-0000.npz",
        "x/clipfarm/fused/concat/shards/date=2026-02-05/part-0000.npz",
        "clipfarm/fused/concat/shards/date=2026-02-05/part-٠٠٠٠.npz",
        "clipfarm/fused/concat/schema.json",
    ],
)
def test_keys_that_no_shard_has_are_none(key):
    assert Layout().shard_ref(key) is None


def test_dates_are_those_of_the_calendar():
    assert Layout().clip_index(dt.date(2024, 2, 29).isoformat()).split("/")[2] == "date=2024-02-29"


@pytest.mark.parametrize("prefix", ["clipfarm", "other/place"])
def test_the_date_of_an_index_is_read_from_its_key_and_from_no_other(prefix):
    layout = Layout(prefix=prefix)
    key = layout.clip_index("2026-02-05")
    assert key.startswith(layout.clip_indexes_prefix())
    assert layout.clip_index_date(key) == "2026-02-05"
    folder = layout.clip_indexes_prefix()
    for other in (
        f"{folder}date=2026-02-30/clip_index.parquet",
        f"{folder}date=2026-02-05/other.parquet",
        f"{folder}2026-02-05/clip_index.parquet",
        f"{folder}date=20260205/clip_index.parquet",
        f"elsewhere/{key}",
        "",
    ):
        assert layout.clip_index_date(other) is None
