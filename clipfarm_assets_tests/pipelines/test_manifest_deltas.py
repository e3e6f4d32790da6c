"""A manifest too large to be rewritten at each update: a base, and deltas beside it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import BadManifest, FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard, strings
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.manifest import (
    ManifestOptions,
    NoFusedManifest,
    load_manifest,
    load_stored_manifest,
    update_manifest,
)
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.contracts.builders import make_lock, make_shard
from clipfarm_assets_tests.stores import CountingStore

LAYOUT = Layout()
LOCK = LAYOUT.schema_lock("concat")
BASE = LAYOUT.fused_manifest("concat")
DELTAS = LAYOUT.manifest_deltas_prefix("concat")
SHARDS = LAYOUT.shards_prefix("concat")
DAY = "2026-02-05"
# Never whole because it is small, and never full.
BESIDE = {"whole_rows": 0, "delta_share": 1e9, "max_deltas": 10**6}


@dataclass
class Bench:
    """A store with a lock, into which shards are put as fusion would."""

    root: Path

    def __post_init__(self) -> None:
        self.store = CountingStore(str(self.root / "store"))
        ledger = Ledger.open(f"sqlite:///{self.root / 'ledger.sqlite'}", self.store.url)
        self.deployment = Deployment(self.store, LAYOUT, ledger)
        self.lock(1)

    def lock(self, version: int) -> None:
        lock = replace(make_lock(), lock_version=version)
        self.store.put(LOCK, lock.to_json())

    def put(self, part: int, *ids: str, captured: str = DAY, **declared) -> str:
        key = LAYOUT.shard("concat", DAY, part)
        shard = make_shard(ids, (), **declared)
        shard = replace(shard, captured_at=strings([captured] * len(ids)))
        self.store.put_if_absent(key, shard.to_npz())
        return key

    def update(self, compact: str = "auto", **options):
        chosen = ManifestOptions(compact, **{**BESIDE, **options})
        return update_manifest(self.deployment, "concat", options=chosen)

    def manifest(self) -> FusedManifest:
        return load_manifest(self.deployment, "concat")

    def ids(self) -> list[str]:
        return self.manifest().rows["video_id"].to_pylist()

    def deltas(self) -> list[str]:
        return manifest_store.list_deltas(self.deployment, "concat")

    def base(self) -> bytes:
        return self.store.get(BASE)

    def plainly(self, lock_version: int = 1) -> FusedManifest:
        """What the shards say, merged all at once by the contract's rule."""
        keys = [info.key for info in self.store.list(SHARDS)]
        shards = {key: FusedShard.from_npz(self.store.get(key), key) for key in keys}
        rows = [
            shard.manifest_rows(key)
            for key, shard in shards.items()
            if shard.lock_version() == lock_version
        ]
        return FusedManifest.empty(lock_version).merged(rows, keys)

    def check(self) -> None:
        """Readers see what the shards say; compacting makes it one file of the same bytes."""
        expected = self.plainly()
        assert self.manifest() == expected
        self.update("always")
        assert self.deltas() == []
        assert self.base() == manifest_file.to_bytes(expected)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def grown(bench):
    """A base of three clips, and one delta: a new clip, and a later row of one."""
    bench.put(0, "a", "b", "c")
    bench.update()
    bench.put(1, "b", "d", captured="2026-02-07")
    bench.update()
    assert len(bench.deltas()) == 1
    return bench


# --- publishing


def test_new_rows_are_published_beside_the_base(bench):
    bench.put(0, "a", "b", "c")
    first = bench.update()
    assert (first.rows, first.deltas, first.delta) == (3, 0, None)
    base = bench.base()
    key = bench.put(1, "b", "d", captured="2026-02-07")

    update = bench.update()

    assert bench.base() == base
    assert bench.deltas() == [update.delta]
    data = bench.store.get(update.delta)
    assert update.delta == f"{DELTAS}{hashlib.sha256(data).hexdigest()}.parquet"
    assert manifest_file.from_bytes(data, "k").shards == {key}
    assert (update.rows, update.base_rows, update.delta_rows, update.deltas) == (None, 3, 2, 1)
    assert update.new_shards == (key,)
    assert update.fresh["video_id"].to_pylist() == ["b", "d"]
    assert update.read_back == (f"b -> {key}[0]", f"d -> {key}[1]")
    assert update.manifest == bench.manifest() == bench.plainly()
    rows = bench.manifest().rows.to_pylist()
    assert [(row["video_id"], row["fused_key"] == key) for row in rows] == [
        ("a", False),
        ("b", True),
        ("c", False),
        ("d", True),
    ]
    bench.check()


