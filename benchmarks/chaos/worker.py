"""What processes do: runs of the pipeline over random dates, and the commands beside them."""

import json
import logging
import os
import random
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.ledger.leases import LeaseHeld, LeaseLost
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.fuse import FuseOptions, FusionStage
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.lock import NoLock, NothingEmbedded, settle_lock
from clipfarm_assets.pipelines.manifest import (
    DanglingPointer,
    ManifestOptions,
    update_manifest,
)
from clipfarm_assets.pipelines.turns import LeaseOptions
from clipfarm_assets.pipelines.upkeep.collect import RunsAtWork, TooMany, collect
from clipfarm_assets.pipelines.upkeep.forget import StillThere, UnknownClip, forget_clip
from clipfarm_assets.pipelines.upkeep.orphans import NothingKnown, find_orphans
from clipfarm_assets.storage import s3_retries
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import (
    ObjectChanged,
    ObjectStore,
    S3Settings,
    StoreUnavailable,
)
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.pipelines.kit import Door, HashEncoder, version_of

STRATEGIES = ("concat", "max_pool")

# One sentence, and the next run goes on from there: what the documentation says of each.
EXPECTED = (
    DanglingPointer,
    LeaseHeld,
    LeaseLost,
    NoLock,
    NothingEmbedded,
    NothingKnown,
    ObjectChanged,
    RunsAtWork,
    StillThere,
    StoreUnavailable,
    TooMany,
    UnknownClip,
    sa.exc.DBAPIError,
)


@dataclass(frozen=True)
class Place:
    """Where the store and the ledger are, as a process reaches them.

    Attributes:
        store_url, s3, ledger_url: Of the deployment.
        folder: Where processes write down what became of their runs.
        ttl_seconds: Of leases.
    """

    store_url: str
    s3: S3Settings
    ledger_url: str
    folder: Path
    ttl_seconds: float

    @contextmanager
    def opened(self, s3: S3Settings | None = None) -> Iterator[Deployment]:
        """The deployment; by other settings it is reached otherwise, and is still the same one."""
        store_id = ObjectStore.open(self.store_url, self.s3).url
        store = ObjectStore.open(self.store_url, s3 or self.s3)
        with Ledger.open(self.ledger_url, store_id) as ledger:
            yield Deployment(store, Layout(), ledger)

    def note(self, **fields: object) -> None:
        """A line on what happened, written at once: lines of several processes don't mix."""
        with (self.folder / "runs.jsonl").open("a") as log:
            log.write(json.dumps(fields) + "\n")


def work(place: Place, number: int, seed: int, dates: Sequence[str]) -> None:
    """Run after run until there is a file ``stop``, or this process is killed."""
    _impatient()
    draws = random.Random(seed)
    while not (place.folder / "stop").exists():
        if (place.folder / "lull").exists():
            time.sleep(0.05)
            continue
        with _told(place, f"worker {number}"), place.opened() as deployment:
            one_run(deployment, draws, dates, place.ttl_seconds)


def duel(place: Place, seed: int, date: str) -> None:
    """One of two runs of the same partition, begun at once."""
    _impatient()
    with _told(place, "duel"), place.opened() as deployment:
        whole_run(deployment, random.Random(seed), [date], place.ttl_seconds)


def rival(place: Place, seed: int, dates: Sequence[str]) -> None:
    """Embeds what others, who are asleep, have begun."""
    _impatient()
    with _told(place, "rival"), place.opened() as deployment:
        _embed(deployment, random.Random(seed), dates, place.ttl_seconds, MODALITIES)


def gc(place: Place, older_than_seconds: float, is_alone: bool) -> None:
    """``clipfarm gc --delete``; if it is not alone, runs begin as soon as it has."""
    _impatient()
    lull = place.folder / "lull"
    with _told(place, "gc"), place.opened() as deployment:
        end = time.monotonic() + 3 * place.ttl_seconds
        while deployment.ledger.held_leases() and time.monotonic() < end:
            time.sleep(0.05)
        if not is_alone:
            lull.unlink(missing_ok=True)
        cutoff = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        done = collect(deployment, find_orphans(deployment, cutoff), max_share=1.0)
        place.note(what="gc", removed=[orphan.key for orphan in done.deleted])
    lull.unlink(missing_ok=True)


