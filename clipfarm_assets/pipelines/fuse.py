"""The fusion stage of one strategy: delta -> gate -> read vectors -> shard -> ledger.

A shard is written whole, under a part number nobody has, and never again. It declares its rows
itself, so a run killed between a shard and its ledger rows loses nothing: the next run finds the
shard and takes its rows from it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.contracts.text_gate import Gate, gate
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment, TextStates
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.shards import ledger_rows, put_shard, take_over_orphans
from clipfarm_assets.pipelines.vectors import (
    Availability,
    ClipVectors,
    available,
    parse,
    version_gate,
)

SHARD_ROWS = 2048
TEXT_ARRIVED = "text_arrived"


@dataclass(frozen=True)
class FuseOptions:
    """How a run works.

    Attributes:
        shard_rows: Most rows of a shard.
        read_ahead: Clips whose vectors are fetched together.
        max_fail_retries: Failures of one source kept as `fail`; the next one is `fail_terminal`.
        terminal_text_statuses: Text statuses after which a placeholder is approved.
        retry_terminal: Try items again that ended as `fail_terminal`.
        verify_objects: Fuse clips again whose shard is gone from the store.
    """

    shard_rows: int = SHARD_ROWS
    read_ahead: int = 256
    max_fail_retries: int = statuses.DEFAULT_MAX_FAIL_RETRIES
    terminal_text_statuses: Collection[str] = statuses.DEFAULT_TERMINAL_TEXT_STATUSES
    retry_terminal: bool = False
    verify_objects: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip in the delta, why it is, and what the ledger says of its three vectors."""

    video_id: str
    source_hash: str
    captured_at: str
    reason: str
    availability: Mapping[Modality, Availability]


@dataclass(frozen=True, slots=True)
class _Row:
    """A clip ready for a shard. `vectors` has the zero vector where text is a placeholder."""

    candidate: Candidate
    verdict: Gate
    vectors: Mapping[Modality, NDArray[np.float32]]
    retry_count: int


@dataclass(frozen=True, slots=True)
class _Settled:
    """A clip that isn't fused now, with its ledger row."""

    item: Item


