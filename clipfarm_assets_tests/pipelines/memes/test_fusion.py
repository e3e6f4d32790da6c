"""Fusion learns what neither modality tells, and ends in the same bytes whatever happens."""

import hashlib
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from clipfarm_assets.pipelines.memes.expert_fit import NoLabelledRows
from clipfarm_assets.pipelines.memes.expert_store import NoExpert, publish_expert
from clipfarm_assets.pipelines.memes.fusion import OtherExperts, load_fusion, train_fusion
from clipfarm_assets.pipelines.memes.fusion_rows import open_rows
from clipfarm_assets.pipelines.memes.shard_index import load_index
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.classification.metrics import macro_f1
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE
from clipfarm_assets.training.experts.fusion_head import FusionModel, stored_inputs
from clipfarm_assets.training.meme_snapshot import NoMemeModel, current_version, open_fusion
from clipfarm_assets.training.networks.weights import BadWeights
from clipfarm_assets.training.snapshot import BadSnapshot
from clipfarm_assets_tests.pipelines.memes import fusion_kit as kit
from clipfarm_assets_tests.processes import call
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

ROOT = "memes/models/mm_fusion/"
NAMES = {
    "config_used.json",
    "config.json",
    "fusion_model.pt",
    "fusion_model.safetensors",
    "metrics.json",
    "curves.json",
    "calibration.json",
}
AT = datetime(2026, 1, 1, tzinfo=UTC)
# Few epochs and rows: what is killed is started again, often.
SHORT = kit.quick(fit={"max_epochs": 3, "patience": 3})
FEW = {"train": 40, "val": 16, "test": 16}


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch):
    monkeypatch.setenv(GIT_SHA_VARIABLE, "test")


