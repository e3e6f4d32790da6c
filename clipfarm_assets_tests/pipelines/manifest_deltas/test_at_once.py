"""Readers and updates at once, and updates that stop half way."""

import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.manifest_deltas.kit import BASE, DELTAS, Bench, hooked


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


def test_a_delta_published_again_after_it_was_compacted_is_withdrawn(grown, monkeypatch):
    """A slow run publishes what another has published, compacted and removed meanwhile."""
    grown.put(2, "e")

    def rival():
        grown.update()
        grown.update("always")

    hooked(monkeypatch, "put_if_absent", DELTAS, rival)
    grown.update()
    assert grown.deltas() == [], "it says nothing that the base does not"
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
