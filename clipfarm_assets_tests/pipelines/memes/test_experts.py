import json
from pathlib import Path

import numpy as np
import pytest
import transformers

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.pipelines.memes.expert_fit import MODEL_VARIABLES, NoLabelledRows
from clipfarm_assets.pipelines.memes.expert_store import (
    BadRecord,
    NoExpert,
    UnfinishedExpert,
    expert_record,
    publish_expert,
    version_root,
)
from clipfarm_assets.pipelines.memes.experts import load_expert, open_expert, train_expert
from clipfarm_assets.pipelines.memes.rows import read_index
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.experts.loading import WrongClasses
from clipfarm_assets.training.experts.text import TextExpert
from clipfarm_assets.training.networks.checkpoint import StoredCheckpoint
from clipfarm_assets_tests.pipelines.memes.expert_kit import LABEL, LAYOUT, fill, stored
from clipfarm_assets_tests.training.experts import kit
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

ROOT = LAYOUT.expert("text", LABEL)


@pytest.fixture(autouse=True)
def _nothing_named_by_the_environment(monkeypatch):
    for variable in MODEL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {"text": kit.text_folder(folder), "vision": kit.vision_folder(folder)}


@pytest.fixture
def memes(tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    fill(store)
    return store


def config_of(base, **changes):
    return kit.quick_config(base=str(base), top_layers=1, **changes)


def train(store, bases, modality="text", **changes):
    return train_expert(store, LAYOUT, modality, LABEL, config_of(bases[modality], **changes))


def finished(folder: Path, bases, classes=kit.CLASSES) -> Path:
    """A model directory with a head for `classes`."""
    from clipfarm_assets.training.experts.saving import saved

    folder.mkdir(parents=True)
    expert = TextExpert.start(bases["text"], classes, seed=9)
    for name, data in saved(expert).items():
        (folder / name).write_bytes(data)
    return folder


def test_a_fine_tuned_expert_is_a_model_directory_that_transformers_loads(memes, bases, tmp_path):
    report = train(memes, bases)
    record = report.record
    assert (record.origin, record.state, report.reused) == ("fine_tuned", "complete", False)
    assert record.is_stand_in
    assert record.name == "clipfarm-meme-bert-stand-in-1-fine-tuned"
    assert record.rows == {"train": 36, "val": 15, "train_unlabelled": 4, "val_unlabelled": 1}
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(Path(memes.url) / ROOT)
    assert tuple(plain.config.id2label.values()) == kit.CLASSES == record.classes
    expert = open_expert(memes, LAYOUT, "text", LABEL, tmp_path / "cache")
    assert (expert.version, expert.dim, expert.name) == (record.version, 32, record.name)
    assert record.curve["train_loss"][-1] < record.curve["train_loss"][0]
    assert record.shards == {s: read_index(memes, LAYOUT, s).version for s in ("train", "val")}


def test_the_default_label_lies_where_the_specification_has_it():
    assert LAYOUT.expert("text", "abuse_hate") == "memes/models/text_expert/"


def test_the_same_shards_and_settings_give_the_same_bytes(memes, bases, tmp_path):
    train(memes, bases)
    other = ObjectStore.open(str(tmp_path / "other"))
    fill(other)
    train(other, bases)
    assert stored(memes, ROOT) == stored(other, ROOT)


def test_an_expert_that_is_there_is_kept_until_what_decides_it_changes(memes, bases):
    first = train(memes, bases)
    before = stored(memes, ROOT)
    again = train(memes, bases)
    assert again.reused
    assert again.record == first.record
    assert stored(memes, ROOT) == before
    changed = train(memes, bases, seed=3)
    assert not changed.reused
    assert changed.record.version != first.record.version


def test_a_lost_file_is_made_again(memes, bases):
    train(memes, bases)
    before = stored(memes, ROOT)
    memes.delete(f"{ROOT}model.safetensors")
    assert not train(memes, bases).reused
    assert stored(memes, ROOT) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "versions"])
