"""Prepares the stores that the benchmarks read, each in a child process, and keeps them."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.common import answer, child, timed

HORIZON = 7
STRATEGY = "concat"


def prepare(folder: Path, rows: int, objects: int) -> Path:
    """A planted store of so many clips; npy objects for the first `objects` of them by id."""
    place = folder / f"rows={rows}-objects={objects}"
    if not (place / "ready").exists():
        made = child("benchmarks.planted", [place, rows, objects])
        print(f"made a store of {rows} clips in {made['seconds']:.0f} s", flush=True)
        (place / "ready").touch()
    return place


def deployment(folder: Path):
    """The deployment over a prepared store, with an empty ledger of its own."""
    from clipfarm_assets.ledger.ledger import Ledger
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.objects import ObjectStore

    store = ObjectStore.open(str(folder / "store"))
    database = Path(tempfile.mkdtemp(prefix="clipfarm-benchmark-")) / "ledger.sqlite"
    return Deployment(store, Layout(), Ledger.open(f"sqlite:///{database}", store.url))


def _make(folder: Path, rows: int, objects: int) -> None:
    from clipfarm_assets.contracts.fused_shard import FusedShard
    from clipfarm_assets.demo.planted_vectors import DIMS, make_planted_store
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.npy import vector_to_npy
    from clipfarm_assets.storage.objects import ObjectStore

    store, layout = ObjectStore.open(str(folder / "store")), Layout()
    report = make_planted_store(store, layout, clips=rows, strategies=[STRATEGY])
    wanted = set(report.truth["video_id"].sort()[:objects])
    for info in store.list(layout.shards_prefix(STRATEGY)):
        shard = FusedShard.from_npz(store.get(info.key), info.key)
        for video_id, vector, present in zip(
            map(str, shard.video_ids), shard.vectors, shard.declared.text_present, strict=True
        ):
            start = 0
            for modality, dim in DIMS.items():
                if video_id in wanted and (modality != "text" or present):
                    part = vector[start : start + dim]
                    store.put(layout.embedding(modality, video_id), vector_to_npy(part.copy()))
                start += dim


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("objects", type=int)
    asked = parser.parse_args()
    _, seconds = timed(lambda: _make(asked.folder, asked.rows, asked.objects))
    answer(seconds)
