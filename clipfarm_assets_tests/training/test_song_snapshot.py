"""Models of songs lie by version, the newest one beside them where people look."""

import json

import pytest

from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.model_versions import newest_intact
from clipfarm_assets.training.snapshot import BadSnapshot, data_version, publish
from clipfarm_assets.training.song_snapshot import (
    MODELS,
    NoSongModel,
    SongModelId,
    current_version,
    mirror,
    modality_of,
    model_folder,
    open_song_model,
    single,
)

LAYOUT = SongLayout()


@pytest.fixture
def store(tmp_path):
    return ObjectStore.open(str(tmp_path))


def published(store, model, seed=1):
    used = {"model": model, "seed": seed}
    files = {"config_used.json": json.dumps(used).encode(), "model.safetensors": b"w%d" % seed}
    version = data_version(used)
    publish(store, LAYOUT, SongModelId(model, version), files, {})
    return open_song_model(store, LAYOUT, model, version)


@pytest.mark.parametrize("model", MODELS)
def test_the_newest_version_is_found_under_the_known_keys(store, model):
    first, second = published(store, model), published(store, model, seed=2)
    mirror(first)
    mirror(second)
    folder = model_folder(LAYOUT, model)
    assert current_version(store, LAYOUT, model) == second.id.version
    assert store.get(f"{folder}model.safetensors") == b"w2"
    assert open_song_model(store, LAYOUT, model).read("model.safetensors") == b"w2"
    old = open_song_model(store, LAYOUT, model, first.id.version)
    assert old.read("model.safetensors") == b"w1"
    assert old.verify_all().holds


def test_folders_are_those_of_the_layout():
    assert model_folder(LAYOUT, "gated") == "songs/models/fusion/strategy=gated/"
    assert model_folder(LAYOUT, single("midi")) == "songs/models/single/modality=midi/"
    assert [modality_of(model) for model in MODELS] == [None] * 4 + ["text", "audio", "midi"]


@pytest.mark.parametrize("model", ["other", "single:video", "single:", "../late"])
def test_unknown_models_are_refused(store, model):
    with pytest.raises(ValueError, match=r"unknown model .* expected one of late, early"):
        open_song_model(store, LAYOUT, model)


def test_versions_are_checked():
    with pytest.raises(ValueError, match="expected 16 hex digits"):
        SongModelId("late", "../../x")


@pytest.mark.parametrize(
    ("model", "asset"),
    [
        ("early", "songs/fusion_models for partition 'early'"),
        ("single:text", "songs/strategy_comparison"),
    ],
)
def test_what_is_missing_is_said(store, model, asset):
    for version in (None, "0" * 16):
        with pytest.raises(NoSongModel, match=asset):
            open_song_model(store, LAYOUT, model, version)


def test_a_damaged_pointer_is_said(store):
    store.put(model_folder(LAYOUT, "late") + "snapshot.json", b'{"version": "latest"}')
    with pytest.raises(BadSnapshot, match=r"names no version .*materialise songs/fusion_models"):
        current_version(store, LAYOUT, "late")


def test_copies_that_differ_are_found(store):
    def verdict():
        return newest_intact(
            model_folder(LAYOUT, "late"), lambda: open_song_model(store, LAYOUT, "late")
        )

    assert "no song model late was trained" in verdict().summary()
    mirror(published(store, "late"))
    assert verdict().holds
    folder = model_folder(LAYOUT, "late")
    store.put(f"{folder}model.safetensors", b"other")
    (finding,) = verdict().findings
    assert finding.subject == f"{folder}model.safetensors"
    assert "is another than that of late/" in finding.problem
    store.delete(f"{folder}model.safetensors")
    assert not verdict().holds
