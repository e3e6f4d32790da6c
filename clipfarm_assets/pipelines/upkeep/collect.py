"""Removing orphans: each is asked for once more right before."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.ledger.leases import Lease, LeaseHeld
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.turns import SWEEP
from clipfarm_assets.pipelines.upkeep import references
from clipfarm_assets.pipelines.upkeep.orphans import Found, Orphan, find_orphans
from clipfarm_assets.storage.objects import ObjectInfo
from clipfarm_assets.storage.unfinished import discard_unfinished

#: Most of a kind that may be orphans without somebody saying that this is meant.
MAX_SHARE: Final = 0.5
_STAGES: Final = (
    *(statuses.embedding_stage(modality) for modality in MODALITIES),
    *(statuses.fusion_stage(strategy) for strategy in STRATEGIES),
)
# So few are removed whatever their share is.
_FEW: Final = 20
_AT_ONCE: Final = 100

GONE: Final = "gone already"
WRITTEN_AGAIN: Final = "written again meanwhile"
REFERRED_TO: Final = "referred to by now, or written again"


class RunsAtWork(RuntimeError):  # noqa: N818 - a state of the deployment
    """Runs are at work on the store."""


class TooMany(RuntimeError):  # noqa: N818 - a state of the deployment
    """So much of a kind is orphaned that something else may be wrong."""


@dataclass(frozen=True)
class Collected:
    """What was removed.

    Attributes:
        deleted: In this order.
        spared: Number of orphans that stayed after all, by reason.
        report: Key of the object that lists them.
    """

    deleted: tuple[Orphan, ...]
    spared: Mapping[str, int]
    report: str


def refuse_at_work(deployment: Deployment, own: Lease | None = None) -> None:
    """Raise `RunsAtWork` if anybody holds a lease on a part of the store, but for one's own."""
    held = [
        lease
        for lease in deployment.ledger.held_leases()
        if own is None or (lease.scope, lease.token) != (own.scope, own.token)
    ]
    if held:
        told = "; ".join(f"{lease.scope}: {lease}" for lease in held[:5])
        msg = (
            f"runs are at work on {len(held)} parts of the store ({told}): wait for them, then run "
            "it again"
        )
        raise RunsAtWork(msg)


def refuse_many(found: Found, max_share: float) -> None:
    """Raise `TooMany` if more than `max_share` of a kind's objects are orphans."""
    for kind, (number, _) in found.by_kind().items():
        of = found.examined.get(kind, 0)
        if number > _FEW and of and number > max_share * of and kind in _GUARDED:
            msg = (
                f"{number} of {of} objects of kind {kind} are orphans, more than the share "
                f"{max_share:g}: is this the ledger of this store? If it is meant, say so with "
                "--max-share 1"
            )
            raise TooMany(msg)


# Of the other kinds nothing but remains is expected.
_GUARDED: Final = ("embedding", "shard")


def collect(
    deployment: Deployment,
    found: Found,
    *,
    max_share: float = MAX_SHARE,
    say: Say = silent,
    moment: datetime | None = None,
) -> Collected:
    """Remove what `find_orphans` found, as far as it is still orphaned.

    The states are published first: those in the store may be older, and name what is removed.
    A report lists it in the store before the first object is removed, and after the last one again.
    A run that begins meanwhile waits, and this stops for it at its next look, see `turns.at_work`.

    Args:
        deployment: Whose store and ledger.
        found: What was found, by a look at this very deployment.
        max_share: See `refuse_many`.
        say: Told what happens.
        moment: Names the report; now.

    Raises:
        RunsAtWork: A run is at work, or begins while this is; or another one of this is.
        LeaseLost: This was not heard of for so long that another one has begun.
        TooMany: More of a kind is orphaned than `max_share`.
        Exception: As `find_orphans`; what was removed until then is gone.
    """
    refuse_at_work(deployment)
    refuse_many(found, max_share)
    stamp = (moment or datetime.now(UTC)).strftime("gc-%Y%m%dT%H%M%S.%fZ")
    report = deployment.layout.upkeep_report(stamp)
    if not found.orphans:
        return Collected((), {}, "")
    for stage in _STAGES:  # another machine must not restore what names a removed object
        deployment.publish(stage)
    listed = [_record(orphan) for orphan in found.orphans]
    _tell(deployment, report, {"state": "begun", "to_delete": listed})
    sweep = _Sweep(deployment, found, say)
    try:
        sweep.run()
    finally:
        deleted = [_record(orphan) for orphan in sweep.deleted]
        state = "ended" if sweep.is_done else "broken_off"
        body = {"state": state, "deleted": deleted, "spared": dict(sweep.spared)}
        _tell(deployment, report, body)
    return Collected(tuple(sweep.deleted), dict(sorted(sweep.spared.items())), report)


