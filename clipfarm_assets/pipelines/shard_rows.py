"""Clips that wait for their shard to be full."""

from collections.abc import Sequence
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


class ShardRows:
    """Up to `capacity` rows and their vectors, in one block a modality."""

    def __init__(self, lock: SchemaLock, capacity: int) -> None:
        """Make room; memory is taken as rows come."""
        self._lock = lock
        self._capacity = capacity
        self._blocks: dict[Modality, NDArray[np.float32]] = {
            modality: np.empty((capacity, lock.dim(modality)), dtype=np.float32)
            for modality in MODALITIES
        }
        self.rows: list[FusedRow] = []

    @property
    def is_full(self) -> bool:
        """Whether no row more has room."""
        return len(self.rows) == self._capacity

    def add(
        self,
        rows: Sequence[FusedRow],
        blocks: dict[Modality, NDArray[np.float32]],
        numbers: Sequence[int],
    ) -> int:
        """Take rows while there is room; returns how many were taken.

        Args:
            rows: Clips in order.
            blocks: Vectors by modality; zeros where text is a placeholder.
            numbers: For each row, its row in the blocks.
        """
        start = len(self.rows)
        taken = min(len(rows), self._capacity - start)
        self.rows += rows[:taken]
        for modality, block in self._blocks.items():
            rows_of = block[start : start + taken]
            # Any mode but the default writes to `out` directly; the numbers are in bounds.
            np.take(blocks[modality], numbers[:taken], axis=0, out=rows_of, mode="clip")
        return taken

    def clear(self) -> None:
        """Begin the next shard."""
        self.rows = []

    def shard(self) -> FusedShard:
        """The rows fused."""
        lock, rows = self._lock, self.rows
        candidates, verdicts = [r.candidate for r in rows], [r.verdict for r in rows]
        present = np.array([v.status == statuses.SUCCESS_FULL for v in verdicts], dtype=np.bool_)
        vectors = fuse(
            lock.fusion_strategy,
            self._blocks["video"][: len(rows)],
            self._blocks["audio"][: len(rows)],
            self._blocks["text"][: len(rows)],
            present,
            append_mask=lock.mask_appended,
        )
        declared = Declaration(
            source_hash=strings([c.source_hash for c in candidates]),
            video_emb_key=strings([c.availability["video"].key for c in candidates]),
            audio_emb_key=strings([c.availability["audio"].key for c in candidates]),
            text_emb_key=strings(
                [
                    c.availability["text"].key if v.text_source == "full" else ""
                    for c, v in zip(candidates, verdicts, strict=True)
                ]
            ),
            text_present=present.astype(np.int64),
            text_state_status=strings([v.text_state_status for v in verdicts]),
            text_missing_reason=strings([v.reason for v in verdicts]),
            fusion_status=strings([v.status for v in verdicts]),
            retry_count_at_write=np.array([r.retry_count for r in rows], dtype=np.int64),
            fusion_strategy=lock.fusion_strategy,
            lock_version=lock.lock_version,
            embedding_versions=strings([lock.embedding_versions[m] for m in MODALITIES]),
        )
        ids = strings([c.video_id for c in candidates])
        return FusedShard(ids, vectors, strings([c.captured_at for c in candidates]), declared)
