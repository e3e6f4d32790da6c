"""Whole stores of a few clips, with the dated tables of assets, and orphans planted in them."""

import json
import os
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest

from clipfarm_assets.contracts.clip_tables import CLIP_PREDICTIONS
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.embedding_manifest import embedding_manifest
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    MANIFEST,
    TERMINAL_TEXT,
    Clip,
    World,
    clips,
)
from clipfarm_assets_tests.training.stores import DisturbedStore

DATES = (DAY_1, DAY_2)
# One row of it is superseded: its words come after it was fused without.
LATE_WORDS = Clip("late-words", DAY_1, text=None, text_state=TERMINAL_TEXT)
SOME = [*clips(3, DAY_1, "a"), Clip("mute", DAY_1, text=None, text_state=TERMINAL_TEXT)]
SOME += clips(3, DAY_2, "b")
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
TRAINING = "clipfarm/training/strategy=concat/horizon=7"
PROBE = f"clipfarm/state/.probe-{'0' * 32}"
STAGING = f"clipfarm/models/staging/run_id=r1/strategy=concat/horizon=7/{A}/models/ridge.skops"
SNAPSHOT = "clipfarm/models/snapshots/run_id=r0/strategy=concat/horizon=7/config_used.json"
GHOST = "clipfarm/embeddings/video/ghost.npy"
UNFINISHED = "clipfarm/embeddings/audio/a-000.npy#1"


def tomorrow() -> datetime:
    """A cutoff before which everything is: age protects nothing."""
    return datetime.now(UTC) + timedelta(days=1)


def publish_tables(world: World) -> None:
    """What the IO manager writes of each date: index, embedding manifest, predictions."""
    layout, index = world.layout, build_index(world.deployment, DATES).by_date
    for date, table in index.items():
        ids = table["video_id"].to_pylist()
        predicted = [
            dict.fromkeys(CLIP_PREDICTIONS.names, 1.0)
            | {"video_id": i, "horizon_days": 7, "model_version": "h7-v1", "text_present": 1}
            | {"split": ""}
            for i in ids
        ]
        tables = {
            layout.clip_index(date): table,
            layout.embedding_manifest(date): embedding_manifest(world.deployment, table),
            layout.clip_predictions(date): pa.Table.from_pylist(predicted, CLIP_PREDICTIONS),
        }
        for key, made in tables.items():
            world.store.put(key, table_to_parquet(made))


def complete(root, some=(*SOME, LATE_WORDS)) -> None:
    """A store in which everything was done, words that came late included."""
    with World(root) as world:
        world.fill(some)
        world.all_of_it(*DATES, shard_rows=1)
        if LATE_WORDS in some:
            arrived = replace(LATE_WORDS, text=b"t", text_state=None)
            world.fill([*(c for c in some if c != LATE_WORDS), arrived])
            world.all_of_it(*DATES, shard_rows=1)
        publish_tables(world)


def superseded_shard(world: World) -> str:
    """The shard of the row that was replaced when the words came."""
    pointed = {row["fused_key"] for row in world.manifest_rows().values()}
    (key,) = set(world.shards()) - pointed
    return key


def plant(world: World) -> set[str]:
    """Put an orphan of each kind into a complete store; their keys."""
    store = world.store
    store.put(GHOST, b"ghost")
    store.put(PROBE, b"1")
    store.put(STAGING, b"half")
    (world.root / "store" / UNFINISHED).write_bytes(b"half")
    for sha256 in (A, B, C):  # the second is current, the third was trained on
        store.put(f"{TRAINING}/{sha256}/rows.parquet", b"rows")
        store.put(f"{TRAINING}/{sha256}/vectors-0000.npz", b"vectors")
    store.put(f"{TRAINING}/dataset.json", json.dumps({"sha256": B}).encode())
    store.put(SNAPSHOT, json.dumps({"dataset_sha256": C}).encode())
    rows = load_manifest(world.deployment, "concat").rows.slice(0, 1)
    old = FusedManifest(rows, 1, frozenset(rows["fused_key"].to_pylist()))
    delta = manifest_store.put_delta(world.deployment, "concat", old)
    parts = {f"{TRAINING}/{A}/{name}" for name in ("rows.parquet", "vectors-0000.npz")}
    return {GHOST, PROBE, STAGING, UNFINISHED, delta, superseded_shard(world)} | parts


def age(world: World, key: str, days: float = 30) -> None:
    """Make an object of a folder store as old as that."""
    moment = time.time() - days * 86400
    os.utime(world.root / "store" / key, (moment, moment))


def files(world: World) -> dict[str, bytes]:
    """Every file of the store with its bytes, what is no object included."""
    root = world.root / "store"
    found = (path for path in root.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def copied(made, root) -> World:
    """A copy of a store, and its ledger's rows under the copy's name."""
    shutil.copytree(made / "store", root / "store")
    world = World(root)
    with World(made) as original:
        for stage in original.ledger.stages():
            world.ledger.commit(stage, original.states(stage).values())
    return world


def disturbed(world: World, nth: int, disturb, when: str = "before") -> World:
    """The same world over a store that is disturbed at a write."""
    world.store = DisturbedStore(str(world.root / "store"), nth, disturb, when)
    world.deployment = replace(world.deployment, store=world.store)
    return world


def ids_of(table: bytes) -> list[str]:
    return pl.read_parquet(table)["video_id"].to_list()


def base_ids(world: World) -> list[str]:
    return ids_of(world.store.get(MANIFEST))


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    """A complete store, not to be written."""
    root = tmp_path_factory.mktemp("complete")
    complete(root)
    return root


@pytest.fixture
def whole(made, tmp_path):
    """A copy of it, to be written."""
    with copied(made, tmp_path / "world") as world:
        yield world
