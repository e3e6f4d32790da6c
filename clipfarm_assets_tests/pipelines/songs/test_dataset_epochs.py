"""Epochs over segments: each once, in an order and with changes that the epoch decides."""

import numpy as np
import torch

from clipfarm_assets.contracts.song_splits import SongSplits
from clipfarm_assets.pipelines.songs import dataset as room
from clipfarm_assets.pipelines.songs.album_features import AlbumFeatures
from clipfarm_assets.pipelines.songs.feature_files import SongFeatures
from clipfarm_assets.training.networks.reproducible import Stream, generator
from clipfarm_assets_tests.pipelines.songs.dataset_kit import (
    ROLL,
    config,
    dataset_of,
    usual,
    vector,
)
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    TEXT_FIELD,
    counting_store,
    media_of,
    midi,
    put_segments,
)


def epoch(dataset, seed=0, *, training=True, **options):
    """An epoch's batches, as inputs and classes by row."""
    batches = dataset.as_batches("train", training=training, **options)
    found = list(batches.epoch(generator(seed, Stream.SHUFFLE)))
    names = sorted({key for inputs, _ in found for key in inputs})
    inputs = {name: torch.cat([inputs[name] for inputs, _ in found]) for name in names}
    return inputs, torch.cat([target for _, target in found])


