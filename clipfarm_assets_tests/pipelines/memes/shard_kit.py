"""Memes, a store of them, and writers of shards that die or are interrupted."""

import io
import json
from collections.abc import Callable, Sequence

import numpy as np
import webdataset
from PIL import Image

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY
from clipfarm_assets.contracts.meme_rows import MemeRow, sample_key
from clipfarm_assets.contracts.meme_splits import MemeSplits
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index
from clipfarm_assets.pipelines.memes.shards import ShardOptions, ShardReport, write_shards
from clipfarm_assets.pipelines.progress import silent
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

LAYOUT = MemeLayout()
SPLIT = "train"
FOLDER = "memes/shards/train"
INDEX = f"{FOLDER}/index.json"
SMALL = ShardOptions(shard_rows=4, workers=2)


def image(seed: int = 0, kind: str = "PNG", side: int = 12) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def meme(meme_id: str, **fields) -> MemeRow:
    made = {
        "id": meme_id,
        "key": sample_key(meme_id),
        "image": f"{meme_id}.png",
        "caption": f"caption of {meme_id}",
        "ocr": "",
        "labels": {"abuse_hate": len(meme_id) % 2},
        "source": "test",
    }
    return MemeRow(**{**made, **fields})


def memes(count: int, prefix: str = "m") -> list[MemeRow]:
    return [meme(f"{prefix}{n}") for n in range(count)]


def splits_of(rows: Sequence[MemeRow], split: str = SPLIT) -> MemeSplits:
    """All of them in one split, each a group."""
    ids = [row.id for row in rows]
    return MemeSplits(dict.fromkeys(ids, split), {meme_id: f"g-{meme_id}" for meme_id in ids})


def fill(store: ObjectStore, rows: Sequence[MemeRow], seed: int = 0) -> None:
    for n, row in enumerate(rows):
        store.put(LAYOUT.image(row.image), image(seed + n))


def write(
    store: ObjectStore, rows: Sequence[MemeRow], options: ShardOptions = SMALL, **more
) -> ShardReport:
    splits, say = more.get("splits", splits_of(rows)), more.get("say", silent)
    taxonomy = more.get("taxonomy", DEFAULT_TAXONOMY)
    return write_shards(store, LAYOUT, SPLIT, rows, splits, taxonomy, options, say)


def refuse(bad: object) -> None:
    raise AssertionError(bad)


def read(store: ObjectStore, split: str = SPLIT):
    return list(iter_samples(store, LAYOUT, split, on_bad=refuse))


def ids(store: ObjectStore) -> set[str]:
    return {sample.json["id"] for sample in read(store)}


def tars(store: ObjectStore) -> dict[str, bytes]:
    """Name -> bytes of every shard in the folder."""
    found = {info.key: store.get(info.key) for info in store.list(FOLDER)}
    return {key.removeprefix(f"{FOLDER}/"): data for key, data in found.items() if key != INDEX}


def everything(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list(FOLDER)}


def foreign_shard(samples: Sequence[dict], **options) -> bytes:
    """A shard by webdataset's own writer."""
    file = io.BytesIO()
    with webdataset.TarWriter(file, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return file.getvalue()


def check_whole(store: ObjectStore) -> None:
    """Index and folder agree, and every shard can be read."""
    index = read_index(store, LAYOUT, SPLIT)
    assert len(read(store)) == index.rows
    assert {f"shard-{shard.part:06d}.tar" for shard in index.shards} <= tars(store).keys()
    assert json.loads(store.get(INDEX))["rows"] == index.rows


class Killed(BaseException):
    """The process is gone: nothing of ours may catch it."""


class InterruptedStore(ObjectStore):
    """A store in which something happens before or after the nth write; deletes are writes too."""

    def __init__(self, url: str, nth: int, when: str, act: Callable[[], None]) -> None:
        super().__init__(url)
        self._nth, self._when, self._act = nth, when, act
        self.writes = 0

    def put(self, key: str, data: bytes) -> None:
        self._interrupted(lambda: super(InterruptedStore, self).put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._interrupted(lambda: super(InterruptedStore, self).put_if_absent(key, data))

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        return self._interrupted(lambda: super(InterruptedStore, self).swap(key, data, expected))

    def delete(self, key: str) -> None:
        self._interrupted(lambda: super(InterruptedStore, self).delete(key))

    def _interrupted(self, write):
        self.writes += 1
        now = self.writes == self._nth
        if now and self._when == "before":
            self._act()
        result = write()
        if now and self._when == "after":
            self._act()
        return result


def die() -> None:
    raise Killed
