"""What the fusion of a strategy would take up, and what would come of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.schema_lock import LockMismatch, SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item, microseconds
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.fuse import FuseOptions, FusionStage
from clipfarm_assets.pipelines.fusion_delta import TEXT_ARRIVED, Candidate, fusion_delta
from clipfarm_assets.pipelines.inspect.encoders import PlannedEncoder
from clipfarm_assets.pipelines.inspect.planned_part import PlannedPart, failed_so
from clipfarm_assets.pipelines.lock import NoLock, load_lock
from clipfarm_assets.pipelines.progress import silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.shards import take_over_orphans
from clipfarm_assets.pipelines.vectors import (
    NO_EMBEDDING,
    Availability,
    ClipVectors,
    available,
    version_gate,
)


class FusionPlanner:
    """Plans the fusion stages of several dates, after the embedding stages' plans."""

    def __init__(
        self,
        deployment: Deployment,
        options: FuseOptions,
        encoders: Mapping[Modality, PlannedEncoder],
    ) -> None:
        """Over a ledger and a store that foresee what the embedding stages will have done."""
        self._deployment, self._options, self._encoders = deployment, options, encoders
        self._texts = deployment.text_states()
        self._locks: dict[Strategy, SchemaLock] = {}
        self._new: set[Strategy] = set()
        self._stops: dict[str, str] = {}

    def plan(self, strategy: Strategy, date: str, index: pa.Table) -> PlannedPart:
        """What the stage would do on a date."""
        deployment = self._deployment
        stage = FusionStage(deployment, strategy, self._options)
        report = StageReport(stage.stage, date, considered=index.num_rows)
        lock = self._lock(strategy)
        vectors = available(deployment, {date: index})[date]
        if strategy not in self._new:
            try:
                version_gate(deployment, lock, vectors.values())
            except LockMismatch as mismatch:
                self._stops.setdefault(stage.stage, str(mismatch))
        known = take_over_orphans(deployment, lock, date, index, silent)
        candidates = fusion_delta(
            deployment,
            lock,
            index,
            vectors,
            known,
            report,
            retry_terminal=self._options.retry_terminal,
            verify_objects=self._options.verify_objects,
        )
        expected: Counter[str] = Counter()
        failed = self._failed(candidates, known, lock)
        for candidate in candidates:
            if again := failed.get(candidate.video_id):
                expected[again.status] += 1
                continue
            verdict = stage.verdict(candidate, self._found(candidate), self._texts)
            before = known.get(candidate.video_id)
            if candidate.reason == TEXT_ARRIVED and before and verdict.text_source != "full":
                expected[before.status] += 1
            else:
                expected[verdict.status] += 1
        return PlannedPart.of(stage.stage, date, index.num_rows, report, expected)

    def stops(self) -> dict[str, str]:
        """Stage -> the sentence that a run would stop there with."""
        return dict(self._stops)

    def notes(self) -> list[str]:
        """What else there is to say."""
        told = [
            f"{strategy}: has no schema lock yet, which clips/schema_lock makes from the first "
            "vectors"
            for strategy in self._locks
            if strategy in self._new
        ]
        if self._texts.unavailable:
            told.append(f"the text downloader's state can't be read: {self._texts.unavailable}")
        return told

    def _failed(
        self, candidates: Sequence[Candidate], known: Mapping[str, Item], lock: SchemaLock
    ) -> dict[str, Item]:
        """The clips that failed and fail again, as they will be: no vector of theirs is newer."""
        failed = {
            candidate.video_id: before
            for candidate in candidates
            if (before := failed_so(known.get(candidate.video_id), candidate.source_hash, lock.id))
        }
        for modality in MODALITIES if failed else ():
            stage = statuses.embedding_stage(modality)
            made = self._deployment.ledger.columns(stage, list(failed), "processed_at")
            for video_id, (moment,) in made.items():
                if video_id in failed and microseconds(moment) > microseconds(
                    failed[video_id].processed_at
                ):
                    del failed[video_id]
        return {
            video_id: rules.settle_failure(
                before,
                before.source_hash,
                before.error or "",
                self._options.max_fail_retries,
                datetime.now(UTC),
                video_id=video_id,
            )
            for video_id, before in failed.items()
        }

    def _lock(self, strategy: Strategy) -> SchemaLock:
        """The lock in force, or the one that the run makes first."""
        if strategy not in self._locks:
            try:
                self._locks[strategy] = load_lock(self._deployment, strategy)
            except NoLock:
                self._new.add(strategy)
                self._locks[strategy] = SchemaLock.of(
                    strategy,
                    {m: max(1, self._encoders[m].version.dim) for m in MODALITIES},
                    {m: self._encoders[m].version.id for m in MODALITIES},
                )
        return self._locks[strategy]

    def _found(self, candidate: Candidate) -> ClipVectors:
        """Which of a clip's vectors there will be; none is read."""
        missing: dict[Modality, str] = {}
        for modality, vector in candidate.availability.items():
            if why := self._problem(vector):
                missing[modality] = why
        return ClipVectors(missing=missing)

    def _problem(self, vector: Availability) -> str:
        if vector.problem or vector.known:
            return vector.problem
        return "" if self._deployment.store.exists(vector.key) else NO_EMBEDDING
