import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts import checks
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.horizon_csv import COLUMNS, latest_rows, read_horizon_csv
from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.demo import planted_law
from clipfarm_assets.demo.planted import TOPICS, design_row
from clipfarm_assets.demo.planted_clips import draw_clips
from clipfarm_assets.demo.planted_law import MOOD_SIGN, attainable_r2, shares
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import npy_to_vector
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table

LAYOUT = Layout()
SMALL = {"video": 16, "audio": 12, "text": 14}


def make(folder, **options):
    store = ObjectStore.open(str(folder))
    return store, make_planted_store(store, LAYOUT, **options)


def shards(store, strategy):
    return [
        (info.key, FusedShard.from_npz(store.get(info.key), info.key))
        for info in store.list(LAYOUT.shards_prefix(strategy))
    ]


def by_id(store, strategy="concat"):
    return {
        str(video_id): vector
        for _, shard in shards(store, strategy)
        for video_id, vector in zip(shard.video_ids, shard.vectors, strict=True)
    }


def everything(store):
    return {info.key: store.get(info.key) for info in store.list("")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(
        tmp_path_factory.mktemp("small"),
        clips=150,
        dims=SMALL,
        shard_rows=64,
        write_embeddings=True,
    )


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(small, tmp_path):
    options = {"clips": 150, "dims": SMALL, "shard_rows": 64, "write_embeddings": True}
    again, _ = make(tmp_path / "again", **options)
    assert everything(again) == everything(small[0])
    other, _ = make(tmp_path / "other", **options, seed=1)
    assert everything(other) != everything(small[0])


def test_vectors_do_not_depend_on_the_size_of_shards(small, tmp_path):
    store, _ = make(tmp_path, clips=150, dims=SMALL, shard_rows=1000)
    ours, theirs = by_id(store), by_id(small[0])
    assert ours.keys() == theirs.keys()
    for video_id, vector in ours.items():
        np.testing.assert_allclose(vector, theirs[video_id], atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_manifest_lock_and_shards_keep_the_pipelines_promises(small, strategy):
    store, report = small
    lock = SchemaLock.from_json(store.get(LAYOUT.schema_lock(strategy)))
    assert {m: lock.dim(m) for m in MODALITIES} == SMALL
    assert lock.embedding_versions == report.embedding_versions
    found = shards(store, strategy)
    assert [len(shard) for _, shard in found] == [64, 64, 22]
    assert checks.lock_matches_shards(lock, found).holds
    table = parquet_to_table(store.get(LAYOUT.fused_manifest(strategy)))
    manifest = FusedManifest.from_table(table)
    rows = pl.DataFrame(manifest.rows)
    assert manifest.shards == {key for key, _ in found}
    assert len(rows) == report.clips == 150
    assert checks.pointers_resolve(rows, found).holds
    assert checks.placeholders_approved(rows).holds
    assert checks.manifest_unique(rows).holds
    assert checks.required_modalities_present(rows, everything(store).keys()).holds
    assert (rows["text_present"] == 0).sum() == report.without_text > 0


def test_npy_objects_are_the_slices_of_the_concat_rows(small):
    store, report = small
    for video_id, fused in by_id(store).items():
        present = report.truth.filter(pl.col("video_id") == video_id)["has_text"][0]
        start = 0
        for modality, dim in SMALL.items():
            part = fused[start : start + dim]
            start += dim
            if modality == "text" and not present:
                assert not part.any()
                assert not store.exists(LAYOUT.embedding("text", video_id))
                continue
            stored = npy_to_vector(store.get(LAYOUT.embedding(modality, video_id)))
            np.testing.assert_array_equal(stored, part)
            assert checks.vector_problem(part, dim) is None


def test_the_csv_has_all_columns_and_a_row_a_label(small):
    store, report = small
    csv = read_horizon_csv(store.get(LAYOUT.metadata()))
    assert tuple(csv.rows.columns) == COLUMNS
    days = csv.rows["horizon_days"].to_list()
    assert {h: days.count(str(h)) for h in HORIZONS} == report.labelled == {7: 150, 30: 134}
    latest = latest_rows(csv)
    assert not latest.skipped
    assert latest.rows["video_id"].to_list() == report.truth["video_id"].to_list()
    manifest = pl.DataFrame(parquet_to_table(store.get(LAYOUT.fused_manifest("concat"))))
    merged = manifest.sort("video_id")
    assert merged["source_hash"].to_list() == latest.rows["source_hash"].to_list()
    assert merged["captured_at"].to_list() == latest.rows["captured_at"].to_list()


def test_channels_have_a_history_before_most_clips():
    clips = [one.clip for one in draw_clips(600, seed=3, hard=False, days=365)]
    first_known = {}
    for clip in clips:
        captured = clip.observations[0].captured_at
        number = clip.channel.number
        first_known[number] = min(first_known.get(number, captured), captured)
    later = [clip.published_at > first_known[clip.channel.number] for clip in clips]
    assert np.mean(later) > 0.7
    assert len(first_known) == 600 // 12
    assert sorted(c.published_at for c in clips) == [c.published_at for c in clips]


@pytest.mark.parametrize("hard", [False, True])
def test_copies_have_their_originals_vectors_and_half_of_them_its_url(tmp_path, hard):
    store, report = make(tmp_path, clips=1500, dims=SMALL, hard=hard, strategies=["concat"], seed=4)
    vectors = by_id(store)
    copies = report.truth.filter(pl.col("copy_of").is_not_null())
    assert len(copies) == report.copies > 0
    audio = slice(SMALL["video"], SMALL["video"] + SMALL["audio"])
    for copy, original in copies.select("video_id", "copy_of").iter_rows():
        ours, theirs = vectors[copy][audio], vectors[original][audio]
        assert float(ours @ theirs) > 0.9999
        assert np.array_equal(ours, theirs) is not hard
    rows = pl.DataFrame(parquet_to_table(store.get(LAYOUT.fused_manifest("concat"))))
    shared = len(rows) - rows["source_hash"].n_unique()
    assert 0 < shared < report.copies


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hard"])
def encoded(request, tmp_path_factory):
    """A store of vectors as long as real ones."""
    store, report = make(
        tmp_path_factory.mktemp("encoded"), clips=2700, hard=request.param, strategies=["concat"]
    )
    vectors = by_id(store)
    fused = np.stack([vectors[video_id] for video_id in report.truth["video_id"]])
    return request.param, report.truth, fused


def test_vectors_are_as_alike_as_those_of_real_encoders(encoded):
    _, truth, fused = encoded
    fused = fused[truth["has_text"].to_numpy()]
    for start in (0, 768, 1536):
        part = fused[:400, start : start + 768].astype(np.float64)
        cosines = (part @ part.T)[np.triu_indices(400, k=1)]
        assert np.quantile(cosines, 0.01) > 0.5
        assert 0.65 < np.median(cosines) < 0.85
        assert np.quantile(cosines, 0.99) < 0.92


def ridge_r2(vectors, values, penalty=1.0):
    """R2 of a ridge regression on the last 30% of rows, fitted on the first 70%."""
    cut = int(len(vectors) * 0.7)
    mean, level = vectors[:cut].mean(0), values[:cut].mean()
    train, test = vectors[:cut] - mean, vectors[cut:] - mean
    weights = np.linalg.solve(
        train.T @ train + penalty * np.eye(train.shape[1]), train.T @ (values[:cut] - level)
    )
    residual = values[cut:] - level - test @ weights
    return 1 - residual.var() / values[cut:].var()


@pytest.mark.parametrize(
    ("start", "traits", "others"),
    [
        (0, ["motion", "warmth"], ["tempo", "sentiment", "channel"]),
        (768, ["tempo", "pitch"], ["motion", "sentiment", "channel"]),
        (1536, ["sentiment"], ["motion", "tempo", "channel"]),
    ],
    ids=["video", "audio", "text"],
)
def test_a_linear_probe_finds_what_a_modality_shows_and_nothing_else(
    encoded, start, traits, others
):
    hard, truth, fused = encoded
    rows = truth["has_text"].to_numpy() if start == 1536 else np.ones(len(truth), dtype=bool)
    part = fused[rows, start : start + 768].astype(np.float64)
    for trait in traits:
        r2 = ridge_r2(part, truth[trait].to_numpy()[rows])
        assert (0.75 if hard else 0.82) < r2 < 0.92, trait
    for trait in others:
        assert ridge_r2(part, truth[trait].to_numpy()[rows], 10.0) < 0.05, trait


def test_no_single_dimension_tells_what_a_probe_of_all_does(encoded):
    hard, truth, fused = encoded
    video = fused[:, :768].astype(np.float64)
    motion = truth["motion"].to_numpy()
    standard = (video - video.mean(0)) / (video.std(0) + 1e-12)
    correlation = standard.T @ (motion - motion.mean()) / motion.std() / len(motion)
    assert 0.4 < (correlation**2).max() < 0.6
    if hard:
        dull = np.sort(np.abs(correlation))[: int(0.3 * 768)]
        assert dull.max() < 0.1


def test_shares_sum_to_one_and_rank_as_planted():
    for hard in (False, True):
        for horizon in HORIZONS:
            parts = shares(horizon, hard=hard)
            assert sum(parts.values()) == pytest.approx(1)
        parts = shares(7, hard=hard)
        assert parts["channel"] > parts["video"] > parts["audio"]
    plain = shares(7)
    assert plain["video"] > plain["text"] > plain["audio"]


def test_the_docstring_states_the_attainable_figures():
    for hard in (False, True):
        for horizon in HORIZONS:
            content = attainable_r2(horizon, hard=hard, seen=MODALITIES)
            for figure in (attainable_r2(horizon, hard=hard), content):
                assert f"{figure:.3f}" in planted_law.__doc__


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("hard", [False, True])
def test_a_regression_on_the_laws_terms_reaches_all_but_the_noise(hard, horizon):
    clips = [one.clip for one in draw_clips(4000, seed=8, hard=hard, days=365)]
    design = []
    for clip in clips:
        traits = clip.traits
        row = design_row(traits)
        if hard:
            sign = MOOD_SIGN[traits.topic]
            row += [traits.motion * traits.tempo, sign * traits.sentiment, traits.pitch**2]
        design.append(row)
    # What the channel's rise explains: a slope over time of its own.
    matrix, target = np.array(design), np.log1p([clip.views.at(horizon) for clip in clips])
    weights, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    residual = target - matrix @ weights
    share = 1 - residual.var() / target.var()
    parts = shares(horizon, hard=hard)
    drift = planted_law.DRIFT**2 / variance_of(horizon, hard) if hard else 0.0
    assert share == pytest.approx(1 - parts["noise"] - drift, abs=0.03)


def variance_of(horizon, hard):
    explained = sum(term.variance for term in planted_law.terms(horizon, hard=hard))
    return explained / (1 - shares(horizon, hard=hard)["noise"])


def test_topics_and_absent_text_are_as_common_as_stated():
    clips = draw_clips(4000, seed=5, hard=True, days=365)
    absent = np.mean([not one.has_text for one in clips])
    assert absent == pytest.approx(planted_law.ABSENT_TEXT[True], abs=0.02)
    topics = [one.clip.traits.topic for one in clips]
    assert all(abs(topics.count(topic) / 4000 - 0.25) < 0.03 for topic in TOPICS)


def test_vectors_too_short_for_the_traits_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"text vectors must be of length 6 or more .*found 4"):
        make(tmp_path, clips=20, dims={"video": 6, "audio": 6, "text": 4})
