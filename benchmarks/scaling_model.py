"""What a deployment costs as it grows, simulated day by day. Asks the real planner; moves no data.

Every day brings clips, some of them captured again without a change. They are embedded, fused into
shards of their date, and merged into the manifest. The simulation keeps what the planner decides by
(rows of base and deltas, shards, footers) and asks `ManifestOptions.compacts` itself.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines.fuse import SHARD_ROWS
from clipfarm_assets.pipelines.manifest import ManifestOptions

PAGE = 1000
_TAIL_BYTES = 1 << 19
"""What `storage.tables.parquet_footer` reads first."""


@dataclass(frozen=True)
class Scenario:
    """A deployment's life so far: `clips` over `days`, a share of each day's fused again."""

    clips: int
    days: int
    again: float = 0.0
    options: ManifestOptions = field(default_factory=ManifestOptions)
    shard_rows: int = SHARD_ROWS
    batch_size: int = 8

    def each_day(self) -> Iterator[tuple[int, int]]:
        """New clips of the day, and how many of the day before come again."""
        before = 0
        for day in range(self.days):
            new = self.clips * (day + 1) // self.days - self.clips * day // self.days
            yield new, int(before * self.again)
            before = new


@dataclass(frozen=True)
class Sizes:
    """Bytes, as measured of small stores.

    Attributes:
        manifest_row: Of a row in the base.
        footer_shard: Of a shard's key in a footer.
        footer: Of a footer without any.
        csv_row: Of a row of the metadata CSV.
        state_row: Of a row of a published state.
        shard_row: Of a row of a shard.
    """

    manifest_row: float
    footer_shard: float
    footer: float
    csv_row: float
    state_row: float
    shard_row: float


@dataclass
class Manifest:
    """A manifest's life; `requests` and `rewritten` are sums over all days.

    Attributes:
        requests: By kind and object.
        rewritten: Rows of bases that compactions wrote.
        compactions: How many there were.
        most_deltas: Deltas at most beside a base.
        rows: Of the base.
        deltas: Rows of each delta beside it.
        shards: That there are.
        last_day: Requests of the last day alone.
    """

    requests: Counter[str] = field(default_factory=Counter)
    rewritten: int = 0
    compactions: int = 0
    most_deltas: int = 0
    rows: int = 0
    deltas: list[int] = field(default_factory=list)
    shards: int = 0
    last_day: Counter[str] = field(default_factory=Counter)

    @property
    def delta_rows(self) -> int:
        """Rows beside the base."""
        return sum(self.deltas)


def manifest(scenario: Scenario, sizes: Sizes) -> Manifest:
    """Simulate `update_manifest` once a day."""
    now = Manifest()
    unique = in_base = 0  # clips that there are, and those of them that the base has
    base_shards, in_deltas = 0, list[int]()
    for new, again in scenario.each_day():
        fresh, asked = new + again, Counter[str]()
        shards = -(-fresh // scenario.shard_rows)
        now.shards, unique = now.shards + shards, unique + new
        asked["get lock"] += 1
        asked["head state"] += 1  # whether another machine forgot clips
        asked["list deltas"] += 1
        for some in in_deltas:
            asked["tail delta"] += _tails(some, sizes)
        asked["tail base"] += _tails(base_shards, sizes) if now.rows else 1
        asked["list shards"] += max(1, -(-now.shards // PAGE))
        asked["get models"] += 1
        asked["get shard"] += shards
        would_be = now.delta_rows + fresh, len(now.deltas) + 1
        if not now.rows or scenario.options.compacts(now.rows, *would_be):
            asked["list deltas"] += 1
            asked["get delta"] += len(now.deltas)
            asked["get base"] += 1
            asked["put base"] += 1
            asked["delete delta"] += len(now.deltas)
            now.rows, now.deltas, in_base = unique, [], unique
            base_shards, in_deltas = now.shards, []
            now.rewritten += in_base
            now.compactions += 1
        else:
            asked["put delta"] += 1
            asked["get lock"] += 1
            asked["tail base"] += _tails(base_shards, sizes)  # whether it looked at more meanwhile
            now.deltas.append(fresh)
            in_deltas.append(shards)
            now.most_deltas = max(now.most_deltas, len(now.deltas))
        places = {0, fresh // 2, fresh - 1}  # of the rows that are read back
        asked["get shard"] += len({place // scenario.shard_rows for place in places})
        now.requests += asked
        now.last_day = asked
    return now


def _tails(shards: int, sizes: Sizes) -> int:
    """Reads of a footer: a second one where the first was too short."""
    return 1 + (sizes.footer + shards * sizes.footer_shard > _TAIL_BYTES)


@dataclass
class Embedding:
    """What one modality's stage asked of store and ledger over all days."""

    requests: Counter[str] = field(default_factory=Counter)
    state_bytes: float = 0.0


def embedding(scenario: Scenario, sizes: Sizes) -> Embedding:
    """Simulate the stage of one modality, run once a day over that day."""
    now, rows = Embedding(), 0
    for new, _ in scenario.each_day():
        now.requests["get raw"] += new
        now.requests["put vector"] += new
        batches = -(-new // scenario.batch_size)
        now.requests["ledger insert"] += batches
        now.requests["ledger update"] += batches
        rows += new
        now.requests["put state"] += 1
        now.state_bytes += rows * sizes.state_row
    return now


def whole(scenario: Scenario, sizes: Sizes) -> dict[str, float]:
    """What the last day costs, and what lies there then: the figures of the table."""
    found = manifest(scenario, sizes)
    (*_, (new, again)) = scenario.each_day()
    clips, stages = scenario.clips, len(MODALITIES)
    return {
        "clips": clips,
        "a day": new,
        "requests a day": 2 * stages * new + 3 * (new + again) + sum(found.last_day.values()),
        "CSV GB": clips * sizes.csv_row / 1e9,
        "state GB a stage": clips * sizes.state_row / 1e9,
        "shards": found.shards,
        "list pages": max(1, -(-found.shards // PAGE)),
        "base GB": (found.rows * sizes.manifest_row + found.shards * sizes.footer_shard) / 1e9,
        "footer MB": (sizes.footer + found.shards * sizes.footer_shard) / 1e6,
        "compactions": found.compactions,
        "rewritten a clip": found.rewritten / clips,
        "most deltas": found.most_deltas,
    }