@pytest.fixture
def store(tmp_path):
    return ObjectStore.open(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    store = ObjectStore.open(str(tmp_path_factory.mktemp("planted")))
    kit.plant(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GIT_SHA_VARIABLE, "test")
        return store, train_fusion(store, kit.LAYOUT, kit.LABEL, kit.quick())


def trained(store, config=SHORT, **more):
    return train_fusion(store, kit.LAYOUT, kit.LABEL, config, clock=lambda: AT, **more)


def rows_of(store, splits=("val", "test")):
    return open_rows(store, kit.LAYOUT, kit.LABEL, splits, None, print)


def comparable(store):
    """Everything of the model; of its manifests not how long it took."""
    found = kit.contents(store, ROOT)
    for key in found:
        if key.endswith("snapshot.json"):
            found[key] = {k: v for k, v in json.loads(found[key]).items() if k != "facts"}
    return found


def test_fusion_learns_the_xor_of_two_modalities(planted):
    store, report = planted
    rows = rows_of(store)
    model = load_fusion(
        store, kit.LAYOUT, open_fusion(store, kit.LAYOUT, kit.LABEL), None, rows.records
    )
    test = rows.without_hidden("test")
    both = rows.fused("test", model).argmax(axis=1)
    assert macro_f1(test.labels, both) >= 0.95
    for seen in ((True, False), (False, True)):
        assert macro_f1(test.labels, rows.fused("test", model, seen).argmax(axis=1)) < 0.65
    assert not report.reused
    assert report.loss_falls
    assert report.metrics["val"]["macro_f1"] >= 0.95
    assert report.experts == {
        "text": "planted-text (stand-in)",
        "vision": "planted-vision (stand-in)",
    }


def test_rows_are_counted_by_class_and_those_without_the_label_too(planted):
    _, report = planted
    assert report.unlabelled == {"train": 68, "val": 22}
    for split, size in (("train", 480), ("val", 160)):
        assert sum(report.rows[split].values()) + report.unlabelled[split] == size
        assert set(report.rows[split]) == set(kit.CLASSES)


def test_the_model_lies_where_the_specification_says_beside_its_version(planted):
    store, report = planted
    found = kit.contents(store, ROOT)
    version = f"{ROOT}versions/{report.id.version}/"
    names = {*NAMES, "snapshot.json"}
    assert found.keys() == {ROOT + n for n in names} | {version + n for n in names}
    assert all(found[ROOT + name] == found[version + name] for name in names)
    assert current_version(store, kit.LAYOUT, kit.LABEL) == report.id.version
    manifest = json.loads(found[f"{ROOT}snapshot.json"])
    assert manifest["label"] == kit.LABEL
    assert manifest["artifacts"].keys() == NAMES
    assert (
        manifest["artifacts"]["fusion_model.pt"]["sha256"]
        == hashlib.sha256(found[f"{ROOT}fusion_model.pt"]).hexdigest()
    )


@pytest.mark.parametrize("name", ["fusion_model.pt", "fusion_model.safetensors"])
def test_a_reloaded_state_dict_gives_the_same_logits_bit_for_bit(planted, name):
    store, _ = planted
    found = open_fusion(store, kit.LAYOUT, kit.LABEL)
    model = FusionModel.load(found.read)
    part = next(rows_of(store).parts("test"))
    inputs = stored_inputs(part.hidden, part.present)
    before = model.logits(inputs)
    if name.endswith(".pt"):
        state = torch.load(io.BytesIO(found.read(name)), weights_only=True)
        with torch.no_grad():
            for value in model.network.parameters():
                value.fill_(torch.nan)
        model.network.load_state_dict(state)
    else:
        model = FusionModel.load(found.read)
    assert (model.logits(inputs) == before).all()
    # And the numbers are those of the formula, written out.
    weights = {key: value.double() for key, value in model.network.state_dict().items()}
    seen = [inputs["text"].double(), inputs["vision"].double()]
    absent = ~inputs["present"]
    for side, key in enumerate(("missing.text", "missing.vision")):
        seen[side] = torch.where(absent[:, side, None], weights[key], seen[side])
    hidden = torch.cat(seen, dim=1) @ weights["head.0.weight"].T + weights["head.0.bias"]
    plain = torch.nn.functional.gelu(hidden) @ weights["head.3.weight"].T + weights["head.3.bias"]
    assert np.abs(plain.numpy() - before).max() < 1e-4


def test_the_same_inputs_are_not_fitted_twice_and_others_make_another_version(store):
    kit.plant(store, sizes=FEW)
    first = trained(store)
    before = comparable(store)
    said = []
    again = trained(store, say=said.append)
    assert again.reused
    assert again.id == first.id
    assert any("made of the same" in line for line in said)
    assert comparable(store) == before
    assert (again.metrics, again.curve, again.calibration) == (
        first.metrics, first.curve, first.calibration,
    )  # fmt: skip
    other = trained(store, SHORT.model_copy(update={"seed": 1}))
    assert not other.reused
    assert other.id.version != first.id.version
    assert current_version(store, kit.LAYOUT, kit.LABEL) == other.id.version
    assert open_fusion(store, kit.LAYOUT, kit.LABEL, first.id.version).verify_all().holds


def version_trained_in(folder):
    return trained(ObjectStore.open(folder)).id.version


def test_the_same_seed_gives_the_same_bytes_in_another_process(store, tmp_path):
    kit.plant(store, sizes=FEW)
    here = trained(store)
    other = ObjectStore.open(str(tmp_path / "other"))
    kit.plant(other, sizes=FEW)
    assert call(version_trained_in, str(tmp_path / "other")) == here.id.version
    assert comparable(other) == comparable(store)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What is left by a run that nobody disturbs, and how often it writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    kit.plant(ObjectStore.open(str(folder)), sizes=FEW)
    store = DisturbedStore(str(folder), 10**9, kill)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GIT_SHA_VARIABLE, "test")
        trained(store)
    return comparable(store), store.writes


