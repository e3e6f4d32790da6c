"""The fusion stage of one strategy: delta -> gate -> read vectors -> shard -> ledger.

A shard is written whole, under a part number nobody has, and never again. It declares its rows
itself, so a run killed between a shard and its ledger rows loses nothing: the next run finds the
shard and takes its rows from it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice, tee

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.contracts.text_gate import Gate, gate
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.leases import LeaseHeld, LeaseLost
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment, TextStates
from clipfarm_assets.pipelines.flow import batched, one_behind
from clipfarm_assets.pipelines.fusion_delta import TEXT_ARRIVED, Candidate, fusion_delta
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.shard_rows import FusedRow, ShardRows
from clipfarm_assets.pipelines.shards import ledger_rows, put_shard, take_over_orphans
from clipfarm_assets.pipelines.turns import LeaseOptions, Turn, Turns
from clipfarm_assets.pipelines.unrecorded import Unrecorded
from clipfarm_assets.pipelines.vector_batches import VectorBatch, read_batches
from clipfarm_assets.pipelines.vectors import Availability, ClipVectors, available, version_gate

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

# What is known of the vectors of the clips of a date, by date and video_id.
_Vectors = dict[str, dict[str, dict[Modality, Availability]]]

# Of a clip whose three vectors are usable, as nearly all are.
RECOGNISED = ClipVectors()


@dataclass
class FusionStage:
    """One strategy's stage over one or more dates of a deployment."""

    deployment: Deployment
    strategy: Strategy
    options: FuseOptions = field(default_factory=FuseOptions)
    say: Say = silent
    leases: LeaseOptions = field(default_factory=LeaseOptions)

    @property
    def stage(self) -> str:
        """The ledger's name of the stage."""
        return statuses.fusion_stage(self.strategy)

    def run(self, by_date: Mapping[str, pa.Table]) -> dict[str, StageReport]:
        """Fuse what changed on each date, no other run of the strategy being at work on that date.

        The state is restored before and published after, also where other runs keep dates of it.

        Args:
            by_date: Date -> table of `clip_tables.CLIP_INDEX`.

        Raises:
            NoLock: The strategy has no schema lock.
            LockMismatch: A vector is of another shape or embedding version than the lock says.
            BadManifest: The strategy's manifest can't be read, so that no part number is safe.
            LeaseHeld: Another run works on a date, for longer than this one was to wait.
            LeaseLost: This run was not heard of for so long that another one took its date.
        """
        deployment = self.deployment
        self._restore()
        lock = load_lock(deployment, self.strategy)
        texts = deployment.text_states()
        # Before anything is written: a version the lock doesn't name stops the run here, also where
        # the clip itself is fused already: its vector is no longer what it was fused from.
        vectors = self._vectors(by_date, lock)
        dates = _Dates(by_date, vectors, lock, texts, {})
        late: list[str] = []
        try:
            with Turns(deployment.ledger, self.stage, self.leases, self.say) as turns:
                self._run_in_turn(turns.free(by_date, late), dates)
                for turn in turns.waited_for(late):
                    self._restore()
                    vectors |= self._vectors({turn.date: by_date[turn.date]}, lock)
                    self._run_in_turn([turn], dates)
        except (LeaseHeld, LeaseLost):
            deployment.publish(self.stage)  # the dates that it did do
            raise
        deployment.publish(self.stage)
        return {date: dates.reports[date] for date in by_date}

    def _restore(self) -> None:
        for modality in MODALITIES:
            self.deployment.restore(statuses.embedding_stage(modality))
        self.deployment.restore(self.stage)

    def _vectors(self, by_date: Mapping[str, pa.Table], lock: SchemaLock) -> _Vectors:
        """What is known of the dates' vectors, none of them of a version that the lock refuses."""
        vectors = available(self.deployment, by_date)
        found = [vector for of_date in vectors.values() for vector in of_date.values()]
        version_gate(self.deployment, lock, found)
        return vectors

    def _run_in_turn(self, in_turn: Iterable[Turn], dates: "_Dates") -> None:
        """Fuse what changed on each date, and end its turn.

        The vectors of all come in one stream: where a date's are all asked for, and its clips are
        still being fused, the next date's turn comes, and its vectors are asked for.
        """
        failed: list[Exception] = []
        ahead, now = tee(_remembering(self._planned(in_turn, dates), failed))
        batches = chain.from_iterable(work.batches for work in ahead)
        with closing(read_batches(self.deployment.store, batches, dates.lock)) as read:
            for work in now:
                self._fuse(islice(read, len(work.batches)), work)
                work.turn.end()
        for error in failed:
            raise error

    def _planned(self, in_turn: Iterable[Turn], dates: "_Dates") -> Iterator["_Work"]:
        """The dates that have clips to fuse, with these."""
        recorded: frozenset[str] | None = None
        for turn in in_turn:
            index = dates.indices[turn.date]
            report = dates.reports[turn.date] = StageReport(
                self.stage, turn.date, considered=index.num_rows, version=dates.lock.id
            )
            states = take_over_orphans(
                self.deployment, dates.lock, turn.date, index, self.say, lease=turn.lease
            )
            candidates = fusion_delta(
                self.deployment,
                dates.lock,
                index,
                dates.vectors.pop(turn.date),
                states,
                report,
                retry_terminal=self.options.retry_terminal,
                verify_objects=self.options.verify_objects,
            )
            if candidates:
                batches = list(batched(candidates, self.options.read_ahead))
                used = {item.artifact_key for item in states.values() if item.artifact_key}
                if recorded is None:
                    recorded = self._recorded_shards()
                of_date = self.deployment.layout.shards_prefix(self.strategy, turn.date)
                used |= {key for key in recorded if key.startswith(of_date)}
                yield _Work(turn, batches, report, dates.lock, dates.texts, states, used)
            else:
                turn.end()

    def _recorded_shards(self) -> frozenset[str]:
        """What the manifest has looked at, and won't look at again: also shards that are gone."""
        found = manifest_store.survey(self.deployment, self.strategy)
        return manifest_store.known_shards(self.deployment, self.strategy, found)

    def _fuse(self, read: Iterable[VectorBatch], work: "_Work") -> None:
        """Fuse the date's clips, whose vectors come next in `read`: put shards and commit them."""
        date, report = work.turn.date, work.report
        unrecorded = Unrecorded("the next run of the date takes from them what is of use")
        progress = Progress(f"fuse {self.strategy} {date}", work.total, self.say)

        def write(full: _Full) -> tuple[list[Item], Sequence[FusedRow]]:
            shard, rows, used = full
            work.turn.lease.check()  # or else this would be a second shard of the same clips
            key = put_shard(self.deployment, self.strategy, date, shard.to_npz(), used)
            unrecorded.add(key)
            # Of this moment, not of when they are committed: a rival's later rows stay the later.
            return list(ledger_rows(key, shard, work.lock)), rows

        filled = self._filled(read, work, progress)
        with unrecorded.named(), closing(one_behind(write, filled)) as written:
            for items, rows in written:
                self._commit(items, work)
                unrecorded.settle(item.artifact_key for item in items)
                for row in rows:
                    report.count(row.candidate.video_id, row.verdict.status, row.verdict.reason)
                report.totals["shards"] += 1
        report.seconds = progress.seconds

    def _filled(
        self, read: Iterable[VectorBatch], work: "_Work", progress: Progress
    ) -> Iterator[_Full]:
        """Each shard when it is full; what is not fused is committed meanwhile."""
        waiting: ShardRows | None = None
        for batch in read:
            settled: list[Item] = []
            rows: list[FusedRow] = []
            numbers: list[int] = []
            for number, candidate in enumerate(batch.clips):
                outcome = self._settle(candidate, batch.parsed.get(number, RECOGNISED), work)
                if isinstance(outcome, Item):
                    settled.append(outcome)
                    work.report.count(outcome.video_id, outcome.status, outcome.error)
                else:
                    rows.append(outcome)
                    numbers.append(number)
            while rows:
                if waiting is None:
                    waiting = ShardRows(work.lock, min(self.options.shard_rows, work.total))
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
        verdict = self.verdict(candidate, found, work.texts)
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

    def verdict(self, candidate: Candidate, found: ClipVectors, texts: TextStates) -> Gate:
        """What becomes of a clip of which these vectors were found."""
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
        self.deployment.ledger.commit(self.stage, items, lease=work.turn.lease)
        work.known.update((item.video_id, item) for item in items)


