"""Where trained models of songs lie: every version by itself, and the newest under the known keys.

See `model_versions`. A model is a fusion strategy, or one modality alone, which fusion is compared
with.
"""

from dataclasses import dataclass
from typing import Final, cast

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.fusion.options import STRATEGIES, StrategyName
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training import model_versions
from clipfarm_assets.training.snapshot_files import SnapshotFiles

SINGLE: Final = "single:"
"""What the name of a model of one modality begins with."""

MODELS: Final = (*STRATEGIES, *(f"{SINGLE}{modality}" for modality in MODALITIES))


class NoSongModel(FileNotFoundError):  # noqa: N818 - a state of the store
    """No such model was trained."""


def single(modality: Modality) -> str:
    """The name of the model of one modality alone."""
    return f"{SINGLE}{modality}"


def modality_of(model: str) -> Modality | None:
    """The modality of a model of one alone; None of a strategy.

    Raises:
        ValueError: There is no model of that name.
    """
    if model not in MODELS:
        msg = f"unknown model {model!r:.100}: expected one of {', '.join(MODELS)}"
        raise ValueError(msg)
    return cast("Modality", model.removeprefix(SINGLE)) if model.startswith(SINGLE) else None


def model_folder(layout: SongLayout, model: str) -> str:
    """Where a model's versions and the known keys are, with the trailing slash.

    Raises:
        ValueError: There is no model of that name.
    """
    modality = modality_of(model)
    if modality is None:
        return layout.fusion_model(cast("StrategyName", model))
    return layout.single_model(modality)


@dataclass(frozen=True, slots=True)
class SongModelId:
    """Which version of which model.

    Attributes:
        model: One of `MODELS`.
        version: `snapshot.data_version` of its inputs.
    """

    model: str
    version: str

    def __post_init__(self) -> None:
        """Check both; raises `ValueError`."""
        modality_of(self.model)
        model_versions.check_version(self.version)

    def root(self, layout: SongLayout) -> str:
        """Its folder, with the trailing slash."""
        return model_versions.versions_folder(model_folder(layout, self.model), self.version)

    def staging(self, layout: SongLayout) -> str:
        """The folder of attempts in progress, with the trailing slash."""
        return model_versions.staging_folder(model_folder(layout, self.model), self.version)

    @property
    def claimed(self) -> str:
        """The version."""
        return f"version {self.version!r} of the song model {self.model}"

    @property
    def remedy(self) -> str:
        """Another seed: the version is that of the inputs."""
        return "train with another `training.seed`, which makes another version"

    def __str__(self) -> str:
        """Model and version."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True)
class SongSnapshot(SnapshotFiles):
    """A published model of songs."""

    layout: SongLayout
    id: SongModelId


def open_song_model(
    store: ObjectStore, layout: SongLayout, model: str, version: str | None = None
) -> SongSnapshot:
    """A published model; its files are verified as they are read.

    Args:
        store: Where.
        layout: Where in it.
        model: One of `MODELS`.
        version: Which; by default the newest.

    Raises:
        NoSongModel: It is not there, or was never finished.
        BadSnapshot: Its manifest is malformed.
        ValueError: There is no model of that name.
    """
    if version is None:
        version = current_version(store, layout, model)
    snapshot_id = SongModelId(model, version)
    told = f"there is no song model {snapshot_id} in {store.url}: {_remedy(model)}"
    manifest = model_versions.published(store, layout, snapshot_id, NoSongModel(told))
    return SongSnapshot(store, layout, snapshot_id, manifest)


def current_version(store: ObjectStore, layout: SongLayout, model: str) -> str:
    """The version of the newest model of that name.

    Raises:
        NoSongModel: None was trained.
        BadSnapshot: The object that names it is malformed.
        ValueError: There is no model of that name.
    """
    told = f"no song model {model} was trained in {store.url}: {_remedy(model)}"
    return model_versions.newest_version(
        store, model_folder(layout, model), NoSongModel(told), _remedy(model)
    )


def mirror(snapshot: SongSnapshot) -> None:
    """Copy a version's files to the keys that people know, ``snapshot.json`` last.

    Raises:
        BadSnapshot: A file of the version is gone or was changed.
    """
    model_versions.mirror(snapshot, model_folder(snapshot.layout, snapshot.id.model))


def _remedy(model: str) -> str:
    if model.startswith(SINGLE):
        return "materialise songs/strategy_comparison"
    return f"materialise songs/fusion_models for partition {model!r}"
