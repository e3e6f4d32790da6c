import numpy as np
import pytest

from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.pipelines.memes.experts import open_expert, train_expert
from clipfarm_assets.pipelines.memes.features import (
    UNLABELLED,
    NoFeatures,
    iter_features,
    iter_paired_features,
    write_features,
)
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.expert_config import TextRepresentation
from clipfarm_assets_tests.pipelines.memes.expert_kit import LABEL, LAYOUT, SIZES, fill, stored
from clipfarm_assets_tests.stores import CountingStore
from clipfarm_assets_tests.training.experts import kit


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """A text and a vision expert, supplied; features only read them."""
    from clipfarm_assets.training.experts.text import TextExpert
    from clipfarm_assets.training.experts.vision import VisionExpert

    folder = tmp_path_factory.mktemp("experts")
    return {
        "text": TextExpert.load(
            kit.text_folder(folder), representation=TextRepresentation(max_tokens=6)
        ),
        "vision": VisionExpert.load(kit.vision_folder(folder)),
    }


@pytest.fixture
def memes(tmp_path):
    store = CountingStore(str(tmp_path / "store"))
    fill(store)
    store.reset()
    return store


def write(store, expert, split="train"):
    return write_features(store, LAYOUT, expert, LABEL, split)


def by_id(store, expert, split="train"):
    found = {}
    for part in iter_features(store, LAYOUT, LABEL, expert.version, split):
        for row in range(len(part)):
            found[str(part.ids[row])] = (
                part.hidden[row].tobytes(),
                part.logits[row].tobytes(),
                int(part.labels[row]),
                str(part.groups[row]),
            )
    return found


@pytest.mark.parametrize("modality", ["text", "vision"])
def test_features_are_what_the_expert_says_of_each_row(memes, experts, modality):
    expert = experts[modality]
    report = write(memes, expert)
    assert (report.rows, report.shards, report.written, report.labelled) == (40, 6, 6, 36)
    found = by_id(memes, expert)
    samples = list(iter_samples(memes, LAYOUT, "train", on_bad=pytest.fail))
    assert list(found) == [sample.json["id"] for sample in samples]
    for sample in samples:
        alone = expert.represent([expert.prepare(getattr(sample, expert.raw))])
        hidden, logits, label, group = found[sample.json["id"]]
        assert (hidden, logits) == (alone.hidden[0].tobytes(), alone.logits[0].tobytes())
        assert label == sample.json["labels"].get(LABEL, UNLABELLED)
        assert group == sample.json["group"]


@pytest.mark.parametrize("modality", ["text", "vision"])
def test_a_rows_bits_do_not_depend_on_how_shards_are_cut(memes, experts, modality, tmp_path):
    other = ObjectStore.open(str(tmp_path / "other"))
    fill(other, shard_rows=40)
    write(memes, experts[modality])
    write(other, experts[modality])
    assert by_id(memes, experts[modality]) == by_id(other, experts[modality])


def test_one_shard_is_in_memory_at_a_time(memes, experts):
    write(memes, experts["vision"])
    moves = [
        (kind, key)
        for kind, key in memes.calls
        if key.endswith(".tar") or (kind == "put" and key.endswith(".npz"))
    ]
    assert [kind for kind, _ in moves] == ["get", "put"] * 6


def test_what_is_there_is_not_computed_again(memes, experts):
    expert = experts["text"]
    write(memes, expert)
    before = stored(memes, "memes/features")
    lost = sorted(before)[2]
    memes.delete(lost)
    memes.reset()
    assert write(memes, expert).written == 1
    assert memes.count("get", "memes/shards/train/shard-") == 1
    assert stored(memes, "memes/features") == before
    assert write(memes, expert).written == 0


def test_a_killed_run_goes_on(memes, experts, monkeypatch):
    expert = experts["vision"]
    write(memes, expert)
    whole = stored(memes, "memes/features")
    for key in whole:
        memes.delete(key)
    put, calls = ObjectStore.put, []

    def put_and_die(self, key, data):
        put(self, key, data)
        calls.append(key)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ObjectStore, "put", put_and_die)
    with pytest.raises(KeyboardInterrupt):
        write(memes, expert)
    monkeypatch.undo()
    with pytest.raises(NoFeatures, match="write the expert's features first"):
        by_id(memes, expert)
    assert write(memes, expert).written == 4
    assert stored(memes, "memes/features") == whole


def test_cut_tokens_are_counted(memes, experts):
    report = write(memes, experts["text"])
    lengths = [
        len(sample.txt.split()) + 2
        for sample in iter_samples(memes, LAYOUT, "train", on_bad=pytest.fail)
    ]
    cut = [length - 6 for length in lengths if length > 6]
    assert cut
    assert (report.tokens_cut, report.texts_cut) == (sum(cut), len(cut))
    assert write(memes, experts["vision"]).tokens_cut == 0


def test_experts_are_paired_row_by_row(memes, experts):
    for split in SPLITS:
        for expert in experts.values():
            write(memes, expert, split)
    versions = {modality: expert.version for modality, expert in experts.items()}
    for split in SPLITS:
        rows = 0
        for pair in iter_paired_features(memes, LAYOUT, LABEL, versions, split):
            assert list(pair) == ["text", "vision"]
            assert np.array_equal(pair["text"].ids, pair["vision"].ids)
            assert np.array_equal(pair["text"].labels, pair["vision"].labels)
            rows += len(pair["text"])
        assert rows == SIZES[split]


def test_features_of_a_replaced_shard_are_not_taken_for_the_new_ones(memes, experts):
    expert = experts["text"]
    write(memes, expert)
    shards = read_index(memes, LAYOUT, "train").shards
    keys = [LAYOUT.features(LABEL, expert.version, "train", shard.sha256) for shard in shards]
    right = memes.get(keys[0])
    memes.put(keys[0], memes.get(keys[1]))
    with pytest.raises(NoFeatures, match="is of another shard"):
        by_id(memes, expert)
    assert write(memes, expert).written == 1
    assert memes.get(keys[0]) == right


def test_damaged_features_are_named(memes, experts):
    expert = experts["text"]
    write(memes, expert)
    shard = read_index(memes, LAYOUT, "train").shards[0]
    key = LAYOUT.features(LABEL, expert.version, "train", shard.sha256)
    memes.put(key, memes.get(key)[:-50])
    with pytest.raises(BadShard, match=shard.sha256):
        by_id(memes, expert)


def test_from_shards_to_features_by_a_fine_tuned_expert(memes, tmp_path):
    config = kit.quick_config(base=str(kit.text_folder(tmp_path)), top_layers=0)
    record = train_expert(memes, LAYOUT, "text", LABEL, config).record
    expert = open_expert(memes, LAYOUT, "text", LABEL, tmp_path / "cache")
    assert write(memes, expert, "test").version == record.version
    parts = list(iter_features(memes, LAYOUT, LABEL, record.version, "test"))
    assert sum(map(len, parts)) == SIZES["test"]
    assert {part.hidden.shape[1] for part in parts} == {record.dim}
