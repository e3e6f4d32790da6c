"""The fused manifest: where every clip's fused vector is, read and brought up to date."""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from clipfarm_assets.contracts import checks, manifest_file
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.manifest_file import ManifestFooter
from clipfarm_assets.contracts.schema_lock import LockMismatch, SchemaLock
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.manifest_store import Survey
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.npz import BadShard

POINTERS_READ_BACK: Final = 3
# Twice as many are held: a shard of 2048 rows has 19 MB.
_SHARDS_AT_ONCE: Final = 2


class DanglingPointer(RuntimeError):  # noqa: N818
    """A manifest points at a row that isn't the clip's: stops the run."""


class NoFusedManifest(FileNotFoundError):  # noqa: N818
    """The strategy has no manifest yet."""


@dataclass(frozen=True)
class ManifestOptions:
    """When new rows are merged into the base, and when they are published beside it.

    Attributes:
        compact: ``auto``: as the other attributes say. ``always``: at every update, for readers of
            the base alone. ``never``: only where there is no base of the lock in force, or rows of
            shards that are gone may have to give way.
        whole_rows: ``auto`` keeps a manifest of up to so many rows in one file.
        delta_share: ``auto`` compacts when the deltas have more than this share of the base's rows.
        max_deltas: ``auto`` compacts when there would be more deltas than this.
    """

    compact: Literal["auto", "always", "never"] = "auto"
    whole_rows: int = 250_000
    delta_share: float = 0.1
    max_deltas: int = 32

    def compacts(self, base_rows: int, delta_rows: int, deltas: int) -> bool:
        """Whether to compact, given what there would be otherwise."""
        if self.compact != "auto":
            return self.compact == "always"
        return (
            base_rows + delta_rows <= self.whole_rows
            or delta_rows > self.delta_share * base_rows
            or deltas > self.max_deltas
        )


@dataclass(frozen=True)
class ManifestUpdate:
    """What an update did.

    Attributes:
        new_shards: Keys merged by this run.
        undeclared: Shards that declare nothing and that no manifest describes; they are left alone.
        archived: Shards of earlier locks that were not known as such yet; they are left alone.
        forgotten: Clips that were removed for good and have a row in a new shard, which a run put
            that didn't know it: the row is passed over; forget the clip again to remove it.
        fresh: Rows of the new shards, of the manifest's columns: the latest of each
            (video_id, source_hash) among themselves.
        base_rows: Rows of the base as it is now.
        delta_rows: Rows of the deltas beside it; some replace rows of the base or of each other.
        deltas: How many deltas there are beside it now.
        delta: Key of the delta that this run published; None if it published none.
        read_back: ``video_id -> fused_key[shard_idx]`` of the pointers that were read back.
        seconds: Wall time.
        load: Reads the manifest as it is now, all rows of it.
    """

    new_shards: tuple[str, ...]
    undeclared: tuple[str, ...]
    archived: tuple[str, ...]
    forgotten: tuple[str, ...]
    fresh: pa.Table
    base_rows: int
    delta_rows: int
    deltas: int
    delta: str | None
    read_back: tuple[str, ...]
    seconds: float
    load: Callable[[], FusedManifest] = field(repr=False, compare=False)

    @property
    def rows(self) -> int | None:
        """Rows of the manifest; None where only merging the deltas would tell."""
        return None if self.deltas else self.base_rows

    @cached_property
    def manifest(self) -> FusedManifest:
        """The manifest: read when it is first asked for."""
        return self.load()


@dataclass(frozen=True)
class StoredManifest:
    """A manifest, what it was read from, and the lock it was verified against.

    Attributes:
        manifest: Base and deltas, merged.
        sha256: In hex, of the base object; with deltas, of the lines of the base's sha256 and, in
            order, those of the deltas. So equal hashes are equal rows, though not the reverse:
            compacting changes the hash and no row.
        lock: In force.
    """

    manifest: FusedManifest
    sha256: str
    lock: SchemaLock


def load_manifest(deployment: Deployment, strategy: Strategy) -> FusedManifest:
    """The manifest as stored; raises as `load_stored_manifest`."""
    return load_stored_manifest(deployment, strategy).manifest


