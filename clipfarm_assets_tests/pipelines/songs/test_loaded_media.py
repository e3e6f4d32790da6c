"""Audio and MIDI from where they are stored to what a batch holds of them."""

import io

import numpy as np
import pytest
import soundfile

from clipfarm_assets.training.networks.reproducible import Stream, generator
from clipfarm_assets_tests.pipelines.songs.dataset_kit import batch_of, config, dataset_of, usual
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    RATE,
    media_of,
    midi,
    waveform,
)

WAVES = {"type": "wav2vec2"}
NO_AUDIO = {"audio_waveform": None, "audio_sample_rate": None}


def settings_of(folders=(), **options):
    settings = config(**options)
    data = settings.data.model_copy(update={"media_folders": tuple(map(str, folders))})
    return settings.model_copy(update={"data": data})


def flac(n, rate):
    """A file of what `waveform` makes."""
    file = io.BytesIO()
    samples = np.frombuffer(waveform(n, rate=rate), "<f4")
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def loudest_hertz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


def onsets(roll):
    """Pitches and frames at which notes begin."""
    pitches, frames = np.nonzero(roll[0])
    return sorted(zip((pitches + 48).tolist(), frames.tolist(), strict=True))


def test_audio_from_parquet_binary(counting):
    """Decoded by the rate beside it, raw samples and files alike: a second stays a second."""
    media = [
        media_of(0),
        media_of(1, audio_waveform=waveform(1, rate=8_000), audio_sample_rate=8_000),
        media_of(2, audio_waveform=waveform(2, rate=44_100), audio_sample_rate=44_100),
        media_of(3, audio_waveform=flac(3, 22_050), audio_sample_rate=22_050),
    ]
    rows = [usual(n) for n in range(4)]
    dataset = dataset_of(counting, rows, media, config(audio_encoder=WAVES))
    samples = batch_of(dataset)["audio"]["samples"].numpy()
    assert samples.shape == (4, RATE)
    assert samples[0].tobytes() == waveform(0)
    assert [round(loudest_hertz(each)) for each in samples] == [200, 240, 280, 320]
    assert np.abs(samples).max(axis=1) == pytest.approx(0.32, abs=0.05)
    assert dict(dataset.counts.sources["audio"]) == {"parquet": 4}


def test_audio_from_disk_path_fallback(counting, tmp_path):
    """Files are decoded too, of the store and of a folder of the machine that is named."""
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection" / "b.flac").write_bytes(flac(1, 8_000))
    counting.put(LAYOUT.file("blue/a.flac"), flac(0, RATE))
    rows = [
        usual(0, segment_audio_file="blue/a.flac"),
        usual(1, segment_audio_file=str(tmp_path / "collection" / "b.flac")),
        usual(2, segment_audio_file="blue/a.flac"),
        usual(3, segment_audio_file="blue/none.flac"),
    ]
    media = [media_of(0, **NO_AUDIO), media_of(1, **NO_AUDIO), media_of(2), media_of(3, **NO_AUDIO)]
    settings = settings_of([tmp_path / "collection"], audio_encoder=WAVES)
    dataset = dataset_of(counting, rows, media, settings)
    batch = batch_of(dataset)
    samples = batch["audio"]["samples"].numpy()
    assert np.abs(samples[0] - np.frombuffer(waveform(0), "<f4")).max() < 1e-6
    assert [round(loudest_hertz(each)) for each in samples[:3]] == [200, 240, 280]
    assert batch["modality_mask"][:, 1].tolist() == [True, True, True, False]
    assert not samples[3].any()
    found = dict(dataset.counts.sources["audio"])
    assert found == {"store": 1, "disk": 1, "parquet": 1, "absent": 1}


def test_midi_from_parquet_binary(counting):
    dataset = dataset_of(counting, [usual(n) for n in range(5)])
    rolls = batch_of(dataset)["midi"]["roll"].numpy()
    # A note every quarter of a second, 20 frames a second.
    assert [onsets(roll) for roll in rolls] == [
        sorted([(60 + n, 0), (64, 5), (67, 10)]) for n in range(5)
    ]
    assert dict(dataset.counts.sources["midi"]) == {"parquet": 5}


