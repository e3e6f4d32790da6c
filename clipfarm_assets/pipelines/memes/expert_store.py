"""Experts as they lie in the store: a Hugging Face model directory, and a record that completes it.

``expert.json`` is written last, so that a directory that somebody else put there, which has none,
and one whose writing was cut short can be told apart from a whole one. The directory that people
know is replaced by the next expert. A copy beside it, in ``text_expert_versions/`` and named by the
record, never is: models are opened from there, and what serves is pinned to it.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.models import ModelUnavailable, hash_model_dir
from clipfarm_assets.storage.meme_layout import ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.config import Settings
from clipfarm_assets.training.expert_config import ImageRepresentation, TextRepresentation
from clipfarm_assets.training.snapshot import Artifact
from clipfarm_assets.training.snapshot_files import content_problem

RECORD: Final = "expert.json"

Origin = Literal["supplied", "found", "fine_tuned"]


class NoExpert(FileNotFoundError):  # noqa: N818
    """There is no expert yet."""


class UnfinishedExpert(RuntimeError):  # noqa: N818
    """An expert's files are being replaced, or their writing was cut short."""


class BadRecord(ValueError):  # noqa: N818
    """``expert.json`` is not what is written there."""


class ModelSource(Settings):
    """Where a model's files are from.

    Attributes:
        name: Hub name, directory's name, or stand-in's name.
        revision: Commit on the hub, or what stands for one.
        weights_sha256: Hash of the files; see `hash_model_dir`.
    """

    name: str
    revision: str
    weights_sha256: str


class ExpertRecord(Settings):
    """What is known of an expert.

    Attributes:
        format: Of this record.
        state: ``writing`` until all files are there.
        modality: Of what it is.
        label: What it tells the class of.
        name: What it is called wherever it shows up.
        is_stand_in: Whether its weights come from seeded ones that stand in for trained ones.
        origin: ``supplied`` by name, ``found`` in the store, or ``fine_tuned`` here.
        source: The finished model, or the base that was fine-tuned.
        files: Of the directory; of one that is being replaced, the old and the new ones.
        hashes: sha256 of each file that was published.
        weights_sha256: Their hash; see `hash_model_dir`.
        representation: What its hidden state is.
        classes: What its logits are of.
        dim: Length of its hidden state.
        version: Names files and representation: what features are keyed by.
        made_of: Hash of all that decided it.
        shards: Versions of the sets of shards that it was fitted on, by split; none if it was not.
        rows: Rows that were fitted, by split; and those without the label.
        curve: Of the fit, if there was one.
    """

    format: Literal[1] = 1
    state: Literal["writing", "complete"] = "complete"
    modality: ExpertModality
    label: str
    name: str
    is_stand_in: bool
    origin: Origin
    source: ModelSource
    files: tuple[str, ...] = ()
    hashes: dict[str, str] = Field(default_factory=dict)
    weights_sha256: str
    representation: TextRepresentation | ImageRepresentation = Field(discriminator="modality")
    classes: tuple[str, ...]
    dim: int
    version: str
    made_of: str
    shards: dict[str, str] = Field(default_factory=dict)
    rows: dict[str, int] = Field(default_factory=dict)
    curve: dict[str, Any] | None = None

    def to_json(self) -> bytes:
        """The object's bytes; equal records have equal ones."""
        body = self.model_dump(mode="json")
        return (json.dumps(body, indent=2, sort_keys=True) + "\n").encode()


def stored_record(store: ObjectStore, root: str) -> ExpertRecord | None:
    """The record of a directory, complete or not; None if it has none.

    Raises:
        BadRecord: It cannot be read.
    """
    try:
        data = store.get(f"{root}{RECORD}")
    except FileNotFoundError:
        return None
    try:
        return ExpertRecord.model_validate_json(data)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        msg = (
            f"{root}{RECORD} is no record of an expert: {found:.500}; delete it and, unless they "
            "are a finished model to be used as it is, the files beside it, and materialise the "
            "expert again"
        )
        raise BadRecord(msg) from None


def expert_record(
    store: ObjectStore, layout: MemeLayout, modality: ExpertModality, label: str
) -> ExpertRecord:
    """The record of a whole expert.

    Raises:
        NoExpert: There is none yet.
        UnfinishedExpert: Its files are being written.
        BadRecord: It cannot be read.
    """
    root = layout.expert(modality, label)
    record = stored_record(store, root)
    if record is None:
        msg = f"there is no {root}{RECORD}: materialise memes/{modality}_expert for {label!r} first"
        raise NoExpert(msg)
    if record.state != "complete" or record.hashes.keys() != {*record.files}:
        msg = (
            f"the files in {root} are being written, or that was cut short: wait for the run that "
            f"writes them, or materialise memes/{modality}_expert for {label!r} again"
        )
        raise UnfinishedExpert(msg)
    return record


