"""The files that a registered model of memes is pinned to, by their hashes."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.pipelines.memes.expert_store import ExpertRecord, version_hashes
from clipfarm_assets.serving.version_list import stored
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.meme_snapshot import open_fusion
from clipfarm_assets.training.snapshot import Artifact, BadSnapshot
from clipfarm_assets.training.snapshot_files import content_problem

if TYPE_CHECKING:
    from clipfarm_assets.serving.meme_registry import MemeVersion


_SERVED: Final = ("config.json", "fusion_model.safetensors")
"""Files of a fusion model that predicting needs."""


def artifact_hashes(store: ObjectStore, keys: Iterable[str]) -> dict[str, str]:
    """The sha256 of each object, by key.

    Raises:
        FileNotFoundError: One is not there.
    """
    return {key: Artifact.of(store.get(key)).sha256 for key in sorted(keys)}


def expert_artifacts(layout: MemeLayout, record: ExpertRecord) -> dict[str, str]:
    """An expert's record and all files of its version, by key, as they were published.

    Nothing is read: the next expert takes the place that people know, and never this one's.
    """
    return version_hashes(layout.expert(record.modality, record.label), record)


def fusion_artifacts(
    store: ObjectStore, layout: MemeLayout, label: str, fusion_version: str
) -> dict[str, str]:
    """What serving reads of a fusion model, by key, as its snapshot was published.

    Raises:
        NoMemeModel: It is not there.
        BadSnapshot: Its manifest is malformed.
    """
    found = open_fusion(store, layout, label, fusion_version)
    root = found.id.root(layout)
    return {f"{root}{name}": found.manifest.artifacts[name].sha256 for name in _SERVED}


def read_artifact(store: ObjectStore, version: "MemeVersion", key: str) -> bytes:
    """One of a version's files, as it was when the version was promoted.

    Raises:
        BadSnapshot: It is none of them, or gone, or was changed since.
    """
    sha256 = version.artifacts.get(key)
    if sha256 is None:
        msg = f"{key} is none of the artifacts of {version.model_version}"
        raise BadSnapshot(msg)
    data = stored(store, key)
    problem = content_problem(data, sha256)
    if problem or data is None:
        msg = (
            f"{version.model_version}: {key} {problem}; materialise memes/evaluation for "
            f"partition {version.label!r} to promote what is there now, or restore it from a backup"
        )
        raise BadSnapshot(msg)
    return data


def below(version: "MemeVersion", root: str) -> Mapping[str, str]:
    """A version's artifacts in a folder: name in it -> sha256."""
    return {
        key.removeprefix(root): sha256
        for key, sha256 in version.artifacts.items()
        if key.startswith(root)
    }


def artifacts_resolve(store: ObjectStore, version: "MemeVersion") -> Verdict:
    """Every artifact of a version is there, with the bytes that were promoted."""
    findings = []
    for key, sha256 in version.artifacts.items():
        if problem := content_problem(stored(store, key), sha256):
            findings.append(Finding(key, problem))
    return Verdict(tuple(findings), len(version.artifacts))
