"""What an embedding stage would take up, and what would come of it."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.embed_steps import absent
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets.pipelines.flow import batched, ordered_map
from clipfarm_assets.pipelines.inspect.foreseen import ForeseenStore
from clipfarm_assets.pipelines.inspect.planned_part import PlannedPart, failed_so
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.storage.layout import Layout

_ASKED_AT_ONCE: Final = 32
_WORTH_LISTING: Final = 2000
"""From so many objects on, one listing of their folder costs less than asking for each."""
_ROWS_AT_ONCE: Final = 1000


def plan_embedding(
    deployment: Deployment,
    store: ForeseenStore,
    modality: Modality,
    version: EmbeddingVersion,
    options: EmbedOptions,
    date: str,
    index: pa.Table,
) -> PlannedPart:
    """What one modality's stage would do on a date; its ledger and store then foresee it done.

    Args:
        deployment: Over a ledger and a store that foresee.
        store: Its store.
        modality: Of which stage.
        version: What vectors would be made with.
        options: How the run works.
        date: ISO.
        index: Its clips, table of `clip_tables.CLIP_INDEX`.
    """
    stage = EmbeddingStage(deployment, modality, _never, options, known_version=lambda: version)
    report = StageReport(stage.stage, date, considered=index.num_rows)
    encoder = EncoderOnDemand(deployment, _never, lambda: version, before_use=_never)
    numbers = stage.delta(index, encoder, report)
    taken = index.select(["video_id", "source_hash", "captured_at"]).take(
        pa.array(numbers, pa.int64())
    )
    ids: list[str] = taken["video_id"].to_pylist()
    there = raw_objects(deployment, modality, ids)
    expected: Counter[str] = Counter()
    for rows in batched(taken.to_pylist(), _ROWS_AT_ONCE):
        before = deployment.ledger.rows(stage.stage, [row["video_id"] for row in rows])
        items = [
            _foreseen(
                _Asked(before.get(row["video_id"]), **row, has_raw=row["video_id"] in there),
                deployment.layout,
                modality,
                version,
                options.max_fail_retries,
            )
            for row in rows
        ]
        deployment.ledger.commit(stage.stage, items)
        expected.update(item.status for item in items)
        store.foreseen.update(item.artifact_key for item in items if item.artifact_key)
    return PlannedPart.of(stage.stage, date, index.num_rows, report, expected)


def raw_objects(deployment: Deployment, modality: Modality, video_ids: Sequence[str]) -> set[str]:
    """Which of the clips have their raw object."""
    layout, store = deployment.layout, deployment.store
    keys = {layout.raw(modality, video_id): video_id for video_id in video_ids}
    if len(keys) >= _WORTH_LISTING:
        folder = next(iter(keys)).rpartition("/")[0]
        return {keys[info.key] for info in store.list(f"{folder}/") if info.key in keys}
    asked = ordered_map(store.exists, keys, workers=_ASKED_AT_ONCE, ahead=2 * _ASKED_AT_ONCE)
    with closing(asked):
        return {i for i, exists in zip(keys.values(), asked, strict=True) if exists}


@dataclass(frozen=True)
class _Asked:
    """A clip that is taken up: how it stands, its index row, and whether it has a raw object."""

    before: Item | None
    video_id: str
    source_hash: str
    captured_at: str
    has_raw: bool

    def was_empty(self, why_absent: str) -> bool:
        """Whether its raw object was there and held nothing: it waits for another reason."""
        before = self.before
        return (
            before is not None
            and before.source_hash == self.source_hash
            and before.status == statuses.MISSING_RAW_OBJECT
            and before.error != why_absent
        )


def _foreseen(
    asked: _Asked,
    layout: Layout,
    modality: Modality,
    version: EmbeddingVersion,
    max_fail_retries: int,
) -> Item:
    """A clip's state after the run: what went wrong does so again, and all else goes well."""
    now, details = datetime.now(UTC), {rules.CAPTURED_AT: asked.captured_at}
    why = absent(layout.raw(modality, asked.video_id))
    if not asked.has_raw or asked.was_empty(why):
        return rules.settle_waiting(
            asked.before,
            asked.source_hash,
            statuses.MISSING_RAW_OBJECT,
            why,
            now,
            video_id=asked.video_id,
            details=details,
        )
    if failed := failed_so(asked.before, asked.source_hash, version.id):
        return rules.settle_failure(
            failed,
            asked.source_hash,
            failed.error or "",
            max_fail_retries,
            now,
            video_id=asked.video_id,
            version=version.id,
            details=details,
        )
    return rules.settle_success(
        asked.before,
        asked.source_hash,
        statuses.SUCCESS,
        now,
        video_id=asked.video_id,
        artifact_key=layout.embedding(modality, asked.video_id),
        version=version.id,
        details=details,
    )


def _never(*_: object) -> NoReturn:
    msg = "a plan asked for an encoder, and only a run loads one"
    raise RuntimeError(msg)
