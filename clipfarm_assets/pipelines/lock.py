"""Making, verifying and migrating a strategy's schema lock."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from clipfarm_assets.contracts import manifest_file, statuses
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.manifest_file import ManifestFooter
from clipfarm_assets.contracts.schema_lock import (
    UNVERSIONED,
    Difference,
    LockMismatch,
    SchemaLock,
    differences,
    mismatch,
    resolve,
    with_adopted,
)
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.npy import npy_to_vector
from clipfarm_assets.storage.objects import ObjectChanged, ObjectExists


class NothingEmbedded(RuntimeError):  # noqa: N818 - a state of the deployment
    """There are no vectors yet from which to tell the shape to lock."""


class NothingToMigrate(RuntimeError):  # noqa: N818
    """A migration was asked for, but the lock already says what was found."""


class NoLock(FileNotFoundError):  # noqa: N818
    """A step needs the lock of a strategy that has none yet."""


@dataclass(frozen=True)
class LockOutcome:
    """What became of the lock: ``created``, ``verified``, ``named`` or ``migrated``.

    ``named`` means that an older deployment's lock was kept and now also names the embedding
    versions that its vectors are taken to be of.
    """

    lock: SchemaLock
    what: str
    changes: tuple[Difference, ...] = ()
    archived: tuple[str, ...] = ()


def now() -> str:
    """The current moment, as the lock's ``updated_at`` says it."""
    return datetime.now(UTC).isoformat()


def load_lock(deployment: Deployment, strategy: Strategy) -> SchemaLock:
    """The lock in force.

    Raises:
        NoLock: There is none; says how to make one.
        BadLock: The object is no lock.
        LockMismatch: It is the lock of another strategy.
    """
    key = deployment.layout.schema_lock(strategy)
    try:
        data = deployment.store.get(key)
    except FileNotFoundError:
        msg = (
            f"{key} does not exist: materialise clips/schema_lock for partition {strategy!r} "
            "first, which locks the shape of the vectors that are there"
        )
        raise NoLock(msg) from None
    lock = SchemaLock.from_json(data, key)
    _verify_strategy(lock, strategy, key)
    return lock


def _verify_strategy(lock: SchemaLock, strategy: Strategy, key: str) -> None:
    if lock.fusion_strategy != strategy:
        msg = (
            f"{key} must be the lock of {strategy!r} but is that of {lock.fusion_strategy!r}: "
            "restore the right object"
        )
        raise LockMismatch(msg)


def found_schema(
    deployment: Deployment, strategy: Strategy, *, append_mask: bool = True
) -> SchemaLock:
    """The lock that the vectors embedded last ask for.

    Raises:
        NothingEmbedded: A modality has no vectors yet.
    """
    models = deployment.models_lock()
    adopted = models.adopted()
    dims: dict[Modality, int] = {}
    versions: dict[Modality, str] = {}
    for modality in MODALITIES:
        latest = deployment.ledger.latest(statuses.embedding_stage(modality), statuses.SUCCESS)
        if latest is None:
            msg = (
                f"no {modality} embedding exists yet: materialise clips/{modality}_embeddings "
                "for a date with clips first"
            )
            raise NothingEmbedded(msg)
        versions[modality] = resolve(latest.version, modality, adopted)
        recorded = models.version(versions[modality])
        if recorded:
            dims[modality] = recorded.dim
        else:
            dims[modality] = _stored_dim(deployment, modality, latest)
    return SchemaLock.of(strategy, dims, versions, append_mask=append_mask)


def _stored_dim(deployment: Deployment, modality: Modality, item: Item) -> int:
    key = item.artifact_key or deployment.layout.embedding(modality, item.video_id)
    try:
        return len(npy_to_vector(deployment.store.get(key)))
    except FileNotFoundError:
        msg = (
            f"the ledger says that {key} was stored, but it does not exist: restore it, or "
            f"materialise clips/{modality}_embeddings with verify_objects: true"
        )
        raise NothingEmbedded(msg) from None


