"""What a deployment costs as it grows, counted and simulated. ``python -m benchmarks.scaling``.

First the real planners run over stores in memory that count requests and bytes: the manifest's
updates day by day, and an embedding stage with an encoder that hashes. The simulation of
`scaling_model` is told nothing of those runs but sizes of rows, measured at the smallest; where it
counts anything else than they did, this ends with an error. Then it goes on alone, up to 1e8 clips.

No times are taken: rates are those of docs/speed.md, each with its command.
"""

import csv
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.common import begin, markdown, options
from benchmarks.memory_store import MemoryStore
from benchmarks.scaling_model import Manifest, Scenario, Sizes, embedding, manifest, whole
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.horizon_csv import COLUMNS
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.encoders.base import EmbeddingVersion, Encoded
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.manifest import ManifestOptions, update_manifest
from clipfarm_assets.storage.layout import Layout

STRATEGY = "concat"
LAYOUT = Layout()
DIMS = {"video": 2, "audio": 2, "text": 2}
LOCK = SchemaLock.of(STRATEGY, DIMS, {modality: f"{modality}-a" for modality in DIMS})
FIRST_DAY = np.datetime64("2026-01-01")
_TEXT_BYTES = 300  # of a row's description: shorts have little


def main() -> None:
    """Compare what can be run, then simulate the rest, and print tables."""
    parser = options(__doc__, repeats=None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--again", type=float, default=0.1, help="share of a day's clips")
    parser.add_argument("--largest", type=int, default=8, help="power of ten to simulate up to")
    parser.add_argument("--life", type=int, default=365, help="days of the simulated deployments")
    asked = begin(parser)
    sizes = measured_sizes(min(asked.rows), min(asked.clips))
    print(f"\nBytes a row: {sizes}\n")
    print(markdown(*compared_manifests(asked.rows, asked.days, asked.again, sizes)), "\n")
    print(markdown(*compared_stages(asked.clips, asked.days, sizes)), "\n")
    found = [
        whole(Scenario(10**power, min(asked.life, 10**power), asked.again), sizes)
        for power in range(3, asked.largest + 1)
    ]
    print(markdown(list(found[0]), [[_digits(value) for value in one.values()] for one in found]))


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# What is run


def room(key: str) -> str:
    """What of a manifest or a stage a key is."""
    parts = key.split("/")
    if "manifest_deltas" in parts:
        return "deltas" if parts[-1] == "manifest_deltas" else "delta"
    if "shards" in parts:
        return "shards" if parts[-1] == "shards" else "shard"
    names = {"schema.json": "lock", "fused_manifest.parquet": "base", "models_lock.json": "models"}
    names |= {"video_embedding.sqlite": "state"}
    rooms = {"raw": "raw", "embeddings": "vector", "metadata": "csv"}
    return names.get(parts[-1]) or rooms.get(parts[1], "other")


@dataclass(frozen=True)
class Ran:
    """A manifest that was really updated day by day.

    Attributes:
        requests: Of the store, by kind and object.
        rewritten: Rows of bases that were written.
        rows: Of the base at the end.
        deltas: Rows beside it, and how many deltas.
        most_deltas: At most.
        base_bytes: Of the base at the end.
        shard_bytes: Of all shards.
    """

    requests: Counter[str]
    rewritten: int
    rows: int
    deltas: tuple[int, int]
    most_deltas: int
    base_bytes: int
    shard_bytes: int


def run_manifest(scenario: Scenario) -> Ran:
    """Put each day's shards as fusion would, and update the manifest."""
    store = MemoryStore(room)
    store.put(LAYOUT.schema_lock(STRATEGY), LOCK.to_json())
    counted: Counter[str] = Counter()
    rewritten = first = most = 0
    last: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.sqlite'}", store.url) as ledger,
    ):
        deployment = Deployment(store, LAYOUT, ledger)
        for day, (new, again) in enumerate(scenario.each_day()):
            ids = _ids(day, first, new)
            _put_shards(store, str(FIRST_DAY + day), [*last[:again], *ids], scenario.shard_rows)
            first, last = first + new, ids
            store.reset()
            done = update_manifest(deployment, STRATEGY, options=scenario.options)
            counted += store.requests
            rewritten += done.base_rows * store.requests["put base"]
            most = max(most, done.deltas)
    shards = [size for key, size in _sizes_of(store) if room(key) == "shard"]
    base = store.size(LAYOUT.fused_manifest(STRATEGY))
    beside = done.delta_rows, done.deltas
    return Ran(counted, rewritten, done.base_rows, beside, most, base, sum(shards))


