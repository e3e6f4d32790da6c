"""The whole flow on the demo's real media with its encoders: what becomes of every edge case."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES, expected_of
from clipfarm_assets.demo.sample_store import make_sample_store
from clipfarm_assets.demo.stray_rows import EXPECTED_CSV_SKIPS
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models import MODEL_VARIABLES
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage
from clipfarm_assets.pipelines.fuse import FusionStage
from clipfarm_assets.pipelines.index import ClipIndex, build_index
from clipfarm_assets.pipelines.lock import settle_lock
from clipfarm_assets.pipelines.manifest import update_manifest
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import npy_to_vector
from clipfarm_assets.storage.objects import ObjectStore

CONFIGS = {"video": VideoConfig(), "audio": AudioConfig(), "text": TextConfig()}
FEWEST_CLIPS = 12  # a date, its edge cases among them

# The text downloader's word on the clips that are fused without text.
PLACEHOLDERS = {
    "no_captions": "no_captions",
    "no_captions_without_hash": "no_captions",
    "empty_transcript": "fail_empty_transcript_terminal",
}
# What is said of those that are not fused for want of text.
PENDING = {
    "text_pending": "text_status:fail",
    "text_without_state": "no_text_state_row",
    "text_of_another_url": "text_hash_mismatch:",
    "invalid_json": "text_status:success",
}


@dataclass(frozen=True)
class DemoRun:
    deployment: Deployment
    index: ClipIndex
    manifests: dict[str, dict[str, dict[str, Any]]]

    def status(self, stage: str, video_id: str) -> str:
        return self.deployment.ledger.rows(stage, [video_id])[video_id].status


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    store = ObjectStore.open(str(root / "store"))
    make_sample_store(store, clips_per_date=FEWEST_CLIPS)
    with (
        pytest.MonkeyPatch.context() as environment,
        Ledger.open(f"sqlite:///{root / 'ledger.sqlite'}", store.url) as ledger,
    ):
        for variable in MODEL_VARIABLES.values():
            environment.delenv(variable, raising=False)
        deployment = Deployment(store, Layout(), ledger)
        index = build_index(deployment, DATES)
        for modality in MODALITIES:
            stage = EmbeddingStage(
                deployment,
                modality,
                lambda modality=modality: open_encoder(
                    modality,
                    CONFIGS[modality],
                    profile="demo",
                    cache_dir=root / "models",
                    models_lock=deployment.models_lock(),
                ),
            )
            stage.run(index.by_date)
        manifests = {}
        for strategy in STRATEGIES:
            settle_lock(deployment, strategy)
            FusionStage(deployment, strategy).run(index.by_date)
            rows = update_manifest(deployment, strategy).manifest.rows
            manifests[strategy] = {row["video_id"]: row for row in rows.to_pylist()}
        yield DemoRun(deployment, index, manifests)


@pytest.mark.parametrize("case", EDGE_CASES, ids=lambda case: case.name)
def test_an_edge_case_in_the_ledger(demo_run, case):
    for modality, expected in case.expected.embedding.items():
        assert demo_run.status(f"{modality}_embedding", case.video_id) == expected, modality
    for strategy in STRATEGIES:
        stage = statuses.fusion_stage(strategy)
        assert demo_run.status(stage, case.video_id) == case.expected.fusion, strategy
        item = demo_run.deployment.ledger.rows(stage, [case.video_id])[case.video_id]
        if case.expected.fusion == statuses.MISSING_TEXT_PENDING:
            assert item.error.startswith(PENDING[case.name])
        elif case.expected.fusion == statuses.MISSING_REQUIRED_MODALITY:
            missing = [m for m in ("video", "audio") if case.expected.embedding[m] != "success"]
            assert item.error == "; ".join(
                f"{m}: embedding status {case.expected.embedding[m]}" for m in missing
            )
        else:
            assert item.error is None


@pytest.mark.parametrize("case", EDGE_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_edge_case_in_the_manifest(demo_run, case, strategy):
    row = demo_run.manifests[strategy].get(case.video_id)
    if case.expected.fusion not in statuses.FUSED:
        assert row is None
        return
    full = case.expected.fusion == statuses.SUCCESS_FULL
    told = PLACEHOLDERS.get(case.name)
    assert (told is None) == full
    assert {
        name: row[name]
        for name in (
            "fusion_status",
            "text_present",
            "text_source",
            "text_state_status",
            "text_missing_reason",
            "text_emb_key",
            "fusion_strategy",
            "retry_count_at_write",
        )
    } == {
        "fusion_status": case.expected.fusion,
        "text_present": int(full),
        "text_source": "full" if full else "placeholder",
        "text_state_status": "success" if full else told,
        "text_missing_reason": told,
        "text_emb_key": f"clipfarm/embeddings/text/{case.video_id}.npy" if full else None,
        "fusion_strategy": strategy,
        "retry_count_at_write": 0,
    }
    assert f"/date={case.date}/" in row["fused_key"]


def test_the_index_skips_what_the_sample_says(demo_run):
    assert demo_run.index.latest.skip_counts() == EXPECTED_CSV_SKIPS
    sizes = {date: table.num_rows for date, table in demo_run.index.by_date.items()}
    assert sizes == dict.fromkeys(DATES, FEWEST_CLIPS)
    assert {case.date for case in EDGE_CASES} == set(DATES)


def test_ordinary_clips_are_fused_in_full(demo_run):
    for table in demo_run.index.by_date.values():
        for video_id in table["video_id"].to_pylist():
            expected = expected_of(video_id)
            for strategy in STRATEGIES:
                stage = statuses.fusion_stage(strategy)
                assert demo_run.status(stage, video_id) == expected.fusion


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_pointer_leads_to_the_fusion_of_the_stored_vectors(demo_run, strategy):
    store = demo_run.deployment.store
    rows = pl.DataFrame(list(demo_run.manifests[strategy].values()))
    for (key,), group in rows.group_by(["fused_key"]):
        with np.load(io.BytesIO(store.get(key)), allow_pickle=False) as shard:
            ids, vectors = shard["video_ids"].tolist(), shard["vectors"]
        for row in group.iter_rows(named=True):
            assert ids[row["shard_idx"]] == row["video_id"]
            parts = [
                npy_to_vector(store.get(row[f"{modality}_emb_key"]), 768)
                if row[f"{modality}_emb_key"]
                else np.zeros(768, np.float32)
                for modality in MODALITIES
            ]
            v, a, t = parts
            base = {
                "concat": np.concatenate(parts),
                "sum_pool": (v + a) + t,
                "max_pool": np.maximum(np.maximum(v, a), t),
            }[strategy]
            assert (vectors[row["shard_idx"]] == [*base, row["text_present"]]).all()
            assert row["fused_dim"] == {"concat": 2305}.get(strategy, 769)
