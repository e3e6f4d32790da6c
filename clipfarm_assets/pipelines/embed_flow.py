"""The flow of an embedding run: fetch -> decode -> group -> encode -> put, then the ledger.

Every arrow is a bounded queue, and order is kept throughout. The consumer's thread moves items
from one to the next and commits what comes out; all else happens in worker threads.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from threading import Lock
from typing import Any

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.checks import vector_problem
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
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets.pipelines.failure_streak import Outcome, UnusableVector, sentence
from clipfarm_assets.pipelines.flow import ByteBudget, grouped, ordered_map
from clipfarm_assets.pipelines.meters import Meters
from clipfarm_assets.pipelines.workers import CPU, Machine, WorkerOptions, WorkPlan, plan_work
from clipfarm_assets.storage.npy import vector_to_npy


@dataclass(frozen=True)
class EmbedOptions:
    """How a run works; none of these changes a vector.

    Attributes:
        batch_size: Items committed together; and vectors at most that are being stored, or stored
            and not committed yet: what a run that is killed makes the next one repeat.
        workers: Threads that decode; None follows from the machine, as for the next ones.
        fetch_workers: Threads that read raw objects.
        encode_workers: Threads that run the model.
        put_workers: Threads that store vectors.
        threads: Torch's threads for one item, as the encoder has them: so many cores an encode
            worker takes.
        queue_depth: Items a worker of each queue; None follows from the step.
        audio_seconds: The longest sound, as the encoder takes it: memory follows from it.
        prefetch_mib: Bound of raw objects in memory, in MiB, see `flow.ByteBudget`.
        item_deadline_seconds: Time after which one item's decoding is given up.
        max_fail_retries: Failures of one source kept as `fail`; the next one is `fail_terminal`.
        retry_terminal: Try items again that ended as `fail_terminal`.
        verify_objects: Read every stored vector of the dates, and make those again that are gone
            or are not the bytes that were recorded.
    """

    batch_size: int = 8
    workers: int | None = None
    fetch_workers: int | None = None
    encode_workers: int | None = None
    put_workers: int | None = None
    threads: int = 1
    queue_depth: int | None = None
    audio_seconds: float = 90.0
    prefetch_mib: int = 256
    item_deadline_seconds: float = 120.0
    max_fail_retries: int = statuses.DEFAULT_MAX_FAIL_RETRIES
    retry_terminal: bool = False
    verify_objects: bool = False

    @property
    def worker_options(self) -> WorkerOptions:
        """What of it decides the plan."""
        return WorkerOptions(
            self.fetch_workers,
            self.workers,
            self.encode_workers,
            self.put_workers,
            self.threads,
            self.queue_depth,
            self.audio_seconds,
        )


@dataclass(frozen=True, slots=True)
class Clip:
    """What the stage needs of an index row, and how the clip stands."""

    video_id: str
    source_hash: str
    captured_at: str
    metadata: Mapping[str, str]
    before: Item | None = None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A clip and its raw object; None where there is none."""

    clip: Clip
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A clip after decoding: prepared input, or what it waits for, or an error."""

    clip: Clip
    prepared: Any = None
    waits: str = ""
    error: Exception | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether there is something for the model."""
        return not self.waits and self.error is None


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A clip after the model: what it gave, or an error, or what the clip waits for."""

    clip: Clip
    result: Encoded | Exception | None = None
    waits: str = ""


@dataclass
class Unsettled:
    """Vectors that are being stored, or stored and not in the ledger yet. For one thread."""

    limit: int
    count: int = 0

    def admit(self, _wait: bool) -> bool:
        """Whether one more may be stored; see `flow.Admit`.

        It never has to wait: with none under way, `limit` of them would have been committed.
        """
        if self.count >= self.limit:
            return False
        self.count += 1
        return True

    def settle(self, count: int) -> None:
        """So many are in the ledger now, or came to nothing that was stored."""
        self.count -= count


class EmbeddingFlow:
    """One run of clips through the steps.

    Order of writes: the object first, then the ledger, which is the consumer's part. Whatever is
    killed, at most `EmbedOptions.batch_size` objects have no row yet; the next run makes the same
    bytes again for them. Memory is bounded by the plan's depths and, where items are large, by
    bytes. One item that fails is one item that fails. A store that fails, a model that cannot be
    loaded, or one that must not be used, is not the item's fault: such errors are raised in the
    item's place, and end the flow.
    """

    def __init__(
        self,
        deployment: Deployment,
        modality: Modality,
        encoder: EncoderOnDemand,
        options: EmbedOptions,
        machine: Machine,
        device: Callable[[], str],
        expected: int,
    ) -> None:
        """Plan it; nothing starts before `outcomes` is consumed.

        Args:
            deployment: Where objects are read and written.
            modality: What is embedded.
            encoder: Opened by the first raw object that is found.
            options: How to work.
            machine: What to work with.
            device: The kind of device the model runs on; asked when there is a model.
            expected: Clips to come: few are not left to one encode worker.
        """
        self._deployment, self._modality, self._encoder = deployment, modality, encoder
        self._options, self._machine, self._device = options, machine, device
        self._expected = expected
        self.plan = self._plan_for(CPU)
        self.meters = Meters()
        self.unsettled = Unsettled(options.batch_size)
        self._warming, self._warm = Lock(), False
        self._budget = ByteBudget(options.prefetch_mib * 2**20)

    def outcomes(self, clips: Iterable[Clip]) -> Generator[Outcome, None, None]:
        """What became of the clips, in their order; what was embedded is stored by then.

        For every outcome the consumer calls ``unsettled.settle``: at once if nothing was stored,
        else when its row is in the ledger. Close it to end the threads.
        """
        with ExitStack() as stack:
            fetched = stack.enter_context(
                closing(
                    ordered_map(
                        self._fetch,
                        clips,
                        workers=self.plan.fetch_workers,
                        ahead=self.plan.fetch_ahead,
                        admit=self._budget.admit,
                    )
                )
            )
            decoded = stack.enter_context(
                closing(
                    ordered_map(
                        self._prepare,
                        fetched,
                        workers=self.plan.decode_workers,
                        ahead=self.plan.decode_ahead,
                    )
                )
            )
            encoded = stack.enter_context(closing(self._encoded(decoded)))
            yield from stack.enter_context(
                closing(
                    ordered_map(
                        self._settle,
                        encoded,
                        workers=self.plan.put_workers,
                        ahead=self.plan.put_workers,
                        admit=self.unsettled.admit,
                    )
                )
            )

    def _encoded(self, decoded: Iterator[_Ready]) -> Generator[_Embedded, None, None]:
        """Group and encode. How, is known when the first prepared item is: then there is a model.

        Groups are full, or all there is: the last one, and what comes before an error.
        """
        for first in decoded:
            if first.is_prepared:
                break
            yield _Embedded(first.clip, first.error, first.waits)
        else:
            return
        encoder = self._encoder()
        self.plan = self._plan_for(self._device())
        share = -(-self._expected // self.plan.encode_workers)
        groups = ordered_map(
            lambda group: self._encode(group, encoder),
            grouped(chain(iter([first]), decoded), max(1, min(encoder.group_size, share))),
            workers=self.plan.encode_workers,
            ahead=self.plan.encode_ahead,
        )
        del first
        with closing(groups):
            for group in groups:
                yield from group

    def _plan_for(self, device: str) -> WorkPlan:
        return plan_work(self._options.worker_options, self._modality, self._machine, device)

    def _fetch(self, clip: Clip) -> _Fetched:
        raw: bytes | None = None
        with self.meters.measured("fetch") as tally:
            try:
                raw = self._deployment.store.get(self._raw_key(clip))
            except FileNotFoundError:
                pass  # it is waited for
            finally:
                self._budget.arrived(len(raw or b""))
            tally.items = tally.requests = 1
            tally.bytes = len(raw or b"")
        return _Fetched(clip, raw)

    def _prepare(self, fetched: _Fetched) -> _Ready:
        """Decode one clip; the first object found opens the encoder."""
        clip, raw = fetched.clip, fetched.raw
        try:
            if raw is None:
                return _Ready(clip, waits=f"{self._raw_key(clip)} does not exist")
            encoder = self._encoder()
            with self.meters.measured("decode") as tally:
                tally.items = 1
                return self._decoded(Source(clip.video_id, raw, clip.metadata), clip, encoder)
        finally:
            self._budget.release(len(raw or b""))

    def _decoded(self, source: Source, clip: Clip, encoder: Encoder) -> _Ready:
        try:
            deadline = Deadline.after(self._options.item_deadline_seconds)
            return _Ready(clip, prepared=encoder.prepare(source, deadline))
        except ContentMissing as missing:
            return _Ready(clip, waits=str(missing))
        except ModelMismatch:
            raise
        except Exception as error:  # noqa: BLE001 - one bad item is one bad item
            return _Ready(clip, error=error)

    def _encode(self, group: Sequence[_Ready], encoder: Encoder) -> list[_Embedded]:
        """The model over a group's prepared items; the others pass through in their places."""
        prepared = [ready.prepared for ready in group if ready.is_prepared]
        with self.meters.measured("encode") as tally:
            tally.items = len(prepared)
            results = iter(self._first_alone(prepared, encoder))
        return [
            _Embedded(one.clip, next(results) if one.is_prepared else one.error, one.waits)
            for one in group
        ]

    def _first_alone(self, prepared: Sequence[Any], encoder: Encoder) -> list[Encoded | Exception]:
        """The model over a group; nobody else runs it before the first group is through.

        Libraries set themselves up in their first call, and two first calls at once were seen to
        spin for ever.
        """
        if not self._warm:
            with self._warming:
                if not self._warm:
                    results = _results(prepared, encoder)
                    self._warm = bool(prepared)
                    return results
        return _results(prepared, encoder)

    def _settle(self, embedded: _Embedded) -> Outcome:
        """Store a vector; what the ledger is to know of the item."""
        clip = embedded.clip
        if embedded.waits:
            return Outcome(self._waiting(clip, embedded.waits))
        version = self._encoder().version
        result = embedded.result
        if isinstance(result, Encoded):
            problem = vector_problem(result.vector, version.dim)
            if problem is None:
                return Outcome(self._stored(clip, result, version), result.notes)
            result = UnusableVector(f"embedding unusable: {problem}")
        assert result is not None  # noqa: S101 - neither waiting nor embedded: there is an error
        item = self._failed(clip, result, version)
        return Outcome(item, unexpected=None if isinstance(result, MediaError) else result)

    def _stored(self, clip: Clip, encoded: Encoded, version: EmbeddingVersion) -> Item:
        key = self._deployment.layout.embedding(self._modality, clip.video_id)
        data = vector_to_npy(encoded.vector)
        with self.meters.measured("put") as tally:
            self._deployment.store.put(key, data)
            tally.items = tally.requests = 1
            tally.bytes = len(data)
        return rules.settle_success(
            clip.before,
            clip.source_hash,
            statuses.SUCCESS,
            datetime.now(UTC),
            video_id=clip.video_id,
            artifact_key=key,
            version=version.id,
            content_sha256=hashlib.sha256(data).hexdigest(),
            details={**encoded.notes, rules.CAPTURED_AT: clip.captured_at},
        )

    def _waiting(self, clip: Clip, reason: str) -> Item:
        return rules.settle_waiting(
            clip.before,
            clip.source_hash,
            statuses.MISSING_RAW_OBJECT,
            reason,
            datetime.now(UTC),
            video_id=clip.video_id,
            details={rules.CAPTURED_AT: clip.captured_at},
        )

    def _failed(self, clip: Clip, error: Exception, version: EmbeddingVersion) -> Item:
        return rules.settle_failure(
            clip.before,
            clip.source_hash,
            sentence(error),
            self._options.max_fail_retries,
            datetime.now(UTC),
            video_id=clip.video_id,
            version=version.id,
            details={rules.CAPTURED_AT: clip.captured_at},
        )

    def _raw_key(self, clip: Clip) -> str:
        return self._deployment.layout.raw(self._modality, clip.video_id)


def _results(prepared: Sequence[Any], encoder: Encoder) -> list[Encoded | Exception]:
    """The model over a group; if it raises, one at a time, so that only the culprit fails."""
    if not prepared:
        return []
    try:
        encoded = encoder.encode(prepared)
        return [one for one, _ in zip(encoded, prepared, strict=True)]
    except Exception as error:  # noqa: BLE001 - found out one at a time
        if len(prepared) == 1:
            return [error]
    return [result for one in prepared for result in _results([one], encoder)]