def test_an_older_row_in_a_delta_does_not_win(bench):
    bench.put(0, "a", captured="2026-02-09")
    bench.update()
    bench.put(1, "a", captured="2026-02-07")
    assert bench.update().delta
    assert bench.manifest().rows["captured_at"].to_pylist() == ["2026-02-09"]
    bench.check()


def test_an_update_costs_the_same_however_large_the_base_is(tmp_path):
    """Footers, new shards and lists: no row of the base is read, and none is written again."""

    def calls(rows):
        bench = Bench(tmp_path / str(rows))
        bench.put(0, *(f"id{n}" for n in range(rows)))
        bench.update()
        bench.put(1, "x")
        first = bench.update().delta
        bench.put(2, "id0", "new2", captured="2026-02-07")
        for part in (3, 4, 5):
            bench.put(part, f"new{part}")
        bench.store.reset()
        second = bench.update().delta
        names = {first: "first delta", second: "second delta"}
        return sorted((kind, names.get(key, key)) for kind, key in bench.store.calls)

    found = calls(10)
    assert calls(2000) == found
    of_kind = {kind: [key for k, key in found if k == kind] for kind, _ in found}
    assert of_kind["tail"] == [BASE, "first delta"]
    assert of_kind["list"] == [DELTAS.rstrip("/"), SHARDS.rstrip("/")]
    assert of_kind["put"] == ["second delta"]
    read = [LAYOUT.shard("concat", DAY, part) for part in (2, 3, 4, 5)]
    read_back = [read[0], read[1], read[3]]
    assert [key for key in of_kind["get"] if "/fused/" in key and key != LOCK] == sorted(
        [*read, *read_back]
    )
    assert of_kind.keys() == {"tail", "list", "get", "put"}


def test_where_nothing_is_new_nothing_is_read_or_written(grown):
    before = {info.key: grown.store.get(info.key) for info in grown.store.list()}
    grown.store.reset()
    update = grown.update()
    assert (update.new_shards, update.read_back, update.delta, update.deltas) == ((), (), None, 1)
    assert not any(
        key.startswith(SHARDS) or key == BASE for k, key in grown.store.calls if k == "get"
    )
    assert grown.store.count("put") == grown.store.count("delete") == 0
    assert {info.key: grown.store.get(info.key) for info in grown.store.list()} == before


def test_shards_of_an_earlier_lock_are_looked_at_once(bench):
    bench.lock(2)
    bench.put(0, "a", lock_version=2)
    bench.update()
    old = bench.put(1, "b")
    assert bench.update().archived == (old,)
    assert bench.update().archived == ()
    assert bench.ids() == ["a"]
    assert bench.manifest().shards == {old, LAYOUT.shard("concat", DAY, 0)}
    assert bench.manifest() == bench.plainly(2)


def test_other_objects_among_the_deltas_are_no_deltas(grown):
    grown.store.put(f"{DELTAS}notes.txt", b"someone's note")
    grown.store.put(f"{DELTAS}{'0' * 64}/{'0' * 64}.parquet", b"deeper")
    assert len(grown.deltas()) == 1
    assert grown.ids() == ["a", "b", "c", "d"]
    grown.check()
    assert grown.store.exists(f"{DELTAS}notes.txt")


# --- when to compact


def test_up_to_a_number_of_rows_the_manifest_is_one_file(bench):
    bench.put(0, "a", "b")
    bench.update()
    bench.put(1, "c")
    assert bench.update(whole_rows=3).rows == 3
    bench.put(2, "d")
    assert bench.update(whole_rows=3).delta
    bench.put(3, "e")
    # The delta counts too.
    assert bench.update(whole_rows=4).delta
    bench.put(4, "f")
    assert bench.update(whole_rows=6).rows == 6
    bench.check()


