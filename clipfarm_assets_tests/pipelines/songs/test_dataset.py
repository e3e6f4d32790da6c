"""Segments as items and batches: what is there, what is not, and how little of it is held."""

import numpy as np
import pytest
import torch

from clipfarm_assets.contracts.song_segments import MODALITIES
from clipfarm_assets.contracts.song_splits import SongSplits
from clipfarm_assets.encoders.midi.piano_roll import piano_roll
from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets.encoders.waveforms.mel import log_mel
from clipfarm_assets.pipelines.songs.dataset import SegmentDataset
from clipfarm_assets.pipelines.songs.inputs import WrongStored
from clipfarm_assets.training.song_encoders.build import build_network
from clipfarm_assets.training.song_items import arrays_bytes
from clipfarm_assets.training.songs.collate import collate, fusion_inputs
from clipfarm_assets_tests.encoders.midi.files import midi as midi_file
from clipfarm_assets_tests.encoders.midi.files import notes, track
from clipfarm_assets_tests.pipelines.songs.dataset_kit import (
    DIM,
    SECONDS,
    batch_of,
    config,
    dataset_of,
    usual,
    vector,
)
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    RATE,
    TEXT_FIELD,
    media_of,
    midi,
    put_segments,
    waveform,
)


def test_multimodal_batch_structure(counting):
    dataset = dataset_of(counting, [usual(n) for n in range(5)])
    assert (len(dataset), dataset.classes) == (5, ("calm", "wild"))
    batch = batch_of(dataset)
    assert set(batch) == {"text", "audio", "midi", "modality_mask", "label"}
    assert batch["label"].tolist() == [0, 0, 1, 1, 0]
    shapes = {name: {k: list(v.shape) for k, v in batch[name].items()} for name in MODALITIES}
    assert shapes == {
        "text": {"values": [5, DIM]},
        "audio": {"mel": [5, 8, 63]},
        "midi": {"roll": [5, 3, 37, 20]},
    }
    assert batch["text"]["values"].tolist() == [vector(n) for n in range(5)]
    samples = np.frombuffer(waveform(2), "<f4")
    mel = log_mel(samples, dataset.config.preprocessing.audio.mel_settings)
    assert np.array_equal(batch["audio"]["mel"][2].numpy(), mel)
    drawn = piano_roll(read_score(midi((62, 64, 67))).cut(0, SECONDS), seconds=SECONDS,
                       frames_per_second=20.0, pitches=(48, 85))  # fmt: skip
    assert np.array_equal(batch["midi"]["roll"][2].numpy(), drawn)
    assert drawn.any()


def test_modality_presence_mask(counting):
    rows = [usual(0), usual(1, vocals=False), usual(2, has_audio=False), usual(3, has_midi=False)]
    rows.append(usual(4, vocals=False, has_audio=False, has_midi=False))
    batch = batch_of(dataset_of(counting, rows))
    assert batch["modality_mask"].dtype == torch.bool
    assert batch["modality_mask"].tolist() == [
        [True, True, True],
        [False, True, True],
        [True, False, True],
        [True, True, False],
        [False, False, False],
    ]


def test_missing_midi_handling_majority_case(counting):
    """As the flag says, and where nothing can be found or read: zeros, a mask, and a count."""
    rows = [
        usual(0), usual(1, has_midi=False), usual(2), usual(3, midi_file="../../etc/passwd"),
        usual(4), usual(5),
    ]  # fmt: skip
    media = [media_of(n) for n in range(6)]
    media[2]["midi_binary"] = media[3]["midi_binary"] = None
    media[4]["midi_binary"] = b"MThd is not all of it"
    media[5]["midi_binary"] = midi(())
    dataset = dataset_of(counting, rows, media)
    batch = batch_of(dataset)
    assert batch["modality_mask"][:, 2].tolist() == [True] + [False] * 5
    assert batch["midi"]["roll"][0].any()
    assert not batch["midi"]["roll"][1:].any()
    assert dict(dataset.counts.sources["midi"]) == {"parquet": 3, "undeclared": 1, "absent": 2}
    assert dataset.counts.counted().counts == {
        "bad_midi": 1, "no_midi": 1, "no_notes": 1, "refused_path": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("drums", "found"), [(False, [True, False, False]), (True, [True, True, False])]
)
def test_notes_of_which_the_roll_shows_none_are_no_midi(counting, drums, found):
    """Drums alone, or pitches beyond the roll's: zeros that nobody could tell from silence."""
    beat = midi_file(track(*notes((0, 240, 60), channel=9)))
    media = [media_of(0), media_of(1, midi_binary=beat), media_of(2, midi_binary=midi((20,)))]
    settings = config(midi={"drums": drums})
    dataset = dataset_of(counting, [usual(n) for n in range(3)], media, settings)
    batch = batch_of(dataset)
    assert batch["modality_mask"][:, 2].tolist() == found
    assert batch["midi"]["roll"].flatten(1).any(dim=1).tolist() == found
    assert dataset.counts.counted().counts == {"no_notes": found.count(False)}


