"""The embedding stage: delta -> fetch -> decode -> encode -> put npy -> ledger, a batch at a time.

Order of writes: the object first, then the ledger. A run killed anywhere leaves objects whose rows
are not written yet; the next run makes the same bytes again for at most one batch.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

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
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import batched, ordered_map
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.storage.npy import vector_to_npy

# So many items that fail together, and not by their media, are no coincidence.
_BROKEN_AFTER: Final = 3


class EncoderBroken(RuntimeError):  # noqa: N818
    """The encoder fails on everything: a structural fault, which must not use up retries."""


@dataclass(frozen=True)
class EmbedOptions:
    """How a run works; none of these changes a vector.

    Attributes:
        batch_size: Items encoded, stored and committed together.
        workers: Threads that fetch and decode ahead of the encoder.
        item_deadline_seconds: Time after which one item's decoding is given up.
        max_fail_retries: Failures of one source kept as `fail`; the next one is `fail_terminal`.
        retry_terminal: Try items again that ended as `fail_terminal`.
    """

    batch_size: int = 8
    workers: int = 2
    item_deadline_seconds: float = 120.0
    max_fail_retries: int = statuses.DEFAULT_MAX_FAIL_RETRIES
    retry_terminal: bool = False


@dataclass(frozen=True, slots=True)
class Clip:
    """What the stage needs of an index row."""

    video_id: str
    source_hash: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A clip after fetching and decoding: prepared input, or the status it ends with and why."""

    clip: Clip
    prepared: Any = None
    status: str = ""
    why: str = ""


class EncoderOnDemand:
    """Opens the encoder at its first use, once a run: a run with nothing to do loads no model."""

    def __init__(
        self,
        deployment: Deployment,
        open_encoder: Callable[[], Encoder],
        known_version: Callable[[], EmbeddingVersion | None],
    ) -> None:
        """Remember how to open it, and how to learn its version without."""
        self._deployment, self._open, self._known = deployment, open_encoder, known_version
        self._encoder: Encoder | None = None
        self._version: EmbeddingVersion | None = None

    @property
    def version(self) -> EmbeddingVersion:
        """The encoder's version; opens it only if the version is not on record yet."""
        if self._version is None:
            self._version = self._known() or self().version
        return self._version

    def __call__(self) -> Encoder:
        """The encoder; its version is recorded in the models lock before its first vector.

        Raises:
            ModelMismatch: It is of another version than was known of it, or a stand-in that would
                replace real vectors.
        """
        if self._encoder is None:
            encoder = self._open()
            if self._version is not None and self._version != encoder.version:
                # The delta was made for the known one: its vectors would look outdated forever.
                msg = (
                    f"expected the encoder to be of the recorded version {self._version.id}, "
                    f"found {encoder.version.id}: its model or parameters changed during the run; "
                    "run again"
                )
                raise ModelMismatch(msg)
            self._deployment.models_lock().admit(encoder.version, is_stand_in=encoder.is_stand_in)
            self._encoder = encoder
        return self._encoder


