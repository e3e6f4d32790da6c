"""Generated memes, divided and packed without Dagster."""

from dataclasses import dataclass

from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.demo.memes.sample import MemeSample
from clipfarm_assets.pipelines.memes.shards import write_shards
from clipfarm_assets.pipelines.memes.splits import make_splits, read_divided
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

ROWS = 80


@dataclass(frozen=True)
class Packed:
    """A set with all edge cases, divided and packed."""

    store: ObjectStore
    layout: MemeLayout
    sample: MemeSample


def pack(store, layout):
    """Divide and pack what is there."""
    make_splits(store, layout)
    memes, splits = read_divided(store, layout)
    for split in SPLITS:
        write_shards(store, layout, split, memes.rows, splits, memes.taxonomy)
