"""Fusion models of songs: fitted on what there is, published once, with the same bytes again."""

import csv
import io
import json
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.pipelines.songs.alignment_rows import NoAlignment
from clipfarm_assets.pipelines.songs.feature_files import NoFeatures
from clipfarm_assets.pipelines.songs.fusion import train_fusion
from clipfarm_assets.pipelines.songs.fusion_rows import NoLabelledSegments, open_rows
from clipfarm_assets.pipelines.songs.inputs import CHANGES_VERSION
from clipfarm_assets.pipelines.songs.splits import NoSongSplits, read_splits
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE
from clipfarm_assets.training.networks.weights import (
    BadWeights,
    from_safetensors,
    to_safetensors,
)
from clipfarm_assets.training.song_config import DeclaredShares, song_config
from clipfarm_assets.training.song_encoders.stand_ins import stand_in_deberta
from clipfarm_assets.training.song_snapshot import current_version, open_song_model
from clipfarm_assets.training.songs.evaluation import said_of
from clipfarm_assets.training.songs.model import SongModel
from clipfarm_assets_tests.pipelines.songs import fusion_kit as kit
from clipfarm_assets_tests.pipelines.songs.segment_kit import parquet
from clipfarm_assets_tests.training.song_encoders.kit import SMALL_DEBERTA
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

ROOT = "songs/models/fusion/strategy=late/"
NAMES = {
    "config_used.json",
    "config.yaml",
    "model.json",
    "model.safetensors",
    "metrics.json",
    "curves.json",
    "calibration.json",
    "gradients.json",
    "gradients.csv",
}
AT = datetime(2026, 1, 1, tzinfo=UTC)
SHORT = kit.settings(fit={"max_epochs": 2, "patience": 2})
FEW = 18


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch):
    monkeypatch.setenv(GIT_SHA_VARIABLE, "test")


