"""A tombstone wins over every other state, whoever writes which when."""

import itertools

import pytest

from clipfarm_assets.contracts.statuses import EMBEDDING_TERMINAL, FORGOTTEN
from clipfarm_assets.ledger import published
from clipfarm_assets.ledger.rules import delta_reason, is_forgotten, newest
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets_tests.ledger.conftest import item

BEFORE, AT, AFTER = (f"2026-02-0{day}T00:00:00.000000+00:00" for day in (4, 5, 6))
TOMBSTONE = Item("a", "", AT, FORGOTTEN)
OLDER, NEWER = (item("a", processed_at=moment) for moment in (BEFORE, AFTER))


def test_it_is_never_work():
    assert delta_reason(TOMBSTONE, "h", EMBEDDING_TERMINAL, "v2") is None
    assert is_forgotten(TOMBSTONE)
    assert not is_forgotten(NEWER)
    assert not is_forgotten(None)


@pytest.mark.parametrize("states", [*itertools.permutations([TOMBSTONE, OLDER, NEWER])])
def test_it_wins_in_whatever_order_states_are_merged(states):
    first, second, third = states
    assert newest(newest(first, second), third) == TOMBSTONE
    assert newest(first, newest(second, third)) == TOMBSTONE


def test_of_two_the_later_one_stays():
    later = Item("a", "", AFTER, FORGOTTEN)
    assert newest(TOMBSTONE, later) == newest(later, TOMBSTONE) == later


def test_no_commit_replaces_it(ledger):
    ledger.commit("s", [OLDER, item("b")])
    ledger.commit("s", [TOMBSTONE])
    ledger.commit("s", [NEWER, item("b", processed_at=AFTER)])
    assert ledger.commit_newer("s", [NEWER]) == 0
    assert ledger.rows("s") == {"a": TOMBSTONE, "b": item("b", processed_at=AFTER)}
    assert ledger.ids_of_status("s", {FORGOTTEN}) == ["a"]


def test_it_replaces_what_is_newer(ledger):
    ledger.commit("s", [NEWER])
    assert ledger.commit_newer("s", [TOMBSTONE]) == 1
    assert ledger.rows("s") == {"a": TOMBSTONE}


def test_it_is_published_over_what_another_machine_wrote_later(ledger, folder):
    key = "state/s.sqlite"
    folder.swap(key, published.items_to_sqlite({"a": NEWER}), None)
    ledger.commit("s", [TOMBSTONE])
    assert published.publish(ledger, folder, key, "s") == 1
    assert published.sqlite_to_items(folder.get(key), key) == {"a": TOMBSTONE}
    folder.put(key, published.items_to_sqlite({"a": NEWER}))
    assert published.restore(ledger, folder, key, "s") == 0
    assert ledger.rows("s") == {"a": TOMBSTONE}
