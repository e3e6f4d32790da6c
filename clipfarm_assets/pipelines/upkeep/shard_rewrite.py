"""Taking a clip's rows out of shards, which are never rewritten.

The rows that others still need are put as a new shard under the next free number of the date; then
the ledger, then the manifests are led there; then the old shard is removed. So a manifest that is
read resolves at each moment. Whoever holds an older one, and comes for the old shard after that,
gets an error that names it and succeeds when run again.

Stopped anywhere and begun again it ends the same: a new shard that is there already is taken, and
an old one that nobody needs any more is only removed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_manifest import SCHEMA
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.manifest_file import ManifestFooter, schema_of, shards_of_file
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.ledger.leases import Lease
from clipfarm_assets.ledger.schema import Item, microseconds, timestamp
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.shards import put_shard
from clipfarm_assets.pipelines.upkeep.references import archives, manifest_rows
from clipfarm_assets.storage.objects import ObjectChanged
from clipfarm_assets.storage.tables import chunks_to_parquet

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Move:
    """Where a shard's rows are now.

    Attributes:
        old: Key of the shard that is to go.
        new: Key of the one that has what others need of it; None if nobody needs any.
        rows: Places in the old one, in the order of the new one.
    """

    old: str
    new: str | None
    rows: tuple[int, ...]


def strip_clip(
    deployment: Deployment,
    strategy: Strategy,
    video_id: str,
    shard_keys: Collection[str],
    leases: Mapping[str, Lease],
    say: Say = silent,
) -> None:
    """Remove a clip's rows from a strategy's shards and manifests.

    The ledger must know that the clip is forgotten.

    Args:
        deployment: Whose store and ledger.
        strategy: Which; it has a lock.
        video_id: The clip.
        shard_keys: The shards that have rows of it.
        leases: By scope; that of the stage on each shard's date is among them.
        say: Told of each shard.

    Raises:
        NoLock, BadManifest, BadShard: An object is missing or can't be read; names its key.
        ObjectChanged: Somebody else changed a manifest meanwhile: run it again.
        LeaseLost: Somebody else has taken a date meanwhile: likewise.
    """
    layout, store = deployment.layout, deployment.store
    lock = load_lock(deployment, strategy)
    if manifest_store.list_deltas(deployment, strategy):
        manifest_store.compact(deployment, strategy, lock.lock_version, [])
    folder = layout.schema_lock(strategy).rpartition("/")[0]
    old = archives(layout, strategy, [info.key for info in store.list(folder)])
    manifests = [layout.fused_manifest(strategy), *old.values()]
    pointed, recorded = _pointed_rows(deployment, manifests, video_id, set(shard_keys))
    moves = []
    for key in sorted(shard_keys):
        with suppress(FileNotFoundError):  # another machine has removed it
            shard = FusedShard.from_npz(store.get(key), key)
            needed = pointed.get(key, set()) if key in recorded else None
            moves.append(
                _put_rest(deployment, strategy, key, shard, video_id, needed, recorded, leases)
            )
            say(f"{key}: rewritten as {moves[-1].new or 'nothing: nobody needs its other rows'}")
    deployment.publish(statuses.fusion_stage(strategy))
    base = layout.fused_manifest(strategy)
    gone = frozenset(move.old for move in moves)
    if gone and not store.exists(base):  # what is gone must be on record somewhere
        manifest_store.compact(deployment, strategy, lock.lock_version, [])
    for key in manifests:
        _lead(deployment, key, video_id, moves, gone if key == base else frozenset())
    for move in moves:
        _lease_of(deployment, strategy, move.old, leases).check()
        store.delete(move.old)


def _pointed_rows(
    deployment: Deployment, manifests: Sequence[str], video_id: str, shards: set[str]
) -> tuple[dict[str, set[int]], frozenset[str]]:
    """Which rows of the shards other clips' pointers lead to; and the shards that were merged."""
    pointed: dict[str, set[int]] = {}
    recorded: frozenset[str] = frozenset()
    for key in manifests:
        try:
            data = deployment.store.get(key)
        except FileNotFoundError:
            continue
        recorded |= shards_of_file(data, key)
        for chunk in manifest_rows(data, key):
            found = pl.DataFrame(chunk.select(["video_id", "fused_key", "shard_idx"])).filter(
                pl.col("fused_key").is_in(list(shards)), pl.col("video_id") != video_id
            )
            for shard, place in found.select("fused_key", "shard_idx").iter_rows():
                pointed.setdefault(shard, set()).add(place)
    return pointed, recorded