def forget(place: Place, video_id: str, raw: bool) -> None:
    """``clipfarm forget VIDEO_ID --yes``."""
    _impatient()
    with _told(place, "forget"), place.opened() as deployment:
        forget_clip(deployment, video_id, raw=raw)
        place.note(what="forgotten", clip=video_id)


def one_run(
    deployment: Deployment, draws: random.Random, dates: Sequence[str], ttl_seconds: float
) -> None:
    """Some of the steps over some of the dates."""
    some = draws.sample(dates, draws.randint(1, len(dates)))
    kind = draws.choice(["whole", "whole", "embed", "fuse", "merge"])
    if kind == "whole":
        whole_run(deployment, draws, some, ttl_seconds)
    elif kind == "embed":
        _embed(deployment, draws, some, ttl_seconds, [draws.choice(MODALITIES)])
    elif kind == "fuse":
        _fuse(deployment, draws, some, ttl_seconds)
    else:
        _merge(deployment, draws)


def whole_run(
    deployment: Deployment, draws: random.Random, dates: Sequence[str], ttl_seconds: float
) -> None:
    """Everything, from the CSV to the manifests."""
    _embed(deployment, draws, dates, ttl_seconds, MODALITIES)
    _fuse(deployment, draws, dates, ttl_seconds)
    _merge(deployment, draws)


def _embed(
    deployment: Deployment,
    draws: random.Random,
    dates: Sequence[str],
    ttl_seconds: float,
    modalities: Sequence[str],
) -> None:
    index = build_index(deployment, dates).by_date
    for date, table in index.items():
        deployment.store.put(deployment.layout.clip_index(date), table_to_parquet(table))
    options = EmbedOptions(
        batch_size=draws.randint(1, 6),
        workers=1,
        fetch_workers=2,
        encode_workers=1,
        put_workers=2,
        decode_isolation="thread",
        max_fail_retries=1,
    )
    for modality in modalities:
        EmbeddingStage(
            deployment,
            modality,
            Door(HashEncoder(version_of(modality))),
            options,
            leases=_leases(draws, ttl_seconds),
        ).run(index)


def _fuse(
    deployment: Deployment, draws: random.Random, dates: Sequence[str], ttl_seconds: float
) -> None:
    index = build_index(deployment, dates).by_date
    options = FuseOptions(
        shard_rows=draws.randint(2, 8), read_ahead=draws.randint(2, 8), max_fail_retries=1
    )
    for strategy in STRATEGIES:
        settle_lock(deployment, strategy)
        FusionStage(deployment, strategy, options, leases=_leases(draws, ttl_seconds)).run(index)


def _merge(deployment: Deployment, draws: random.Random) -> None:
    beside = ManifestOptions(whole_rows=0, delta_share=1e9, max_deltas=3)
    for strategy in STRATEGIES:
        options = draws.choice([ManifestOptions(), beside, beside])
        update_manifest(deployment, strategy, options=options)


def _leases(draws: random.Random, ttl_seconds: float) -> LeaseOptions:
    waits = draws.choice([0.0, 0.5, 2 * ttl_seconds])
    return LeaseOptions(wait_seconds=waits, ttl_seconds=ttl_seconds)


@contextmanager
def _told(place: Place, what: str) -> Iterator[None]:
    """Write down how it ended; an error that is no sentence of ours, with its trace."""
    begun = time.monotonic()
    try:
        yield
    except EXPECTED as error:
        ended = type(error).__name__
        place.note(what=what, ended=ended, told=str(error)[:300])
        time.sleep(0.1)
    except Exception as error:  # noqa: BLE001 - the parent judges it
        told = f"{error}\n{traceback.format_exc()}"
        place.note(what=what, ended="unexpected", kind=type(error).__name__, told=told)
    else:
        place.note(what=what, ended="done", seconds=time.monotonic() - begun, pid=os.getpid())


def _impatient() -> None:
    """Repeat requests sooner than against a real server, and in silence: there are thousands."""
    for name in (s3_retries.__name__, "sqlalchemy", "psycopg"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    s3_retries._FIRST_PAUSE_SECONDS = 0.01
    s3_retries._LONGEST_PAUSE_SECONDS = 0.2
