"""Fusing a date's clips, against the plain way. ``python -m benchmarks.fusion``.

10,000 clips, three npy objects of 768 values each but for one clip in ten, which has no text and
says why, are fused to shards of 2,048 rows, a manifest and a published state: from and to a
folder, and an S3 server with 20 ms latency (`benchmarks.latency_s3`). The plain way
(`plain/fuse_clips.py`) reads and commits a clip at a time; on S3 it does the first `--plain-clips`
of them, and the table compares the time of one clip: what its run costs apart from its clips is a
few percent of that. Ours also verifies each object's sha256 and norm, declares rows in the shards,
and reads pointers back. Each run is a process of its own, on a fresh copy of the ledger; shards,
manifest and state of the last run are removed before. Followed from the manifests, both ways must
have the same vectors. Files are in the page cache. How long a commit waits for the disk differs
between disks and moments, so each path is also shown without the time spent on ledgers.
"""

import argparse
import gc
import hashlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    RATIO_COLUMNS,
    Target,
    alternate,
    answer,
    begin,
    child,
    markdown,
    options,
    ratio_row,
    same,
    timed,
)
from benchmarks.fusion_parts import BESIDE, COLUMNS, PARTS, measured, table_row
from benchmarks.latency_s3 import BUCKET, counts, serving

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.storage.objects import ObjectStore

DATE = "2026-02-05"
DIM = 768
STRATEGY = "concat"
WITHOUT_TEXT = 10  # one clip in so many
FOLDER_TARGET = Target(8, 15)
S3_TARGET = Target(30, 50)


def main() -> None:
    parser = options(__doc__, folder="where a folder for the files is made")
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--plain-clips", type=int, default=300, help="of these, on S3")
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--only", choices=("folder", "s3"), help="one of the two stores")
    asked = begin(parser)
    part = min(asked.plain_clips, asked.clips)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-", dir=asked.folder) as folder:
        store = Path(folder, "store")
        _step("make", store, folder, asked.clips)
        rows, told = [], []
        for name, place, plain_clips, compared, target in _places(asked, store, part):
            ledger = f"{folder}/{name.split()[0]}.sqlite"
            _step("restore", place, ledger, asked.clips)
            ways = {
                "plain": partial(_step, "plain", place, ledger, plain_clips, compared),
                "ours": partial(_step, "ours", place, ledger, asked.clips, compared),
            }
            runs = alternate(ways, asked.repeats)
            same(runs)
            path = f"fusion of {asked.clips} clips, {name}"
            rows.append(ratio_row(path, runs["plain"], runs["ours"], target))
            rows.append(
                ratio_row(
                    f"the same but for the ledgers, {name}",
                    runs["plain"],
                    runs["ours"],
                    None,
                    field="seconds_without_ledger",
                )
            )
            told += [table_row(f"{name}, {way}", some) for way, some in runs.items()]
    print(markdown(RATIO_COLUMNS, rows))
    print("\nWhere the time goes, microseconds a clip (medians):\n")
    print(markdown(COLUMNS, told))


def _places(
    asked: argparse.Namespace, store: Path, part: int
) -> Iterator[tuple[str, str, int, int, Target]]:
    """Name, address, clips of the plain way, clips compared, target."""
    if asked.only != "s3":
        yield "folder", str(store), asked.clips, asked.clips, FOLDER_TARGET
    if asked.only == "folder":
        return
    with serving(asked.latency_ms) as url:
        _step("upload", url, str(store), asked.clips)
        yield f"S3 at {asked.latency_ms:g} ms", url, part, part, S3_TARGET
        print(f"requests to the server in all: {counts(url)}", file=sys.stderr)


def _step(step: str, place: object, *arguments: object) -> dict[str, Any]:
    found = child("benchmarks.fusion", ["--child", step, place, *arguments])
    assert found is not None
    return found