def test_what_is_beyond_the_window_or_the_roll_is_counted(counting):
    """The sound and the notes that the segment's second shows are used, and the rest is told."""
    beats = track(*notes((0, 240, 60), (1200, 1300, 61)), *notes((0, 240, 60), channel=9))
    long = media_of(0, audio_waveform=waveform(0, seconds=1.5), midi_binary=midi_file(beats))
    low = media_of(1, midi_binary=midi((60, 20)))
    dataset = dataset_of(counting, [usual(0), usual(1)], [long, low])
    batch = batch_of(dataset)
    assert batch["modality_mask"].all()
    problems = dataset.counts.counted()
    assert problems.counts == {"audio_cut": 1, "notes_cut": 2}
    assert "0.5 s after 1 s are left out" in str(problems)


def test_what_training_changes_takes_no_room_from_what_is_kept(counting):
    """Train is looked at first, as it is; its epochs see other notes and sounds."""
    rows = [usual(n) for n in range(4)]
    splits = SongSplits(
        {f"s{n}": "train" if n < 2 else "val" for n in range(4)}, {f"s{n}": "" for n in range(4)}
    )
    settings = config(audio={"augment": {"enabled": True}}, midi={"augment": {"enabled": True}})
    usually = dataset_of(counting, rows, splits=splits)
    (item,) = list(usually.items("val"))[:1]
    room = 2 * sum(arrays_bytes(arrays) for arrays in item.inputs.values() if arrays) + 100
    dataset = dataset_of(counting, rows, settings=settings, splits=splits, kept_bytes=room)
    for split in ("train", "val"):
        dataset.survey(split)
    before = dict(dataset.counts.sources["midi"])
    assert len(list(dataset.items("val"))) == 2
    assert dict(dataset.counts.sources["midi"]) == before, "it was read again"


def test_missing_audio_handling(counting):
    rows = [usual(0), usual(1, has_audio=False), usual(2), usual(3)]
    media = [media_of(n) for n in range(4)]
    media[2]["audio_waveform"] = None
    media[3]["audio_waveform"] = b"123"  # no whole sample
    dataset = dataset_of(counting, rows, media)
    batch = batch_of(dataset)
    assert batch["modality_mask"][:, 1].tolist() == [True, False, False, False]
    assert batch["audio"]["mel"][0].any()
    assert not batch["audio"]["mel"][1:].any()
    assert dataset.counts.counted().counts == {"bad_audio": 1, "no_audio": 1}


def test_instrumental_segment(counting):
    rows = [usual(0), usual(1, vocals=False), usual(2, lyric_text="  "), usual(3, lyric_text=None)]
    batch = batch_of(dataset_of(counting, rows))
    assert batch["modality_mask"][:, 0].tolist() == [True, False, False, False]
    assert not batch["text"]["values"][1:].any()


class _Stored:
    """Features in memory."""

    def __init__(self, values):
        self.values = values

    def get(self, segment):
        return self.values.get(segment.id)


def test_precomputed_embedding_loading(counting):
    """The metadata's vectors come first, then those of the features; what has none is counted."""
    rows = [usual(0), usual(1, text_embedding=None), usual(2, text_embedding=None)]
    rows.append(usual(3, text_embedding=[1.0, float("nan"), *[0.0] * (DIM - 2)]))
    stored = np.arange(DIM, dtype=np.float32)
    features = {"text": _Stored({"s0": stored + 5, "s1": stored})}
    dataset = dataset_of(counting, rows, features=features)
    batch = batch_of(dataset)
    assert batch["text"]["values"][:2].tolist() == [vector(0), stored.tolist()]
    assert batch["modality_mask"][:, 0].tolist() == [True, True, False, False]
    assert dataset.counts.counted().counts == {"bad_text_embedding": 1, "no_text_embedding": 1}


