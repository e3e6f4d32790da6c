"""The fused manifest: the pointers to every clip's fused vector, and how new ones are merged in.

Columns and merge rule: the fusion contract, section 8.2.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa

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

KEY: Final = ("video_id", "source_hash")
_POINTER: Final = (*KEY, "fusion_strategy", "fused_dim", "fused_key", "shard_idx", "shard_n")
# The contract's order, with `text_present` before `fused_key`: an older deployment's shards lie
# under the day of the run, which may be later than the day of capture that ours lie under, and a
# placeholder must not win over the full row that replaced it.
_ORDER: Final = (*KEY, "captured_at", "text_present", "fused_key")

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
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            msg = (
                f"{key} must have the {len(COLUMNS)} manifest columns: {', '.join(missing)} missing"
            )
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
        lock_version, recorded = _own_metadata(table.schema.metadata or {}, key)
        return cls(rows, lock_version, recorded | frozenset(rows["fused_key"].unique().to_pylist()))

    def merged(self, new: Sequence[pa.Table], shard_keys: Collection[str]) -> "FusedManifest":
        """The manifest with the rows of more shards.

        Rule: concatenate old and new, sort by (video_id, source_hash, captured_at, text_present,
        fused_key), keep the last row of each (video_id, source_hash). So it doesn't matter in which
        order, or how often, shards are merged.
        """
        everything = pl.concat([_frame(self.rows), *(_frame(table.cast(SCHEMA)) for table in new)])
        kept = everything.sort(_ORDER, nulls_last=False, maintain_order=True).unique(
            subset=list(KEY), keep="last", maintain_order=True
        )
        rows = kept.to_arrow().cast(SCHEMA)
        return FusedManifest(rows, self.lock_version, self.shards | frozenset(shard_keys))


def _own_metadata(meta: Mapping[bytes, bytes], key: str) -> tuple[int, frozenset[str]]:
    version, recorded = (
        meta.get(name.encode(), default)
        for name, default in ((LOCK_VERSION_KEY, b"1"), (SHARDS_KEY, b"[]"))
    )
    try:
        lock_version, shards = int(version), json.loads(recorded)
    except ValueError as error:
        msg = f"{key}: its own metadata can't be read: {error}"
        raise BadManifest(msg) from None
    if lock_version < 1:
        msg = f"{key}: {LOCK_VERSION_KEY} counts from 1: found {lock_version}"
        raise BadManifest(msg)
    if not isinstance(shards, list) or not all(isinstance(shard, str) for shard in shards):
        msg = f"{key}: {SHARDS_KEY} must be a JSON list of keys: found {recorded[:100]!r}"
        raise BadManifest(msg)
    return lock_version, frozenset(shards)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):  # pragma: no cover - a table never becomes a series
        msg = "expected a table"
        raise TypeError(msg)
    return frame