def _child(step: str, place: str, other: str, clips: int, compared: int = 0) -> None:
    if step in {"make", "upload", "restore"}:
        work = {"make": _make, "upload": _upload, "restore": _restore}[step]
        _, seconds = timed(partial(work, place, other, clips))
        answer(seconds)
        return
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as scratch:
        _clear(_opened(place))
        gc.collect()
        gc.freeze()  # as step processes do with what they have imported
        run = (_ours if step == "ours" else _plain)(place, Path(other), clips, Path(scratch))
        run["seconds_without_ledger"] = run["seconds"] - run["parts"]["ledger"]
        run["digest"] = _digest(_opened(place), compared)
        answer({**run, "items": clips})


def _opened(place: str) -> "ObjectStore":
    from clipfarm_assets.storage.objects import ObjectStore, S3Settings

    if place.startswith("http"):
        return ObjectStore.open(f"s3://{BUCKET}", S3Settings(place, "us-east-1", "any", "any"))
    return ObjectStore.open(place)


def _deployment(place: str, ledger: Path) -> "Deployment":
    from clipfarm_assets.ledger.ledger import Ledger
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.storage.layout import Layout

    store = _opened(place)
    return Deployment(store, Layout(), Ledger.open(f"sqlite:///{ledger}", store.url))


