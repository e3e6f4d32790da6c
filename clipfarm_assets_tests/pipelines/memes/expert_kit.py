"""A store with small shards of memes, to fit experts on and to compute features of."""

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import SPLITS, MemeRow
from clipfarm_assets.contracts.meme_splits import MemeSplits
from clipfarm_assets.pipelines.memes.shards import ShardOptions, write_shards
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets_tests.training.experts import kit

LABEL = "mood"
TAXONOMY = LabelTaxonomy({LABEL: kit.CLASSES, "other": ("no", "yes")})
LAYOUT = MemeLayout()
SIZES = {"train": 40, "val": 16, "test": 9}


def meme_rows(unlabelled_every: int = 10) -> tuple[list[MemeRow], MemeSplits]:
    rows, split_of = [], {}
    for split in SPLITS:
        texts = kit.angry_texts(SIZES[split], seed=len(split))
        for index, (text, angry) in enumerate(texts):
            name = f"{split}-{index:03d}"
            labels = {} if index % unlabelled_every == unlabelled_every - 1 else {LABEL: angry}
            rows.append(MemeRow(name, name, f"{name}.png", text, "", labels, "test"))
            split_of[name] = split
    return rows, MemeSplits(split_of, {name: f"group-{name[:-1]}" for name in split_of})


def fill(store, shard_rows: int = 7, **changes) -> None:
    """Images, shards and taxonomy."""
    rows, splits = meme_rows(**changes)
    for index, row in enumerate(rows):
        store.put(LAYOUT.image(row.image), kit.encoded(kit.some_image(index)))
    store.put(LAYOUT.label_taxonomy(), TAXONOMY.to_json())
    for split in SPLITS:
        options = ShardOptions(shard_rows=shard_rows, workers=1)
        write_shards(store, LAYOUT, split, rows, splits, TAXONOMY, options)


def stored(store, prefix: str) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list(prefix)}