def load_stored_manifest(deployment: Deployment, strategy: Strategy) -> StoredManifest:
    """The manifest as stored, with what it was verified against.

    It has every row whose update had ended when the reading began. Deltas of an earlier lock are
    no part of it.

    Raises:
        NoFusedManifest: There is none; says how to make one.
        NoLock: There is no lock; likewise.
        BadManifest: An object is none.
        LockMismatch: It is of another lock version: a migration was interrupted.
    """
    lock = load_lock(deployment, strategy)
    deltas = {
        name: delta
        for name, delta in manifest_store.read_deltas(deployment, strategy).items()
        if delta.lock_version >= lock.lock_version
    }
    key = deployment.layout.fused_manifest(strategy)
    try:
        data = deployment.store.get(key)
    except FileNotFoundError:
        msg = f"{key} does not exist: materialise clips/fused_manifest for {strategy!r} first"
        raise NoFusedManifest(msg) from None
    base = ManifestFooter.of(data, key)
    versions = {name: delta.lock_version for name, delta in deltas.items()}
    for name, version in {key: base.lock_version, **versions}.items():
        if version != lock.lock_version:
            msg = (
                f"{name} is of lock version {version} but version {lock.lock_version} is in "
                "force, so a migration was interrupted: materialise clips/fused_manifest for "
                f"{strategy!r}, which goes on with the new version"
            )
            raise LockMismatch(msg)
    sha256 = hashlib.sha256(data).hexdigest()
    if deltas:
        hashes = [sha256, *(PurePosixPath(name).stem for name in deltas)]
        sha256 = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return StoredManifest(manifest_file.merged(data, key, list(deltas.values())), sha256, lock)


def update_manifest(
    deployment: Deployment,
    strategy: Strategy,
    say: Say = silent,
    options: ManifestOptions | None = None,
) -> ManifestUpdate:
    """Merge the shards that the manifest doesn't know yet, and read three pointers back.

    The manifest is a function of what the shards declare (and of an older deployment's manifest).
    New rows are swapped in with all others, or published as a delta beside the base, which costs
    the same however large that is: readers see all of them or none, and two updates at once lose
    nothing. Where shards are gone from the store, new rows are swapped in whatever `options` say:
    only so do they replace rows that lead nowhere.

    Raises:
        NoLock: The strategy has no schema lock.
        LockMismatch: A shard made under the lock in force contradicts it.
        ObjectChanged: The lock was migrated during the update.
        DanglingPointer: A pointer read back leads to another clip.
        BadManifest, BadShard: An object isn't what it should be; names its key.
    """
    started = time.perf_counter()
    options = options or ManifestOptions()
    lock = load_lock(deployment, strategy)
    found = manifest_store.survey(deployment, strategy)
    base = _in_force(found, lock, deployment.layout.fused_manifest(strategy))
    new = _read_new(deployment, lock, found, say)
    deltas, delta_rows = found.count(lock.lock_version), found.rows(lock.lock_version)
    delta = None
    replaces = bool(new.lost and new.merged.rows.num_rows)
    if replaces:
        say(
            f"manifest {strategy}: {len(new.lost)} shards that it knows are gone from the store, "
            f"e.g. {min(new.lost)}: rows of theirs, if any, give way to new ones of the same clips"
        )
    if (
        base is None
        or replaces
        or (
            (new.merged.shards or found.deltas)
            and options.compacts(
                base.rows,
                delta_rows + new.merged.rows.num_rows,
                deltas + bool(new.merged.shards),
            )
        )
    ):
        base = manifest_store.compact(
            deployment, strategy, lock.lock_version, [new.merged], new.lost
        )
        deltas, delta_rows = 0, 0
    elif new.merged.shards:
        delta = _publish(deployment, lock, new.merged)
        deltas, delta_rows = deltas + 1, delta_rows + new.merged.rows.num_rows

    def load() -> FusedManifest:
        return load_manifest(deployment, strategy)

    shown = new.merged.rows
    if not shown.num_rows and base.rows + delta_rows <= options.whole_rows:
        shown = load().rows
    return ManifestUpdate(
        new_shards=new.declared,
        undeclared=new.undeclared,
        archived=new.archived,
        forgotten=new.forgotten,
        fresh=new.merged.rows,
        base_rows=base.rows,
        delta_rows=delta_rows,
        deltas=deltas,
        delta=delta,
        read_back=tuple(_read_back(deployment, shown)),
        seconds=time.perf_counter() - started,
        load=load,
    )


@dataclass(frozen=True)
class _NewShards:
    """Shards that no manifest names yet: rows and keys to merge, and what each key is.

    Of the clips in `forgotten` they have rows, and `merged` has none. In `lost` are keys that the
    manifest names and the store has no more, as far as rows may still lead to them.
    """

    merged: FusedManifest
    declared: tuple[str, ...]
    undeclared: tuple[str, ...]
    archived: tuple[str, ...]
    forgotten: tuple[str, ...]
    lost: frozenset[str]


def _in_force(found: Survey, lock: SchemaLock, key: str) -> ManifestFooter | None:
    """The base, if a delta may be put beside it: of this lock, and with its shards on record."""
    for name, delta in found.deltas.items():
        manifest_store.refuse_later(delta.lock_version, lock.lock_version, name)
    base = found.base
    if base is None:
        return None
    manifest_store.refuse_later(base.lock_version, lock.lock_version, key)
    return base if base.lock_version == lock.lock_version and base.shards is not None else None