def settle_lock(
    deployment: Deployment,
    strategy: Strategy,
    *,
    migrate: bool = False,
    append_mask: bool | None = None,
    clock: Callable[[], str] = now,
) -> LockOutcome:
    """Create the lock if there is none, else verify it, or migrate it if that is asked for.

    Args:
        deployment: Whose lock.
        strategy: Of which strategy.
        migrate: Archive what is there and open a new version for what was found.
        append_mask: Whether fused vectors end in the text mask. None keeps the lock's choice, and
            makes a new lock with it.
        clock: Gives ``updated_at``.

    Raises:
        LockMismatch: What was found contradicts the lock, and `migrate` is off.
        NothingToMigrate: `migrate` is on, but nothing differs.
    """
    for modality in MODALITIES:
        deployment.restore(statuses.embedding_stage(modality))
    key = deployment.layout.schema_lock(strategy)
    adopted = deployment.models_lock().adopted()
    made = found_schema(deployment, strategy, append_mask=append_mask is not False)
    found = replace(made, updated_at=clock())
    try:
        data, version = deployment.store.get_versioned(key)
    except FileNotFoundError:
        if migrate:
            msg = f"{key} does not exist, so there is nothing to migrate: run without migrate"
            raise NothingToMigrate(msg) from None
        try:
            deployment.store.put_if_absent(key, found.to_json())
        except ObjectExists:
            # Another run was first; what it locked is verified like any other lock.
            return settle_lock(deployment, strategy, append_mask=append_mask, clock=clock)
        return LockOutcome(found, "created")

    lock = SchemaLock.from_json(data, key)
    _verify_strategy(lock, strategy, key)
    if append_mask is None:
        found = found_schema(deployment, strategy, append_mask=lock.mask_appended)
    changes = differences(lock, found, adopted)
    if migrate:
        if not changes:
            msg = f"{key} already says what was found: nothing to migrate; run without migrate"
            raise NothingToMigrate(msg)
        return _migrate(deployment, lock, (data, version), found, tuple(changes), clock())
    for difference in changes:
        raise mismatch(lock, difference)
    named = with_adopted(lock, adopted)
    if named != lock:
        named = replace(named, updated_at=clock())
        try:
            deployment.store.swap(key, named.to_json(), version)
        except ObjectChanged:
            # Another run named or migrated it meanwhile: what it is now is verified.
            return settle_lock(deployment, strategy, append_mask=append_mask, clock=clock)
        fields = tuple(
            Difference(f"embedding_versions.{m}", UNVERSIONED, named.embedding_versions[m])
            for m in MODALITIES
            if lock.embedding_versions[m] != named.embedding_versions[m]
        )
        return LockOutcome(named, "named", fields)
    return LockOutcome(lock, "verified")


def _migrate(
    deployment: Deployment,
    lock: SchemaLock,
    stored: tuple[bytes, str],
    found: SchemaLock,
    changes: tuple[Difference, ...],
    moment: str,
) -> LockOutcome:
    """Archive lock and manifest, then open the next version.

    A run killed in between leaves the old lock in force, or the new lock beside the old manifest,
    whose own metadata says that it is of an older version: `manifest.load_manifest` refuses it, the
    next update of the manifest starts from an empty one. Deltas go into the archive; readers under
    the new lock pass over those that are left, and the next compaction removes them.
    """
    layout, store = deployment.layout, deployment.store
    strategy, manifest_key = lock.fusion_strategy, layout.fused_manifest(lock.fusion_strategy)
    lock_bytes, version = stored
    archives = [(layout.schema_lock_archive(strategy, lock.lock_version), lock_bytes)]
    manifest, shards, deltas = manifest_store.archive_bytes(deployment, strategy, lock.lock_version)
    if manifest is not None:  # else nothing was fused under the old lock
        archives.append((layout.fused_manifest_archive(strategy, lock.lock_version), manifest))
    # The old shards need not be looked at again to see that they are of the old lock.
    empty = replace(FusedManifest.empty(lock.lock_version + 1), shards=shards)
    for key, data in archives:
        store.put(key, data)
    opened = replace(found, lock_version=lock.lock_version + 1, updated_at=moment)
    store.swap(layout.schema_lock(strategy), opened.to_json(), version)

    def emptied(data: bytes | None) -> bytes | None:
        # Another run may have fused and merged under the new lock already.
        if (
            data is not None
            and ManifestFooter.of(data, manifest_key).lock_version >= opened.lock_version
        ):
            return None
        return manifest_file.to_bytes(empty)

    store.update(manifest_key, emptied)
    for delta in deltas:
        store.delete(delta)
    return LockOutcome(opened, "migrated", changes, tuple(key for key, _ in archives))


def archived_versions(deployment: Deployment, lock: SchemaLock) -> dict[Modality, set[str]]:
    """Embedding versions that earlier locks of the strategy named: outdated, but known."""
    outdated: dict[Modality, set[str]] = {modality: set() for modality in MODALITIES}
    for number in range(1, lock.lock_version):
        key = deployment.layout.schema_lock_archive(lock.fusion_strategy, number)
        try:
            archived = SchemaLock.from_json(deployment.store.get(key), key)
        except FileNotFoundError:
            continue  # archives are for people; one removed by hand only narrows what is known
        for modality in MODALITIES:
            outdated[modality].add(archived.embedding_versions[modality])
    return outdated
