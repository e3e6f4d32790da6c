"""Audit of one strategy: lock, manifests, shards and the ledger's rows lead to each other."""

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from clipfarm_assets.contracts import checks, statuses
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.schema_lock import BadLock, LockMismatch, SchemaLock
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.audit.findings import Findings
from clipfarm_assets.pipelines.inspect.audit.manifests import (
    Manifests,
    audit_manifests,
    rows_into,
)
from clipfarm_assets.pipelines.inspect.audit.pointers import difference, key_hashes
from clipfarm_assets.pipelines.inspect.audit.states import StageRows
from clipfarm_assets.pipelines.lock import NoLock, load_lock
from clipfarm_assets.pipelines.manifest import shards_of
from clipfarm_assets.pipelines.progress import Progress, Say

# Of more shards the pointers that lead astray are counted, and not told one by one.
_SHARDS_TOLD: Final = 16


def audit_strategy(
    deployment: Deployment,
    strategy: Strategy,
    rows: StageRows,
    forgotten: frozenset[str],
    findings: Findings,
    say: Say,
) -> int:
    """Look at everything of a strategy; one shard is in memory, and 32 bytes a manifest row.

    Returns:
        How many shards no manifest has looked at yet.
    """
    store, layout = deployment.store, deployment.layout
    lock_key = layout.schema_lock(strategy)
    keys = [info.key for info in store.list(lock_key.rpartition("/")[0])]
    if not keys and not rows.published and not deployment.ledger.counts(rows.stage):
        return 0  # nothing was ever done by it
    try:
        lock = load_lock(deployment, strategy)
    except (NoLock, BadLock, LockMismatch) as error:
        findings.add("bad_lock", lock_key, str(error))
        return 0
    manifests = audit_manifests(deployment, strategy, lock, forgotten, findings)
    there = {key for key in keys if layout.shard_ref(key)}
    look = _Look(deployment, lock, manifests, rows, forgotten, findings)
    look.at_ledger_rows()
    named = {*manifests.pointers.shards(), *look.named}
    for key in sorted(key for key in named if not layout.shard_ref(key)):
        look.at_shard(key, f"{key} is no key of a shard, so that it does not exist")
    wanted = sorted(there | {key for key in named if layout.shard_ref(key)})
    progress = Progress(f"audit shards of {strategy}", len(wanted), say)
    with closing(shards_of(deployment, wanted)) as shards:
        for key, shard in shards:
            look.at_shard(key, shard)
            progress.step()
    look.tell_pointers()
    look.tell_ledger_rows()
    look.at_published(there)
    return len(look.unmerged)


