"""The flow of an embedding run: an engine fetches, decodes and encodes; then put, then the ledger.

Engines compute and write nothing (`embed_local`, `cluster`). What they make is stored here, by the
process that has the lease and the ledger, in the clips' order and within a bound.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.checks import vector_problem
from clipfarm_assets.encoders.base import EmbeddingVersion, Encoded, MediaError
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.embed_local import Engine, Work
from clipfarm_assets.pipelines.embed_steps import Clip, Embedded
from clipfarm_assets.pipelines.failure_streak import Outcome, UnusableVector, sentence
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.unrecorded import Unrecorded
from clipfarm_assets.storage.guarded import put_guarded
from clipfarm_assets.storage.npy import vector_to_npy


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
        work: Work,
        engine: Engine,
        may_store: Callable[[], None],
        unrecorded: Unrecorded,
    ) -> None:
        """Nothing starts before `outcomes` is consumed.

        Args:
            work: What is to be done, and with what.
            engine: Does it, up to the vectors.
            may_store: Called before each vector is stored; raises if that must not be any more.
            unrecorded: Gets the key of each vector once it is stored.
        """
        self._deployment, self._modality = work.deployment, work.modality
        self._encoder, self._options, self._meters = work.encoder, work.options, work.meters
        self._engine, self._may_store = engine, may_store
        self._unrecorded = unrecorded
        self.unsettled = Unsettled(work.options.batch_size)

    def outcomes(self, clips: Iterable[Clip]) -> Generator[Outcome, None, None]:
        """What became of the clips, in their order; what was embedded is stored by then.

        For every outcome the consumer calls ``unsettled.settle``: at once if nothing was stored,
        else when its row is in the ledger. Close it to end the engine's workers.
        """
        with closing(self._engine.embedded(clips)) as embedded:
            workers = self._engine.plan.put_workers
            settled = ordered_map(
                self._settle,
                embedded,
                workers=workers,
                ahead=workers,
                admit=self.unsettled.admit,
            )
            with closing(settled):
                yield from settled

    def _settle(self, embedded: Embedded) -> Outcome:
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
        is_new = clip.before is None or clip.before.artifact_key is None
        with self._meters.measured("put") as tally:
            put_guarded(self._deployment.store, key, data, self._may_store, is_new=is_new)
            tally.items = tally.requests = 1
            tally.bytes = len(data)
        self._unrecorded.add(key)
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
