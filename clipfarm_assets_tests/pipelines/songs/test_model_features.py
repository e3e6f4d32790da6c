"""Features that pretrained models compute: text embeddings and audio tokens."""

import numpy as np
import pytest

from clipfarm_assets.pipelines.songs import feature_makers, feature_rows
from clipfarm_assets.pipelines.songs.features import (
    NoFeatures,
    WrongWidth,
    compute_features,
    feature_version,
    open_features,
    read_features,
)
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.pipelines.songs.stored_features import check_features
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets_tests.contracts.song_kit import row, table
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    TEXT_FIELD,
    counting_store,
    media_of,
    parquet,
    put_segments,
    put_some,
)

DIM = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from clipfarm_assets_tests.training.song_encoders import kit

    folder = tmp_path_factory.mktemp("models")
    return {"text": kit.deberta_folder(folder), "audio": kit.wav2vec2_folder(folder)}


@pytest.fixture
def config(models):
    def made(dim=DIM, max_tokens=16, stored_dim=DIM, seconds=0.25, **audio):
        return song_config(
            {
                "model": {
                    "text_encoder": {
                        "type": "precomputed",
                        "dim": dim,
                        "model": str(models["text"]),
                        "max_tokens": max_tokens,
                    },
                    "audio_encoder": {
                        "type": "wav2vec2",
                        "precomputed": True,
                        "model": str(models["audio"]),
                        "stored_dim": stored_dim,
                        "tokens": 4,
                        **audio,
                    },
                },
                "preprocessing": {"audio": {"seconds": seconds}},
            }
        )

    return made


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


def words(store, config, album="Blue"):
    return compute_features(store, LAYOUT, config, album, ["text"])


def test_text_embeddings_are_those_of_each_text_alone(store, config, models):
    import torch

    from clipfarm_assets.training.song_encoder_config import DebertaText
    from clipfarm_assets.training.song_encoders.text import DebertaEncoder, LyricTokenizer

    segments = put_some(store, 6)
    report = words(store, config()).kinds["text"]
    assert (report.rows, report.computed, report.shape) == (3, 3, (DIM,))
    assert report.model == models["text"].name
    assert report.is_stand_in
    encoder = DebertaEncoder.load(models["text"], DebertaText())
    tokenizer = LyricTokenizer(models["text"], 16)
    found = read_features(store, LAYOUT, config(), "text", "Blue")
    for segment in segments[:3]:
        with torch.inference_mode():
            alone = encoder.pooled(**tokenizer([segment.lyric_text]).inputs)
        assert found.get(segment.id).tobytes() == alone[0].numpy().tobytes()


def test_words_that_the_metadata_has_vectors_of_are_not_encoded_again(store, config):
    rows = [
        {**row("given"), "text_embedding": [0.5] * DIM},
        row("needed", lyric_text="love"),
        row("sung by nobody", vocals=False),
        row("blank", lyric_text=" \n"),
    ]
    segments = put_segments(store, rows, [media_of(n) for n in range(4)], fields=[TEXT_FIELD])
    report = words(store, config())
    assert (report.segments, report.in_metadata) == (4, 1)
    assert read_features(store, LAYOUT, config(), "text", "Blue").ids == ("needed",)
    reader = open_features(store, LAYOUT, config())["text"]
    assert [reader.get(each) is not None for each in segments] == [False, True, False, False]


