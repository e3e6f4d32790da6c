"""All steps of the song pipeline on S3, against the same in a folder; and what they asked for."""

import json
import uuid

import pytest

from clipfarm_assets.pipelines.songs.alignment import check_alignment
from clipfarm_assets.pipelines.songs.features import compute_features
from clipfarm_assets.pipelines.songs.fusion import train_fusion
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets_tests import s3_policies
from clipfarm_assets_tests.faulty_proxy import faulty_proxy
from clipfarm_assets_tests.pipelines.songs import fusion_kit
from clipfarm_assets_tests.servers import BUCKET, s3_settings

SETTINGS = fusion_kit.settings(fit={"max_epochs": 1, "patience": 1, "batch_size": 16})
LAYOUT = fusion_kit.LAYOUT
ALBUMS = ("Blue", "Red")


def all_steps(store):
    """Align, compute features and fit one strategy with its single modalities."""
    for album in ALBUMS:
        check_alignment(store, LAYOUT, SETTINGS, album)
        compute_features(store, LAYOUT, SETTINGS, album)
    train_fusion(store, LAYOUT, "late", SETTINGS)


def made(store):
    """Everything that was made: what says when, how long or of which file without that."""
    contents = fusion_kit.contents(store, "songs/")
    sources = (LAYOUT.metadata(), LAYOUT.media())
    return {key: _unmarked(key, data) for key, data in contents.items() if key not in sources}


def _unmarked(key, data):
    if key.startswith(LAYOUT.alignment_prefix()):
        table = parquet_to_table(data)
        told = {k: v for k, v in table.schema.metadata.items() if k != b"clipfarm.media"}
        return table.to_pylist(), told
    if key.endswith((".seen.json", "/snapshot.json")):
        told = json.loads(data)
        for when in ("media", "created_at"):
            told.pop(when, None)
        told.get("facts", {}).pop("seconds", None)
        return told
    return data


@pytest.mark.s3
def test_songs_on_s3_equal_a_folder(tmp_path):
    folder = ObjectStore.open(str(tmp_path / "store"))
    prefix = f"songs-of/{uuid.uuid4().hex}"
    direct = ObjectStore.open(f"s3://{BUCKET}/{prefix}", s3_settings())
    for each in (folder, direct):
        fusion_kit.plant(each, songs=18)
    all_steps(folder)
    with faulty_proxy(s3_settings()) as proxy:
        all_steps(ObjectStore.open(direct.url.partition("?")[0], proxy.settings))
    found, expected = made(direct), made(folder)
    assert found.keys() == expected.keys()
    assert {key for key in found if found[key] != expected[key]} == set()
    asked = {(action, key.removeprefix(f"{prefix}/")) for action, key in proxy.actions()}
    assert s3_policies.refused("s3-policy.json", asked) == set()
    unused = s3_policies.unused("s3-policy.json", asked, "Songs")
    # Splits were planted, nothing was computed again, pictures are the UI's, no upload gave up.
    found = {(grant.action, grant.pattern) for grant in unused}
    assert {one for one in found if one[0] != "s3:AbortMultipartUpload"} == {
        ("s3:DeleteObject", "/songs/features/*"),
        ("s3:PutObject", "/songs/comparison/*"),
        ("s3:PutObject", "/songs/reports/*"),
        ("s3:PutObject", "/songs/splits.json"),
    }
