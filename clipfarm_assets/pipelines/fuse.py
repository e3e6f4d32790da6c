"""The fusion stage of one strategy: delta -> gate -> read vectors -> shard -> ledger.

A shard is written whole, under a part number nobody has, and never again. It declares its rows
itself, so a run killed between a shard and its ledger rows loses nothing: the next run finds the
shard and takes its rows from it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Strategy
from clipfarm_assets.contracts.text_gate import Gate, gate
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment, TextStates
from clipfarm_assets.pipelines.flow import batched, one_behind
from clipfarm_assets.pipelines.fusion_delta import TEXT_ARRIVED, Candidate, fusion_delta
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.shard_rows import FusedRow, ShardRows
from clipfarm_assets.pipelines.shards import ledger_rows, put_shard, take_over_orphans
from clipfarm_assets.pipelines.vector_batches import VectorBatch, read_batches
from clipfarm_assets.pipelines.vectors import ClipVectors, available, version_gate

SHARD_ROWS = 2048


@dataclass(frozen=True)
class FuseOptions:
    """How a run works.

    Attributes:
        shard_rows: Most rows of a shard.
        read_ahead: Clips of a batch: read and checked together. What of them isn't fused is
            committed together.
        max_fail_retries: Failures of one source kept as `fail`; the next one is `fail_terminal`.
        terminal_text_statuses: Text statuses after which a placeholder is approved.
        retry_terminal: Try items again that ended as `fail_terminal`.
        verify_objects: Fuse clips again whose shard is gone from the store.
    """

    shard_rows: int = SHARD_ROWS
    read_ahead: int = 512
    max_fail_retries: int = statuses.DEFAULT_MAX_FAIL_RETRIES
    terminal_text_statuses: Collection[str] = statuses.DEFAULT_TERMINAL_TEXT_STATUSES
    retry_terminal: bool = False
    verify_objects: bool = False


# A shard, the rows it was made of, and keys of shards whose part numbers are used up.
_Full = tuple[FusedShard, Sequence[FusedRow], set[str]]

# Of a clip whose three vectors are usable, as nearly all are.
RECOGNISED = ClipVectors()


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
        vectors = available(deployment, by_date)
        # Before anything is written: a version the lock doesn't name stops the run here, also where
        # the clip itself is fused already: its vector is no longer what it was fused from.
        version_gate(deployment, lock, [v for found in vectors.values() for v in found.values()])
        known: dict[str, Item] = {}
        reports: dict[str, StageReport] = {}
        batches: dict[str, list[list[Candidate]]] = {}
        for date, index in by_date.items():
            reports[date] = StageReport(self.stage, date, considered=index.num_rows)
            states = take_over_orphans(deployment, lock, date, index, self.say)
            candidates = fusion_delta(
                deployment,
                lock,
                index,
                vectors[date],
                states,
                reports[date],
                retry_terminal=self.options.retry_terminal,
                verify_objects=self.options.verify_objects,
            )
            batches[date] = list(batched(candidates, self.options.read_ahead))
            known |= states
        work = _Work(lock, texts, known, {i.artifact_key for i in known.values() if i.artifact_key})
        read = read_batches(deployment.store, list(chain(*batches.values())), lock)
        with closing(read):
            for date, of_date in batches.items():
                self._run_date(date, of_date, read, work, reports[date])
        deployment.publish(self.stage)
        return reports

    def _run_date(
        self,
        date: str,
        batches: Sequence[Sequence[Candidate]],
        read: Iterable[VectorBatch],
        work: "_Work",
        report: StageReport,
    ) -> None:
        """Fuse the date's batches, which come next in `read`."""
        progress = Progress(f"fuse {self.strategy} {date}", sum(map(len, batches)), self.say)

        def write(full: _Full) -> tuple[list[Item], Sequence[FusedRow]]:
            shard, rows, used = full
            key = put_shard(self.deployment, self.strategy, date, shard.to_npz(), used)
            # Of this moment, not of when they are committed: a rival's later rows stay the later.
            return list(ledger_rows(key, shard, work.lock)), rows

        filled = self._filled(batches, read, work, report, progress)
        with closing(one_behind(write, filled)) as written:
            for items, rows in written:
                self._commit(items, work)
                for row in rows:
                    report.count(row.candidate.video_id, row.verdict.status, row.verdict.reason)
                report.totals["shards"] += 1
        report.version = work.lock.id
        report.seconds = progress.seconds

    def _filled(
        self,
        batches: Sequence[Sequence[Candidate]],
        read: Iterable[VectorBatch],
        work: "_Work",
        report: StageReport,
        progress: Progress,
    ) -> Iterator[_Full]:
        """Each shard when it is full; what is not fused is committed meanwhile."""
        total = sum(map(len, batches))
        waiting: ShardRows | None = None
        for batch in islice(read, len(batches)):
            settled: list[Item] = []
            rows: list[FusedRow] = []
            numbers: list[int] = []
            for number, candidate in enumerate(batch.clips):
                outcome = self._settle(candidate, batch.parsed.get(number, RECOGNISED), work)
                if isinstance(outcome, Item):
                    settled.append(outcome)
                    report.count(outcome.video_id, outcome.status, outcome.error)
                else:
                    rows.append(outcome)
                    numbers.append(number)
            while rows:
                if waiting is None:
                    waiting = ShardRows(work.lock, min(self.options.shard_rows, total))
                taken = waiting.add(rows, batch.blocks, numbers)
                del rows[:taken], numbers[:taken]
                if waiting.is_full:
                    yield self._full(waiting, work)
                    waiting = None
            self._commit(settled, work)
            progress.step(len(batch.clips))
        if waiting is not None:
            yield self._full(waiting, work)

    def _settle(self, candidate: Candidate, found: ClipVectors, work: "_Work") -> FusedRow | Item:
        """A row of the next shard, or the state of a clip that isn't fused now."""
        before = work.known.get(candidate.video_id)
        if found.broken:
            return rules.settle_failure(
                before,
                candidate.source_hash,
                "; ".join(found.broken),
                self.options.max_fail_retries,
                datetime.now(UTC),
                video_id=candidate.video_id,
                version=work.lock.id,
                details={rules.CAPTURED_AT: candidate.captured_at},
            )
        verdict = self._gate(candidate, found, work.texts)
        if candidate.reason == TEXT_ARRIVED and before and verdict.text_source != "full":
            # Nothing to upgrade with after all: what is fused stays.
            return before
        if not verdict.fuses:
            return rules.settle_waiting(
                before,
                candidate.source_hash,
                verdict.status,
                verdict.reason,
                datetime.now(UTC),
                video_id=candidate.video_id,
                details={rules.CAPTURED_AT: candidate.captured_at},
            )
        same_source = before is not None and before.source_hash == candidate.source_hash
        return FusedRow(candidate, verdict, before.retry_count if before and same_source else 0)

    def _gate(self, candidate: Candidate, found: ClipVectors, texts: TextStates) -> Gate:
        verdict = gate(
            candidate.source_hash,
            missing_required=[
                f"{m}: {found.missing[m]}" for m in ("video", "audio") if m in found.missing
            ],
            has_text="text" not in found.missing,
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

    def _full(self, waiting: ShardRows, work: "_Work") -> _Full:
        shard = waiting.shard()
        shard.verify(work.lock)
        ids: list[str] = shard.video_ids.tolist()
        # What is in the ledger now: a rival run may have fused these clips meanwhile.
        now = self.deployment.ledger.columns(self.stage, ids, "artifact_key")
        return shard, waiting.rows, work.used | {key for (key,) in now.values() if key}

    def _commit(self, items: Sequence[Item], work: "_Work") -> None:
        self.deployment.ledger.commit(self.stage, items)
        work.known.update((item.video_id, item) for item in items)


@dataclass(frozen=True)
class _Work:
    """What a run goes by.

    Attributes:
        lock: The lock in force.
        texts: The text downloader's states.
        known: The states of the dates' clips by video_id, kept up to date.
        used: Keys of the shards that these named at first.
    """

    lock: SchemaLock
    texts: TextStates
    known: dict[str, Item]
    used: set[str]