def test_the_default_keeps_a_small_manifest_in_one_file(bench):
    for part in range(3):
        bench.put(part, f"id{part}")
        assert update_manifest(bench.deployment, "concat").rows == part + 1
    assert bench.base() == manifest_file.to_bytes(bench.plainly())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_deltas": 2}, [1, 2, 0, 1]),
        ({"max_deltas": 0}, [0, 0, 0, 0]),
        ({"delta_share": 0.5}, [1, 2, 0, 1]),  # of 4 rows 2, then of 7
        ({"compact": "always"}, [0, 0, 0, 0]),
        ({"compact": "never", "max_deltas": 0, "whole_rows": 100}, [1, 2, 3, 4]),
    ],
)
def test_deltas_are_compacted_when_there_are_many(bench, options, expected):
    bench.put(0, "a", "b", "c", "d")
    bench.update(**options)
    found = []
    for part in range(1, 5):
        bench.put(part, f"id{part}")
        update = bench.update(**options)
        assert update.deltas == len(bench.deltas())
        found.append(update.deltas)
    assert found == expected
    bench.check()


def test_deltas_left_over_are_compacted_by_an_update_without_new_shards(grown):
    assert grown.update("always").rows == 4
    assert grown.deltas() == []
    assert grown.base() == manifest_file.to_bytes(grown.plainly())


@pytest.mark.parametrize("compact", ["auto", "never"])
def test_without_a_base_one_is_made(bench, compact):
    bench.put(0, "a")
    update = bench.update(compact)
    assert (update.rows, bench.deltas()) == (1, [])


def test_a_base_that_was_lost_is_made_again_from_deltas_and_shards(grown):
    grown.store.delete(BASE)
    with pytest.raises(NoFusedManifest):
        grown.manifest()
    grown.update("never")
    assert grown.base() == manifest_file.to_bytes(grown.plainly())


# --- readers


def test_the_hash_names_what_was_read(grown):
    def sha256(data):
        return hashlib.sha256(data).hexdigest()

    grown.put(2, "e")
    grown.update()
    lines = [grown.base(), *(grown.store.get(key) for key in grown.deltas())]
    assert len(lines) == 3
    stored = load_stored_manifest(grown.deployment, "concat")
    assert stored.sha256 == sha256("\n".join(map(sha256, lines)).encode())
    grown.update("always")
    assert load_stored_manifest(grown.deployment, "concat").sha256 == sha256(grown.base())


def hooked(monkeypatch, name, match, act):
    """Do something once, before the first call of a store's method whose key contains `match`."""
    original, done = getattr(ObjectStore, name), []

    def first(store, key, *arguments, **options):
        if not done and match in str(key):
            done.append(key)
            act()
        return original(store, key, *arguments, **options)

    monkeypatch.setattr(ObjectStore, name, first)
    return done


@pytest.mark.parametrize("point", [("list", DELTAS), ("get_many", ""), ("get", BASE)])
@pytest.mark.parametrize("compact", ["always", "never"])
def test_a_reader_misses_nothing_that_was_there_when_it_began(grown, monkeypatch, point, compact):
    """Another run compacts, or publishes more, before the reader lists, reads deltas, or base."""
    before = grown.manifest()
    rival = Bench.__new__(Bench)
    rival.__dict__.update(grown.__dict__)
    grown.put(2, "e")
    done = hooked(monkeypatch, *point, lambda: rival.update(compact))

    found = grown.manifest()

    assert done
    assert found in (before, grown.plainly())
    if point[0] == "list" or (compact == "always" and point[0] == "get"):
        assert found == grown.plainly()


def test_a_survey_during_a_compaction_knows_every_shard(grown, monkeypatch):
    """The delta vanishes before its footer is read: its shard is in the base read after it."""
    done = hooked(monkeypatch, "get_tail", DELTAS, lambda: grown.update("always"))
    assert grown.update().new_shards == ()
    assert done
    assert grown.manifest() == grown.plainly()


