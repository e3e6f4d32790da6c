"""Snapshots: the artifacts of one training run, complete and immutable, or not there at all.

An attempt is staged first, so that one which fails half way leaves the snapshot's folder as it
was. Then ``config_used.json`` is created there, which claims the folder for this attempt's inputs,
then the other artifacts, and ``snapshot.json`` last; each by put-if-absent. A folder without
``snapshot.json`` is no snapshot; the same inputs complete it after a kill, and no others do. All
artifacts are functions of the inputs: times are in ``snapshot.json``.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Protocol, TypeVar

from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.storage.errors import ObjectExists
from clipfarm_assets.storage.keys import check_key
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore

FORMAT: Final = 1
MANIFEST: Final = "snapshot.json"
CONFIG: Final = "config_used.json"

L_contra = TypeVar("L_contra", contravariant=True)

_DATA_VERSION_LENGTH: Final = 16


class SnapshotExists(FileExistsError):  # noqa: N818 - a state of the store
    """The run id has this snapshot already."""


class SnapshotConflict(RuntimeError):  # noqa: N818 - a state of the store
    """Another attempt under the same run id holds other files."""


class BadSnapshot(ValueError):  # noqa: N818
    """The files of a snapshot are not those that were published."""


class Identity(Protocol[L_contra]):
    """Which snapshot of some pipeline: a frozen dataclass, whose fields its manifest begins with.

    Its layout is what builds the pipeline's keys. As text it is what its folder names.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def root(self, layout: L_contra) -> str:
        """Its folder, with the trailing slash."""

    def staging(self, layout: L_contra) -> str:
        """The folder of attempts in progress, with the trailing slash; not below `root`."""

    @property
    def claimed(self) -> str:
        """What a begun attempt has claimed, as messages say it, e.g. ``run_id 'r1'``."""

    @property
    def remedy(self) -> str:
        """What to do where it is taken, e.g. ``use another run_id``."""


@dataclass(frozen=True, slots=True)
class SnapshotId:
    """Which snapshot of the clip pipeline.

    Attributes:
        run_id: The training run.
        strategy, horizon: Which of the suite's jobs.
        family: Of a single-model run; None for an all-model run.
    """

    run_id: str
    strategy: Strategy
    horizon: Horizon
    family: str | None = None

    def root(self, layout: Layout) -> str:
        """Its folder, with the trailing slash."""
        return layout.snapshot(self.run_id, self.strategy, self.horizon, self.family)

    def staging(self, layout: Layout) -> str:
        """The folder of attempts in progress, with the trailing slash."""
        return layout.snapshot_staging(self.run_id, self.strategy, self.horizon, self.family)

    @property
    def claimed(self) -> str:
        """The run."""
        return f"run_id {self.run_id!r}"

    @property
    def remedy(self) -> str:
        """Another run."""
        return "use another run_id"

    def __str__(self) -> str:
        """As its folder names it."""
        model = "" if self.family is None else f"model={self.family}/"
        return f"run_id={self.run_id}/{model}strategy={self.strategy}/horizon={self.horizon}"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Hash and size in bytes of one file."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> "Artifact":
        """That of `data`."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class Manifest:
    """``snapshot.json``: what a snapshot consists of.

    Attributes:
        id: Which snapshot it is of.
        data_version: See `data_version`.
        created_at: ISO 8601, UTC.
        artifacts: By name relative to the snapshot's folder.
        facts: What else the run had to say, e.g. durations.
    """

    id: Identity[Any]
    data_version: str
    created_at: str
    artifacts: Mapping[str, Artifact]
    facts: Mapping[str, Any]

    def to_json(self) -> bytes:
        """The object's bytes."""
        body = {
            "format": FORMAT,
            **asdict(self.id),
            "data_version": self.data_version,
            "created_at": self.created_at,
            "artifacts": {
                name: {"sha256": artifact.sha256, "bytes": artifact.size}
                for name, artifact in sorted(self.artifacts.items())
            },
            "facts": dict(self.facts),
        }
        return (json.dumps(body, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, snapshot_id: Identity[Any]) -> "Manifest":
        """The manifest of `snapshot_id`.

        Raises:
            BadSnapshot: It is none, of an unknown format, or that of another snapshot.
        """
        try:
            body = json.loads(data)
            if body["format"] != FORMAT:
                msg = f"expected format {FORMAT}, found {body['format']!r}"
                raise ValueError(msg)  # noqa: TRY301 - one place says which snapshot it is
            manifest = cls(
                id=replace(snapshot_id, **{f.name: body[f.name] for f in fields(snapshot_id)}),
                data_version=body["data_version"],
                created_at=body["created_at"],
                artifacts={
                    name: Artifact(artifact["sha256"], int(artifact["bytes"]))
                    for name, artifact in body["artifacts"].items()
                },
                facts=body["facts"],
            )
            datetime.fromisoformat(manifest.created_at)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = (
                f"{MANIFEST} of snapshot {snapshot_id} is malformed ({type(error).__name__}: "
                f"{error}); restore it from a backup, or {snapshot_id.remedy}"
            )
            raise BadSnapshot(msg) from None
        if manifest.id != snapshot_id:
            msg = f"{MANIFEST} in the folder of snapshot {snapshot_id} is that of {manifest.id}"
            raise BadSnapshot(msg)
        return manifest


def data_version(config_used: Mapping[str, Any]) -> str:
    """Short hash of everything the models depend on: ``config_used.json`` without the run's name.

    That holds settings, feature contract, versions of code and packages, and the hashes of dataset,
    split, lock and manifest. Two runs with the same inputs have the same data version.
    """
    inputs = {name: value for name, value in config_used.items() if name != "run_id"}
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DATA_VERSION_LENGTH]