def _read_new(deployment: Deployment, lock: SchemaLock, found: Survey, say: Say) -> _NewShards:
    """Read and verify the shards that neither base nor deltas name."""
    layout, store, strategy = deployment.layout, deployment.store, lock.fusion_strategy
    known = manifest_store.known_shards(deployment, strategy, found)
    there = [i.key for i in store.list(layout.shards_prefix(strategy)) if layout.shard_ref(i.key)]
    unknown = [key for key in there if key not in known]
    lost = known - set(there) - (found.base.settled if found.base else frozenset())
    adopted = deployment.models_lock().adopted()
    declared: dict[str, pa.Table] = {}
    undeclared: list[str] = []
    archived: list[str] = []
    progress = Progress(f"manifest {strategy}", len(unknown), say)
    with closing(_shards(deployment, unknown)) as shards:
        for shard_key, shard in shards:
            if not isinstance(shard, FusedShard):
                raise shard
            if shard.lock_version() < lock.lock_version:
                archived.append(shard_key)
            elif shard.lock_version() > lock.lock_version:
                continue  # a migration is under way: the next update is for them
            elif shard.declared is None:
                undeclared.append(shard_key)
            else:
                shard.verify(lock, adopted)
                declared[shard_key] = shard.manifest_rows(shard_key)
            progress.step()
    empty = FusedManifest.empty(lock.lock_version)
    merged = empty.merged(list(declared.values()), [*declared, *archived])
    # Clips that were removed for good while they were fused, maybe by another machine.
    gone = sorted(deployment.forgotten_among(merged.rows["video_id"].to_pylist()))
    if gone:
        merged = replace(merged, rows=merged.rows.filter(~pc.field("video_id").isin(gone)))
        say(
            f"manifest {strategy}: passed over rows of {len(gone)} clips that were removed for "
            f"good while they were fused; clipfarm forget --yes removes them too, e.g. of {gone[0]}"
        )
    ids = (tuple(declared), tuple(undeclared), tuple(archived), tuple(gone))
    return _NewShards(merged, *ids, lost=lost)


def _publish(deployment: Deployment, lock: SchemaLock, new: FusedManifest) -> str:
    key = manifest_store.put_delta(deployment, lock.fusion_strategy, new)
    manifest_store.withdraw_if_seen(deployment, lock.fusion_strategy, key, new)
    # A migration that ended before the delta was there has not seen it, and readers pass it over.
    now = load_lock(deployment, lock.fusion_strategy)
    manifest_store.refuse_later(now.lock_version, lock.lock_version, key)
    return key


def _read_back(deployment: Deployment, shown: pa.Table) -> Iterator[str]:
    """Follow the first, the middle and the last pointer of sorted rows."""
    if not shown.num_rows:
        return
    rows = pl.DataFrame(
        shown.take(sorted({0, shown.num_rows // 2, shown.num_rows - 1})[:POINTERS_READ_BACK])
    )
    shards = shards_of(deployment, rows["fused_key"].unique(maintain_order=True).to_list())
    verdict = checks.pointers_resolve(rows, shards)
    if not verdict.holds:
        msg = (
            f"pointers read back from the manifest lead elsewhere: {verdict.summary()}; restore "
            "the shards, or materialise clips/fused_shards with verify_objects: true"
        )
        raise DanglingPointer(msg)
    for row in rows.iter_rows(named=True):
        yield f"{row['video_id']} -> {row['fused_key']}[{row['shard_idx']}]"


def shards_of(
    deployment: Deployment, keys: list[str]
) -> Generator[tuple[str, FusedShard | str], None, None]:
    """Every shard once, in order, or the sentence that says why it can't be had."""
    with closing(_shards(deployment, keys)) as shards:
        for key, shard in shards:
            if isinstance(shard, FileNotFoundError):
                yield key, f"{key} does not exist"
            else:
                yield key, shard if isinstance(shard, FusedShard) else str(shard)


def _shards(
    deployment: Deployment, keys: Sequence[str]
) -> Generator[tuple[str, FusedShard | FileNotFoundError | BadShard], None, None]:
    """Every shard once, in order, or why not; few at a time, checksums compared side by side.

    Vectors are verified, not copied: who follows pointers looks at ids and lengths alone.
    """

    def parsed(
        found: tuple[str, bytes | FileNotFoundError],
    ) -> tuple[str, FusedShard | FileNotFoundError | BadShard]:
        key, data = found
        if not isinstance(data, bytes):
            return key, data
        try:
            return key, FusedShard.from_npz(data, key, views=True)
        except BadShard as error:
            return key, error

    fetched = deployment.store.get_many(keys, workers=_SHARDS_AT_ONCE)
    shards = ordered_map(parsed, fetched, workers=_SHARDS_AT_ONCE, ahead=_SHARDS_AT_ONCE)
    with closing(fetched), closing(shards):
        yield from shards