def test_killed_at_any_write_the_next_run_leaves_the_same_bytes(undisturbed, tmp_path):
    """Writes are checkpoints, one an epoch, artifacts, staged and final, and their copies."""
    expected, writes = undisturbed
    assert writes > 3 + 3 * len(NAMES)
    resumed = []
    for nth in range(1, writes + 1):
        folder = str(tmp_path / str(nth))
        kit.plant(ObjectStore.open(folder), sizes=FEW)
        with pytest.raises(Killed):
            trained(DisturbedStore(folder, nth, kill))
        store = ObjectStore.open(folder)
        report = trained(store)
        resumed.append(report.resumed_after)
        assert comparable(store) == expected, nth
    assert resumed[:4] == [0, 1, 2, 3], "an epoch that was done is not done again"


def test_a_damaged_checkpoint_is_counted_and_the_fit_starts_anew(undisturbed, store):
    kit.plant(store, sizes=FEW)
    with pytest.raises(Killed):
        trained(DisturbedStore(store.url, 2, kill))
    (key,) = [key for key in kit.contents(store, ROOT) if "checkpoint" in key]
    store.put(key, store.get(key)[:-1])
    report = trained(store)
    assert (report.discarded, report.resumed_after) == (1, 0)
    assert comparable(store) == undisturbed[0]


def test_a_pilot_of_50_memes_runs_its_loss_falls_and_it_loads(store):
    kit.plant(store, sizes=kit.PILOT, unlabelled=100)
    report = trained(store, kit.quick(fit={"max_epochs": 5}))
    assert sum(report.rows["train"].values()) == 34
    assert report.loss_falls
    model = FusionModel.load(open_fusion(store, kit.LAYOUT, kit.LABEL).read)
    assert model.architecture.classes == kit.CLASSES


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "binary_cross_entropy"},
        {"class_weights": "none"},
        {"strategy": "gated", "modality_dropout": 0.3},
        {"strategy": "early"},
        {"strategy": "cross_attention"},
        {"text_representation": "logits", "image_representation": "logits"},
    ],
    ids=str,
)
def test_every_way_of_fusing_fits_and_loads(store, changes):
    kit.plant(store, sizes=FEW)
    report = trained(store, kit.quick(**changes, fit={"max_epochs": 2}))
    rows = rows_of(store, ("val",))
    found = open_fusion(store, kit.LAYOUT, kit.LABEL, report.id.version)
    logits = rows.fused("val", load_fusion(store, kit.LAYOUT, found, None, rows.records))
    assert logits.shape == (sum(report.rows["val"].values()), 2)
    assert np.isfinite(logits).all()


def test_one_epoch_tells_nothing_of_the_loss(store):
    kit.plant(store, sizes=FEW)
    assert trained(store, kit.quick(fit={"max_epochs": 1})).loss_falls is None
    two = trained(store, kit.quick(fit={"max_epochs": 2, "learning_rate": 1e-3}))
    first, last = two.curve["train_loss"]
    assert two.loss_falls is (last < first)


def test_logits_of_experts_that_saw_the_same_rows_are_said_to_be_too_sure(store):
    kit.plant(store, sizes=FEW)
    lines = []
    config = kit.quick(text_representation="logits", fit={"max_epochs": 1})
    report = trained(store, config, say=lines.append)
    (note,) = report.notes
    assert "text expert's logits are not cross-fit" in note
    assert note in lines
    assert report.metrics["notes"] == [note]
    assert trained(store, config).notes == (note,)
    assert trained(store, kit.quick(fit={"max_epochs": 1})).notes == ()


def test_shards_are_streamed_one_after_another_and_shuffled_in_train(store, monkeypatch):
    kit.plant(store, sizes=FEW, shard_rows=8)
    rows = rows_of(store, ("train", "val"))
    assert [len(part.ids) for part in rows.parts("val")] == [7, 7]
    config = SHORT.model_copy(update={"shuffle_buffer": 4})
    batches = rows.stored_batches("train", config, config.representations)
    order = torch.Generator().manual_seed(1)
    epochs = [torch.cat([target for _, target in batches.epoch(order)]) for _ in range(2)]
    assert len(epochs[0]) == batches.rows == sum(rows.counts("train"))
    assert sorted(epochs[0].tolist()) == sorted(epochs[1].tolist())
    assert epochs[0].tolist() != epochs[1].tolist()


