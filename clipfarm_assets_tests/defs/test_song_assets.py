"""The song pipeline by runs of the real definitions."""

import json
import re

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.defs.songs import common
from clipfarm_assets.defs.songs.models import ComparisonRun
from clipfarm_assets.demo.songs import summary
from clipfarm_assets.demo.songs.corpus import GROUP_ROWS
from clipfarm_assets.demo.songs.edge_cases import ALBUM, EDGE_CASES
from clipfarm_assets.demo.songs.plan import ALBUMS
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.storage.song_layout import FUSION_STRATEGIES
from clipfarm_assets_tests.defs.song_kit import (
    SEGMENTS,
    SONGS,
    SongBench,
    checked,
    observed,
    shown,
    table,
    versions,
)
from clipfarm_assets_tests.defs.test_definitions import SONG_CHECKS

NO_SEGMENTS = 2  # the second row of an id, and one without a song
ROWS = SONGS * SEGMENTS + len(EDGE_CASES) + 1
EVERY_ALBUM = sorted([*ALBUMS, ALBUM])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Songs with all but models, and the instance that knows of it."""
    bench = SongBench(tmp_path_factory.mktemp("prepared") / "bench").make()
    with dg.DagsterInstance.ephemeral() as instance:
        bench.prepare(instance)
        yield bench, instance


@pytest.fixture(scope="module")
def trained(prepared):
    """The same with all models, judged. What was made before stays as it was."""
    bench, instance = prepared
    bench.train(instance)
    config = {"ops": {"songs__strategy_comparison": {"config": {"without_dropout": ["late"]}}}}
    bench.run(instance, "songs_compare", config=config)
    return bench, instance


def rewrite(bench, change):
    """Write both files again, with the metadata's columns changed."""
    for key in (bench.songs.media(), bench.songs.metadata()):
        path = bench.root / "store" / key
        table_read = change(pq.read_table(path))
        pq.write_table(table_read, path)