def publish_expert(
    store: ObjectStore, root: str, record: ExpertRecord, files: Mapping[str, bytes]
) -> ExpertRecord:
    """Write an expert: while its files are replaced, the record says so.

    Args:
        store: Where.
        root: Its directory, with the trailing slash.
        record: What is known of it; its files and their hashes are set here.
        files: By path in the directory.

    Returns:
        The record as it is stored.
    """
    before = stored_record(store, root)
    hashes = {name: Artifact.of(data).sha256 for name, data in sorted(files.items())}
    record = record.model_copy(
        update={"state": "complete", "files": tuple(hashes), "hashes": hashes}
    )
    # Whoever comes after a kill knows the old expert's files by this record alone.
    both = tuple(sorted({*files, *(before.files if before else ())}))
    writing = record.model_copy(update={"state": "writing", "files": both})
    kept = version_root(root, record)
    for name, data in files.items():
        store.put(f"{kept}{name}", data)
    store.put(f"{kept}{RECORD}", record.to_json())
    store.put(f"{root}{RECORD}", writing.to_json())
    for name, data in files.items():
        store.put(f"{root}{name}", data)
    for name in both:
        if name not in files:
            store.delete(f"{root}{name}")
    store.put(f"{root}{RECORD}", record.to_json())
    return record


def version_root(root: str, record: ExpertRecord) -> str:
    """The folder that holds this very expert for good, with the trailing slash.

    It is beside the directory that people know: in it, its files would be taken for that one's.
    """
    name = Artifact.of(record.to_json()).sha256[:16]
    return f"{root.removesuffix('/')}_versions/{name}/"


def version_hashes(root: str, record: ExpertRecord) -> dict[str, str]:
    """sha256 of each file in `version_root`, by key; the record is one of them."""
    kept = version_root(root, record)
    hashes = {**record.hashes, RECORD: Artifact.of(record.to_json()).sha256}
    return {f"{kept}{name}": sha256 for name, sha256 in sorted(hashes.items())}


def damaged_files(store: ObjectStore, root: str, record: ExpertRecord) -> dict[str, str]:
    """Files people know that are not as published -> what is wrong with them; reads all."""
    return _damaged(store, {f"{root}{name}": sha256 for name, sha256 in record.hashes.items()})


def damaged_version(store: ObjectStore, root: str, record: ExpertRecord) -> dict[str, str]:
    """The same, of those in `version_root`."""
    return _damaged(store, version_hashes(root, record))


def _damaged(store: ObjectStore, hashes: Mapping[str, str]) -> dict[str, str]:
    damaged = {}
    for key, sha256 in hashes.items():
        try:
            data = store.get(key)
        except FileNotFoundError:
            data = None
        if problem := content_problem(data, sha256):
            damaged[key] = problem
    return damaged


def remedy(record: ExpertRecord) -> str:
    """What to do if the files of an expert in the store were changed."""
    if record.origin == "found":
        return f"put back those that were taken, or delete {RECORD} to take those that are there"
    return f"materialise memes/{record.modality}_expert for {record.label!r} again"


def found_files(store: ObjectStore, root: str) -> list[str]:
    """Files below a directory, by path in it, if it looks like a model directory; else none."""
    names = [info.key.removeprefix(root) for info in store.list(root)]
    return [name for name in names if name != RECORD] if "config.json" in names else []


def fetch_files(store: ObjectStore, root: str, names: Iterable[str], folder: Path) -> None:
    """Copy files of a directory to this machine."""
    for name in names:
        data = store.get(f"{root}{name}")  # which refuses a name that leads elsewhere
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def expert_folder(
    store: ObjectStore,
    layout: MemeLayout,
    record: ExpertRecord,
    cache_dir: Path,
    root: str | None = None,
) -> Path:
    """A whole expert's directory on this machine, fetched into `cache_dir` if it is not there.

    Several processes may ask at once: each fetches beside the final name and the first to rename
    wins, so a directory under the final name is always complete.

    Args:
        store: Where it is.
        layout: Where there.
        record: Its record.
        cache_dir: Folder on this machine; made if absent.
        root: Its folder in the store; by default its version's.

    Raises:
        ModelMismatch: The files are not those that were recorded.
    """
    root = root or version_root(layout.expert(record.modality, record.label), record)
    final = cache_dir / f"expert-{record.weights_sha256}"
    if not final.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=cache_dir))
        try:
            fetch_files(store, root, record.files, build)
            _verify(build, record, root)
            build.chmod(0o755)  # mkdtemp's 0700 would lock out other users of a shared cache
            try:
                build.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(build, ignore_errors=True)
    _verify(final, record, str(final))
    return final


def _verify(folder: Path, record: ExpertRecord, where: str) -> None:
    try:
        found = hash_model_dir(folder)
    except (ModelUnavailable, FileNotFoundError) as error:
        found = str(error)
    if found != record.weights_sha256:
        msg = (
            f"the files in {where} are not those of the {record.modality} expert on record: "
            f"expected sha256 {record.weights_sha256}, found {found}; if it was replaced "
            f"meanwhile, run again; if files were changed, {remedy(record)}; delete a cached copy"
        )
        raise ModelMismatch(msg)