@dataclass
class FusionStage:
    """One strategy's stage over one or more dates of a deployment."""

    deployment: Deployment
    strategy: Strategy
    options: FuseOptions = field(default_factory=FuseOptions)
    say: Say = silent

    @property
    def stage(self) -> str:
        """The ledger's name of the stage."""
        return statuses.fusion_stage(self.strategy)

    def run(self, by_date: Mapping[str, pa.Table]) -> dict[str, StageReport]:
        """Fuse what changed on each date; the state is restored before and published after.

        Args:
            by_date: Date -> table of `clip_tables.CLIP_INDEX`.

        Raises:
            NoLock: The strategy has no schema lock.
            LockMismatch: A vector is of another shape or embedding version than the lock says.
        """
        deployment = self.deployment
        for modality in MODALITIES:
            deployment.restore(statuses.embedding_stage(modality))
        deployment.restore(self.stage)
        lock = load_lock(deployment, self.strategy)
        texts = deployment.text_states()
        candidates, reports = {}, {}
        vectors = {date: available(deployment, index) for date, index in by_date.items()}
        # Before anything is written: a version the lock doesn't name stops the run here, also where
        # the clip itself is fused already: its vector is no longer what it was fused from.
        version_gate(deployment, lock, [v for found in vectors.values() for v in found.values()])
        for date, index in by_date.items():
            reports[date] = StageReport(self.stage, date, considered=index.num_rows)
            take_over_orphans(self.deployment, lock, date, index, self.say)
            candidates[date] = self._delta(index, vectors[date], lock, reports[date])
        for date, found in candidates.items():
            self._run_date(date, found, lock, texts, reports[date])
        deployment.publish(self.stage)
        return reports

    def _delta(
        self,
        index: pa.Table,
        availability: Mapping[str, Mapping[Modality, Availability]],
        lock: SchemaLock,
        report: StageReport,
    ) -> list[Candidate]:
        ids = index["video_id"].to_pylist()
        previous = self.deployment.ledger.rows(self.stage, ids)
        terminal = statuses.FUSION_TERMINAL
        if self.options.retry_terminal:
            terminal = terminal - {statuses.FAIL_TERMINAL}
        lost = self._lost_shards(previous.values()) if self.options.verify_objects else ()
        delta = []
        for row in index.to_pylist():
            before = previous.get(row["video_id"])
            if rules.is_outdated(before, row["captured_at"]):
                report.totals["outdated_index_rows"] += 1
                continue
            reason = rules.delta_reason(
                before,
                row["source_hash"],
                terminal,
                # Rows of an older deployment name no lock: they are of its first.
                version=lock.id if before and before.version else None,
            )
            if reason is None and before is not None:
                if before.version is None and lock.lock_version > 1:
                    reason = "version_changed"
                elif before.artifact_key in lost:
                    reason = "object_missing"
                elif before.status == statuses.SUCCESS_TEXT_PLACEHOLDER and (
                    self._all_exist(availability[row["video_id"]])
                ):
                    reason = TEXT_ARRIVED
            if reason:
                report.reasons[reason] += 1
                delta.append(
                    Candidate(
                        row["video_id"],
                        row["source_hash"],
                        row["captured_at"],
                        reason,
                        availability[row["video_id"]],
                    )
                )
        return delta

    def _lost_shards(self, items: Iterable[Item]) -> set[str]:
        """Keys of shards that the ledger knows and the store has no more."""
        prefix = self.deployment.layout.shards_prefix(self.strategy)
        there = {info.key for info in self.deployment.store.list(prefix)}
        return {item.artifact_key for item in items if item.artifact_key} - there

    def _all_exist(self, vectors: Mapping[Modality, Availability]) -> bool:
        """Whether all three may be used and are there; text first, for it is what is missing."""
        if any(vector.problem for vector in vectors.values()):
            return False
        store = self.deployment.store
        return all(store.exists(vectors[modality].key) for modality in reversed(MODALITIES))

    def _run_date(
        self,
        date: str,
        candidates: Sequence[Candidate],
        lock: SchemaLock,
        texts: TextStates,
        report: StageReport,
    ) -> None:
        progress = Progress(f"fuse {self.strategy} {date}", len(candidates), self.say)
        previous = self.deployment.ledger.rows(self.stage, [c.video_id for c in candidates])
        waiting: list[_Row] = []
        for batch in batched(candidates, self.options.read_ahead):
            settled: list[Item] = []
            for outcome in self._read(batch, lock, texts, previous):
                if isinstance(outcome, _Settled):
                    settled.append(outcome.item)
                    report.count(outcome.item.video_id, outcome.item.status, outcome.item.error)
                    continue
                waiting.append(outcome)
                if len(waiting) == self.options.shard_rows:
                    self._write_shard(date, waiting, lock, report)
                    waiting = []
            self.deployment.ledger.commit(self.stage, settled)
            progress.step(len(batch))
        if waiting:
            self._write_shard(date, waiting, lock, report)
        report.version = lock.id
        report.seconds = progress.seconds

    def _read(
        self,
        batch: Sequence[Candidate],
        lock: SchemaLock,
        texts: TextStates,
        previous: Mapping[str, Item],
    ) -> Iterator[_Row | _Settled]:
        """Gate each clip of the batch and read its vectors, in order."""
        keys = [
            vector.key
            for candidate in batch
            for vector in candidate.availability.values()
            if not vector.problem
        ]
        objects = dict(self.deployment.store.get_many(keys))
        for candidate in batch:
            found = parse(candidate.availability, objects, lock)
            before = previous.get(candidate.video_id)
            if found.broken:
                yield _Settled(
                    rules.settle_failure(
                        before,
                        candidate.source_hash,
                        "; ".join(found.broken),
                        self.options.max_fail_retries,
                        datetime.now(UTC),
                        video_id=candidate.video_id,
                        version=lock.id,
                        details={rules.CAPTURED_AT: candidate.captured_at},
                    )
                )
                continue
            verdict = self._gate(candidate, found, texts)
            if candidate.reason == TEXT_ARRIVED and before and verdict.text_source != "full":
                # Nothing to upgrade with after all: what is fused stays.
                yield _Settled(before)
            elif not verdict.fuses:
                yield _Settled(
                    rules.settle_waiting(
                        before,
                        candidate.source_hash,
                        verdict.status,
                        verdict.reason,
                        datetime.now(UTC),
                        video_id=candidate.video_id,
                        details={rules.CAPTURED_AT: candidate.captured_at},
                    )
                )
            else:
                vectors = {"text": np.zeros(lock.text_dim, dtype=np.float32), **found.usable}
                same_source = before is not None and before.source_hash == candidate.source_hash
                retry_count = before.retry_count if before and same_source else 0
                yield _Row(candidate, verdict, vectors, retry_count)

    def _gate(self, candidate: Candidate, found: ClipVectors, texts: TextStates) -> Gate:
        verdict = gate(
            candidate.source_hash,
            missing_required=[
                f"{m}: {found.missing[m]}" for m in ("video", "audio") if m in found.missing
            ],
            has_text="text" in found.usable,
            text_states_available=not texts.unavailable,
            text_state=texts.by_id.get(candidate.video_id),
            terminal_text_statuses=self.options.terminal_text_statuses,
        )
        if verdict.status == statuses.MISSING_REQUIRED_MODALITY:
            return verdict
        text = candidate.availability["text"]
        if text.outdated:
            # There are words, so no placeholder for them: they wait to be embedded again.
            return replace(verdict, status=statuses.MISSING_TEXT_PENDING, reason=text.problem)
        if verdict.status == statuses.MISSING_TEXT_STATE_UNAVAILABLE:
            return replace(verdict, reason=f"{verdict.reason}: {texts.unavailable}")
        return verdict

    def _write_shard(
        self, date: str, rows: Sequence[_Row], lock: SchemaLock, report: StageReport
    ) -> None:
        shard = _shard_of(rows, lock)
        shard.verify(lock)
        known = self.deployment.ledger.rows(self.stage, [str(i) for i in shard.video_ids])
        used = [item.artifact_key for item in known.values() if item.artifact_key]
        key = put_shard(self.deployment, self.strategy, date, shard.to_npz(), used)
        self.deployment.ledger.commit(self.stage, list(ledger_rows(key, shard, lock)))
        for row in rows:
            report.count(row.candidate.video_id, row.verdict.status, row.verdict.reason)
        report.totals["shards"] += 1