def same_inputs(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


AUGMENT = {"enabled": True, "probability": 1.0}


def test_augmentation_in_training_alone_and_by_the_epoch(counting):
    # What else is done to sound, others test: it loads libraries.
    noise = {**AUGMENT, "time_stretch": 0, "pitch_shift": 0}
    settings = config(audio={"augment": noise}, midi={"augment": AUGMENT, **ROLL})
    dataset = dataset_of(counting, [usual(n) for n in range(6)], settings=settings)
    plain, _ = epoch(dataset, training=False)
    again, _ = epoch(dataset, seed=9, training=False)
    assert same_inputs(plain, again)
    first, _ = epoch(dataset, seed=1)
    repeated, _ = epoch(dataset, seed=1)
    other, _ = epoch(dataset, seed=2)
    assert same_inputs(first, repeated)
    for key in ("audio.mel", "midi.roll"):
        rows = [{row.numpy().tobytes() for row in part[key]} for part in (plain, first, other)]
        assert not rows[0] & rows[1]  # every segment is changed, and otherwise each epoch
        assert len(rows[1] & rows[2]) < 2  # a velocity may be drawn again
    assert {row.numpy().tobytes() for row in first["text.values"]} == {
        row.numpy().tobytes() for row in plain["text.values"]
    }


def test_an_epoch_gives_each_segment_once_whatever_is_kept(counting, tmp_path):
    rows = [usual(n) for n in range(11)]
    kept = dataset_of(counting, rows)
    labels = [(n // 2) % 2 for n in range(11)]
    for _ in range(2):
        inputs, target = epoch(kept, seed=3)
        order = [round((values[0].item()) / 0.1) for values in inputs["text.values"]]
        assert sorted(order) == list(range(11)) != order
        assert target.tolist() == [labels[n] for n in order]
    asked = kept.counts.sources["midi"]["parquet"]
    assert asked == 11
    none = dataset_of(counting_store(tmp_path / "none"), rows, kept_bytes=0)
    some = dataset_of(counting_store(tmp_path / "some"), rows, kept_bytes=40_000)
    for _ in range(2):
        for dataset in (none, some):
            again, _ = epoch(dataset, seed=3)
            assert same_inputs(inputs, again)
    assert none.counts.sources["midi"]["parquet"] == 33  # one survey, two epochs
    assert 11 < some.counts.sources["midi"]["parquet"] < 33


def test_batches_are_in_order_without_training(counting):
    dataset = dataset_of(counting, [usual(n) for n in range(9)])
    inputs, _ = epoch(dataset, training=False, batch_size=2)
    assert inputs["text.values"].tolist() == [vector(n) for n in range(9)]


def test_epochs_read_the_media_in_the_order_of_its_row_groups(counting):
    dataset = dataset_of(counting, [usual(n) for n in range(12)], group=4, kept_bytes=0)
    list(dataset.items("train"))
    counting.reset()
    list(dataset.items("train"))
    once = counting.count("range", LAYOUT.media())
    counting.reset()
    batches = dataset.as_batches("train", training=True)
    counting.reset()
    list(batches.epoch(generator(5, Stream.SHUFFLE)))
    assert counting.count("range", LAYOUT.media()) <= once
    assert counting.count("get") == 0


def test_identity_is_of_all_that_is_seen_and_of_nothing_else(counting, monkeypatch):
    rows = [usual(n) for n in range(4)]
    media = [media_of(n) for n in range(4)]
    base = dataset_of(counting, rows, media)
    survey = base.survey("train")
    assert (survey.segments, survey.present) == (4, {"text": 4, "audio": 4, "midi": 4})
    assert dataset_of(counting, rows, media).identity("train") == survey.sha256
    found = {survey.sha256}
    for changes in (
        {"rows": [usual(0, label="wild"), *rows[1:]]},
        {"rows": [usual(0, text_embedding=vector(9)), *rows[1:]]},
        {"rows": [usual(0, vocals=False), *rows[1:]]},
        {"media": [media_of(7), *media[1:]]},
        {"corrections": {"s2": 0.5}},
    ):
        given = {"rows": rows, "media": media, **changes}
        found.add(dataset_of(counting, **given).identity("train"))
    assert len(found) == 6
    plain = base.as_batches("train", training=False).identity()
    changed = base.as_batches("train", training=True).identity()
    assert plain != changed
    monkeypatch.setattr(room, "CHANGES_VERSION", "another")
    assert base.as_batches("train", training=True).identity() != changed
    assert base.as_batches("train", training=False).identity() == plain


def test_features_are_read_an_album_at_a_time(counting):
    """And held within a bound; a row that is given out holds nothing of its album."""
    segments = put_segments(
        counting,
        [usual(n) for n in range(12)],
        [media_of(n) for n in range(12)],
        fields=[TEXT_FIELD],
    )
    read = []

    def album(name):
        read.append(name)
        if name == "Red":
            return None
        ids = [segment.id for segment in segments if segment.album == name]
        values = [np.full(1000, int(name_of[1:]), np.float32) for name_of in ids]
        return SongFeatures.of(ids, ["x"] * len(ids), values)

    features = AlbumFeatures(album, held_bytes=1)
    found = [features.get(segment) for segment in segments]
    assert [None if each is None else each[0] for each in found] == [*range(6), *[None] * 6]
    assert read == ["Blue", "Red"]
    assert found[0].base is None
    features.get(segments[0])
    assert read == ["Blue", "Red", "Blue"]


def test_what_is_stored_is_not_what_training_changes(counting):
    """Stored spectrograms serve as they are; changed sound is made of the sound itself."""
    noise = {**AUGMENT, "time_stretch": 0, "pitch_shift": 0}
    rows = [usual(n) for n in range(3)]
    stored = SongFeatures.of(
        [f"s{n}" for n in range(3)], ["x"] * 3, [np.zeros((8, 63), np.float32)] * 3
    )
    features = {"spectrogram": AlbumFeatures(lambda _: stored)}
    settings = config(audio={"augment": noise})
    dataset = dataset_of(counting, rows, settings=settings, features=features)
    plain, _ = epoch(dataset, training=False)
    assert not plain["audio.mel"].any()
    assert dict(dataset.counts.sources["audio"]) == {}
    changed, _ = epoch(dataset, seed=1)
    assert changed["audio.mel"].flatten(1).any(dim=1).all()
    assert dict(dataset.counts.sources["audio"]) == {"parquet": 3}


def test_random_orders_follow_from_row_groups_and_identities_say_so(tmp_path):
    """Rows are called the same; what a fit goes on from, and no other, has another name."""
    rows = [usual(n) for n in range(12)]
    splits = SongSplits({f"s{n}": "train" if n < 9 else "val" for n in range(12)}, {})
    datasets = [
        dataset_of(counting_store(tmp_path / name), rows, group=group, splits=splits)
        for name, group in (("small", 2), ("large", 5), ("again", 5))
    ]
    small, large, again = (each.as_batches("train", training=True) for each in datasets)
    orders = [epoch(each, seed=3)[0]["text.values"].tolist() for each in datasets]
    assert orders[0] != orders[1] == orders[2]
    assert small.identity() != large.identity() == again.identity()
    assert len({each.identity("train") for each in datasets}) == 1
    assert len({each.as_batches("val").identity() for each in datasets}) == 1


def test_a_survey_counts_what_is_wrong_once_a_segment(tmp_path):
    """Whatever was asked for before, in whatever order, and however often."""
    rows = [usual(n) for n in range(6)]
    media = [media_of(n, midi_binary=midi(hanging=(50,))) for n in range(6)]
    splits = SongSplits({f"s{n}": "train" if n < 4 else "val" for n in range(6)}, {})
    settings = config(midi={"augment": AUGMENT, **ROLL})

    def dataset(name, **options):
        store = counting_store(tmp_path / name)
        return dataset_of(store, rows, media, settings, splits=splits, **options)

    fresh, used, bare = dataset("fresh"), dataset("used"), dataset("bare", kept_bytes=0)
    for each in (used, bare):
        list(each.items("train"))
        each.survey("val")
        list(each.as_batches("val", training=True).epoch(generator(1, Stream.SHUFFLE)))
        epoch(each)
        assert each.counts.kinds["hanging_notes"] > 6
    for each in (fresh, used, bare):
        assert each.survey("train").problems == {"hanging_notes": 4}
        assert each.survey("val").problems == {"hanging_notes": 2}
    assert fresh.counts.kinds == {"hanging_notes": 6}