def _ids(day: int, first: int, count: int) -> list[str]:
    """Ids that look like chance and sort after those of the days before."""
    hashes = (hashlib.sha256(str(first + number).encode()).hexdigest() for number in range(count))
    return sorted(f"{day:03d}{one[:12]}" for one in hashes)


def _sizes_of(store: MemoryStore) -> Iterator[tuple[str, int]]:
    return ((key, len(data)) for key, (data, _) in store.objects.items())


def _put_shards(store: MemoryStore, date: str, ids: Sequence[str], rows: int) -> None:
    """Shards of the ids in order, whose rows look as real ones do, but for short vectors."""
    for part, start in enumerate(range(0, len(ids), rows)):
        some = ids[start : start + rows]
        n, nothing = len(some), strings([""] * len(some))
        declaration = Declaration(
            source_hash=strings([hashlib.sha256(i.encode()).hexdigest() for i in some]),
            **{
                f"{modality}_emb_key": strings([LAYOUT.embedding(modality, i) for i in some])
                for modality in DIMS
            },
            text_present=np.ones(n, np.int64),
            text_state_status=nothing,
            text_missing_reason=nothing,
            fusion_status=strings(["success_full"] * n),
            retry_count_at_write=np.zeros(n, np.int64),
            fusion_strategy=LOCK.fusion_strategy,
            lock_version=LOCK.lock_version,
            embedding_versions=strings([LOCK.embedding_versions[m] for m in DIMS]),
        )
        vectors = np.random.default_rng(part).standard_normal((n, LOCK.fused_dim), np.float32)
        captured = strings([f"{date}T12:00:00+00:00"] * n)
        shard = FusedShard(strings(some), vectors, captured, declaration)
        store.put(LAYOUT.shard(STRATEGY, date, part), shard.to_npz())


@dataclass
class Hashing:
    """An encoder without a model."""

    version: EmbeddingVersion
    is_stand_in = False
    group_size = 64
    note = "hashed"
    equivalence = None

    def prepare(self, source: Any, _deadline: object) -> bytes:
        return bytes(source.raw)

    def encode(self, prepared: Sequence[bytes]) -> list[Encoded]:
        return [Encoded(_unit(raw, self.version.dim), {"frames": 16}) for raw in prepared]


