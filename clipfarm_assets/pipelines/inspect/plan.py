"""What the next run would do, found out by the functions that the run itself decides by.

The run is foreseen date by date: what each embedding stage takes up, then what fusion takes up,
supposing that what failed before fails again and that whatever else has a raw object is embedded.
Nothing is decoded, loaded or written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES, Modality
from clipfarm_assets.encoders.models import Profile
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import ClipIndex, build_index
from clipfarm_assets.pipelines.inspect.encoders import PlannedEncoder, planned_encoders
from clipfarm_assets.pipelines.inspect.foreseen import ForeseenLedger, ForeseenStore
from clipfarm_assets.pipelines.inspect.planned_embedding import plan_embedding
from clipfarm_assets.pipelines.inspect.planned_fusion import FusionPlanner
from clipfarm_assets.pipelines.inspect.planned_part import PlannedPart
from clipfarm_assets.pipelines.inspect.rates import Rate, rate
from clipfarm_assets.pipelines.inspect.run_settings import STAGES, RunSettings
from clipfarm_assets.pipelines.watch.stored_indexes import stored_index

_DECODED: Final = (statuses.SUCCESS, statuses.FAIL, statuses.FAIL_TERMINAL)


@dataclass(frozen=True)
class PlannedIndex:
    """A date's index.

    Attributes:
        date: ISO.
        clips: How many it will have.
        stored: How the stored one compares: ``missing``, ``current``, ``outdated`` or
            ``unreadable``.
    """

    date: str
    clips: int
    stored: str


@dataclass(frozen=True)
class Plan:
    """What the next run over some dates would do.

    Attributes:
        indexes: Of each date.
        parts: Of each date and stage.
        skipped: Rows and clips of the CSV in no partition, by reason.
        stops: Stage -> why the run would stop there.
        notes: What couldn't be told without doing it.
        rates: Embedding stage -> how fast it went lately; None where too little is on record.
        seconds: Expected of the embedding stages, one after the other; None if not known.
    """

    indexes: tuple[PlannedIndex, ...]
    parts: tuple[PlannedPart, ...]
    skipped: Mapping[str, int]
    stops: Mapping[str, str]
    notes: tuple[str, ...]
    rates: Mapping[str, Rate | None]
    seconds: float | None

    @property
    def fused_rows(self) -> dict[str, int]:
        """Strategy -> rows of shards to be written."""
        return {
            strategy: sum(
                n
                for part in self.parts
                if part.stage == statuses.fusion_stage(strategy)
                for status, n in part.expected.items()
                if status in statuses.FUSED
            )
            for strategy in STRATEGIES
        }


@dataclass(frozen=True)
class Planner:
    """Foresees runs of a deployment whose state has been restored, see `restore`.

    Attributes:
        deployment: Over `store` and `ledger`.
        store, ledger: Take what is foreseen.
        settings: Of the run.
        encoders: What each modality's vectors would be made with.
    """

    deployment: Deployment
    store: ForeseenStore
    ledger: ForeseenLedger
    settings: RunSettings
    encoders: Mapping[Modality, PlannedEncoder]

    def index(self) -> ClipIndex:
        """The clips of all dates, as the next run will index them.

        Raises:
            NoMetadata: The store has no metadata CSV at the configured key.
            HorizonCsvError: It is no metadata CSV.
        """
        return build_index(
            self.deployment,
            (),
            first_date=self.settings.first_date,
            last_date=self.settings.last_date,
            include_captured_at_in_hash=self.settings.include_captured_at_in_hash,
        )

    def plan(self, dates: tuple[str, str] | None = None) -> Plan:
        """The plan for the dates of a range, both included, that have clips; by default for all.

        Raises:
            NoMetadata, HorizonCsvError: See `index`.
        """
        index = self.index()
        first, last = dates or (self.settings.first_date, self.settings.last_date)
        first, last = max(first, self.settings.first_date), min(last, self.settings.last_date)
        wanted = [d for d in index.latest.rows["date"].unique().sort() if first <= d <= last]
        indexes: list[PlannedIndex] = []
        parts: list[PlannedPart] = []
        fusion = self._fusion()
        for date in wanted:
            table = index.table(date)
            indexes.append(PlannedIndex(date, table.num_rows, self._stored(date, table)))
            parts += self._parts(date, table, fusion)
        rates = {
            stage: rate(self.ledger, stage) for stage in map(statuses.embedding_stage, MODALITIES)
        }
        notes = [encoder.note for encoder in self.encoders.values() if encoder.note]
        notes += [
            f"{lease.scope} is worked on by {lease.holder}: what that run does meanwhile, this one "
            "finds done"
            for lease in self.ledger.held_leases()
        ]
        return Plan(
            indexes=tuple(indexes),
            parts=tuple(parts),
            skipped=index.skip_counts(),
            stops=fusion.stops(),
            notes=(*notes, *fusion.notes()),
            rates=rates,
            seconds=_seconds(parts, rates),
        )

    def parts_of(self, date: str, table: pa.Table) -> tuple[list[PlannedPart], dict[str, str]]:
        """What a run would do with some of a date's clips, and where it would stop."""
        fusion = self._fusion()
        return self._parts(date, table, fusion), fusion.stops()

    def _fusion(self) -> FusionPlanner:
        return FusionPlanner(self.deployment, self.settings.fusion, self.encoders)

    def _parts(self, date: str, table: pa.Table, fusion: FusionPlanner) -> list[PlannedPart]:
        with self.ledger.supposing(), self.store.supposing():
            embedding = [
                plan_embedding(
                    self.deployment,
                    self.store,
                    modality,
                    self.encoders[modality].version,
                    self.settings.embedding[modality],
                    date,
                    table,
                )
                for modality in MODALITIES
            ]
            return [*embedding, *(fusion.plan(strategy, date, table) for strategy in STRATEGIES)]

    def _stored(self, date: str, table: pa.Table) -> str:
        """How the date's stored index compares with what it will be."""
        try:
            data: bytes | FileNotFoundError = self.deployment.store.get(
                self.deployment.layout.clip_index(date)
            )
        except FileNotFoundError as error:
            data = error
        return stored_index(data, table)


def restore(deployment: Deployment, stages: Iterable[str] = STAGES) -> None:
    """Take newer rows of the published states, as a run does first."""
    for stage in stages:
        deployment.restore(stage)


def planner_of(
    deployment: Deployment,
    store: ForeseenStore,
    ledger: ForeseenLedger,
    settings: RunSettings,
    profile: Profile,
    stand_ins: Path,
) -> Planner:
    """A planner of what runs with these settings would do; restores the state, in memory.

    Args:
        deployment: Over the next two.
        store: Foresees.
        ledger: Foresees.
        settings: Of the runs.
        profile: Which default models encoders have.
        stand_ins: Folder of the stand-in models.

    Raises:
        ModelMismatch, ValueError: See `planned_encoders`.
    """
    restore(deployment)
    encoders = planned_encoders(deployment, settings.encoders, profile, stand_ins)
    return Planner(deployment, store, ledger, settings, encoders)


def _seconds(parts: Iterable[PlannedPart], rates: Mapping[str, Rate | None]) -> float | None:
    """What embedding is expected to take: fusing takes little beside it."""
    seconds = 0.0
    for part in parts:
        number = sum(n for status, n in part.expected.items() if status in _DECODED)
        if not number or part.stage not in rates:
            continue
        known = rates[part.stage]
        if known is None:
            return None
        seconds += number / known.per_second
    return seconds