@dataclass
class EmbeddingStage:
    """One modality's stage over one or more dates of a deployment."""

    deployment: Deployment
    modality: Modality
    open_encoder: Callable[[], Encoder]
    options: EmbedOptions = field(default_factory=EmbedOptions)
    say: Say = silent
    known_version: Callable[[], EmbeddingVersion | None] = lambda: None

    def run(self, by_date: Mapping[str, pa.Table]) -> dict[str, StageReport]:
        """Embed what changed on each date; the state is restored before and published after.

        Args:
            by_date: Date -> table of `clip_tables.CLIP_INDEX`.

        Raises:
            ModelMismatch: The weights are not those recorded, or may not be mixed with those here.
        """
        stage = statuses.embedding_stage(self.modality)
        self.deployment.restore(stage)
        encoder = EncoderOnDemand(self.deployment, self.open_encoder, self.known_version)
        reports = {
            date: self._run_date(stage, date, index, encoder) for date, index in by_date.items()
        }
        self.deployment.publish(stage)
        return reports

    def _run_date(
        self, stage: str, date: str, index: pa.Table, encoder: EncoderOnDemand
    ) -> StageReport:
        clips = [
            Clip(
                row["video_id"],
                row["source_hash"],
                {name: row[name] or "" for name in ("title", "description", "query")},
            )
            for row in index.to_pylist()
        ]
        previous = self.deployment.ledger.rows(stage, [clip.video_id for clip in clips])
        report = StageReport(stage, date, considered=len(clips))
        delta = self._delta(stage, clips, previous, encoder, report)
        progress = Progress(f"{self.modality} {date}", len(delta), self.say)
        if delta:
            opened = encoder()
            ready = ordered_map(
                lambda clip: self._prepare(clip, opened),
                delta,
                workers=self.options.workers,
                ahead=self.options.batch_size + self.options.workers,
            )
            report.version = opened.version.id
            # Closed here and now: what is raised below keeps this frame, and its threads, alive.
            with closing(ready):
                for batch in batched(ready, self.options.batch_size):
                    items = self._finish(batch, opened, previous, report)
                    self.deployment.ledger.commit(stage, items)
                    progress.step(len(batch))
        report.seconds = progress.seconds
        return report

    def _delta(
        self,
        stage: str,
        clips: Sequence[Clip],
        previous: Mapping[str, Item],
        encoder: EncoderOnDemand,
        report: StageReport,
    ) -> list[Clip]:
        """The clips with work left, counted by reason in `report`."""
        terminal = statuses.EMBEDDING_TERMINAL
        if self.options.retry_terminal:
            terminal = terminal - {statuses.FAIL_TERMINAL}
        reasons = {
            clip.video_id: rules.delta_reason(
                previous.get(clip.video_id), clip.source_hash, terminal
            )
            for clip in clips
        }
        settled = [previous[video_id] for video_id, reason in reasons.items() if reason is None]
        adopted = self.deployment.models_lock().adopted()
        known = any(resolve(i.version, self.modality, adopted) != UNVERSIONED for i in settled)
        if any(reasons.values()) or known:
            # Vectors of an older deployment carry no version. The first encoder that works here is
            # taken to be theirs, once and on record, so that a later one is known to differ.
            adopted = self._adopt(stage, encoder)
            current = encoder.version.id
            for item in settled:
                if resolve(item.version, self.modality, adopted) != current:
                    reasons[item.video_id] = "version_changed"
        report.reasons.update(reason for reason in reasons.values() if reason)
        return [clip for clip in clips if reasons[clip.video_id]]

    def _adopt(self, stage: str, encoder: EncoderOnDemand) -> dict[Modality, str]:
        lock = self.deployment.models_lock()
        adopted = lock.adopted()
        if self.modality not in adopted and self.deployment.ledger.has_unversioned(
            stage, statuses.SUCCESS
        ):
            opened = encoder()
            lock.adopt(self.modality, opened.version, opened.is_stand_in)
            adopted = lock.adopted()
        return adopted

    def _prepare(self, clip: Clip, encoder: Encoder) -> _Ready:
        """Fetch and decode one clip, in a worker thread.

        A store that fails is not the item's fault: such errors pass through and stop the run.
        """
        key = self.deployment.layout.raw(self.modality, clip.video_id)
        try:
            raw = self.deployment.store.get(key)
        except FileNotFoundError:
            return _Ready(clip, status=statuses.MISSING_RAW_OBJECT, why=f"{key} does not exist")
        source = Source(clip.video_id, raw, clip.metadata)
        try:
            deadline = Deadline.after(self.options.item_deadline_seconds)
            return _Ready(clip, prepared=encoder.prepare(source, deadline))
        except ContentMissing as missing:
            return _Ready(clip, status=statuses.MISSING_RAW_OBJECT, why=str(missing))
        except ModelMismatch:
            raise
        except Exception as error:  # noqa: BLE001 - one bad item is one bad item
            return _Ready(clip, status=statuses.FAIL, why=_sentence(error))

    def _finish(
        self,
        batch: Sequence[_Ready],
        encoder: Encoder,
        previous: Mapping[str, Item],
        report: StageReport,
    ) -> list[Item]:
        """Encode and store a batch; returns its ledger rows, in order."""
        outcomes = dict(self._encode([ready for ready in batch if not ready.status], encoder))
        items = []
        for ready in batch:
            outcome = outcomes.get(ready.clip.video_id, ready)
            item = (
                self._store(ready.clip, outcome, encoder, previous)
                if isinstance(outcome, Encoded)
                else self._settle(outcome, encoder, previous)
            )
            if isinstance(outcome, Encoded):
                for name, value in outcome.notes.items():
                    if isinstance(value, (bool, int)):
                        report.totals[name] += int(value)
            report.count(item.video_id, item.status, item.error)
            items.append(item)
        return items

    def _encode(
        self, batch: Sequence[_Ready], encoder: Encoder
    ) -> Iterator[tuple[str, Encoded | _Ready]]:
        """The model over a batch; if it raises, one at a time, so that only the culprit fails.

        Raises:
            EncoderBroken: It fails on every one of several items for no fault of theirs.
        """
        if not batch:
            return
        encoded: list[Encoded | Exception] = []
        try:
            encoded.extend(encoder.encode([ready.prepared for ready in batch]))
        except Exception:  # noqa: BLE001 - found out one at a time
            encoded = [self._encode_one(ready, encoder) for ready in batch]
            unexpected = [one for one in encoded if isinstance(one, Exception)]
            unexpected = [one for one in unexpected if not isinstance(one, MediaError)]
            if len(unexpected) == len(batch) >= _BROKEN_AFTER:
                msg = (
                    f"the {self.modality} encoder failed on {len(batch)} items in a row, so it is "
                    f"not the items' fault; the last time with {_sentence(unexpected[-1])}"
                )
                raise EncoderBroken(msg) from unexpected[-1]
        for ready, one in zip(batch, encoded, strict=True):
            if isinstance(one, Exception):
                why: str | None = _sentence(one)
            else:
                problem = vector_problem(one.vector, encoder.version.dim)
                why = f"embedding unusable: {problem}" if problem else None
            failed = _Ready(ready.clip, status=statuses.FAIL, why=why or "")
            yield ready.clip.video_id, failed if isinstance(one, Exception) or why else one

    def _encode_one(self, ready: _Ready, encoder: Encoder) -> Encoded | Exception:
        try:
            return encoder.encode([ready.prepared])[0]
        except Exception as error:  # noqa: BLE001 - one bad item is one bad item
            return error

    def _store(
        self, clip: Clip, encoded: Encoded, encoder: Encoder, previous: Mapping[str, Item]
    ) -> Item:
        key = self.deployment.layout.embedding(self.modality, clip.video_id)
        data = vector_to_npy(encoded.vector)
        self.deployment.store.put(key, data)
        return rules.settle_success(
            previous.get(clip.video_id),
            clip.source_hash,
            statuses.SUCCESS,
            datetime.now(UTC),
            video_id=clip.video_id,
            artifact_key=key,
            version=encoder.version.id,
            content_sha256=hashlib.sha256(data).hexdigest(),
            details=encoded.notes,
        )

    def _settle(self, ready: _Ready, encoder: Encoder, previous: Mapping[str, Item]) -> Item:
        clip, before = ready.clip, previous.get(ready.clip.video_id)
        if ready.status in statuses.WAITING:
            return rules.settle_waiting(
                before,
                clip.source_hash,
                ready.status,
                ready.why,
                datetime.now(UTC),
                video_id=clip.video_id,
            )
        return rules.settle_failure(
            before,
            clip.source_hash,
            ready.why,
            self.options.max_fail_retries,
            datetime.now(UTC),
            video_id=clip.video_id,
            version=encoder.version.id,
        )


def _sentence(error: Exception) -> str:
    """An item's error as the ledger keeps it: encoders' own sentences as they are, others named."""
    return str(error) if isinstance(error, MediaError) else f"{type(error).__name__}: {error}"
