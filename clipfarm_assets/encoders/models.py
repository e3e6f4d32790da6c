"""Which model an encoder uses: from settings, environment and profile to files on this machine."""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, get_args

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.encoders.config import EncoderConfig
from clipfarm_assets.encoders.models_lock import ModelsLock

Profile = Literal["pretrained", "demo"]

PROFILE_VARIABLE: Final = "CLIPFARM_ENCODERS"
MODEL_VARIABLES: Final[Mapping[Modality, str]] = {
    "video": "CLIPFARM_VIDEO_MODEL",
    "audio": "CLIPFARM_AUDIO_MODEL",
    "text": "CLIPFARM_TEXT_MODEL",
}

# Commits of the hub's repositories, so that a change there cannot change vectors here.
PRETRAINED: Final[Mapping[Modality, tuple[str, str]]] = {
    "video": ("MCG-NJU/videomae-base", "dc740ceda42fce44faed2ea03c6d447db72f6af9"),
    "audio": ("facebook/wav2vec2-base-960h", "22aad52d435eb6dbaf354bdad9b0da84ce7d6156"),
    "text": (
        "sentence-transformers/all-MiniLM-L6-v2",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    ),
}

STAND_IN_FLAG: Final = "clipfarm_stand_in"
"""Key of a stand-in's config.json, so that it is known as one wherever it is loaded from."""

_DEFAULT_HUB_REVISION: Final = "main"
_LOCAL_REVISION: Final = "local"
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# What loading reads. The same patterns decide what is downloaded and what is hashed, so that a
# local copy of a hub model has the hub model's hash, and a README or a cache folder has none.
_FILE_PATTERNS: Final = ("*.safetensors", "*.json", "*.txt", "*.model")
_OTHER_RUNTIMES: Final = ("onnx/*", "openvino/*", "coreml/*", ".*", "*/.*")
_PICKLED_WEIGHTS: Final = "*pytorch_model*.bin"
_YOUNG_SECONDS: Final = 2.0


class ModelUnavailable(RuntimeError):  # noqa: N818 - reads as the state of the world it is
    """No usable model: not found, not downloadable, or its files cannot be loaded."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine.

    Attributes:
        path: Directory of the model's files.
        name: Hub name, or the directory's name.
        revision: Commit on the hub, or ``sha256:<weights_sha256>`` for a directory.
        weights_sha256: Hash over the model's files, see `hash_model_dir`.
        is_stand_in: True for seeded weights that stand in for trained ones.
    """

    path: Path
    name: str
    revision: str
    weights_sha256: str
    is_stand_in: bool


def embedding_version(
    modality: Modality,
    resolved: ResolvedModel,
    preprocess_version: str,
    config: EncoderConfig,
    dim: int,
) -> EmbeddingVersion:
    """The provenance of vectors that this model makes with these settings."""
    return EmbeddingVersion(
        modality=modality,
        model_name=resolved.name,
        model_revision=resolved.revision,
        weights_sha256=resolved.weights_sha256,
        preprocess_version=preprocess_version,
        params=config.version_params(),
        dim=dim,
    )


def encoder_profile(environ: Mapping[str, str] | None = None) -> Profile:
    """The profile named by ``CLIPFARM_ENCODERS``; unset or empty means ``pretrained``.

    Raises:
        ValueError: It names no profile.
    """
    value = (os.environ if environ is None else environ).get(PROFILE_VARIABLE, "") or "pretrained"
    for profile in get_args(Profile):
        if value == profile:
            return profile  # type: ignore[no-any-return]
    choices = ", ".join(get_args(Profile))
    msg = f"{PROFILE_VARIABLE} must be one of {choices}, found {value!r}"
    raise ValueError(msg)


