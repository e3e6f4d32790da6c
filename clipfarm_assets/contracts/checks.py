"""The promises about clips' data, as functions from data to findings.

One function, two users: the asset checks show its findings, the code that loads data refuses on
them. A finding is a sentence about one thing that is wrong; no findings means the promise holds.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.manifest_merge import KEY
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import Modality

# Vectors are normalised in float32 and stored so: the rounding of 768 squares stays far below this.
UNIT_NORM_TOLERANCE: Final = 1e-4


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and with what."""

    subject: str
    problem: str

    def __str__(self) -> str:
        """Subject and problem in one line."""
        return f"{self.subject}: {self.problem}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of one promise.

    Attributes:
        findings: What is wrong; empty if the promise holds.
        examined: How many things were looked at: a promise about nothing holds, and should look so.
        facts: Further numbers worth showing.
    """

    findings: tuple[Finding, ...]
    examined: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def summary(self, limit: int = 5) -> str:
        """One line: how many findings, and the first few of them."""
        if self.holds:
            return f"holds for all {self.examined} examined"
        shown = "; ".join(str(finding) for finding in self.findings[:limit])
        more = f"; and {len(self.findings) - limit} more" if len(self.findings) > limit else ""
        return f"{len(self.findings)} findings in {self.examined} examined: {shown}{more}"


def vector_problem(vector: NDArray[np.float32], dim: int | None) -> str | None:
    """What keeps `vector`, shape ``(D,)``, from being a stored embedding; None if nothing does."""
    if dim is not None and len(vector) != dim:
        return f"expected {dim} values, found {len(vector)}"
    if not np.isfinite(vector).all():
        return f"{int((~np.isfinite(vector)).sum())} of {len(vector)} values are not finite"
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if abs(norm - 1.0) > UNIT_NORM_TOLERANCE:
        return f"expected unit norm, found {norm:.6f}"
    return None


def embeddings_valid(
    vectors: Iterable[tuple[str, NDArray[np.float32] | str]], dim: int | None
) -> Verdict:
    """Embeddings are finite, of unit norm and of the declared dimension.

    Args:
        vectors: Name and vector, or name and why there is none to look at.
        dim: The declared dimension; None where none was declared, then all must agree.
    """
    findings: list[Finding] = []
    examined = 0
    for name, vector in vectors:
        examined += 1
        if isinstance(vector, str):
            findings.append(Finding(name, vector))
            continue
        dim = len(vector) if dim is None else dim
        problem = vector_problem(vector, dim)
        if problem:
            findings.append(Finding(name, problem))
    return Verdict(tuple(findings), examined, {"dimension": dim or 0})


def index_rows_have_status(
    index_ids: Collection[str], ledger_ids: Mapping[str, Collection[str]]
) -> Verdict:
    """Every clip of the index has a ledger status in every stage."""
    findings = [
        Finding(video_id, f"no status in stage {stage}")
        for stage, known in ledger_ids.items()
        for video_id in sorted(set(index_ids) - set(known))
    ]
    return Verdict(tuple(findings), len(index_ids) * len(ledger_ids))


def lock_matches_shards(
    lock: SchemaLock,
    shards: Iterable[tuple[str, FusedShard | str]],
    adopted: Mapping[Modality, str] | None = None,
) -> Verdict:
    """Every shard made under the lock's version has the locked shape and embedding versions.

    Args:
        lock: The lock in force.
        shards: Key and shard, or key and why it can't be had.
        adopted: What unversioned vectors count as.
    """
    findings: list[Finding] = []
    examined = archived = 0
    for key, shard in shards:
        if isinstance(shard, str):
            examined += 1
            findings.append(Finding(key, shard))
            continue
        if shard.lock_version() < lock.lock_version:
            archived += 1
            continue
        examined += 1
        if shard.lock_version() > lock.lock_version:
            problem = f"made under lock {shard.lock_version()}, in force is {lock.lock_version}"
            findings.append(Finding(key, problem))
            continue
        difference = shard.lock_difference(lock, adopted)
        if difference:
            problem = f"{difference.name} locked {difference.locked!r}, found {difference.found!r}"
            findings.append(Finding(key, problem))
    return Verdict(tuple(findings), examined, {"shards_of_archived_locks": archived})


def pointers_resolve(rows: pl.DataFrame, shards: Iterable[tuple[str, FusedShard | str]]) -> Verdict:
    """Every manifest pointer ``(fused_key, shard_idx)`` leads to its own ``video_id``.

    Args:
        rows: Manifest rows.
        shards: Every shard the rows point at, once each; or why it can't be had.
    """
    findings: list[Finding] = []
    by_key = {
        str(key): group for (key,), group in rows.group_by(["fused_key"], maintain_order=True)
    }
    for key, shard in shards:
        group = by_key.pop(key, None)
        if group is None:
            continue
        suspects = group if isinstance(shard, str) else group.filter(~_lead_home(group, shard))
        for row in suspects.iter_rows(named=True):
            problem = shard if isinstance(shard, str) else _pointer_problem(row, shard)
            if problem:
                findings.append(Finding(f"{row['video_id']} -> {key}[{row['shard_idx']}]", problem))
    findings += [Finding(key, "shard was not looked at") for key in by_key]
    return Verdict(tuple(findings), len(rows))


def _lead_home(rows: pl.DataFrame, shard: FusedShard) -> pl.Series:
    """Which rows' pointers have no problem for certain: all columns at once, for there are many."""
    if not len(shard):
        return pl.Series([False] * len(rows), dtype=pl.Boolean)
    last = len(shard) - 1
    place = rows["shard_idx"].fill_null(-1)
    held = pl.Series(shard.video_ids.tolist(), dtype=pl.String)[place.clip(0, last)]
    lead: pl.Series = (
        place.is_between(0, last)
        & (rows["shard_n"] == len(shard))
        & (rows["fused_dim"] == shard.vectors.shape[1])
        & (rows["video_id"] == held)
    )
    return lead.fill_null(value=False)