@pytest.fixture
def store(tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    kit.plant(store, songs=FEW)
    return store


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    store = ObjectStore.open(str(tmp_path_factory.mktemp("planted")))
    kit.plant(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GIT_SHA_VARIABLE, "test")
        settings = kit.settings(fit={"max_epochs": 6, "patience": 6})
        return store, train_fusion(store, kit.LAYOUT, "late", settings)


def trained(store, strategy="late", config=SHORT, **more):
    return train_fusion(store, kit.LAYOUT, strategy, config, clock=lambda: AT, **more)


def rows_of(store, config=SHORT, say=print):
    return open_rows(store, kit.LAYOUT, config, say, cache_dir=None)


def comparable(store, root=ROOT):
    """Everything of the model; of its manifests not how long it took."""
    found = kit.contents(store, root)
    for key in found:
        if key.endswith("snapshot.json"):
            found[key] = {k: v for k, v in json.loads(found[key]).items() if k != "facts"}
    return found


def test_the_model_lies_under_its_strategy_beside_its_version(planted):
    store, report = planted
    found = kit.contents(store, ROOT)
    version = f"{ROOT}versions/{report.id.version}/"
    names = {*NAMES, "snapshot.json"}
    assert found.keys() == {ROOT + n for n in names} | {version + n for n in names}
    assert all(found[ROOT + name] == found[version + name] for name in names)
    assert current_version(store, kit.LAYOUT, "late") == report.id.version
    assert report.loss_falls
    assert not report.reused


def test_per_modality_gradient_norms_are_kept_of_every_epoch(planted):
    store, report = planted
    found = open_song_model(store, kit.LAYOUT, "late")
    norms = found.json("gradients.json")["norms"]
    assert set(norms) == {*MODALITIES, "shared"}
    epochs = len(report.curve["train_loss"])
    assert {len(values) for values in norms.values()} == {epochs}
    told = list(csv.DictReader(io.StringIO(found.read("gradients.csv").decode())))
    assert len(told) == 4 * epochs
    assert all(float(row["norm"]) == norms[row["modality"]][int(row["epoch"]) - 1] for row in told)
    assert report.gradients["ratio"] == 10.0


def test_what_segments_have_is_counted(planted):
    store, report = planted
    rows = rows_of(store)
    for split in ("train", "val"):
        segments = rows.dataset.of_split(split)
        assert sum(report.rows[split].values()) == len(segments)
        assert report.present[split] == {
            name: sum(one.declares(name) for one in segments) for name in MODALITIES
        }
    assert report.left_out == {}
    assert report.problems == {}
    assert report.encoders == {"text": "precomputed", "audio": "cnn", "midi": "piano_roll"}


def test_a_reloaded_model_says_what_its_metrics_say(planted):
    store, report = planted
    found = open_song_model(store, kit.LAYOUT, "late")
    model = SongModel.load(found.read)
    assert model.classes == kit.CLASSES
    rows = rows_of(store, model.config)
    said = said_of(model.network, rows.batches("val", "late"), [MODALITIES])
    assert np.array_equal(said.labels, rows.labelled("val").labels)
    right = (said.logits[MODALITIES].argmax(axis=1) == said.labels).mean()
    assert right == pytest.approx(report.metrics["val"]["accuracy"])
    assert right > 0.5


def test_the_same_inputs_are_not_fitted_twice_and_others_make_another_version(store):
    first = trained(store)
    before = comparable(store)
    said = []
    again = trained(store, say=said.append)
    assert again.reused
    assert again.id == first.id
    assert any("made of the same" in line for line in said)
    assert comparable(store) == before
    assert (again.metrics, again.curve, again.gradients) == (
        first.metrics, first.curve, first.gradients,
    )  # fmt: skip
    data = {"declared": DeclaredShares(midi=0.4), "media_folders": (str(store.url),)}
    judged = SHORT.model_copy(
        update={
            "evaluation": SHORT.evaluation.model_copy(update={"seed": 9}),
            "data": SHORT.data.model_copy(update=data),
        }
    )
    assert trained(store, config=judged).reused, "how it is judged makes no other model"
    other = trained(store, config=kit.settings(seed=1, fit={"max_epochs": 2, "patience": 2}))
    assert not other.reused
    assert current_version(store, kit.LAYOUT, "late") == other.id.version
    assert open_song_model(store, kit.LAYOUT, "late", first.id.version).verify_all().holds


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_fits_and_loads(planted, strategy):
    store, _ = planted
    report = trained(store, strategy)
    assert report.id.model == strategy
    model = SongModel.load(open_song_model(store, kit.LAYOUT, strategy).read)
    assert model.config.model.fusion.strategy == strategy
    assert model.network.modalities == MODALITIES


def test_killed_at_any_write_the_next_run_leaves_the_same_bytes(tmp_path):
    """Writes are checkpoints, one an epoch of a modality alone and of fusion, artifacts, staged and
    final, and their copies.

    Notes are changed each epoch, so that their files, with a fault each, are read in each again.
    """
    changed = {"augment": {"enabled": True, "probability": 1.0}}
    config = kit.settings(midi=changed, fit={"max_epochs": 2, "patience": 2}, warm_start_epochs=1)
    planted = {"songs": FEW, "hanging": (40,)}
    segments = kit.plant(ObjectStore.open(str(tmp_path / "whole")), **planted)
    whole = DisturbedStore(str(tmp_path / "whole"), 10**9, kill)
    report = trained(whole, config=config)
    split_of = read_splits(whole, kit.LAYOUT).split_of
    seen = [one for one in segments if one.has_midi and split_of[one.id] != "test"]
    assert report.problems == {"hanging_notes": len(seen)}
    expected, resumed = comparable(whole), []
    assert whole.writes > 5 + 3 * len(NAMES)
    # In each phase, the first and last of each kind of write.
    tried = [1, 3, 5, 6, 5 + len(NAMES), 6 + len(NAMES), 5 + 2 * len(NAMES), whole.writes]
    for nth in tried:
        folder = str(tmp_path / str(nth))
        kit.plant(ObjectStore.open(folder), **planted)
        with pytest.raises(Killed):
            trained(DisturbedStore(folder, nth, kill), config=config)
        store = ObjectStore.open(folder)
        resumed.append(trained(store, config=config).resumed_after)
        assert comparable(store) == expected, nth
    assert resumed[:4] == [0, 0, 1, 2], "an epoch that was done is not done again"


def test_row_groups_that_order_epochs_make_another_version(store):
    """Of the same rows: random orders are of row groups, and of rows within them."""
    first = trained(store)
    kit.plant(store, songs=FEW, group=5)
    other = trained(store)
    assert not other.reused
    used = [
        open_song_model(store, kit.LAYOUT, "late", each.id.version).json("config_used.json")
        for each in (first, other)
    ]
    assert {name for name in used[0] if used[0][name] != used[1][name]} == {"row_groups"}
    kit.plant(store, songs=FEW)
    assert trained(store).id == first.id


def test_a_damaged_checkpoint_is_counted_and_the_fit_starts_anew(store):
    with pytest.raises(Killed):
        trained(DisturbedStore(store.url, 2, kill))
    (key,) = [key for key in kit.contents(store, ROOT) if "checkpoint" in key]
    store.put(key, store.get(key)[:-1])
    report = trained(store)
    assert (report.discarded, report.resumed_after) == (1, 0)


def test_gradient_imbalance_is_warned_of(store):
    warnings, said = [], []
    settings = kit.settings(imbalance_ratio=1.0001, fit={"max_epochs": 2, "patience": 2})
    report = trained(store, config=settings, warn=warnings.append, say=said.append)
    assert len(warnings) == len(report.advice) == 2
    assert "lower the learning rate of" in warnings[0]
    assert report.advice[0].startswith("epoch 1: gradients of ")
    assert not any("gradients of" in line for line in said)
    again = trained(store, config=settings, warn=warnings.append)
    assert again.reused
    assert again.advice == report.advice


def test_alignment_quality_check(tmp_path):
    """Misaligned segments are flagged when data are loaded, and left out if that is wished."""
    store = ObjectStore.open(str(tmp_path))
    segments = kit.plant(store, songs=FEW)
    pairs = [one.id for one in segments if one.has_audio and one.has_midi]
    bad = dict.fromkeys(pairs[:3], "misaligned")
    kit.put_alignment(store, segments, bad)
    said = []
    flagged = rows_of(store, say=said.append)
    assert set(flagged.alignment.flagged) == set(bad)
    assert "misaligned segments: 0 left out, 3 used nevertheless" in said[0]
    assert len(flagged.dataset) == len(segments)
    excluding = kit.settings(alignment={"exclude_misaligned": True})
    rows = rows_of(store, excluding, said.append)
    assert len(rows.dataset) == len(segments) - 3
    assert rows.left_out() == {"misaligned": 3}
    assert not {one.id for one in rows.dataset.segments} & set(bad)
    assert rows.identity("train") != flagged.identity("train")


def test_alignment_of_other_media_is_not_applied(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    kit.plant(store, songs=FEW)
    rows_of(store)
    media = kit.LAYOUT.media()
    store.put(media, store.get(media))
    with pytest.raises(NoAlignment, match="of other media than those of now"):
        rows_of(store)


def test_what_is_missing_is_said(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    kit.plant(store, songs=FEW, split=False)
    with pytest.raises(NoSongSplits):
        trained(store)
    store.delete(kit.LAYOUT.alignment("Blue"))
    with pytest.raises(NoAlignment, match="materialise songs/alignment"):
        trained(store)


def test_too_few_labels_are_said(store):
    data = {**SHORT.data.model_dump(), "classes": ["calm", "silent"]}
    other = song_config({**SHORT.model_dump(), "data": data})
    with pytest.raises(NoLabelledSegments, match=r"none of \['silent'\].* left out: other_label"):
        trained(store, config=other)


def test_packages_that_decide_bits_are_part_of_the_version(planted):
    used = open_song_model(planted[0], kit.LAYOUT, "late").json("config_used.json")
    for name in ("librosa", "soxr", "tokenizers", "transformers", "torch"):
        assert used["versions"][name] == version(name)
    assert used["changes"] == CHANGES_VERSION, "so does how sound and notes are changed"


def test_encoders_are_those_of_the_profile(store, tmp_path, monkeypatch):
    """Of the caller's, whatever the environment says."""
    monkeypatch.setenv("CLIPFARM_ENCODERS", "pretrained")
    stand_in_deberta(tmp_path, size=SMALL_DEBERTA)
    told = SHORT.model_dump()
    told["model"]["text_encoder"] = {"type": "deberta", "max_tokens": 8}
    report = trained(store, config=song_config(told), cache_dir=tmp_path, profile="demo")
    assert report.encoders["text"].endswith("(stand-in)")


def test_batches_of_val_are_in_the_order_of_the_rows(planted):
    store, _ = planted
    rows = rows_of(store)
    labels = [label for _, label in rows.batches("val", "late").epoch(torch.Generator())]
    rows.check_in_order("val", torch.cat(labels).numpy())
    with pytest.raises(RuntimeError, match="gave other segments"):
        rows.check_in_order("val", torch.cat(labels).numpy()[::-1])
    groups = dict(zip(rows.labelled("val").ids, rows.labelled("val").groups, strict=True))
    assert all(group.startswith("song ") for group in groups.values())


@pytest.mark.parametrize("top_layers", [0, 1])
def test_a_pretrained_encoder_runs_in_the_network(store, tmp_path, top_layers):
    """Frozen, its weights are not kept but looked for; its last layers are trained at a rate."""
    folder = stand_in_deberta(tmp_path / "models", ["la"], SMALL_DEBERTA)
    told = SHORT.model_dump()
    told["model"]["text_encoder"] = {
        "type": "deberta", "model": str(folder), "max_tokens": 8, "top_layers": top_layers,
    }  # fmt: skip
    config = song_config(told)
    report = trained(store, config=config)
    assert report.encoders["text"] == f"deberta {folder.name} (stand-in)"
    found = open_song_model(store, kit.LAYOUT, "late")
    kept = b"encoders.text.model.encoder.layer.2." in found.read("model.safetensors")
    assert kept is (top_layers == 1)
    assert b"encoders.text.model.embeddings." not in found.read("model.safetensors")
    rows = rows_of(store, config)
    model = rows.load(found)
    said = said_of(model.network, rows.batches("val", "late"), [MODALITIES])
    right = (said.logits[MODALITIES].argmax(axis=1) == said.labels).mean()
    assert right == pytest.approx(report.metrics["val"]["accuracy"])
    weights = from_safetensors((folder / "model.safetensors").read_bytes(), "")
    weights["embeddings.LayerNorm.bias"] += 1
    (folder / "model.safetensors").write_bytes(to_safetensors(weights, {"format": "pt"}))
    with pytest.raises(BadWeights, match="fitted over other pretrained weights"):
        rows.load(found)


def test_words_that_were_never_encoded_are_not_taken_for_none(store):
    metadata = pq.read_table(pa.BufferReader(store.get(kit.LAYOUT.metadata())))
    store.put(kit.LAYOUT.metadata(), parquet(metadata.drop_columns("text_embedding")))
    with pytest.raises(NoFeatures, match=r"text features must be there .*materialise songs/feat"):
        rows_of(store)