def test_midi_from_disk_path_fallback(counting, tmp_path):
    counting.put(LAYOUT.file("a.mid"), midi((50, 52)))
    (tmp_path / "b.mid").write_bytes(midi((70, 71)))
    rows = [usual(0, midi_file="a.mid"), usual(1, midi_file=str(tmp_path / "b.mid"))]
    media = [media_of(n, midi_binary=None) for n in range(2)]
    dataset = dataset_of(counting, rows, media, settings_of([tmp_path]))
    rolls = batch_of(dataset)["midi"]["roll"].numpy()
    assert [onsets(roll) for roll in rolls] == [[(50, 0), (52, 5)], [(70, 0), (71, 5)]]
    assert dict(dataset.counts.sources["midi"]) == {"store": 1, "disk": 1}


@pytest.mark.parametrize("kind", ["piano_roll", "event_based", "music_transformer"])
def test_midi_absent(counting, kind):
    """Neither in the file nor where a path leads: flagged, and zeros under a mask."""
    rows = [usual(0), usual(1, midi_file="none.mid"), usual(2), usual(3, has_midi=False)]
    media = [media_of(n, midi_binary=None) for n in range(4)]
    media[0] = media_of(0)
    dataset = dataset_of(counting, rows, media, config(kind))
    batch = batch_of(dataset)
    assert batch["modality_mask"][:, 2].tolist() == [True, False, False, False]
    for array in batch["midi"].values():
        assert array.shape[0] == 4
        assert not array[1:].any()
    first = "roll" if kind == "piano_roll" else "tokens"
    assert batch["midi"][first][0].any()
    assert dict(dataset.counts.sources["midi"]) == {"parquet": 1, "absent": 2, "undeclared": 1}
    assert dataset.counts.counted().counts == {"file_not_found": 1, "no_midi": 1}


def test_lazy_loading_for_efficiency(counting):
    """Opened by its footer, then read as rows are asked for, a row group at a time, each once."""
    rows = [usual(n) for n in range(60)]
    media = [media_of(n, audio_waveform=waveform(n, seconds=2)) for n in range(60)]
    dataset_of(counting, rows, media, group=10)
    size = counting.head(LAYOUT.media()).size
    read = []
    whole = counting.get_range

    def measured(key, start, length, mark=None):
        if key == LAYOUT.media():
            read.append(length)
        return whole(key, start, length, mark)

    counting.get_range = measured
    dataset = dataset_of(counting, rows, media, group=10, kept_bytes=0)
    assert sum(read) < size / 10
    items = dataset.items("train")
    by_item = []
    for _ in range(60):
        next(items)
        by_item.append(sum(read))
    assert all(done <= size * (n // 10 + 1.5) / 6 for n, done in enumerate(by_item))
    assert by_item[-1] > size * 0.9
    batches = dataset.as_batches("train", training=True)
    read.clear()
    assert sum(len(target) for _, target in batches.epoch(generator(1, Stream.SHUFFLE))) == 60
    assert size * 0.9 < sum(read) < size * 1.1


@pytest.mark.parametrize("audio", ["cnn", "wav2vec2"])
@pytest.mark.parametrize("kind", ["piano_roll", "event_based", "music_transformer"])
def test_an_item_holds_no_more_memory_than_it_counts(counting, audio, kind):
    """Of a long sound and of many events what is used is held, and nothing of the rest."""
    long = waveform(0, seconds=30)
    media = [
        media_of(0, audio_waveform=long, midi_binary=midi(tuple(range(30, 90)), 0.02)),
        media_of(1, audio_waveform=flac(1, RATE)),
        media_of(2, audio_waveform=waveform(2, seconds=0.3)),
    ]
    settings = config(kind, audio_encoder={"type": audio})
    dataset = dataset_of(counting, [usual(n) for n in range(3)], media, settings)
    for item in dataset.items("train"):
        for arrays in item.inputs.values():
            for array in arrays.values():
                assert array.base is None or array.base.nbytes <= array.nbytes
    assert (dataset.counts.kinds["events_cut"] == 1) == (kind != "piano_roll")
