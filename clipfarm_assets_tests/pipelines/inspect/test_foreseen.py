"""A ledger and a store that are only looked at."""

import pytest

from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.inspect.foreseen import ForeseenLedger, ForeseenStore, LookedAtOnly
from clipfarm_assets_tests.pipelines.inspect.kit import files
from clipfarm_assets_tests.pipelines.kit import clips

STAGE = "video_embedding"
EARLY, LATE = "2026-02-05T10:00:00.000000+00:00", "2026-02-05T11:00:00.000000+00:00"


def item(video_id, at=EARLY, status="success", **fields):
    return Item(video_id, "h", at, status, **fields)


@pytest.fixture
def foreseen(world):
    world.ledger.commit(STAGE, [item("a"), item("b", LATE), item("c", status="fail")])
    url = f"sqlite:///{world.root / 'machine'}.sqlite"
    with ForeseenLedger.open(url, world.store.url) as ledger:
        yield ledger


def test_commits_are_seen_by_every_query_that_plans_ask_and_by_nobody_else(world, foreseen):
    foreseen.commit(STAGE, [item("b", EARLY, "fail_terminal"), item("d", details={"n": 1})])
    assert {i: row.status for i, row in foreseen.rows(STAGE).items()} == {
        "a": "success",
        "b": "fail_terminal",
        "c": "fail",
        "d": "success",
    }
    assert set(foreseen.rows(STAGE, ["b", "nobody"])) == {"b"}
    assert foreseen.columns(STAGE, ["a", "d"], "status", "details") == {
        "a": ("success", "{}"),
        "d": ("success", '{"n": 1}'),
    }
    # The database's latest is b, which is none any more.
    assert foreseen.latest(STAGE, "success").video_id == "d"
    assert foreseen.ids_of_status(STAGE, {"fail", "fail_terminal"}) == ["b", "c"]
    assert foreseen.is_ahead(STAGE, "b")
    assert not foreseen.is_ahead(STAGE, "a")
    assert world.statuses(STAGE) == {"a": "success", "b": "success", "c": "fail"}


def test_what_is_supposed_is_forgotten(foreseen):
    foreseen.commit(STAGE, [item("b", LATE, "fail")])
    with foreseen.supposing():
        foreseen.commit(STAGE, [item("b", LATE, "fail_terminal"), item("x")])
        assert foreseen.rows(STAGE, ["b"])["b"].status == "fail_terminal"
    assert foreseen.rows(STAGE, ["b", "x"])["b"].status == "fail"
    assert "x" not in foreseen.rows(STAGE)


def test_only_newer_states_are_restored(foreseen):
    assert foreseen.commit_newer(STAGE, [item("a", LATE, "fail"), item("b", EARLY, "fail")]) == 1
    assert foreseen.rows(STAGE, ["a"])["a"].status == "fail"
    assert foreseen.rows(STAGE, ["b"])["b"].status == "success"
    foreseen.set_merged_version(STAGE, "key", "v1")
    assert foreseen.merged_version(STAGE, "key") == "v1"


def test_the_store_refuses_every_way_to_write(world):
    world.fill(clips(1))
    before = files(world.root)
    store = ForeseenStore(str(world.root / "store"))
    key = world.layout.metadata()
    for write in (
        lambda: store.put(key, b""),
        lambda: store.put_if_absent("clipfarm/new", b""),
        lambda: store.swap(key, b"", None),
        lambda: store.update(key, lambda _: b"other"),
        lambda: store.delete(key),
        lambda: list(store.put_many([(key, b"")])),
        lambda: store.check_conditional_writes("clipfarm/state"),
    ):
        with pytest.raises(LookedAtOnly):
            write()
    assert files(world.root) == before
    with store.supposing():
        store.foreseen.add("clipfarm/soon")
        assert store.exists("clipfarm/soon")
    assert not store.exists("clipfarm/soon")
