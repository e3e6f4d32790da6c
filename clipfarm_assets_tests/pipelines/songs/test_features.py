from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from clipfarm_assets.encoders.waveforms.mel import log_mel
from clipfarm_assets.encoders.waveforms.prepare import prepare
from clipfarm_assets.pipelines.songs import feature_makers, feature_rows, features
from clipfarm_assets.pipelines.songs.features import (
    NoFeatures,
    SongFeatures,
    TooManyFeatures,
    compute_features,
    feature_version,
    kinds_of,
    open_features,
    read_features,
)
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets_tests.contracts.song_kit import row, table
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    RATE,
    counting_store,
    media_of,
    parquet,
    put_segments,
    put_some,
    waveform,
)

AUDIO = {"seconds": 0.5, "mel": {"n_mels": 16, "n_fft": 512}}


def config_of(encoder=None, **audio):
    model = {"audio_encoder": encoder or {"type": "cnn"}}
    return song_config({"model": model, "preprocessing": {"audio": {**AUDIO, **audio}}})


CONFIG = config_of()
VERSION = feature_version("spectrogram", CONFIG)
KEY = LAYOUT.features("spectrogram", VERSION, "Blue")


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


def spectrograms(store, config=CONFIG, album="Blue", **options):
    report = compute_features(store, LAYOUT, config, album, ["spectrogram"], **options)
    return report.kinds["spectrogram"]


def stored(store, config=CONFIG, album="Blue"):
    return read_features(store, LAYOUT, config, "spectrogram", album)


def put_rows(store, *named, group=4):
    """Segments of given audio; None for none."""
    rows = [row(name) for name, _ in named]
    media = [
        media_of(0, audio_waveform=data, audio_sample_rate=None if data is None else RATE)
        for _, data in named
    ]
    return put_segments(store, rows, media, group=group)


def test_precomputed_audio_features(store):
    """Spectrograms are stored as they would be computed in training, and loaded directly."""
    put_some(store, 4)
    report = spectrograms(store)
    assert (report.rows, report.computed, report.shape) == (2, 2, (16, 16))
    assert (report.key, report.version) == (KEY, VERSION)
    audio = CONFIG.preprocessing.audio
    found = stored(store)
    assert found.ids == ("s0", "s1")
    for place in range(2):
        samples = prepare(waveform(place), RATE, audio.waveform_settings).samples
        expected = log_mel(samples, audio.mel_settings)
        assert found.values[place].tobytes() == expected.tobytes()


def test_a_second_run_reads_no_audio_and_writes_the_same_bytes(store, monkeypatch):
    put_some(store, 6)
    first = spectrograms(store)
    before = store.get(KEY)
    monkeypatch.setattr(features, "made_of_audio", lambda *_: pytest.fail("read audio"))
    store.reset()
    second = spectrograms(store)
    assert (second.computed, second.rows, second.sha256) == (0, first.rows, first.sha256)
    assert store.count("put") == 0
    assert store.get(KEY) == before


def test_a_media_file_that_was_written_again_is_compared(store, monkeypatch):
    named = [(f"s{n}", waveform(n)) for n in range(3)]
    put_rows(store, *named)
    spectrograms(store)
    before = store.get(KEY)
    put_rows(store, *named)
    with pytest.raises(NoFeatures, match="compared with the media file"):
        stored(store)
    (reader,) = open_features(store, LAYOUT, CONFIG).values()
    with pytest.raises(NoFeatures, match="compared with the media file"):
        reader.get(put_rows(store, *named)[0])
    monkeypatch.setattr(features, "prepare", lambda *_: pytest.fail("decoded"))
    assert spectrograms(store).computed == 0
    assert store.get(KEY) == before
    assert len(stored(store)) == 3


