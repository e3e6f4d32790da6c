"""How a deployment stands: its stages in all and by date, and what lies downstream of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.statuses import STRATEGIES, Strategy
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import NoLock, load_lock
from clipfarm_assets.serving.registry import load_registry
from clipfarm_assets.storage.tables import BadTable, parquet_to_table

UNKNOWN: Final = "(none)"
"""Stands for the status of a clip that a stage has no state of."""
OUTDATED: Final = "(outdated)"
"""Stands for that of a clip of which a later capture was processed: it counts on that date."""

_ROWS_AT_ONCE: Final = 1000
_COLUMNS: Final = pa.schema([("video_id", pa.string()), ("captured_at", pa.string())])


@dataclass(frozen=True)
class StageState:
    """One stage's ledger rows.

    Attributes:
        stage: The ledger's name of it.
        items: How many.
        statuses: Status -> how many.
        changed_at: When one was written last, ISO 8601.
        published: How the object in ``state/`` compares: ``current``, ``behind`` the ledger,
            ``ahead`` of it, ``behind and ahead``, or ``none``.
    """

    stage: str
    items: int
    statuses: dict[str, int]
    changed_at: str | None
    published: str


@dataclass(frozen=True)
class DateState:
    """How the clips of one date's stored index stand in one stage.

    Attributes:
        date: ISO.
        stage: The ledger's name of it.
        clips: Of the index.
        statuses: Status -> how many of them; `UNKNOWN` and `OUTDATED` among them.
    """

    date: str
    stage: str
    clips: int
    statuses: dict[str, int]


@dataclass(frozen=True)
class StrategyState:
    """A strategy's lock and manifest.

    Attributes:
        strategy: Which.
        lock_version: In force; None without a lock.
        manifest_rows: Of ``fused_manifest.parquet``; None without one.
        manifest_lock_version: The lock that it is of.
        deltas: Files beside it.
        delta_rows: Their rows, of which some may replace others.
    """

    strategy: Strategy
    lock_version: int | None
    manifest_rows: int | None
    manifest_lock_version: int | None
    deltas: int
    delta_rows: int


@dataclass(frozen=True)
class ModelState:
    """The model that serves a horizon; the fields after it are empty where none was promoted."""

    horizon: int
    model_version: str
    family: str = ""
    strategy: str = ""
    run_id: str = ""
    promoted_at: str = ""


@dataclass(frozen=True)
class LeaseState:
    """Work that a run has to itself at the moment."""

    scope: str
    holder: str


def stage_state(deployment: Deployment, ledger: ReadOnlyLedger, stage: str) -> StageState:
    """One stage, by its rows in the database."""
    counts = ledger.counts(stage)
    return StageState(
        stage=stage,
        items=sum(counts.values()),
        statuses=counts,
        changed_at=ledger.changed_at(stage),
        published=_published(deployment, ledger, stage, bool(counts)),
    )


def _published(deployment: Deployment, ledger: ReadOnlyLedger, stage: str, has_rows: bool) -> str:
    key = deployment.layout.state(stage)
    # As `published.publish` and `restore` decide what is left to do.
    behind = has_rows and ledger.mark(stage) != ledger.published_mark(stage, key)
    try:
        ahead = deployment.store.version(key) != ledger.merged_version(stage, key)
    except FileNotFoundError:
        return "none"
    if behind and ahead:
        return "behind and ahead"
    return "behind" if behind else "ahead" if ahead else "current"


def indexed_dates(deployment: Deployment) -> list[str]:
    """The dates that have a stored index, sorted."""
    layout = deployment.layout
    listed = deployment.store.list(layout.clip_indexes_prefix())
    return sorted(date for info in listed if (date := layout.clip_index_date(info.key)))


def date_states(deployment: Deployment, date: str, stages: Sequence[str]) -> Iterator[DateState]:
    """The clips of a date's stored index, by stage; one index and few rows are in memory.

    Raises:
        BadTable: The index can't be read; names its key.
    """
    key = deployment.layout.clip_index(date)
    try:
        index = parquet_to_table(deployment.store.get(key), _COLUMNS)
    except BadTable as error:
        msg = f"{key}: {error}; materialise clips/clip_index for {date} again"
        raise BadTable(msg) from error
    for stage in stages:
        found: Counter[str] = Counter()
        for batch in index.to_batches(max_chunksize=_ROWS_AT_ONCE):
            ids, captured = (batch[name].to_pylist() for name in _COLUMNS.names)
            rows = deployment.ledger.rows(stage, ids)
            for video_id, moment in zip(ids, captured, strict=True):
                item = rows.get(video_id)
                if item is None:
                    found[UNKNOWN] += 1
                else:
                    found[OUTDATED if rules.is_outdated(item, moment) else item.status] += 1
        yield DateState(date, stage, index.num_rows, dict(sorted(found.items())))


def strategy_states(deployment: Deployment) -> list[StrategyState]:
    """Lock and manifest of every strategy, by their footers.

    Raises:
        BadLock, LockMismatch, BadManifest: An object isn't what it should be; names its key.
    """
    return [_strategy_state(deployment, strategy) for strategy in STRATEGIES]


def _strategy_state(deployment: Deployment, strategy: Strategy) -> StrategyState:
    try:
        lock = load_lock(deployment, strategy).lock_version
    except NoLock:
        lock = None
    found = manifest_store.survey(deployment, strategy)
    return StrategyState(
        strategy=strategy,
        lock_version=lock,
        manifest_rows=found.base.rows if found.base else None,
        manifest_lock_version=found.base.lock_version if found.base else None,
        deltas=len(found.deltas),
        delta_rows=sum(delta.rows for delta in found.deltas.values()),
    )


def model_states(deployment: Deployment) -> list[ModelState]:
    """The model that serves each horizon.

    Raises:
        BadRegistry: An object is no registry; names its key.
    """
    states = []
    for horizon in HORIZONS:
        registry = load_registry(deployment.store, deployment.layout, horizon)
        if not registry.current:
            states.append(ModelState(horizon, ""))
            continue
        serving = registry.serving
        states.append(
            ModelState(
                horizon,
                serving.model_version,
                serving.family,
                serving.fusion_strategy,
                serving.run_id,
                serving.promoted_at,
            )
        )
    return states


def lease_states(ledger: ReadOnlyLedger) -> list[LeaseState]:
    """What runs are at work on."""
    return [LeaseState(lease.scope, lease.holder) for lease in ledger.held_leases()]
