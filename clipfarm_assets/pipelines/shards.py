"""Shards in the store: the next free part number, and the ledger rows that a shard stands for."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.leases import Lease
from clipfarm_assets.ledger.schema import Item, timestamp
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.progress import Say
from clipfarm_assets.storage.objects import ObjectExists

# What the ledger remembers of a shard whose rows it has: shards never change.
_TAKEN = "taken"


def put_shard(
    deployment: Deployment, strategy: Strategy, date: str, data: bytes, used: Iterable[str] = ()
) -> str:
    """Put a shard under the next free part number of its date; returns the key.

    Args:
        deployment: Whose store.
        strategy: Whose shard.
        date: Under which date.
        data: The shard.
        used: Keys once used, also of shards that were lost: their numbers are not given again.
    """
    layout, store = deployment.layout, deployment.store
    keys = {info.key for info in store.list(layout.shards_prefix(strategy, date))}
    refs = [ref for key in {*keys, *used} if (ref := layout.shard_ref(key)) and ref.date == date]
    part = max((ref.part for ref in refs), default=-1) + 1
    while True:
        key = layout.shard(strategy, date, part)
        try:
            store.put_if_absent(key, data)
        except ObjectExists:
            part += 1  # a rival took the number meanwhile
        else:
            return key


def ledger_rows(key: str, shard: FusedShard, lock: SchemaLock) -> Iterator[Item]:
    """The ledger rows that a shard stored under `key` stands for, as `rules.settle_success`.

    Raises:
        BadShard: The shard is one of an older deployment and declares nothing.
    """
    declared = shard.declaration(key)
    moment = timestamp(datetime.now(UTC))
    columns = (
        shard.video_ids,
        shard.captured_at,
        declared.source_hash,
        declared.fusion_status,
        declared.retry_count_at_write,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for video_id, captured_at, source_hash, status, retry_count in rows:
        yield Item(
            video_id,
            source_hash,
            moment,
            status,
            artifact_key=key,
            vector_id=f"fused:{lock.fusion_strategy}:{video_id}",
            retry_count=retry_count,
            version=lock.id,
            details={rules.CAPTURED_AT: captured_at},
        )


def take_over_orphans(
    deployment: Deployment,
    lock: SchemaLock,
    date: str,
    index: pa.Table,
    say: Say,
    *,
    lease: Lease | None = None,
) -> dict[str, Item]:
    """Take over rows of shards whose run was killed before its ledger rows were written.

    Args:
        deployment: Whose store and ledger.
        lock: The lock in force: shards of others are archived.
        date: Whose shards.
        index: The date's clips, table of `clip_tables.CLIP_INDEX`: what is of no use to them stays.
        say: Told of every shard with such rows.
        lease: What the date is worked on under; None for whoever only looks.

    Returns:
        The states of the date's clips now, by video_id.
    """
    layout, ledger, strategy = deployment.layout, deployment.ledger, lock.fusion_strategy
    stage = statuses.fusion_stage(strategy)
    ids = index["video_id"].to_pylist()
    known = ledger.rows(stage, ids)
    hashes = dict(zip(ids, index["source_hash"].to_pylist(), strict=True))
    named = {item.artifact_key for item in known.values()}
    for info in deployment.store.list(layout.shards_prefix(strategy, date)):
        if (
            info.key in named
            or layout.shard_ref(info.key) is None
            or ledger.merged_version(stage, info.key) == _TAKEN
        ):
            continue
        shard = FusedShard.from_npz(deployment.store.get(info.key), info.key, views=True)
        if shard.declared is None or shard.lock_version() != lock.lock_version:
            ledger.set_merged_version(stage, info.key, _TAKEN)
            continue
        orphans = [
            item
            for item in ledger_rows(info.key, shard, lock)
            if hashes.get(item.video_id) == item.source_hash
            and _is_newer(info.key, known.get(item.video_id), item)
        ]
        ledger.commit(stage, orphans, lease=lease)
        ledger.set_merged_version(stage, info.key, _TAKEN)
        known.update((item.video_id, item) for item in orphans)
        if orphans:
            say(f"{info.key}: took over {len(orphans)} rows of an interrupted run")
    return known


def _is_newer(key: str, known: Item | None, orphan: Item) -> bool:
    """Whether a shard's row says more than the ledger does."""
    if rules.is_forgotten(known):
        return False
    if known is None or known.source_hash != orphan.source_hash:
        return True
    if known.status not in statuses.FUSED:
        # More failures than the shard knows of came after it: its upgrade failed.
        return known.retry_count <= orphan.retry_count
    if known.version != orphan.version:
        return True
    # As the manifest's merge: a full row wins over a placeholder wherever that lies.
    full = (known.status == statuses.SUCCESS_FULL, orphan.status == statuses.SUCCESS_FULL)
    return full[1] if full[0] != full[1] else (known.artifact_key or "") < key
