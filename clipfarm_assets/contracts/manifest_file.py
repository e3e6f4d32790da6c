"""The fused manifest as parquet objects: one base, and deltas that hold what came after it.

Both are files of the 17 columns with a lock version and the shards they were made of. Files are
merged without holding all of the base's rows.

What the base says of a shard it has looked at is final: rows of it in an addition are passed over.
The base has them, or it lost them since: the shard was removed, as that of a clip that is forgotten
is, while somebody who had read it before was still about to publish it.

Only a merge into the base knows which shards are gone from the store, so that what replaces their
rows is never published as a delta alone: whoever reads base and deltas goes by the rule without.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from clipfarm_assets.contracts.fused_manifest import (
    SCHEMA,
    SETTLED_KEY,
    BadManifest,
    FusedManifest,
    OwnMetadata,
    checked_rows,
)
from clipfarm_assets.contracts.manifest_merge import NotMerged, spliced
from clipfarm_assets.storage.tables import (
    BadTable,
    chunks_to_parquet,
    parquet_footer,
    parquet_to_chunks,
    parquet_to_table,
    table_to_parquet,
)


@dataclass(frozen=True)
class ManifestFooter:
    """What a file says of itself at its end.

    Attributes:
        rows: How many it has.
        lock_version: Version of the lock they were fused under.
        shards: What it was made of. None where that isn't on record, in a file of an older
            deployment: only its rows tell.
        settled: See `OwnMetadata`.
    """

    rows: int
    lock_version: int
    shards: frozenset[str] | None
    settled: frozenset[str] = frozenset()

    @classmethod
    def read(cls, tail: Callable[[int], bytes], key: str) -> "ManifestFooter":
        """Read it by `tail`, which gives the last so many bytes of the file.

        Raises:
            BadManifest: It isn't one; names `key`.
        """
        try:
            footer = parquet_footer(tail)
        except BadTable as error:
            msg = f"{key}: {error}"
            raise BadManifest(msg) from error
        own = OwnMetadata.of(footer.metadata, key)
        return cls(footer.rows, own.lock_version, own.shards, own.settled)

    @classmethod
    def of(cls, data: bytes, key: str) -> "ManifestFooter":
        """Read it from the whole file; raises as `read`."""
        return cls.read(lambda length: data[-length:], key)


def to_bytes(manifest: FusedManifest) -> bytes:
    """The file: equal manifests give equal bytes."""
    return table_to_parquet(manifest.rows, manifest.file_metadata())


def from_bytes(data: bytes, key: str) -> FusedManifest:
    """The whole file.

    Raises:
        BadManifest: It is none; names `key`.
    """
    try:
        return FusedManifest.from_table(parquet_to_table(data), key)
    except BadTable as error:
        msg = f"{key}: {error}"
        raise BadManifest(msg) from error


def shards_of_file(data: bytes, key: str) -> frozenset[str]:
    """The shards a file was made of; raises as `from_bytes`."""
    recorded = ManifestFooter.of(data, key).shards
    return from_bytes(data, key).shards if recorded is None else recorded


def merged(data: bytes, key: str, additions: Sequence[FusedManifest]) -> FusedManifest:
    """What a base and additions to it say together; raises as `from_bytes`."""
    if not additions:
        return from_bytes(data, key)
    footer = ManifestFooter.of(data, key)
    rows, shards = _joined(additions, footer.shards)
    try:
        pieces = [SCHEMA.empty_table(), *spliced(_chunks(data, key, footer), rows)]
    except NotMerged:
        return from_bytes(data, key).merged([rows], shards)
    return FusedManifest(
        pa.concat_tables(pieces), footer.lock_version, shards | (footer.shards or frozenset())
    )


def merged_to_bytes(
    data: bytes, key: str, additions: Sequence[FusedManifest], lost: Collection[str] = ()
) -> bytes:
    """`merged` as a file, in the memory of the files and a row group.

    Where nothing is lost, now or on record, it has the bytes that `to_bytes` gives `merged`.

    Args:
        data: The base.
        key: Its key.
        additions: What comes to it.
        lost: Shards that are gone from the store: their rows give way to any others, and those that
            no row leads to any more are put on record as settled.

    Raises:
        BadManifest: The base is none; names `key`.
    """
    footer = ManifestFooter.of(data, key)
    rows, shards = _joined(additions, footer.shards)
    known, settled = shards | (footer.shards or frozenset()), footer.settled

    def pieces() -> Iterator[pa.Table]:
        return spliced(_chunks(data, key, footer), rows, lost)

    try:
        if lost:
            pointed = {
                each for piece in pieces() for each in piece["fused_key"].unique().to_pylist()
            }
            settled = ((settled | frozenset(lost)) & known) - pointed
        return chunks_to_parquet(pieces(), schema_of(footer.lock_version, known, settled))
    except NotMerged:
        return to_bytes(from_bytes(data, key).merged([rows], shards, lost))


def schema_of(
    lock_version: int, shards: frozenset[str], settled: frozenset[str] = frozenset()
) -> pa.Schema:
    """The schema of a file that says this of itself, see `OwnMetadata`."""
    about = FusedManifest(SCHEMA.empty_table(), lock_version, shards).file_metadata()
    if settled:
        about[SETTLED_KEY] = json.dumps(sorted(settled))
    return SCHEMA.with_metadata(dict(sorted(about.items())))


def unseen(rows: pa.Table, recorded: Collection[str] | None) -> pa.Table:
    """Those of an addition's rows whose shard the base has not looked at."""
    if not recorded or not rows.num_rows:
        return rows
    seen = pc.is_in(rows["fused_key"], pa.array(sorted(recorded), pa.string()))
    return rows.filter(pc.invert(seen))


def _joined(
    additions: Sequence[FusedManifest], recorded: Collection[str] | None
) -> tuple[pa.Table, frozenset[str]]:
    rows = pa.concat_tables([SCHEMA.empty_table(), *(a.rows for a in additions)])
    return unseen(rows, recorded), frozenset[str]().union(*(a.shards for a in additions))


def _chunks(data: bytes, key: str, footer: ManifestFooter) -> Iterator[pa.Table]:
    """The base's rows, piece by piece.

    Raises:
        NotMerged: Its footer doesn't name every shard of its rows, so that it is to be read whole.
        BadManifest: See `from_bytes`.
    """
    recorded = pa.array(sorted(footer.shards or ()), pa.string())
    try:
        for chunk in parquet_to_chunks(data):
            rows = checked_rows(chunk, key)
            if not pc.all(pc.is_in(rows["fused_key"].unique(), recorded), min_count=0).as_py():
                msg = f"{key} names more shards in its rows than in its footer"
                raise NotMerged(msg)
            yield rows
    except BadTable as error:
        msg = f"{key}: {error}"
        raise BadManifest(msg) from error
