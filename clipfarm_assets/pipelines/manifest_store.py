"""A strategy's manifest in the store: one base, and deltas that hold what came after it.

A delta is a parquet object of the base's form, written once, named by its hash. Whoever reads
lists and reads the deltas first and the base after them. Whoever compacts swaps the base in first
and removes the deltas it then holds. So a delta that vanishes before it is read is in the base that
is read after it, and no reader misses a row that was there when it began.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import BadManifest, FusedManifest
from clipfarm_assets.contracts.manifest_file import ManifestFooter
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.objects import ObjectChanged

# Objects asked for at a time; a delta is a few MB.
_WORKERS = 8


@dataclass(frozen=True)
class Survey:
    """What the footers of a manifest's objects say.

    Attributes:
        base: Of the base; None if there is none.
        deltas: Of each delta, by key.
    """

    base: ManifestFooter | None
    deltas: Mapping[str, ManifestFooter]

    def rows(self, lock_version: int) -> int:
        """Rows of the deltas of that lock."""
        return sum(d.rows for d in self.deltas.values() if d.lock_version == lock_version)

    def count(self, lock_version: int) -> int:
        """Deltas of that lock."""
        return sum(d.lock_version == lock_version for d in self.deltas.values())


def list_deltas(deployment: Deployment, strategy: Strategy) -> list[str]:
    """Keys of the strategy's deltas, of whatever lock, sorted."""
    layout = deployment.layout
    return [
        info.key
        for info in deployment.store.list(layout.manifest_deltas_prefix(strategy))
        if layout.manifest_delta_sha256(strategy, info.key)
    ]


def survey(deployment: Deployment, strategy: Strategy) -> Survey:
    """Read the footers of deltas and base, and no rows.

    Raises:
        BadManifest: An object is no manifest; names its key.
    """
    store = deployment.store

    def footer(key: str) -> ManifestFooter | None:
        try:
            return ManifestFooter.read(lambda length: store.get_tail(key, length), key)
        except FileNotFoundError:
            return None

    keys = list_deltas(deployment, strategy)
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="manifest") as pool:
        found = dict(zip(keys, pool.map(footer, keys), strict=True))
    deltas = {key: delta for key, delta in found.items() if delta}
    return Survey(footer(deployment.layout.fused_manifest(strategy)), deltas)


def known_shards(deployment: Deployment, strategy: Strategy, found: Survey) -> frozenset[str]:
    """Keys of all shards that base or deltas have looked at, those that are gone among them.

    Raises:
        BadManifest: The base is one of an older deployment, whose rows alone tell, and can't be
            read; names its key.
    """
    known = frozenset[str]().union(*(delta.shards or () for delta in found.deltas.values()))
    if found.base is None:
        return known
    if found.base.shards is not None:
        return known | found.base.shards
    key = deployment.layout.fused_manifest(strategy)
    return known | manifest_file.shards_of_file(deployment.store.get(key), key)


def read_deltas(deployment: Deployment, strategy: Strategy) -> dict[str, FusedManifest]:
    """Every delta by key, in order; those that vanish meanwhile are left out.

    Read them before the base: they vanish into that.

    Raises:
        BadManifest: An object isn't what its name says, or no manifest; names its key.
    """
    layout, deltas = deployment.layout, {}
    for key, data in deployment.store.get_many(list_deltas(deployment, strategy), workers=_WORKERS):
        if not isinstance(data, bytes):
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != layout.manifest_delta_sha256(strategy, key):
            msg = (
                f"{key} must have the content that its name is the hash of: found {found[:12]}…; "
                f"remove it and materialise clips/fused_manifest for {strategy!r}, which makes "
                "its rows again from their shards"
            )
            raise BadManifest(msg)
        deltas[key] = manifest_file.from_bytes(data, key)
    return deltas


def put_delta(deployment: Deployment, strategy: Strategy, new: FusedManifest) -> str:
    """Publish rows as a delta; the same rows are the same object, however often. Returns its key.

    Args:
        deployment: Whose store.
        strategy: Whose manifest; its base must be there.
        new: Rows of some shards, merged, and those shards.
    """
    data = manifest_file.to_bytes(new)
    key = deployment.layout.manifest_delta(strategy, hashlib.sha256(data).hexdigest())
    deployment.store.put_if_absent(key, data)
    return key


