"""Where a clip is in a store: everything that has it, and who learned from it."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError, latest_rows, read_horizon_csv
from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES, Strategy
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import NoMetadata, read_metadata
from clipfarm_assets.pipelines.manifest import shards_of
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.upkeep.dated_tables import mentions
from clipfarm_assets.pipelines.upkeep.places import is_kept, place_of
from clipfarm_assets.pipelines.upkeep.references import archives, manifest_rows
from clipfarm_assets.serving.registry import load_registry
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.tables import BadTable, parquet_to_table
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotId
from clipfarm_assets.training.snapshot_reader import list_snapshots, open_snapshot

#: The stages of the clip pipeline, in its order.
STAGES: Final = (
    *(statuses.embedding_stage(modality) for modality in MODALITIES),
    *(statuses.fusion_stage(strategy) for strategy in STRATEGIES),
)

_DATE: Final = re.compile(r"/date=([0-9-]{10})/")
_ROWS_PART: Final = "/rows.parquet"


@dataclass(frozen=True, slots=True)
class Trained:
    """A snapshot whose models were fitted to, or judged by, a clip.

    Attributes:
        run_id, strategy, horizon, family: Which snapshot; no family is an all-model run's.
        split: The part that the clip was in: ``train``, ``val`` or ``test``.
        models: Versions of it in the registry; the one that serves ends in `` (serves)``.
    """

    run_id: str
    strategy: str
    horizon: int
    family: str | None
    split: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Presence:
    """Everything that a store and a ledger have of one clip.

    Attributes:
        video_id: The clip.
        states: Stage -> status; `statuses.FORGOTTEN` is a tombstone.
        raw: Keys of its raw objects.
        embeddings: Keys of its vectors.
        shards: Keys of shards with a row of it.
        manifests: Key -> rows of it; bases, deltas and archives.
        tables: Key -> rows of it; clip index, embedding manifest and predictions of each date, and
            1 more where a table tells of a row of it that was skipped.
        in_metadata: Whether the metadata CSV has it; None where that can't be read.
        in_text_state: Whether the text downloader's state has it.
        datasets: Keys of training datasets' rows that have it.
        trained: Snapshots that have it.
        unreadable: Snapshots of which it can't be told.
    """

    video_id: str
    states: Mapping[str, str]
    raw: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    manifests: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    in_metadata: bool | None = False
    in_text_state: bool = False
    datasets: tuple[str, ...] = ()
    trained: tuple[Trained, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def is_forgotten(self) -> bool:
        """Whether every embedding stage has its tombstone, and no other stage anything else."""
        buried = {stage for stage, status in self.states.items() if status == statuses.FORGOTTEN}
        return buried >= set(STAGES[: len(MODALITIES)]) and buried == set(self.states)

    @property
    def is_known(self) -> bool:
        """Whether there is anything of it at all."""
        nothing = Presence(self.video_id, {})
        return any(getattr(self, f.name) != getattr(nothing, f.name) for f in fields(self))

    def remains(self, *, raw: bool) -> bool:
        """Whether forgetting has anything left to do."""
        parts: tuple[Collection[str], ...] = (
            self.embeddings,
            self.shards,
            self.manifests,
            self.tables,
            self.raw if raw else (),
        )
        return not self.is_forgotten or any(parts)

    @property
    def dates(self) -> list[str]:
        """The dates that its rows lie under."""
        keys = chain(self.shards, self.tables)
        return sorted({match[1] for key in keys if (match := _DATE.search(key))})


def presence_of(deployment: Deployment, video_id: str, say: Say = silent) -> Presence:
    """Look for a clip everywhere; every shard is read for it.

    Nothing is written but newer rows of the published states into the ledger.

    Raises:
        BadState, BadManifest, BadShard, BadTable, BadRegistry: An object can't be read, so that
            it can't be told whether the clip is in it; names its key.
    """
    layout, store = deployment.layout, deployment.store
    for stage in STAGES:
        deployment.restore(stage)
    found = {stage: deployment.ledger.rows(stage, [video_id]) for stage in STAGES}
    there = strategies_there(deployment)
    say(f"looking for {video_id} in {sum(map(len, there.values()))} shards")
    trained, unreadable = _trained(deployment, video_id)
    return Presence(
        video_id,
        {stage: items[video_id].status for stage, items in found.items() if items},
        tuple(k for m in MODALITIES if store.exists(k := layout.raw(m, video_id))),
        tuple(k for m in MODALITIES if store.exists(k := layout.embedding(m, video_id))),
        tuple(
            chain.from_iterable(_in_shards(deployment, s, k, video_id) for s, k in there.items())
        ),
        dict(chain.from_iterable(_in_manifests(deployment, s, video_id) for s in there)),
        dict(_in_tables(deployment, video_id)),
        _in_metadata(deployment, video_id),
        video_id in deployment.text_states().by_id,
        tuple(_in_datasets(deployment, video_id)),
        tuple(trained),
        tuple(unreadable),
    )


def strategies_there(deployment: Deployment) -> dict[Strategy, list[str]]:
    """The strategies that have anything in the store, with the keys of their shards."""
    there: dict[Strategy, list[str]] = {}
    for strategy in STRATEGIES:
        folder = deployment.layout.schema_lock(strategy).rpartition("/")[0]
        keys = [info.key for info in deployment.store.list(folder)]
        if keys:
            there[strategy] = [key for key in keys if deployment.layout.shard_ref(key)]
    return there


def _in_shards(
    deployment: Deployment, strategy: Strategy, keys: list[str], video_id: str
) -> Iterator[str]:
    """The shards that have rows of a clip.

    One that vanishes before it is read was rewritten without another clip: where it is now is
    looked for.
    """
    looked_at: set[str] = set()
    while new := [key for key in keys if key not in looked_at]:
        keys = []
        for key, shard in shards_of(deployment, new):
            looked_at.add(key)
            if not isinstance(shard, str):
                if (shard.video_ids == video_id).any():
                    yield key
            elif deployment.store.exists(key):
                msg = (
                    f"{shard}: it can't be told whether {video_id} is in it; restore it, or delete "
                    "it and materialise clips/fused_shards with verify_objects: true"
                )
                raise BadShard(msg)
            else:
                keys = strategies_there(deployment).get(strategy, [])


def _in_manifests(
    deployment: Deployment, strategy: Strategy, video_id: str
) -> Iterator[tuple[str, int]]:
    layout, store = deployment.layout, deployment.store
    folder = layout.schema_lock(strategy).rpartition("/")[0]
    old = archives(layout, strategy, [info.key for info in store.list(folder)])
    keys = [*manifest_store.list_deltas(deployment, strategy), *old.values()]
    for key in (*keys, layout.fused_manifest(strategy)):  # the base last: deltas vanish into it
        try:
            data = store.get(key)
        except FileNotFoundError:
            continue
        rows = sum(_count(chunk, video_id) for chunk in manifest_rows(data, key))
        if rows:
            yield key, rows


def _in_tables(deployment: Deployment, video_id: str) -> Iterator[tuple[str, int]]:
    prefix = deployment.layout.prefix
    folders = ("index", "embeddings/manifests", "predictions")
    infos = chain.from_iterable(deployment.store.list(f"{prefix}/{name}") for name in folders)
    keys = (info.key for info in infos if is_kept(deployment.layout, info.key))
    for key, table in _tables(deployment, keys):
        rows = _count(table, video_id) + mentions(table, video_id)
        if rows:
            yield key, rows


def _in_datasets(deployment: Deployment, video_id: str) -> Iterator[str]:
    infos = deployment.store.list(f"{deployment.layout.prefix}/training")
    keys = (
        info.key
        for info in infos
        if info.key.endswith(_ROWS_PART) and place_of(deployment.layout, info.key)
    )
    only_ids = pa.schema([("video_id", pa.string())])
    for key, table in _tables(deployment, keys, only_ids):
        if _count(table, video_id):
            yield key


def _tables(
    deployment: Deployment, keys: Iterator[str], schema: pa.Schema | None = None
) -> Iterator[tuple[str, pa.Table]]:
    for key, data in deployment.store.get_many(keys, workers=4):
        if not isinstance(data, bytes):
            continue
        try:
            yield key, parquet_to_table(data, schema)
        except BadTable as error:
            msg = f"{key}: {error}"
            raise BadTable(msg) from error


def _count(table: pa.Table, video_id: str) -> int:
    return int(pc.sum(pc.equal(table["video_id"], video_id)).as_py() or 0)


def _in_metadata(deployment: Deployment, video_id: str) -> bool | None:
    try:
        csv = read_horizon_csv(read_metadata(deployment), deployment.layout.metadata())
    except NoMetadata:
        return False
    except HorizonCsvError:
        return None
    found = latest_rows(csv)
    skipped = any(row.video_id == video_id for row in found.skipped)
    return skipped or bool((found.rows["video_id"] == video_id).any())


def _trained(deployment: Deployment, video_id: str) -> tuple[list[Trained], list[str]]:
    store, layout = deployment.store, deployment.layout
    promoted: dict[SnapshotId, list[str]] = {}
    for horizon in HORIZONS:
        registry = load_registry(store, layout, horizon)
        for version in registry.versions:
            serves = " (serves)" if version.model_version == registry.current else ""
            names = promoted.setdefault(version.snapshot_id, [])
            names.append(f"{version.model_version}{serves}")
    trained: list[Trained] = []
    unreadable: list[str] = []
    for snapshot_id in list_snapshots(store, layout):
        try:
            rows = open_snapshot(store, layout, snapshot_id).split_manifest()
        except BadSnapshot as error:
            unreadable.append(str(error))
            continue
        parts = rows.filter(rows["video_id"] == video_id)["split"].to_list()
        if parts:
            trained.append(
                Trained(
                    snapshot_id.run_id,
                    snapshot_id.strategy,
                    snapshot_id.horizon,
                    snapshot_id.family,
                    str(parts[0]),
                    tuple(promoted.get(snapshot_id, ())),
                )
            )
    return trained, unreadable