# --- two at once, and runs that stop half way


def test_two_updates_with_the_same_shards_publish_one_delta(grown, monkeypatch):
    grown.put(2, "e")
    hooked(monkeypatch, "put_if_absent", DELTAS, grown.update)
    grown.update()
    assert len(grown.deltas()) == 2
    grown.check()


def test_a_rival_that_compacts_first_takes_nothing_away(grown, monkeypatch):
    """Its swap comes between our reading and ours: with our deltas, and with rows of its own."""
    grown.put(2, "e")

    def rival():
        grown.put(3, "f")
        grown.update("always")

    done = hooked(monkeypatch, "swap", BASE, rival)
    grown.update("always")
    assert done
    assert grown.ids() == ["a", "b", "c", "d", "e", "f"]
    assert grown.deltas() == []
    assert grown.base() == manifest_file.to_bytes(grown.plainly())


def test_a_delta_published_during_a_compaction_stays(grown, monkeypatch):
    def rival():
        grown.put(3, "f")
        grown.update()

    hooked(monkeypatch, "swap", BASE, rival)
    grown.update("always")
    assert len(grown.deltas()) == 1
    assert grown.ids() == ["a", "b", "c", "d", "f"]
    grown.check()


def test_a_delta_published_again_after_it_was_compacted_repeats_harmlessly(grown, monkeypatch):
    """A slow run publishes what another has published, compacted and removed meanwhile."""
    grown.put(2, "e")

    def rival():
        grown.update()
        grown.update("always")

    hooked(monkeypatch, "put_if_absent", DELTAS, rival)
    grown.update()
    assert len(grown.deltas()) == 1
    assert grown.manifest() == grown.plainly()
    grown.check()


