"""New rows are published beside the base; readers see what one file would say."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.pipelines.manifest import (
    ManifestOptions,
    load_stored_manifest,
    update_manifest,
)
from clipfarm_assets_tests.pipelines.manifest_deltas.kit import (
    BASE,
    DAY,
    DELTAS,
    LAYOUT,
    LOCK,
    SHARDS,
    Bench,
)

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
    assert of_kind["tail"] == [BASE, BASE, "first delta"], "the base's once more in the end"
    assert of_kind["list"] == [DELTAS.rstrip("/"), SHARDS.rstrip("/")]
    assert of_kind["put"] == ["second delta"]
    read = [LAYOUT.shard("concat", DAY, part) for part in (2, 3, 4, 5)]
    read_back = [read[0], read[1], read[3]]
    assert [key for key in of_kind["get"] if "/fused/" in key and key != LOCK] == sorted(
        [*read, *read_back]
    )
    assert of_kind["head"] == [LAYOUT.state("video_embedding")], "who was forgotten"
    assert of_kind.keys() == {"tail", "list", "get", "put", "head"}


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


# --- shards that are gone


def test_what_replaces_rows_of_a_lost_shard_goes_into_the_base(bench):
    """Whoever reads base and deltas can't tell which shards are gone. After that, deltas again."""
    first = bench.put(5, "a", "b", captured="2026-02-09")
    bench.update()
    second = bench.put(6, "c", captured="2026-02-09")
    assert bench.update().delta
    bench.store.delete(first)
    bench.store.delete(second)
    bench.put(7, "a", "b", "c")

    update = bench.update()

    assert (update.delta, bench.deltas()) == (None, [])
    assert manifest_file.ManifestFooter.of(bench.base(), "k").settled == {first, second}
    assert bench.manifest().rows == bench.plainly().rows
    bench.put(8, "b", "d", captured="2026-02-10")
    assert bench.update().delta
    assert bench.manifest().rows == bench.plainly().rows


def test_while_a_row_leads_to_a_lost_shard_new_rows_go_into_the_base(bench):
    lost = bench.put(5, "a", "b", captured="2026-02-09")
    bench.update()
    bench.store.delete(lost)
    new = bench.put(6, "a", "c")

    assert bench.update().delta is None

    assert manifest_file.ManifestFooter.of(bench.base(), "k").settled == set()
    keys = {row["video_id"]: row["fused_key"] for row in bench.manifest().rows.to_pylist()}
    assert keys == {"a": new, "b": lost, "c": new}
    last = bench.put(7, "b")
    assert bench.update().delta is None
    assert manifest_file.ManifestFooter.of(bench.base(), "k").settled == {lost}
    assert dict(zip(bench.ids(), bench.manifest().rows["fused_key"].to_pylist(), strict=True)) == {
        "a": new,
        "b": last,
        "c": new,
    }
