"""A deployment in a folder, made by the tests: a small CSV, raw objects of a few bytes, and an
encoder that hashes them instead of looking at them, so that hundreds of clips cost nothing.

`World` opens the same folder in any process, so that what a test does in a child is what it does
itself. Two machines are two ledgers over one store.
"""

import csv
import hashlib
import io
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import COLUMNS, source_hash
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.encoders.base import (
    ContentMissing,
    EmbeddingVersion,
    Encoded,
    Equivalence,
    MediaError,
)
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.fuse import FuseOptions, FusionStage
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.lock import settle_lock
from clipfarm_assets.pipelines.manifest import ManifestOptions, update_manifest
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.turns import LeaseOptions
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore

DAY_1, DAY_2 = "2026-02-05", "2026-02-06"
DIMS = {"video": 6, "audio": 4, "text": 4}
FUSED_DIM = sum(DIMS.values()) + 1
FUSED = "clipfarm/fused/concat"
LOCK = f"{FUSED}/schema.json"
MANIFEST = f"{FUSED}/fused_manifest.parquet"

# Raw bytes that begin so make the encoder behave so.
CORRUPT = b"corrupt"  # prepare raises MediaError
BUG = b"bug"  # prepare raises something no encoder should
EMPTY = b"empty"  # prepare raises ContentMissing
REFUSED = b"refused"  # encode raises for the whole batch
NAN = b"nan"  # encode gives a vector that is no number

TERMINAL_TEXT = "no_captions"
PATIENT = LeaseOptions()


def version_of(modality: str, revision: str = "r1", dim: int | None = None) -> EmbeddingVersion:
    return EmbeddingVersion(
        modality, "hash", revision, "0" * 64, "hash-1", {}, DIMS[modality] if dim is None else dim
    )


