"""Versions of trained models, and copies of the newest one under the keys that people know.

A version is named by its inputs and immutable, by the rules of `snapshot`; what serves is pinned to
one. Beside a model's versions lie copies of the newest one's files, with its ``snapshot.json``
written last. Nothing is read from the copies but that file, which names the version.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import MANIFEST, BadSnapshot, Identity, Manifest
from clipfarm_assets.training.snapshot_files import SnapshotFiles

_VERSION: Final = re.compile(r"[0-9a-f]{16}")

L_contra = TypeVar("L_contra", contravariant=True)


def check_version(version: Any) -> None:
    """Refuse what is no version.

    Raises:
        ValueError: It is not 16 hex digits, those of `snapshot.data_version`.
    """
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        msg = f"bad model version {version!r:.100}: expected 16 hex digits"
        raise ValueError(msg)


def versions_folder(folder: str, version: str) -> str:
    """Where a version of the model in `folder` is published, with the trailing slash."""
    return f"{folder}versions/{version}/"


def staging_folder(folder: str, version: str) -> str:
    """Where attempts at it are in progress, with the trailing slash."""
    return f"{folder}staging/{version}/"


def published(
    store: ObjectStore,
    layout: L_contra,
    snapshot_id: Identity[L_contra],
    missing: FileNotFoundError,
) -> Manifest:
    """What a version consists of.

    Args:
        store: Where.
        layout: Where in it.
        snapshot_id: Which version.
        missing: Raised if it is not there, or was never finished.

    Raises:
        BadSnapshot: Its manifest is malformed.
    """
    try:
        data = store.get(snapshot_id.root(layout) + MANIFEST)
    except FileNotFoundError:
        raise missing from None
    return Manifest.from_json(data, snapshot_id)


def newest_version(store: ObjectStore, folder: str, missing: FileNotFoundError, remedy: str) -> str:
    """The version whose files lie under the keys that people know.

    Args:
        store: Where.
        folder: Of the model, with the trailing slash.
        missing: Raised if none was trained.
        remedy: How to train it, e.g. ``materialise memes/fusion_model``.

    Raises:
        BadSnapshot: The object that names it is malformed.
    """
    key = folder + MANIFEST
    try:
        data = store.get(key)
    except FileNotFoundError:
        raise missing from None
    try:
        version: str = json.loads(data)["version"]
        check_version(version)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{key} names no version ({type(error).__name__}: {error}): {remedy} again"
        raise BadSnapshot(msg) from None
    return version


def mirror(snapshot: SnapshotFiles, folder: str) -> None:
    """Copy a version's files to the keys that people know, ``snapshot.json`` last.

    Raises:
        BadSnapshot: A file of the version is gone or was changed.
    """
    for name in sorted(snapshot.manifest.artifacts):
        snapshot.store.put(folder + name, snapshot.read(name))
    snapshot.store.put(folder + MANIFEST, snapshot.manifest.to_json())


def newest_intact(folder: str, find: Callable[[], SnapshotFiles]) -> Verdict:
    """The newest version's files are those that were published, also where people know them.

    Args:
        folder: Of the model, with the trailing slash.
        find: Opens the newest version.
    """
    try:
        snapshot = find()
    except (BadSnapshot, FileNotFoundError) as error:
        return Verdict((Finding(folder, str(error)),), 0)
    verdict = snapshot.verify_all()
    findings = list(verdict.findings)
    store, root = snapshot.store, snapshot.id.root(snapshot.layout)
    for name in (MANIFEST, *sorted(snapshot.manifest.artifacts)):
        try:
            same = store.get(folder + name) == store.get(root + name)
        except FileNotFoundError as error:
            findings.append(Finding(folder + name, str(error)))
            continue
        if not same:
            findings.append(Finding(folder + name, f"is another than that of {snapshot.id}"))
    return Verdict(tuple(findings), verdict.examined, {**verdict.facts, "model": str(snapshot.id)})
