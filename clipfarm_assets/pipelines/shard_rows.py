"""Clips that wait for their shard to be full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.contracts.text_gate import Gate
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.pipelines.fusion_delta import Candidate


@dataclass(frozen=True, slots=True)
class FusedRow:
    """A clip ready for a shard, but for its vectors."""

    candidate: Candidate
    verdict: Gate
    retry_count: int

    @property
    def has_text(self) -> bool:
        """Whether it is fused with its own text, and not with a placeholder."""
        return self.verdict.status == statuses.SUCCESS_FULL


class ShardRows:
    """Up to `capacity` rows and their fused vectors."""

    def __init__(self, lock: SchemaLock, capacity: int) -> None:
        """Make room; memory is taken as rows come."""
        self._lock = lock
        self._vectors = np.empty((capacity, lock.fused_dim), dtype=np.float32)
        self.rows: list[FusedRow] = []

    @property
    def is_full(self) -> bool:
        """Whether no row more has room."""
        return len(self.rows) == len(self._vectors)

    def add(
        self,
        rows: Sequence[FusedRow],
        blocks: Mapping[Modality, NDArray[np.float32]],
        numbers: Sequence[int],
    ) -> int:
        """Take and fuse rows while there is room; returns how many were taken.

        Args:
            rows: Clips in order.
            blocks: Vectors by modality; zeros where text is a placeholder.
            numbers: For each row, its row in the blocks, increasing.
        """
        start = len(self.rows)
        taken = rows[: len(self._vectors) - start]
        if not taken:
            return 0
        first, last = numbers[0], numbers[len(taken) - 1]
        adjacent = last - first == len(taken) - 1  # as nearly always: a slice copies nothing
        picked = slice(first, last + 1) if adjacent else numbers[: len(taken)]
        fuse(
            self._lock.fusion_strategy,
            blocks["video"][picked],
            blocks["audio"][picked],
            blocks["text"][picked],
            np.array([row.has_text for row in taken], dtype=np.bool_),
            append_mask=self._lock.mask_appended,
            out=self._vectors[start : start + len(taken)],
        )
        self.rows += taken
        return len(taken)

    def shard(self) -> FusedShard:
        """The rows as a shard, whose vectors are these and no copy."""
        lock, rows = self._lock, self.rows
        candidates, verdicts = [r.candidate for r in rows], [r.verdict for r in rows]
        declared = Declaration(
            source_hash=strings([c.source_hash for c in candidates]),
            video_emb_key=strings([c.availability["video"].key for c in candidates]),
            audio_emb_key=strings([c.availability["audio"].key for c in candidates]),
            text_emb_key=strings(
                [r.candidate.availability["text"].key if r.has_text else "" for r in rows]
            ),
            text_present=np.array([r.has_text for r in rows], dtype=np.int64),
            text_state_status=strings([v.text_state_status for v in verdicts]),
            text_missing_reason=strings([v.reason for v in verdicts]),
            fusion_status=strings([v.status for v in verdicts]),
            retry_count_at_write=np.array([r.retry_count for r in rows], dtype=np.int64),
            fusion_strategy=lock.fusion_strategy,
            lock_version=lock.lock_version,
            embedding_versions=strings([lock.embedding_versions[m] for m in MODALITIES]),
        )
        ids = strings([c.video_id for c in candidates])
        vectors = self._vectors[: len(rows)]
        return FusedShard(ids, vectors, strings([c.captured_at for c in candidates]), declared)