def _remembering(planned: Iterator["_Work"], failed: list[Exception]) -> Iterator["_Work"]:
    """The same; what ends it is remembered.

    Whoever asked for vectors ahead may be who it is raised to, and has no more of them to give out.
    """
    try:
        yield from planned
    except Exception as error:
        failed.append(error)
        raise


@dataclass(frozen=True)
class _Dates:
    """What a run goes by.

    Attributes:
        indices: The dates' clips.
        vectors: What is known of their vectors; a date's are taken out when its turn comes.
        lock: The lock in force.
        texts: The text downloader's states.
        reports: Filled in by date.
    """

    indices: Mapping[str, pa.Table]
    vectors: _Vectors
    lock: SchemaLock
    texts: TextStates
    reports: dict[str, StageReport]


@dataclass(frozen=True)
class _Work:
    """What a run goes by on one date.

    Attributes:
        turn: The date, and the lease that it is worked on under.
        batches: The clips to fuse.
        report: What became of them.
        lock: The lock in force.
        texts: The text downloader's states.
        known: The states of the date's clips by video_id, kept up to date.
        used: Keys of shards, gone ones too, that these named at first or the manifest knows.
    """

    turn: Turn
    batches: Sequence[Sequence[Candidate]]
    report: StageReport
    lock: SchemaLock
    texts: TextStates
    known: dict[str, Item]
    used: set[str]

    @property
    def total(self) -> int:
        """How many clips there are to fuse."""
        return sum(map(len, self.batches))
