"""Where trained models of memes lie: every version by itself, and the newest under the known keys.

See `model_versions`. The known keys are e.g. ``models/mm_fusion/fusion_model.pt``.
"""

from dataclasses import dataclass

from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training import model_versions
from clipfarm_assets.training.snapshot_files import SnapshotFiles


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
        model_versions.check_version(self.version)

    def root(self, layout: MemeLayout) -> str:
        """Its folder, with the trailing slash."""
        return model_versions.versions_folder(layout.fusion_model(self.label), self.version)

    def staging(self, layout: MemeLayout) -> str:
        """The folder of attempts in progress, with the trailing slash."""
        return model_versions.staging_folder(layout.fusion_model(self.label), self.version)

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
    told = f"there is no fusion model {snapshot_id} in {store.url}: {_remedy(label)}"
    manifest = model_versions.published(store, layout, snapshot_id, NoMemeModel(told))
    return FusionSnapshot(store, layout, snapshot_id, manifest)


def current_version(store: ObjectStore, layout: MemeLayout, label: str) -> str:
    """The version of the newest fusion model of a label.

    Raises:
        NoMemeModel: None was trained.
        BadSnapshot: The object that names it is malformed.
    """
    told = f"no fusion model of {label} was trained in {store.url}: {_remedy(label)}"
    return model_versions.newest_version(
        store, layout.fusion_model(label), NoMemeModel(told), _remedy(label)
    )


def mirror(snapshot: FusionSnapshot) -> None:
    """Copy a version's files to the keys that people know, ``snapshot.json`` last.

    Raises:
        BadSnapshot: A file of the version is gone or was changed.
    """
    model_versions.mirror(snapshot, snapshot.layout.fusion_model(snapshot.id.label))


def _remedy(label: str) -> str:
    return f"materialise memes/fusion_model for partition {label!r}"