@dataclass
class _Look:
    """One look at a strategy's shards.

    Attributes:
        deployment, lock, manifests, rows, forgotten, findings: See `audit_strategy`.
        named: By shard, how many rows of the stage name it.
        ahead: Clips whose published row is newer than the ledger's.
        held: By shard that hasn't all rows that name it: the clips and sources that it has.
        astray: By shard, how many manifest rows that point into it are not its own.
        absent: By shard that can't be had, why.
        unmerged: Shards that no manifest has looked at.
    """

    deployment: Deployment
    lock: SchemaLock
    manifests: Manifests
    rows: StageRows
    forgotten: frozenset[str]
    findings: Findings
    named: Counter[str] = field(default_factory=Counter)
    ahead: set[str] = field(default_factory=set)
    held: dict[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    astray: dict[str, int] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    unmerged: list[str] = field(default_factory=list)

    def at_ledger_rows(self) -> None:
        """Count which shards the stage's rows name."""
        for published, item in self.rows.pairs():
            self.findings.examined["ledger rows"] += 1
            if item is published:
                self.ahead.add(item.video_id)
            if item.status not in statuses.FUSED:
                continue
            if item.artifact_key is None:
                told = f"is {item.status}, and names no shard"
                self.findings.add("missing_shard", self._row_of(item.video_id), told)
            else:
                self.named[item.artifact_key] += 1

    def at_shard(self, key: str, shard: FusedShard | str) -> None:
        """Compare a shard with the lock, and with all that names it."""
        if isinstance(shard, str):
            self.absent[key] = shard
            is_gone = shard.endswith("does not exist")  # as `shards_of` words it
            self.findings.add("missing_shard" if is_gone else "bad_shard", key, shard)
            return
        self.findings.examined["shards"] += 1
        self.findings.examined["shard rows"] += len(shard)
        if not np.isfinite(shard.vectors).all():
            self.findings.add("bad_shard", key, "its vectors have values that are no numbers")
        self._compare_with_lock(key, shard)
        for video_id in sorted(self.forgotten.intersection(shard.video_ids.tolist())):
            self.findings.add("forgotten_remains", key, f"has a row of {video_id}")
        if astray := self.manifests.pointers.astray(key, shard):
            self.astray[key] = astray
        self._look_for_lost(key, shard)
        self._compare_with_ledger(key, shard)

    def _compare_with_lock(self, key: str, shard: FusedShard) -> None:
        if shard.lock_version() != self.lock.lock_version:
            return  # of an archived lock
        adopted = self.deployment.models_lock().adopted()
        differs = shard.lock_difference(self.lock, adopted)
        if differs:
            told = f"{differs.name} is locked to {differs.locked!r}, found {differs.found!r}"
            self.findings.add("bad_shard", key, told)

    def _look_for_lost(self, key: str, shard: FusedShard) -> None:
        """Rows that the manifest has looked at must be in it, or a later one of the same source."""
        if key not in self.manifests.recorded:
            self.unmerged.append(key)
            return
        if shard.declared is None or shard.lock_version() != self.lock.lock_version:
            return
        rows = pl.DataFrame(shard.manifest_rows(key))
        for place in np.flatnonzero(~np.isin(key_hashes(rows), self.manifests.present)):
            video_id = str(shard.video_ids[place])
            if video_id not in self.forgotten:
                told = f"row {place}, of {video_id}, is in no manifest, which has merged the shard"
                self.findings.add("lost_row", key, told)

    def _compare_with_ledger(self, key: str, shard: FusedShard) -> None:
        ids = sorted(set(shard.video_ids.tolist()))
        stored = self.deployment.ledger.columns(
            self.rows.stage, ids, "artifact_key", "source_hash", "status"
        )
        own = _own_rows(shard)
        has = 0
        for video_id in ids:
            if video_id in self.ahead:
                item = self.rows.published[video_id]
                row = (item.artifact_key, item.source_hash, item.status)
            else:
                row = stored.get(video_id, (None, "", ""))
            artifact, source, status = row
            if artifact == key and status in statuses.FUSED:
                has += (video_id, source) in own or (video_id, "") in own
        if has != self.named[key]:
            self.held[key] = own

    def tell_pointers(self) -> None:
        """Name the manifest rows that lead astray; of many shards only how many there are."""
        pointed = self.manifests.pointers.shards()
        bad = self.astray | {key: pointed[key] for key in self.absent if key in pointed}
        told = sorted(bad)[:_SHARDS_TOLD]
        shards = {key: self.absent.get(key) or self._again(key) for key in told}
        for file, rows in rows_into(self.deployment, self.manifests.files, told) if told else ():
            self._tell(file, rows, shards)
        for key in sorted(bad)[_SHARDS_TOLD:]:
            told_of = f"{bad[key]} manifest rows that point here are not what is here"
            self.findings.add("dangling_pointer", key, told_of)

    def _again(self, key: str) -> FusedShard | str:
        (found,) = shards_of(self.deployment, [key])
        return found[1]

    def _tell(self, file: str, rows: pl.DataFrame, shards: Mapping[str, FusedShard | str]) -> None:
        verdict = checks.pointers_resolve(rows, shards.items())
        for finding in verdict.findings:
            self.findings.add("dangling_pointer", f"{file}: {finding.subject}", finding.problem)
        astray = {finding.subject for finding in verdict.findings}
        for row in rows.iter_rows(named=True):
            shard = shards[row["fused_key"]]
            subject = f"{row['video_id']} -> {row['fused_key']}[{row['shard_idx']}]"
            if subject in astray or isinstance(shard, str):
                continue
            for told in difference(row, shard):
                self.findings.add("other_row", f"{file}: {subject}", told)

    def tell_ledger_rows(self) -> None:
        """Name the ledger's rows whose shard doesn't have them."""
        if not self.held and not self.absent.keys() & self.named.keys():
            return
        for item in self.rows:
            key = item.artifact_key
            if key is None or item.status not in statuses.FUSED:
                continue
            if key in self.absent:
                told = self.absent[key]
            elif key in self.held and not (
                {(item.video_id, item.source_hash), (item.video_id, "")} & self.held[key]
            ):
                told = "the shard has no row of the clip with that source_hash"
            else:
                continue
            subject = f"{self._row_of(item.video_id)} -> {key}"
            self.findings.add("dangling_pointer", subject, told)

    def at_published(self, there: Collection[str]) -> None:
        """Shards that rows of the published state name, which another machine would restore."""
        gone: Counter[str] = Counter()
        for row in self.rows.published.values():
            if row.status in statuses.FUSED and row.artifact_key not in there:
                gone[row.artifact_key or "no shard"] += 1
        state = self.deployment.layout.state(self.rows.stage)
        for key, number in sorted(gone.items()):
            told = f"{number} of its rows name {key}, which does not exist"
            self.findings.add("dangling_pointer", state, told)

    def _row_of(self, video_id: str) -> str:
        return f"{self.rows.stage} of {video_id}"


def _own_rows(shard: FusedShard) -> frozenset[tuple[str, str]]:
    """The clips of a shard with their sources; empty ones where it declares none."""
    ids = shard.video_ids.tolist()
    if shard.declared is None:
        return frozenset((video_id, "") for video_id in ids)
    return frozenset(zip(ids, shard.declared.source_hash.tolist(), strict=True))
