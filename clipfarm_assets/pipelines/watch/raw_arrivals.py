"""Raw objects that clips waited for, and that have come.

The bucket is never listed: keys of raw media are in no order of time, so that a listing would have
to go through all of them to find the new ones. The ledger knows which clips wait for which object;
these alone are asked for, some at a time. What it costs is one request a clip that waits, however
many objects the bucket holds.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import polars as pl

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import latest_rows, read_horizon_csv
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import read_metadata

_LANES: Final = 16


@dataclass(frozen=True, order=True)
class Arrival:
    """A raw object that is there, though the clip's state says that it was missing.

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

    def look(one: tuple[Modality, str]) -> Arrival | None:
        try:
            head = deployment.store.head(deployment.layout.raw(*one))
        except FileNotFoundError:
            return None
        return Arrival(*one, head.mark)

    with ThreadPoolExecutor(_LANES) as lanes:
        found = tuple(arrival for arrival in lanes.map(look, wanted) if arrival is not None)
    goes_on = len(wanted) == limit
    return Sweep(len(wanted), found, "/".join(wanted[-1]) if goes_on else "")


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
