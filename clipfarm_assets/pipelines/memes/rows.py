"""Reading a split's samples, one shard in memory at a time."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from io import BytesIO

from PIL import Image

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.memes.shard_index import (
    BadIndex,
    NoShards,
    ShardEntry,
    ShardIndex,
    load_index,
)
from clipfarm_assets.storage.images import PACKED, BadImage, decode_rgb
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tar_shards import BadSample, Sample, read_shard

__all__ = [
    "BadIndex",
    "NoShards",
    "OnBad",
    "ShardsChanged",
    "ShardsDamaged",
    "iter_images",
    "iter_samples",
    "read_index",
    "refuse_bad_sample",
]

OnBad = Callable[[BadSample], None]
"""Told of every sample that can't be given out."""


class ShardsChanged(RuntimeError):  # noqa: N818 - a state of the world
    """The set was replaced while it was read: what was read is not of the set that is there."""


class ShardsDamaged(RuntimeError):  # noqa: N818
    """A shard is not there, or other bytes than were written: a structural fault."""


def read_index(store: ObjectStore, layout: MemeLayout, split: Split) -> ShardIndex:
    """Which shards the split has now; it knows their rows and labels without reading them.

    Raises:
        NoShards: There are none yet.
        BadIndex: What is there is no index.
    """
    return load_index(store, layout, split)[0]


def iter_samples(
    store: ObjectStore,
    layout: MemeLayout,
    split: Split,
    *,
    on_bad: OnBad,
    index: ShardIndex | None = None,
    order: Sequence[int] | None = None,
) -> Iterator[Sample]:
    """The samples of a split, in the order of its shards.

    Every shard is compared with the hash that the index has of it before a sample is given out.

    Args:
        store: Where the shards are.
        layout: Names of objects.
        split: Which split.
        on_bad: Called in a bad sample's place, of which our own shards have none.
        index: The set to read, from `read_index`, so that all epochs read the same one; by default
            that of now.
        order: Positions in `ShardIndex.shards`, each of those that are wanted, such as shuffled.

    Raises:
        NoShards, BadIndex: See `read_index`.
        ShardsChanged: Another set took the place of this one.
        ShardsDamaged: A shard was lost or changed since it was written.
    """
    index = read_index(store, layout, split) if index is None else index
    for position in range(len(index.shards)) if order is None else order:
        shard = index.shards[position]
        key = layout.shard(split, shard.part)
        with BytesIO(_whole(store, layout, index, shard)) as file:
            for found in read_shard(file, key):
                if isinstance(found, BadSample):
                    on_bad(found)
                else:
                    yield found


def refuse_bad_sample(bad: BadSample) -> None:
    """Stop: what wrote the shards reads every sample before.

    Raises:
        ShardsDamaged: Always.
    """
    msg = f"sample {bad.key} of our own shards can't be read: {bad.why}; materialise memes/shards"
    raise ShardsDamaged(msg)


def iter_images(
    samples: Iterable[Sample], *, on_bad: OnBad, workers: int = 2
) -> Generator[tuple[Sample, Image.Image], None, None]:
    """Decode the images of samples in threads, in order, each as large as it was packed.

    Args:
        samples: Taken as needed, in the caller's thread.
        on_bad: Called in the place of a sample whose image can't be decoded.
        workers: Threads; at most twice as many images are decoded and not yet given out.

    Yields:
        Each sample with its image, RGB.
    """

    def decoded(sample: Sample) -> tuple[Sample, Image.Image | BadSample]:
        try:
            return sample, decode_rgb(sample.png, PACKED)[0]
        except BadImage as error:
            return sample, BadSample(sample.key, str(error))

    with closing(ordered_map(decoded, samples, workers=workers, ahead=2 * workers)) as found:
        for sample, image in found:
            if isinstance(image, BadSample):
                on_bad(image)
            else:
                yield sample, image


def _whole(store: ObjectStore, layout: MemeLayout, index: ShardIndex, shard: ShardEntry) -> bytes:
    """The bytes of a shard, held to be those that were written."""
    key = layout.shard(index.split, shard.part)
    try:
        data = store.get(key)
        found = hashlib.sha256(data).hexdigest()
    except FileNotFoundError:
        data, found = b"", "no object"
    if found == shard.sha256:
        return data
    if read_index(store, layout, index.split).version != index.version:
        msg = (
            f"the shards of {index.split!r} in {store.url} were replaced by others while they were "
            f"read ({key} is gone); run again, and not beside memes/shards"
        )
        raise ShardsChanged(msg)
    msg = (
        f"{key} in {store.url} must have the sha256 {shard.sha256[:12]}… of its index: found "
        f"{found[:12]}…; materialise memes/shards for {index.split!r}, which writes it again"
    )
    raise ShardsDamaged(msg)