def test_both_sources_are_observed_and_albums_become_partitions(prepared):
    instance = prepared[1]
    found = observed(instance, "segments_metadata")
    assert found.metadata["dagster/row_count"].value == ROWS
    assert found.metadata["segments"].value == ROWS - NO_SEGMENTS
    assert found.metadata["rows_left_out"].value == NO_SEGMENTS
    for kind in ("duplicate_id", "missing_song", "missing_label", "bad_timecode", "bad_span"):
        assert found.metadata[f"problem/{kind}"].value == 1, kind
    coverage = {row["album"]: row for row in table(found.metadata["coverage"])}
    assert set(coverage) == set(EVERY_ALBUM)
    assert coverage["Blue"]["midi"] < 0.2
    assert found.metadata["albums_added"].value == ", ".join(EVERY_ALBUM)
    media = observed(instance, "segments_media")
    assert media.metadata["dagster/row_count"].value == ROWS
    assert media.metadata["row_groups"].value == -(-ROWS // GROUP_ROWS)
    assert partitions.known_albums(instance) == EVERY_ALBUM
    for one in (found, media):
        assert one.tags["dagster/data_version"]


def test_sources_have_their_checks(prepared):
    instance = prepared[1]
    passed, found = checked(instance, "segments_media", "files_agree")[None]
    assert passed
    assert found["examined"].value == ROWS
    passed, found = checked(instance, "segments_metadata", "modalities_cover")[None]
    assert passed
    assert "Blue/midi" in found


def test_new_albums_are_added_and_old_ones_stay(prepared, instance, tmp_path):
    bench = prepared[0].copy(tmp_path / "bench")
    bench.run(instance, "songs_observe")

    def renamed(read):
        place = read.column_names.index("album")
        albums = [a.replace("Blue", "And then...") for a in read["album"].to_pylist()]
        return read.set_column(place, "album", pa.array(albums, pa.string()))

    rewrite(bench, renamed)
    bench.run(instance, "songs_observe")
    assert partitions.known_albums(instance) == [*EVERY_ALBUM, "And then…"]
    found = observed(instance, "segments_metadata").metadata
    assert (found["albums_added"].value, found["albums_gone"].value) == ("And then…", "Blue")
    others = "'Blue' is no album .*; the other partitions are made"
    with pytest.raises(dg.Failure, match=others):
        bench.run(instance, "songs_align", span=(EVERY_ALBUM[0], "And then…"))
    assert set(shown(instance, "alignment")) == {*EVERY_ALBUM, "And then…"} - {"Blue"}
    assert shown(instance, "alignment")["And then…"]["album"].value == "And then..."
    with pytest.raises(dg.Failure, match=r"'Blue' is no album .* adds the albums there are$"):
        bench.run(instance, "songs_align", "Blue")


def test_two_albums_of_one_partition_are_refused():
    with pytest.raises(BadSettings, match=r"'And…' and 'And\.\.\.' would be one partition"):
        common.albums_by_key(["And…", "And..."])


def test_splits_show_sizes_and_classes(prepared):
    found = shown(prepared[1], "splits")[None]
    assert found["dagster/row_count"].value == ROWS - NO_SEGMENTS
    assert found["groups"].value == SONGS + len(EDGE_CASES) - 2  # no song, and one of another
    assert {row["split"] for row in table(found["classes"])} == {"train", "val", "test"}
    assert checked(prepared[1], "splits", "songs_in_one_split")[None][0]


def test_each_album_is_aligned_and_has_its_features(prepared):
    bench, instance = prepared
    found, computed = shown(instance, "alignment"), shown(instance, "features")
    assert set(found) == set(computed) == set(EVERY_ALBUM)
    rows = sum(each["dagster/row_count"].value for each in found.values())
    assert rows == sum(each["dagster/row_count"].value for each in computed.values())
    assert rows == ROWS - NO_SEGMENTS
    for album in EVERY_ALBUM:
        assert bench.store.exists(found[album]["key"].value)
        (kind,) = table(computed[album]["kinds"])
        assert bench.store.exists(computed[album][f"key/{kind['kind']}"].value)
        assert kind["segments"] == kind["computed"] > 0
    assert sum(each["pairs"].value for each in found.values()) > 0
    for made in ("alignment", "features"):
        assert len(set(versions(instance, made).values())) == len(EVERY_ALBUM)
    results = checked(instance, "alignment", "segments_aligned")
    assert {key for key in results if key} == set(EVERY_ALBUM)


def test_preparing_again_makes_nothing(prepared, instance):
    bench = prepared[0]
    before = bench.objects()
    bench.prepare(instance)
    assert bench.objects() == before
    for found in shown(instance, "features").values():
        assert all(kind["computed"] == 0 for kind in table(found["kinds"]))
    assert all(f["listened_to"].value == 0 for f in shown(instance, "alignment").values())


def test_every_strategy_shows_its_fit_and_lies_under_the_known_keys(trained):
    bench, instance = trained
    found = shown(instance, "fusion_models")
    assert set(found) == set(FUSION_STRATEGIES)
    for strategy, each in found.items():
        folder = f"songs/models/fusion/strategy={strategy}/"
        assert each["key"].value == folder
        for name in ("config.yaml", "model.safetensors", "gradients.csv", "snapshot.json"):
            assert bench.store.exists(folder + name), name
        assert each["model"].value == f"{strategy}/{versions(instance, 'fusion_models')[strategy]}"
        assert each[f"{strategy}/epochs"].value == 2
        assert {f"gradient/{m}" for m in MODALITIES} <= set(each)
        assert "data:image/png;base64," in each["plot/curves"].md_str
        assert {row["split"] for row in table(each["rows"])} == {"train", "val"}
        assert checked(instance, "fusion_models", "snapshot_intact")[strategy][0]
        assert checked(instance, "fusion_models", "gradients_balanced")[strategy][1]["examined"]


def test_the_comparison_shows_strategies_side_by_side(trained):
    bench, instance = trained
    found = shown(instance, "strategy_comparison")[None]
    models = {row["model"] for row in table(found["metrics"])}
    assert models == {*FUSION_STRATEGIES, *(f"single:{m}" for m in MODALITIES)}
    by_subset = {row["model"]: row for row in table(found["macro_f1_by_modalities"])}
    assert set(by_subset) == set(FUSION_STRATEGIES)
    assert len(by_subset["late"]) == 1 + 2 ** len(MODALITIES)
    trained_how = [
        row["trained"] for row in table(found["macro_f1_lost"]) if row["model"] == "late"
    ]
    assert trained_how == ["as trained", "without modality dropout"]
    stored = json.loads(bench.store.get("songs/comparison/comparison.json"))
    for strategy, verdict in stored["splits"]["test"]["verdicts"].items():
        assert found[f"verdict/{strategy}"].value == verdict["told"]
    assert any(name.startswith("plot/") for name in found)
    wins = [v["fusion_wins"] for v in stored["splits"]["test"]["verdicts"].values()]
    assert checked(instance, "strategy_comparison", "fusion_beats_single")[None][0] == all(wins)
    passed, shown_ = checked(instance, "strategy_comparison", "degrades_gracefully")[None]
    assert passed  # no more than 1 can be lost
    assert {f"{s}/lost/midi" for s in FUSION_STRATEGIES} <= set(shown_)


def test_every_check_was_made(trained):
    for name in SONG_CHECKS:
        asset, check = name.removeprefix("songs/").split(":")
        assert checked(trained[1], asset, check), name


def test_the_demos_summary_tells_all_of_it(trained):
    bench, _ = trained
    with bench.resource().open() as opened:
        text, as_declared = summary.of(opened, {"songs_train": {"songs__fusion_models": 1.25}})
    assert f"Edge cases: {len(EDGE_CASES)} of {len(EDGE_CASES)} as expected" in text
    assert "0 unaccounted for" in text
    lost = ("late, without modality dropout", "as trained, of those that had it", "Shapley share")
    for told in (*FUSION_STRATEGIES, "single:midi", "planted", "late_untold", *lost):
        assert told in text
    held = re.search(r"Declared: (\d+) of (\d+) hold", text)
    assert as_declared == (held[1] == held[2])


def test_training_again_fits_nothing(trained, instance):
    bench = trained[0]
    before = bench.objects()
    bench.train(instance, ("late", "late"))
    assert bench.objects() == before
    assert shown(instance, "fusion_models")["late"]["reused"].value is True


def test_a_changed_file_of_a_model_fails_its_check(trained, instance, tmp_path):
    bench = trained[0].copy(tmp_path / "bench")
    weights = "songs/models/fusion/strategy=late/model.safetensors"
    bench.store.put(weights, bench.store.get(weights)[:-4] + b"oops")
    path = common.FUSION_MODELS.path
    result = bench.check_alone(instance, path, "snapshot_intact", "late")
    assert not result.success
    assert not checked(instance, "fusion_models", "snapshot_intact")["late"][0]


@pytest.mark.parametrize(
    ("job", "key", "says"),
    [
        ("songs_observe", None, "songs/raw/training_segments_metadata.parquet"),
        ("songs_split", None, "songs/raw/training_segments_metadata.parquet"),
        ("songs_train", "late", "songs/raw/training_segments_metadata.parquet"),
        ("songs_compare", None, "songs/raw/training_segments_metadata.parquet"),
    ],
)
def test_an_empty_store_says_what_is_missing(tmp_path, instance, job, key, says):
    with pytest.raises(dg.Failure, match=says):
        SongBench(tmp_path).run(instance, job, key)


def test_models_are_made_of_all_albums(prepared):
    graph = prepared[0].defs().resolve_asset_graph()
    for upstream in (common.ALIGNMENT, common.FEATURES):
        mapping = graph.get_partition_mapping(common.FUSION_MODELS, upstream)
        assert isinstance(mapping, dg.AllPartitionMapping)
    mapping = graph.get_partition_mapping(common.COMPARISON, common.FUSION_MODELS)
    assert isinstance(mapping, dg.AllPartitionMapping)


def test_a_wrong_setting_of_a_run_is_one_sentence(prepared, instance):
    config = {"ops": {"songs__splits": {"config": {"config": {"data": {"colour": 1}}}}}}
    with pytest.raises(dg.Failure, match=r"splits\.config\.data\.colour is no setting"):
        prepared[0].run(instance, "songs_split", config=config)


def test_a_strategy_that_is_none_names_the_choices():
    with pytest.raises(BadSettings, match=r"without_dropout: .*'lat': expected one of late, early"):
        ComparisonRun(without_dropout=["lat"]).twins()


def test_fields_of_run_configuration_say_what_they_are():
    for name, field in ComparisonRun.model_fields.items():
        assert field.description, name
