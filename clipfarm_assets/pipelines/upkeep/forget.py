"""Removing a clip for good.

First a tombstone takes the place of its state in the ledger and in the published states: from then
on no run, on whatever machine, brings the clip back. Then its rows go from shards and manifests,
then its vectors, its rows in the dated tables, and if asked for its raw objects. Stopped anywhere
and begun again it ends the same; done twice it changes nothing.

What models were trained on stays as it is: a snapshot is immutable, and says what it was made of.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.ledger.leases import Lease
from clipfarm_assets.ledger.schema import Item, timestamp
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.upkeep.dated_tables import strip_table
from clipfarm_assets.pipelines.upkeep.presence import (
    STAGES,
    Presence,
    presence_of,
    strategies_there,
)
from clipfarm_assets.pipelines.upkeep.shard_rewrite import strip_clip
from clipfarm_assets.storage.layout import check_video_id

# Each round removes what the last look found; a second one is for what runs wrote meanwhile.
_ROUNDS: Final = 3


class UnknownClip(LookupError):  # noqa: N818 - a state of the deployment
    """Nothing at all is known of a clip."""


class StillThere(RuntimeError):  # noqa: N818 - a state of the deployment
    """Something wrote the clip again while it was removed."""


@dataclass(frozen=True)
class Forgotten:
    """What became of a clip.

    Attributes:
        before: Where it was.
        after: Where it still is: tombstones, what is not the pipeline's, and what learned from it.
    """

    before: Presence
    after: Presence


def find_clip(deployment: Deployment, video_id: str, say: Say = silent) -> Presence:
    """Where a clip is.

    Raises:
        BadVideoId: It can't be a clip's id.
        UnknownClip: It is nowhere.
        Exception: As `presence_of`.
    """
    found = presence_of(deployment, check_video_id(video_id), say)
    if not found.is_known:
        msg = (
            f"nothing is known of {video_id}: neither store nor ledger nor the metadata CSV has "
            "it; is the id right?"
        )
        raise UnknownClip(msg)
    return found


def forget_clip(
    deployment: Deployment, video_id: str, *, raw: bool = False, say: Say = silent
) -> Forgotten:
    """Remove a clip for good.

    Args:
        deployment: Whose store and ledger.
        video_id: The clip.
        raw: Also its raw objects, which the downloader wrote, and may write again.
        say: Told what happens.

    Raises:
        BadVideoId, UnknownClip: See `find_clip`.
        LeaseHeld: A run works on one of its dates.
        LeaseLost: This was not heard of for so long that a run has begun on one: run it again.
        StillThere: It was written again each time.
        Exception: As `find_clip` and `strip_clip`: what was removed until then is gone; run it
            again.
    """
    before = after = find_clip(deployment, video_id, say)
    for _ in range(_ROUNDS):
        if not after.remains(raw=raw):
            return Forgotten(before, after)
        with ExitStack() as stack:
            scopes = [f"{stage}/{date}" for stage in STAGES for date in after.dates]
            leases = {
                scope: stack.enter_context(deployment.ledger.lease(scope, wait_seconds=0))
                for scope in scopes
            }
            _remove(deployment, after, leases, raw=raw, say=say)
        after = presence_of(deployment, video_id, say)
    if after.remains(raw=raw):
        msg = (
            f"{video_id} was written again each time that it was removed: wait until no run is at "
            "work, then run it again"
        )
        raise StillThere(msg)
    return Forgotten(before, after)


def _remove(
    deployment: Deployment,
    found: Presence,
    leases: Mapping[str, Lease],
    *,
    raw: bool,
    say: Say,
) -> None:
    """Remove what was found, in the order in which nothing is ever left dangling."""
    layout, store, video_id = deployment.layout, deployment.store, found.video_id
    _bury(deployment, video_id)
    say(f"{video_id}: its tombstones are on record")
    for strategy in strategies_there(deployment):
        folder = layout.schema_lock(strategy).rpartition("/")[0] + "/"
        shards = [key for key in found.shards if key.startswith(folder)]
        if shards or any(key.startswith(folder) for key in found.manifests):
            strip_clip(deployment, strategy, video_id, shards, leases, say)
    for key in found.embeddings:  # no manifest names them any more
        for lease in leases.values():
            lease.check()
        store.delete(key)
    for key in found.tables:
        strip_table(deployment, key, {video_id})
    if raw:
        for key in found.raw:
            store.delete(key)


def _bury(deployment: Deployment, video_id: str) -> None:
    """Put tombstones in the place of the clip's states, and publish them.

    Each embedding stage gets one, and the fusion stage of each strategy that is in use, so that the
    clip never becomes new in it, not even to a run that has read its index before. The first
    modality's is what the others go by, and comes last: what is broken off is not done.
    """
    ledger = deployment.ledger
    now = timestamp(datetime.now(UTC))
    used = {statuses.embedding_stage(modality) for modality in MODALITIES}
    used |= {statuses.fusion_stage(strategy) for strategy in strategies_there(deployment)}
    for stage in reversed(STAGES):
        deployment.restore(stage)
        state = ledger.rows(stage, [video_id]).get(video_id)
        if state is None and stage not in used:
            continue
        if state is None or state.status != statuses.FORGOTTEN:
            ledger.commit(stage, [Item(video_id, "", now, statuses.FORGOTTEN)])
        deployment.publish(stage)