def _put_rest(
    deployment: Deployment,
    strategy: Strategy,
    key: str,
    shard: FusedShard,
    video_id: str,
    pointed: set[int] | None,
    recorded: frozenset[str],
    leases: Mapping[str, Lease],
) -> Move:
    """Put what others need of a shard as a new one, and lead the ledger there.

    Args:
        deployment: Whose store and ledger.
        strategy: Whose shard.
        key: Its key.
        shard: What it holds.
        video_id: The clip that is to go.
        pointed: The rows that manifests point to; None if no manifest has merged it yet, so that
            all rows are needed.
        recorded: Shards that manifests have looked at, gone ones too.
        leases: See `strip_clip`.
    """
    stage, ledger = statuses.fusion_stage(strategy), deployment.ledger
    ids: list[str] = shard.video_ids.tolist()
    others = [place for place, found in enumerate(ids) if found != video_id]
    states = ledger.rows(stage, sorted({ids[place] for place in others}))
    named = {i: item for i, item in states.items() if item.artifact_key == key}
    needed = [p for p in others if pointed is None or p in pointed or ids[p] in named]
    lease = _lease_of(deployment, strategy, key, leases)
    lease.check()
    taken = {item.artifact_key for item in states.values() if item.artifact_key}
    new = _put(deployment, strategy, key, shard.take(needed), recorded | taken | {key})
    if new is not None and named:
        # A clip may have been captured again since, and be at work on under another date's lease.
        led = [_led(item, new) for item in named.values()]
        ledger.commit_newer(stage, led, instead_of=key, lease=lease)
    return Move(key, new, tuple(needed))


def _lease_of(
    deployment: Deployment, strategy: Strategy, key: str, leases: Mapping[str, Lease]
) -> Lease:
    """That of a shard's date."""
    ref = deployment.layout.shard_ref(key)
    if ref is None:  # it was found by the layout
        msg = f"{key} is no key of a shard"
        raise ValueError(msg)
    return leases[f"{statuses.fusion_stage(strategy)}/{ref.date}"]


def _put(
    deployment: Deployment, strategy: Strategy, key: str, rest: FusedShard, used: Collection[str]
) -> str | None:
    """Store the rest of a shard; its key, None if there is no need to store it.

    Keys in `used` are not given again, also where what they name was lost.

    An empty rest is stored in the place of the last shard of a date: the number of that one must
    not be given again, for manifests remember it.
    """
    layout, store = deployment.layout, deployment.store
    ref = layout.shard_ref(key)
    if ref is None:  # it was found by the layout
        msg = f"{key} is no key of a shard"
        raise ValueError(msg)
    later = [
        info
        for info in store.list(layout.shards_prefix(strategy, ref.date))
        if (other := layout.shard_ref(info.key)) and other.part > ref.part
    ]
    if not len(rest) and later:
        return None
    data = rest.to_npz()
    for info in later:  # put by a run of this that was killed
        if info.size == len(data) and store.get(info.key) == data:
            return info.key
    return put_shard(deployment, strategy, ref.date, data, used)


def _led(item: Item, key: str) -> Item:
    """A clip's state with its new shard, newer than the one before for everybody who merges."""
    before = _EPOCH + timedelta(microseconds=max(microseconds(item.processed_at), 0) + 1)
    moment = max(datetime.now(UTC), before)
    return replace(item, artifact_key=key, processed_at=timestamp(moment))