def test_stored_vectors_of_another_length_stop_the_run(counting):
    dataset = dataset_of(counting, [usual(0, text_embedding=[1.0, 2.0])])
    with pytest.raises(WrongStored, match=rf"text_encoder.dim is {DIM}: .* 's0' has the shape \[2"):
        dataset[0]


def test_texts_are_tokenised_where_the_encoder_runs_along(counting):
    def tokenise(text):
        ids = np.zeros(8, np.int64)
        ids[: len(text)] = [ord(letter) for letter in text[:8]]
        return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}, len(text[8:])

    settings = config(text_encoder={"type": "deberta", "max_tokens": 8})
    rows = [usual(n, lyric_text=text) for n, text in enumerate(("la", " ", "a" * 10))]
    dataset = dataset_of(counting, rows, settings=settings, tokenise=tokenise)
    batch = batch_of(dataset)
    assert batch["text"]["input_ids"].tolist() == [[108, 97, *[0] * 6], [0] * 8, [97] * 8]
    assert batch["text"]["attention_mask"].sum(dim=1).tolist() == [2, 0, 8]
    problems = dataset.counts.counted()
    assert problems.counts == {"text_cut": 1}
    assert "2 tokens more" in str(problems)
    with pytest.raises(ValueError, match="'deberta' needs a tokeniser"):
        dataset_of(counting, rows, settings=settings)


def test_precomputed_audio_features(counting):
    """What is stored is loaded, and no audio is read for it."""
    rows = [usual(n) for n in range(3)]
    mels = {f"s{n}": np.full((8, 63), n, np.float32) for n in range(2)}
    dataset = dataset_of(counting, rows, features={"spectrogram": _Stored(mels)})
    batch = batch_of(dataset)
    assert batch["audio"]["mel"][:2, 0, 0].tolist() == [0, 1]
    samples = np.frombuffer(waveform(2), "<f4")
    mel = log_mel(samples, dataset.config.preprocessing.audio.mel_settings)
    assert np.array_equal(batch["audio"]["mel"][2].numpy(), mel)
    assert dict(dataset.counts.sources["audio"]) == {"parquet": 1}

    wav2vec2 = {"type": "wav2vec2", "precomputed": True, "stored_dim": 5}
    tokens = {f"s{n}": np.full((4, 5), n, np.float32) for n in range(1, 3)}
    settings = config(audio_encoder=wav2vec2)
    dataset = dataset_of(counting, rows, settings=settings, features={"audio": _Stored(tokens)})
    batch = batch_of(dataset)
    assert batch["audio"]["values"].shape == (3, 4, 5)
    assert batch["modality_mask"][:, 1].tolist() == [False, True, True]
    assert dict(dataset.counts.sources["audio"]) == {}
    assert dataset.counts.counted().counts == {"no_audio_features": 1}
    with pytest.raises(ValueError, match="materialise songs/features first"):
        dataset_of(counting, rows, settings=settings)
    bad = {"audio": _Stored({**tokens, "s2": np.zeros((3, 5), np.float32)})}
    with pytest.raises(WrongStored, match=r"'s2' must have the shape \[4, 5\]"):
        batch_of(dataset_of(counting, rows, settings=settings, features=bad))