def test_what_changed_is_computed_again_and_what_came(store):
    put_rows(store, *((f"s{n}", waveform(n)) for n in range(3)))
    spectrograms(store)
    before = stored(store)
    put_rows(
        store, ("new", waveform(7)), ("s2", waveform(2)), ("s1", waveform(8)), ("s3", waveform(3))
    )
    report = spectrograms(store)
    assert (report.rows, report.computed) == (4, 3)
    found = stored(store)
    assert found.ids == ("new", "s2", "s1", "s3")
    assert found.get("s2").tobytes() == before.get("s2").tobytes()
    assert found.get("s1").tobytes() != before.get("s1").tobytes()
    assert found.get("s0") is None


def test_the_same_segments_elsewhere_give_the_same_bytes(store, tmp_path):
    put_some(store, 6)
    other = counting_store(tmp_path / "other")
    put_some(other, 6, group=1)
    assert spectrograms(store).sha256 == spectrograms(other).sha256
    assert store.get(KEY) == other.get(KEY)


def test_a_killed_run_goes_on(store, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_rows, "SAVED_EVERY", 2)
    named = [(f"s{n}", waveform(n)) for n in range(5)]
    put_rows(store, *named)
    made = []

    def make_and_die(self, prepared):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(prepared)
        return log_mel(prepared, CONFIG.preprocessing.audio.mel_settings)

    with monkeypatch.context() as patched:
        patched.setattr(feature_makers.SpectrogramMaker, "make", make_and_die)
        with pytest.raises(KeyboardInterrupt):
            spectrograms(store)
    # What was written is not taken for all of it.
    with pytest.raises(NoFeatures):
        stored(store)
    assert spectrograms(store).computed == 3
    other = counting_store(tmp_path / "other")
    put_rows(other, *named)
    spectrograms(other)
    assert store.get(KEY) == other.get(KEY)


def test_what_was_not_looked_at_before_a_kill_is_kept(store, monkeypatch):
    monkeypatch.setattr(feature_rows, "SAVED_EVERY", 1)
    put_rows(store, *((f"s{n}", waveform(n)) for n in range(4)))
    spectrograms(store)
    put_rows(store, ("s0", waveform(9)), *((f"s{n}", waveform(n)) for n in range(1, 4)))
    collect = features.collect

    def collect_and_die(kinds, order, settled, looked, progress):
        def first_alone():
            yield next(looked)
            raise KeyboardInterrupt

        return collect(kinds, order, settled, first_alone(), progress)

    with monkeypatch.context() as patched:
        patched.setattr(features, "collect", collect_and_die)
        with pytest.raises(KeyboardInterrupt):
            spectrograms(store)
    assert spectrograms(store).computed == 0
    assert stored(store).ids == ("s0", "s1", "s2", "s3")


def test_other_settings_are_another_version(store):
    put_some(store, 2)
    spectrograms(store)
    before = store.get(KEY)
    for other in (config_of(mel={**AUDIO["mel"], "n_mels": 12}), config_of(seconds=0.4)):
        report = spectrograms(store, other)
        assert report.version != VERSION
        assert report.computed == 1
    assert store.get(KEY) == before
    with pytest.raises(NoFeatures, match="materialise songs/features"):
        stored(store, config_of(seconds=0.3))
    # What decides nothing of a spectrogram changes no version.
    same = config_of({"type": "cnn", "channels": [4], "tokens": 4})
    assert feature_version("spectrogram", same) == VERSION


def test_what_cannot_be_had_is_told_and_left_out(store):
    put_segments(
        store,
        [row("a"), row("silent"), row("gone"), row("broken"), row("undeclared", has_audio=False)],
        [
            media_of(0),
            media_of(1, audio_waveform=bytes(4 * RATE)),
            media_of(2, audio_waveform=None, audio_sample_rate=None),
            media_of(3, audio_waveform=b"RIFF....WAVEnot at all"),
            media_of(4),
        ],
    )
    report = compute_features(store, LAYOUT, CONFIG, "Blue", ["spectrogram"])
    # Both that can be had are longer than the settings' sound.
    assert report.problems.counts == {"audio_corrupt": 1, "audio_cut": 2, "no_audio": 1}
    assert stored(store).ids == ("a", "silent")
    # And again what can't be had, though nothing is computed.
    again = compute_features(store, LAYOUT, CONFIG, "Blue", ["spectrogram"])
    assert again.problems.counts == {"audio_corrupt": 1, "no_audio": 1}
    assert again.kinds["spectrogram"].computed == 0