@dataclass
class _Sweep:
    """One removal in progress."""

    deployment: Deployment
    found: Found
    say: Say
    deleted: list[Orphan] = field(default_factory=list)
    spared: Counter[str] = field(default_factory=Counter)
    is_done: bool = False

    def run(self) -> None:
        """Remove them one after the other, under a lease that runs look for when they begin."""
        try:
            with self.deployment.ledger.lease(SWEEP, wait_seconds=0) as lease:
                self._run(lease)
        except LeaseHeld as error:
            raise RunsAtWork(str(error)) from None

    def _run(self, lease: Lease) -> None:
        # What changed since they were found isn't known: the first batch finds out.
        marks: Mapping[str, str | None] | None = None
        valid: set[str] = set()
        for batch in batched(self.found.orphans, _AT_ONCE):
            refuse_at_work(self.deployment, lease)
            now = self._marks()
            if now != marks:
                again = find_orphans(self.deployment, self.found.cutoff)
                valid, marks = {orphan.key for orphan in again.orphans}, now
            for orphan in batch:
                lease.check()
                reason = self._objection(orphan) if orphan.key in valid else REFERRED_TO
                if reason is None and not self._delete(orphan):
                    reason = GONE
                if reason is None:
                    self.deleted.append(orphan)
                else:
                    self.spared[reason] += 1
            self.say(f"{len(self.deleted)} of {len(self.found.orphans)} removed")
        self.is_done = True

    def _objection(self, orphan: Orphan) -> str | None:
        """Why an orphan stays after all."""
        if orphan.place is None:
            return None  # `discard_unfinished` looks itself
        try:
            head = self.deployment.store.head(orphan.key)
        except FileNotFoundError:
            return GONE
        if head.modified is None or head.modified >= self.found.cutoff:
            return WRITTEN_AGAIN
        place, ledger = orphan.place, self.deployment.ledger
        if place.modality is not None:
            stage = statuses.embedding_stage(place.modality)
            known = ledger.columns(stage, [place.video_id], "status")
            if any(status != statuses.FORGOTTEN for (status,) in known.values()):
                return REFERRED_TO
        if place.kind == "shard" and place.strategy is not None:
            stage = statuses.fusion_stage(place.strategy)
            named = ledger.columns(stage, orphan.video_ids, "artifact_key")
            if any(artifact == orphan.key for (artifact,) in named.values()):
                return REFERRED_TO
        if place.kind == "training_dataset":
            current = references.current_dataset(self.deployment, place.dataset)
            return REFERRED_TO if current == place.sha256 else None
        return None

    def _delete(self, orphan: Orphan) -> bool:
        store = self.deployment.store
        if orphan.place is None:
            info = ObjectInfo(orphan.key, orphan.size, orphan.modified)
            return discard_unfinished(store, info, self.found.cutoff)
        store.delete(orphan.key)
        return True

    def _marks(self) -> dict[str, str | None]:
        """What changes whenever a reference does that is kept in the store."""
        layout, store = self.deployment.layout, self.deployment.store
        keys = [layout.state(stage) for stage in _STAGES]
        for strategy in STRATEGIES:
            keys += [
                layout.schema_lock(strategy),
                layout.fused_manifest(strategy),
                *(layout.training_dataset(strategy, horizon) for horizon in HORIZONS),
            ]
        own = {orphan.key for orphan in self.found.orphans}
        marks: dict[str, str | None] = {}
        for key in keys:
            try:
                marks[key] = store.head(key).mark
            except FileNotFoundError:
                marks[key] = None
        for strategy in STRATEGIES:
            deltas = store.list(layout.manifest_deltas_prefix(strategy))
            marks |= {info.key: "" for info in deltas if info.key not in own}
        return marks


def _record(orphan: Orphan) -> dict[str, Any]:
    return {
        "key": orphan.key,
        "kind": orphan.kind,
        "bytes": orphan.size,
        "modified": orphan.modified.isoformat(),
    }


def _tell(deployment: Deployment, key: str, body: Mapping[str, Any]) -> None:
    deployment.store.put(key, (json.dumps(body, indent=2) + "\n").encode())
