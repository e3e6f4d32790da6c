"""Reading a snapshot of any pipeline: every byte is compared with the manifest before its use."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from json import loads
from typing import Any, Self

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import (
    MANIFEST,
    Artifact,
    BadSnapshot,
    Identity,
    Manifest,
)

_WORKERS = 4


@dataclass(frozen=True)
class SnapshotFiles:
    """The files of a published snapshot.

    Attributes:
        store, layout: Where it is.
        id: Which one.
        manifest: What it holds.
    """

    store: ObjectStore
    layout: Any
    id: Identity[Any]
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """The bytes of an artifact, as they were published.

        Raises:
            BadSnapshot: The snapshot has no such artifact, or it is gone or was changed since.
        """
        expected = self.manifest.artifacts.get(name)
        if expected is None:
            msg = f"snapshot {self.id} has no artifact {name!r}"
            raise BadSnapshot(msg)
        try:
            data = self.store.get(self.id.root(self.layout) + name)
        except FileNotFoundError:
            data = None
        problem = content_problem(data, expected.sha256)
        if problem or data is None:
            msg = (
                f"snapshot {self.id}: {name} {problem}; restore it from a backup, or "
                f"{self.id.remedy}"
            )
            raise BadSnapshot(msg)
        return data

    def json(self, name: str) -> Mapping[str, Any]:
        """An artifact that is a JSON object.

        Raises:
            BadSnapshot: See `read`; or it is none.
        """
        data = self.read(name)
        try:
            body = loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"snapshot {self.id}: {name} is not JSON ({error})"
            raise BadSnapshot(msg) from None
        if not isinstance(body, dict):
            msg = f"snapshot {self.id}: {name} must be a JSON object, found {type(body).__name__}"
            raise BadSnapshot(msg)
        return body

    def pinned(self, artifacts: Mapping[str, str]) -> Self:
        """The same snapshot, of which these artifacts alone can be read, with these sha256."""
        found = {name: Artifact(sha256, 0) for name, sha256 in artifacts.items()}
        return replace(self, manifest=replace(self.manifest, artifacts=found))

    def verify_all(self) -> Verdict:
        """Every artifact is there with the bytes that were published, and no other file is."""
        root = self.id.root(self.layout)
        names = sorted(self.manifest.artifacts)
        findings = []
        keys = (root + name for name in names)
        for key, found in self.store.get_many(keys, workers=_WORKERS):
            name = key.removeprefix(root)
            data = None if isinstance(found, FileNotFoundError) else found
            problem = content_problem(data, self.manifest.artifacts[name].sha256)
            if problem:
                findings.append(Finding(f"{self.id}: {name}", problem))
        present = {info.key.removeprefix(root) for info in self.store.list(root)}
        findings += [
            Finding(f"{self.id}: {name}", "is none of the snapshot's artifacts")
            for name in sorted(present - set(names) - {MANIFEST})
        ]
        size = sum(artifact.size for artifact in self.manifest.artifacts.values())
        return Verdict(tuple(findings), len(names), {"bytes": size})


def content_problem(data: bytes | None, sha256: str) -> str:
    """What keeps `data` from being what was published; empty if nothing does."""
    if data is None:
        return "is gone"
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        return f"was changed since: expected sha256 {sha256[:12]}…, found {found[:12]}…"
    return ""