def test_an_album_without_audio_has_no_features(store):
    put_segments(store, [row("a", has_audio=False)], [media_of(0)])
    report = compute_features(store, LAYOUT, CONFIG, "Blue", ["spectrogram"])
    assert report.kinds == {}
    assert open_features(store, LAYOUT, CONFIG) == {}


def test_segments_are_read_one_by_one(store):
    segments = put_some(store, 4)
    for album in ("Blue", "Red"):
        spectrograms(store, album=album)
    opened = open_features(store, LAYOUT, CONFIG)
    assert list(opened) == ["spectrogram"]
    reader = opened["spectrogram"]
    store.reset()
    for segment in segments:
        expected = stored(store, album=segment.album).get(segment.id)
        assert reader.get(segment).tobytes() == expected.tobytes()
        assert reader.get(segment).base is None  # not a view that keeps an album in memory
    reads = [key for kind, key in store.calls if kind == "get" and key.endswith(".npz")]
    assert len(reads) == 4 + 2
    store.delete(LAYOUT.features("spectrogram", VERSION, "Red"))
    (reader,) = open_features(store, LAYOUT, CONFIG).values()
    assert reader.get(segments[3]) is None


def test_a_damaged_object_is_named_and_computed_again(store):
    put_some(store, 4)
    spectrograms(store)
    whole = store.get(KEY)
    store.put(KEY, whole[:-40])
    with pytest.raises(BadShard, match=r"album=blue-.*delete it, and materialise"):
        stored(store)
    said = []
    assert spectrograms(store, say=said.append).computed == 2
    assert any("computed again" in line for line in said)
    assert store.get(KEY) == whole


def test_rows_that_do_not_fit_their_ids_are_refused():
    good = SongFeatures(("a", "b"), ("x", "y"), np.zeros((2, 3), np.float32))
    assert SongFeatures.from_npz(good.to_npz(), "k").ids == ("a", "b")
    for bad in (
        SongFeatures(("a", "b"), ("x", "y"), np.zeros((3, 3), np.float32)),
        SongFeatures(("a", "a"), ("x", "y"), np.zeros((2, 3), np.float32)),
        SongFeatures(("a", "b"), ("x", "y"), np.zeros((2, 3))),
        SongFeatures(("a", "b"), ("x",), np.zeros((2, 3), np.float32)),
    ):
        with pytest.raises(BadShard, match="k must hold a float32 row for each"):
            SongFeatures.from_npz(bad.to_npz(), "k")


def test_an_album_of_too_many_features_is_refused():
    huge = np.broadcast_to(np.zeros((), np.float32), (1 << 14, 1 << 13))  # 512 MiB of nothing
    with pytest.raises(TooManyFeatures, match="at most: found 1536 MiB of 3 segments"):
        SongFeatures.of("abc", "xyz", [huge] * 3)


def test_kinds_are_those_that_a_network_reads():
    assert kinds_of(CONFIG) == ("text", "spectrogram")
    assert kinds_of(config_of({"type": "wav2vec2"})) == ("text",)
    assert kinds_of(config_of({"type": "wav2vec2", "precomputed": True})) == ("text", "audio")
    words = song_config({"model": {"text_encoder": {"type": "deberta"}}})
    assert kinds_of(words) == ("spectrogram",)


def test_features_of_no_pretrained_encoder_are_refused(store):
    put_some(store, 2)
    with pytest.raises(ValueError, match="'cnn' has no pretrained model"):
        compute_features(store, LAYOUT, CONFIG, "Blue", ["audio"], profile="pretrained")


SEEN = f"{KEY.removesuffix('.npz')}.seen.json"