class StoppedError(Exception):
    """Stands for kill -9 at this point: nothing after it happens."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("compact", "method", "match", "nth"),
    [
        ("never", "put_if_absent", DELTAS, 1),
        ("always", "swap", BASE, 1),
        ("always", "delete", DELTAS, 1),
        ("always", "delete", DELTAS, 2),
    ],
)
def test_an_update_that_stops_anywhere_is_completed_by_the_next(
    grown, monkeypatch, when, compact, method, match, nth
):
    grown.put(2, "c", "e", captured="2026-02-08")
    grown.update()
    seen = grown.manifest()
    grown.put(3, "f")
    original, calls = getattr(ObjectStore, method), []

    def stopping(store, key, *arguments):
        if match not in key:
            return original(store, key, *arguments)
        calls.append(key)
        if len(calls) == nth and when == "before":
            raise StoppedError
        result = original(store, key, *arguments)
        if len(calls) == nth:
            raise StoppedError
        return result

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, method, stopping)
        with pytest.raises(StoppedError):
            grown.update(compact)

    # Readers see it as it was, or with the new rows.
    assert grown.manifest() in (seen, grown.plainly())
    grown.update(compact)
    assert grown.manifest() == grown.plainly()
    grown.check()


# --- a change of lock


def test_deltas_of_an_earlier_lock_are_passed_over_and_removed(grown):
    old = grown.plainly()
    grown.lock(2)
    with pytest.raises(LockMismatch, match=r"of lock version 1 but version 2 is in force"):
        grown.manifest()
    new = grown.put(2, "x", lock_version=2)

    # The base is of the old lock: it is made anew, and the old deltas go.
    grown.update("never")
    assert grown.deltas() == []
    assert grown.ids() == ["x"]
    assert grown.manifest().shards == {*old.shards, new}


def test_a_late_delta_of_an_earlier_lock_changes_nothing(grown):
    late = grown.store.get(grown.deltas()[0])
    grown.lock(2)
    grown.put(2, "x", lock_version=2)
    grown.update()
    key = LAYOUT.manifest_delta("concat", hashlib.sha256(late).hexdigest())
    grown.store.put(key, late)

    assert grown.ids() == ["x"]
    grown.put(3, "y", lock_version=2)
    update = grown.update()
    assert (update.deltas, update.delta_rows) == (1, 1)
    assert grown.ids() == ["x", "y"]
    grown.update("always")
    assert grown.deltas() == []
    assert grown.base() == manifest_file.to_bytes(grown.plainly(2))


def test_a_delta_of_a_later_lock_stops_readers_and_updates(grown):
    data = manifest_file.to_bytes(FusedManifest.empty(2))
    key = LAYOUT.manifest_delta("concat", hashlib.sha256(data).hexdigest())
    grown.store.put(key, data)
    with pytest.raises(LockMismatch, match=f"{key} is of lock version 2 but version 1"):
        grown.manifest()
    before = grown.base()
    for compact in ("always", "never"):
        grown.put(7 + len(compact), "x")
        with pytest.raises(ObjectChanged, match=f"{key} was migrated to lock version 2 meanwhile"):
            grown.update(compact)
    assert grown.base() == before


def test_an_update_that_publishes_under_a_lock_just_replaced_says_so(grown, monkeypatch):
    grown.put(2, "e")
    hooked(monkeypatch, "put_if_absent", DELTAS, lambda: grown.lock(2))
    with pytest.raises(ObjectChanged, match="migrated to lock version 2 meanwhile: run again"):
        grown.update()


# --- damage, and older deployments


@pytest.mark.parametrize("damage", ["junk", "cut", "bit", "renamed", "columns", "empty"])
def test_a_delta_that_is_none_is_named(grown, damage):
    (key,) = grown.deltas()
    good = grown.store.get(key)
    bit = bytearray(good)
    bit[40] ^= 1
    columns = table_to_parquet(grown.manifest().rows.drop_columns(["shard_n"]), {})
    bad = {
        "junk": b"junk",
        "cut": good[:-40],
        "bit": bytes(bit),
        "renamed": manifest_file.to_bytes(grown.manifest()),
        "columns": columns,
        "empty": b"",
    }[damage]
    if damage == "columns":  # content as its name says, and no manifest
        grown.store.delete(key)
        key = LAYOUT.manifest_delta("concat", hashlib.sha256(bad).hexdigest())
    grown.store.put(key, bad)
    before = grown.base()

    with pytest.raises(BadManifest, match=key):
        grown.manifest()
    with pytest.raises(BadManifest, match=key):
        grown.update("always")
    assert grown.base() == before

    # As the message says: without it, its rows are made again from their shards.
    grown.store.delete(key)
    grown.update()
    assert grown.manifest() == grown.plainly()


def test_a_base_that_is_none_is_named(grown):
    grown.store.put(BASE, b"junk")
    for act in (grown.manifest, grown.update):
        with pytest.raises(BadManifest, match=f"{BASE}: not a readable parquet file"):
            act()


def test_an_older_deployments_base_is_merged_whole_once(bench):
    """Its file doesn't say which shards it was made of: rows have to, and are in no order."""
    bench.put(0, "b", "a")
    rows = bench.plainly().rows
    older = table_to_parquet(rows.take([1, 0]))
    bench.store.put(BASE, older)
    assert bench.update().new_shards == ()
    assert bench.base() == older

    bench.put(1, "c")
    assert bench.update().rows == 3
    assert bench.base() == manifest_file.to_bytes(bench.plainly())
    bench.put(2, "d")
    assert bench.update().delta
    bench.check()


# --- against the single file


SHARD = st.tuples(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True),
    st.sampled_from(["2026-02-05", "2026-02-06", "2026-02-07"]),
)
STEPS = st.lists(
    st.one_of(
        SHARD,
        st.builds(
            ManifestOptions,
            st.sampled_from(["auto", "always", "never"]),
            st.sampled_from([0, 3, 10]),
            st.sampled_from([0.3, 1e9]),
            st.integers(0, 3),
        ),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_any_sequence_of_shards_and_updates_gives_the_single_file(tmp_path_factory, steps):
    bench = Bench(tmp_path_factory.mktemp("sequence"))
    for part, step in enumerate(steps):
        if isinstance(step, ManifestOptions):
            update_manifest(bench.deployment, "concat", options=step)
            assert bench.manifest() == bench.plainly()
        else:
            ids, captured = step
            bench.put(part, *ids, captured=captured)
    bench.update("never")
    bench.check()