def test_a_changed_file_is_made_again(memes, bases, name):
    record = train(memes, bases).record
    before = stored(memes, "memes/models")
    key = f"{version_root(ROOT, record)}expert.json" if name == "versions" else ROOT + name
    data = before[key]
    memes.put(key, data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    assert not train(memes, bases).reused
    assert stored(memes, "memes/models") == before


def test_a_changed_file_of_a_found_expert_is_not_taken_for_another_expert(memes, bases, tmp_path):
    for path in finished(tmp_path / "mine", bases).iterdir():
        memes.put(f"{ROOT}{path.name}", path.read_bytes())
    train(memes, bases)
    config = json.loads(memes.get(f"{ROOT}config.json"))
    memes.put(f"{ROOT}config.json", json.dumps(config).encode())
    with pytest.raises(ModelMismatch, match=r"config\.json.*put back.*or delete expert\.json"):
        train(memes, bases)
    memes.delete(f"{ROOT}expert.json")
    assert train(memes, bases).record.origin == "found"


def test_an_expert_is_opened_as_its_record_was_read(memes, bases, tmp_path):
    first = train(memes, bases).record
    cache = tmp_path / "cache"
    open_expert(memes, LAYOUT, "text", LABEL, cache)
    train(memes, bases, seed=3)
    for folder in (cache, tmp_path / "empty"):
        assert load_expert(memes, LAYOUT, first, folder).version == first.version


def test_killed_at_any_write_of_a_replacement_the_next_one_leaves_no_strangers(
    memes, bases, tmp_path
):
    """A third expert follows the one that was cut short: it has none of the first one's files."""
    first = train(memes, bases).record
    strange = {"config.json": b"{}", "old.json": b"{}", "model.safetensors": b"old"}
    third = {"config.json": b"{}", "model.safetensors": b"third"}
    for nth in range(1, 11):
        folder = str(tmp_path / str(nth))
        store = ObjectStore.open(folder)
        publish_expert(store, ROOT, first, strange)
        second = {"config.json": b"{}", "new.json": b"{}", "model.safetensors": b"new"}
        with pytest.raises(Killed):
            publish_expert(DisturbedStore(folder, nth, kill), ROOT, first, second)
        publish_expert(store, ROOT, first, third)
        assert stored(store, ROOT).keys() == {ROOT + name for name in (*third, "expert.json")}, nth


def test_a_killed_fit_goes_on_to_the_same_bytes(memes, bases, tmp_path, monkeypatch):
    save = StoredCheckpoint.save

    def save_and_die(self, data):
        save(self, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(StoredCheckpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(memes, bases)
    monkeypatch.undo()
    assert not stored(memes, ROOT)
    lines = []
    train_expert(memes, LAYOUT, "text", LABEL, config_of(bases["text"]), lines.append)
    assert any("goes on from a checkpoint after epoch 1/3" in line for line in lines)
    assert not stored(memes, "memes/state/checkpoints")
    other = ObjectStore.open(str(tmp_path / "other"))
    fill(other)
    train(other, bases)
    assert stored(memes, ROOT) == stored(other, ROOT)


def test_a_vision_expert_comes_from_the_profile_if_no_base_is_named(memes, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPFARM_ENCODERS", "demo")
    fit = kit.quick_config().fit.model_copy(update={"max_epochs": 1})
    config = kit.quick_config(top_layers=0, fit=fit)
    record = train_expert(memes, LAYOUT, "vision", LABEL, config).record
    assert record.source.name == "clipfarm-meme-vit-stand-in-1"
    assert (record.is_stand_in, record.dim) == (True, 768)
    assert open_expert(memes, LAYOUT, "vision", LABEL, tmp_path).version == record.version


@pytest.mark.parametrize("by", ["config", "environment"])
def test_a_supplied_expert_is_used_as_it_is(memes, bases, tmp_path, monkeypatch, by):
    folder = finished(tmp_path / "mine", bases)
    if by == "environment":
        monkeypatch.setenv(MODEL_VARIABLES["text"], str(folder))
    config = kit.quick_config(model=str(folder) if by == "config" else None)
    record = train_expert(memes, LAYOUT, "text", LABEL, config).record
    assert (record.origin, record.name, record.curve) == ("supplied", "mine", None)
    opened = open_expert(memes, LAYOUT, "text", LABEL, tmp_path / "cache")
    texts = kit.some_texts(5)
    plain = TextExpert.load(folder).represent(texts)
    assert np.array_equal(opened.represent(texts).hidden, plain.hidden)
    assert train_expert(memes, LAYOUT, "text", LABEL, config).reused


@pytest.mark.parametrize("classes", [("a", "b", "c"), tuple(reversed(kit.CLASSES))])
def test_an_expert_of_other_classes_is_refused(memes, bases, tmp_path, classes):
    config = kit.quick_config(model=str(finished(tmp_path / "mine", bases, classes)))
    with pytest.raises(WrongClasses, match="must tell the classes calm, angry, in this order"):
        train_expert(memes, LAYOUT, "text", LABEL, config)


def test_an_expert_with_other_names_of_its_classes_needs_to_be_told_which_is_which(
    memes, bases, tmp_path
):
    folder = str(finished(tmp_path / "mine", bases, ("quiet", "furious")))
    with pytest.raises(WrongClasses, match=r"found quiet, furious.*set `class_names`"):
        train_expert(memes, LAYOUT, "text", LABEL, kit.quick_config(model=folder))
    names = {"quiet": "calm", "furious": "angry"}
    config = kit.quick_config(model=folder, class_names=names)
    record = train_expert(memes, LAYOUT, "text", LABEL, config).record
    assert (record.origin, record.classes) == ("supplied", kit.CLASSES)
    with pytest.raises(WrongClasses):
        train_expert(memes, LAYOUT, "text", LABEL, kit.quick_config(model=folder))


def test_an_expert_of_a_store_is_not_supplied_without_its_record_being_seen(memes, bases):
    """What it was fitted on would be forgotten."""
    train(memes, bases)
    before = stored(memes, "memes/models")
    with pytest.raises(ModelUnavailable, match=r"name a copy without that file"):
        train(memes, bases, model=str(Path(memes.url) / ROOT))
    assert stored(memes, "memes/models") == before


def test_a_model_directory_put_into_the_store_is_taken_for_the_expert(memes, bases, tmp_path):
    for path in finished(tmp_path / "mine", bases).iterdir():
        memes.put(f"{ROOT}{path.name}", path.read_bytes())
    before = stored(memes, ROOT)
    record = train(memes, bases).record
    assert record.origin == "found"
    after = stored(memes, ROOT)
    assert after.pop(f"{ROOT}expert.json")
    assert after == before
    kept = version_root(ROOT, record)
    for name in record.files:
        assert memes.get(f"{kept}{name}") == before[f"{ROOT}{name}"]
    assert train(memes, bases).reused


def test_a_hub_model_stays_at_the_commit_it_was_first_found_at(memes, bases, tmp_path, monkeypatch):
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--some--model"
    commits = ["1" * 40, "2" * 40]
    for commit in commits:
        finished(repository / "snapshots" / commit, bases)
    main = repository / "refs" / "main"
    main.parent.mkdir()
    main.write_text(commits[0])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def source(name):
        config = kit.quick_config(model=name)
        return train_expert(memes, LAYOUT, "text", LABEL, config).record.source

    first = source("some/model")
    assert (first.name, first.revision) == ("some/model", commits[0])
    main.write_text(commits[1])
    assert source("some/model") == first
    later = source(f"some/model@{commits[1]}")
    assert (later.name, later.revision) == ("some/model", commits[1])


def test_a_model_that_is_nowhere_says_so(memes):
    config = kit.quick_config(model="/no/such/directory")
    with pytest.raises(ModelUnavailable, match="neither an existing directory nor a hub name"):
        train_expert(memes, LAYOUT, "text", LABEL, config)


def test_a_label_that_nobody_gave_says_so(memes, bases):
    with pytest.raises(NoLabelledRows, match="train has no rows labelled 'other' among its 40"):
        train_expert(memes, LAYOUT, "text", "other", config_of(bases["text"]))


def test_an_expert_that_is_not_there_whole_or_unchanged_is_not_opened(memes, bases, tmp_path):
    with pytest.raises(NoExpert, match="materialise memes/text_expert for 'mood' first"):
        open_expert(memes, LAYOUT, "text", LABEL, tmp_path)
    train(memes, bases)
    key = f"{ROOT}expert.json"
    whole = memes.get(key)
    memes.put(key, whole.replace(b'"complete"', b'"writing"'))
    with pytest.raises(UnfinishedExpert, match="cut short"):
        open_expert(memes, LAYOUT, "text", LABEL, tmp_path)
    assert not train(memes, bases).reused
    assert memes.get(key) == whole
    file = f"{version_root(ROOT, expert_record(memes, LAYOUT, 'text', LABEL))}config.json"
    memes.put(file, json.dumps(json.loads(memes.get(file))).encode())
    with pytest.raises(ModelMismatch, match="not those of the text expert on record"):
        open_expert(memes, LAYOUT, "text", LABEL, tmp_path)
    memes.put(key, b"{}")
    with pytest.raises(BadRecord, match="delete it"):
        expert_record(memes, LAYOUT, "text", LABEL)


def test_a_write_cut_short_leaves_no_whole_expert(memes, bases, monkeypatch, tmp_path):
    put = ObjectStore.put

    def put_and_die(self, key, data):
        put(self, key, data)
        if key == f"{ROOT}model.safetensors":
            raise KeyboardInterrupt

    monkeypatch.setattr(ObjectStore, "put", put_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(memes, bases)
    monkeypatch.undo()
    with pytest.raises(UnfinishedExpert):
        open_expert(memes, LAYOUT, "text", LABEL, tmp_path)
    assert train(memes, bases).record.state == "complete"
    open_expert(memes, LAYOUT, "text", LABEL, tmp_path)