def test_no_model_is_needed_where_the_metadata_has_all_vectors(store, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = [{**row("given"), "text_embedding": [0.5] * 768}]
    put_segments(store, rows, [media_of(0)], fields=[TEXT_FIELD])
    config = song_config({})
    report = compute_features(store, LAYOUT, config, "Blue", ["text"], profile="pretrained")
    assert (report.kinds, report.in_metadata) == ({}, 1)
    assert open_features(store, LAYOUT, config, profile="pretrained") == {}


def test_other_words_are_encoded_again_and_old_vectors_not_given(store, config):
    put_segments(store, [row("a"), row("b")], [media_of(0), media_of(1)])
    words(store, config())
    changed = put_segments(
        store, [row("a", lyric_text="night rain"), row("b")], [media_of(0), media_of(1)]
    )
    reader = open_features(store, LAYOUT, config())["text"]
    assert [reader.get(each) is None for each in changed] == [True, False]
    report = words(store, config()).kinds["text"]
    assert (report.rows, report.computed) == (2, 1)
    reader = open_features(store, LAYOUT, config())["text"]
    assert all(reader.get(each) is not None for each in changed)


def test_tokens_beyond_the_maximum_are_counted(store, config):
    put_segments(
        store,
        [row("long", lyric_text="love night rain gold river"), row("short")],
        [media_of(0)] * 2,
    )
    report = words(store, config(max_tokens=4)).kinds["text"]
    assert report.texts_cut >= 1
    assert report.tokens_cut >= 3


def test_audio_tokens_do_not_depend_on_neighbours(store, config, tmp_path):
    put_some(store, 6)
    report = compute_features(store, LAYOUT, config(), "Blue", ["audio"])
    assert report.kinds["audio"].shape[1] == DIM
    found = read_features(store, LAYOUT, config(), "audio", "Blue")
    assert np.isfinite(found.values).all()
    other = counting_store(tmp_path / "other")
    put_segments(other, [row("s1", lyric_text="la 1")], [media_of(1)])
    compute_features(other, LAYOUT, config(), "Blue", ["audio"])
    alone = read_features(other, LAYOUT, config(), "audio", "Blue")
    assert alone.get("s1").tobytes() == found.get("s1").tobytes()
    assert found.get("s0").tobytes() != found.get("s1").tobytes()


def test_all_kinds_of_a_network_are_computed_in_one_call(store, config):
    segments = put_some(store, 2)
    report = compute_features(store, LAYOUT, config(), "Blue")
    assert list(report.kinds) == ["text", "audio"]
    opened = open_features(store, LAYOUT, config())
    assert {kind: each.get(segments[0]).ndim for kind, each in opened.items()} == {
        "text": 1,
        "audio": 2,
    }
    again = compute_features(store, LAYOUT, config(), "Blue")
    assert again.version == report.version
    assert [each.computed for each in again.kinds.values()] == [0, 0]


def test_vectors_of_another_width_than_the_settings_say_are_refused(store, config):
    put_some(store, 2)
    with pytest.raises(WrongWidth, match=r"text_encoder\.dim must be the width .*, 32: found 768"):
        words(store, config(dim=768))
    with pytest.raises(WrongWidth, match=r"audio_encoder\.stored_dim must be .*, 32: found 768"):
        compute_features(store, LAYOUT, config(stored_dim=768), "Blue", ["audio"])


def test_versions_follow_from_what_decides_the_vectors(config):
    base = config()
    assert feature_version("text", base) == feature_version("text", config(seconds=0.5))
    assert feature_version("text", base) != feature_version("text", config(max_tokens=8))
    assert feature_version("audio", base) == feature_version("audio", config(max_tokens=8))
    assert feature_version("audio", base) != feature_version("audio", config(seconds=0.5))
    assert feature_version("audio", base) != feature_version("audio", config(tokens=2))


def test_features_of_another_model_are_not_given(store, config, tmp_path):
    from clipfarm_assets_tests.training.song_encoders import kit

    put_some(store, 2)
    words(store, config())
    other = kit.stand_in_deberta(tmp_path, ["other", "words"], kit.SMALL_DEBERTA)
    changed = song_config(
        {"model": {"text_encoder": {"type": "precomputed", "dim": DIM, "model": str(other)}}}
    )
    with pytest.raises(NoFeatures):
        read_features(store, LAYOUT, changed, "text", "Blue")
    assert open_features(store, LAYOUT, changed) == {}


def test_the_demo_profile_needs_a_folder_for_its_models():
    with pytest.raises(ValueError, match="give cache_dir"):
        feature_version("text", song_config({}), profile="demo")


def check(store, config, segments):
    return check_features(store, LAYOUT, config, segments)


def test_vectors_of_some_words_are_not_taken_for_all(store, config, monkeypatch):
    """After a kill the others are not taken for segments without words."""
    monkeypatch.setattr(feature_rows, "SAVED_EVERY", 1)
    segments = put_some(store, 6)
    deaf = song_config({"model": {"text_encoder": config().model.text_encoder.model_dump()}})
    make = feature_makers.TextMaker.make
    made = []

    def make_and_die(self, prepared):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(prepared)
        return make(self, prepared)

    with monkeypatch.context() as patched:
        patched.setattr(feature_makers.TextMaker, "make", make_and_die)
        with pytest.raises(KeyboardInterrupt):
            words(store, config())
    reader = open_features(store, LAYOUT, config())["text"]
    with pytest.raises(NoFeatures, match="a run left that went to its end"):
        reader.get(segments[0])
    blue = [each for each in segments if each.album == "Blue"]
    with pytest.raises(NoFeatures, match="text features must be there of 3 segments"):
        check(store, deaf, blue)
    assert words(store, config()).kinds["text"].computed == 1
    check(store, deaf, blue)


def test_an_album_without_features_that_are_read_is_refused(store, config):
    given = put_some(store, 4)
    for kind in ("text", "audio"):
        with pytest.raises(NoFeatures, match=r"in 2 of 2 albums, such as 'Blue', 'Red'; mater"):
            check(store, config(), given)
        compute_features(store, LAYOUT, config(), "Blue", [kind])
        with pytest.raises(NoFeatures, match=f"{kind} features .* in 1 of 2 albums, such as 'Red'"):
            check(store, config(), given)
        report = compute_features(store, LAYOUT, config(), "Red", [kind])
    check(store, config(), given)
    store.delete(report.kinds["audio"].key)
    with pytest.raises(NoFeatures, match="audio features"):
        check(store, config(), given)
    # A spectrogram is made of the sound where there is none.
    check(store, song_config({"model": {"text_encoder": {"type": "deberta"}}}), given)


def test_features_of_other_segments_words_or_media_are_refused(store, config):
    said = row("a", lyric_text="night rain")
    silent, heard = row("b", has_audio=False), row("b")
    media = [media_of(0), media_of(1)]
    given = put_segments(store, [row("a"), silent], media)
    compute_features(store, LAYOUT, config(), "Blue")
    check(store, config(), given)
    for kind, changed in (("text", [said, silent]), ("audio", [said, heard])):
        store.put(LAYOUT.metadata(), parquet(table(*changed)))
        given = read_segments(store, LAYOUT).segments
        with pytest.raises(NoFeatures, match=f"{kind} features"):
            check(store, config(), given)
        compute_features(store, LAYOUT, config(), "Blue")
        check(store, config(), given)
    put_segments(store, [said, heard], media)
    with pytest.raises(NoFeatures, match="audio features"):
        check(store, config(), given)
