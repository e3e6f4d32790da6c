"""The embedding stage: delta -> fetch -> decode -> encode -> put npy -> ledger, a batch at a time.

Order of writes: the object first, then the ledger. A run killed anywhere leaves objects whose rows
are not written yet; the next run makes the same bytes again for at most one batch.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.checks import vector_problem
from clipfarm_assets.contracts.schema_lock import UNVERSIONED, resolve
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import (
    ContentMissing,
    Deadline,
    EmbeddingVersion,
    Encoded,
    Encoder,
    MediaError,
    ModelMismatch,
    Source,
)
from clipfarm_assets.encoders.config import TEMPLATE_FIELDS
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.adoption import Adoption
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets.pipelines.failure_streak import (
    EncoderBroken,
    FailureStreak,
    Outcome,
    UnusableVector,
    sentence,
)
from clipfarm_assets.pipelines.flow import batched, ordered_map
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.storage.npy import vector_to_npy

__all__ = ["EmbedOptions", "EmbeddingStage", "EncoderBroken"]


@dataclass(frozen=True)
class EmbedOptions:
    """How a run works; none of these changes a vector.

    Attributes:
        batch_size: Items encoded, stored and committed together.
        workers: Threads that fetch and decode ahead of the encoder.
        item_deadline_seconds: Time after which one item's decoding is given up.
        max_fail_retries: Failures of one source kept as `fail`; the next one is `fail_terminal`.
        retry_terminal: Try items again that ended as `fail_terminal`.
        verify_objects: Read every stored vector of the dates, and make those again that are gone
            or are not the bytes that were recorded.
    """

    batch_size: int = 8
    workers: int = 2
    item_deadline_seconds: float = 120.0
    max_fail_retries: int = statuses.DEFAULT_MAX_FAIL_RETRIES
    retry_terminal: bool = False
    verify_objects: bool = False


@dataclass(frozen=True, slots=True)
class Clip:
    """What the stage needs of an index row."""

    video_id: str
    source_hash: str
    captured_at: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A clip after fetching and decoding: prepared input, or what it waits for, or an error."""

    clip: Clip
    prepared: Any = None
    waits: str = ""
    error: Exception | None = None


