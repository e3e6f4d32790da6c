"""Where trained models of memes lie: every version by itself, and the newest under the known keys.

A version is named by its inputs and immutable, by the rules of `snapshot`; what serves is pinned to
one. Beside the versions lie copies of the newest one's files under the keys that people know, e.g.
``models/mm_fusion/fusion_model.pt``, with its ``snapshot.json`` written last. Nothing here is read
from the copies but that file, which names the version.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import MANIFEST, BadSnapshot, Manifest
from clipfarm_assets.training.snapshot_files import SnapshotFiles

_VERSION: Final = re.compile(r"[0-9a-f]{16}")


class NoMemeModel(FileNotFoundError):  # noqa: N818 - a state of the store
    """No such model was trained."""


@dataclass(frozen=True, slots=True)
class FusionId:
    """Which fusion model.

    Attributes:
        label: What it tells.
        version: `snapshot.data_version` of its inputs.
    """

    label: str
    version: str

    def __post_init__(self) -> None:
        """Check the version; raises `ValueError`."""
        if not isinstance(self.version, str) or not _VERSION.fullmatch(self.version):
            msg = f"bad model version {self.version!r:.100}: expected 16 hex digits"
            raise ValueError(msg)

    def root(self, layout: MemeLayout) -> str:
        """Its folder, with the trailing slash."""
        return f"{layout.fusion_model(self.label)}versions/{self.version}/"

    def staging(self, layout: MemeLayout) -> str:
        """The folder of attempts in progress, with the trailing slash."""
        return f"{layout.fusion_model(self.label)}staging/{self.version}/"

    @property
    def claimed(self) -> str:
        """The version."""
        return f"version {self.version!r} of the fusion model of {self.label}"

    @property
    def remedy(self) -> str:
        """Another seed: the version is that of the inputs."""
        return "train with another `seed`, which makes another version"

    def __str__(self) -> str:
        """Label and version."""
        return f"{self.label}/{self.version}"


@dataclass(frozen=True)
class FusionSnapshot(SnapshotFiles):
    """A published fusion model."""

    layout: MemeLayout
    id: FusionId


def open_fusion(
    store: ObjectStore, layout: MemeLayout, label: str, version: str | None = None
) -> FusionSnapshot:
    """A published fusion model; its files are verified as they are read.

    Args:
        store: Where.
        layout: Where in it.
        label: What it tells.
        version: Which; by default the newest.

    Raises:
        NoMemeModel: It is not there, or was never finished.
        BadSnapshot: Its manifest is malformed.
    """
    if version is None:
        version = current_version(store, layout, label)
    snapshot_id = FusionId(label, version)
    try:
        data = store.get(snapshot_id.root(layout) + MANIFEST)
    except FileNotFoundError:
        msg = (
            f"there is no fusion model {snapshot_id} in {store.url}: materialise "
            f"memes/fusion_model for partition {label!r}"
        )
        raise NoMemeModel(msg) from None
    return FusionSnapshot(store, layout, snapshot_id, Manifest.from_json(data, snapshot_id))


def current_version(store: ObjectStore, layout: MemeLayout, label: str) -> str:
    """The version of the newest fusion model of a label.

    Raises:
        NoMemeModel: None was trained.
        BadSnapshot: The object that names it is malformed.
    """
    key = layout.fusion_model(label) + MANIFEST
    try:
        data = store.get(key)
    except FileNotFoundError:
        msg = (
            f"no fusion model of {label} was trained in {store.url}: materialise "
            f"memes/fusion_model for partition {label!r}"
        )
        raise NoMemeModel(msg) from None
    try:
        return FusionId(label, json.loads(data)["version"]).version
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = (
            f"{key} names no version ({type(error).__name__}: {error}): materialise "
            f"memes/fusion_model for partition {label!r} again"
        )
        raise BadSnapshot(msg) from None


def mirror(snapshot: FusionSnapshot) -> None:
    """Copy a version's files to the keys that people know, ``snapshot.json`` last.

    Raises:
        BadSnapshot: A file of the version is gone or was changed.
    """
    store, folder = snapshot.store, snapshot.layout.fusion_model(snapshot.id.label)
    for name in sorted(snapshot.manifest.artifacts):
        store.put(folder + name, snapshot.read(name))
    store.put(folder + MANIFEST, snapshot.manifest.to_json())
