"""Generated songs in a store, and what becomes of them before anything is learned."""

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.contracts.song_columns import MEDIA_COLUMNS, SegmentColumns
from clipfarm_assets.demo.songs import rows
from clipfarm_assets.demo.songs.corpus import GROUP_ROWS, make_songs
from clipfarm_assets.demo.songs.declared import OFFSET_TOLERANCE, pairings
from clipfarm_assets.demo.songs.edge_cases import EDGE_CASES
from clipfarm_assets.demo.songs.findings import look_up
from clipfarm_assets.demo.songs.plan import plan_songs
from clipfarm_assets.demo.songs.summary import planned
from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets.encoders.waveforms.prepare import decode_samples
from clipfarm_assets.pipelines.songs.media import open_media
from clipfarm_assets.pipelines.songs.promises import files_agree
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout


@pytest.fixture(scope="module")
def outcomes(prepared):
    return look_up(prepared.deployment, prepared.corpus.plan)


@pytest.mark.parametrize("case", EDGE_CASES, ids=lambda case: case.name)
def test_a_case_becomes_what_it_must(outcomes, case):
    assert outcomes.differs(case) == ""


def test_nothing_is_dropped_in_silence(outcomes, prepared):
    assert outcomes.as_expected
    assert outcomes.rows == prepared.corpus.rows
    assert outcomes.segments < outcomes.rows


def test_another_outcome_than_expected_is_told(outcomes):
    case = next(case for case in EDGE_CASES if case.name == "url")
    wrong = replace(case, expected=replace(case.expected, problems=frozenset()))
    assert outcomes.differs(wrong) == "reported: expected [], found ['refused_path']"
    lost = replace(outcomes, unaccounted=1)
    assert not lost.as_expected


def test_planted_offsets_are_found_and_unrelated_pairs_rejected(prepared):
    found = pairings(prepared.deployment, prepared.corpus.plan)
    assert sum(each.pairs for each in found.values()) > 5
    for name, each in found.items():
        assert each.right >= 0.9 * each.pairs, name
        assert each.worst is None or each.worst <= OFFSET_TOLERANCE, name


def test_both_files_agree_and_media_come_in_groups(prepared):
    store, layout = prepared.deployment.store, prepared.deployment.songs
    verdict = files_agree(store, layout)
    assert verdict.holds, verdict.summary()
    path = prepared.folder / "store" / layout.media()
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sum(groups) == prepared.corpus.rows
    assert max(groups) == GROUP_ROWS
    assert set(MEDIA_COLUMNS) <= set(pq.read_schema(path).names)


def test_segments_are_as_planned(prepared):
    store, layout = prepared.deployment.store, prepared.deployment.songs
    report = read_segments(store, layout)
    found = {segment.id: segment for segment in report.segments}
    media = open_media(store, layout)
    for planned_segment in prepared.corpus.plan.segments:
        segment = found[planned_segment.id]
        assert segment.label == planned_segment.mood
        assert segment.has_text == planned_segment.vocals
        made = rows.make(planned_segment, prepared.corpus.plan.seed)
        audio, midi = media.audio(segment), media.midi(segment)
        assert (audio is not None, midi is not None) == (segment.has_audio, segment.has_midi)
        if audio is not None:
            samples, rate = decode_samples(audio.data, audio.rate)
            assert rate == made.rate
            np.testing.assert_allclose(samples, made.heard, atol=1e-4)
        if midi is not None and planned_segment.pairing in {None, "aligned"}:
            notes = read_score(midi).notes
            np.testing.assert_allclose(
                np.sort(notes["start"]), np.sort([n.start for n in made.notes]), atol=2e-3
            )
    assert media.counts.counted().counts == {}
    sources = media.counts.sources
    assert sources["audio"]["store"] > 0
    assert sources["audio"]["parquet"] > 0
    assert planned(report) == prepared.corpus.plan


def test_the_same_arguments_give_the_same_bytes_under_any_layout(tmp_path):
    found = []
    for prefix in ("songs", "elsewhere/of/them"):
        store = ObjectStore.open(str(tmp_path / prefix.replace("/", "-")))
        corpus = make_songs(store, SongLayout(prefix=prefix), 4, 1, edge_cases=True)
        objects = {
            info.key.removeprefix(f"{prefix}/"): store.get(info.key) for info in store.list("")
        }
        assert corpus.bytes == sum(map(len, objects.values()))
        assert corpus.files == len(objects) - 2
        found.append({k: hashlib.sha256(data).hexdigest() for k, data in objects.items()})
    assert found[0] == found[1]


def test_columns_can_be_called_otherwise(tmp_path):
    columns = SegmentColumns(segment_id="id", label="mood", text_embedding="vector")
    store, layout = ObjectStore.open(str(tmp_path)), SongLayout()
    corpus = make_songs(store, layout, 4, 1, columns=columns)
    report = read_segments(store, layout, columns)
    assert [s.id for s in report.segments] == [s.id for s in corpus.plan.segments]
    assert corpus.plan == plan_songs(4, 1)
    assert files_agree(store, layout, columns).holds


def test_names_are_unique():
    names = [case.name for case in EDGE_CASES]
    assert len(set(names)) == len(names)


def test_times_of_albums_are_as_their_ways_say():
    assert rows.smpte(61.04) == "01:01:01:01"
    assert rows.lrc(83.45) == "[01:23.45]"
