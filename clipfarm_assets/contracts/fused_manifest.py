"""The fused manifest: the pointers to every clip's fused vector, and how new ones are merged in.

Columns and merge rule: the fusion contract, section 8.2.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from clipfarm_assets.contracts.manifest_merge import KEY, NotMerged, latest, spliced
from clipfarm_assets.storage.tables import CHUNK_ROWS

SCHEMA: Final = pa.schema(
    [
        ("video_id", pa.string()),
        ("captured_at", pa.string()),
        ("source_hash", pa.string()),
        ("fusion_strategy", pa.string()),
        ("fused_dim", pa.int64()),
        ("fused_key", pa.string()),
        ("shard_idx", pa.int64()),
        ("shard_n", pa.int64()),
        ("video_emb_key", pa.string()),
        ("audio_emb_key", pa.string()),
        ("text_emb_key", pa.string()),
        ("text_present", pa.int64()),
        ("text_source", pa.string()),
        ("text_state_status", pa.string()),
        ("text_missing_reason", pa.string()),
        ("fusion_status", pa.string()),
        ("retry_count_at_write", pa.int64()),
    ]
)
COLUMNS: Final = tuple(SCHEMA.names)

_POINTER: Final = (*KEY, "fusion_strategy", "fused_dim", "fused_key", "shard_idx", "shard_n")

# Keys of the parquet file's own metadata. An older deployment's file has none.
LOCK_VERSION_KEY: Final = "clipfarm.lock_version"
SHARDS_KEY: Final = "clipfarm.shards"
SETTLED_KEY: Final = "clipfarm.settled_shards"


class BadManifest(ValueError):  # noqa: N818
    """The object is not a fused manifest."""


@dataclass(frozen=True)
class FusedManifest:
    """The manifest with what its file says about itself.

    Attributes:
        rows: `SCHEMA`; once merged, sorted by (video_id, source_hash) and unique in them.
        lock_version: Version of the lock its rows were fused under.
        shards: Keys of all shards looked at so far: merged, also where every row was superseded
            since, or of an earlier lock.
    """

    rows: pa.Table
    lock_version: int
    shards: frozenset[str]

    @classmethod
    def empty(cls, lock_version: int) -> "FusedManifest":
        """A manifest without rows."""
        return cls(SCHEMA.empty_table(), lock_version, frozenset())

    def file_metadata(self) -> dict[str, str]:
        """What is written into the parquet file's own metadata."""
        return {
            LOCK_VERSION_KEY: str(self.lock_version),
            SHARDS_KEY: json.dumps(sorted(self.shards)),
        }

    @classmethod
    def from_table(cls, table: pa.Table, key: str = "fused_manifest.parquet") -> "FusedManifest":
        """Read a manifest of this or an older deployment.

        Older files may hold other integer widths, large strings or a dataframe index: values are
        cast without loss, and columns the contract doesn't know are left out.

        Raises:
            BadManifest: A column is missing, holds what its type can't, or has rows that lead
                nowhere: without id, source, key or place in the shard.
        """
        rows = checked_rows(table, key)
        own = OwnMetadata.of(table.schema.metadata or {}, key)
        named = own.shards or frozenset()
        pointed = frozenset(rows["fused_key"].unique().to_pylist())
        return cls(rows, own.lock_version, named | pointed)

    def merged(
        self,
        new: Sequence[pa.Table],
        shard_keys: Collection[str],
        lost: Collection[str] = (),
    ) -> "FusedManifest":
        """The manifest with the rows of more shards.

        Rule: concatenate old and new, sort by (video_id, source_hash, captured_at, text_present,
        fused_key), keep the last row of each (video_id, source_hash). So it doesn't matter in which
        order, or how often, shards are merged. Rows that lead to a shard in `lost` give way to any
        that don't. See `manifest_merge`.
        """
        tables = [table.cast(SCHEMA) for table in new]
        chunks = map(_table, self.rows.to_batches(max_chunksize=CHUNK_ROWS))
        fresh = pa.concat_tables([SCHEMA.empty_table(), *tables])
        try:
            rows = pa.concat_tables([SCHEMA.empty_table(), *spliced(chunks, fresh, lost)])
        except NotMerged:  # of an older deployment, or a shard's rows
            rows = latest([self.rows, fresh], lost)
        return FusedManifest(rows, self.lock_version, self.shards | frozenset(shard_keys))


def checked_rows(table: pa.Table, key: str) -> pa.Table:
    """Rows as `SCHEMA` has them, from those of this or an older deployment.

    Raises:
        BadManifest: See `FusedManifest.from_table`.
    """
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        msg = f"{key} must have the {len(COLUMNS)} manifest columns: {', '.join(missing)} missing"
        raise BadManifest(msg)
    try:
        rows = table.select(COLUMNS).replace_schema_metadata(None).cast(SCHEMA)
    except pa.ArrowException as error:
        msg = f"{key} holds values its columns can't: {error}"
        raise BadManifest(msg) from None
    empty = [f"{name} of {n} rows" for name in _POINTER if (n := rows[name].null_count)]
    if empty:
        msg = f"{key}: every row must say where its vector is: {', '.join(empty)} is empty"
        raise BadManifest(msg)
    return rows


@dataclass(frozen=True)
class OwnMetadata:
    """What a manifest's file says of itself in parquet's own metadata.

    Attributes:
        lock_version: Version of the lock its rows were fused under.
        shards: What it was made of; None where that isn't on record, in a file of an older
            deployment.
        settled: Shards among them that are gone from the store, or are about to be removed, and
            that none of its rows leads to.
    """

    lock_version: int
    shards: frozenset[str] | None
    settled: frozenset[str]

    @classmethod
    def of(cls, meta: Mapping[bytes, bytes], key: str) -> "OwnMetadata":
        """Read it.

        Raises:
            BadManifest: What is recorded can't be that; names `key`.
        """
        version = meta.get(LOCK_VERSION_KEY.encode(), b"1")
        try:
            lock_version = int(version)
        except ValueError as error:
            msg = f"{key}: its own metadata can't be read: {error}"
            raise BadManifest(msg) from None
        if lock_version < 1:
            msg = f"{key}: {LOCK_VERSION_KEY} counts from 1: found {lock_version}"
            raise BadManifest(msg)
        settled = _keys(meta, SETTLED_KEY, key) or frozenset()
        return cls(lock_version, _keys(meta, SHARDS_KEY, key), settled)


def _keys(meta: Mapping[bytes, bytes], name: str, key: str) -> frozenset[str] | None:
    """A list of keys on record; None if there is none."""
    recorded = meta.get(name.encode())
    if recorded is None:
        return None
    try:
        found = json.loads(recorded)
    except ValueError as error:
        msg = f"{key}: its own metadata can't be read: {error}"
        raise BadManifest(msg) from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        msg = f"{key}: {name} must be a JSON list of keys: found {recorded!r:.100}"
        raise BadManifest(msg)
    return frozenset(found)


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
