"""Makes the store that `benchmarks.manifest` updates: a large manifest and a few new shards.

Rows look as real ones do (ids of 11 characters, hashes of 64), and are made column by column from
arrays of characters, so that five million take seconds and the memory of a row group.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import answer, timed
from clipfarm_assets.contracts.fused_manifest import SCHEMA, FusedManifest
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.fuse import SHARD_ROWS
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import chunks_to_parquet

STRATEGY = "concat"
DIMS = {"video": 768, "audio": 768, "text": 768}
LAYOUT = Layout()
LOCK = SchemaLock.of(STRATEGY, DIMS, {modality: f"{modality}-a" for modality in DIMS})

_CHUNK = 1 << 18
_DIGITS = np.frombuffer(
    b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz", np.uint8
)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_OLD_DAYS = 365


def deployment(folder: Path) -> Deployment:
    """The deployment over a store, with an empty ledger of its own."""
    store = ObjectStore.open(str(folder / "store"))
    database = Path(tempfile.mkdtemp(prefix="clipfarm-benchmark-")) / "ledger.sqlite"
    return Deployment(store, LAYOUT, Ledger.open(f"sqlite:///{database}", store.url))


def make(folder: Path, rows: int, new_rows: int, shards: int) -> None:
    """A lock, a manifest of `rows` rows, and `shards` shards of `new_rows` rows it doesn't know.

    Every other new row is a clip of the manifest, captured again. The shards that the manifest does
    know are there as empty objects: they are listed and not read.
    """
    store = ObjectStore.open(str(folder / "store"))
    store.put(LAYOUT.schema_lock(STRATEGY), LOCK.to_json())
    days = [str(day) for day in np.datetime64("2025-01-01") + np.arange(_OLD_DAYS)]
    known = [
        LAYOUT.shard(STRATEGY, days[number % _OLD_DAYS], number // _OLD_DAYS)
        for number in range(-(-rows // SHARD_ROWS))
    ]
    for key in known:
        store.put(key, b"")
    manifest = FusedManifest(SCHEMA.empty_table(), LOCK.lock_version, frozenset(known))
    schema = SCHEMA.with_metadata(dict(sorted(manifest.file_metadata().items())))
    again: list[pa.Table] = []
    wanted = new_rows // 2

    def chunks() -> Iterator[pa.Table]:
        for start in range(0, rows, _CHUNK):
            stop = min(start + _CHUNK, rows)
            chunk = _rows(start, stop, rows, known, days)
            share = wanted * stop // rows - wanted * start // rows
            picked = np.random.default_rng([1, start]).choice(stop - start, share, replace=False)
            again.append(chunk.select(["video_id", "source_hash"]).take(pa.array(picked)))
            yield chunk

    data = chunks_to_parquet(chunks(), schema)
    store.put(LAYOUT.fused_manifest(STRATEGY), data)
    _put_shards(store, pa.concat_tables(again), new_rows, shards)


def _rows(start: int, stop: int, total: int, known: list[str], days: list[str]) -> pa.Table:
    """Rows `start` to `stop` of `total`, sorted by id."""
    n = stop - start
    rng = np.random.default_rng([0, start])
    step = (1 << 62) // total
    numbers = np.arange(start, stop, dtype=np.int64) * step + rng.integers(0, step, n)
    ids = _DIGITS[(numbers[:, None] >> np.arange(60, -1, -6)) & 63]
    number = rng.integers(0, len(known), n)
    key = pa.DictionaryArray.from_arrays(pa.array(number), pa.array(known)).cast(pa.string())
    times = pa.array([f"{day}T12:00:00+00:00" for day in days])
    captured = pa.DictionaryArray.from_arrays(pa.array(number % len(days)), times)
    columns = {
        "video_id": _text(ids),
        "captured_at": captured.cast(pa.string()),
        "source_hash": _text(_HEX[rng.integers(0, 16, (n, 64), np.uint8)]),
        "fusion_strategy": pa.repeat(STRATEGY, n),
        "fused_dim": pa.repeat(LOCK.fused_dim, n),
        "fused_key": key,
        "shard_idx": pa.array(rng.integers(0, SHARD_ROWS, n)),
        "shard_n": pa.repeat(SHARD_ROWS, n),
        **{
            f"{modality}_emb_key": _text(
                _around(f"clipfarm/embeddings/{modality}/".encode(), ids, b".npy")
            )
            for modality in DIMS
        },
        "text_present": pa.repeat(1, n),
        "text_source": pa.repeat("full", n),
        "text_state_status": pa.nulls(n, pa.string()),
        "text_missing_reason": pa.nulls(n, pa.string()),
        "fusion_status": pa.repeat("success_full", n),
        "retry_count_at_write": pa.repeat(0, n),
    }
    return pa.table(columns).cast(SCHEMA)


def _text(characters: np.ndarray) -> pa.Array:
    """Strings of one length from ASCII characters ``(N, length)``."""
    n, length = characters.shape
    offsets = np.arange(0, (n + 1) * length, length, dtype=np.int32)
    data = np.ascontiguousarray(characters)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data))


def _around(before: bytes, middle: np.ndarray, after: bytes) -> np.ndarray:
    sides = [
        np.broadcast_to(np.frombuffer(s, np.uint8), (len(middle), len(s))) for s in (before, after)
    ]
    return np.concatenate([sides[0], middle, sides[1]], axis=1)


def _put_shards(store: ObjectStore, again: pa.Table, new_rows: int, shards: int) -> None:
    rng = np.random.default_rng(2)
    count = new_rows - again.num_rows
    ids = [f"new{number:08d}" for number in range(count)] + again["video_id"].to_pylist()
    hashes = [f"{number:064x}" for number in range(count)] + again["source_hash"].to_pylist()
    for part, rows in enumerate(np.array_split(rng.permutation(new_rows), shards)):
        some, n = [ids[row] for row in rows], len(rows)
        nothing = strings([""] * n)
        shard = FusedShard(
            strings(some),
            rng.standard_normal((n, LOCK.fused_dim), np.float32),
            strings(["2026-02-05T12:00:00+00:00"] * n),
            Declaration(
                source_hash=strings([hashes[row] for row in rows]),
                **{
                    f"{modality}_emb_key": strings([LAYOUT.embedding(modality, i) for i in some])
                    for modality in DIMS
                },
                text_present=np.ones(n, np.int64),
                text_state_status=nothing,
                text_missing_reason=nothing,
                fusion_status=strings(["success_full"] * n),
                retry_count_at_write=np.zeros(n, np.int64),
                fusion_strategy=STRATEGY,
                lock_version=LOCK.lock_version,
                embedding_versions=strings([LOCK.embedding_versions[m] for m in DIMS]),
            ),
        )
        store.put(LAYOUT.shard(STRATEGY, "2026-02-05", part), shard.to_npz())


if __name__ == "__main__":
    import sys

    arguments = list(map(int, sys.argv[2:]))
    _, seconds = timed(lambda: make(Path(sys.argv[1]), *arguments))
    answer(seconds)
