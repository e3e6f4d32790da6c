"""Vectors to and from a store, against one by one. ``python -m benchmarks.store``.

5,000 vectors of 768 values, an npy object each, to and from an S3 server with 20 ms latency
(`benchmarks.latency_s3`) and a folder. The plain way on S3 does the first `--plain-items` of them:
its time is linear in their number, and the table compares the time of one. Each run is a process of
its own, writes under keys that are new, and has opened its connection before the time is taken.
Files are in the page cache when they are read; ours are staged and renamed when they are written,
so that no reader meets a part of one, which a plain file is not.
"""

import hashlib
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from benchmarks.latency_s3 import BUCKET, counts, serving

if TYPE_CHECKING:
    from clipfarm_assets.storage.objects import ObjectStore

DIM = 768
S3_TARGET = Target(30, 50)
Run = dict[str, Any]
Put = Callable[[Sequence[str], np.ndarray], None]
Get = Callable[[Sequence[str]], np.ndarray]


def main() -> None:
    parser = options(__doc__, folder="where a folder for the files is made")
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--plain-items", type=int, default=250, help="of these, on S3")
    parser.add_argument("--latency-ms", type=float, default=20.0)
    asked = begin(parser)
    part = min(asked.plain_items, asked.items)
    with serving(asked.latency_ms) as url:
        name = f"{asked.items} vectors {{}} S3, {asked.latency_ms:g} ms"
        rows = _rows(name, url, (part, asked.items, part), asked.repeats, S3_TARGET)
        requests = counts(url)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-", dir=asked.folder) as folder:
        sizes = (asked.items, asked.items, part)
        rows += _rows(f"{asked.items} vectors {{}} a folder", folder, sizes, asked.repeats, None)
    print(markdown(RATIO_COLUMNS, rows))
    print(f"\nMost requests at once: {requests.pop('most at once')}; requests in all: {requests}")


def _rows(
    name: str, place: str, sizes: tuple[int, int, int], repeats: int, target: Target | None
) -> list[list[str]]:
    """The rows of writing to `place` and of reading what was written."""
    plain_items, items, part = sizes
    written = {"plain": count(), "ours": count()}

    def run(way: str, step: str, items: int) -> Run:
        # What is read is what the first writing run of the same way left.
        folder = f"{way}-{next(written[way]) if step == 'put' else 0}"
        found = child("benchmarks.store", ["--child", way, step, place, folder, items, part])
        assert found is not None
        return found

    rows = []
    for step, words in (("put", "to"), ("get", "from")):
        ways = {
            "plain": partial(run, "plain", step, plain_items),
            "ours": partial(run, "ours", step, items),
        }
        runs = alternate(ways, repeats)
        same(runs)
        rows.append(ratio_row(name.format(words), runs["plain"], runs["ours"], target))
    return rows


def _child(way: str, step: str, place: str, folder: str, items: int, part: int) -> None:
    keys = [f"{folder}/clipfarm/embeddings/video/{n:06d}.npy" for n in range(items)]
    vectors = np.random.default_rng(7).standard_normal((items, DIM), dtype=np.float32)
    put, get = (_ours if way == "ours" else _plain)(place)
    if step == "put":
        _, seconds = timed(lambda: put(keys, vectors))
        digest = hashlib.sha256(b"".join(_objects(place, keys[:part])))
    else:
        found, seconds = timed(lambda: get(keys))
        assert len(found) == items
        digest = hashlib.sha256(found[:part].tobytes())
    answer({**seconds, "items": items, "digest": digest.hexdigest()})


def _plain(place: str) -> tuple[Put, Get]:
    if place.startswith("http"):
        from benchmarks.plain import vectors_boto3

        client = vectors_boto3.client(place)
        client.head_bucket(Bucket=BUCKET)
        return (
            partial(vectors_boto3.put_vectors, client, BUCKET),
            partial(vectors_boto3.get_vectors, client, BUCKET),
        )
    from benchmarks.plain import vectors_files

    return (
        partial(vectors_files.put_vectors, Path(place)),
        partial(vectors_files.get_vectors, Path(place)),
    )


def _ours(place: str) -> tuple[Put, Get]:
    from clipfarm_assets.storage.npy import npy_to_vector, vector_to_npy

    store = _opened(place)
    store.exists("opens the connection")

    def put(keys: Sequence[str], vectors: np.ndarray) -> None:
        deque(store.put_many(zip(keys, map(vector_to_npy, vectors), strict=True)), maxlen=0)

    def get(keys: Sequence[str]) -> np.ndarray:
        found = np.empty((len(keys), DIM), dtype=np.float32)
        for at, (_, data) in enumerate(store.get_many(keys)):
            if not isinstance(data, bytes):
                raise data
            found[at] = npy_to_vector(data, DIM)
        return found

    return put, get


def _opened(place: str) -> "ObjectStore":
    from clipfarm_assets.storage.objects import ObjectStore, S3Settings

    if place.startswith("http"):
        return ObjectStore.open(f"s3://{BUCKET}", S3Settings(place, "us-east-1", "any", "any"))
    return ObjectStore.open(place)


def _objects(place: str, keys: Sequence[str]) -> Iterator[bytes]:
    store = _opened(place)
    return (store.get(key) for key in keys)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:6], *map(int, sys.argv[6:]))
    else:
        main()
