import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.storage.keys import check_key
from clipfarm_assets.storage.song_layout import FUSION_STRATEGIES, SongLayout, album_slug

BLUE = f"blue-{hashlib.sha256(b'Blue').hexdigest()[:10]}"
ALBUMS = st.text(min_size=1, max_size=60).filter(lambda s: s == s.strip() and s.isprintable())


def test_every_key():
    layout = SongLayout()
    for key, expected in {
        layout.metadata(): "songs/raw/training_segments_metadata.parquet",
        layout.media(): "songs/raw/training_segments_media.parquet",
        layout.files(): "songs/raw/files/",
        layout.file("a/1.wav"): "songs/raw/files/a/1.wav",
        layout.splits(): "songs/splits.json",
        layout.alignment_prefix(): "songs/alignment/",
        layout.alignment("Blue"): f"songs/alignment/album={BLUE}.parquet",
        layout.features_prefix("text", "v-1"): "songs/features/text/v-1/",
        layout.features("audio", "v1", "Blue"): f"songs/features/audio/v1/album={BLUE}.npz",
        layout.fusion_model("cross_attention"): "songs/models/fusion/strategy=cross_attention/",
        layout.single_model("midi"): "songs/models/single/modality=midi/",
        layout.comparison(): "songs/comparison/",
        layout.report("alignment.png"): "songs/reports/alignment.png",
    }.items():
        assert key == expected


def test_strategies_are_those_of_fusion():
    assert FUSION_STRATEGIES == STRATEGIES
    for strategy in STRATEGIES:
        assert check_key(SongLayout().fusion_model(strategy).removesuffix("/"))
    for modality in MODALITIES:
        assert check_key(SongLayout().single_model(modality).removesuffix("/"))


@pytest.mark.parametrize(
    ("album", "begins"),
    [
        ("Blue", "blue-"),
        ("The Wall (Disc 1)", "the-wall-disc-1-"),
        ("Ágætis byrjun", "agtis-byrjun-"),
        ("../../etc/passwd", "etc-passwd-"),
        ("x" * 256, "x" * 40 + "-"),
        ("Синий", ""),
        ("…", ""),
    ],
)
def test_albums_are_readable_in_keys(album, begins):
    slug = album_slug(album)
    assert slug == begins + hashlib.sha256(album.encode()).hexdigest()[:10]
    assert check_key(SongLayout().alignment(album))


@given(ALBUMS, ALBUMS)
def test_albums_are_apart_in_keys_also_without_upper_case(one, other):
    layout = SongLayout()
    for key in (layout.alignment(one), layout.features("spectrogram", "v", one)):
        assert check_key(key)
        assert key == key.lower()
    assert (layout.alignment(one) == layout.alignment(other)) == (one == other)


def test_albums_that_differ_in_case_or_accents_alone_are_apart():
    assert len({album_slug(a) for a in ("Blue", "BLUE", "blue", "Blué", "Blue!")}) == 5


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("raw/files/", "songs/raw/files/a.wav"),
        ("raw/files", "songs/raw/files/a.wav"),
        ("songs/raw/x", "songs/raw/x/a.wav"),
        ("songs", "songs/songs/a.wav"),
        ("", "songs/a.wav"),
    ],
)
def test_the_folder_of_files_may_be_relative_or_whole(folder, expected):
    assert SongLayout(files_prefix=folder).file("a.wav") == expected


def test_files_may_be_named_whole():
    layout = SongLayout(
        prefix="team/songs", metadata_key="team/songs/m.parquet", media_key="b.parquet"
    )
    assert layout.metadata() == "team/songs/m.parquet"
    assert layout.media() == "team/songs/b.parquet"


@pytest.mark.parametrize(
    "make",
    [
        lambda layout: layout.file("../../secret"),
        lambda layout: layout.file("/etc/passwd"),
        lambda layout: layout.file(""),
        lambda layout: layout.alignment(""),
        lambda layout: layout.alignment(" Blue"),
        lambda layout: layout.alignment("a\nb"),
        lambda layout: layout.features("text", "v/1", "Blue"),
        lambda layout: layout.features("text", "", "Blue"),
        lambda layout: layout.features("midi", "v", "Blue"),
        lambda layout: layout.features("text", "v", ""),
        lambda layout: layout.fusion_model("concat"),
        lambda layout: layout.fusion_model("../x"),
        lambda layout: layout.single_model("video"),
        lambda layout: layout.report("../x.png"),
        lambda _: SongLayout(prefix=""),
        lambda _: SongLayout(prefix="../x"),
        lambda _: SongLayout(metadata_key="/x"),
        lambda _: SongLayout(media_key="x//y"),
        lambda _: SongLayout(files_prefix="a//b"),
    ],
)
def test_bad_parts_make_no_key(make):
    with pytest.raises(ValueError, match=r"bad|unknown"):
        make(SongLayout())