def _pointer_problem(row: Mapping[str, Any], shard: FusedShard) -> str | None:
    index = row["shard_idx"]
    if not 0 <= index < len(shard):
        return f"the shard has {len(shard)} rows"
    if row["shard_n"] != len(shard):
        return f"shard_n says {row['shard_n']}, the shard has {len(shard)} rows"
    if str(shard.video_ids[index]) != row["video_id"]:
        return f"the shard holds {str(shard.video_ids[index])!r} there"
    if row["fused_dim"] != shard.vectors.shape[1]:
        return f"fused_dim says {row['fused_dim']}, the shard has {shard.vectors.shape[1]}"
    return None


def placeholders_approved(
    rows: pl.DataFrame,
    approved: Collection[str] = statuses.DEFAULT_TERMINAL_TEXT_STATUSES,
) -> Verdict:
    """A row without text has an approved terminal text status and says so consistently."""
    findings = []
    placeholders = 0
    for row in rows.iter_rows(named=True):
        told = (row["text_present"], row["text_source"], row["fusion_status"])
        if told == (1, "full", statuses.SUCCESS_FULL):
            continue
        if told != (0, "placeholder", statuses.SUCCESS_TEXT_PLACEHOLDER):
            problem = f"text_present, text_source and fusion_status contradict each other: {told}"
            findings.append(Finding(row["video_id"], problem))
            continue
        placeholders += 1
        if row["text_state_status"] not in approved:
            problem = (
                f"a placeholder needs a text status among {', '.join(sorted(approved))}: "
                f"found {row['text_state_status']!r}"
            )
            findings.append(Finding(row["video_id"], problem))
    return Verdict(tuple(findings), len(rows), {"placeholders": placeholders})


def required_modalities_present(rows: pl.DataFrame, existing_keys: Collection[str]) -> Verdict:
    """Every fused row's video and audio embedding, and text unless a placeholder, exist.

    Args:
        rows: Manifest rows.
        existing_keys: Keys of the embedding objects in the store.
    """
    findings = []
    for row in rows.iter_rows(named=True):
        needed = ["video_emb_key", "audio_emb_key"]
        if row["text_present"] == 1:
            needed.append("text_emb_key")
        for name in needed:
            if not row[name]:
                findings.append(Finding(row["video_id"], f"{name} is empty"))
            elif row[name] not in existing_keys:
                findings.append(Finding(row["video_id"], f"{name} {row[name]} does not exist"))
    return Verdict(tuple(findings), len(rows))


def manifest_unique(rows: pl.DataFrame) -> Verdict:
    """One row a (video_id, source_hash)."""
    repeated = rows.group_by(list(KEY)).len().filter(pl.col("len") > 1).sort(list(KEY))
    findings = tuple(
        Finding(row["video_id"], f"{row['len']} rows for source_hash {row['source_hash'][:12]}…")
        for row in repeated.iter_rows(named=True)
    )
    return Verdict(findings, len(rows))
