"""What the promises find, on stores that break them one at a time."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.contracts.song_splits import SongSplits
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.pipelines.songs import promises
from clipfarm_assets.pipelines.songs.comparison import compare
from clipfarm_assets.pipelines.songs.fusion import train_fusion
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training import snapshot
from clipfarm_assets.training.song_snapshot import SongModelId, mirror, open_song_model
from clipfarm_assets_tests.pipelines.songs import fusion_kit as kit
from clipfarm_assets_tests.pipelines.songs.segment_kit import parquet

SETTINGS = kit.settings(**kit.COMPARED)
LAYOUT = kit.LAYOUT
COMPARISON = "songs/comparison/comparison.json"


@pytest.fixture
def store(compared, tmp_path):
    """A copy: these tests break what they look at."""
    original, _, _ = compared
    shutil.copytree(original.url, tmp_path / "store")
    copied = ObjectStore.open(str(tmp_path / "store"))
    # Its media is another file, as far as can be told without reading it.
    kit.put_alignment(copied, read_segments(copied, LAYOUT).segments, {})
    return copied


def declared(**shares):
    return kit.settings(data={"declared": {"tolerance": 0.05, **shares}})


def table(store, key):
    return pq.read_table(pa.BufferReader(store.get(key)))


def changed(store, change):
    """The comparison, with something else in it."""
    metrics = json.loads(store.get(COMPARISON))
    change(metrics)
    store.put(COMPARISON, json.dumps(metrics).encode())


def test_files_agree(store):
    verdict = promises.files_agree(store, LAYOUT)
    assert verdict.holds, verdict.summary()
    assert verdict.examined == 120
    assert verdict.facts["stored/midi_binary"] < verdict.facts["stored/audio_waveform"] < 120


def test_a_row_that_differs_is_found(store):
    metadata = table(store, LAYOUT.metadata())
    labels = ["other", *metadata["label"].to_pylist()[1:]]
    place = metadata.schema.get_field_index("label")
    store.put(LAYOUT.metadata(), parquet(metadata.set_column(place, "label", pa.array(labels))))
    (finding,) = promises.files_agree(store, LAYOUT).findings
    assert finding.subject == "label"
    assert "row 0 (s000-0)" in finding.problem


def test_a_column_and_a_row_that_are_missing_are_found_once(store):
    metadata = table(store, LAYOUT.metadata())
    store.put(LAYOUT.metadata(), parquet(metadata.drop(["tempo"]).slice(0, 119)))
    told = [str(each) for each in promises.files_agree(store, LAYOUT).findings]
    assert len(told) == 2
    assert any("tempo: is no column of the metadata" in each for each in told)
    assert sum("119 rows, the media 120" in each for each in told) == 1


def test_modalities_cover_what_is_declared(store):
    found = promises.modalities_cover(store, LAYOUT, declared())
    share = found.facts["share/midi"]
    assert found.holds, "nothing is declared"
    assert promises.modalities_cover(store, LAYOUT, declared(midi=share)).holds
    (finding,) = promises.modalities_cover(store, LAYOUT, declared(midi=share + 0.1)).findings
    assert finding.subject == "midi"
    albums = [found.facts[f"{album}/midi"] for album in ("Blue", "Red")]
    assert sum(albums) / 2 == pytest.approx(share, abs=1e-3)


def test_songs_in_one_split(store):
    assert promises.songs_in_one_split(store, LAYOUT, SETTINGS).holds
    splits = SongSplits.from_json(store.get(LAYOUT.splits()))
    own = {**splits.split_of, "s000-0": "val" if splits.split_of["s000-0"] != "val" else "test"}
    groups = {**splits.group_of, "s000-0": "another song"}
    store.put(LAYOUT.splits(), SongSplits(own, groups, splits.seed, splits.ratios).to_json())
    (finding,) = promises.songs_in_one_split(store, LAYOUT, SETTINGS).findings
    assert finding.subject == "song song 000"


def test_smpte_and_ear_agree_for_enough_pairs(store):
    assert promises.segments_aligned(store, LAYOUT, SETTINGS, "Blue").holds
    segments = kit.plant(ObjectStore.open(store.url))
    blue = [s.id for s in segments if s.album == "Blue" and s.has_audio and s.has_midi]
    kit.put_alignment(store, segments, dict.fromkeys(blue[: len(blue) // 2], "misaligned"))
    verdict = promises.segments_aligned(store, LAYOUT, SETTINGS, "Blue")
    assert verdict.findings[0].subject == "album Blue"
    assert f"of {len(blue)} pairs are aligned, expected 80% at least" in verdict.findings[0].problem
    assert len(verdict.findings) == 1 + len(blue) // 2
    assert verdict.facts["misaligned"] == len(blue) // 2
    assert promises.segments_aligned(store, LAYOUT, SETTINGS, "Red").holds
    assert promises.segments_aligned(store, LAYOUT, SETTINGS, "Blue", least_share=0.2).holds


def test_model_intact(store):
    for model in (*STRATEGIES, "single:midi"):
        assert promises.model_intact(store, LAYOUT, model).holds
    store.put("songs/models/fusion/strategy=early/config.yaml", b"other")
    (finding,) = promises.model_intact(store, LAYOUT, "early").findings
    assert finding.subject.endswith("strategy=early/config.yaml")


def test_gradient_imbalance_detection(store):
    verdict = promises.gradients_balanced(store, LAYOUT, "late")
    assert verdict.holds, verdict.summary()
    assert verdict.examined == 8
    assert verdict.facts["most_times"] < verdict.facts["allowed"] == 10
    strict = kit.settings(imbalance_ratio=1.0001, fit={"max_epochs": 1, "patience": 1})
    kit.plant(store)  # the same again: a copy is no media that the alignment knows
    train_fusion(store, LAYOUT, "late", strict)
    (finding,) = promises.gradients_balanced(store, LAYOUT, "late").findings
    assert finding.subject == "late, epoch 1"
    assert "lower the learning rate of" in finding.problem


def published(store, *, norm, present):
    """The newest late fusion, its MIDI of that norm in two epochs, and in so many segments."""
    found = open_song_model(store, LAYOUT, "late")
    files = {name: found.read(name) for name in found.manifest.artifacts}
    used = {**json.loads(files["config_used.json"]), "planted": [norm, present]}
    history, metrics = json.loads(files["gradients.json"]), json.loads(files["metrics.json"])
    history["norms"]["midi"][2:4] = [norm, norm]
    metrics["present"]["train"]["midi"] = present
    told = {"config_used.json": used, "gradients.json": history, "metrics.json": metrics}
    files |= {name: json.dumps(each).encode() for name, each in told.items()}
    other = SongModelId("late", snapshot.data_version(used))
    snapshot.publish(store, LAYOUT, other, files, {})
    mirror(open_song_model(store, LAYOUT, "late", other.version))


def test_a_modality_that_is_there_and_gets_no_gradients_is_found(store):
    published(store, norm=1e-9, present=20)
    assert promises.gradients_balanced(store, LAYOUT, "late").holds
    published(store, norm=0.0, present=20)
    verdict = promises.gradients_balanced(store, LAYOUT, "late")
    (finding,) = verdict.findings
    assert finding.subject == "late, midi"
    assert "no gradients in 2 of 8 epochs, though 20 segments of train" in finding.problem
    assert verdict.facts["train_segments/midi"] == 20
    published(store, norm=0.0, present=0)
    verdict = promises.gradients_balanced(store, LAYOUT, "late")
    assert verdict.holds, "nothing to learn from"
    assert verdict.facts["train_segments/midi"] == 0


def test_fusion_beats_single_says_what_the_comparison_says(store):
    told = json.loads(store.get(COMPARISON))["splits"]["test"]["verdicts"]
    for strategy in STRATEGIES:
        verdict = promises.fusion_beats_single(store, LAYOUT, SETTINGS, strategy)
        says_no = told[strategy]["told"] in [each.problem for each in verdict.findings]
        assert says_no != told[strategy]["fusion_wins"]
        assert verdict.facts["difference"] == told[strategy]["difference"]["value"]

    def win(metrics):
        metrics["splits"]["test"]["verdicts"]["late"]["fusion_wins"] = not told["late"][
            "fusion_wins"
        ]

    late = promises.fusion_beats_single(store, LAYOUT, SETTINGS, "late")
    assert late.holds == told["late"]["fusion_wins"]
    changed(store, win)
    late = promises.fusion_beats_single(store, LAYOUT, SETTINGS, "late")
    assert late.holds != told["late"]["fusion_wins"]


def lose(metrics, value):
    """Have ``late`` lose so much without MIDI, and nothing without anything else."""
    kinds = metrics["splits"]["test"]["degradation"]["late"]["as trained"]
    bound = metrics["settings"]["most_degradation"]
    for each in kinds.values():
        each |= {"lost": 0.0, "is_within": True}
    kinds["midi"] |= {"lost": value, "is_within": value <= bound}


def test_degrades_gracefully(store):
    changed(store, lambda metrics: lose(metrics, 0.3))
    verdict = promises.degrades_gracefully(store, LAYOUT, SETTINGS, "late")
    assert verdict.holds, verdict.summary()
    assert (verdict.examined, verdict.facts["lost/midi"]) == (3, 0.3)
    changed(store, lambda metrics: lose(metrics, 0.5))
    (finding,) = promises.degrades_gracefully(store, LAYOUT, SETTINGS, "late").findings
    assert str(finding) == "late: loses 0.500 macro-F1 without midi, at most 0.4"


def test_what_those_lose_that_had_the_modality_is_shown_beside(store):
    judged = json.loads(store.get(COMPARISON))["splits"]["test"]
    facts = promises.degrades_gracefully(store, LAYOUT, SETTINGS, "late").facts
    for kind, words in (("models", "lost"), ("without_dropout", "lost_without_dropout")):
        midi = judged[kind]["late"]["degradation"]["midi"]
        own = midi["lost_of_affected"]
        assert facts[f"{words}/midi"] == round(midi["lost"]["value"], 4)
        assert facts[f"{words}_of_affected/midi"] == (
            f"{own['value']:+.3f} ({own['low']:+.2f} to {own['high']:+.2f}) of {midi['affected']}"
        )
        assert midi["affected"] <= judged["present"]["midi"] < judged["rows"]


def test_a_comparison_that_went_easy_on_fusion_is_found(store):
    """Its run's settings: opponents that learnt nothing, a lax bound, a narrow interval."""
    kit.plant(store)  # the same again: a copy is no media that the alignment knows
    asked = SETTINGS.evaluation.model_copy(update={"confidence": 0.5, "most_degradation": 1.0})
    short = kit.settings(fit={"max_epochs": 1, "patience": 1, "batch_size": 16})
    run = short.model_copy(update={"evaluation": asked})
    compare(store, LAYOUT, run, without_dropout=["late"])
    changed(store, lambda metrics: lose(metrics, 0.5))

    def told(promise, strategy):
        return [each.problem for each in promise(store, LAYOUT, SETTINGS, strategy).findings]

    judged, fitted = told(promises.fusion_beats_single, "late")[:2]
    assert "confidence 0.5, not 0.95; most_degradation 1.0, not 0.4: materialise" in judged
    assert "fit.max_epochs 8, not 1; training.fit.patience 8, not 1: materialise" in fitted
    graceful = told(promises.degrades_gracefully, "late")
    assert graceful == [judged, fitted, "loses 0.500 macro-F1 without midi, at most 0.4"]
    assert fitted in told(promises.fusion_beats_single, "early")
    # It has no twin, so that nothing it loses is shown beside what another loses.
    assert told(promises.degrades_gracefully, "early")[0] == judged
    assert fitted not in told(promises.degrades_gracefully, "early")


@pytest.mark.parametrize("promise", [promises.fusion_beats_single, promises.degrades_gracefully])
def test_a_comparison_that_is_missing_or_of_another_model_says_nothing(store, promise):
    def told():
        return promise(store, LAYOUT, SETTINGS, "late").summary()

    changed(store, lambda metrics: metrics.pop("fitted_by_other_settings"))
    assert "does not say what single modalities were fitted by" in told()
    changed(store, lambda metrics: metrics["models"].update(late="0" * 16))
    assert "the comparison is of version 0000" in told()
    store.delete(COMPARISON)
    assert "materialise songs/strategy_comparison" in told()
