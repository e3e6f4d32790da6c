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

# Keys of the parquet file's own metadata. An older deployment's file has neither.
LOCK_VERSION_KEY: Final = "clipfarm.lock_version"
SHARDS_KEY: Final = "clipfarm.shards"


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
        lock_version, recorded = own_metadata(table.schema.metadata or {}, key)
        named = recorded or frozenset()
        return cls(rows, lock_version, named | frozenset(rows["fused_key"].unique().to_pylist()))

    def merged(self, new: Sequence[pa.Table], shard_keys: Collection[str]) -> "FusedManifest":
        """The manifest with the rows of more shards.

        Rule: concatenate old and new, sort by (video_id, source_hash, captured_at, text_present,
        fused_key), keep the last row of each (video_id, source_hash). So it doesn't matter in which
        order, or how often, shards are merged. See `manifest_merge`.
        """
        tables = [table.cast(SCHEMA) for table in new]
        chunks = map(_table, self.rows.to_batches(max_chunksize=CHUNK_ROWS))
        fresh = pa.concat_tables([SCHEMA.empty_table(), *tables])
        try:
            rows = pa.concat_tables([SCHEMA.empty_table(), *spliced(chunks, fresh)])
        except NotMerged:  # of an older deployment, or a shard's rows
            rows = latest([self.rows, fresh])
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


def own_metadata(meta: Mapping[bytes, bytes], key: str) -> tuple[int, frozenset[str] | None]:
    """The lock version and the shards that a file records: None where it records none at all.

    Raises:
        BadManifest: What it records can't be that.
    """
    version = meta.get(LOCK_VERSION_KEY.encode(), b"1")
    recorded = meta.get(SHARDS_KEY.encode())
    try:
        lock_version, shards = int(version), json.loads(recorded or b"[]")
    except ValueError as error:
        msg = f"{key}: its own metadata can't be read: {error}"
        raise BadManifest(msg) from None
    if lock_version < 1:
        msg = f"{key}: {LOCK_VERSION_KEY} counts from 1: found {lock_version}"
        raise BadManifest(msg)
    if not isinstance(shards, list) or not all(isinstance(shard, str) for shard in shards):
        msg = f"{key}: {SHARDS_KEY} must be a JSON list of keys: found {recorded!r:.100}"
        raise BadManifest(msg)
    return lock_version, None if recorded is None else frozenset(shards)


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