@dataclass
class EmbeddingStage:
    """One modality's stage over one or more dates of a deployment."""

    deployment: Deployment
    modality: Modality
    open_encoder: Callable[[], Encoder]
    options: EmbedOptions = field(default_factory=EmbedOptions)
    say: Say = silent
    known_version: Callable[[], EmbeddingVersion | None] = lambda: None

    @property
    def stage(self) -> str:
        """The ledger's name of this stage."""
        return statuses.embedding_stage(self.modality)

    def run(self, by_date: Mapping[str, pa.Table]) -> dict[str, StageReport]:
        """Embed what changed on each date.

        The state is restored before, and published after every date that changed something.

        Args:
            by_date: Date -> table of `clip_tables.CLIP_INDEX`.

        Raises:
            ModelMismatch: The weights are not those recorded, or may not be mixed with those here.
            EncoderBroken: The encoder fails on everything.
        """
        self.deployment.restore(self.stage)
        adoption = Adoption(
            self.deployment, self.modality, self.options.item_deadline_seconds, self.say
        )
        encoder = EncoderOnDemand(
            self.deployment, self.open_encoder, self.known_version, before_use=adoption
        )
        reports = {}
        for date, index in by_date.items():
            reports[date] = self._run_date(date, index, encoder)
            if reports[date].statuses:
                self.deployment.publish(self.stage)
        if not any(report.statuses for report in reports.values()):
            self.deployment.publish(self.stage)  # what a run that was killed could not
        return reports

    def _run_date(self, date: str, index: pa.Table, encoder: EncoderOnDemand) -> StageReport:
        clips = [
            Clip(
                row["video_id"],
                row["source_hash"],
                row["captured_at"],
                {name: row[name] or "" for name in TEMPLATE_FIELDS},
            )
            for row in index.to_pylist()
        ]
        previous = self.deployment.ledger.rows(self.stage, [clip.video_id for clip in clips])
        report = StageReport(self.stage, date, considered=len(clips))
        delta = self._delta(clips, previous, encoder, report)
        progress = Progress(f"{self.modality} {date}", len(delta), self.say)
        if delta:
            self._work(delta, previous, encoder, report, progress)
            version = encoder.version_if_known
            report.version = version.id if version else ""
        report.seconds = progress.seconds
        return report

    def _delta(
        self,
        clips: Sequence[Clip],
        previous: Mapping[str, Item],
        encoder: EncoderOnDemand,
        report: StageReport,
    ) -> list[Clip]:
        """The clips with work left, counted by reason in `report`."""
        terminal = statuses.EMBEDDING_TERMINAL
        if self.options.retry_terminal:
            terminal = terminal - {statuses.FAIL_TERMINAL}
        reasons: dict[str, str] = {}
        settled: dict[str, Item] = {}
        for clip in clips:
            before = previous.get(clip.video_id)
            if rules.is_outdated(before, clip.captured_at):
                report.totals["outdated_index_rows"] += 1
                continue
            reason = rules.delta_reason(before, clip.source_hash, terminal)
            if reason is not None:
                reasons[clip.video_id] = reason
            elif before is not None:
                settled[clip.video_id] = before
        if self.options.verify_objects:
            reasons |= self._lost_objects(settled)
        reasons |= self._other_versions(settled, encoder)
        report.reasons.update(reasons.values())
        return [clip for clip in clips if clip.video_id in reasons]

    def _other_versions(
        self, settled: Mapping[str, Item], encoder: EncoderOnDemand
    ) -> dict[str, str]:
        """Which of the settled clips another encoder made.

        Vectors of an older deployment have no version. Until they are adopted they are no reason
        to do anything: the encoder that adopts them is then theirs, see `Adoption`.
        """
        adopted = self.deployment.models_lock().adopted()
        versions = {
            video_id: resolve(item.version, self.modality, adopted)
            for video_id, item in settled.items()
        }
        if set(versions.values()) <= {UNVERSIONED}:
            return {}
        same = {UNVERSIONED, encoder.version.id}
        return {i: "version_changed" for i, version in versions.items() if version not in same}

    def _lost_objects(self, settled: Mapping[str, Item]) -> dict[str, str]:
        """Which of the settled clips' vectors are gone, or are not what was recorded."""
        keys = {
            self.deployment.layout.embedding(self.modality, video_id): item
            for video_id, item in settled.items()
            if item.status == statuses.SUCCESS
        }
        lost = {}
        for key, data in self.deployment.store.get_many(keys):
            item = keys[key]
            if isinstance(data, FileNotFoundError):
                lost[item.video_id] = "object_missing"
            elif item.content_sha256 not in {None, hashlib.sha256(data).hexdigest()}:
                lost[item.video_id] = "object_differs"
        return lost

    def _work(
        self,
        delta: Sequence[Clip],
        previous: Mapping[str, Item],
        encoder: EncoderOnDemand,
        report: StageReport,
        progress: Progress,
    ) -> None:
        """Embed the clips and commit what becomes of them, a batch at a time."""
        streak = FailureStreak(self.modality)
        ready = ordered_map(
            lambda clip: self._prepare(clip, encoder),
            delta,
            workers=self.options.workers,
            ahead=self.options.batch_size + self.options.workers,
        )

        def commit(outcomes: Sequence[Outcome]) -> None:
            self.deployment.ledger.commit(self.stage, [outcome.item for outcome in outcomes])
            for outcome in outcomes:
                _count(outcome, report)
            progress.step(len(outcomes))

        # Closed here and now: what is raised below keeps this frame, and its threads, alive.
        with closing(ready):
            for batch in batched(ready, self.options.batch_size):
                outcomes: list[Outcome] = []
                try:
                    for outcome in self._finish(batch, encoder, previous):
                        outcomes += streak.admit(outcome)
                except EncoderBroken:
                    commit(outcomes)  # what was embedded until then stays embedded
                    raise
                commit(outcomes)
        if held := streak.release():
            commit(held)

    def _prepare(self, clip: Clip, encoder: EncoderOnDemand) -> _Ready:
        """Fetch and decode one clip, in a worker thread; the first object found opens the encoder.

        A store that fails, or a model that cannot be loaded, is not the item's fault: such errors
        pass through and stop the run.
        """
        key = self.deployment.layout.raw(self.modality, clip.video_id)
        try:
            raw = self.deployment.store.get(key)
        except FileNotFoundError:
            return _Ready(clip, waits=f"{key} does not exist")
        opened = encoder()
        source = Source(clip.video_id, raw, clip.metadata)
        try:
            deadline = Deadline.after(self.options.item_deadline_seconds)
            return _Ready(clip, prepared=opened.prepare(source, deadline))
        except ContentMissing as missing:
            return _Ready(clip, waits=str(missing))
        except ModelMismatch:
            raise
        except Exception as error:  # noqa: BLE001 - one bad item is one bad item
            return _Ready(clip, error=error)

    def _finish(
        self, batch: Sequence[_Ready], encoder: EncoderOnDemand, previous: Mapping[str, Item]
    ) -> Iterator[Outcome]:
        """Encode and store a batch; what became of its items, in order."""
        prepared = [ready.prepared for ready in batch if not ready.waits and ready.error is None]
        encoded = self._encode(prepared, encoder() if prepared else None)
        for ready in batch:
            before = previous.get(ready.clip.video_id)
            if ready.waits:
                yield Outcome(self._waiting(ready.clip, ready.waits, before))
                continue
            version = encoder().version
            result = ready.error or next(encoded)
            if isinstance(result, Encoded):
                problem = vector_problem(result.vector, version.dim)
                if problem is None:
                    item = self._stored(ready.clip, result, version, before)
                    yield Outcome(item, result.notes)
                    continue
                result = UnusableVector(f"embedding unusable: {problem}")
            item = self._failed(ready.clip, result, version, before)
            yield Outcome(item, unexpected=None if isinstance(result, MediaError) else result)

    def _encode(
        self, prepared: Sequence[Any], encoder: Encoder | None
    ) -> Iterator[Encoded | Exception]:
        """The model over a batch; if it raises, one at a time, so that only the culprit fails."""
        if encoder is None:
            return
        try:
            encoded = encoder.encode(prepared)
        except Exception as error:  # noqa: BLE001 - found out one at a time
            if len(prepared) == 1:
                yield error
                return
            for one in prepared:
                yield from self._encode([one], encoder)
        else:
            yield from (one for one, _ in zip(encoded, prepared, strict=True))

    def _stored(
        self, clip: Clip, encoded: Encoded, version: EmbeddingVersion, before: Item | None
    ) -> Item:
        key = self.deployment.layout.embedding(self.modality, clip.video_id)
        data = vector_to_npy(encoded.vector)
        self.deployment.store.put(key, data)
        return rules.settle_success(
            before,
            clip.source_hash,
            statuses.SUCCESS,
            datetime.now(UTC),
            video_id=clip.video_id,
            artifact_key=key,
            version=version.id,
            content_sha256=hashlib.sha256(data).hexdigest(),
            details={**encoded.notes, rules.CAPTURED_AT: clip.captured_at},
        )

    def _waiting(self, clip: Clip, reason: str, before: Item | None) -> Item:
        return rules.settle_waiting(
            before,
            clip.source_hash,
            statuses.MISSING_RAW_OBJECT,
            reason,
            datetime.now(UTC),
            video_id=clip.video_id,
            details={rules.CAPTURED_AT: clip.captured_at},
        )

    def _failed(
        self, clip: Clip, error: Exception, version: EmbeddingVersion, before: Item | None
    ) -> Item:
        return rules.settle_failure(
            before,
            clip.source_hash,
            sentence(error),
            self.options.max_fail_retries,
            datetime.now(UTC),
            video_id=clip.video_id,
            version=version.id,
            details={rules.CAPTURED_AT: clip.captured_at},
        )


def _count(outcome: Outcome, report: StageReport) -> None:
    item = outcome.item
    report.count(item.video_id, item.status, item.error)
    for name, value in outcome.notes.items():
        if isinstance(value, (bool, int)):
            report.totals[name] += int(value)