def withdraw_if_seen(
    deployment: Deployment, strategy: Strategy, key: str, new: FusedManifest
) -> None:
    """Remove a delta of whose shards the base has looked at all meanwhile: it says nothing then.

    A rival has merged them, or their clip was removed for good: then it must not stay either.
    """
    base = deployment.layout.fused_manifest(strategy)
    footer = ManifestFooter.read(lambda length: deployment.store.get_tail(base, length), base)
    if new.shards <= (footer.shards or frozenset()):
        deployment.store.delete(key)


def compact(
    deployment: Deployment,
    strategy: Strategy,
    lock_version: int,
    new: Sequence[FusedManifest],
    lost: Collection[str] = (),
) -> ManifestFooter:
    """Merge the deltas that are there, and more, into the base, then remove those deltas.

    Stopped before the swap it has changed nothing; stopped after it, deltas are left whose rows the
    base has too, until the next time. Nothing is written if the base has everything.

    Args:
        deployment: Whose store.
        strategy: Whose manifest.
        lock_version: In force. What is of an earlier one is kept as shards that were looked at.
        new: Rows that are in no delta, and their shards.
        lost: Shards that are gone from the store: their rows give way to any others.

    Returns:
        What the base says of itself now.

    Raises:
        ObjectChanged: The base or a delta is of a later lock: a migration came between.
        BadManifest: An object is no manifest; names its key.
    """
    key = deployment.layout.fused_manifest(strategy)
    deltas = read_deltas(deployment, strategy)
    for name, delta in deltas.items():
        refuse_later(delta.lock_version, lock_version, name)
    additions = [
        delta if delta.lock_version == lock_version else _outdated(delta.shards, lock_version)
        for delta in (*deltas.values(), *new)
    ]
    shards = frozenset[str]().union(*(addition.shards for addition in additions))

    def change(data: bytes | None) -> bytes | None:
        start = FusedManifest.empty(lock_version)
        if data is not None:
            stored = ManifestFooter.of(data, key).lock_version
            refuse_later(stored, lock_version, key)
            recorded = manifest_file.shards_of_file(data, key)
            if stored == lock_version:
                if shards <= recorded:
                    return None
                return manifest_file.merged_to_bytes(data, key, additions, lost)
            start = _outdated(recorded, lock_version)
        rows = [manifest_file.unseen(addition.rows, start.shards) for addition in additions]
        return manifest_file.to_bytes(start.merged(rows, shards, lost))

    base = deployment.store.update(key, change)
    for name in deltas:
        deployment.store.delete(name)
    if base is None:  # pragma: no cover - an absent base is always made
        msg = f"{key} was not made"
        raise RuntimeError(msg)
    return ManifestFooter.of(base, key)


def archive_bytes(
    deployment: Deployment, strategy: Strategy, lock_version: int
) -> tuple[bytes | None, frozenset[str], list[str]]:
    """The manifest as one file, to be kept when its lock is replaced.

    Returns:
        The file, None if there is no manifest; all shards it knows; the deltas that it includes.

    Raises:
        ObjectChanged: Base or deltas are not of `lock_version`: another migration came between.
        BadManifest: An object is no manifest; names its key.
    """
    key = deployment.layout.fused_manifest(strategy)
    deltas = read_deltas(deployment, strategy)
    for name, delta in deltas.items():
        refuse_later(delta.lock_version, lock_version, name)
    current = [delta for delta in deltas.values() if delta.lock_version == lock_version]
    shards = frozenset[str]().union(*(delta.shards for delta in deltas.values()))
    try:
        data = deployment.store.get(key)
    except FileNotFoundError:
        if not current:
            return None, shards, list(deltas)
        data = manifest_file.to_bytes(FusedManifest.empty(lock_version))
    # A base of another version means that a rival migration is further than this one: archiving it
    # as the old one would lose the old one.
    if ManifestFooter.of(data, key).lock_version != lock_version:
        msg = f"{key} was migrated by another run meanwhile: look at it, then run again"
        raise ObjectChanged(msg)
    shards |= manifest_file.shards_of_file(data, key)
    if current:
        data = manifest_file.merged_to_bytes(data, key, current)
    return data, shards, list(deltas)


def refuse_later(found: int, in_force: int, key: str) -> None:
    """Raise `ObjectChanged` if an object is of a later lock than the one this run began under."""
    if found > in_force:
        msg = f"{key} was migrated to lock version {found} meanwhile: run again"
        raise ObjectChanged(msg)


def _outdated(shards: frozenset[str], lock_version: int) -> FusedManifest:
    """What remains of an earlier lock: that its shards need not be looked at again."""
    return replace(FusedManifest.empty(lock_version), shards=shards)