def hash_vector(version: EmbeddingVersion, raw: bytes, title: str = "") -> np.ndarray:
    """The vector that `HashEncoder` makes: another version, source or title gives another."""
    seed = hashlib.sha256(version.id.encode() + raw + title.encode()).digest()
    vector = np.random.default_rng(list(seed)).normal(size=version.dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass
class HashEncoder:
    """Follows the encoder protocol and knows no media. Remembers what it was asked to do."""

    version: EmbeddingVersion
    is_stand_in: bool = False
    group_size: int = 1
    note: str = "hashed"
    equivalence: Equivalence | None = None
    prepared: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def prepare(self, source, deadline):
        self.prepared.append(source.video_id)
        if source.raw.startswith(CORRUPT):
            msg = "corrupt on purpose"
            raise MediaError(msg)
        if source.raw.startswith(BUG):
            msg = "a decoder's surprise"
            raise KeyError(msg)
        if source.raw.startswith(EMPTY):
            msg = "nothing to embed yet"
            raise ContentMissing(msg)
        return source.raw, source.metadata["title"]

    def encode(self, prepared):
        self.batches.append(len(prepared))
        if any(raw.startswith(REFUSED) for raw, _ in prepared):
            msg = "the model refused an item"
            raise MediaError(msg)
        return [
            Encoded(
                np.full(self.version.dim, np.nan, np.float32)
                if raw.startswith(NAN)
                else hash_vector(self.version, raw, title),
                {"raw_bytes": len(raw)},
            )
            for raw, title in prepared
        ]


@dataclass
class Door:
    """Opens one encoder, and counts how often."""

    encoder: HashEncoder
    opened: int = 0

    def __call__(self) -> HashEncoder:
        self.opened += 1
        return self.encoder


def door(modality: str, revision: str = "r1", **settings: Any) -> Door:
    dim = settings.pop("dim", None)
    return Door(HashEncoder(version_of(modality, revision, dim), **settings))


@dataclass(frozen=True)
class Clip:
    """A row of the CSV and the raw objects behind it; None is an absent object."""

    video_id: str
    date: str = DAY_1
    url: str = ""
    video: bytes | None = b"v"
    audio: bytes | None = b"a"
    text: bytes | None = b"t"
    text_state: str | None = None  # what the text downloader says of it

    @property
    def address(self) -> str:
        return self.url or f"https://youtu.be/{self.video_id}"

    @property
    def source_hash(self) -> str:
        return source_hash(self.address)

    @property
    def captured_at(self) -> str:
        return f"{self.date}T12:00:00+00:00"

    def raw(self, modality: str) -> bytes | None:
        """The object: a mark as it is, anything else made the clip's and the address's own."""
        data = getattr(self, modality)
        own = f":{modality}:{self.address}".encode()
        return None if data is None else data + own


def clips(n: int, date: str = DAY_1, prefix: str = "clip", **fields: Any) -> list[Clip]:
    return [Clip(f"{prefix}-{i:03d}", date, **fields) for i in range(n)]


class World:
    """One store, and one machine's ledger of it."""

    def __init__(self, root: Path, machine: str = "machine") -> None:
        self.root = Path(root)
        self.store = ObjectStore.open(str(self.root / "store"))
        ledger = Ledger.open(f"sqlite:///{self.root / machine}.sqlite", self.store.url)
        self.deployment = Deployment(self.store, Layout(), ledger)
        self.said: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.ledger.close()

    @property
    def ledger(self) -> Ledger:
        return self.deployment.ledger

    @property
    def layout(self) -> Layout:
        return self.deployment.layout

    # What others write: downloaders and the collector of metadata.

    def fill(self, some: Sequence[Clip]) -> None:
        """Write raw objects, the text downloader's state and the CSV of exactly these clips."""
        for clip in some:
            for modality in MODALITIES:
                data = clip.raw(modality)
                key = self.layout.raw(modality, clip.video_id)
                if data is None:
                    self.store.delete(key)
                else:
                    self.store.put(key, data)
        told = {c.video_id: (c.text_state, c.source_hash) for c in some if c.text_state}
        self.write_text_states(told)
        self.store.put(self.layout.metadata(), horizon_csv(some))

    def write_text_states(self, told: Mapping[str, tuple[str, str | None]]) -> None:
        rows = [(i, h or "", "2026-02-04T00:00:00", s) for i, (s, h) in told.items()]
        key = self.layout.text_downloader_state()
        self.store.put(
            key, processed_items(("video_id", "source_hash", "processed_at", "status"), rows)
        )

    # What the pipeline does.

    def index(self, *dates: str):
        return build_index(self.deployment, dates or (DAY_1,)).by_date

    def embed(
        self,
        modality: str,
        *dates: str,
        by: Door | None = None,
        known: EmbeddingVersion | None = None,
        index: Mapping[str, pa.Table] | None = None,
        leases: LeaseOptions = PATIENT,
        **options: Any,
    ):
        """Embed the dates as the CSV has them now, or as `index` has them."""
        by = door(modality) if by is None else by
        stage = EmbeddingStage(
            self.deployment,
            modality,
            by,
            EmbedOptions(**options),
            self.said.append,
            known_version=lambda: known,
            leases=leases,
        )
        return stage.run(self.index(*dates) if index is None else index)

    def embed_all(self, *dates: str, revision: str = "r1", **options: Any) -> None:
        for modality in MODALITIES:
            self.embed(modality, *dates, by=door(modality, revision), **options)

    def lock(self, strategy: str = "concat", **options: Any):
        return settle_lock(self.deployment, strategy, **options)

    def fuse(
        self,
        *dates: str,
        strategy: str = "concat",
        leases: LeaseOptions = PATIENT,
        **options: Any,
    ):
        stage = FusionStage(
            self.deployment, strategy, FuseOptions(**options), self.said.append, leases
        )
        return stage.run(self.index(*dates))

    def merge(self, strategy: str = "concat", **options: Any):
        chosen = ManifestOptions(**options)
        return update_manifest(self.deployment, strategy, self.said.append, chosen)

    def all_of_it(self, *dates: str, shard_rows: int = 4, batch_size: int = 4) -> None:
        """Everything, from the CSV to the manifest, under one strategy."""
        self.embed_all(*dates, batch_size=batch_size)
        self.lock()
        self.fuse(*dates, shard_rows=shard_rows)
        self.merge()

    # What came of it.

    def states(self, stage: str) -> dict[str, Item]:
        return self.ledger.rows(stage)

    def statuses(self, stage: str) -> dict[str, str]:
        return {video_id: item.status for video_id, item in sorted(self.states(stage).items())}

    def manifest_rows(self, strategy: str = "concat") -> dict[str, dict[str, Any]]:
        data = self.store.get(self.layout.fused_manifest(strategy))
        rows = pl.read_parquet(io.BytesIO(data)).to_dicts()
        assert len({(row["video_id"], row["source_hash"]) for row in rows}) == len(rows)
        return {row["video_id"]: row for row in rows}

    def fused_vector(self, row: Mapping[str, Any]) -> np.ndarray:
        """Follow a manifest row's pointer as any reader would, and check that it resolves."""
        with np.load(io.BytesIO(self.store.get(row["fused_key"])), allow_pickle=False) as shard:
            assert str(shard["video_ids"][row["shard_idx"]]) == row["video_id"]
            assert len(shard["vectors"]) == row["shard_n"]
            return shard["vectors"][row["shard_idx"]]

    def shards(self, strategy: str = "concat") -> list[str]:
        return [info.key for info in self.store.list(self.layout.shards_prefix(strategy))]

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Everything in the store, byte by byte."""
        return {info.key: self.store.get(info.key) for info in self.store.list(prefix)}

    def comparable(self) -> dict[str, Any]:
        """Everything in the store but moments: states as rows, the lock without its date.

        A try that was repeated because a run was killed counts as one more, so the count of
        clips that keep failing is left out too.
        """
        out: dict[str, Any] = {}
        for key, data in self.objects().items():
            if key.endswith(".sqlite") and key != self.layout.text_downloader_state():
                out[key] = timeless(sqlite_to_items(data, key))
            elif key.endswith("/schema.json"):
                out[key] = {k: v for k, v in json.loads(data).items() if k != "updated_at"}
            else:
                out[key] = data
        return out


def prepared(world: World, some: Sequence[Clip]) -> None:
    """Embed and lock, so that it only remains to fuse. Clip aaa has a vector of every modality."""
    world.fill([Clip("aaa"), *some])
    world.embed_all()
    world.lock()


def fuse(world: World, **options: Any) -> StageReport:
    """Fuse the first day by concat."""
    return world.fuse(DAY_1, **options)[DAY_1]


def state(world: World, video_id: str = "one") -> Item:
    """What the ledger says of a clip fused by concat."""
    return world.states("fusion_concat")[video_id]


def fields(world: World, key: str = LOCK) -> dict[str, Any]:
    """A JSON object of the store."""
    return json.loads(world.store.get(key))


def npy_key(modality: str, video_id: str = "one") -> str:
    return f"clipfarm/embeddings/{modality}/{video_id}.npy"


def timeless(items: Mapping[str, Item]) -> dict[str, Item]:
    return {
        video_id: replace(
            item,
            processed_at="",
            retry_count=0 if item.status == statuses.FAIL else item.retry_count,
        )
        for video_id, item in sorted(items.items())
    }


def horizon_csv(some: Sequence[Clip]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for clip in some:
        writer.writerow(
            {
                "video_id": clip.video_id,
                "url": clip.address,
                "captured_at": clip.captured_at,
                "title": f"title of {clip.video_id}",
                "description": "",
                "query": "q",
                "horizon_days": 7,
            }
        )
    return text.getvalue().encode()


_TYPES = {"video_id": "TEXT PRIMARY KEY", "retry_count": "INTEGER NOT NULL DEFAULT 0"}


def processed_items(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """A state file as plain sqlite3 leaves it: one table, only the columns asked for."""
    declared = ", ".join(f"{name} {_TYPES.get(name, 'TEXT')}" for name in columns)
    marks = ", ".join("?" * len(columns))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE processed_items ({declared})")
        connection.executemany(f"INSERT INTO processed_items VALUES ({marks})", rows)
        connection.commit()
        return bytes(connection.serialize())