def _shard_of(rows: Sequence[_Row], lock: SchemaLock) -> FusedShard:
    def block(modality: Modality) -> NDArray[np.float32]:
        return np.stack([row.vectors[modality] for row in rows])

    present = np.array([row.verdict.status == statuses.SUCCESS_FULL for row in rows])
    vectors = fuse(
        lock.fusion_strategy,
        block("video"),
        block("audio"),
        block("text"),
        present,
        append_mask=lock.mask_appended,
    )
    found = [(row.candidate, row.verdict) for row in rows]
    declared = Declaration(
        source_hash=strings([c.source_hash for c, _ in found]),
        video_emb_key=strings([c.availability["video"].key for c, _ in found]),
        audio_emb_key=strings([c.availability["audio"].key for c, _ in found]),
        text_emb_key=strings(
            [c.availability["text"].key if v.text_source == "full" else "" for c, v in found]
        ),
        text_present=present.astype(np.int64),
        text_state_status=strings([v.text_state_status for _, v in found]),
        text_missing_reason=strings([v.reason for _, v in found]),
        fusion_status=strings([v.status for _, v in found]),
        retry_count_at_write=np.array([row.retry_count for row in rows], dtype=np.int64),
        fusion_strategy=lock.fusion_strategy,
        lock_version=lock.lock_version,
        embedding_versions=strings([lock.embedding_versions[m] for m in MODALITIES]),
    )
    return FusedShard(
        strings([c.video_id for c, _ in found]),
        vectors,
        strings([c.captured_at for c, _ in found]),
        declared,
    )
