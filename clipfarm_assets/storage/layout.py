"""Every key of the store, in one place.

Keys are relative to the store's root and begin with the prefix, ``clipfarm/`` by default. They are
those of the published pipeline, so that an older deployment's bucket is taken as it is.
"""

import datetime as dt
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from clipfarm_assets.contracts.horizons import HORIZONS, Horizon
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES, Modality, Strategy
from clipfarm_assets.storage.keys import check_key

RAW_SUFFIX: Final[dict[Modality, str]] = {"video": "mp4", "audio": "wav", "text": "json"}

_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PART = 10**9


class BadVideoId(ValueError):  # noqa: N818
    """An id that no key may be built from."""


@lru_cache(maxsize=4096)  # several keys are made of an id in a row
def check_video_id(video_id: str) -> str:
    """Return `video_id` if it is 1 to 64 of ``A-Z a-z 0-9 _ -``, or raise `BadVideoId`."""
    if not isinstance(video_id, str) or not _VIDEO_ID.fullmatch(video_id):
        shown = repr(video_id)[:100]
        msg = f"bad video id {shown}: expected 1 to 64 characters of A-Z a-z 0-9 _ -"
        raise BadVideoId(msg)
    return video_id


@dataclass(frozen=True, slots=True)
class ShardRef:
    """Which shard a key names."""

    strategy: Strategy
    date: str
    part: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Builds keys from validated parts.

    Attributes:
        prefix: First segments of every key.
        metadata_key: The horizon CSV; relative to the prefix, or whole if it starts with it.
    """

    prefix: str = "clipfarm"
    metadata_key: str = "metadata/shorts_metadata_horizon.csv"

    def __post_init__(self) -> None:
        """Check both fields; raises `OutsideStore`, a `ValueError`."""
        check_key(self.prefix)
        check_key(self.metadata_key)

    def metadata(self) -> str:
        """``clipfarm/metadata/shorts_metadata_horizon.csv``."""
        if self.metadata_key.startswith(f"{self.prefix}/"):
            return self.metadata_key
        return f"{self.prefix}/{self.metadata_key}"

    def raw(self, modality: Modality, video_id: str) -> str:
        """``clipfarm/raw/video/<id>.mp4``, ``audio/<id>.wav``, ``text/<id>.json``."""
        suffix = RAW_SUFFIX[_modality(modality)]
        return f"{self.prefix}/raw/{modality}/{check_video_id(video_id)}.{suffix}"

    def embeddings_prefix(self, modality: Modality) -> str:
        """``clipfarm/embeddings/<modality>/``, with the trailing slash."""
        return f"{self.prefix}/embeddings/{_modality(modality)}/"

    def embedding(self, modality: Modality, video_id: str) -> str:
        """``clipfarm/embeddings/<modality>/<id>.npy``."""
        return f"{self.embeddings_prefix(modality)}{check_video_id(video_id)}.npy"

    def clip_index(self, date: str) -> str:
        """``clipfarm/index/date=<date>/clip_index.parquet``."""
        return f"{self.clip_indexes_prefix()}date={_date(date)}/clip_index.parquet"

    def clip_indexes_prefix(self) -> str:
        """``clipfarm/index/``, with the trailing slash."""
        return f"{self.prefix}/index/"

    def clip_index_date(self, key: str) -> str | None:
        """The date that `clip_index` made `key` of; None if it never makes that key."""
        folder = key.removeprefix(f"{self.clip_indexes_prefix()}date=")
        date = folder.removesuffix("/clip_index.parquet")
        try:
            return date if self.clip_index(date) == key else None
        except ValueError:
            return None

    def embedding_manifest(self, date: str) -> str:
        """``clipfarm/embeddings/manifests/date=<date>/embedding_manifest.parquet``."""
        folder = f"{self.prefix}/embeddings/manifests/date={_date(date)}"
        return f"{folder}/embedding_manifest.parquet"

    def report(self, asset: str, date: str, name: str) -> str:
        """``clipfarm/reports/<asset>/date=<date>/<name>``: plots for people to open."""
        return check_key(f"{self.prefix}/reports/{asset}/date={_date(date)}/{name}")

    def state(self, stage: str) -> str:
        """``clipfarm/state/<stage>.sqlite``: a stage's published ledger."""
        return f"{self.prefix}/state/{_name(stage)}.sqlite"

    def text_downloader_state(self) -> str:
        """``clipfarm/state/text_downloader.sqlite``, written by the downloader, only read here."""
        return self.state("text_downloader")

    def models_lock(self) -> str:
        """``clipfarm/state/models_lock.json``."""
        return f"{self.prefix}/state/models_lock.json"

    def equivalence(self) -> str:
        """``clipfarm/state/equivalence.json``: where a faster precision is equivalent."""
        return f"{self.prefix}/state/equivalence.json"

    def upkeep_report(self, name: str) -> str:
        """``clipfarm/state/upkeep/<name>.json``: what was removed, and when."""
        return check_key(f"{self.prefix}/state/upkeep/{name}.json")

    def schema_lock(self, strategy: Strategy) -> str:
        """``clipfarm/fused/<strategy>/schema.json``."""
        return f"{self._fused(strategy)}/schema.json"

    def schema_lock_archive(self, strategy: Strategy, version: int) -> str:
        """``clipfarm/fused/<strategy>/schema.v<n>.json``: the lock that a migration replaced."""
        return f"{self._fused(strategy)}/schema.v{_version(version)}.json"

    def fused_manifest(self, strategy: Strategy) -> str:
        """``clipfarm/fused/<strategy>/fused_manifest.parquet``."""
        return f"{self._fused(strategy)}/fused_manifest.parquet"

    def fused_manifest_archive(self, strategy: Strategy, version: int) -> str:
        """``clipfarm/fused/<strategy>/fused_manifest.v<n>.parquet``."""
        return f"{self._fused(strategy)}/fused_manifest.v{_version(version)}.parquet"

    def manifest_deltas_prefix(self, strategy: Strategy) -> str:
        """``clipfarm/fused/<strategy>/manifest_deltas/``, with the trailing slash."""
        return f"{self._fused(strategy)}/manifest_deltas/"

    def manifest_delta(self, strategy: Strategy, sha256: str) -> str:
        """``clipfarm/fused/<strategy>/manifest_deltas/<sha256>.parquet``: immutable."""
        if not _SHA256.fullmatch(sha256):
            msg = f"bad delta hash {sha256[:100]!r}: expected a sha256 in hex"
            raise ValueError(msg)
        return f"{self.manifest_deltas_prefix(strategy)}{sha256}.parquet"

    def manifest_delta_sha256(self, strategy: Strategy, key: str) -> str | None:
        """The hash that `manifest_delta` made `key` of; None if it never makes that key."""
        name = key.removeprefix(self.manifest_deltas_prefix(strategy)).removesuffix(".parquet")
        made = _SHA256.fullmatch(name) and self.manifest_delta(strategy, name) == key
        return name if made else None

    def shards_prefix(self, strategy: Strategy, date: str | None = None) -> str:
        """``clipfarm/fused/<strategy>/shards/[date=<date>/]``, with the trailing slash."""
        folder = f"{self._fused(strategy)}/shards/"
        return folder if date is None else f"{folder}date={_date(date)}/"

    def shard(self, strategy: Strategy, date: str, part: int) -> str:
        """``clipfarm/fused/<strategy>/shards/date=<date>/part-0000.npz``."""
        if not 0 <= part < _MAX_PART:
            msg = f"bad shard part {part}: expected 0 or more"
            raise ValueError(msg)
        return f"{self.shards_prefix(strategy, date)}part-{part:04d}.npz"

    def shard_ref(self, key: str) -> ShardRef | None:
        """What `shard` made `key` from; None if `shard` never makes that key."""
        for strategy in STRATEGIES:
            match = re.fullmatch(
                re.escape(self.shards_prefix(strategy))
                + r"date=(\d{4}-\d\d-\d\d)/part-(\d{4,9})\.npz",
                key,
                flags=re.ASCII,
            )
            if match is None:
                continue
            try:
                ref = ShardRef(strategy, _date(match[1]), int(match[2]))
            except ValueError:
                return None
            return ref if self.shard(ref.strategy, ref.date, ref.part) == key else None
        return None

    def training_dataset(self, strategy: Strategy, horizon: Horizon) -> str:
        """``clipfarm/training/strategy=<s>/horizon=<h>/dataset.json``: names the current one."""
        return f"{self.prefix}/training/{_job(strategy, horizon)}/dataset.json"

    def training_dataset_part(
        self, strategy: Strategy, horizon: Horizon, sha256: str, name: str
    ) -> str:
        """``clipfarm/training/strategy=<s>/horizon=<h>/<sha256>/<name>``: immutable."""
        if not _SHA256.fullmatch(sha256):
            msg = f"bad dataset hash {sha256[:100]!r}: expected a sha256 in hex"
            raise ValueError(msg)
        return check_key(f"{self.prefix}/training/{_job(strategy, horizon)}/{sha256}/{name}")

    def snapshots_prefix(self, run_id: str | None = None) -> str:
        """``clipfarm/models/snapshots/[run_id=<run_id>/]``, with the trailing slash."""
        folder = f"{self.prefix}/models/snapshots/"
        return folder if run_id is None else f"{folder}run_id={check_run_id(run_id)}/"

    def snapshot(
        self, run_id: str, strategy: Strategy, horizon: Horizon, family: str | None = None
    ) -> str:
        """``…/run_id=<run_id>/[model=<family>/]strategy=<s>/horizon=<h>/``.

        Without a family it is the snapshot of an all-model run, with one that of a single-model
        run. Source: the training contract, section 9.
        """
        model = "" if family is None else f"model={_name(family)}/"
        return f"{self.snapshots_prefix(run_id)}{model}{_job(strategy, horizon)}/"

    def snapshot_staging(
        self, run_id: str, strategy: Strategy, horizon: Horizon, family: str | None = None
    ) -> str:
        """``clipfarm/models/staging/…/``, below it as `snapshot`: of attempts in progress."""
        root = self.snapshot(run_id, strategy, horizon, family)
        return f"{self.prefix}/models/staging/{root.removeprefix(self.snapshots_prefix())}"

    def comparison(self, run_id: str, name: str) -> str:
        """``clipfarm/models/snapshots/run_id=<run_id>/comparison/<name>``."""
        return check_key(f"{self.snapshots_prefix(run_id)}comparison/{name}")

    def model_registry(self, horizon: Horizon) -> str:
        """``clipfarm/models/registry/horizon=<h>/registry.json``."""
        return f"{self.prefix}/models/registry/horizon={_horizon(horizon)}/registry.json"

    def clip_predictions(self, date: str) -> str:
        """``clipfarm/predictions/date=<date>/clip_predictions.parquet``."""
        return f"{self.prefix}/predictions/date={_date(date)}/clip_predictions.parquet"

    def _fused(self, strategy: Strategy) -> str:
        return f"{self.prefix}/fused/{_strategy(strategy)}"