def test_waveforms_for_encoders_that_take_them(counting):
    rows = [usual(0), usual(1)]
    media = [media_of(0, audio_waveform=waveform(0, seconds=0.5)), media_of(1)]
    dataset = dataset_of(counting, rows, media, config(audio_encoder={"type": "wav2vec2"}))
    batch = batch_of(dataset)
    assert batch["audio"]["samples"].shape == (2, RATE)
    assert not batch["audio"]["samples"][0, RATE // 2 :].any()  # padded to the settings' length
    assert batch["audio"]["samples"][1].numpy().tobytes() == waveform(1)


@pytest.mark.parametrize("kind", ["event_based", "music_transformer"])
def test_batch_collation(counting, kind):
    """Events of any number become tensors of one shape, whatever the neighbours."""
    rows = [usual(n) for n in range(3)]
    files = [midi(tuple(range(60, 60 + 2 * n + 1)), 0.25) for n in range(3)]
    media = [media_of(n, midi_binary=file) for n, file in enumerate(files)]
    media[1]["midi_binary"] = midi(tuple(range(50, 80)), 0.05)
    dataset = dataset_of(counting, rows, media, config(kind))
    items = list(dataset.items("train"))
    lengths = [len(item.inputs["midi"]["tokens"]) for item in items]
    assert lengths[0] < lengths[2] < 40 == lengths[1]
    assert dataset.counts.counted().counts == {"events_cut": 1}
    batch = collate(items, dataset.specs)
    names = {"tokens", "mask"} | ({"bars", "positions"} if kind == "music_transformer" else set())
    assert set(batch["midi"]) == names
    assert {tuple(value.shape) for value in batch["midi"].values()} == {(3, 40)}
    assert batch["midi"]["mask"].sum(dim=1).tolist() == lengths
    assert not batch["midi"]["tokens"][~batch["midi"]["mask"]].any()
    for n, item in enumerate(items):
        alone = collate([item], dataset.specs)
        for name in names:
            assert torch.equal(alone["midi"][name][0], batch["midi"][name][n])


def test_temporal_alignment_with_audio(counting):
    """A segment's notes are moved by its correction, onto the clock of its audio."""
    rows = [usual(0), usual(1), usual(2)]
    media = [media_of(n, midi_binary=midi((60, 72), 0.5)) for n in range(3)]
    corrections = {"s1": 0.25, "s2": -0.25}
    batch = batch_of(dataset_of(counting, rows, media, corrections=corrections))
    onsets = batch["midi"]["roll"][:, 0].sum(dim=1)  # 20 frames a second, a note every 0.25 s
    assert [row.nonzero().flatten().tolist() for row in onsets] == [[0, 5], [5, 10], [0]]
    assert batch["midi"]["roll"][2, 0, 72 - 48, 0] == 1  # the first note lies before the audio


@pytest.mark.parametrize("kind", ["piano_roll", "event_based", "music_transformer"])
def test_networks_take_the_batches_and_see_nothing_of_what_is_absent(counting, kind):
    rows = [usual(0), usual(1, has_midi=False), usual(2, has_audio=False, vocals=False)]
    dataset = dataset_of(counting, rows, settings=config(kind))
    inputs = fusion_inputs(batch_of(dataset))
    network = build_network(dataset.config, 2).eval()
    logits = network(**inputs)
    assert logits.shape == (3, 2)
    for column, name in enumerate(MODALITIES):
        absent = ~inputs["present"][:, column]
        for key in [key for key in inputs if key.startswith(f"{name}.")]:
            assert not inputs[key][absent].any()
            is_float = inputs[key].is_floating_point()
            inputs[key][absent] = float("nan") if is_float else 1
    assert torch.equal(network(**inputs), logits)
    with_two = fusion_inputs(batch_of(dataset), ["text", "midi"])
    assert with_two["present"].tolist() == [[True, True], [True, False], [False, True]]
    assert not any(key.startswith("audio") for key in with_two)


def test_what_is_no_example_is_left_out_and_counted(counting):
    rows = [usual(0), usual(1, label=None), usual(2, label="odd"), usual(3), usual(4)]
    segments = put_segments(counting, rows, [media_of(n) for n in range(5)], fields=[TEXT_FIELD])
    splits = SongSplits({"s0": "train", "s1": "train", "s2": "val", "s3": "val"}, {})
    settings = config().model_copy(
        update={"data": config().data.model_copy(update={"classes": ("wild", "calm")})}
    )
    dataset = SegmentDataset(counting, LAYOUT, settings, segments, splits)
    assert [segment.id for segment in dataset.segments] == ["s0", "s3"]
    assert dataset.left_out == {"unlabelled": 1, "other_label": 1, "no_split": 1}
    assert [dataset.class_counts(split) for split in ("train", "val", "test")] == [
        [0, 1], [1, 0], [0, 0],
    ]  # fmt: skip
    assert dataset[1].label == 0
    with pytest.raises(ValueError, match="test part has no rows"):
        dataset.as_batches("test")
