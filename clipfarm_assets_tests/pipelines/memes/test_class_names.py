"""A number of a class means the same class from the manifest to the fusion model, or all stops."""

import json

import pytest

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY, LabelTaxonomy
from clipfarm_assets.pipelines.memes.expert_fit import LabelledShards
from clipfarm_assets.pipelines.memes.expert_store import expert_record, publish_expert
from clipfarm_assets.pipelines.memes.fusion import OtherExperts, load_fusion, train_fusion
from clipfarm_assets.pipelines.memes.fusion_rows import open_rows
from clipfarm_assets.pipelines.memes.promises import shards_match_splits
from clipfarm_assets.pipelines.memes.rows import read_index
from clipfarm_assets.pipelines.memes.shard_index import BadIndex, OtherClasses
from clipfarm_assets.pipelines.memes.shards import write_shards
from clipfarm_assets.pipelines.memes.splits import OtherTaxonomy, make_splits, read_divided
from clipfarm_assets.pipelines.progress import silent
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.meme_snapshot import open_fusion
from clipfarm_assets_tests.pipelines.memes import fusion_kit, raw_kit, shard_kit

LABEL = "abuse_hate"
CLASSES = DEFAULT_TAXONOMY.classes(LABEL)
SWAPPED = LabelTaxonomy({LABEL: CLASSES[::-1]}, DEFAULT_TAXONOMY.aliases)
LAYOUT = raw_kit.LAYOUT


@pytest.fixture
def store(tmp_path):
    return ObjectStore.open(str(tmp_path))


def packed(store, **more):
    rows = shard_kit.memes(4)
    shard_kit.fill(store, rows)
    return shard_kit.write(store, rows, **more)


def labelled(store, classes):
    return LabelledShards.open(store, LAYOUT, "train", LABEL, classes)


def test_the_index_names_the_classes_of_its_numbers(store):
    packed(store)
    assert read_index(store, LAYOUT, "train").classes == {LABEL: CLASSES}
    assert sum(labelled(store, CLASSES).counts) == 4


@pytest.mark.parametrize("classes", [CLASSES[::-1], (*CLASSES, "more"), CLASSES[:1]])
def test_an_expert_is_not_fitted_on_shards_of_other_classes(store, classes):
    packed(store)
    with pytest.raises(OtherClasses, match="they have not_abuse_hate, abuse_hate; materialise"):
        labelled(store, classes)


def test_packing_again_takes_over_other_names_and_keeps_the_shards(store):
    before = packed(store)
    again = packed(store, taxonomy=SWAPPED)
    assert (again.written, again.kept) == (0, len(before.index.shards))
    assert sum(labelled(store, CLASSES[::-1]).counts) == 4


def without_names(store):
    key = LAYOUT.shard_index("train")
    body = json.loads(store.get(key))
    del body["classes"]
    store.put(key, json.dumps(body).encode())


def test_an_index_without_names_is_refused_until_it_is_made_again(store):
    packed(store)
    without_names(store)
    with pytest.raises(OtherClasses, match="none by name"):
        labelled(store, CLASSES)
    packed(store)
    assert sum(labelled(store, CLASSES).counts) == 4


@pytest.mark.parametrize("names", ["ab", [1, 2], None])
def test_names_that_are_none_are_no_index(store, names):
    packed(store)
    key = LAYOUT.shard_index("train")
    body = json.loads(store.get(key)) | {"classes": {LABEL: names}}
    store.put(key, json.dumps(body).encode())
    with pytest.raises(BadIndex, match="expected names of classes"):
        read_index(store, LAYOUT, "train")


@pytest.mark.parametrize(
    "taxonomy",
    [SWAPPED, LabelTaxonomy({LABEL: CLASSES}), LabelTaxonomy({LABEL: CLASSES, "x": ("a", "b")})],
)
def test_a_taxonomy_changed_after_the_splits_is_refused(store, taxonomy):
    raw_kit.put_rows(store, raw_kit.put_memes(store, 12, labels={LABEL: 1}))
    make_splits(store, LAYOUT)
    memes, splits = read_divided(store, LAYOUT)
    write_shards(store, LAYOUT, "train", memes.rows, splits, memes.taxonomy)
    assert shards_match_splits(store, LAYOUT, "train").holds
    store.put(LAYOUT.taxonomy_source(), taxonomy.to_json())
    with pytest.raises(OtherTaxonomy, match="materialise memes/splits again") as caught:
        read_divided(store, LAYOUT)
    assert LAYOUT.taxonomy_source() in str(caught.value)
    make_splits(store, LAYOUT)
    assert read_divided(store, LAYOUT)[0].taxonomy == taxonomy
    found = shards_match_splits(store, LAYOUT, "train").findings
    of_labels = {finding.subject for finding in found if finding.subject.startswith("label ")}
    assert of_labels == {
        f"label {label}"
        for label, classes in taxonomy.labels.items()
        if DEFAULT_TAXONOMY.labels.get(label) != classes
    }


def rows_of(store):
    return open_rows(store, LAYOUT, LABEL, ("train", "val"), None, silent)


def test_fusion_takes_no_shards_or_experts_of_other_classes(store):
    fusion_kit.plant(store, sizes=fusion_kit.PILOT)
    assert rows_of(store).classes == CLASSES
    store.put(LAYOUT.label_taxonomy(), SWAPPED.to_json())
    for modality in fusion_kit.VERSIONS:
        with pytest.raises(OtherClasses, match=f"materialise memes/{modality}_expert again"):
            rows_of(store)
        swap(store, modality)
    with pytest.raises(OtherClasses, match="the shards of train"):
        rows_of(store)


def swap(store, modality):
    record = expert_record(store, LAYOUT, modality, LABEL)
    record = record.model_copy(update={"classes": CLASSES[::-1]})
    publish_expert(store, LAYOUT.expert(modality, LABEL), record, fusion_kit.FILES)
    return record


def test_a_fusion_model_is_not_judged_with_experts_of_other_classes(store):
    fusion_kit.plant(store, sizes=fusion_kit.PILOT)
    train_fusion(store, LAYOUT, LABEL, fusion_kit.quick(fit={"max_epochs": 1}))
    records = {modality: swap(store, modality) for modality in fusion_kit.VERSIONS}
    with pytest.raises(OtherExperts, match="tells not_abuse_hate, abuse_hate, and the text expert"):
        load_fusion(store, LAYOUT, open_fusion(store, LAYOUT, LABEL), None, records)
