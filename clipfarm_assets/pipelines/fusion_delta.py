"""Which clips of a date a strategy has to fuse, and why."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.vectors import Availability

TEXT_ARRIVED = "text_arrived"
OBJECT_MISSING = "object_missing"

# Clips whose vectors are asked for at once; a question is a request of a few bytes.
_ASKED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip in the delta, why it is, and what the ledger says of its three vectors."""

    video_id: str
    source_hash: str
    captured_at: str
    reason: str
    availability: Mapping[Modality, Availability]


def fusion_delta(
    deployment: Deployment,
    lock: SchemaLock,
    index: pa.Table,
    availability: Mapping[str, Mapping[Modality, Availability]],
    known: Mapping[str, Item],
    report: StageReport,
    *,
    retry_terminal: bool = False,
    verify_objects: bool = False,
) -> list[Candidate]:
    """The clips to fuse, in the order of the index.

    Args:
        deployment: Whose clips.
        lock: The lock in force.
        index: One date's clips, table of `clip_tables.CLIP_INDEX`.
        availability: Of all of them, by video_id.
        known: Their states in the stage, by video_id.
        report: Gets the reasons, and the numbers of rows that the ledger is ahead of, and of clips
            that were removed for good.
        retry_terminal: Try items again that ended as `fail_terminal`.
        verify_objects: Fuse clips again whose shard is gone from the store.
    """
    terminal = statuses.FUSION_TERMINAL
    if retry_terminal:
        terminal = terminal - {statuses.FAIL_TERMINAL}
    lost = _lost_shards(deployment, lock, known.values()) if verify_objects else frozenset[str]()
    columns = [index[name].to_pylist() for name in ("video_id", "source_hash", "captured_at")]
    rows: list[tuple[str, str, str]] = list(zip(*columns, strict=True))
    reasons: dict[str, str] = {}
    placeholders: list[str] = []
    for video_id, source_hash, captured_at in rows:
        before = known.get(video_id)
        if rules.is_forgotten(before):
            report.totals["forgotten"] += 1
            continue
        if rules.is_outdated(before, captured_at):
            report.totals["outdated_index_rows"] += 1
            continue
        # Rows of an older deployment name no lock: they are of its first.
        version = lock.id if before and before.version else None
        reason = rules.delta_reason(before, source_hash, terminal, version=version)
        if reason is None and before is not None:
            if before.version is None and lock.lock_version > 1:
                reason = "version_changed"
            elif before.artifact_key in lost:
                reason = OBJECT_MISSING
            elif before.status == statuses.SUCCESS_TEXT_PLACEHOLDER:
                placeholders.append(video_id)
        if reason:
            reasons[video_id] = reason
    for video_id in _with_all_vectors(deployment, placeholders, availability):
        reasons[video_id] = TEXT_ARRIVED
    delta = [
        Candidate(*row, reason, availability[row[0]])
        for row in rows
        if (reason := reasons.get(row[0]))
    ]
    for candidate in delta:
        report.take_up(candidate.video_id, candidate.reason)
    return delta


def _lost_shards(deployment: Deployment, lock: SchemaLock, items: Iterable[Item]) -> set[str]:
    """Keys of shards that the ledger knows and the store has no more."""
    prefix = deployment.layout.shards_prefix(lock.fusion_strategy)
    there = {info.key for info in deployment.store.list(prefix)}
    return {item.artifact_key for item in items if item.artifact_key} - there


def _with_all_vectors(
    deployment: Deployment,
    video_ids: Sequence[str],
    availability: Mapping[str, Mapping[Modality, Availability]],
) -> list[str]:
    """Those of the clips whose three vectors may be used and are there."""

    def all_exist(video_id: str) -> bool:
        # Text first, for it is what is missing.
        vectors = availability[video_id]
        return all(deployment.store.exists(vectors[m].key) for m in reversed(MODALITIES))

    usable = [
        video_id
        for video_id in video_ids
        if not any(vector.problem for vector in availability[video_id].values())
    ]
    asked = ordered_map(all_exist, usable, workers=_ASKED_AT_ONCE, ahead=2 * _ASKED_AT_ONCE)
    with closing(asked):
        return [video_id for video_id, there in zip(usable, asked, strict=True) if there]