def test_what_no_finished_run_left_is_not_given(store):
    """Whoever wrote the object last: it is that which a run told of when it ended, or none."""
    put_some(store, 4)
    spectrograms(store)
    whole, told = store.get(KEY), store.get(SEEN)
    for other in (b"", b"[]", b"\xff", b'{"media": "as it was told once"}'):
        store.put(SEEN, other)
        with pytest.raises(NoFeatures, match="a run left that went to its end"):
            stored(store)
    store.put(SEEN, told)
    found = stored(store)
    part = SongFeatures.of(found.ids[:1], found.made_of[:1], list(found.values[:1]))
    store.put(KEY, part.to_npz())
    with pytest.raises(NoFeatures, match="a run left that went to its end"):
        stored(store)
    assert spectrograms(store).computed == 1
    assert (store.get(KEY), store.get(SEEN)) == (whole, told)


@pytest.mark.parametrize("lose", [lambda _: None, lambda data: data[:-40]])
def test_features_that_were_lost_and_made_in_part_are_not_taken_for_all(store, monkeypatch, lose):
    monkeypatch.setattr(feature_rows, "SAVED_EVERY", 1)
    put_rows(store, *((f"s{n}", waveform(n)) for n in range(4)))
    spectrograms(store)
    whole = store.get(KEY)
    store.delete(KEY)
    if left := lose(whole):
        store.put(KEY, left)

    def die_after(collect, looked):
        yield next(looked)
        raise KeyboardInterrupt

    with dying(monkeypatch, die_after):
        spectrograms(store)
    assert SongFeatures.from_npz(store.get(KEY), KEY).ids == ("s0",)
    with pytest.raises(NoFeatures):
        stored(store)
    assert spectrograms(store).computed == 3
    assert store.get(KEY) == whole


def test_a_killed_writer_takes_nothing_from_one_that_was_faster(store, monkeypatch):
    monkeypatch.setattr(feature_rows, "SAVED_EVERY", 1)
    put_rows(store, *((f"s{n}", waveform(n)) for n in range(4)))

    def overtaken(collect, looked):
        yield next(looked)
        with monkeypatch.context() as alone:
            alone.setattr(features, "collect", collect)
            assert spectrograms(store).rows == 4
        yield next(looked)
        raise KeyboardInterrupt

    with dying(monkeypatch, overtaken):
        spectrograms(store)
    assert SongFeatures.from_npz(store.get(KEY), KEY).ids == ("s0", "s1", "s2", "s3")
    assert spectrograms(store).computed == 0
    assert len(stored(store)) == 4


@contextmanager
def dying(monkeypatch, change):
    """A run that ends as `change`, a generator of what is left of what it looks at, does."""
    collect = features.collect

    def changed(kinds, order, settled, looked, progress):
        return collect(kinds, order, settled, change(collect, looked), progress)

    with monkeypatch.context() as patched:
        patched.setattr(features, "collect", changed)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_an_albums_vectors_of_words_alone_are_looked_at(store, monkeypatch):
    """Of the metadata, which may be large, and one of its columns at most."""
    width, count = 1 << 16, 16
    vectors = np.random.default_rng(1).random(width * count, np.float32)
    rows = [row(f"s{n}", album="Blue" if n < count - 1 else "Red") for n in range(count)]
    put_segments(store, rows, [media_of(0)] * count)
    offsets = np.arange(count + 1, dtype=np.int32) * width
    column = pa.ListArray.from_arrays(offsets, vectors)
    metadata = table(*rows).append_column("text_embedding", column)
    store.put(LAYOUT.metadata(), parquet(metadata, row_group_size=1))
    read, part = [], store.get_range

    def get_range(key, start, length, mark=None):
        read.append(length)
        return part(key, start, length, mark)

    monkeypatch.setattr(store, "get_range", get_range)
    report = compute_features(store, LAYOUT, CONFIG, "Red", ["text"], profile="pretrained")
    assert (report.in_metadata, report.kinds) == (1, {})
    # Two footers' first parts of half a megabyte, and a vector of a quarter.
    assert sum(read) < 2 << 20 < vectors.nbytes
