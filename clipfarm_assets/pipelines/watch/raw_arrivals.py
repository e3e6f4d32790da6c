"""Raw objects that clips waited for, and that have come.

The bucket is never listed: keys of raw media are in no order of time, so that a listing would have
to go through all of them to find the new ones. The ledger knows which clips wait for which object;
these alone are asked for, some at a time. What it costs is one request a clip that waits, however
many objects the bucket holds.

An object may have been there and have held nothing, as a transcript without words. It has come when
it is written again.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import latest_rows, read_horizon_csv
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.ledger.schema import microseconds, timestamp
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed_steps import absent
from clipfarm_assets.pipelines.index import read_metadata
from clipfarm_assets.storage.backend import ObjectHead
from clipfarm_assets.storage.layout import Layout

_LANES: Final = 16


@dataclass(frozen=True, order=True)
class Arrival:
    """A raw object that is there and was not, or held nothing, when the clip was last looked at.

    Attributes:
        modality: Of which kind.
        video_id: Of which clip.
        mark: Another one each time the object is written.
    """

    modality: Modality
    video_id: str
    mark: str


@dataclass(frozen=True)
class Sweep:
    """Some of the clips that wait, looked for.

    Attributes:
        looked_for: How many.
        arrivals: What has come.
        after: Where the next one goes on; empty for the beginning.
    """

    looked_for: int
    arrivals: tuple[Arrival, ...]
    after: str


def sweep(deployment: Deployment, ledger: ReadOnlyLedger, after: str, limit: int) -> Sweep:
    """Look for the raw objects of the next clips that wait.

    Args:
        deployment: Whose.
        ledger: Its ledger.
        after: `Sweep.after` of the one before; empty to begin.
        limit: How many to look for at most: so many requests are made.

    Raises:
        StoreUnavailable: The store doesn't answer; nothing is known then.
    """
    wanted = list(_waiting(ledger, after, limit))

    def look(one: tuple[Modality, str]) -> ObjectHead | None:
        try:
            return deployment.store.head(deployment.layout.raw(*one))
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_LANES) as lanes:
        heads = zip(wanted, lanes.map(look, wanted), strict=True)
        there = {one: head for one, head in heads if head}
    found = tuple(_arrived(deployment.layout, ledger, there))
    goes_on = len(wanted) == limit
    return Sweep(len(wanted), found, "/".join(wanted[-1]) if goes_on else "")


def _arrived(
    layout: Layout, ledger: ReadOnlyLedger, there: Mapping[tuple[Modality, str], ObjectHead]
) -> Iterator[Arrival]:
    """Those of the objects that the clips' states don't know of."""
    states = {
        modality: ledger.rows(
            statuses.embedding_stage(modality), [i for m, i in there if m == modality]
        )
        for modality in {modality for modality, _ in there}
    }
    for (modality, video_id), head in there.items():
        before = states[modality].get(video_id)
        if before is None or before.status != statuses.MISSING_RAW_OBJECT:
            continue  # a run has settled it meanwhile
        was_absent = before.error == absent(layout.raw(modality, video_id))
        if was_absent or _is_later(head.modified, before.processed_at):
            yield Arrival(modality, video_id, head.mark)


def _is_later(modified: datetime | None, processed_at: str) -> bool:
    return modified is not None and microseconds(timestamp(modified)) > microseconds(processed_at)


def _waiting(ledger: ReadOnlyLedger, after: str, limit: int) -> Iterator[tuple[Modality, str]]:
    """The next clips that wait, modality by modality, at most `limit`."""
    modality_before, _, id_before = after.partition("/")
    begin = MODALITIES.index(m) if (m := _modality(modality_before)) else 0
    for modality in MODALITIES[begin:]:
        ids = ledger.ids_after(
            statuses.embedding_stage(modality),
            {statuses.MISSING_RAW_OBJECT},
            id_before if modality == modality_before else "",
            limit,
        )
        limit -= len(ids)
        for video_id in ids:
            yield modality, video_id
        if limit <= 0:
            return


def _modality(name: str) -> Modality | None:
    return next((modality for modality in MODALITIES if modality == name), None)


def dates_of(deployment: Deployment, video_ids: Collection[str]) -> dict[str, str]:
    """The date of each of the clips that the metadata CSV has.

    Raises:
        NoMetadata: The store has no metadata CSV at the configured key.
        HorizonCsvError: It is no metadata CSV.
    """
    csv = read_horizon_csv(read_metadata(deployment), deployment.layout.metadata())
    rows = latest_rows(csv).rows.filter(pl.col("video_id").is_in(list(video_ids)))
    return dict(zip(rows["video_id"], rows["date"], strict=True))
