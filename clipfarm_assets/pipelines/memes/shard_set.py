"""Writing a split's set of shards, so that readers see a whole one whatever happens meanwhile."""

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import RowProblem, Split
from clipfarm_assets.pipelines.memes.shard_index import (
    LIMIT,
    NoShards,
    ShardEntry,
    ShardIndex,
    load_index,
    stored_parts,
)
from clipfarm_assets.pipelines.progress import Say
from clipfarm_assets.storage.images import DEFAULT_LIMITS, ImageLimits, versions
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectChanged, ObjectExists, ObjectStore
from clipfarm_assets.storage.tar_shards import Sample, shard_bytes, stored_bytes

_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class ShardOptions:
    """How shards are cut and images stored.

    Attributes:
        shard_rows: Samples of a shard at most.
        shard_bytes: Bytes of a shard at most, unless one sample alone has more. Whoever reads has
            one shard in memory.
        limits: Of images.
        workers: Threads that decode and encode images.
    """

    shard_rows: int = 1000
    shard_bytes: int = 128 << 20
    limits: ImageLimits = DEFAULT_LIMITS
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        """Check all; raises `ValueError`."""
        if min(self.shard_rows, self.shard_bytes, self.workers) < 1:
            msg = f"shard_rows, shard_bytes and workers must be 1 or more: found {self}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a row.

    Attributes:
        sample: To be stored; None if the row is left out.
        changes: What was done to its image, of `images.CHANGES`.
        problems: Why it is left out, or what of it is.
    """

    sample: Sample | None
    changes: Sequence[str] = ()
    problems: Sequence[RowProblem] = ()


@dataclass(frozen=True)
class ShardReport:
    """What writing a set did.

    Attributes:
        index: Of the set as it is now.
        written: Shards that were put.
        kept: Shards of the set before that are in this one too, and were found as they should be.
        removed: Shards of earlier sets, or of runs that never ended.
        seconds: Wall time.
    """

    index: ShardIndex
    written: int
    kept: int
    removed: int
    seconds: float

    @property
    def rows(self) -> int:
        """Samples in the set."""
        return self.index.rows

    @property
    def problem_counts(self) -> dict[str, int]:
        """How many rows have which problem."""
        return dict(sorted(Counter(problem.kind for problem in self.index.problems).items()))


def publish(
    store: ObjectStore,
    layout: MemeLayout,
    split: Split,
    make: Callable[[], Generator[Made, None, None]],
    taxonomy: LabelTaxonomy,
    options: ShardOptions,
    say: Say,
) -> ShardReport:
    """Store what `make` gives as the split's set of shards, in that order.

    The same samples give the same shards, and under an index that names them already nothing is
    written. Stopped at any point, the set before is whole, and the next run completes the work.
    Shards that the new index no longer names are removed after it is there: who still reads the set
    before is told that it was replaced.

    Args:
        store: Where.
        layout: Names of objects.
        split: Which split.
        make: Begins to make the rows of the set; again, if another run replaced it meanwhile.
        taxonomy: What their labels' numbers stand for.
        options: How.
        say: Told of such runs.

    Raises:
        ObjectChanged: Others replaced the set again and again.
        BadIndex: The index that is there is none.
    """
    started = time.monotonic()
    for _ in range(_ATTEMPTS):
        attempt = _Attempt(store, layout, split, taxonomy, options)
        with closing(make()) as rows:
            attempt.take(rows)
        index = attempt.publish()
        if index is not None:
            removed = _remove_others(store, layout, index)
            seconds = time.monotonic() - started
            return ShardReport(index, attempt.written, attempt.kept, removed, seconds)
        say(f"another run replaced the shards of {split!r} meanwhile: writing them once more")
    msg = (
        f"{layout.shard_index(split)} in {store.url} was replaced by others {_ATTEMPTS} times; end "
        "the other runs that write shards of this split and run again"
    )
    raise ObjectChanged(msg)


class _Attempt:
    """One way from the set that is there to the new one."""

    def __init__(
        self,
        store: ObjectStore,
        layout: MemeLayout,
        split: Split,
        taxonomy: LabelTaxonomy,
        options: ShardOptions,
    ) -> None:
        self._store, self._layout, self._split, self._options = store, layout, split, options
        self._classes = dict(taxonomy.labels)
        self._before: ShardIndex | None = None
        self._version: str | None = None
        try:
            self._before, self._version = load_index(store, layout, split)
        except NoShards:
            self._next_part = 0
            self._kept_by_hash: dict[str, ShardEntry] = {}
        else:
            self._next_part = self._before.next_part
            self._kept_by_hash = {shard.sha256: shard for shard in self._before.shards}
        self._shards: list[ShardEntry] = []
        self._labels: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._changes: Counter[str] = Counter()
        self._problems: list[RowProblem] = []
        self.written = 0
        self.kept = 0

    def take(self, rows: Iterable[Made]) -> None:
        """Put all shards."""
        group: list[Sample] = []
        size = 0
        for made in rows:
            self._problems += made.problems
            if made.sample is None:
                continue
            self._changes.update(made.changes)
            for label, number in made.sample.json["labels"].items():
                self._labels[label][number] += 1
            length = stored_bytes(made.sample)
            is_full = len(group) == self._options.shard_rows
            if group and (is_full or size + length > self._options.shard_bytes):
                self._put(group)
                group, size = [], 0
            group.append(made.sample)
            size += length
        if group:
            self._put(group)

    def publish(self) -> ShardIndex | None:
        """Swap the index in; None if it is no longer the one that this began with."""
        listed = max(stored_parts(self._store, self._layout, self._split), default=-1)
        index = ShardIndex(
            self._split,
            tuple(self._shards),
            max(self._next_part, listed + 1),
            {label: dict(sorted(counts.items())) for label, counts in self._labels.items()},
            dict(self._changes),
            tuple(self._problems),
            _made_with(self._options),
            self._classes,
        )
        if index == self._before:
            return index
        try:
            self._store.swap(self._layout.shard_index(self._split), index.to_json(), self._version)
        except ObjectChanged:
            return self._same_by_another(index)
        return index

    def _put(self, group: Sequence[Sample]) -> None:
        data = shard_bytes(group)
        sha256 = hashlib.sha256(data).hexdigest()
        before = self._kept_by_hash.pop(sha256, None)
        part = self._put_new(data) if before is None else self._keep(before, data)
        self._shards.append(ShardEntry(part, sha256, len(data), len(group)))

    def _put_new(self, data: bytes) -> int:
        """Put a shard under the next number that is free, or that holds the very same."""
        while True:
            part, self._next_part = self._next_part, self._next_part + 1
            try:
                self._store.put_if_absent(self._layout.shard(self._split, part), data)
            except ObjectExists:
                continue  # of a rival, or of a run that never came to its end
            self.written += 1
            return part

    def _keep(self, shard: ShardEntry, data: bytes) -> int:
        """Hold a shard to be there, unharmed."""
        key = self._layout.shard(self._split, shard.part)
        try:
            is_whole = self._store.get(key) == data
        except FileNotFoundError:
            is_whole = False
        if is_whole:
            self.kept += 1
        else:
            self._store.put(key, data)
            self.written += 1
        return shard.part

    def _same_by_another(self, index: ShardIndex) -> ShardIndex | None:
        """The index of a rival that had the same samples to store."""
        try:
            found, _ = load_index(self._store, self._layout, self._split)
        except NoShards:
            return None
        alike = replace(found, shards=index.shards, next_part=index.next_part)
        return found if found.version == index.version and alike == index else None


def _remove_others(store: ObjectStore, layout: MemeLayout, index: ShardIndex) -> int:
    """Remove what lies below `next_part` and is not of the set: no later set takes it up."""
    named = {shard.part for shard in index.shards}
    others = [
        part
        for part in stored_parts(store, layout, index.split)
        if part < index.next_part and part not in named
    ]
    for part in others:
        store.delete(layout.shard(index.split, part))
    return len(others)


def _made_with(options: ShardOptions) -> Mapping[str, str]:
    limits = {f"{LIMIT}{name}": str(value) for name, value in asdict(options.limits).items()}
    return {**versions(), **limits}