def _lead(
    deployment: Deployment,
    key: str,
    video_id: str,
    moves: Sequence[Move],
    gone: frozenset[str],
) -> None:
    """Swap in a manifest without the clip, and with the others' pointers led to the new shards."""
    if not deployment.store.exists(key):
        return

    def change(data: bytes | None) -> bytes | None:
        return None if data is None else led_manifest(data, key, video_id, moves, gone)

    deployment.store.update(key, change)


def led_manifest(
    data: bytes,
    key: str,
    video_id: str,
    moves: Sequence[Move],
    gone: frozenset[str] = frozenset(),
) -> bytes | None:
    """A manifest's file without a clip, its pointers led to where rows were moved.

    In memory are both files and a row group.

    Args:
        data: The file.
        key: Its key.
        video_id: The clip.
        moves: Where shards' rows are now.
        gone: Shards to record as looked at and settled: what an update that has read one of them
            before still publishes of it is passed over then, see `manifest_file`.

    Returns:
        The file; None if nothing of it changes.

    Raises:
        BadManifest: It is none; names `key`.
        ObjectChanged: It points to a row that was not moved.
    """
    shards = shards_of_file(data, key)
    table = _table(moves)
    olds = [move.old for move in moves]

    def touched(chunk: pa.Table) -> bool:
        rows = pl.DataFrame(chunk.select(["video_id", "fused_key"]))
        return bool((rows["video_id"] == video_id).any() or rows["fused_key"].is_in(olds).any())

    # A new shard is looked at where rows are led to it; any other one the next update looks at,
    # for this one may have been broken off after it had recorded the old one.
    pointed = set[str]()
    is_touched = False
    for chunk in manifest_rows(data, key):
        pointed.update(chunk["fused_key"].unique().to_pylist())
        is_touched = is_touched or touched(chunk)
    added = {move.new for move in moves if move.new is not None and move.old in pointed} | gone
    if added <= shards and not is_touched:
        return None
    footer = ManifestFooter.of(data, key)
    schema = schema_of(footer.lock_version, shards | added, footer.settled | gone)

    def chunks() -> Iterator[pa.Table]:
        for chunk in manifest_rows(data, key):
            yield _led_rows(chunk, key, video_id, table, olds) if touched(chunk) else chunk

    return chunks_to_parquet(chunks(), schema)


def _table(moves: Sequence[Move]) -> pl.DataFrame:
    """Each row that was moved: where from, where to."""
    moved: Mapping[str, list[str] | list[int] | list[str | None]] = {
        "fused_key": [move.old for move in moves for _ in move.rows],
        "shard_idx": [place for move in moves for place in move.rows],
        "_key": [move.new for move in moves for _ in move.rows],
        "_idx": [new for move in moves for new, _ in enumerate(move.rows)],
        "_n": [len(move.rows) for move in moves for _ in move.rows],
    }
    kinds = (pl.String, pl.Int64, pl.String, pl.Int64, pl.Int64)
    return pl.DataFrame(moved, schema=dict(zip(moved, kinds, strict=True)))


def _led_rows(
    chunk: pa.Table, key: str, video_id: str, moved: pl.DataFrame, olds: list[str]
) -> pa.Table:
    rows = pl.DataFrame(chunk).filter(pl.col("video_id") != video_id)
    joined = rows.join(moved, on=["fused_key", "shard_idx"], how="left", maintain_order="left")
    if joined.filter(pl.col("fused_key").is_in(olds), pl.col("_key").is_null()).height:
        msg = f"{key} was changed meanwhile, and points to rows that were not there: run it again"
        raise ObjectChanged(msg)
    led = joined.with_columns(
        fused_key=pl.coalesce("_key", "fused_key"),
        shard_idx=pl.coalesce("_idx", "shard_idx"),
        shard_n=pl.coalesce("_n", "shard_n"),
    )
    return led.select(SCHEMA.names).to_arrow().cast(SCHEMA)