def check_free(
    store: ObjectStore,
    layout: L_contra,
    snapshot_id: Identity[L_contra],
    config_used: bytes | None = None,
) -> None:
    """Refuse, before anything is trained, what `publish` would refuse afterwards.

    Args:
        store: Where.
        layout: Where in it.
        snapshot_id: What is to be published.
        config_used: Its ``config_used.json``, where that is known already.

    Raises:
        SnapshotExists: It is published already; what a killed publisher left staged is removed.
        SnapshotConflict: An attempt with other inputs has begun to write it.
    """
    root = snapshot_id.root(layout)
    if store.exists(root + MANIFEST):
        _delete_below(store, snapshot_id.staging(layout))
        msg = (
            f"snapshot {snapshot_id} exists and is immutable: {snapshot_id.remedy}, or keep this "
            "one"
        )
        raise SnapshotExists(msg)
    if config_used is None:
        return
    try:
        claim = store.get(root + CONFIG)
    except FileNotFoundError:
        return
    if claim != config_used:
        raise _other_inputs(snapshot_id)


def publish(
    store: ObjectStore,
    layout: L_contra,
    snapshot_id: Identity[L_contra],
    artifacts: Mapping[str, bytes],
    facts: Mapping[str, Any],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Manifest:
    """Publish a snapshot as a whole.

    Of two publishers of one id with other inputs one is refused; with the same inputs both end with
    the one snapshot. A publisher that was killed is completed by another one with the same inputs.

    Args:
        store: Where.
        layout: Where in it.
        snapshot_id: Which snapshot.
        artifacts: Bytes by name relative to the snapshot's folder, e.g. ``models/ridge.skops``;
            ``config_used.json`` must be among them and is what tells inputs apart.
        facts: What else the manifest says; JSON values, times welcome.
        clock: Gives ``created_at``.

    Raises:
        SnapshotExists: It was published before.
        SnapshotConflict: Another attempt under this id holds other files.
        ValueError: ``config_used.json`` is missing or no JSON object, or an artifact has a name
            that is none, or the manifest's.
    """
    manifest = Manifest(
        id=snapshot_id,
        data_version=data_version(_config(artifacts)),
        created_at=clock().isoformat(),
        artifacts={name: Artifact.of(data) for name, data in artifacts.items()},
        facts=facts,
    )
    described = manifest.to_json()  # what can't be described is refused before the first write
    check_free(store, layout, snapshot_id, artifacts[CONFIG])
    root, staging = snapshot_id.root(layout), snapshot_id.staging(layout)
    for name in artifacts:
        check_key(root + name)
    attempt = f"{staging}{manifest.artifacts[CONFIG].sha256}/"
    names = sorted(artifacts, key=lambda name: (name != CONFIG, name))
    for name in names:
        store.put(attempt + name, artifacts[name])
    try:
        for name in names:
            _create(store, snapshot_id, name, root, artifacts[name])
        _refuse_strangers(store, snapshot_id, root, artifacts)
    except SnapshotConflict:
        _delete_below(store, attempt)
        raise
    try:
        store.put_if_absent(root + MANIFEST, described)
    except ObjectExists:
        # Somebody with the same claim was faster: the same artifacts, another moment.
        first = Manifest.from_json(store.get(root + MANIFEST), snapshot_id)
        if first.artifacts != manifest.artifacts:
            raise _other_inputs(snapshot_id) from None
        manifest = first
    _delete_below(store, staging)
    return manifest


def _config(artifacts: Mapping[str, bytes]) -> Mapping[str, Any]:
    if MANIFEST in artifacts:
        msg = f"{MANIFEST} is the snapshot's own manifest: give the artifact another name"
        raise ValueError(msg)
    if CONFIG not in artifacts:
        msg = f"a snapshot needs {CONFIG}: found {', '.join(sorted(artifacts)) or 'nothing'}"
        raise ValueError(msg)
    config = json.loads(artifacts[CONFIG])
    if not isinstance(config, dict):
        msg = f"{CONFIG} must be a JSON object: found a {type(config).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - a file's content, not an argument's type
    return config


def _create(
    store: ObjectStore, snapshot_id: Identity[Any], name: str, root: str, data: bytes
) -> None:
    """Create one artifact; the same bytes there are those of a killed attempt.

    Raises:
        SnapshotConflict: Other bytes are there.
    """
    try:
        store.put_if_absent(root + name, data)
    except ObjectExists:
        if name == CONFIG:
            raise _other_inputs(snapshot_id) from None
        msg = (
            f"{snapshot_id.claimed} holds another {name} of an interrupted or concurrent "
            f"attempt with the same inputs, so they do not decide it on this machine "
            f"({snapshot_id}); {snapshot_id.remedy}"
        )
        raise SnapshotConflict(msg) from None


def _refuse_strangers(
    store: ObjectStore, snapshot_id: Identity[Any], root: str, artifacts: Mapping[str, bytes]
) -> None:
    """Raise `SnapshotConflict` if the folder holds a file that is none of this attempt's."""
    found = {info.key.removeprefix(root) for info in store.list(root)}
    strangers = sorted(found - artifacts.keys() - {MANIFEST})
    if strangers:
        msg = (
            f"the folder of snapshot {snapshot_id} holds files that are not of this attempt "
            f"({', '.join(strangers[:5])}); {snapshot_id.remedy}"
        )
        raise SnapshotConflict(msg)


def _other_inputs(snapshot_id: Identity[Any]) -> SnapshotConflict:
    return SnapshotConflict(
        f"{snapshot_id.claimed} holds files of an interrupted or concurrent attempt with other "
        f"inputs ({snapshot_id}); {snapshot_id.remedy}"
    )


def _delete_below(store: ObjectStore, folder: str) -> None:
    for info in list(store.list(folder)):
        store.delete(info.key)