def check_run_id(run_id: str) -> str:
    """Return `run_id` if it is 1 to 64 of ``A-Z a-z 0-9 _ . -``, the first no sign.

    Raises:
        ValueError: It isn't.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        msg = (
            f"bad run id {run_id!r:.100}: expected 1 to 64 characters of A-Z a-z 0-9 _ . - that "
            "begin with a letter or digit"
        )
        raise ValueError(msg)
    return run_id


def _strategy(strategy: Strategy) -> Strategy:
    if strategy not in STRATEGIES:
        msg = f"unknown fusion strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}"
        raise ValueError(msg)
    return strategy


def _horizon(horizon: Horizon) -> Horizon:
    if horizon not in HORIZONS:
        msg = f"unknown horizon {horizon!r}: expected one of {', '.join(map(str, HORIZONS))}"
        raise ValueError(msg)
    return horizon


def _job(strategy: Strategy, horizon: Horizon) -> str:
    """One of the suite's jobs, as keys name it."""
    return f"strategy={_strategy(strategy)}/horizon={_horizon(horizon)}"


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        msg = f"bad name {name[:100]!r}: expected a-z, then a-z 0-9 _"
        raise ValueError(msg)
    return name


def _modality(modality: Modality) -> Modality:
    if modality not in MODALITIES:
        msg = f"unknown modality {modality!r}: expected one of {', '.join(MODALITIES)}"
        raise ValueError(msg)
    return modality


def _date(date: str) -> str:
    try:
        canonical = dt.date.fromisoformat(date).isoformat()
    except (TypeError, ValueError):
        canonical = ""
    if canonical != date or not date:
        msg = f"bad date {str(date)[:100]!r}: expected a calendar date as YYYY-MM-DD"
        raise ValueError(msg)
    return date


def _version(version: int) -> int:
    if version < 1:
        msg = f"bad lock version {version}: versions count from 1"
        raise ValueError(msg)
    return version
