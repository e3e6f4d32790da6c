"""The policies of deploy/ against the layouts; against whole runs see e2e/test_s3.py."""

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets_tests.s3_policies import Grant, refused

WORKER, READER = "s3-policy.json", "s3-policy-reader.json"
CLIPS, MEMES, SONGS = Layout(), MemeLayout(), SongLayout()
# What others write, and this platform reads alone.
SOURCES = (
    CLIPS.metadata(),
    CLIPS.raw("video", "a"),
    CLIPS.text_downloader_state(),
    MEMES.manifest(),
    MEMES.ocr(),
    MEMES.image("a.png"),
    SONGS.metadata(),
    SONGS.media(),
    SONGS.file("a.wav"),
)
MADE = (
    MEMES.image_hashes(),
    MEMES.splits(),
    MEMES.label_taxonomy(),
    MEMES.shard("train", 0),
    MEMES.shard_index("val"),
    f"{MEMES.expert('text', 'sarcasm')}record.json",
    f"{MEMES.fusion_model('sarcasm')}staging/v/model.safetensors",
    MEMES.features("sarcasm", "v", "train", "0" * 64),
    f"{MEMES.evaluation('sarcasm')}metrics.json",
    MEMES.registry(),
    MEMES.report("a.png"),
    SONGS.splits(),
    SONGS.alignment("Album"),
    SONGS.features("text", "v", "Album"),
    f"{SONGS.fusion_model('late')}staging/v/checkpoint",
    f"{SONGS.single_model('midi')}manifest.json",
    f"{SONGS.comparison()}metrics.json",
    SONGS.report("a.png"),
    *(CLIPS.state(statuses.embedding_stage(modality)) for modality in statuses.MODALITIES),
    *(CLIPS.state(statuses.fusion_stage(strategy)) for strategy in statuses.STRATEGIES),
    CLIPS.models_lock(),
    CLIPS.equivalence(),
    CLIPS.upkeep_report("gc-1"),
    f"{CLIPS.prefix}/state/.probe-{'0' * 32}",
    CLIPS.clip_predictions("2026-02-05"),
    CLIPS.model_registry(7),
)


def test_a_worker_writes_what_is_made_and_never_a_source():
    assert refused(WORKER, [("s3:PutObject", key) for key in MADE]) == set()
    for action in ("s3:PutObject", "s3:DeleteObject"):
        asked = {(action, key) for key in SOURCES}
        assert refused(WORKER, asked) == asked
    assert refused(WORKER, [("s3:GetObject", key) for key in (*SOURCES, *MADE)]) == set()


def test_other_prefixes_of_the_bucket_are_out_of_reach():
    asked = {
        (action, key)
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
        for key in ("other/a", "clipfarm", "clipfarm2/a", "a/clipfarm/fused/a", "")
    }
    assert refused(WORKER, asked) == asked
    assert refused(READER, asked) == asked


def test_a_reader_changes_nothing_and_sees_no_source():
    asked = {(action, key) for action in ("s3:PutObject", "s3:DeleteObject") for key in MADE}
    asked |= {("s3:GetObject", key) for key in SOURCES}
    assert refused(READER, asked) == asked
    assert refused(READER, [("s3:GetObject", MEMES.registry())]) == set()


@pytest.mark.parametrize(
    ("pattern", "key", "covered"),
    [
        ("/a/*", "a/b/c", True),
        ("/a/*", "a", False),
        ("/a/*", "b/a/c", False),
        ("/a/*/c/*", "a/x/y/c/d", True),
        ("/a.b", "axb", False),
        ("", "a", False),
    ],
)
def test_patterns_are_read_as_s3_reads_them(pattern, key, covered):
    assert Grant("sid", "s3:GetObject", pattern).covers("s3:GetObject", key) == covered
    assert not Grant("sid", "s3:GetObject", pattern).covers("s3:PutObject", key)