def resolve_model(
    modality: Modality,
    config: EncoderConfig,
    profile: Profile,
    cache_dir: Path,
    *,
    models_lock: ModelsLock | None = None,
) -> ResolvedModel:
    """Find, download if need be, and hash the model an encoder is to use.

    The first of these that is set decides: ``config.model``; the environment variable of
    `MODEL_VARIABLES`; the profile's default. A model is a local directory or a hub name, the
    latter with ``@revision`` if wanted. Hub models live in Hugging Face's own cache (``HF_HOME``).

    With a lock, a hub revision that was resolved before is resolved to the same commit again,
    and other files than the recorded ones are refused.

    Raises:
        ModelUnavailable: The model cannot be found or downloaded.
        ModelMismatch: The lock recorded other files.
        ValueError: The settings contradict each other.
    """
    variable = MODEL_VARIABLES[modality]
    named = _named(modality, config)
    if named is not None:
        directory, name, revision = named
    elif profile == "demo":
        from clipfarm_assets.encoders.demo_models import demo_model_dir, demo_model_name

        directory, revision = demo_model_dir(modality, cache_dir), None
        name = demo_model_name(directory)
    else:
        directory = None
        name, revision = PRETRAINED[modality]

    if directory is not None:
        requested = _LOCAL_REVISION
        resolved = _resolved(directory, name, None)
    else:
        requested = revision or _DEFAULT_HUB_REVISION
        locked = models_lock.model(modality, name, requested) if models_lock else None
        snapshot = _download(name, locked.revision if locked else requested, variable)
        resolved = _resolved(snapshot, name, snapshot.name)
    if models_lock is not None:
        models_lock.record_model(
            modality,
            name,
            requested,
            revision=resolved.revision,
            weights_sha256=resolved.weights_sha256,
        )
    return resolved


def model_on_record(
    modality: Modality,
    config: EncoderConfig,
    profile: Profile,
    cache_dir: Path,
    models_lock: ModelsLock,
) -> ResolvedModel | None:
    """What `resolve_model` would give; nothing is downloaded, built or recorded for it.

    A hub model is told by what the lock has of it: its files are not looked at.

    Returns:
        The model, whose path means nothing; None if the lock has never recorded it, so that it is
        one that made no vector here.

    Raises:
        ModelUnavailable: It is named wrongly, or is a stand-in that was not built yet.
        ValueError: The settings contradict each other.
    """
    named = _named(modality, config)
    if named is not None:
        directory, name, revision = named
    elif profile == "demo":
        from clipfarm_assets.encoders.demo_models import demo_model_name, demo_model_path

        directory, revision = demo_model_path(modality, cache_dir), None
        name = demo_model_name(directory)
        if not directory.is_dir():
            msg = f"the {modality} stand-in {directory} was not built yet: the first run builds it"
            raise ModelUnavailable(msg)
    else:
        directory = None
        name, revision = PRETRAINED[modality]
    if directory is not None:
        return _resolved(directory, name, None)
    locked = models_lock.model(modality, name, revision or _DEFAULT_HUB_REVISION)
    if locked is None:
        return None
    return ResolvedModel(Path(name), name, locked.revision, locked.weights_sha256, False)


def _named(modality: Modality, config: EncoderConfig) -> tuple[Path | None, str, str | None] | None:
    """The model that settings or environment name, as `_read_name`; None if neither does.

    Raises:
        ValueError: A revision without a model.
    """
    variable = MODEL_VARIABLES[modality]
    value = config.model or os.environ.get(variable)
    if config.revision and not config.model:
        msg = f"revision {config.revision!r} is set without a model: set `model` as well"
        raise ValueError(msg)
    if not value:
        return None
    return _read_name(value, "the config's model" if config.model else variable, config.revision)


def resolve_reference(value: str, origin: str, *, variable: str) -> ResolvedModel:
    """Find, download if need be, and hash the model that one text names.

    Args:
        value: A directory, or a hub name ``[@revision]``.
        origin: Where it was said, for errors.
        variable: The environment variable that could say another, for errors.

    Raises:
        ModelUnavailable: The model cannot be found or downloaded.
    """
    directory, name, revision = _read_name(value, origin, None)
    if directory is not None:
        return _resolved(directory, name, None)
    snapshot = _download(name, revision or _DEFAULT_HUB_REVISION, variable)
    return _resolved(snapshot, name, snapshot.name)


def resolved_directory(path: Path, name: str) -> ResolvedModel:
    """A directory as a model of that name.

    Raises:
        ModelUnavailable: It holds no model.
    """
    return _resolved(path, name, None)