def test_what_is_missing_is_said(store):
    with pytest.raises(NoMemeModel, match="materialise memes/fusion_model"):
        open_fusion(store, kit.LAYOUT, kit.LABEL)
    kit.plant(store, sizes=FEW)
    with pytest.raises(ValueError, match="unknown label 'other'"):
        train_fusion(store, kit.LAYOUT, "other", SHORT)
    store.delete(kit.LAYOUT.expert("text", kit.LABEL) + "expert.json")
    with pytest.raises(NoExpert, match="memes/text_expert"):
        trained(store)


def test_a_split_without_labelled_rows_is_refused(store):
    kit.plant(store, sizes=FEW)
    index, _ = load_index(store, kit.LAYOUT, "val")
    store.put(kit.LAYOUT.shard_index("val"), replace(index, labels={}).to_json())
    with pytest.raises(NoLabelledRows, match="val has no rows labelled 'abuse_hate' among its 16"):
        trained(store)


def test_a_model_of_other_experts_is_refused(store):
    kit.plant(store, sizes=FEW)
    trained(store)
    newer = kit.record(store, "text").model_copy(update={"version": "text-fedcba9876543210"})
    publish_expert(store, kit.LAYOUT.expert("text", kit.LABEL), newer, kit.FILES)
    found = open_fusion(store, kit.LAYOUT, kit.LABEL)
    records = rows_of(store).records
    with pytest.raises(OtherExperts, match="materialise memes/fusion_model"):
        load_fusion(store, kit.LAYOUT, found, None, records)


def test_changed_files_of_a_model_are_refused(store):
    kit.plant(store, sizes=FEW)
    report = trained(store)
    root = f"{ROOT}versions/{report.id.version}/"
    weights = store.get(f"{root}fusion_model.safetensors")
    store.put(f"{root}fusion_model.safetensors", weights[:-1] + bytes([weights[-1] ^ 1]))
    found = open_fusion(store, kit.LAYOUT, kit.LABEL)
    with pytest.raises(BadSnapshot, match=r"fusion_model.safetensors was changed since"):
        FusionModel.load(found.read)
    files = {name: found.read(name) for name in ("config.json", "fusion_model.pt")}
    other = {**files, "fusion_model.safetensors": weights, "config.json": b"{}"}
    with pytest.raises(BadWeights, match=r"config.json must be a FusionArchitecture"):
        FusionModel.load(other.__getitem__)
    store.put(f"{ROOT}snapshot.json", b"{}")
    with pytest.raises(BadSnapshot, match="names no version"):
        open_fusion(store, kit.LAYOUT, kit.LABEL)


class RecordingStore(ObjectStore):
    """Remembers what was written, in order."""

    def __init__(self, url):
        super().__init__(url)
        self.keys = []

    def put(self, key, data):
        super().put(key, data)
        self.keys.append(key)

    def put_if_absent(self, key, data):
        super().put_if_absent(key, data)
        self.keys.append(key)


def test_the_claim_is_written_first_and_the_manifest_last(tmp_path):
    store = RecordingStore(str(tmp_path))
    kit.plant(store, sizes=FEW)
    report = trained(store)
    for folder in (f"{ROOT}versions/{report.id.version}/", ROOT):
        names = [key.removeprefix(folder) for key in store.keys if key.startswith(folder)]
        names = [name for name in names if "/" not in name]
        assert len(names) == len(NAMES) + 1
        assert names[-1] == "snapshot.json"
        assert folder == ROOT or names[0] == "config_used.json"
