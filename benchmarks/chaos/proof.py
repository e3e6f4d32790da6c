"""The proof: nothing lost, nothing dangling, no wrong vector, nothing left, nothing twice."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.chaos.census import Capture, Census
from benchmarks.chaos.commits import committed_twice
from benchmarks.chaos.worker import STRATEGIES, Place
from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.inspect.audit.run import audit
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.pipelines.upkeep.forget import forget_clip
from clipfarm_assets.pipelines.upkeep.presence import presence_of
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.pipelines.kit import World, timeless

# So many that a corrupt clip is given up in one of them, however many tries it had before.
_QUIET_RUNS = 2
_STAGES = (
    *(statuses.embedding_stage(modality) for modality in MODALITIES),
    *(statuses.fusion_stage(strategy) for strategy in STRATEGIES),
)


@dataclass
class Proof:
    """What was looked at, and what is wrong."""

    looked_at: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def prove(place: Place, census: Census, folder: Path) -> Proof:
    """Bring the deployment to rest, and compare it with one that nothing ever happened to.

    Args:
        place: The deployment, which nobody works on any more.
        census: What was put into it.
        folder: Empty; for the other one.
    """
    with place.opened() as deployment:
        quiet = replace(deployment, store=census.store)
        settle(quiet, census)
        return compare(place, quiet, census, folder)


def compare(place: Place, deployment: Deployment, census: Census, folder: Path) -> Proof:
    """What is wrong with a deployment at rest."""
    proof = Proof()
    looked_at = proof.looked_at
    proof.findings += _items(deployment, census, looked_at)
    proof.findings += _snapshots(deployment, looked_at)
    proof.findings += _remains(deployment, census, looked_at)
    with World(folder) as plain:
        _plain_run(plain, census)
        proof.findings += _vectors(deployment, plain, looked_at)
        proof.findings += _fused(deployment, plain, looked_at)
    proof.findings += _audited(place, deployment, looked_at)
    proof.findings += [f"twice: {told}" for told in committed_twice(place.ledger_url)]
    return proof


def settle(deployment: Deployment, census: Census) -> None:
    """What an operator does in the end: commands that were killed again, then clean runs."""
    for video_id, raw in sorted(census.removing.items()):
        forget_clip(deployment, video_id, raw=raw)
    world = World.__new__(World)
    world.store, world.deployment, world.said = deployment.store, deployment, []
    for _ in range(_QUIET_RUNS):
        _run(world, census.dates)


def _run(world: World, dates: list[str]) -> None:
    for date, table in build_index(world.deployment, dates).by_date.items():
        world.store.put(world.layout.clip_index(date), table_to_parquet(table))
    options = {"workers": 1, "fetch_workers": 1, "encode_workers": 1, "put_workers": 1}
    world.embed_all(*dates, max_fail_retries=1, decode_isolation="thread", **options)
    for strategy in STRATEGIES:
        world.lock(strategy)
        world.fuse(*dates, strategy=strategy, max_fail_retries=1)
        world.merge(strategy)


def _plain_run(world: World, census: Census) -> None:
    """One process, one folder, no faults, each clip as it is in the end."""
    world.fill([census.clips[video_id] for video_id in census.remaining])
    for _ in range(_QUIET_RUNS):
        _run(world, census.dates)


def _expected(clip: Capture, modality: str) -> str:
    raw = clip.raw(modality)
    if raw is None:
        return statuses.MISSING_RAW_OBJECT
    return statuses.FAIL_TERMINAL if raw.startswith(b"corrupt") else statuses.SUCCESS


def _items(deployment: Deployment, census: Census, looked_at: Counter[str]) -> Iterator[str]:
    """No lost item: each clip ended as what it is made of says."""
    for modality in MODALITIES:
        stage = statuses.embedding_stage(modality)
        rows = deployment.ledger.rows(stage)
        for video_id in census.remaining:
            looked_at["items"] += 1
            wanted = _expected(census.clips[video_id], modality)
            found = rows[video_id].status if video_id in rows else "no row"
            if found != wanted:
                yield f"lost: {stage} of {video_id}: expected {wanted}, found {found}"
        for video_id in census.removing:
            found = rows[video_id].status if video_id in rows else "no row"
            if found != statuses.FORGOTTEN:
                yield f"remains: {stage} of {video_id}: expected its tombstone, found {found}"


def _snapshots(deployment: Deployment, looked_at: Counter[str]) -> Iterator[str]:
    """The published states are the ledger, row by row."""
    for stage in _STAGES:
        key = deployment.layout.state(stage)
        published = sqlite_to_items(deployment.store.get(key), key)
        rows = deployment.ledger.rows(stage)
        looked_at["published rows"] += len(published)
        for video_id in sorted(published.keys() | rows.keys()):
            if published.get(video_id) != rows.get(video_id):
                yield f"dangling: {key}: {video_id} is not as in the ledger"


def _remains(deployment: Deployment, census: Census, looked_at: Counter[str]) -> Iterator[str]:
    """Of a forgotten clip there is nothing left but its tombstone."""
    for video_id, raw in sorted(census.removing.items()):
        looked_at["forgotten clips"] += 1
        found = presence_of(deployment, video_id)
        if found.remains(raw=raw):
            places = [*found.embeddings, *found.shards, *found.manifests, *found.tables]
            yield f"remains: {video_id}: {', '.join(places) or found.states}"


def _vectors(deployment: Deployment, plain: World, looked_at: Counter[str]) -> Iterator[str]:
    """Every vector that the ledger calls done is, byte by byte, the one of the plain run."""
    for modality in MODALITIES:
        stage, layout = statuses.embedding_stage(modality), deployment.layout
        done = {i for i, s in plain.statuses(stage).items() if s == statuses.SUCCESS}
        rows = deployment.ledger.rows(stage)
        done |= {i for i, row in rows.items() if row.status == statuses.SUCCESS}
        for video_id in sorted(done):
            looked_at["vectors"] += 1
            key = layout.embedding(modality, video_id)
            found, wanted = (_object(store, key) for store in (deployment.store, plain.store))
            if found is None:
                yield f"lost: {key} is not there"
            elif found != wanted:
                yield f"wrong: {key} has other bytes than the plain run's"


def _fused(deployment: Deployment, plain: World, looked_at: Counter[str]) -> Iterator[str]:
    """Every row of the manifests leads to the values of the plain run, and none is missing."""
    for strategy in STRATEGIES:
        found, wanted = (
            dict(_fused_vectors(one, strategy)) for one in (deployment, plain.deployment)
        )
        looked_at["fused vectors"] += len(found)
        for video_id, value in sorted(wanted.items()):
            if video_id not in found:
                yield f"lost: {strategy} of {video_id} is in no manifest"
            elif found[video_id] != value:
                yield f"wrong: {strategy} of {video_id} is not the plain run's"
        for video_id in sorted(found.keys() - wanted.keys()):
            yield f"wrong: {strategy} has {video_id}, which the plain run doesn't fuse"
        stage = statuses.fusion_stage(strategy)
        rows = timeless(deployment.ledger.rows(stage))
        for video_id, status in plain.statuses(stage).items():
            looked_at["items"] += 1
            is_status = rows[video_id].status if video_id in rows else "no row"
            if is_status != status:
                yield f"lost: {stage} of {video_id}: expected {status}, found {is_status}"


def _fused_vectors(
    deployment: Deployment, strategy: str
) -> Iterator[tuple[str, tuple[str, str, bytes]]]:
    """By clip its source, how it was fused, and its vector's bytes, of its latest source."""
    stage = statuses.fusion_stage(strategy)
    rows = deployment.ledger.rows(stage)
    shards: dict[str, Mapping[str, np.ndarray]] = {}
    for row in pl.DataFrame(load_manifest(deployment, strategy).rows).iter_rows(named=True):
        video_id, source = row["video_id"], row["source_hash"]
        if video_id in rows and rows[video_id].source_hash != source:
            continue  # of what the clip used to be
        key = row["fused_key"]
        if key not in shards:
            with np.load(io.BytesIO(deployment.store.get(key)), allow_pickle=False) as shard:
                shards[key] = dict(shard)
        vector = shards[key]["vectors"][row["shard_idx"]]
        assert str(shards[key]["video_ids"][row["shard_idx"]]) == video_id, key
        yield video_id, (source, row["fusion_status"], vector.tobytes())


def _audited(place: Place, deployment: Deployment, looked_at: Counter[str]) -> Iterator[str]:
    """``clipfarm audit``, which reads by its own code."""
    store_id = ObjectStore.open(place.store_url, place.s3).url
    with ReadOnlyLedger.open(place.ledger_url, store_id) as ledger:
        found = audit(replace(deployment, ledger=ledger))
    for what, number in found.examined.items():
        looked_at[f"audit: {what}"] += number
    if found.unmerged:
        yield f"lost: {found.unmerged} shards that no manifest has looked at"
    for one in found.findings:
        yield f"audit: {one.kind}: {one.subject}: {one.problem}"


def _object(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except FileNotFoundError:
        return None
