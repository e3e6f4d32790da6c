"""What frozen experts say of every meme: one npz a shard, computed once.

An object belongs to an expert's version and to one shard, and is named by the hashes of both. So it
is written once, a run that was stopped goes on with the shards that lack one, and another fusion
model of the same experts costs no forward of theirs.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index, refuse_bad_sample
from clipfarm_assets.pipelines.memes.shard_index import ShardEntry, ShardIndex
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.meme_layout import ExpertModality, MemeLayout
from clipfarm_assets.storage.npz import BadShard, arrays_to_npz, npz_to_arrays
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tar_shards import Sample

if TYPE_CHECKING:
    from clipfarm_assets.training.experts.expert import Expert

UNLABELLED: Final = -1
"""The class of rows that do not have the label."""

_ARRAYS: Final = (
    "ids", "keys", "groups", "labels", "present", "hidden", "logits", "shard_sha256",
)  # fmt: skip
_WORKERS: Final = 2


class NoFeatures(FileNotFoundError):  # noqa: N818
    """A shard's features are not there, or of another shard of that name."""


@dataclass(frozen=True)
class ShardFeatures:
    """What an expert says of the N rows of a shard, in the shard's order.

    Attributes:
        ids: As the manifest has them.
        keys: As the shard has them.
        groups: Near-duplicates have the same.
        labels: int64 ``[N]``: the class, or `UNLABELLED`.
        present: bool ``[N]``: whether there was anything to see; blank text is nothing.
        hidden: float32 ``[N, dim]``.
        logits: float32 ``[N, C]``.
    """

    ids: NDArray[np.str_]
    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: NDArray[np.int64]
    present: NDArray[np.bool_]
    hidden: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        """N."""
        return len(self.ids)


@dataclass(frozen=True)
class FeatureReport:
    """What became of a split's features.

    Attributes:
        split: Which.
        version: Of the expert.
        rows: In all shards.
        shards: How many.
        written: Shards that were computed now; the others were there.
        labelled: Rows of the shards computed now that have the label.
        tokens_cut: Tokens that texts of the shards computed now had beyond the maximum.
        texts_cut: How many texts had such.
    """

    split: Split
    version: str
    rows: int
    shards: int
    written: int
    labelled: int
    tokens_cut: int
    texts_cut: int


def write_features(
    store: ObjectStore,
    layout: MemeLayout,
    expert: "Expert[Any, Any]",
    label: str,
    split: Split,
    *,
    index: ShardIndex | None = None,
    say: Say = silent,
) -> FeatureReport:
    """Compute what an expert says of a split's shards, where it is not there yet.

    A row's numbers do not depend on the rows beside it, bit for bit; see `Expert.represent`. In
    memory there is one shard, and as many prepared images as one forward takes, twice.

    Args:
        store: Where the shards are and the features go to.
        layout: Where there.
        expert: Opened by `open_expert`.
        label: Which label the rows' classes are of.
        split: Which split.
        index: The set of shards; by default that of now.
        say: Told how far it is.

    Raises:
        NoShards: There are none yet.
        ShardsChanged, ShardsDamaged: See `iter_samples`.
        BadShard: Features that are there cannot be read.
    """
    index = read_index(store, layout, split) if index is None else index
    version = expert.version
    there = {info.key for info in store.list(layout.features_prefix(label, version))}
    progress = Progress(f"{expert.modality} features of {split}", index.rows, say)
    written = labelled = tokens_cut = texts_cut = 0
    for position, shard in enumerate(index.shards):
        key = layout.features(label, version, split, shard.sha256)
        if key not in there or _shard_of(store.get(key), key) != shard.sha256:
            samples = list(
                iter_samples(
                    store,
                    layout,
                    split,
                    on_bad=refuse_bad_sample,
                    index=index,
                    order=[position],
                )
            )
            found = _computed(expert, samples, label)
            store.put(key, _to_npz(found, shard))
            written += 1
            labelled += int((found.labels != UNLABELLED).sum())
            cuts = expert.cut_of([getattr(sample, expert.raw) for sample in samples])
            tokens_cut += sum(cuts)
            texts_cut += sum(cut > 0 for cut in cuts)
        progress.step(shard.rows)
    return FeatureReport(
        split,
        version,
        index.rows,
        len(index.shards),
        written,
        labelled,
        tokens_cut,
        texts_cut,
    )