def _make(place: str, _folder: str, clips: int) -> None:
    """A deployment whose clips are embedded and locked, and not fused."""
    import sqlite3

    import numpy as np
    import pyarrow as pa

    from clipfarm_assets.contracts.clip_tables import CLIP_INDEX
    from clipfarm_assets.contracts.horizon_csv import source_hash
    from clipfarm_assets.contracts.schema_lock import SchemaLock
    from clipfarm_assets.contracts.statuses import MODALITIES, SUCCESS, embedding_stage
    from clipfarm_assets.ledger.published import items_to_sqlite
    from clipfarm_assets.ledger.rules import CAPTURED_AT
    from clipfarm_assets.ledger.schema import Item
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.npy import vector_to_npy
    from clipfarm_assets.storage.tables import table_to_parquet

    store, layout = _opened(place), Layout()
    ids = [f"clip-{n:07d}" for n in range(clips)]
    hashes = [source_hash(f"https://example.org/{video_id}") for video_id in ids]
    captured_at = f"{DATE}T12:00:00+00:00"
    random = np.random.default_rng(7)
    for modality in MODALITIES:
        has = [modality != "text" or n % WITHOUT_TEXT > 0 for n in range(clips)]
        vectors = random.standard_normal((clips, DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        keys = [layout.embedding(modality, video_id) for video_id in ids]
        objects = [vector_to_npy(vector) for vector in vectors]
        for _ in store.put_many(compress(zip(keys, objects, strict=True), has)):
            pass
        items = {
            ids[n]: Item(
                ids[n],
                hashes[n],
                "2026-02-06T00:00:00.000000+00:00",
                SUCCESS,
                artifact_key=keys[n],
                version=f"{modality}-benchmark",
                content_sha256=hashlib.sha256(objects[n]).hexdigest(),
                details={CAPTURED_AT: captured_at},
            )
            for n in compress(range(clips), has)
        }
        store.put(layout.state(embedding_stage(modality)), items_to_sqlite(items))
    lock = SchemaLock.of(
        STRATEGY, dict.fromkeys(MODALITIES, DIM), {m: f"{m}-benchmark" for m in MODALITIES}
    )
    store.put(layout.schema_lock(STRATEGY), lock.to_json())
    texts = sqlite3.connect(":memory:")
    texts.execute("CREATE TABLE processed_items (video_id TEXT PRIMARY KEY, status TEXT)")
    told = ((i, "success" if n % WITHOUT_TEXT else "no_captions") for n, i in enumerate(ids))
    texts.executemany("INSERT INTO processed_items VALUES (?, ?)", told)
    texts.commit()
    store.put(layout.text_downloader_state(), texts.serialize())
    blank = [""] * clips
    columns = {"url": blank, "title": blank, "description": blank, "query": blank}
    index = {
        "video_id": ids,
        "source_hash": hashes,
        "captured_at": [captured_at] * clips,
        "date": [DATE] * clips,
        **columns,
        "csv_row": list(range(clips)),
    }
    store.put(layout.clip_index(DATE), table_to_parquet(pa.table(index, schema=CLIP_INDEX)))


def _upload(place: str, source: str, _clips: int) -> None:
    store, folder = _opened(place), _opened(source)
    _clear(folder)
    listed = [info.key for info in folder.list()]
    for _ in store.put_many((key, folder.get(key)) for key in listed):
        pass


def _restore(place: str, ledger: str, _clips: int) -> None:
    """The ledger as the embedding runs left it, on their machine."""
    from clipfarm_assets.contracts.statuses import MODALITIES, embedding_stage

    deployment = _deployment(place, Path(ledger))
    for modality in MODALITIES:
        deployment.restore(embedding_stage(modality))
    deployment.ledger.close()


def _clear(store: "ObjectStore") -> None:
    """Remove what fusion made: all below the strategy's folder but the lock, and the state."""
    from clipfarm_assets.storage.layout import Layout

    layout = Layout()
    lock = layout.schema_lock(STRATEGY)
    for info in list(store.list(lock.rpartition("/")[0])):
        if info.key != lock:
            store.delete(info.key)
    store.delete(layout.state(f"fusion_{STRATEGY}"))


def _index(place: str) -> Any:
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.tables import parquet_to_table

    return parquet_to_table(_opened(place).get(Layout().clip_index(DATE)))


def _plain(place: str, _ledger: Path, clips: int, scratch: Path) -> dict[str, Any]:
    from benchmarks.plain import fuse_clips, vectors_boto3

    rows = _index(place).select(["video_id", "source_hash", "captured_at"]).slice(0, clips)
    todo = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    where: fuse_clips.Place = fuse_clips.Folder(Path(place))
    if place.startswith("http"):
        client = vectors_boto3.client(place)
        client.head_bucket(Bucket=BUCKET)
        where = fuse_clips.Bucket(client, BUCKET)
    parts, seconds = timed(lambda: fuse_clips.fuse_clips(where, todo, DATE, scratch))
    return _told(seconds, parts, {})


def _ours(place: str, ledger: Path, clips: int, scratch: Path) -> dict[str, Any]:
    # Where it is installed, pyarrow imports it on first use; it isn't a dependency, and imports
    # are no part of the time of either way.
    import pandas as pd  # noqa: F401

    from clipfarm_assets.pipelines import fuse, manifest

    for file in ledger.parent.glob(f"{ledger.name}*"):  # beside it may lie its log
        shutil.copy(file, scratch / file.name)
    deployment = _deployment(place, scratch / ledger.name)
    deployment.store.exists("opens the connection")
    index = _index(place)
    assert index.num_rows == clips

    def run() -> None:
        fuse.FusionStage(deployment, STRATEGY).run({DATE: index})
        manifest.update_manifest(deployment, STRATEGY)

    with measured() as watch:
        _, seconds = timed(run)
    return _told(seconds, watch.own, watch.beside)


def _told(
    seconds: Mapping[str, Any], parts: Mapping[str, float], beside: Mapping[str, float]
) -> dict[str, Any]:
    return {
        **seconds,
        "parts": dict.fromkeys(PARTS, 0.0) | dict(parts),
        "beside": dict.fromkeys(BESIDE, 0.0) | dict(beside),
    }


def _digest(store: "ObjectStore", clips: int) -> str:
    """Hash of the first `clips` by id as the manifest leads to them: id, text or not, vector."""
    import numpy as np
    import polars as pl

    from clipfarm_assets.storage.layout import Layout

    manifest = pl.read_parquet(io.BytesIO(store.get(Layout().fused_manifest(STRATEGY))))
    rows = manifest.sort("video_id").head(clips)
    assert len(rows) == clips
    shards: dict[str, Any] = {}
    for key in rows["fused_key"].unique():
        with np.load(io.BytesIO(store.get(key)), allow_pickle=False) as shard:
            shards[key] = shard["video_ids"], shard["vectors"]
    digest = hashlib.sha256()
    for row in rows.iter_rows(named=True):
        ids, vectors = shards[row["fused_key"]]
        assert ids[row["shard_idx"]] == row["video_id"]
        told = (row["video_id"], row["source_hash"], row["text_source"], row["fusion_status"])
        digest.update(repr(told).encode() + vectors[row["shard_idx"]].tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:5], *map(int, sys.argv[5:]))
    else:
        main()