def _unit(raw: bytes, dim: int) -> np.ndarray:
    vector = np.random.default_rng(list(hashlib.sha256(raw).digest()[:8])).normal(size=dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass(frozen=True)
class RanStage:
    """An embedding stage that was run day by day; bytes are sums over the days."""

    requests: Counter[str]
    state_bytes: int
    last_state_bytes: int
    csv_bytes: int


def run_stage(scenario: Scenario) -> RanStage:
    """Fill a store, and each day index its clips and embed them."""
    store, rows, first = MemoryStore(room), list[dict[str, str]](), 0
    counted: Counter[str] = Counter()
    state = 0
    version = EmbeddingVersion("video", "hash", "r1", "0" * 64, "hash-1", {}, 768)

    def statement(_c: object, _cursor: object, text: str, *_: object) -> None:
        kind = text.split(maxsplit=1)[0].lower()
        if "items" in text or kind == "update":
            counted[f"ledger {kind}"] += 1

    with (
        tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.sqlite'}", store.url) as ledger,
    ):
        deployment = Deployment(store, LAYOUT, ledger)
        for day, (new, _) in enumerate(scenario.each_day()):
            date = str(FIRST_DAY + day)
            for number in range(first, first + new):
                video_id = f"{number:011d}"
                store.put(LAYOUT.raw("video", video_id), video_id.encode())
                rows.append(_csv_row(video_id, date))
            first += new
            store.put(LAYOUT.metadata(), _csv(rows))
            ledger.stages()
            store.reset()
            sa.event.listen(sa.Engine, "before_cursor_execute", statement)
            try:
                EmbeddingStage(
                    deployment,
                    "video",
                    lambda: Hashing(version),
                    EmbedOptions(batch_size=scenario.batch_size),
                ).run(build_index(deployment, [date]).by_date)
            finally:
                sa.event.remove(sa.Engine, "before_cursor_execute", statement)
            counted += store.requests
            state += store.moved["put state"]
    last = store.size(LAYOUT.state("video_embedding"))
    return RanStage(counted, state, last, store.size(LAYOUT.metadata()))


def _csv_row(video_id: str, date: str) -> dict[str, str]:
    return {
        **dict.fromkeys(COLUMNS, "12345"),
        "video_id": video_id,
        "url": f"https://www.youtube.com/watch?v={video_id}",
        "captured_at": f"{date}T17:34:41.595562+00:00",
        "title": f"a title of {video_id} as long as they are",
        "description": "d" * _TEXT_BYTES,
        "horizon_days": "7",
    }


def _csv(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


# What is compared


def measured_sizes(rows: int, clips: int) -> Sizes:
    """Bytes of a row of each kind, of the smallest runs."""
    one, two = (run_manifest(Scenario(n, 1)) for n in (rows, 2 * rows))
    many = run_manifest(Scenario(rows, 1, shard_rows=max(1, rows // 100)))
    few, more = (run_stage(Scenario(n, 1)) for n in (clips, 2 * clips))
    return Sizes(
        manifest_row=(two.base_bytes - one.base_bytes) / rows,
        footer_shard=(many.base_bytes - one.base_bytes) / 99,
        footer=4096,
        csv_row=(more.csv_bytes - few.csv_bytes) / clips,
        state_row=(more.last_state_bytes - few.last_state_bytes) / clips,
        shard_row=one.shard_bytes / rows,
    )


def compared_manifests(
    rows: Sequence[int], days: int, again: float, sizes: Sizes
) -> tuple[list[str], list[list[object]]]:
    """Real updates beside simulated ones, with limits of the size and a tenth of it."""
    table = []
    for clips in rows:
        usual = Scenario(clips, days, again)
        small = replace(
            usual, options=ManifestOptions(whole_rows=clips // 10, delta_share=0.5, max_deltas=4)
        )
        for name, scenario in {"defaults": usual, "small limits": small}.items():
            ran, simulated = run_manifest(scenario), manifest(scenario, sizes)
            check(ran, simulated)
            table.append(
                [
                    f"{clips:,}",
                    name,
                    sum(ran.requests.values()),
                    sum(simulated.requests.values()),
                    f"{ran.rewritten:,}",
                    f"{simulated.rewritten:,}",
                    f"{ran.base_bytes / 1e6:.3g}",
                    f"{(ran.rows * sizes.manifest_row) / 1e6:.3g}",
                    ran.most_deltas,
                ]
            )
    columns = ["rows", "limits", "requests", "simulated", "rows rewritten", "simulated"]
    return [*columns, "base MB", "by the model", "deltas at most"], table


def check(ran: Ran, simulated: Manifest) -> None:
    """Hold the simulation to what was counted.

    Raises:
        SystemExit: It counted something else.
    """
    requests = +simulated.requests
    beside = simulated.delta_rows, len(simulated.deltas)
    found = (ran.requests, ran.rewritten, ran.rows, ran.deltas, ran.most_deltas)
    model = (requests, simulated.rewritten, simulated.rows, beside, simulated.most_deltas)
    if found != model:
        raise SystemExit(f"the simulation must count what was counted: {found}, found {model}")


def compared_stages(
    clips: Sequence[int], days: int, sizes: Sizes
) -> tuple[list[str], list[list[object]]]:
    """Real embedding stages, of one modality, beside simulated ones."""
    table = []
    for count in clips:
        scenario = Scenario(count, days)
        ran, simulated = run_stage(scenario), embedding(scenario, sizes)
        counted = {name: ran.requests[name] for name in ("get raw", "put vector")}
        model = {name: simulated.requests[name] for name in counted}
        if counted != model:
            raise SystemExit(f"the simulation must count {counted}, found {model}")
        names = ("ledger insert", "ledger update")
        table.append(
            [
                f"{count:,}",
                *counted.values(),
                sum(ran.requests[name] for name in names),
                sum(simulated.requests[name] for name in names),
                f"{ran.state_bytes / 1e6:.3g}",
                f"{simulated.state_bytes / 1e6:.3g}",
                f"{ran.csv_bytes / 1e6:.3g}",
                f"{count * sizes.csv_row / 1e6:.3g}",
            ]
        )
    columns = ["clips", "GET raw", "PUT vector", "statements", "simulated", "state MB published"]
    return [*columns, "simulated", "CSV MB", "by the model"], table


if __name__ == "__main__":
    main()