def iter_features(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    version: str,
    split: Split,
    *,
    index: ShardIndex | None = None,
) -> Iterator[ShardFeatures]:
    """The features of a split, shard by shard; one is in memory at a time.

    Args:
        store: Where they are.
        layout: Where there.
        label: Of which.
        version: Of the expert.
        split: Which split.
        index: The set of shards; by default that of now.

    Raises:
        NoFeatures: A shard has none yet.
        BadShard: An object is no such npz.
    """
    index = read_index(store, layout, split) if index is None else index
    for shard in index.shards:
        yield _read(store, layout.features(label, version, split, shard.sha256), shard)


def iter_paired_features(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    versions: Mapping[ExpertModality, str],
    split: Split,
) -> Iterator[dict[ExpertModality, ShardFeatures]]:
    """The features of several experts, shard by shard, of the same rows in the same order.

    Args:
        store: Where they are.
        layout: Where there.
        label: Of which.
        versions: Of each expert.
        split: Which split.

    Raises:
        NoFeatures: A shard has none yet.
        BadShard: An object is no such npz.
    """
    index = read_index(store, layout, split)
    for shard in index.shards:
        yield {
            modality: _read(store, layout.features(label, version, split, shard.sha256), shard)
            for modality, version in versions.items()
        }


def _computed(expert: "Expert[Any, Any]", samples: list[Sample], label: str) -> ShardFeatures:
    """Images are decoded in threads, ahead of the forwards."""
    hidden = [np.empty((0, expert.dim), np.float32)]
    logits = [np.empty((0, len(expert.classes)), np.float32)]
    items = ordered_map(
        lambda sample: expert.prepare(getattr(sample, expert.raw)),
        samples,
        workers=_WORKERS,
        ahead=expert.chunk_items,
    )
    with closing(items):
        while chunk := list(islice(items, expert.chunk_items)):
            found = expert.represent(chunk)
            hidden.append(found.hidden)
            logits.append(found.logits)
    classes = [sample.json["labels"].get(label, UNLABELLED) for sample in samples]
    return ShardFeatures(
        ids=np.array([sample.json["id"] for sample in samples], dtype=np.str_),
        keys=np.array([sample.key for sample in samples], dtype=np.str_),
        groups=np.array([sample.json["group"] for sample in samples], dtype=np.str_),
        labels=np.array(classes, dtype=np.int64),
        present=np.array([_has_content(sample, expert) for sample in samples], dtype=np.bool_),
        hidden=np.concatenate(hidden),
        logits=np.concatenate(logits),
    )


def _has_content(sample: Sample, expert: "Expert[Any, Any]") -> bool:
    return expert.modality != "text" or bool(sample.txt.strip())


def _to_npz(found: ShardFeatures, shard: ShardEntry) -> bytes:
    return arrays_to_npz(
        {
            "ids": found.ids,
            "keys": found.keys,
            "groups": found.groups,
            "labels": found.labels,
            "present": found.present,
            "hidden": found.hidden,
            "logits": found.logits,
            "shard_sha256": np.array(shard.sha256),
        }
    )


def _shard_of(data: bytes, key: str) -> str:
    """The hash of the shard that stored features are of."""
    return str(_arrays(data, key, ("shard_sha256",))["shard_sha256"])


def _read(store: ObjectStore, key: str, shard: ShardEntry) -> ShardFeatures:
    try:
        data = store.get(key)
    except FileNotFoundError as error:
        msg = f"{error}; write the expert's features first"
        raise NoFeatures(msg) from None
    arrays = _arrays(data, key, _ARRAYS)
    if str(arrays.pop("shard_sha256")) != shard.sha256:
        msg = f"{key} is of another shard than its name says: write the features again"
        raise NoFeatures(msg)
    lengths = {name: len(array) for name, array in arrays.items()}
    if set(lengths.values()) != {shard.rows}:
        msg = f"{key} must hold {shard.rows} rows, as its shard does: found {lengths}"
        raise BadShard(msg)
    return ShardFeatures(**arrays)


def _arrays(data: bytes, key: str, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        return npz_to_arrays(data, names=names)
    except BadShard as error:
        msg = f"{key}: {error}; delete it, and write the expert's features again"
        raise BadShard(msg) from error