def hash_model_dir(path: Path) -> str:
    """sha256 in hex over the model's files: sorted relative paths, each with its own sha256.

    Weights, configuration and tokenizer files count, and pickled weights only where there are no
    safetensors; nothing else does.

    Raises:
        ModelUnavailable: There are no weights.
    """
    files = model_files(path)
    states = [(path / relative).stat() for relative in files]
    stamps = tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states)
    # A clock tick may hide a change right after another: files as young as that are always read.
    if time.time() - max(max(s.st_mtime, s.st_ctime) for s in states) < _YOUNG_SECONDS:
        return _hash_files(path, tuple(files))
    return _hash_unchanged_files(path, tuple(files), stamps)


@lru_cache(maxsize=16)
def _hash_unchanged_files(
    path: Path, files: tuple[str, ...], _stamps: tuple[tuple[int, ...], ...]
) -> str:
    """Once a process: a run asks for a model's hash several times, and it takes as long as loading.

    Inode, size and times stand for the content, as they do for git.
    """
    return _hash_files(path, files)


def _hash_files(path: Path, files: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for relative in files:
        with (path / relative).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{relative}\0{digest}\n".encode())
    return total.hexdigest()


def model_files(path: Path) -> list[str]:
    """Relative POSIX paths of the files that loading a model directory reads, sorted."""
    names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    names = [name for name in names if not _matches(name, _OTHER_RUNTIMES)]
    files = [name for name in names if _matches(name, _FILE_PATTERNS)]
    if not has_safetensors(path):
        files += [name for name in names if fnmatch(name, _PICKLED_WEIGHTS)]
    if not any(name.endswith((".safetensors", ".bin")) for name in files):
        msg = (
            f"{path} holds no model weights: expected model.safetensors or pytorch_model.bin, "
            f"found {sorted(names)[:10]}"
        )
        raise ModelUnavailable(msg)
    return sorted(files)


def has_safetensors(path: Path) -> bool:
    """Whether a model directory offers safetensors weights at its top or in its first module."""
    return any(path.glob("*.safetensors")) or any(path.glob("0_*/*.safetensors"))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _resolved(path: Path, name: str, revision: str | None) -> ResolvedModel:
    weights = hash_model_dir(path)
    return ResolvedModel(path, name, revision or f"sha256:{weights}", weights, _is_stand_in(path))


def _is_stand_in(path: Path) -> bool:
    config = path / "config.json"
    if not config.is_file():
        return False
    try:
        data = json.loads(config.read_bytes())
    except ValueError as error:
        msg = f"{config} is not valid JSON ({error}); get the model's files again"
        raise ModelUnavailable(msg) from error
    return isinstance(data, dict) and data.get(STAND_IN_FLAG) is True


def _read_name(
    value: str, origin: str, config_revision: str | None
) -> tuple[Path | None, str, str | None]:
    """A model value as (directory or None, name, revision or None)."""
    directory = Path(value).expanduser()
    if directory.is_dir():
        if config_revision:
            msg = f"{origin} {value!r} is a directory, which has no revision {config_revision!r}"
            raise ValueError(msg)
        directory = directory.resolve()
        return directory, directory.name, None
    name, _, revision = value.partition("@")
    if not _HUB_NAME.fullmatch(name):
        msg = f"{origin} is {value!r}: neither an existing directory nor a hub name[@revision]"
        raise ModelUnavailable(msg)
    if revision and config_revision and revision != config_revision:
        msg = f"{origin} is {value!r}, but the config's revision is {config_revision!r}: set one"
        raise ValueError(msg)
    return None, name, revision or config_revision


def _download(name: str, revision: str, variable: str) -> Path:
    """The hub model's snapshot directory, whose name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_OTHER_RUNTIMES),
            )
        )

    try:
        path = fetch(_FILE_PATTERNS)
        return path if has_safetensors(path) else fetch((*_FILE_PATTERNS, _PICKLED_WEIGHTS))
    except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        msg = (
            f"cannot get the model {name} at revision {revision} "
            f"({type(error).__name__}: {reason}); without a network, fill the cache at HF_HOME on "
            f"a connected machine, or set {variable} to a local model directory, or set "
            f"{PROFILE_VARIABLE}=demo for seeded stand-ins"
        )
        raise ModelUnavailable(msg) from error
